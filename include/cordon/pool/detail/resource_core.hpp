// SPDX-License-Identifier: MIT
#pragma once

// The part of a resource_pool that does not depend on what it has: who waits, who has what, and what there is room for.
//
// A place is room for one resource: what is idle, lent, looked at or being made has one. All below is under one lock,
// during which nothing of the user's runs, and resources are made and destroyed without it, in their places:
// K1 size_ is the number of places: idle_, lent_, and those that a `place` object or a creation of the pool's own has.
//    It grows only below limit_, so never more than that exist, also while an old one is being destroyed. A limit that
//    has come down is kept to by those that stay: going_ of the places have a resource that is being destroyed.
// K2 What is idle or free is given to who waits, oldest first, whenever the lock is given up (`change`): while somebody
//    waits nothing is idle, and there is room only beyond what may be made at the same time.
// K3 A pool whose close has ended has no place, and nobody is at its turn. Giving back the last place, or leaving the
//    last turn, is the last access to the pool, under the lock; the closer takes the lock once more before it goes on.
//    So who leaves a turn without a place knows by then how it ended; a place is given up for a turn as that begins.
//    While a change leaves nobody waiting in a pool that is open and has no executor, it has completed nobody.
// K4 A resource is of the generation in which its creation began; one of an earlier generation than the pool's is not
//    lent. Read without the lock: what happens after an `invalidate` sees it; what happens meanwhile counts as earlier.
// K5 all_ has the resources that are in a place and not going; lent_ of them are lent, and say so. It changes only as one
//    is made or goes: who borrows and who gives back writes to the resource and to lock_ to totals_, a line or two.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/pool/detail/kept_function.hpp>
#include <cordon/pool/holder.hpp>

#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

class resource_core;

/// Who borrows.
struct borrower {
    std::source_location where;
    std::uint64_t task_id = 0;
    executor_ref runs_on;
};

/// Why a resource was destroyed.
enum class gone : std::uint8_t { broken, unusable, old, idle, surplus };
inline constexpr std::size_t reasons_to_go = 5;

/// A resource in its place; the value follows in a derived class. What a lease writes to is in one line of the cache.
class alignas(64) pooled : public list_hook, public timer {
public:
    pooled(resource_core& p, std::uint64_t made_in) noexcept
        : timer(&pooled::held_too_long), pool(&p), generation(made_in) {}
    static void held_too_long(timer& t) noexcept;

    resource_core* const pool;
    timer_service* watched_by = nullptr;  ///< has the timer
    const std::uint64_t generation;
    pooled* below = nullptr;  ///< in a `resource_stack`
    clock::time_point expires{}, last_used{}, borrowed_at{};
    std::source_location borrowed_where;
    std::uint64_t borrowed_by = 0;  ///< a task, or 0
    enum : std::uint8_t { never, before, now } lent = never;  ///< K5
    bool reported = false;          ///< written by the timer, read when that is cancelled
};

/// Resources, the last that came on top. In one direction only, so that who pushes and who pops writes to no other
/// resource, which another thread may have just now.
class resource_stack {
public:
    resource_stack() = default;
    resource_stack(const resource_stack&) = delete;
    resource_stack& operator=(const resource_stack&) = delete;

    [[nodiscard]] bool empty() const noexcept { return top_ == nullptr; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] pooled& top() const noexcept { return *top_; }
    void push(pooled& p) noexcept {
        p.below = top_;
        top_ = &p;
        ++size_;
    }
    pooled& pop() noexcept {
        --size_;
        return *std::exchange(top_, top_->below);
    }
    /// Takes out the one that came first.
    /// Cost:          linear
    pooled& pop_bottom() noexcept {
        pooled** at = &top_;
        while ((*at)->below != nullptr) at = &(*at)->below;
        --size_;
        return *std::exchange(*at, nullptr);
    }
    /// Takes out those of which `f(p)` is true, the last that came first.
    template <class F>
    void extract(F f, resource_stack& to) noexcept {
        for (pooled** at = &top_; *at != nullptr;) {
            pooled& p = **at;
            if (!f(p)) {
                at = &p.below;
                continue;
            }
            *at = p.below;
            --size_;
            to.push(p);
        }
    }

private:
    pooled* top_ = nullptr;
    std::size_t size_ = 0;
};

