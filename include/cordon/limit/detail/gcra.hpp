// SPDX-License-Identifier: MIT
#pragma once

// A token bucket as one number: the position on a time line at which the bucket will be full again, counted in units
// in which a token is a whole number of them. A request of n tokens moves the position n costs further, and is admitted
// if it is then not more than a window, which is a burst of costs, ahead of now.
// Source: GCRA, ITU-T I.371 A.1; a weight moves the position by a multiple.

#include <cordon/core/detail/config.hpp>
#include <cordon/limit/rate.hpp>

#include <algorithm>
#include <cstdint>
#include <limits>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// The units of a rate and a burst.
///  G1  `units` is monotone, and `ns_at(u)` is the first nanosecond at which `units` has come to u: so who waits until
///      then is not early, and one nanosecond before it would have been.
///  G2  A window is at most `largest_window`, a time within `reach` at most twice that, and no position is beyond four
///      times that: so a position and another window fit in 59 bits.
///  G3  If the events of a rate in lowest terms are at most `finest`, and the window fits, a unit is a nanosecond
///      divided by them, and nothing is ever rounded. Otherwise the unit is a power of two of nanoseconds and the cost
///      is rounded up, by less than 1/1024 ns where the window has room for that: no more is admitted than asked for.
struct gcra {
    static constexpr std::uint64_t largest_window = std::uint64_t{1} << 56;
    static constexpr std::uint64_t farthest = std::uint64_t{1} << 58;  ///< no position is beyond
    static constexpr std::uint64_t never = std::numeric_limits<std::uint64_t>::max();

    std::uint64_t multiplier = 0;  ///< units = ns * multiplier >> shift; 0: time changes nothing
    std::uint32_t shift = 0;
    std::uint64_t cost = 0;        ///< of one token; 0: unlimited
    std::uint64_t window = 0;
    std::uint64_t burst = 0;       ///< at most `largest_window`
    std::uint64_t reach = 0;       ///< the largest ns that `units` may be asked for

    gcra() = default;
    /// `finest` is a power of two: the larger it is, the more is exact, and the sooner times are out of reach.
    gcra(rate r, std::uint64_t most, std::uint64_t finest = std::uint64_t{1} << 20) noexcept
        : burst(std::min(most, largest_window)), reach(std::numeric_limits<std::int64_t>::max()) {
        const std::uint64_t events = r.events();
        const auto period = static_cast<std::uint64_t>(r.period().count());
        if (r.is_unlimited()) return;
        if (r.is_zero()) {
            cost = 1;
        } else if (events <= finest && uint128{period} * std::max<std::uint64_t>(burst, 1) <= largest_window) {
            multiplier = events;
            cost = period;
        } else {
            round(events, period, finest);
        }
        window = cost * burst;
        if (multiplier != 0 && shift < 7) reach = std::min(reach, (2 * largest_window << shift) / multiplier);
    }

    [[nodiscard]] std::uint64_t units(std::uint64_t ns) const noexcept { return ns * multiplier >> shift; }  // G2
    /// For any time, cut at `farthest`.
    [[nodiscard]] std::uint64_t far_units(std::uint64_t ns) const noexcept {
        const uint128 u = uint128{ns} * multiplier >> shift;
        return u < farthest ? static_cast<std::uint64_t>(u) : farthest;
    }
    [[nodiscard]] std::uint64_t ns_at(std::uint64_t u) const noexcept {
        if (u == 0) return 0;
        if (multiplier == 0) return never;
        const uint128 ns = ((uint128{u} << shift) + (multiplier - 1)) / multiplier;
        return ns < std::uint64_t{std::numeric_limits<std::int64_t>::max()} ? static_cast<std::uint64_t>(ns) : never;
    }
    /// The time from `ns` to `ns_at(u)`.
    [[nodiscard]] std::uint64_t ns_from(std::uint64_t ns, std::uint64_t u) const noexcept {
        const std::uint64_t then = ns_at(u);
        return then == never ? never : then <= ns ? 0 : then - ns;
    }

private:
    void round(std::uint64_t events, std::uint64_t period, std::uint64_t finest) noexcept {
        const std::uint64_t tokens = std::max<std::uint64_t>(burst, 1);
        int scale = finest >= 1024 ? 10 : 4;
        for (;; --scale) {
            const uint128 numerator = scale > 0 ? uint128{period} << scale : uint128{period};
            const uint128 denominator = scale > 0 ? uint128{events} : uint128{events} << -scale;
            const uint128 each = (numerator + denominator - 1) / denominator;
            if (each > largest_window || each * tokens > largest_window) continue;
            cost = static_cast<std::uint64_t>(each);
            break;
        }
        multiplier = scale > 0 ? std::uint64_t{1} << scale : 1;
        shift = scale > 0 ? 0 : static_cast<std::uint32_t>(-scale);
    }
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
