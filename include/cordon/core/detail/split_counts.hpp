// SPDX-License-Identifier: MIT
#pragma once

// Counts of what many threads do at once and few ask for, such as refusals: each of the first few threads adds on a
// cache line of its own, without an exchange; those that come later share the lines.

#include <cordon/core/detail/config.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI::detail {

/// An address that no other thread has while this one runs, nor another set of thread-locals in this process.
CORDON_THREAD_LOCAL_ACCESS inline const char* thread_mark() noexcept {
    static constinit thread_local char mark = 0;
    return &mark;
}

/// `kinds` counts, kept together. They only grow; those read together are of one moment only if nobody adds.
///  C1  An owner is written once, and only the thread with that mark writes the `owned` of its part: so a load and a
///      store add one. A thread that gets the mark of one that has ended goes on with its part. All others add to
///      `shared`.
template <std::size_t kinds = 1>
class split_counts {
public:
    void add(std::size_t kind = 0) noexcept {
        const char* const me = thread_mark();
        for (std::size_t i = 0; i < parts; ++i) {
            if (owners_[i].load(std::memory_order_relaxed) != me) continue;
            std::atomic<std::uint64_t>& mine = parts_[i].owned[kind];
            return mine.store(mine.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);  // C1
        }
        add_shared(me, kind);
    }
    [[nodiscard]] std::uint64_t operator[](std::size_t kind) const noexcept {
        std::uint64_t sum = 0;
        for (const part& p : parts_)
            sum += p.owned[kind].load(std::memory_order_relaxed) + p.shared[kind].load(std::memory_order_relaxed);
        return sum;
    }

private:
    static constexpr std::size_t parts = 4, line = 64;
    struct written {
        std::array<std::atomic<std::uint64_t>, kinds> owned{}, shared{};
    };
    struct part : written {
        [[maybe_unused]] char apart[line - sizeof(written)];  // not alignas: frames hold nothing that is over-aligned
    };

    CORDON_NOINLINE void add_shared(const char* me, std::size_t kind) noexcept {
        for (std::atomic<const char*>& owner : owners_) {
            const char* nobody = owner.load(std::memory_order_relaxed);
            if (nobody != nullptr) continue;
            if (owner.compare_exchange_strong(nobody, me, std::memory_order_relaxed)) break;  // for the next time
        }
        const std::uintptr_t page = reinterpret_cast<std::uintptr_t>(me) / 4096;  // stacks are some pages more apart
        parts_[page % parts].shared[kind].fetch_add(1, std::memory_order_relaxed);
    }

    [[maybe_unused]] char apart_[line - sizeof(written)];  // from what stands before it
    std::array<part, parts> parts_{};
    std::array<std::atomic<const char*>, parts> owners_{};  // null: nobody yet
};

}  // namespace cordon::inline CORDON_ABI::detail

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
