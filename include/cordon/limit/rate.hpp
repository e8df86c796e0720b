// SPDX-License-Identifier: MIT
#pragma once

// How often something may happen: `per_second(1000)`, `per_minute(90)`, `every(30s)`. A count and a duration, kept as
// they were given, so that no rate is rounded before a limiter counts by it.

#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>
#include <compare>
#include <concepts>
#include <cstdint>
#include <numeric>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// GCC and Clang have it on every 64-bit target.
__extension__ typedef unsigned __int128 uint128;
__extension__ typedef __int128 int128;

}  // namespace detail

/// So many events per so much time; none at all, or without a limit. A regular type: equal are rates that admit the
/// same, so `per_second(1) == per_minute(60)`.
class rate {
public:
    /// None.
    constexpr rate() = default;

    /// `events` per `period`. Per nothing, or less, is without a limit; longer periods than the clock knows are cut.
    /// Errors:        `std::invalid_argument` if `events` is negative
    template <std::integral N, class Rep, class Period>
    constexpr rate(N events, std::chrono::duration<Rep, Period> period) {
        if constexpr (std::signed_integral<N>)
            detail::check_option(events >= 0, "rate", "events", events, "are 0 and more");
        const auto count = static_cast<std::uint64_t>(events);
        const std::int64_t ns = std::chrono::nanoseconds(detail::saturated(period)).count();
        if (count == 0) return;
        if (ns <= 0) {
            *this = unlimited();
        } else {
            const std::uint64_t common = std::gcd(count, static_cast<std::uint64_t>(ns));
            events_ = count / common;
            period_ = static_cast<std::uint64_t>(ns) / common;
        }
    }

    [[nodiscard]] static constexpr rate unlimited() noexcept {
        rate r;
        r.events_ = 1;
        r.period_ = 0;
        return r;
    }
    [[nodiscard]] static constexpr rate zero() noexcept { return {}; }

    [[nodiscard]] constexpr bool is_unlimited() const noexcept { return period_ == 0; }
    [[nodiscard]] constexpr bool is_zero() const noexcept { return events_ == 0; }

    /// In lowest terms: `events()` in each `period()`. Zero is 0 per 1 ns, unlimited 1 per 0 ns.
    [[nodiscard]] constexpr std::uint64_t events() const noexcept { return events_; }
    [[nodiscard]] constexpr std::chrono::nanoseconds period() const noexcept {
        return std::chrono::nanoseconds(static_cast<std::int64_t>(period_));
    }

    friend constexpr bool operator==(rate, rate) noexcept = default;
    friend constexpr std::strong_ordering operator<=>(rate a, rate b) noexcept {
        return detail::uint128{a.events_} * b.period_ <=> detail::uint128{b.events_} * a.period_;
    }

private:
    std::uint64_t events_ = 0;
    std::uint64_t period_ = 1;
};

/// `n` events in each second; as `rate(n, seconds(1))`. They come evenly, not at the beginning of each.
template <std::integral N>
[[nodiscard]] constexpr rate per_second(N n) {
    return rate(n, std::chrono::seconds(1));
}
template <std::integral N>
[[nodiscard]] constexpr rate per_minute(N n) {
    return rate(n, std::chrono::minutes(1));
}
template <std::integral N>
[[nodiscard]] constexpr rate per_hour(N n) {
    return rate(n, std::chrono::hours(1));
}

/// One event in each `interval`; an interval of nothing, or less, is without a limit.
template <class Rep, class Period>
[[nodiscard]] constexpr rate every(std::chrono::duration<Rep, Period> interval) {
    return rate(1, interval);
}

}  // namespace cordon::inline CORDON_ABI
