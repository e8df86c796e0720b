// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/limit/token_bucket.hpp>: the fast path, the claims behind it, refunds, those who wait and their
// one timer, and the change of terms. Long, because all of them change one word and one queue under the same rules, B1
// to B4 of the class and T1 and T2 here: they are read as one.
//
// T1 A waiter's timer is armed only under the lock, only while it is the first in the queue, and only by arm_first. It
//    is cancelled without the lock, which its fire takes: by the waiter itself once it is out of the queue, or by
//    hurry_first, which pins the waiter meanwhile. Nobody arms the timer of a pinned waiter, and it does not go on.
// T2 A waiter's place is the distance to the one before it, so that one that leaves moves all behind it by touching its
//    neighbour alone.

#include <cordon/core/detail/check_option.hpp>
#include <cordon/limit/token_bucket.hpp>

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>

namespace cordon::inline CORDON_ABI {

struct token_bucket::sight {
    std::uint64_t position, ns, passed;  ///< passed: the units by which the base has to move to come near
};
struct token_bucket::place {
    std::uint64_t next = 0;  ///< the position behind it
    std::int64_t act = 0;    ///< when its tokens are there, in units; less than now: they are
    std::uint64_t wait = 0;  ///< the same in nanoseconds from now
    bool claimed = false;
};

class token_bucket::waiter : private timer, public detail::leaf<waiter>, public detail::list_hook {
public:
    waiter(token_bucket& b, std::uint64_t n) noexcept : timer(&waiter::fired), bucket_(&b), n_(n) {}
    ~waiter() {
        if (owes_) [[unlikely]] bucket_->give_back(receipt_);  // got, and never taken: it lost a race
    }
    bool ready() noexcept {
        const answer a = bucket_->take(n_, receipt_);
        if (a == answer::refused) return false;
        if (a == answer::too_large) refusal_.emplace(bucket_->refuse(reject_reason::too_large));
        owes_ = a == answer::granted;
        return true;
    }
    std::coroutine_handle<> start(receiver_ref r) noexcept {
        until_ = r.ctx().deadline();
        if (bucket_->refused_early(*this)) return r.complete();
        return suspend(r);
    }
    outcome<void> take() noexcept {
        if (refusal_) [[unlikely]] return *refusal_;
        owes_ = false;
        return {};
    }

protected:
    [[nodiscard]] const std::optional<cordon::rejection>& refusal() const noexcept { return refusal_; }
    permit take_permit() noexcept {
        owes_ = false;
        return permit(*bucket_, receipt_);
    }

private:
    friend class leaf<waiter>;
    friend class token_bucket;
    void enqueue() noexcept { bucket_->enqueue(*this); }
    void dequeue(bool) noexcept { bucket_->dequeue(*this); }
    void leave_queue() noexcept { bucket_->dequeue(*this); }
    const detail::wait_label& label() const noexcept { return bucket_->label_; }
    timer_service& timers() const noexcept {
        const executor_ref e = receiver().ctx().executor();
        if (!e) [[unlikely]] 
            detail::fail("waiting for tokens in a context without an executor: nobody is there to wake it");
        return e.timers();
    }
    static void fired(timer& t) noexcept {
        auto& w = static_cast<waiter&>(t);
        token_bucket& b = *w.bucket_;
        const detail::waking_guard guard(b.lock_);
        w.armed_ = false;
        b.serve(b.come_near(ns_now()));
        b.arm_first();
    }
    void refuse(const cordon::rejection& why) noexcept {
        refusal_.emplace(why);
        complete();
    }
    /// The nanoseconds from `now` to the last one before the deadline.
    [[nodiscard]] std::uint64_t room(std::uint64_t now) const noexcept {
        if (until_.is_never()) return std::numeric_limits<std::int64_t>::max();
        const std::int64_t end = until_.time().time_since_epoch().count(), from = static_cast<std::int64_t>(now);
        return end <= from ? 0 : static_cast<std::uint64_t>(end) - now - 1;
    }

