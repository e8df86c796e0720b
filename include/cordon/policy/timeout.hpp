// SPDX-License-Identifier: MIT
#pragma once

// A bound on the time of a call: the whole of it outside a `retry`, each attempt inside one.
//
//     pipeline(timeout(2s), retry(3), timeout(500ms))

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/scope/with.hpp>

#include <atomic>
#include <chrono>
#include <source_location>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// Made by `timeout(d)`.
/// Errors:        of a call: `timeout_error` that says where the timeout was made; the call is stopped, and waited for
/// Cancellation:  what stops the call from further out is no timeout
/// Order:         under an earlier deadline that one counts
/// Threads:       all members from any; moved while nobody uses it
class timeout_policy {
public:
    timeout_policy(clock::duration d, const std::source_location& where) : where_(where) { set(d); }
    timeout_policy(timeout_policy&& other) noexcept : duration_(other.duration()), where_(other.where_) {}

    /// For the calls that begin from now on.
    /// Errors:        `std::invalid_argument` if it is not positive
    void set(clock::duration d) {
        detail::check_option(d > clock::duration::zero(), "timeout", "the duration", d, "is what is positive");
        duration_.store(d, std::memory_order_relaxed);
    }
    [[nodiscard]] clock::duration duration() const noexcept { return duration_.load(std::memory_order_relaxed); }

    /// `call()` within that time.
    template <detail::makes_awaitable F>
    [[nodiscard]] auto operator()(F&& call) const {
        return with(detail::call_of(std::forward<F>(call)), within(duration(), where_));
    }

private:
    std::atomic<clock::duration> duration_;
    std::source_location where_;
};

/// Within `d`, counted from where the call comes by.
/// Errors:        `std::invalid_argument` if `d` is not positive
template <class Rep, class Period>
[[nodiscard]] timeout_policy timeout(std::chrono::duration<Rep, Period> d,
                                     std::source_location where = std::source_location::current()) {
    return timeout_policy(detail::saturated(d), where);
}

}  // namespace cordon::inline CORDON_ABI
