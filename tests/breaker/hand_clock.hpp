// SPDX-License-Identifier: MIT
#pragma once

// Virtual time without tasks: a clock that a test moves by hand, also backwards, which no simulation does.

#include <cordon/core/clock.hpp>

#include <chrono>

namespace breaker_test {

class hand_clock {
public:
    hand_clock() noexcept {
        cordon::detail::simulations.fetch_add(1);
        cordon::detail::virtual_now = &now_;
    }
    hand_clock(const hand_clock&) = delete;
    hand_clock& operator=(const hand_clock&) = delete;
    ~hand_clock() {
        cordon::detail::virtual_now = nullptr;
        cordon::detail::simulations.fetch_sub(1);
    }
    void operator+=(cordon::clock::duration d) noexcept { now_ += d; }
    [[nodiscard]] cordon::clock::time_point now() const noexcept { return now_; }
    /// So long after the clock was made.
    void set(cordon::clock::duration at) noexcept { now_ = cordon::clock::time_point(start) + at; }

private:
    static constexpr auto start = std::chrono::hours(1);
    cordon::clock::time_point now_{start};
};

}  // namespace breaker_test
