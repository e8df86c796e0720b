// SPDX-License-Identifier: MIT
#pragma once

// The whole room run.
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
