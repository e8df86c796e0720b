// SPDX-License-Identifier: MIT
#pragma once

// A rate limit for each of very many keys, clients for instance, in bounded memory.
//
//     keyed_limiter<std::string> per_client{per_second(10), 20, {.name = "clients", .max_keys = 100'000}};
//     if (!per_client.try_acquire(request.address())) return busy();
//
// A key that nobody has asked for lately has a full bucket and needs no memory: it is the first to be forgotten.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/limit/detail/gcra.hpp>
#include <cordon/limit/detail/key_shard.hpp>
#include <cordon/limit/detail/seeded_hash.hpp>
#include <cordon/limit/rate.hpp>
#include <cordon/limit/token_bucket.hpp>

#include <algorithm>
#include <bit>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct keyed_limiter_options {
    std::string_view name = {};
    std::size_t max_keys = 65'536;  ///< that are kept at a time
    std::uint64_t seed = 0;         ///< of the hash; 0: one of its own, or a fixed one in a simulation
};

/// A token bucket for each key, all of one rate and burst; never waits. Full are the buckets of keys that are new. Once
/// about `max_keys` are kept (each shard has its part of them), a new key takes the place of one whose bucket is full
/// again, which loses nothing by that. If there is none, it shares one bucket of the same size with all others that
/// find no place: so memory is bounded, and whoever makes up keys cannot get more than one client does.
/// Requires:      `std::hash<Key>` and `==`; keys are compared in full, whatever their hash. A key is movable. What is
///                done to keys does not use the limiter, one of whose mutexes is held meanwhile. For a `std::string`
///                whatever converts to a view of it will do, and is copied only if it is new. Strings are hashed by a
///                keyed hash instead: who does not know the seed cannot make two of them collide. The `std::hash` of
///                other keys is mixed with the seed, so those that collide in it share a chain
/// Threads:       all members from any
/// Lifetime:      outlives its permits
/// Cost:          one clock reading, one hash and an uncontended mutex of one of up to 32 shards. Allocates for new
///                keys only, and not for those that take another's place if their type does not
template <class Key>
class keyed_limiter {
    using shard = detail::key_shard<Key>;
    using view = typename shard::view;

public:
    class permit;
    class bound;

    static constexpr std::string_view kind = "keyed_limiter";
    static constexpr std::size_t most_keys = std::size_t{1} << 31;

    struct snapshot {
        std::size_t keys = 0;          ///< that are kept
        std::uint64_t rejected = 0;    ///< refusals since it was made
        std::uint64_t overflowed = 0;  ///< requests that found no place for their key
        std::uint64_t evicted = 0;     ///< keys that gave theirs to another
    };

    /// Errors:        `std::invalid_argument` if `burst` is more than `token_bucket::max_burst`, or `max_keys` is not
    ///                in 1 to `most_keys`
    keyed_limiter(rate limit, std::uint64_t burst, keyed_limiter_options options = {})
        : gcra_(limit, detail::checked_range("keyed_limiter", "burst", burst, 0, token_bucket::max_burst)),
          shared_(limit, burst),
          shard_bits_(bits_for(detail::checked_range("keyed_limiter", "max_keys", options.max_keys, 1, most_keys))),
          shards_(std::make_unique<shard[]>(std::size_t{1} << shard_bits_)),
          seed_(options.seed != 0 ? options.seed : own_seed()), strings_(seed_, detail::mixed(seed_)),
          name_(options.name) {
        const std::size_t n = std::size_t{1} << shard_bits_;
        for (std::size_t i = 0; i < n; ++i)
            shards_[i].open(gcra_, token_bucket::ns_now(),
                            options.max_keys / n + (i < options.max_keys % n ? 1 : 0));
    }
    keyed_limiter(const keyed_limiter&) = delete;
    keyed_limiter& operator=(const keyed_limiter&) = delete;

    /// Takes `n` tokens of `key` if they are there. More than the burst never are; none always are.
    [[nodiscard]] bool try_acquire(const view& key, std::uint64_t n = 1) {
        if (n == 0 || gcra_.cost == 0) return true;
        const std::uint64_t hash = hash_of(key);
        shard& s = shard_of(hash);
        const std::lock_guard lock(s.mutex);
        s.approach(hash);
        const auto t = s.take(key, hash, n, token_bucket::quick_ns_now());
        if (t.where != shard::overflow) return t.granted;
        if (shared_.try_acquire(n)) return true;
        ++s.rejected;
        return false;
    }

