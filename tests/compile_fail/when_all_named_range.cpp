// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a range of tasks that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/scope/when_all.hpp>

#include <vector>

cordon::task<> f(std::vector<cordon::task<int>> tasks) { co_await cordon::when_all(tasks); }
