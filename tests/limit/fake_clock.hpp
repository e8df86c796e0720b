// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/clock.hpp>

#include <chrono>

/// A clock on this thread that a test sets by hand, also back: no simulation goes back, but a limiter has to bear it.
class fake_clock {
public:
    explicit fake_clock(std::chrono::nanoseconds start = std::chrono::hours(1)) noexcept : now_(start) {
        cordon::detail::simulations.fetch_add(1);
        cordon::detail::virtual_now = &now_;
    }
    fake_clock(const fake_clock&) = delete;
    fake_clock& operator=(const fake_clock&) = delete;
    ~fake_clock() {
        cordon::detail::virtual_now = nullptr;
        cordon::detail::simulations.fetch_sub(1);
    }

    [[nodiscard]] cordon::clock::time_point now() const noexcept { return now_; }
    void set(cordon::clock::time_point t) noexcept { now_ = t; }
    void advance(std::chrono::nanoseconds d) noexcept { now_ += d; }

private:
    cordon::clock::time_point now_;
};