    /// How long until `n` tokens of `key` are there: `duration::max()` if never.
    [[nodiscard]] clock::duration time_until(const view& key, std::uint64_t n = 1) const {
        const std::uint64_t hash = hash_of(key), now = token_bucket::ns_now();
        if (n == 0 || gcra_.cost == 0) return clock::duration::zero();
        if (n > gcra_.burst) return (clock::duration::max)();
        shard& s = shard_of(hash);
        const std::lock_guard lock(s.mutex);
        const std::optional<std::uint64_t> wait = s.wait(key, hash, n, now);
        if (!wait) return shared_.time_until(n);
        if (*wait == detail::gcra::never) return (clock::duration::max)();
        return clock::duration(static_cast<std::int64_t>(*wait));
    }

    /// The limit of one key, as a guard for calls.
    /// Lifetime:      of a `std::string` it keeps a view, else a copy of the key
    [[nodiscard]] bound for_key(const view& key) noexcept(std::is_nothrow_copy_constructible_v<view>) {
        return bound(*this, key);
    }

    /// Forgets all keys whose buckets are full. Never needed; their memory is kept for others.
    /// Returns:       how many
    std::size_t purge() noexcept {
        const std::uint64_t now = token_bucket::ns_now();
        std::size_t n = 0;
        for (shard& s : all()) {
            const std::lock_guard lock(s.mutex);
            n += s.purge(now);
        }
        return n;
    }

    /// One shard after the other: not of one moment while others use it.
    [[nodiscard]] snapshot stats() const noexcept {
        snapshot sum;
        for (shard& s : all()) {
            const std::lock_guard lock(s.mutex);
            sum.keys += s.size();
            sum.rejected += s.rejected;
            sum.overflowed += s.overflowed;
            sum.evicted += s.evicted;
        }
        return sum;
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("rejected", now.rejected, "Calls that were refused.");
        sink.counter("overflowed", now.overflowed, "Calls whose key found no place and shared a bucket.");
        sink.counter("evicted", now.evicted, "Keys that were forgotten for another.");
        sink.gauge("keys", static_cast<double>(now.keys), "Keys that are kept.");
    }

private:
    struct shard_range {
        shard *first, *last;
        shard* begin() const noexcept { return first; }
        shard* end() const noexcept { return last; }
    };
    shard_range all() const noexcept { return {shards_.get(), shards_.get() + (std::size_t{1} << shard_bits_)}; }
    static std::uint32_t bits_for(std::size_t keys) noexcept {
        return static_cast<std::uint32_t>(std::clamp(static_cast<int>(std::bit_width(keys / 256)) - 1, 0, 5));
    }
    /// Folds the product of two 64-bit words: each bit of the result depends on all of both.
    static std::uint64_t mix(std::uint64_t a, std::uint64_t b) noexcept {
        const detail::uint128 product = detail::uint128{a} * b;
        return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    }
    std::uint64_t own_seed() const noexcept {
        if (detail::simulated_here()) return 0x9E3779B97F4A7C15u;
        return mix(reinterpret_cast<std::uintptr_t>(this) ^ 0xD1B54A32D192ED03u, token_bucket::ns_now() | 1) | 1;
    }
    std::uint64_t hash_of(const view& key) const {
        if constexpr (detail::plain_string<view>)
            return strings_(key.data(), key.size() * sizeof(typename view::value_type));
        else return mix(std::hash<view>()(key) ^ seed_, 0x9E3779B97F4A7C15u);
    }
    /// The uppermost bits choose the shard, the lowest the place in it.
    shard& shard_of(std::uint64_t hash) const noexcept {
        return shards_[shard_bits_ == 0 ? 0 : hash >> (64 - shard_bits_)];
    }
    outcome<permit> admit(const view& key, std::uint64_t n);

    const detail::gcra gcra_;
    token_bucket shared_;  ///< of those who found no place
    const std::uint32_t shard_bits_;
    const std::unique_ptr<shard[]> shards_;
    const std::uint64_t seed_;
    const detail::seeded_hash strings_;
    std::string name_;
};

