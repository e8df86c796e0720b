// SPDX-License-Identifier: MIT
#pragma once

// The whole room run.
#include <cordon/run/call_blocking.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_blocking.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_group.hpp>
#include <cordon/run/thread_pool.hpp>
