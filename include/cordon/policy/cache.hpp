// SPDX-License-Identifier: MIT
#pragma once

// Keeps what calls have given, for a while, by key: a call whose answer is there is not made.
//
//     cache<int, std::shared_ptr<const item>> items{30s, {.name = "items", .refresh_ahead = 5s, .stale_for = 10min}};
//     auto guarded = pipeline(items.for_key(7), flights.for_key(7), retry(3), breaker);
//
// Calls for one key at the same time are made one beside the other, unless a single_flight is behind it.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>

#include <array>
#include <chrono>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <unordered_map>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct cache_options {
    std::string_view name = {};
    std::size_t max_entries = 10'000;  ///< beyond these the one that was not used for longest goes; 1 and more
    clock::duration refresh_ahead{0};  ///< so long before it is too old a value is refreshed; 0 to less than its time
    clock::duration stale_for{0};      ///< so long after that it answers for a call that fails; not negative
};

namespace detail {

template <class Cache, class Key, operation O, class Judge>
class cached_operation;

}  // namespace detail

/// Values, each of which is good for a time from when its call ended. Only successes are kept: neither failures nor
/// what the pipeline ignores.
///
/// The first call that finds a value due to be refreshed is made, and waits; all others have the value meanwhile, and
/// so has that one if its call fails. A value that is too old answers for a call that fails or is refused while it is
/// less than `stale_for` older than that.
///
/// Of two calls for one key the answer of the one that began later stays. An answer that was asked for before its key
/// was erased is not kept; nor, for one key in 64, is one asked for before another was.
/// Requires:      copies and moves of values, comparisons and hashes of keys do not use the cache: they run under its
///                mutex. A value that goes is destroyed without it
/// Errors:        what a comparison or a hash throws is an error of the call; when that has ended, its answer is not
///                kept. Nor is one whose move throws, and then the value before it is gone. A value whose refresh is
///                stopped while they throw is not asked for before it is too old
/// Cancellation:  of a call that is stopped nothing is kept, and no old value answers for it; if it was to refresh one,
///                the next call does
/// Threads:       all members from any
/// Lifetime:      outlives the calls that use it. Belongs to one simulation, or to real time
/// Cost:          a mutex and a look-up for each call, another for each that was made; a copy of the value, so that of
///                large ones it had better keep a `std::shared_ptr`. Allocates for new keys only, and what a copy of
///                a key does for each call
template <class Key, std::copyable T>
class cache {
    class bound;

public:
    static constexpr std::string_view kind = "cache";

    struct snapshot {
        std::size_t entries = 0;
        // Since it was made:
        std::uint64_t hits = 0;       ///< calls that were not made
        std::uint64_t misses = 0;     ///< calls that were
        std::uint64_t refreshes = 0;  ///< of them those for a value that was still good
        std::uint64_t stale = 0;      ///< values, too old or to be refreshed, that answered for calls that failed
        std::uint64_t evicted = 0;    ///< values that went to make room
    };

    /// Errors:        `std::invalid_argument` if a member is outside its range, or the time not above 0
    explicit cache(clock::duration time_to_live, const cache_options& options = {})
        : terms_(checked(time_to_live, options)), name_(options.name) {}
    cache(const cache&) = delete;
    cache& operator=(const cache&) = delete;

    /// Other numbers from now on, also for the values that are there. Those that are too many go at once; the name
    /// stays.
    /// Errors:        as the constructor
    void set(clock::duration time_to_live, const cache_options& options = {}) {
        const terms changed = checked(time_to_live, options);
        {
            const std::lock_guard lock(mutex_);
            terms_ = changed;
        }
        while (evicts()) {}
    }

    /// A policy for calls whose answer is the value of `key`.
    [[nodiscard]] bound for_key(Key key) CORDON_LIFETIME_BOUND { return bound(*this, std::move(key)); }