/// Has a place: with a resource that is looked at, or with room for one that its owner makes.
class place {
public:
    place() noexcept = default;
    place(resource_core& pool, pooled* resource) noexcept : pool_(&pool), resource_(resource) {}
    place(place&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), resource_(other.resource_), uncertain_(other.uncertain_),
          surplus_(other.surplus_) {}
    place& operator=(place&& other) noexcept {
        place old(std::move(*this));
        pool_ = std::exchange(other.pool_, nullptr);
        resource_ = other.resource_;
        uncertain_ = other.uncertain_;
        surplus_ = other.surplus_;
        return *this;
    }
    ~place();

    [[nodiscard]] explicit operator bool() const noexcept { return pool_ != nullptr; }
    [[nodiscard]] pooled* resource() const noexcept { return resource_; }
    /// While a check or a creation is under way, which a stop may end midway.
    void uncertain(bool u) noexcept { uncertain_ = u; }
    /// There is no room for it any more: it is to be given up.
    [[nodiscard]] bool surplus() const noexcept { return surplus_; }

private:
    friend class resource_core;
    resource_core* pool_ = nullptr;
    pooled* resource_ = nullptr;  ///< null: one is to be made
    bool uncertain_ = false;
    bool surplus_ = false;
};

class resource_core {
public:
    static constexpr clock::duration unlimited = (clock::duration::max)();
    struct terms {
        std::size_t min_idle, max_creating;
        clock::duration max_idle_time, max_lifetime, held_too_long;
        clock::duration unasked_for;  ///< after a use: then `usable` is to be asked
        executor_ref runs_on;
        std::uint64_t seed;
    };
    struct counters {
        std::uint64_t acquired = 0, waited = 0, gave_up = 0, created = 0, failed = 0, untold = 0;
        std::array<std::uint64_t, reasons_to_go> destroyed{};
    };
    struct figures {
        std::size_t limit, size, idle, in_use, creating, waiting;
        bool closed;
        counters totals;
    };
    class turn_operation;
    class close_operation;

    resource_core(std::size_t limit, std::string_view name, const terms& t,
                  kept_function<void(const pool_holder&)> tell);
    resource_core(const resource_core&) = delete;
    resource_core& operator=(const resource_core&) = delete;

    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] const terms& limits() const noexcept { return terms_; }
    [[nodiscard]] rejection refusal() const noexcept { return rejection(reject_reason::closed, name_); }
    [[nodiscard]] figures look() const noexcept;
    [[nodiscard]] std::vector<pool_holder> holders() const;
    void resize(std::size_t limit) noexcept;
    void invalidate() noexcept;
    void reap() noexcept;

    /// What is idle, for who comes while nobody waits: hands it out, or, if it is not known to be good, puts it into
    /// the place. Neither: nothing is.
    [[nodiscard]] pooled* lend_idle(const borrower& by, clock::time_point now, place& otherwise, bool& closed) noexcept;
    /// Of what is made from now on.
    [[nodiscard]] std::uint64_t generation() const noexcept { return generation_.load(std::memory_order_relaxed); }
    /// Why a resource is not to be lent any more.
    [[nodiscard]] std::optional<gone> outdated(const pooled& p, clock::time_point now) const noexcept;
    /// Destroys what is in the place, which stays.
    void empty(place& p, gone why) noexcept;
    /// For an emptied place: another resource, or that it may be filled, or that it is surplus.
    [[nodiscard]] place trade(place p) noexcept;
    /// An acquisition that makes its own, and did not wait for a turn before.
    void count_waited() noexcept {
        const spin_guard guard(lock_);
        ++totals_.waited;
    }
    /// Fills a place that had room.
    /// Returns:       false if what was made is not to be lent
    [[nodiscard]] bool fill(place& p, pooled& made) noexcept;
    /// Hands a resource out.
    /// Returns:       false if the pool is closed: then nothing has changed
    [[nodiscard]] bool lend(place& p, const borrower& by, clock::time_point now) noexcept;
    void give_back(pooled& p, std::optional<gone> spoilt) noexcept;
    /// Forgets a resource, which its borrower keeps.
    void let_go(pooled& p) noexcept;

    // Creations of the pool's own, which have a place without an object.
    void created(pooled& made) noexcept;
    void not_created(const std::exception_ptr& error) noexcept;  ///< null: it was stopped

    /// Takes what is idle out of the pool, oldest first, and puts it back, or destroys it: in its place all the time.
    [[nodiscard]] pooled* withdraw_idle(std::size_t& n) noexcept;

