// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A quantile of the last latencies that it was told, exact as of the last time that it was computed.
/// Threads:       all members from any; moved while nobody uses it
/// Cost:          of `add` a lock of a few instructions, and with each 64th latency a selection among the last 256;
///                of `value` a load
class latency_quantile {
public:
    static constexpr std::size_t warm_up = 20;  ///< latencies before the first value

    latency_quantile() = default;
    latency_quantile(latency_quantile&& other) noexcept
        : told_(other.told_), last_(other.last_), value_(other.value_.load(std::memory_order_relaxed)) {}

    /// The smallest that at least the share `q` of the last latencies does not exceed; less than zero before there is
    /// one.
    [[nodiscard]] clock::duration value() const noexcept {
        return clock::duration(value_.load(std::memory_order_relaxed));
    }
    void add(clock::duration latency, double q) noexcept {
        std::array<std::int64_t, kept> seen;
        std::size_t n = 0;
        {
            const spin_guard guard(lock_);
            last_[told_++ % kept] = std::max<std::int64_t>(latency.count(), 0);
            if (told_ < warm_up || (told_ - warm_up) % between != 0) return;
            n = std::min(told_, kept);
            std::copy_n(last_.begin(), n, seen.begin());
        }
        const auto wanted = static_cast<std::size_t>(std::ceil(q * static_cast<double>(n)));
        const auto nth = seen.begin() + static_cast<std::ptrdiff_t>(std::clamp<std::size_t>(wanted, 1, n) - 1);
        std::nth_element(seen.begin(), nth, seen.begin() + static_cast<std::ptrdiff_t>(n));
        value_.store(*nth, std::memory_order_relaxed);
    }

private:
    static constexpr std::size_t kept = 256, between = 64;

    spin_lock lock_;
    std::size_t told_ = 0;                   // under lock_
    std::array<std::int64_t, kept> last_{};  // under lock_
    std::atomic<std::int64_t> value_{-1};    // relaxed: whoever reads it needs nothing else
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
