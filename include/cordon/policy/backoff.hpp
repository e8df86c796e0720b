// SPDX-License-Identifier: MIT
#pragma once

// How long to wait before a call is tried again: a value that says which wait follows which, and how much chance is in
// it, so that clients that failed together do not come back together.
//
//     retry(4, {.backoff = exponential(10ms, 1s, full_jitter)})

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
class backoff;
class jitter;
namespace detail {
constexpr jitter jitter_between(double least, double most) noexcept;
}

/// How much of a wait is left to chance: evenly distributed between two multiples of it. A value, made by the four
/// below.
class jitter {
public:
    /// None.
    constexpr jitter() = default;
    friend constexpr bool operator==(const jitter&, const jitter&) noexcept = default;

private:
    friend class backoff;
    friend constexpr jitter detail::jitter_between(double least, double most) noexcept;

    double least_ = 1, width_ = 0;  // a wait is multiplied by a number in [least_, least_ + width_]
};

namespace detail {
constexpr jitter jitter_between(double least, double most) noexcept {
    jitter j;
    j.least_ = least;
    j.width_ = most - least;
    return j;
}
}  // namespace detail

inline constexpr jitter no_jitter{};                                    ///< the wait d itself
inline constexpr jitter full_jitter = detail::jitter_between(0, 1);     ///< 0 to d: spreads best, the usual choice
inline constexpr jitter equal_jitter = detail::jitter_between(0.5, 1);  ///< d/2 to d: never at once

/// That share less to that share more than d: 0.25 gives 0.75 d to 1.25 d.
/// Errors:        `std::invalid_argument` if `share` is not from 0 to 1
[[nodiscard]] constexpr jitter proportional_jitter(double share);

/// Always `d`. Without a jitter, clients that fail together return together.
/// Errors:        of this and the next three: `std::invalid_argument` if a duration is negative, `max` less than the
///                first wait, or `factor` not finite or less than 1. Durations beyond the clock's are cut to its
///                longest
template <class Rep, class Period>
[[nodiscard]] constexpr backoff constant(std::chrono::duration<Rep, Period> d, jitter spread = no_jitter);

/// `step`, then twice that, three times, up to `max`.
template <class Rep1, class Period1, class Rep2, class Period2>
[[nodiscard]] constexpr backoff linear(std::chrono::duration<Rep1, Period1> step,
                                       std::chrono::duration<Rep2, Period2> max, jitter spread = no_jitter);

/// `base`, then each time `factor` times as long, up to `max`.
template <class Rep1, class Period1, class Rep2, class Period2>
[[nodiscard]] constexpr backoff exponential(std::chrono::duration<Rep1, Period1> base,
                                            std::chrono::duration<Rep2, Period2> max, jitter spread = no_jitter,
                                            double factor = 2.0);

/// Grows as `exponential(base, max)` does, but by chance, and each wait depends on the last. Spread without the peaks
/// that a jitter leaves; half of the first waits are less than about 0.9 `base`.
/// Source:        "DecorrelatedJitterBackoffV2" of Polly.Contrib.WaitAndRetry: f(t) = 2^t tanh(sqrt(4t)) with
///                t = retry number + U(0, 1), and a wait of (f(t) - f(t before)) base / 1.4
template <class Rep1, class Period1, class Rep2, class Period2>
[[nodiscard]] constexpr backoff decorrelated(std::chrono::duration<Rep1, Period1> base,
                                             std::chrono::duration<Rep2, Period2> max);

/// One of the four above; by default no wait at all. Trivially copyable, so it can be kept where it changes live.
class backoff {
public:
    constexpr backoff() = default;

    /// The wait before a retry, the first of which has the number 0.
    /// `uniform` is a random number from 0 to 1; `memory` is 0 before a call's first retry and is passed on from one to
    /// the next: only `decorrelated` uses it.
    /// Returns:       a whole number of nanoseconds, from 0 to the longest allowed. A wait is first cut to the longest,
    ///                then spread, then cut again, so that waits at the longest are still spread
    [[nodiscard]] clock::duration delay(std::uint32_t retry_number, double uniform, double& memory) const noexcept;

    friend constexpr bool operator==(const backoff&, const backoff&) noexcept = default;

private:
    template <class Rep, class Period>
    friend constexpr backoff constant(std::chrono::duration<Rep, Period> d, jitter spread);
    template <class Rep1, class Period1, class Rep2, class Period2>
    friend constexpr backoff linear(std::chrono::duration<Rep1, Period1> step,
                                    std::chrono::duration<Rep2, Period2> max, jitter spread);
    template <class Rep1, class Period1, class Rep2, class Period2>
    friend constexpr backoff exponential(std::chrono::duration<Rep1, Period1> base,
                                         std::chrono::duration<Rep2, Period2> max, jitter spread, double factor);
    template <class Rep1, class Period1, class Rep2, class Period2>
    friend constexpr backoff decorrelated(std::chrono::duration<Rep1, Period1> base,
                                          std::chrono::duration<Rep2, Period2> max);

