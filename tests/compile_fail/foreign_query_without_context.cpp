// SPDX-License-Identifier: MIT
// expect: derive its promise from cordon::context_carrier, or pass what you need as an argument
#include <cordon/core/this_task.hpp>

#include <coroutine>

struct host {
    struct promise_type {
        host get_return_object() { return {}; }
        std::suspend_never initial_suspend() { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
};

host f() { (void)co_await cordon::this_task::deadline(); }
