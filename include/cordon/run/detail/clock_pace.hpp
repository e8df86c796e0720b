// SPDX-License-Identifier: MIT
#pragma once

// How often a busy loop looks at the clock.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// How many items run before the next look. A look costs as much as a short item, so it is taken once in 64 of them;
/// after a slow or an idle time it is taken behind the first. So a timer is late by one long item, not by 64, unless
/// items become long from one moment to the next.
class clock_pace {
public:
    static constexpr int most = 64;

    [[nodiscard]] int items() const noexcept { return items_; }
    void looked(clock::time_point now) noexcept {
        constexpr std::chrono::microseconds slow{250};
        items_ = now - last_ > slow ? 1 : items_ < most ? items_ * 2 : most;
        last_ = now;
    }

private:
    clock::time_point last_{};
    int items_ = 1;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