    enum class growth : std::uint8_t { constant, linear, exponential, decorrelated };

    constexpr backoff(growth g, const char* first_name, clock::duration first, clock::duration most, jitter spread,
                      double factor);

    [[nodiscard]] clock::duration grown(std::uint32_t n) const noexcept;
    [[nodiscard]] clock::duration cut(double ns) const noexcept;

    clock::duration first_{0}, most_{0};
    double factor_ = 1;
    jitter spread_;
    growth growth_ = growth::constant;
};
static_assert(std::is_trivially_copyable_v<backoff>);

constexpr backoff::backoff(growth g, const char* first_name, clock::duration first, clock::duration most,
                           jitter spread, double factor)
    : first_(first), most_(most), factor_(factor), spread_(spread), growth_(g) {
    constexpr const char* names[] = {"constant", "linear", "exponential", "decorrelated"};
    const char* const whose = names[static_cast<std::size_t>(g)];
    detail::check_option(first >= clock::duration::zero(), whose, first_name, first, "are 0 ns and more");
    if (most < first)
        detail::refuse_option(whose, "max", most, "are " + detail::shown(first) + ", the first wait, and more");
    detail::check_option(factor >= 1 && factor <= (std::numeric_limits<double>::max)(), whose, "factor", factor,
                         "are finite numbers from 1");
}

constexpr jitter proportional_jitter(double share) {
    detail::check_option(share >= 0 && share <= 1, "proportional_jitter", "share", share, "are 0 to 1");
    return detail::jitter_between(1 - share, 1 + share);
}

template <class Rep, class Period>
constexpr backoff constant(std::chrono::duration<Rep, Period> d, jitter spread) {
    return backoff(backoff::growth::constant, "d", detail::saturated(d), (clock::duration::max)(), spread, 1);
}
template <class Rep1, class Period1, class Rep2, class Period2>
constexpr backoff linear(std::chrono::duration<Rep1, Period1> step, std::chrono::duration<Rep2, Period2> max,
                         jitter spread) {
    return backoff(backoff::growth::linear, "step", detail::saturated(step), detail::saturated(max), spread, 1);
}
template <class Rep1, class Period1, class Rep2, class Period2>
constexpr backoff exponential(std::chrono::duration<Rep1, Period1> base, std::chrono::duration<Rep2, Period2> max,
                              jitter spread, double factor) {
    return backoff(backoff::growth::exponential, "base", detail::saturated(base), detail::saturated(max), spread,
                   factor);
}
template <class Rep1, class Period1, class Rep2, class Period2>
constexpr backoff decorrelated(std::chrono::duration<Rep1, Period1> base, std::chrono::duration<Rep2, Period2> max) {
    return backoff(backoff::growth::decorrelated, "base", detail::saturated(base), detail::saturated(max), no_jitter,
                   1);
}

inline clock::duration backoff::delay(std::uint32_t retry_number, double uniform, double& memory) const noexcept {
    if (first_ == clock::duration::zero()) return first_;  // times infinity it would be no number
    if (growth_ == growth::decorrelated) {
        const double t = retry_number + uniform, before = memory;
        memory = std::exp2(t) * std::tanh(std::sqrt(4 * t));
        return cut((memory - before) * static_cast<double>(first_.count()) / 1.4);
    }
    const clock::duration d = grown(retry_number);
    if (spread_ == no_jitter) return d;
    return cut(static_cast<double>(d.count()) * (spread_.least_ + spread_.width_ * uniform));
}

/// Without the jitter, at most `most_`.
inline clock::duration backoff::grown(std::uint32_t n) const noexcept {
    if (growth_ == growth::exponential) return cut(static_cast<double>(first_.count()) * std::pow(factor_, n));
    if (growth_ == growth::constant) return first_;
    const clock::rep steps = clock::rep{n} + 1;
    return first_.count() > most_.count() / steps ? most_ : first_ * steps;
}

/// To the nearest nanosecond that is allowed; the longest for what is infinite or no number.
inline clock::duration backoff::cut(double ns) const noexcept {
    if (!(ns < static_cast<double>(most_.count()))) return most_;
    return ns > 0 ? clock::duration(static_cast<clock::rep>(ns + 0.5)) : clock::duration::zero();
}

}  // namespace cordon::inline CORDON_ABI
