// SPDX-License-Identifier: MIT
#pragma once

// The whole room observe.
#include <cordon/observe/leak_watchdog.hpp>
#include <cordon/observe/prometheus.hpp>
#include <cordon/observe/registry.hpp>
#include <cordon/observe/task_dump.hpp>