    token_bucket* bucket_;
    const std::uint64_t n_;
    deadline until_;
    receipt receipt_;
    std::int64_t step_ = 0;      ///< under the lock, while queued: the time after that of the one before, in units
    bool armed_ = false;         ///< under the lock: its timer may fire
    bool was_armed_ = false;     ///< under the lock
    bool pinned_ = false;        ///< under the lock: T1
    bool owes_ = false;          ///< has tokens that nobody has been told of
    std::optional<cordon::rejection> refusal_;
};

class token_bucket::acquire_operation : public detail::operation_base<acquire_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    acquire_operation(token_bucket& b, std::uint64_t n) noexcept : bucket_(&b), n_(n) {}
    class state : public waiter {
    public:
        explicit state(acquire_operation&& a) noexcept : waiter(*a.bucket_, a.n_) {}
    };

private:
    token_bucket* bucket_;
    std::uint64_t n_;
};

class token_bucket::admission_operation : public detail::operation_base<admission_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = true;

    admission_operation(token_bucket& b, std::uint64_t n) noexcept : bucket_(&b), n_(n) {}
    /// See `admits_at_once`.
    permit at_once() noexcept {
        receipt r;
        const answer a = bucket_->take(n_, r);
        has_to_wait_ = a == answer::refused;
        return a == answer::granted ? permit(*bucket_, r) : permit();
    }
    class state : public waiter {
    public:
        explicit state(admission_operation&& a) noexcept : waiter(*a.bucket_, a.n_), has_to_wait_(a.has_to_wait_) {}
        bool ready() noexcept { return !has_to_wait_ && waiter::ready(); }
        outcome<permit> take() noexcept {
            if (this->refusal()) [[unlikely]] return *this->refusal();
            return outcome<permit>(std::in_place, this->take_permit());
        }

    private:
        bool has_to_wait_;
    };

private:
    token_bucket* bucket_;
    std::uint64_t n_;
    bool has_to_wait_ = false;  ///< found out by at_once
};

// --- making it, and the fast path -------------------------------------------------------------------------------

inline token_bucket::token_bucket(rate limit, std::uint64_t burst, token_bucket_options options)
    : name_(options.name), label_(detail::wait_label("rate limit"), options.name) {
    store_terms(detail::gcra(limit, detail::checked_range("token_bucket", "burst", burst, 0, max_burst)), ns_now());
}

inline token_bucket::~token_bucket() {
    const std::size_t present = present_.load(std::memory_order_acquire);
    if (present != 0) [[unlikely]] detail::fail_in_use("token_bucket", name_, waiters_.size(), present);
}

inline void token_bucket::store_terms(const detail::gcra& g, std::uint64_t base) noexcept {
    gcra_ = g;
    base_ = base;
    terms_.base.store(base, std::memory_order_release);
    terms_.multiplier.store(g.multiplier, std::memory_order_release);
    terms_.shift.store(g.shift, std::memory_order_release);
    terms_.cost.store(g.cost, std::memory_order_release);
    terms_.window.store(g.window, std::memory_order_release);
    terms_.burst.store(g.burst, std::memory_order_release);
    terms_.reach.store(g.reach, std::memory_order_release);
    terms_.origin.store(origin_, std::memory_order_release);
    terms_.era.store(era_, std::memory_order_release);
}

/// Ends a change of terms.
inline void token_bucket::publish(std::uint64_t position) noexcept {
    version_ = (version_ + one_version) & (one_position - 1);
    word_.store(position * one_position | version_, std::memory_order_release);  // B2
}

