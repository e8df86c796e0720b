// SPDX-License-Identifier: MIT
#pragma once

// How the last n calls ended. A call that went well writes one word; the others write their bit as well.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <bit>
#include <cstdint>
#include <memory>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// How many calls of a window there were, and how many of them failed or were slow.
struct call_tally {
    std::uint64_t calls = 0, failed = 0, slow = 0;
};

/// A ring of bits, one for each position; those that were never set, or are too old, read as 0.
/// A word is the serial of its block of 16 positions (upper 48 bits), and their bits.
// K1 A word only goes from an older serial to a newer one, so that a bit that is set too late is lost, not misplaced.
// K2 Bits are set and read in one total order (seq_cst): of two who set one and then count, one sees both.
class mark_ring {
public:
    explicit mark_ring(std::uint32_t window)
        : mask_(std::bit_ceil(window / static_cast<std::uint32_t>(per_block) + 2) - 1),
          words_(new std::atomic<std::uint64_t>[mask_ + 1] {}) {}

    void set(std::uint64_t position) noexcept {
        const std::uint64_t serial = position / per_block, bit = std::uint64_t{1} << (position % per_block);
        std::atomic<std::uint64_t>& word = words_[serial & mask_];
        std::uint64_t seen = word.load(std::memory_order_relaxed), next;
        do {
            if ((seen >> per_block) > serial) return;  // K1
            next = (seen >> per_block) == serial ? seen | bit : serial << per_block | bit;
        } while (!word.compare_exchange_weak(seen, next, std::memory_order_seq_cst, std::memory_order_relaxed));  // K2
    }
    /// How many of the `n` positions from `first` on are set.
    [[nodiscard]] std::uint64_t count(std::uint64_t first, std::uint64_t n) const noexcept {
        std::uint64_t found = 0;
        for (std::uint64_t length; n != 0; first += length, n -= length) {
            const std::uint64_t offset = first % per_block;
            length = n < per_block - offset ? n : per_block - offset;
            const std::uint64_t word = words_[first / per_block & mask_].load(std::memory_order_seq_cst);  // K2
            if (word >> per_block != first / per_block) continue;
            found += static_cast<unsigned>(std::popcount(word >> offset & ((std::uint64_t{1} << length) - 1)));
        }
        return found;
    }

private:
    static constexpr std::uint64_t per_block = 16;
    const std::uint32_t mask_;
    const std::unique_ptr<std::atomic<std::uint64_t>[]> words_;
};

/// The last n calls of a generation.
/// head_: the position of the next call (lower 52 bits, never reset: enough for four years of 30 million calls a
/// second), and the lower 12 bits of the generation that may take it.
// K3 A call takes its position and is checked against its generation in one exchange: it counts for that one, or not
//    at all. (A thread would have to stand still for exactly 4,096 generations to be taken for a later one.)
// K4 start_ is written before the head gets the new generation (release), and read after (acquire).
class alignas(64) count_log {
public:
    static constexpr std::uint64_t refused = ~std::uint64_t{0};

    explicit count_log(std::uint32_t window) : window_(window), failed_(window), slow_(window) {}

    /// Returns:       how many calls of this generation there are with this one; `refused` if that generation is over
    std::uint64_t record(std::uint64_t generation, bool failed, bool slow) noexcept {
        std::uint64_t position = head_.load(std::memory_order_relaxed);
        if (!take(generation, position)) [[unlikely]]
            position = contend(generation);
        if (position == refused) [[unlikely]]
            return refused;
        position &= position_mask;
        if (failed) failed_.set(position);
        if (slow) slow_.set(position);
        return position + 1 - start_.load(std::memory_order_relaxed);
    }
    /// The window as it is now; empty if this is not its generation.
    [[nodiscard]] call_tally tally(std::uint64_t generation) const noexcept {
        const std::uint64_t head = head_.load(std::memory_order_seq_cst);  // K2, K4
        const std::uint64_t end = head & position_mask, start = start_.load(std::memory_order_relaxed);
        if ((head ^ generation << position_bits) >> position_bits != 0 || start > end) return {};
        const std::uint64_t calls = end - start < window_ ? end - start : window_;
        return {calls, failed_.count(end - calls, calls), slow_.count(end - calls, calls)};
    }
    /// Begins an empty window for `generation`. Requires: one thread at a time.
    void restart(std::uint64_t generation) noexcept {
        std::uint64_t seen = head_.load(std::memory_order_relaxed), changed;
        do {
            start_.store(seen & position_mask, std::memory_order_relaxed);
            changed = generation << position_bits | (seen & position_mask);
        } while (!head_.compare_exchange_weak(seen, changed, std::memory_order_release,  // K4
                                              std::memory_order_relaxed));
    }

private:
    static constexpr int position_bits = 52;
    static constexpr std::uint64_t position_mask = (std::uint64_t{1} << position_bits) - 1;
    /// Returns:       whether it has ended: `seen` is the head with the position that was taken, or `refused`
    bool take(std::uint64_t generation, std::uint64_t& seen) noexcept {
        if ((seen ^ generation << position_bits) >> position_bits != 0) [[unlikely]]
            return seen = refused, true;
        return head_.compare_exchange_weak(seen, next(seen), std::memory_order_seq_cst,  // K2, K3, K4
                                           std::memory_order_relaxed);
    }
    CORDON_NOINLINE std::uint64_t contend(std::uint64_t generation) noexcept {
        stand_back lost;
        std::uint64_t seen;
        do {
            lost();
            seen = head_.load(std::memory_order_relaxed);
        } while (!take(generation, seen));
        return seen;
    }
    static std::uint64_t next(std::uint64_t head) noexcept {
        return (head & ~position_mask) | ((head + 1) & position_mask);
    }

    std::atomic<std::uint64_t> head_{0};
    std::atomic<std::uint64_t> start_{0};
    const std::uint32_t window_;
    mark_ring failed_, slow_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
