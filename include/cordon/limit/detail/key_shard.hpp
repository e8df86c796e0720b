// SPDX-License-Identifier: MIT
#pragma once

// One of the parts of a keyed_limiter: a table of keys and their buckets, under one mutex. A chained table whose nodes
// lie in one array: a key takes the place of another by a few stores, an index stays what it is, and there is an order
// in which to look for one that can go.

#include <cordon/core/detail/config.hpp>
#include <cordon/limit/detail/gcra.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// How a key is passed: itself, or a view of a string.
template <class Key>
struct key_view { using type = Key; };
template <class Char, class Traits, class Allocator>
struct key_view<std::basic_string<Char, Traits, Allocator>> { using type = std::basic_string_view<Char, Traits>; };

/// A view of a string whose characters are equal if their bytes are.
template <class View>
inline constexpr bool plain_string = false;
template <class Char>
inline constexpr bool plain_string<std::basic_string_view<Char>> = true;

/// All members under `mutex`, but for `open`.
///  K1 Only a node whose bucket is full is given to another key: its position is not after now.
///  K2 No position is before `earliest_full_`, as long as that is after now: a look for a full one that has found none
///     remembers when the next will be. Positions only grow, except for what is given back, which says so.
template <class Key>
class alignas(64) key_shard {
public:
    using view = typename key_view<Key>::type;
    static constexpr std::uint32_t none = std::numeric_limits<std::uint32_t>::max(), overflow = none - 1;

    /// What was taken from where, if it was: enough to give it back.
    struct decision {
        std::uint32_t where = none;  ///< the node; overflow: there was no place for the key; none: refused as too large
        std::uint32_t life = 0;
        std::uint64_t tokens = 0;
        std::uint64_t end = 0;  ///< the position behind them
        bool granted = false;
    };

    void open(const gcra& g, std::uint64_t now, std::size_t most) {
        gcra_ = g;
        base_ = now;
        most_ = most;
        heads_.assign(8, none);
    }

    /// Has the memory of a key come nearer while the clock is read: half of what a request for one of many keys costs.
    void approach(std::uint64_t hash) noexcept {
#if defined(__GNUC__)
        const std::uint32_t i = head(static_cast<std::uint32_t>(hash));
        if (i != none) __builtin_prefetch(&nodes_[i], 1);
#endif
    }

    /// For n of 1 or more, and a cost.
    decision take(const view& key, std::uint64_t hash, std::uint64_t n, std::uint64_t now) {
        decision t;
        if (n > gcra_.burst) {
            ++rejected;
            return t;
        }
        const std::uint64_t at = units(now);
        const auto tag = static_cast<std::uint32_t>(hash);
        t.where = find(key, tag);
        if (t.where == none) t.where = insert(key, tag, at);
        if (t.where == overflow) {
            ++overflowed;
            return t;
        }
        node& x = nodes_[t.where];
        const std::uint64_t next = std::max(x.position, at) + n * gcra_.cost;
        if (next > at + gcra_.window) {
            ++rejected;
            return t;
        }
        x.position = t.end = next;
        t.life = x.life;
        t.tokens = n;
        t.granted = true;
        return t;
    }
    void give_back(const decision& t, std::uint64_t now) noexcept {
        const std::uint64_t at = units(now);
        if (t.where >= nodes_.size() || nodes_[t.where].life != t.life || t.end <= at) return;
        node& x = nodes_[t.where];
        x.position -= std::min({x.position, t.tokens * gcra_.cost, t.end - at});
        earliest_full_ = std::min(earliest_full_, x.position);  // K2
    }
    /// In nanoseconds; nothing if there is no place for the key.
    std::optional<std::uint64_t> wait(const view& key, std::uint64_t hash, std::uint64_t n, std::uint64_t now) {
        const std::uint64_t at = units(now);
        const std::uint32_t i = find(key, static_cast<std::uint32_t>(hash));
        if (i == none && free_ == none && nodes_.size() == most_ && full_one(at) == none) return std::nullopt;
        const std::uint64_t next = std::max(i == none ? 0 : nodes_[i].position, at) + n * gcra_.cost;
        return next <= at + gcra_.window ? 0 : gcra_.ns_from(elapsed(now), next - gcra_.window);
    }
    std::size_t purge(std::uint64_t now) noexcept {
        const std::uint64_t at = units(now);
        std::size_t n = 0;
        for (std::uint32_t i = 0; i < nodes_.size(); ++i) {
            if (!nodes_[i].used || nodes_[i].position > at) continue;
            unlink(i);
            nodes_[i].used = false;
            nodes_[i].next = std::exchange(free_, i);
            ++n;
        }
        used_ -= n;
        return n;
    }
    [[nodiscard]] std::size_t size() const noexcept { return used_; }