inline token_bucket::answer token_bucket::take(std::uint64_t n, receipt& out) noexcept {
    constexpr auto acquire = std::memory_order_acquire;  // B2
    out = {};
    if (n == 0 || terms_.cost.load(acquire) == 0) return answer::granted;
    std::uint64_t seen = word_.load(acquire);
    std::uint64_t now = quick_ns_now(), read_after = 0;
    detail::stand_back lost;
    for (;;) {
        const std::uint64_t ns = now - terms_.base.load(acquire);
        if ((seen & changing) != 0 || ns > terms_.reach.load(acquire)) [[unlikely]] return take_slowly(n, out);
        if (n > terms_.burst.load(acquire)) [[unlikely]] return answer::too_large;
        const std::uint64_t multiplier = terms_.multiplier.load(acquire);
        const std::uint32_t shift = terms_.shift.load(acquire);
        const std::uint64_t at = ns * multiplier >> shift;
        const std::uint64_t next = std::max(position_of(seen), at) + n * terms_.cost.load(acquire);  // B3
        const std::uint64_t most = at + terms_.window.load(acquire);
        if (next > most) {
            const std::uint64_t again = word_.load(acquire);
            if (again == seen) {
                // Empty, but maybe only by a clock that is not exact, or that others have read after this thread did.
                const auto error = static_cast<std::uint64_t>(detail::quick_error.count());
                const std::uint64_t doubt = error * multiplier >> shift;
                if ((position_of(seen) < most && next - most > doubt) || read_after == seen) return answer::refused;
                read_after = seen;
                now = ns_now();
            }
            seen = again;
            continue;
        }
        out = {n, next + terms_.origin.load(acquire), terms_.era.load(acquire)};
        if (word_.compare_exchange_weak(seen, at_position(seen, next), acquire)) return answer::granted;
        lost();
        seen = word_.load(acquire);
        now = quick_ns_now();  // which is late by now
        read_after = 0;
    }
}
CORDON_NOINLINE inline token_bucket::answer token_bucket::take_slowly(std::uint64_t n, receipt& out) noexcept {
    const detail::spin_guard guard(lock_);
    if (gcra_.cost == 0) return answer::granted;
    if (n > gcra_.burst) return answer::too_large;
    const place p = claim(n, come_near(ns_now()), 0);
    if (!p.claimed) return answer::refused;
    out = receipt_for(n, p.act);
    return answer::granted;
}

inline bool token_bucket::try_acquire(std::uint64_t n) noexcept {
    receipt t;
    if (take(n, t) == answer::granted) return true;
    rejected_.add();
    return false;
}
inline token_bucket::acquire_operation token_bucket::acquire(std::uint64_t n) noexcept {
    return acquire_operation(*this, n);
}
inline token_bucket::admission_operation token_bucket::admission(std::uint64_t n) noexcept {
    return admission_operation(*this, n);
}
inline outcome<void> token_bucket::acquire_blocking(const blocking_scope& heeds, std::uint64_t n) {
    if (detail::runs_any_here() || detail::simulated_here()) detail::raise_would_block();
    if (heeds.stop_requested()) return outcome<void>::stopped();
    receipt t;
    if (take(n, t) == answer::granted) return {};
    return detail::block_on(acquire(n), heeds);
}

inline cordon::rejection token_bucket::refuse(reject_reason why, std::uint64_t wait_ns) noexcept {
    rejected_.add();
    constexpr std::uint64_t most = std::numeric_limits<std::int64_t>::max();
    return cordon::rejection(why, name_, std::chrono::nanoseconds(static_cast<std::int64_t>(std::min(wait_ns, most))));
}

// --- claims and refunds, under the lock -------------------------------------------------------------------------

/// A time before the base, read by a thread that was slow since, or from a clock that went back, counts as the base.
inline std::uint64_t token_bucket::since_base(std::uint64_t now) const noexcept {
    return static_cast<std::int64_t>(now - base_) < 0 ? 0 : now - base_;
}

/// The position and the time since the base; of a base that has come near, if that is out of reach.
inline token_bucket::sight token_bucket::look(std::uint64_t now) const noexcept {
    const std::uint64_t ns = since_base(now);
    if (ns <= gcra_.reach) [[likely]] return {position(), ns, 0};
    const std::uint64_t passed = gcra_.far_units(ns), at = position();
    const bool all = passed == detail::gcra::farthest;  // everything is long past
    return {at < passed ? 0 : at - passed, all ? 0 : ns - gcra_.ns_at(passed), passed};
}

