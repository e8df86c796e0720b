// SPDX-License-Identifier: MIT
#pragma once

// Waiting for a time: `co_await sleep_for(5ms)`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/operation.hpp>

#include <coroutine>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label sleep_label{"sleep"};

/// Waits until a deadline passes, by a timer of the executor in effect.
class sleep_operation : public operation_base<sleep_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    explicit sleep_operation(deadline until) noexcept : until_(until) {}

    class state : private timer, public leaf<state> {
    public:
        explicit state(sleep_operation&& s) noexcept : timer(&state::fired) { when = s.until_.time(); }

        bool ready() const noexcept { return when == clock::time_point::min(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
        outcome<void> take() noexcept { return {}; }

    private:
        friend class leaf<state>;
        timer_service& timers() const noexcept { return receiver().ctx().executor().timers(); }
        void enqueue() noexcept {
            if (deadline::at(when).is_never()) return;
            if (!receiver().ctx().executor())
                fail("sleeping in a context without an executor: nobody is there to wake it");
            timers().arm(*this);
        }
        void dequeue(bool was_stopped) noexcept {
            if (!deadline::at(when).is_never()) timers().cancel(*this);
            (void)was_stopped;
        }
        const wait_label& label() const noexcept { return sleep_label; }
        static void fired(timer& t) noexcept { static_cast<state&>(t).complete(); }
    };

private:
    deadline until_;
};

}  // namespace detail

/// Waits until `d` has passed, counted from this call; not at all if `d` is zero or less.
/// Cancellation:  a cancel point; ends at once when stopped
/// Threads:       the timer is one of the executor in effect, which resumes the task
/// Order:         sleepers that are due at the same time go on in the order in which they began
/// Cost:          one timer in the awaiting frame; no allocation
template <class Rep, class Period>
[[nodiscard]] detail::sleep_operation sleep_for(std::chrono::duration<Rep, Period> d) noexcept {
    if (d <= std::chrono::duration<Rep, Period>::zero())
        return detail::sleep_operation(deadline::at(clock::time_point::min()));
    return detail::sleep_operation(deadline::after(d));
}

/// Waits until the clock shows `when`; not at all if it does already. As `sleep_for` otherwise.
[[nodiscard]] inline detail::sleep_operation sleep_until(clock::time_point when) noexcept {
    return detail::sleep_operation(deadline::at(when <= clock::now() ? clock::time_point::min() : when));
}

}  // namespace cordon::inline CORDON_ABI
