// SPDX-License-Identifier: MIT
#pragma once

// The whole room core.
#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/std_stop_token.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/core/verdict.hpp>
