// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/run/sync_wait.hpp>

void f(cordon::task<int> t) { cordon::sync_wait(t); }
