// SPDX-License-Identifier: MIT
#pragma once

// Counts of what many threads do at once and few ask for, such as refusals: each thread adds on a cache line that it
// shares with few others.

#include <cordon/core/detail/config.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI::detail {

inline std::atomic<unsigned> numbered_threads{0};

/// Of this thread, in the order in which they ask first. From 1.
CORDON_THREAD_LOCAL_ACCESS inline unsigned thread_number() noexcept {
    static constinit thread_local unsigned number = 0;
    if (number == 0) [[unlikely]] number = numbered_threads.fetch_add(1, std::memory_order_relaxed) + 1;
    return number;
}

/// `kinds` counts, kept together. They only grow; those read together are of one moment only if nobody adds.
template <std::size_t kinds = 1>
class split_counts {
public:
    void add(std::size_t kind = 0) noexcept {
        parts_[thread_number() % parts].counts[kind].fetch_add(1, std::memory_order_relaxed);
    }
    [[nodiscard]] std::uint64_t operator[](std::size_t kind) const noexcept {
        std::uint64_t sum = 0;
        for (const part& p : parts_) sum += p.counts[kind].load(std::memory_order_relaxed);
        return sum;
    }

private:
    static constexpr std::size_t parts = 4, line = 64;
    struct part {
        std::array<std::atomic<std::uint64_t>, kinds> counts{};
        [[maybe_unused]] char apart[line - sizeof counts];  // not alignas: frames hold nothing that is over-aligned
    };

    [[maybe_unused]] char apart_[line - sizeof(std::uint64_t) * kinds];  // from what stands before it
    std::array<part, parts> parts_{};
};

}  // namespace cordon::inline CORDON_ABI::detail

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