/// The time since the base, which is moved if that is out of reach.
inline std::uint64_t token_bucket::come_near(std::uint64_t now) noexcept {
    const std::uint64_t ns = since_base(now);
    if (ns <= gcra_.reach) [[likely]] return ns;
    word_.fetch_or(changing, std::memory_order_acq_rel);  // B2
    const sight near = look(now);
    if (near.passed == detail::gcra::farthest) ++era_;
    origin_ += near.passed;
    constexpr auto long_past = -static_cast<std::int64_t>(detail::gcra::farthest);
    for (std::int64_t* const u : {&promised_, &first_act_, &last_act_})
        *u = std::max(*u - static_cast<std::int64_t>(near.passed), long_past);
    store_terms(gcra_, now - near.ns);
    publish(near.position);
    return near.ns;
}

inline token_bucket::place token_bucket::place_of(std::uint64_t position, std::uint64_t n,
                                                  std::uint64_t ns) const noexcept {
    place p;
    p.next = std::max(position, gcra_.units(ns)) + n * gcra_.cost;
    p.act = static_cast<std::int64_t>(p.next) - static_cast<std::int64_t>(gcra_.window);
    if (p.act > 0) p.wait = gcra_.ns_from(ns, static_cast<std::uint64_t>(p.act));
    if (p.next > detail::gcra::farthest) p.wait = detail::gcra::never;
    return p;
}
/// Moves the position for `n` tokens, unless they are there more than `most_wait` nanoseconds from now.
inline token_bucket::place token_bucket::claim(std::uint64_t n, std::uint64_t ns, std::uint64_t most_wait) noexcept {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);
    for (;;) {
        place p = place_of(position_of(seen), n, ns);
        if (p.wait > most_wait) return p;
        if (word_.compare_exchange_weak(seen, at_position(seen, p.next), std::memory_order_relaxed)) {
            p.claimed = true;
            return p;
        }
    }
}
inline token_bucket::receipt token_bucket::receipt_for(std::uint64_t n, std::int64_t act) const noexcept {
    return {n, origin_ + static_cast<std::uint64_t>(act) + gcra_.window, era_};
}

/// Takes the position back for `n` tokens with the time `act`, as far as they have not come back by themselves and no
/// later reservation counts on their use.
/// Returns:       by how much
inline std::int64_t token_bucket::take_back(std::uint64_t n, std::int64_t act, std::uint64_t ns) noexcept {
    const auto at = static_cast<std::int64_t>(gcra_.units(ns));
    std::int64_t units = std::min(static_cast<std::int64_t>(n * gcra_.cost),
                                  act + static_cast<std::int64_t>(gcra_.window) - at);
    if (promised_ > at && promised_ > act) units -= promised_ - act;
    if (units <= 0) return 0;
    std::uint64_t seen = word_.load(std::memory_order_relaxed), left;
    do {
        const std::uint64_t position = position_of(seen);
        left = position - std::min(position, static_cast<std::uint64_t>(units));
    } while (!word_.compare_exchange_weak(seen, at_position(seen, left), std::memory_order_relaxed));
    return units;
}
inline void token_bucket::refund(const receipt& what, std::uint64_t ns) noexcept {
    if (what.era != era_ || gcra_.cost == 0) return;
    const auto act = static_cast<std::int64_t>(what.end - origin_ - gcra_.window);
    move_up(act, take_back(what.tokens, act, ns));
}
/// All whose time is later than `from` come `units` sooner.
inline void token_bucket::move_up(std::int64_t from, std::int64_t units) noexcept {
    if (waiters_.empty()) return;
    waiter* w = &waiters_.front();
    if (first_act_ > from) {
        first_act_ -= units;
    } else {
        std::int64_t act = first_act_;
        do {
            w = waiters_.after(*w);
            if (w == nullptr) return;
            act += w->step_;
        } while (act <= from);
        w->step_ -= units;
    }
    last_act_ -= units;
}
CORDON_NOINLINE inline void token_bucket::give_back(const receipt& what) noexcept {
    const detail::waking_guard guard(lock_);
    refund(what, come_near(ns_now()));
    hurry_first();
}