    mutable std::mutex mutex;
    std::uint64_t rejected = 0, overflowed = 0, evicted = 0;

private:
    struct node {
        node(Key&& k, std::uint32_t t) : key(std::move(k)), tag(t) {}
        Key key;
        std::uint64_t position = 0;
        std::uint32_t tag;         ///< of the hash
        std::uint32_t next = none;
        std::uint32_t life = 0;    ///< which key of this node it is
        bool used = true;
    };

    [[nodiscard]] std::uint64_t elapsed(std::uint64_t now) const noexcept {
        return static_cast<std::int64_t>(now - base_) < 0 ? 0 : now - base_;
    }
    /// Now, with the base moved if that is out of reach: what was taken before goes back no more.
    std::uint64_t units(std::uint64_t now) noexcept {
        if (elapsed(now) > gcra_.reach) [[unlikely]] {
            const std::uint64_t passed = gcra_.far_units(elapsed(now));
            base_ = passed == gcra::farthest ? now : base_ + gcra_.ns_at(passed);
            for (node& x : nodes_) {
                x.position -= std::min(x.position, passed);
                ++x.life;
            }
            earliest_full_ = 0;
        }
        return gcra_.units(elapsed(now));
    }

    std::uint32_t& head(std::uint32_t tag) noexcept { return heads_[tag & (heads_.size() - 1)]; }
    std::uint32_t find(const view& key, std::uint32_t tag) {
        for (std::uint32_t i = head(tag); i != none; i = nodes_[i].next)
            if (nodes_[i].tag == tag && nodes_[i].key == key) return i;
        return none;
    }
    void unlink(std::uint32_t i) noexcept {
        std::uint32_t* at = &head(nodes_[i].tag);
        while (*at != i) at = &nodes_[*at].next;
        *at = nodes_[i].next;
    }
    void link(std::uint32_t i) noexcept { nodes_[i].next = std::exchange(head(nodes_[i].tag), i); }

    /// The key's node, full; `overflow` if there is no place.
    std::uint32_t insert(const view& key, std::uint32_t tag, std::uint64_t at) {
        std::uint32_t i = free_;
        if (i == none && nodes_.size() < most_) {
            if (nodes_.size() >= heads_.size()) grow();
            nodes_.emplace_back(Key(key), tag);
            i = static_cast<std::uint32_t>(nodes_.size() - 1);
            ++used_;
            link(i);
            return i;
        }
        const bool was_free = i != none;
        if (!was_free && (i = full_one(at)) == none) return overflow;
        node& x = nodes_[i];
        assign(x.key, key);  // before the node changes its list: one that throws leaves it where it is
        if (was_free) {
            free_ = x.next;
            ++used_;
        } else {
            unlink(i);
            ++evicted;
        }
        x.tag = tag;
        x.position = 0;
        x.used = true;
        ++x.life;
        link(i);
        return i;
    }
    /// What an assignment that throws has left half of is the key of a full bucket, as it was.
    static void assign(Key& old, const view& key) {
        if constexpr (std::is_same_v<view, Key>) old = Key(key);
        else old.assign(key);  // mostly it has the memory already
    }
    void grow() {
        std::vector<std::uint32_t> larger(heads_.size() * 2, none);
        heads_.swap(larger);
        for (std::uint32_t i = 0; i < nodes_.size(); ++i)
            if (nodes_[i].used) link(i);
    }
    /// Any whose bucket is full. Looks on from where the last look ended.
    std::uint32_t full_one(std::uint64_t at) noexcept {
        if (at < earliest_full_) return none;  // K2
        std::uint64_t earliest = gcra::never;
        for (std::size_t looked = 0; looked < nodes_.size(); ++looked) {
            hand_ = hand_ + 1 < nodes_.size() ? hand_ + 1 : 0;
            if (nodes_[hand_].position <= at) return hand_;  // K1
            earliest = std::min(earliest, nodes_[hand_].position);
        }
        earliest_full_ = earliest;
        return none;
    }

    gcra gcra_;
    std::uint64_t base_ = 0;
    std::size_t most_ = 0;
    std::size_t used_ = 0;
    std::vector<std::uint32_t> heads_;  // a power of two of them
    std::vector<node> nodes_;
    std::uint32_t free_ = none;
    std::uint32_t hand_ = 0;
    std::uint64_t earliest_full_ = 0;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
