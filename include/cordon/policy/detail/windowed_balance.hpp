// SPDX-License-Identifier: MIT
#pragma once

// A balance that what was paid in and taken out leaves again when it is a window old; the floor stays. The window moves
// in tenths of it.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Times are nanoseconds of any clock, and may differ between threads or jump: one before the slot that is open counts
/// as inside it.
/// Threads:       all members from any
/// Cost:          a load and an exchange, or a load alone to refuse; once per slot a lock of a few instructions
class windowed_balance {
public:
    static constexpr std::int64_t slots = 10;

    /// Requires:      `slot_ns` is more than 0; no time is within a slot of the last that there is
    windowed_balance(std::int64_t floor, std::int64_t slot_ns, std::int64_t now) noexcept
        : balance_(floor), slot_end_(now + slot_ns), floor_(floor), slot_ns_(slot_ns), at_slot_begin_(floor) {}

    void add(std::int64_t n, std::int64_t now) noexcept {
        move_on(now);
        balance_.fetch_add(n, std::memory_order_relaxed);
    }
    /// Takes `n` if there are as many.
    [[nodiscard]] bool try_take(std::int64_t n, std::int64_t now) noexcept {
        move_on(now);
        std::int64_t seen = balance_.load(std::memory_order_relaxed);
        do {
            if (seen < n) return false;
        } while (!balance_.compare_exchange_weak(seen, seen - n, std::memory_order_relaxed));
        return true;
    }
    /// Below zero: more was taken than what is left in the window pays for.
    [[nodiscard]] std::int64_t available(std::int64_t now) noexcept {
        move_on(now);
        return balance_.load(std::memory_order_relaxed);
    }

    /// Another floor, at once. What is in the window leaves it in tenths of the new one.
    void set(std::int64_t floor, std::int64_t slot_ns) noexcept {
        const spin_guard guard(lock_);
        balance_.fetch_add(floor - floor_, std::memory_order_relaxed);
        at_slot_begin_ += floor - floor_;  // W4
        floor_ = floor;
        slot_ns_ = slot_ns;
    }

private:
    void move_on(std::int64_t now) noexcept {
        if (now >= slot_end_.load(std::memory_order_acquire)) [[unlikely]] end_slots(now);  // W3
    }
    void end_slots(std::int64_t now) noexcept;

    // balance_: the floor, what was done in the open slot, and the sums of the slots - 1 before it.
    // W1 Whoever changes balance_ belongs to the slot that is open at that moment, in the order of its changes. Orders
    //    are relaxed: no other data depends on it.
    // W2 The slot is ended under the lock, by one exchange that also removes what has become too old. So its sum, the
    //    balance before less that at its begin, holds each change once, and nobody sees a balance between the two.
    // W3 slot_end_ is stored after that exchange (release): whoever finds its time inside the open slot (acquire) acts
    //    on a balance without what was too old by then.
    // W4 The floor changes under the lock, and with it the balance and that at the begin of the slot, so that it is in
    //    no sum.
    std::atomic<std::int64_t> balance_;
    std::atomic<std::int64_t> slot_end_;
    spin_lock lock_;
    std::int64_t floor_, slot_ns_;            // under lock_
    std::int64_t at_slot_begin_;              // under lock_: balance_ when the open slot began
    std::array<std::int64_t, slots> sums_{};  // under lock_: of the slots before it, by number; its own is 0
    std::int64_t open_ = 0;                   // under lock_: the number of the open slot
};

CORDON_NOINLINE inline void windowed_balance::end_slots(std::int64_t now) noexcept {
    const spin_guard guard(lock_);
    const std::int64_t end = slot_end_.load(std::memory_order_relaxed);
    if (now < end) return;  // somebody else did
    const std::int64_t moved = (now - end) / slot_ns_ + 1;
    const bool all_old = moved >= slots;
    std::int64_t old = 0;
    for (std::int64_t i = 1; i <= std::min(moved, slots); ++i)
        old += sums_[static_cast<std::size_t>((open_ + i) % slots)];

    std::int64_t seen = balance_.load(std::memory_order_relaxed), next = 0;
    do {
        next = all_old ? floor_ : seen - old;
    } while (!balance_.compare_exchange_weak(seen, next, std::memory_order_relaxed));  // W2

    sums_[static_cast<std::size_t>(open_ % slots)] = seen - at_slot_begin_;
    for (std::int64_t i = 1; i <= std::min(moved, slots); ++i) sums_[static_cast<std::size_t>((open_ + i) % slots)] = 0;
    open_ += moved;
    at_slot_begin_ = next;
    slot_end_.store(end + moved * slot_ns_, std::memory_order_release);  // W3
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