// --- those who wait ---------------------------------------------------------------------------------------------

/// Whether it makes no sense to begin to wait.
inline bool token_bucket::refused_early(waiter& w) noexcept {
    const detail::spin_guard guard(lock_);
    if (gcra_.cost == 0 || w.n_ > gcra_.burst) return false;  // has just changed: the queue knows
    const std::uint64_t now = ns_now(), ns = come_near(now);
    const place p = place_of(position(), w.n_, ns);
    if (p.wait <= w.room(now)) return false;
    w.refusal_.emplace(refuse(reject_reason::rate_limited, p.wait));
    return true;
}

inline void token_bucket::enqueue(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    present_.fetch_add(1, std::memory_order_relaxed);
    const std::uint64_t now = ns_now(), ns = come_near(now);
    serve(ns);
    if (gcra_.cost != 0 && w.n_ > gcra_.burst) return w.refuse(refuse(reject_reason::too_large));
    const place p = claim(w.n_, ns, w.room(now));
    if (!p.claimed) return w.refuse(refuse(reject_reason::rate_limited, p.wait));
    w.step_ = p.act - last_act_;
    if (waiters_.empty()) first_act_ = p.act;
    last_act_ = p.act;
    waiters_.push_back(w);
    if (p.wait == 0) serve(ns);
    arm_first();
}

/// Lets go all whose time has come. Under the lock, which keeps one that may be running already alive.
inline void token_bucket::serve(std::uint64_t ns) noexcept {
    const auto at = static_cast<std::int64_t>(gcra_.units(ns));
    while (!waiters_.empty() && first_act_ <= at) {
        waiter& w = waiters_.pop_front();
        w.receipt_ = receipt_for(w.n_, first_act_);
        if (!waiters_.empty()) first_act_ += waiters_.front().step_;
        w.owes_ = true;
        if (w.complete()) continue;
        w.owes_ = false;
        refund(w.receipt_, ns);
    }
}

/// Takes a waiter whose time has not come out of the queue, and gives back what it had claimed.
inline void token_bucket::leave(waiter& w, std::uint64_t ns) noexcept {
    waiter* const next = waiters_.after(w);
    const bool first = &waiters_.front() == &w;
    std::int64_t act = last_act_;
    if (next != nullptr && promised_ > first_act_) {  // else it does not matter when: it was not yet
        act = first_act_;
        for (waiter* i = &waiters_.front(); i != &w; act += i->step_) i = waiters_.after(*i);
    }
    waiters_.remove(w);
    const std::int64_t units = gcra_.cost == 0 ? 0 : take_back(w.n_, act, ns);
    if (next == nullptr) {
        last_act_ -= w.step_;
    } else {
        last_act_ -= units;
        if (first) first_act_ += next->step_ - units;
        else next->step_ += w.step_ - units;  // T2
    }
}

inline void token_bucket::dequeue(waiter& w) noexcept {
    bool cancels;
    {
        const detail::waking_guard guard(lock_);
        const std::uint64_t ns = w.linked() ? come_near(ns_now()) : 0;
        if (w.linked()) serve(ns);
        if (w.linked()) leave(w, ns);
        for (detail::spin_wait wait; w.pinned_;) {  // T1
            lock_.unlock();
            wait();
            lock_.lock();
        }
        arm_first();
        cancels = w.was_armed_;
    }
    if (cancels) w.timers().cancel(w);  // T1
    present_.fetch_sub(1, std::memory_order_release);
}

