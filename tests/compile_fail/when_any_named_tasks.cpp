// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/scope/when_any.hpp>

cordon::task<> f(cordon::task<int> t, cordon::task<int> u) { co_await cordon::when_any(t, u); }
