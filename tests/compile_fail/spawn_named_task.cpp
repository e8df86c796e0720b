// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/scope/task_group.hpp>

void f(cordon::task_group& group, cordon::task<int> t) { group.spawn(t, {.name = "t"}); }
