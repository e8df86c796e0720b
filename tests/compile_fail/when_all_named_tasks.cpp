// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/scope/when_all.hpp>

#include <utility>

cordon::task<> f(cordon::task<int> t, cordon::task<int> u) { co_await cordon::when_all(std::move(t), u); }
