// SPDX-License-Identifier: MIT
// A task runs once: whoever passes it gives it away, and is told so.
// expect: a task or an operation that has a name is passed with std::move
#include <cordon/core/task.hpp>
#include <cordon/run/start_on.hpp>

void f(cordon::executor_ref there, cordon::task<int> t) { cordon::start_on(there, t, {.name = "t"}); }
