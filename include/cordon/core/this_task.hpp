// SPDX-License-Identifier: MIT
#pragma once

// What a task can ask about itself. None of these suspends, but for `yield`.
//
//     const bool stop = co_await this_task::stop_requested();  // named: g++ 12 breaks some conditions with a co_await
//     if (stop) co_return;
//     const std::string* id = co_await this_task::get(request_id);

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/operation.hpp>

#include <coroutine>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label yield_label{"yield"};

/// Goes to the back of the executor's queue. Not a leaf with a stop callback: it is resumed soon enough anyway.
class yield_operation : public operation_base<yield_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    class state : private work_item {
    public:
        explicit state(yield_operation&&) noexcept : work_item(&state::wake) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r, const wait_label& what = yield_label) noexcept {
            if (r.ctx().stop_token().stop_requested()) return r.stop_later();
            receiver_ = r;
            note_wait(r, what);
            submit(r.ctx(), *this);
            return std::noop_coroutine();
        }
        outcome<void> take() noexcept { return {}; }

    private:
        static void wake(work_item& item) noexcept {
            auto& s = static_cast<state&>(item);
            note_running(s.receiver_);
            resume(s.receiver_.complete());
        }
        receiver_ref receiver_;
    };
};

/// Ends as if stopped by its own context: for combinators that pass a stop on after they have cleaned up.
class stopped_operation : public operation_base<stopped_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = false;

    class state {
    public:
        explicit state(stopped_operation&&) noexcept {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return r.stop_later(); }
        outcome<void> take() noexcept { return outcome<void>::stopped(); }
    };
};

}  // namespace detail

namespace this_task {

/// The deadline in effect. Yields `cordon::deadline`.
[[nodiscard]] inline auto deadline() noexcept {
    return detail::context_query([](const context& c) noexcept { return c.deadline(); });
}

/// The value bound to `key`. Yields `const T*`, null where nobody bound one.
template <class T>
[[nodiscard]] auto get(const context_key<T>& key) noexcept {
    return detail::context_query([k = &key](const context& c) noexcept { return c.get(*k); });
}

/// Yields the `inplace_stop_token` in effect.
[[nodiscard]] inline auto stop_token() noexcept {
    return detail::context_query([](const context& c) noexcept { return c.stop_token(); });
}

/// Whether to stop now: for long computations. Yields bool, and notices a passed deadline, too.
[[nodiscard]] inline auto stop_requested() noexcept {
    return detail::context_query([](const context& c) noexcept { return c.stop_requested(); });
}

/// Yields the `executor_ref` that this task runs on.
[[nodiscard]] inline auto executor() noexcept {
    return detail::context_query([](const context& c) noexcept { return c.executor(); });
}

/// Yields a pointer to the whole context, valid as long as the scopes around this `co_await` are.
[[nodiscard]] inline auto context() noexcept {
    return detail::context_query([](const cordon::context& c) noexcept {
        detail::context_access::arm(c);  // since other threads may now ask it whether to stop
        return &c;
    });
}

/// Lets what else is ready on this executor run first.
/// Cancellation:  a cancel point when it is entered
[[nodiscard]] inline auto yield() noexcept { return detail::yield_operation(); }

/// Ends this task as stopped: what it awaits next never happens. Yields nothing, since it does not return.
[[nodiscard]] inline auto stop() noexcept { return detail::stopped_operation(); }

}  // namespace this_task
}  // namespace cordon::inline CORDON_ABI
