// SPDX-License-Identifier: MIT
#pragma once

// An absolute point on cordon's clock by which something must have ended: `deadline::after(2s)`. Passed on as it is,
// it never grows on the way down: what is nested takes the earlier one.

#include <cordon/core/clock.hpp>

#include <chrono>
#include <compare>
#include <cstdint>
#include <ratio>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// `d` in the clock's unit; what does not fit becomes the largest or smallest duration instead of wrapping around.
template <class Rep, class Period>
[[nodiscard]] constexpr clock::duration saturated(std::chrono::duration<Rep, Period> d) noexcept {
    if constexpr (std::is_integral_v<Rep> && std::ratio_greater_equal_v<Period, clock::period>) {
        constexpr auto most = std::chrono::duration_cast<std::chrono::duration<std::int64_t, Period>>(
            (clock::duration::max)());
        if (std::cmp_greater(d.count(), most.count())) return (clock::duration::max)();
        if (std::cmp_less(d.count(), -most.count())) return (clock::duration::min)();
    } else {
        constexpr double most = 9.2e9;  // seconds; the clock's 64-bit nanoseconds end at 9.223e9
        const double seconds = std::chrono::duration_cast<std::chrono::duration<double>>(d).count();
        if (seconds >= most) return (clock::duration::max)();
        if (!(seconds > -most)) return (clock::duration::min)();  // what is no number has passed
    }
    return std::chrono::duration_cast<clock::duration>(d);
}

}  // namespace detail

/// When something must have ended. The default never passes.
class deadline {
public:
    constexpr deadline() = default;

    /// The one that never passes.
    [[nodiscard]] static constexpr deadline never() noexcept { return {}; }

    /// `d` from now, or from a time that is not long past; zero or less has passed already, and what the clock cannot
    /// hold never passes.
    template <class Rep, class Period>
    [[nodiscard]] static deadline after(std::chrono::duration<Rep, Period> d,
                                        clock::time_point from = clock::now()) noexcept {
        const clock::duration wait = detail::saturated(d);
        if (wait <= clock::duration::zero()) return at(from);
        if (wait > (clock::time_point::max)() - from) return never();
        return at(from + wait);
    }

    [[nodiscard]] static constexpr deadline at(clock::time_point when) noexcept {
        deadline result;
        result.when_ = when;
        return result;
    }

    [[nodiscard]] constexpr clock::time_point time() const noexcept { return when_; }
    [[nodiscard]] constexpr bool is_never() const noexcept { return when_ == (clock::time_point::max)(); }
    [[nodiscard]] bool expired() const noexcept { return !is_never() && clock::now() >= when_; }

    /// The time left: zero once passed, `duration::max()` if it never passes.
    [[nodiscard]] clock::duration remaining() const noexcept {
        if (is_never()) return (clock::duration::max)();
        const clock::time_point now = clock::now();
        return now < when_ ? when_ - now : clock::duration::zero();
    }

    /// This deadline, moved earlier by `reserve`: time kept back for the answer.
    [[nodiscard]] constexpr deadline less(clock::duration reserve) const noexcept {
        if (is_never()) return *this;
        constexpr clock::time_point earliest = (clock::time_point::min)(), latest = (clock::time_point::max)();
        if (reserve > clock::duration::zero()) return at(when_ < earliest + reserve ? earliest : when_ - reserve);
        return at(when_ > latest + reserve ? latest : when_ - reserve);
    }

    friend constexpr auto operator<=>(deadline, deadline) noexcept = default;

private:
    clock::time_point when_ = (clock::time_point::max)();
};

namespace detail {

/// A deadline, or a duration from now: what a constructor takes that both mean something to.
class time_limit {
public:
    time_limit() = default;
    time_limit(cordon::deadline d) noexcept : until(d) {}
    template <class Rep, class Period>
    time_limit(std::chrono::duration<Rep, Period> d) noexcept : until(cordon::deadline::after(d)) {}

    cordon::deadline until;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
