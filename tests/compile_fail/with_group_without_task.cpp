// SPDX-License-Identifier: MIT
// A body that is no coroutine is easily written, where it awaits nothing.
// expect: the body takes a task_group& and returns a task
#include <cordon/core/task.hpp>
#include <cordon/scope/with_group.hpp>

cordon::task<> f() {
    auto body = [](cordon::task_group& group) { group.request_stop(); };
    co_await cordon::with_group({.name = "jobs"}, body);
}