    /// The value of `key`, if it is not too old. Counts as nothing.
    [[nodiscard]] std::optional<T> try_get(const Key& key) const {
        const std::lock_guard lock(mutex_);
        const auto found = entries_.find(key);
        if (found == entries_.end() || age(found->second) >= terms_.good_for) return std::nullopt;
        return found->second.value;
    }
    /// Keeps `value`, as from a call that has just begun and ended.
    void put(const Key& key, T value) { store(key, std::move(value), 0); }
    /// The answers of calls under way are not kept either.
    void erase(const Key& key) {
        node gone;
        const std::lock_guard lock(mutex_);
        erased_of(key) = ++asked_;
        if (const auto found = entries_.find(key); found != entries_.end()) gone = remove(found);
    }
    void clear() {
        table gone;
        const std::lock_guard lock(mutex_);
        erased_.fill(++asked_);
        while (!used_.empty()) used_.pop_front();
        entries_.swap(gone);
    }

    [[nodiscard]] snapshot stats() const noexcept {
        const std::lock_guard lock(mutex_);
        snapshot now = counts_;
        now.entries = entries_.size();
        return now;
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("hits", now.hits, "Calls that were not made, for their values were there.");
        sink.counter("misses", now.misses, "Calls that were made.");
        sink.counter("refreshes", now.refreshes, "Calls for values that were still good.");
        sink.counter("stale", now.stale, "Values that answered for calls that failed.");
        sink.counter("evicted", now.evicted, "Values that went to make room.");
        sink.gauge("entries", now.entries, "Values that are kept.");
    }

private:
    template <class Cache, class K, operation O, class Judge>
    friend class detail::cached_operation;

    struct entry : detail::list_hook {
        explicit entry(T&& v) : value(std::move(v)) {}
        T value;
        clock::time_point since{};
        const Key* key = nullptr;
        std::uint64_t asked = 0;         // the number of the call that gave it
        std::uint64_t refreshed_by = 0;  // that of the one under way that does, or 0
    };
    using table = std::unordered_map<Key, entry>;
    using node = typename table::node_type;
    /// Of a call that is made: its number, from 1 on in the order in which they began.
    struct ticket {
        std::uint64_t number = 0;
        bool refreshes = false;  // it is made although there is a value
    };

    struct terms {
        clock::duration good_for, refresh_ahead, stale_for;
        std::size_t max_entries;
    };
    static terms checked(clock::duration good_for, const cache_options& o) {
        const auto zero = clock::duration::zero();
        using detail::check_option;
        check_option(good_for > zero, "cache", "time_to_live", good_for, "are more than 0");
        check_option(o.max_entries >= 1, "cache", "max_entries", o.max_entries, "are 1 and more");
        check_option(o.refresh_ahead >= zero && o.refresh_ahead < good_for, "cache", "refresh_ahead", o.refresh_ahead,
                     "are 0 to less than time_to_live");
        check_option(o.stale_for >= zero, "cache", "stale_for", o.stale_for, "are 0 and more");
        return {good_for, o.refresh_ahead, o.stale_for, o.max_entries};
    }
    [[nodiscard]] static clock::duration age(const entry& e) noexcept { return detail::quick_now() - e.since; }
    // Under the mutex:
    [[nodiscard]] std::uint64_t& erased_of(const Key& key) {
        return erased_[static_cast<std::size_t>(detail::mixed(entries_.hash_function()(key))) % erased_.size()];
    }
    /// Returns:       what is to be destroyed without it
    [[nodiscard]] node remove(typename table::iterator at) {
        node gone = entries_.extract(at);
        used_.remove(gone.mapped());
        return gone;
    }
    /// A value that has to go, to make room for so many.
    [[nodiscard]] node surplus(std::size_t more) {
        if (entries_.size() + more <= terms_.max_entries) return {};
        ++counts_.evicted;
        return remove(entries_.find(*used_.front().key));
    }
    void use(entry& e) noexcept {
        used_.remove(e);
        used_.push_back(e);
    }

