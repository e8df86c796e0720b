// SPDX-License-Identifier: MIT
#pragma once

// The whole room scope.
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/future.hpp>
#include <cordon/scope/overdue.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
