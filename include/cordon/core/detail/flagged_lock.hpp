// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A spin lock and a flag in one byte. The flag is raised by the very store that unlocks, so whoever sees it raised may
/// destroy what the lock protects: the one who raised it touches nothing any more.
class flagged_lock {
public:
    explicit flagged_lock(bool raised = false) noexcept : word_(raised ? flag : std::uint8_t{0}) {}

    /// Whether the flag is up. Order: what was written before it was raised is visible.
    [[nodiscard]] bool raised() const noexcept { return (word_.load(std::memory_order_acquire) & flag) != 0; }

    void lock() noexcept {
        std::uint8_t seen = word_.load(std::memory_order_relaxed);
        for (spin_wait wait;;) {
            if ((seen & locked) != 0) {
                wait();
                seen = word_.load(std::memory_order_relaxed);
            } else if (word_.compare_exchange_weak(seen, static_cast<std::uint8_t>(seen | locked),
                                                   std::memory_order_acquire, std::memory_order_relaxed)) {
                return;
            }
        }
    }
    /// Requires: locked by the caller.
    [[nodiscard]] bool raised_inside() const noexcept { return (word_.load(std::memory_order_relaxed) & flag) != 0; }
    void unlock() noexcept { unlock(raised_inside()); }
    void unlock(bool raise) noexcept { word_.store(raise ? flag : std::uint8_t{0}, std::memory_order_release); }

private:
    static constexpr std::uint8_t flag = 1, locked = 2;
    std::atomic<std::uint8_t> word_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