inline void token_bucket::arm_first() noexcept {
    if (waiters_.empty()) return;
    waiter& w = waiters_.front();
    if (w.armed_ || w.pinned_) return;  // T1
    const std::uint64_t ns = gcra_.ns_at(first_act_ < 0 ? 0 : static_cast<std::uint64_t>(first_act_));
    if (ns >= std::numeric_limits<std::int64_t>::max() - base_) return;  // not before the rate changes
    w.when = clock::time_point(clock::duration(static_cast<std::int64_t>(base_ + ns)));
    w.armed_ = w.was_armed_ = true;
    w.timers().arm(w);
}
/// For when the first may have come nearer. Gives the lock up for a while: the fire that it may wait for takes it.
inline void token_bucket::hurry_first() noexcept {
    if (waiters_.empty()) return;
    waiter& w = waiters_.front();
    if (w.armed_ && !w.pinned_) {
        const std::uint64_t ns = gcra_.ns_at(first_act_ < 0 ? 0 : static_cast<std::uint64_t>(first_act_));
        const auto armed_for = static_cast<std::uint64_t>(w.when.time_since_epoch().count());
        if (ns == detail::gcra::never || base_ + ns >= armed_for) return;
        w.pinned_ = true;
        timer_service& timers = w.timers();
        lock_.unlock();
        timers.cancel(w);
        lock_.lock();
        w.pinned_ = w.armed_ = false;
    }
    arm_first();
}

// --- promises and figures ---------------------------------------------------------------------------------------

inline outcome<token_bucket::reservation> token_bucket::reserve(std::uint64_t n, clock::duration max_wait) noexcept {
    const detail::waking_guard guard(lock_);
    const std::uint64_t now = ns_now(), ns = come_near(now);
    serve(ns);
    if (gcra_.cost != 0 && n > gcra_.burst) return refuse(reject_reason::too_large);
    const auto most = static_cast<std::uint64_t>(std::max(max_wait, clock::duration::zero()).count());
    const place p = n == 0 ? place{} : claim(n, ns, most);
    if (p.wait > most) return refuse(reject_reason::rate_limited, p.wait);
    const std::uint64_t before = origin_ + static_cast<std::uint64_t>(promised_);
    if (p.wait != 0) promised_ = std::max(promised_, p.act);
    const clock::time_point when(clock::duration(static_cast<std::int64_t>(now + p.wait)));
    return outcome<reservation>(std::in_place,
                                reservation(*this, n == 0 ? receipt{} : receipt_for(n, p.act), before, when));
}
inline void token_bucket::reservation::cancel() noexcept {
    token_bucket* const b = std::exchange(bucket_, nullptr);
    if (b == nullptr || receipt_.tokens == 0 || clock::now() > time_) return;
    const detail::waking_guard guard(b->lock_);
    b->refund(receipt_, b->come_near(ns_now()));
    const std::int64_t act = static_cast<std::int64_t>(receipt_.end - b->origin_ - b->gcra_.window);
    if (receipt_.era == b->era_ && b->promised_ == act)  // the last promise: those before it may be given back again
        b->promised_ = static_cast<std::int64_t>(before_ - b->origin_);
    b->hurry_first();
}

inline clock::duration token_bucket::time_until(std::uint64_t n) const noexcept {
    const detail::spin_guard guard(lock_);
    constexpr auto never = (clock::duration::max)();
    if (n == 0 || gcra_.cost == 0) return clock::duration::zero();
    if (n > gcra_.burst) return never;
    const sight now = look(ns_now());
    const place p = place_of(now.position, n, now.ns);
    return p.wait == detail::gcra::never ? never : clock::duration(static_cast<std::int64_t>(p.wait));
}

inline token_bucket::snapshot token_bucket::stats() const noexcept {
    const detail::spin_guard guard(lock_);
    snapshot s;
    s.waiting = waiters_.size();
    s.rejected = rejected_[0];
    if (gcra_.cost == 0) {
        s.available = static_cast<std::int64_t>(gcra_.burst);
        return s;
    }
    const sight now = look(ns_now());
    const std::uint64_t at = gcra_.units(now.ns);
    const std::uint64_t reached = std::max(now.position, at);
    const auto cost = static_cast<std::int64_t>(gcra_.cost);
    const std::int64_t level = static_cast<std::int64_t>(gcra_.window) -
                               static_cast<std::int64_t>(reached - at);
    s.available = level >= 0 ? level / cost : -((-level + cost - 1) / cost);
    return s;
}

