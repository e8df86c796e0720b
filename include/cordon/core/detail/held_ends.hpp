// SPDX-License-Identifier: MIT
#pragma once

// The ends of a group's children that a thread of a pool has not counted yet. Counted one by one, the word that has
// the count would go from processor to processor for each.
//
// H1 What is held is of one group, whose count has those children still, so that it lives.
// H2 Between an end that is held and its count the thread runs nothing but `begins` of that group: what another item,
//    or the rest of this one, does may need it. So no join waits for what is held: until the child that begins there
//    has ended, or waits, the group does not end either.
// H3 They are counted before their thread looks at the clock, waits for anything, looks for work elsewhere or may
//    block, and when there are `most` of them.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/executor.hpp>

#include <cstdint>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Of one thread, which alone uses it.
class held_ends {
public:
    static constexpr std::uint32_t most = 64;
    /// What knows a group: how its children begin, and how `n` that have ended are counted.
    struct kind {
        void (*begins)(work_item& item) noexcept;
        void (*count)(void* group, std::uint32_t n) noexcept;
    };

    /// Requires:      of other groups nothing is held
    void hold(void* group, const kind& k) noexcept {
        group_ = group;
        kind_ = &k;
        if (++n_ == most) count();
    }
    void count() noexcept {
        if (group_ == nullptr) return;
        const std::uint32_t n = std::exchange(n_, 0);
        kind_->count(std::exchange(group_, nullptr), n);
    }
    /// H2: before an item is run, which if it begins a child then calls `before_child_of`.
    void before(const work_item& item) noexcept {
        if (group_ != nullptr && item.run != kind_->begins) count();
    }
    void before_child_of(const void* group) noexcept {
        if (group_ != group) count();
    }
    [[nodiscard]] std::uint32_t of(const void* group) const noexcept { return group_ == group ? n_ : 0; }

private:
    void* group_ = nullptr;
    const kind* kind_ = nullptr;
    std::uint32_t n_ = 0;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