protected:
    ~resource_core() = default;
    void fail_if_in_use() noexcept;  ///< or, if it is not, end the reaper
    void begin() noexcept { const change now(*this); }

private:
    friend class place;
    friend class pooled;
    class turn;
    class closer;
    class reaper : public timer {
    public:
        explicit reaper(resource_core& c) noexcept : timer(&reaper::fired), core(&c) {}
        static void fired(timer& t) noexcept;
        resource_core* core;
        bool armed = false;  // under the lock
    };

    /// The lock, and what follows from what was changed under it.
    class change {
    public:
        explicit change(resource_core& c) noexcept : core_(&c) { core_->lock_.lock(); }
        change(const change&) = delete;
        change& operator=(const change&) = delete;
        ~change() {
            if (core_->at_rest()) [[likely]] core_->lock_.unlock();  // K3
            else core_->serve_and_unlock();
        }

    private:
        resource_core* core_;
    };

    virtual void destroy(pooled& p) noexcept = 0;
    /// Begins a creation of the pool's own, for which there is a place.
    /// Returns:       why it could not
    virtual std::exception_ptr create() noexcept = 0;
    virtual void stop_creating() noexcept = 0;

    void serve() noexcept;
    void serve_and_unlock() noexcept;
    void without_creation(const std::exception_ptr& error) noexcept;
    /// Under the lock: whether there is nobody to serve and nothing to make or to arm.
    [[nodiscard]] bool at_rest() const noexcept { return waiters_.empty() && !closed_ && !terms_.runs_on; }
    void hand_out(pooled& p, const borrower& by, clock::time_point now) noexcept;
    void watch(pooled& p, const borrower& by) noexcept;
    void leave(pooled& p) noexcept;
    void arm_reaper(clock::time_point now) noexcept;
    void give_up(place& p) noexcept;
    void drop(place& p) noexcept;
    void begin_close() noexcept;
    void end_reaper() noexcept;
    void born(pooled& made) noexcept;
    template <class F>
    void extract(F f, resource_stack& to) noexcept;
    void destroy_all(resource_stack& resources, gone why) noexcept;
    void forget(std::size_t places, gone why) noexcept;
    /// Under the lock.
    [[nodiscard]] bool too_many() const noexcept { return size_ - going_ > limit_; }
    /// Under the lock: whether a resource can become idle.
    [[nodiscard]] bool stays(const pooled& p) const noexcept {
        return !closed_ && !too_many() && p.generation == generation();
    }
    /// Under the lock.
    [[nodiscard]] bool needs_reaper() const noexcept;
    void report(const pooled& p, clock::time_point now, bool returned) noexcept;
    void report_all() noexcept;
    template <class F>
    void telling(F f) noexcept;
    [[nodiscard]] pool_holder holder(const pooled& p, clock::time_point now) const;
    [[nodiscard]] clock::time_point expiry(const pooled& p) const noexcept;

    const terms terms_;
    const kept_function<void(const pool_holder&)> tell_;
    const std::string name_;
    random_source random_;
    named_wait_label label_;
    named_wait_label close_label_;

    mutable spin_lock lock_;  // for what follows
    bool closed_ = false;
    bool refills_ = true;  // no creation has failed since the reaper looked
    resource_stack idle_;  // the one that was used last is on top
    std::size_t lent_ = 0;
    counters totals_;      // up to here written for each lease, first of them `acquired`: K5
    std::atomic<std::uint64_t> generation_{0};  // written under the lock; K4
    counted_list<turn> waiters_;
    std::size_t limit_;
    std::size_t size_ = 0;      // K1
    std::size_t going_ = 0;     // places whose resource is being destroyed
    std::size_t creating_ = 0;  // places that are being filled
    std::size_t to_create_ = 0;
    intrusive_list<pooled> all_;  // K5
    intrusive_list<closer> closers_;
    std::size_t turns_ = 0;    // in waiters_, or woken and not gone on yet
    std::size_t closing_ = 0;  // the same of closers_
    reaper reaper_{*this};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#include <cordon/pool/detail/resource_core_bodies.hpp>
