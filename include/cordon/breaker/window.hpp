// SPDX-License-Identifier: MIT
#pragma once

// Over which calls a circuit breaker computes its rates: the last n of them, or those of the last while.

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>
#include <cstdint>

namespace cordon::inline CORDON_ABI {

/// A window of calls or of time. Made by `last_calls` and `last`; checked by who uses it.
class call_window {
public:
    static constexpr std::uint32_t max_calls = 65'536, max_buckets = 1'024;
    static constexpr clock::duration min_bucket = std::chrono::milliseconds(1);

    [[nodiscard]] constexpr bool is_of_time() const noexcept { return of_time_; }
    /// How many calls; 0 for a window of time.
    [[nodiscard]] constexpr std::uint32_t calls() const noexcept { return is_of_time() ? 0 : parts_; }
    /// Over how many buckets the time is divided; 0 for a window of calls.
    [[nodiscard]] constexpr std::uint32_t buckets() const noexcept { return is_of_time() ? parts_ : 0; }
    /// How long; zero for a window of calls.
    [[nodiscard]] constexpr clock::duration span() const noexcept { return span_; }

private:
    constexpr call_window(clock::duration span, std::uint32_t parts, bool of_time) noexcept
        : span_(span), parts_(parts), of_time_(of_time) {}
    friend constexpr call_window last_calls(std::uint32_t n) noexcept;
    template <class Rep, class Period>
    friend constexpr call_window last(std::chrono::duration<Rep, Period> span, std::uint32_t buckets) noexcept;

    clock::duration span_;
    std::uint32_t parts_;
    bool of_time_;
};

/// The last `n` calls: each new one puts out the oldest.
[[nodiscard]] constexpr call_window last_calls(std::uint32_t n) noexcept { return {clock::duration::zero(), n, false}; }

/// The calls of the last while, in buckets that leave one at a time, as wholes: what is counted is between `span` less
/// one bucket and `span` old at most. With one bucket the window is fixed: all calls leave when its time is over, and
/// one that began before and ends after belongs to neither side. Of one bucket the first 268,435,455 calls count.
template <class Rep, class Period>
[[nodiscard]] constexpr call_window last(std::chrono::duration<Rep, Period> span, std::uint32_t buckets) noexcept {
    return {detail::saturated(span), buckets, true};
}
/// In ten buckets; below 200 ms in one.
/// Source:        Polly, whose rolling windows begin at 200 ms
template <class Rep, class Period>
[[nodiscard]] constexpr call_window last(std::chrono::duration<Rep, Period> span) noexcept {
    return last(span, detail::saturated(span) < std::chrono::milliseconds(200) ? 1 : 10);
}

}  // namespace cordon::inline CORDON_ABI