/// Tokens that a guarded call has taken. Settled as stopped, or dropped unsettled, it gives them back, as far as the
/// bucket would not be full again by now anyway; otherwise they are used.
template <class Key>
class [[nodiscard]] keyed_limiter<Key>::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept
        : shard_(std::exchange(other.shard_, nullptr)), decision_(other.decision_), shared_(std::move(other.shared_)),
          live_(std::exchange(other.live_, false)) {}
    permit& operator=(permit&& other) noexcept {
        if (this != &other) {
            settle(verdict::stopped);
            shard_ = std::exchange(other.shard_, nullptr);
            decision_ = other.decision_;
            shared_ = std::move(other.shared_);
            live_ = std::exchange(other.live_, false);
        }
        return *this;
    }
    ~permit() { settle(verdict::stopped); }

    void settle(verdict v) noexcept {
        live_ = false;
        shared_.settle(v);
        shard* const s = std::exchange(shard_, nullptr);
        if (s == nullptr || v != verdict::stopped) return;
        const std::uint64_t now = token_bucket::ns_now();
        const std::lock_guard lock(s->mutex);
        s->give_back(decision_, now);
    }
    /// Whether it is still to be settled.
    [[nodiscard]] explicit operator bool() const noexcept { return live_; }

private:
    friend class keyed_limiter;
    shard* shard_ = nullptr;
    typename shard::decision decision_;
    token_bucket::permit shared_;
    bool live_ = false;
};

/// The limit of one key. Small: a pipeline keeps a copy.
template <class Key>
class keyed_limiter<Key>::bound {
    class admission_operation;

public:
    [[nodiscard]] bool try_acquire(std::uint64_t n = 1) const { return limiter_->try_acquire(key_, n); }
    /// Takes `n` tokens for a guarded call; ready at once.
    /// Errors:        refused as `too_large`, or as `rate_limited` with the time after which to come back
    [[nodiscard]] admission_operation admission(std::uint64_t n = 1) const
        noexcept(std::is_nothrow_copy_constructible_v<view>) {
        return admission_operation(*this, n);
    }

    /// `call()` if its key has a token left; an operation that gives what the call gives.
    /// Errors:        as `admission`; nothing was called then
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) const {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }
    [[nodiscard]] std::string_view name() const noexcept { return limiter_->name(); }
    [[nodiscard]] snapshot stats() const noexcept { return limiter_->stats(); }

private:
    friend class keyed_limiter;
    bound(keyed_limiter& l, const view& key) : limiter_(&l), key_(key) {}

    keyed_limiter* limiter_;
    view key_;
};

template <class Key>
class keyed_limiter<Key>::bound::admission_operation : public detail::operation_base<admission_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = false;

    admission_operation(const bound& b, std::uint64_t n) : bound_(b), n_(n) {}
    class state {
    public:
        explicit state(admission_operation&& a) : bound_(std::move(a.bound_)), n_(a.n_) {}
        bool ready() noexcept {
#if defined(__cpp_exceptions)
            try {
                ended_.emplace(bound_.limiter_->admit(bound_.key_, n_));
            } catch (...) {
                ended_.emplace(std::current_exception());
            }
#else
            ended_.emplace(bound_.limiter_->admit(bound_.key_, n_));
#endif
            return true;
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return r.complete(); }
        outcome<permit> take() noexcept { return *std::move(ended_); }

    private:
        bound bound_;
        std::uint64_t n_;
        std::optional<outcome<permit>> ended_;
    };

private:
    bound bound_;
    std::uint64_t n_;
};

template <class Key>
outcome<typename keyed_limiter<Key>::permit> keyed_limiter<Key>::admit(const view& key, std::uint64_t n) {
    permit p;
    p.live_ = true;
    if (n == 0 || gcra_.cost == 0) return outcome<permit>(std::in_place, std::move(p));
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    const std::uint64_t hash = hash_of(key), now = token_bucket::quick_ns_now();
    shard& s = shard_of(hash);
    const std::lock_guard lock(s.mutex);
    p.decision_ = s.take(key, hash, n, now);
    std::uint64_t wait = 0;
    if (p.decision_.where == shard::overflow) {
        token_bucket::receipt t;
        if (shared_.take(n, t) == token_bucket::answer::granted) {
            p.shared_ = token_bucket::permit(shared_, t);
            return outcome<permit>(std::in_place, std::move(p));
        }
        ++s.rejected;
        wait = static_cast<std::uint64_t>(shared_.time_until(n).count());
    } else if (p.decision_.granted) {
        p.shard_ = &s;
        return outcome<permit>(std::in_place, std::move(p));
    } else if (n <= gcra_.burst) {
        wait = *s.wait(key, hash, n, now);
    }
    return rejection(n > gcra_.burst ? reject_reason::too_large : reject_reason::rate_limited, name_,
                     std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(wait, most))));
}

}  // namespace cordon::inline CORDON_ABI