    /// The value that makes a call needless; else the ticket is for the call.
    [[nodiscard]] std::optional<T> look_up(const Key& key, ticket& call) {
        const std::lock_guard lock(mutex_);
        const auto found = entries_.find(key);
        if (found != entries_.end()) {
            entry& e = found->second;
            use(e);
            const clock::duration old = age(e);
            const bool good = old < terms_.good_for;
            const bool due = good && old >= terms_.good_for - terms_.refresh_ahead && e.refreshed_by == 0 &&
                             terms_.refresh_ahead > clock::duration::zero();
            if (good && !due) {
                ++counts_.hits;
                return e.value;
            }
            if (due) {
                call.refreshes = true;
                e.refreshed_by = asked_ + 1;
                ++counts_.refreshes;
            }
        }
        call.number = ++asked_;
        ++counts_.misses;
        return std::nullopt;
    }
    /// `number` is that of the call, or 0: one that began just now.
    void store(const Key& key, T&& value, std::uint64_t number) {
        node gone;  // this and `old` die without the mutex
        std::optional<T> old;
        const std::lock_guard lock(mutex_);
        if (number == 0) number = ++asked_;
        auto at = entries_.find(key);
        const bool is_new = at == entries_.end();
        if (!is_new && at->second.refreshed_by == number) at->second.refreshed_by = 0;
        if (erased_of(key) > number || (!is_new && at->second.asked > number)) return;
        if constexpr (std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T>) {
            if (!is_new) {
                old.emplace(std::move(at->second.value));
                at->second.value = std::move(value);
            }
        } else if (!is_new) {  // it cannot be replaced in place without leaving half of it
            gone = remove(at);
            at = entries_.end();
        }
        if (at == entries_.end()) {
            if (is_new) gone = surplus(1);
            at = entries_.try_emplace(key, std::move(value)).first;
        }
        entry& e = at->second;
        e.key = &at->first;
        e.since = detail::quick_now();
        e.asked = number;
        e.refreshed_by = 0;
        use(e);
    }
    /// Returns:       whether there was a value too many, which has gone
    bool evicts() {
        node gone;
        const std::lock_guard lock(mutex_);
        gone = surplus(0);
        return !gone.empty();
    }
    /// The value that answers for a call that has failed, however it came there meanwhile.
    [[nodiscard]] std::optional<T> value_instead(const Key& key, const ticket& failed) {
        const std::lock_guard lock(mutex_);
        const auto found = entries_.find(key);
        if (found == entries_.end()) return std::nullopt;
        if (found->second.refreshed_by == failed.number) found->second.refreshed_by = 0;
        const clock::duration old = age(found->second);
        if (old >= terms_.good_for && old - terms_.good_for >= terms_.stale_for) return std::nullopt;
        ++counts_.stale;
        return found->second.value;
    }
    void not_refreshed(const Key& key, const ticket& call) noexcept {
        (void)detail::outcome_of([&] {
            const std::lock_guard lock(mutex_);
            const auto found = entries_.find(key);
            if (found != entries_.end() && found->second.refreshed_by == call.number) found->second.refreshed_by = 0;
            return true;
        });
    }

    mutable std::mutex mutex_;
    terms terms_;                          // this and the rest under mutex_
    table entries_;
    detail::intrusive_list<entry> used_;   // the one that was not used for longest first
    std::uint64_t asked_ = 0;              // the number of the last call
    std::array<std::uint64_t, 64> erased_{};  // by hashes of keys: asked_ when one of them was erased
    snapshot counts_;
    std::string name_;
};

/// Made by `for_key(key)`.
/// Errors:        what copying a value out of the cache throws is an error of the call; its moves throw nothing, as
///                those of all outcomes
/// Cost:          no frame of its own
template <class Key, std::copyable T>
class cache<Key, T>::bound {
public:
    template <detail::makes_awaitable Call, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(Call&& call, const Classifier& classify = detail::shared_classifier) const {
        using op = decltype(detail::call_of(std::forward<Call>(call)));
        static_assert(std::is_same_v<typename op::value_type, T>,
                      "cache: the call does not give what the cache keeps");
        return detail::cached_operation<cache, Key, op, detail::judge<Classifier>>(
            *cache_, key_, detail::call_of(std::forward<Call>(call)), detail::judge<Classifier>(classify));
    }

private:
    friend class cache;
    bound(cache& c, Key&& key) : cache_(&c), key_(std::move(key)) {}

    cache* cache_;
    Key key_;
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/policy/detail/cached_operation.hpp>