inline void token_bucket::drain() noexcept {
    const detail::spin_guard guard(lock_);
    const std::uint64_t empty = gcra_.units(come_near(ns_now())) + gcra_.window;
    std::uint64_t seen = word_.load(std::memory_order_relaxed);
    while (position_of(seen) < empty &&
           !word_.compare_exchange_weak(seen, at_position(seen, empty), std::memory_order_relaxed)) {}
}

// --- other terms ------------------------------------------------------------------------------------------------

inline void token_bucket::set_rate(rate limit, std::uint64_t burst, inherit tokens) {
    const detail::gcra next(limit, detail::checked_range("token_bucket::set_rate", "burst", burst, 0, max_burst));
    const detail::waking_guard guard(lock_);
    const std::uint64_t now = ns_now(), ns = come_near(now);
    serve(ns);
    const std::uint64_t position = position_of(word_.fetch_or(changing, std::memory_order_acq_rel));  // B2
    const std::uint64_t promise =
        promised_ <= 0 || tokens == inherit::reset ? 0 : gcra_.ns_from(ns, static_cast<std::uint64_t>(promised_));
    std::uint64_t settled = settled_position(next, position, ns, tokens);
    ++era_;
    store_terms(next, now);
    promised_ = static_cast<std::int64_t>(gcra_.far_units(promise == detail::gcra::never ? 0 : promise));
    settled = retime_waiters(settled, now);
    publish(settled);
    serve(0);
    hurry_first();
}

/// The position at the new terms, with their base now, of what has been taken, without what is claimed by waiters.
inline std::uint64_t token_bucket::settled_position(const detail::gcra& next, std::uint64_t position, std::uint64_t ns,
                                                    inherit how) const noexcept {
    if (gcra_.cost == 0 || next.cost == 0 || how == inherit::reset) return 0;
    const std::uint64_t at = gcra_.units(ns);
    detail::int128 level = gcra_.window;
    level -= std::max(position, at) - at;
    for (const waiter* w = waiters_.empty() ? nullptr : &waiters_.front(); w != nullptr; w = waiters_.after(*w))
        level += w->n_ * gcra_.cost;
    const auto times = [](detail::int128 value, std::uint64_t factor, std::uint64_t divisor) {
        const detail::int128 product = value * static_cast<detail::int128>(factor);
        const detail::int128 quotient = product / static_cast<detail::int128>(divisor);
        return product < 0 && quotient * static_cast<detail::int128>(divisor) != product ? quotient - 1 : quotient;
    };
    detail::int128 kept = how == inherit::proportional && level > 0 ? times(level, next.window, gcra_.window)
                                                                    : times(level, next.cost, gcra_.cost);
    if (how == inherit::additive && next.burst > gcra_.burst) kept += (next.burst - gcra_.burst) * next.cost;
    const detail::int128 debt = static_cast<detail::int128>(next.window) - kept;
    if (debt <= 0) return 0;
    return debt > detail::gcra::farthest ? detail::gcra::farthest : static_cast<std::uint64_t>(debt);
}

/// Gives all who wait new places from `position` on; refuses those who cannot be served any more.
/// Returns:       the position behind them
inline std::uint64_t token_bucket::retime_waiters(std::uint64_t position, std::uint64_t now) noexcept {
    first_act_ = last_act_ = 0;
    bool first = true;
    for (waiter *w = waiters_.empty() ? nullptr : &waiters_.front(), *next; w != nullptr; w = next) {
        next = waiters_.after(*w);
        const bool too_large = gcra_.cost != 0 && w->n_ > gcra_.burst;
        const place p = place_of(position, too_large ? 0 : w->n_, 0);
        if (too_large || p.next > detail::gcra::farthest || (gcra_.multiplier != 0 && p.wait > w->room(now))) {
            waiters_.remove(*w);
            w->refuse(too_large ? refuse(reject_reason::too_large) : refuse(reject_reason::rate_limited, p.wait));
            continue;
        }
        w->step_ = p.act - last_act_;
        last_act_ = p.act;
        if (std::exchange(first, false)) first_act_ = p.act;
        position = p.next;
    }
    return position;
}

}  // namespace cordon::inline CORDON_ABI
