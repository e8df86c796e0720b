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
#include <cstdint>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct timeout_options {
    std::string_view name = {};
};

namespace detail {

/// A deadline that counts when it has ended a call.
class timeout_attribute : public deadline_attribute {
public:
    timeout_attribute(clock::duration d, const std::source_location& where, std::atomic<std::uint64_t>& count) noexcept
        : deadline_attribute(d, where), counted_(&count) {}

    class layer;

private:
    std::atomic<std::uint64_t>* counted_;
};

class timeout_attribute::layer : public deadline_attribute::layer {
public:
    explicit layer(timeout_attribute&& a) noexcept : deadline_attribute::layer(std::move(a)), counted_(a.counted_) {}
    [[nodiscard]] bool timed_out() const noexcept {
        const bool passed = deadline_attribute::layer::timed_out();
        if (passed) counted_->fetch_add(1, std::memory_order_relaxed);
        return passed;
    }

private:
    std::atomic<std::uint64_t>* counted_;
};

}  // namespace detail

/// Made by `timeout(d)`.
/// Errors:        of a call: `timeout_error` that says where the timeout was made; the call is stopped, and waited for
/// Cancellation:  what stops the call from further out is no timeout
/// Order:         under an earlier deadline that one counts
/// Threads:       all members from any; moved while nobody uses it
/// Lifetime:      outlives its calls
/// Cost:          no frame and no allocation of its own; a reading of the clock. A call that ends without suspending arms
///                no timer
class timeout_policy {
public:
    static constexpr std::string_view kind = "timeout";

    struct snapshot {
        std::uint64_t timed_out = 0;  ///< calls that it has ended, since it was made
    };

    timeout_policy(clock::duration d, const timeout_options& options, const std::source_location& where)
        : where_(where), name_(options.name) {
        set(d);
    }
    timeout_policy(timeout_policy&& other) noexcept
        : duration_(other.duration()), timed_out_(other.stats().timed_out), where_(other.where_),
          name_(std::move(other.name_)) {}

    /// For the calls that begin from now on; the name stays.
    /// Errors:        `std::invalid_argument` if it is not positive
    void set(clock::duration d) {
        detail::check_option(d > clock::duration::zero(), "timeout", "the duration", d, "is what is positive");
        duration_.store(d, std::memory_order_relaxed);
    }
    [[nodiscard]] clock::duration duration() const noexcept { return duration_.load(std::memory_order_relaxed); }

    /// `call()` within that time.
    template <detail::makes_awaitable F>
    [[nodiscard]] auto operator()(F&& call) const {
        return with(detail::call_of(std::forward<F>(call)), detail::timeout_attribute(duration(), where_, timed_out_));
    }

    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] snapshot stats() const noexcept { return {timed_out_.load(std::memory_order_relaxed)}; }
    template <class Sink>
    void report(Sink& sink) const {
        sink.counter("timed_out", stats().timed_out, "Calls that took too long and were stopped.");
    }

private:
    std::atomic<clock::duration> duration_;
    mutable std::atomic<std::uint64_t> timed_out_{0};
    std::source_location where_;
    std::string name_;
};

/// Within `d`, counted from where the call comes by.
/// Errors:        `std::invalid_argument` if `d` is not positive
template <class Rep, class Period>
[[nodiscard]] timeout_policy timeout(std::chrono::duration<Rep, Period> d, const timeout_options& options = {},
                                     std::source_location where = std::source_location::current()) {
    return timeout_policy(detail::saturated(d), options, where);
}

}  // namespace cordon::inline CORDON_ABI
