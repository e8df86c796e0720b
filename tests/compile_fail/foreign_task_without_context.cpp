// SPDX-License-Identifier: MIT
// expect: this coroutine carries no cordon context
// expect: use op.with(ctx)
#include <cordon/core/task.hpp>

#include <coroutine>
#include <utility>

struct host {
    struct promise_type {
        host get_return_object() { return {}; }
        std::suspend_never initial_suspend() { return {}; }
        std::suspend_never final_suspend() noexcept { return {}; }
        void return_void() {}
        void unhandled_exception() {}
    };
};

host f(cordon::task<int> t) { co_await std::move(t); }
