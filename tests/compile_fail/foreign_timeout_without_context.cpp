// SPDX-License-Identifier: MIT
// expect: this coroutine carries no cordon context
// expect: use op.with(ctx)
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>

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

host f(cordon::async_semaphore& s) { co_await cordon::with_timeout(std::chrono::seconds(1), s.acquire()); }
