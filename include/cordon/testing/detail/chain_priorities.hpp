// SPDX-License-Identifier: MIT
#pragma once

// Who goes on in a simulation by priorities. What becomes ready has no identity that lasts, so priorities belong to
// chains: whoever becomes ready first in a step goes on with the chain that ran it, others begin new ones.
//
// Source: Burckhardt, Kothari, Musuvathi and Nagarakatte, "A randomized scheduler with probabilistic guarantees of
// finding bugs", 2010; for the chains Ozkan, Majumdar, Niksic, Befrouei and Weissenbacher, "Randomized testing of
// distributed systems with probabilistic guarantees", 2018.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/random.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A mirror of what is ready in a simulation, which tells it of each event.
///  C1. A chain is a row of items, each of which became ready while the one before it ran, or when what that one armed
///      fired: an item that is in a chain comes after all before it, in any schedule.
///  C2. So it has at most one item that is ready: only its last one can have a next.
class chain_priorities {
    static constexpr std::size_t none = static_cast<std::size_t>(-1);

public:
    /// The chain that runs loses its priority at so many choices, drawn from the seed among the first `length`.
    chain_priorities(std::uint64_t seed, std::uint32_t changes, std::size_t length)
        : random_(mixed(seed) + 1), fair_from_(2 * length + 10'000) {
        if (length == 0) return;
        for (std::uint32_t i = 0; i < changes; ++i)
            changes_.push_back({static_cast<std::size_t>(next_random() % length), i});
        std::sort(changes_.begin(), changes_.end());
    }

    /// How often it chose.
    [[nodiscard]] std::size_t chosen() const noexcept { return chosen_; }

    /// One more is ready, behind all that are.
    void submitted() {
        std::size_t of = std::exchange(running_, none);
        if (of == none) {
            of = chains_.size();
            chains_.push_back({next_random() | lowest_initial, 0});
        }
        ++chains_[of].items;
        ready_.push_back(of);
    }
    /// What `key` stands for was armed.
    void armed(const void* key) { armed_[key] = {running_, running_ == none ? 0 : chains_[running_].items}; }
    /// While one lives, what was armed as `key` has others become ready. Without priorities it does nothing.
    class firing {
    public:
        firing(chain_priorities* p, const void* key) noexcept : priorities_(p) {
            if (p != nullptr) outer_ = std::exchange(p->running_, p->armed_by(key));
        }
        firing(const firing&) = delete;
        firing& operator=(const firing&) = delete;
        ~firing() {
            if (priorities_ != nullptr) priorities_->running_ = outer_;
        }

    private:
        chain_priorities* const priorities_;
        std::size_t outer_ = none;
    };

    /// Returns:       which of those that are ready goes on: there are several
    std::uint32_t choose() {
        const std::size_t number = chosen_++;
        if (number >= fair_from_) return static_cast<std::uint32_t>(next_random() % ready_.size());
        for (; next_change_ < changes_.size() && changes_[next_change_].at <= number; ++next_change_)
            chains_[ready_[first()]].priority = changes_[next_change_].priority;
        return static_cast<std::uint32_t>(first());
    }
    /// That one runs now.
    void runs(std::size_t taken) {
        running_ = ready_[taken];
        ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(taken));
    }

private:
    static constexpr std::uint64_t lowest_initial = std::uint64_t{1} << 63;  // above all that a change gives

    struct chain {
        std::uint64_t priority;
        std::uint64_t items;
    };
    struct change {
        std::size_t at;
        std::uint32_t priority;

        friend auto operator<=>(const change&, const change&) = default;
    };
    struct link {
        std::size_t chain_number;
        std::uint64_t items;  ///< of that chain, then
    };

    std::uint64_t next_random() noexcept { return mixed(random_ += 0x9e3779b97f4a7c15); }
    /// Which chain armed it, if that has had no item since.
    std::size_t armed_by(const void* key) noexcept {
        const auto at = armed_.find(key);
        if (at == armed_.end()) return none;
        const link by = at->second;
        armed_.erase(at);
        return by.chain_number != none && chains_[by.chain_number].items == by.items ? by.chain_number : none;
    }
    /// The place of the highest priority.
    [[nodiscard]] std::size_t first() const noexcept {
        const auto lower = [this](std::size_t a, std::size_t b) { return chains_[a].priority < chains_[b].priority; };
        return static_cast<std::size_t>(std::max_element(ready_.begin(), ready_.end(), lower) - ready_.begin());
    }

    std::uint64_t random_;
    std::size_t fair_from_;  ///< a task that polls for what another does may not keep it from that for ever
    std::vector<change> changes_;
    std::size_t next_change_ = 0;
    std::size_t chosen_ = 0;
    std::vector<chain> chains_;
    std::vector<std::size_t> ready_;  ///< the chain of each, as in the simulation
    std::size_t running_ = none;      ///< the chain of which nothing has become ready since its item began to run
    std::map<const void*, link> armed_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
