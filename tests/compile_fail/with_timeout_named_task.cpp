// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/scope/with.hpp>

#include <chrono>

cordon::task<> f(cordon::task<int> t) { co_await cordon::with_timeout(std::chrono::seconds(1), t); }
