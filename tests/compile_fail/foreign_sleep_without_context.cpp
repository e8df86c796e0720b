// SPDX-License-Identifier: MIT
// expect: this coroutine carries no cordon context
// expect: use op.with(ctx)
#include <cordon/time/sleep.hpp>

#include <chrono>
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

host f() { co_await cordon::sleep_for(std::chrono::seconds(1)); }
