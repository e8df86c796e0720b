// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/pool/detail/resource_core.hpp>, which includes this, and has the invariants. Long, because all
// of them move places and turns under that one lock and those invariants: they are read as one.

#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/pool/detail/resource_core.hpp>
#include <cordon/pool/detail/resource_waits.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline place::~place() {
    if (pool_ != nullptr) pool_->give_up(*this);
}

inline resource_core::resource_core(std::size_t limit, std::string_view name, const terms& t,
                                    kept_function<void(const pool_holder&)> tell)
    : terms_(t), tell_(std::move(tell)), name_(name), random_(t.seed), label_(wait_label("resource_pool"), name),
      close_label_(wait_label("resource_pool close"), name), limit_(limit) {}

/// The reaper does not look again. After a close it does not, and the executor may have gone.
inline void resource_core::end_reaper() noexcept {
    {
        const spin_guard guard(lock_);
        if (!reaper_.armed) return;
    }
    terms_.runs_on.timers().cancel(reaper_);
    const spin_guard guard(lock_);
    reaper_.armed = false;
}

inline void resource_core::fail_if_in_use() noexcept {
    end_reaper();
    const figures now = look();
    if (const std::size_t present = turns_ + closing_; present != 0) [[unlikely]]
        fail_in_use("resource_pool", name_, now.waiting, present);
    if (now.size == now.idle) return;
    std::string text = "resource_pool \"" + name_ + "\" destroyed while " + std::to_string(now.size - now.idle) +
                       " of its places are in use: co_await close() first";
    for (const pool_holder& h : holders()) text += '\n' + describe(h);
    fail(text);
}

/// Under the lock: K2.
inline void resource_core::serve() noexcept {
    while (!waiters_.empty()) {
        pooled* const resource = idle_.empty() ? nullptr : &idle_.top();
        if (resource == nullptr && (terms_.runs_on || size_ >= limit_ || creating_ >= terms_.max_creating)) break;
        turn& first = waiters_.pop_front();
        first.owes_ = true;
        first.resource_ = resource;
        if (!first.complete()) {
            first.owes_ = false;
        } else if (resource != nullptr) {
            idle_.pop();
        } else {
            ++size_;
            ++creating_;
        }
    }
    if (!waiters_.empty()) label_.held_by(lent_);
    if (closed_) {
        if (!closers_.empty()) close_label_.held_by(size_);
        while (size_ == 0 && turns_ == 0 && !closers_.empty()) closers_.pop_front().complete();  // K3
        return;
    }
    if (!terms_.runs_on) return;
    const std::size_t missing = refills_ && idle_.size() < terms_.min_idle ? terms_.min_idle - idle_.size() : 0;
    while (creating_ < waiters_.size() + missing && size_ < limit_ && creating_ < terms_.max_creating) {
        ++size_;
        ++creating_;
        ++to_create_;
    }
    if (!reaper_.armed && needs_reaper()) arm_reaper(clock::now());
}

CORDON_NOINLINE inline void resource_core::serve_and_unlock() noexcept {
    serve();
    std::size_t creations = std::exchange(to_create_, 0);
    lock_.unlock();
    run_woken();
    while (creations != 0) {  // each has a place: K3
        --creations;
        const std::exception_ptr error = create();
        if (error == nullptr) continue;
        lock_.lock();
        without_creation(error);
        serve();
        creations += std::exchange(to_create_, 0);
        lock_.unlock();
        run_woken();
    }
}

// --- what is idle ---------------------------------------------------------------------------------------------------

inline pooled* resource_core::lend_idle(const borrower& by, clock::time_point now, place& otherwise,
                                        bool& closed) noexcept {
    pooled* last = nullptr;
    {
        const spin_guard guard(lock_);
        closed = closed_;
        if (closed_ || !waiters_.empty() || idle_.empty()) return nullptr;
        last = &idle_.pop();
        if (now - last->last_used >= terms_.unasked_for || outdated(*last, now)) {
            otherwise = place(*this, last);
            return nullptr;
        }
        hand_out(*last, by, now);
    }
    watch(*last, by);
    return last;
}

inline std::optional<gone> resource_core::outdated(const pooled& p, clock::time_point now) const noexcept {
    if (now >= p.expires) return gone::old;
    if (terms_.max_idle_time != unlimited && now - p.last_used >= terms_.max_idle_time) return gone::idle;
    if (p.generation != generation()) return gone::surplus;
    return std::nullopt;
}

inline void resource_core::empty(place& p, gone why) noexcept {
    {
        const spin_guard guard(lock_);
        leave(*p.resource_);
    }
    destroy(*std::exchange(p.resource_, nullptr));
    const spin_guard guard(lock_);
    --going_;
    ++totals_.destroyed[static_cast<std::size_t>(why)];
    ++creating_;
}

inline place resource_core::trade(place p) noexcept {
    const change now(*this);
    if (!closed_ && !idle_.empty()) {
        --size_;
        --creating_;
        p.resource_ = &idle_.pop();
    } else {
        p.surplus_ = closed_ || terms_.runs_on || size_ > limit_ || creating_ > terms_.max_creating;
    }
    return p;
}

/// A place without a resource is free again; what was looked at is idle again, or destroyed if that stopped midway.
inline void resource_core::give_up(place& p) noexcept {
    if (p.resource_ != nullptr) {
        {
            const change now(*this);
            if (!p.uncertain_ && stays(*p.resource_)) return idle_.push(*p.resource_);
            leave(*p.resource_);
        }
        destroy(*p.resource_);
        return forget(1, p.uncertain_ ? gone::broken : gone::surplus);
    }
    const change now(*this);
    if (p.uncertain_) ++totals_.failed;
    drop(p);
}

/// Under the lock: gives up a place without a resource, if it is one.
inline void resource_core::drop(place& p) noexcept {
    if (p.pool_ == nullptr) return;
    p.pool_ = nullptr;
    --size_;
    --creating_;
}

inline void resource_core::forget(std::size_t places, gone why) noexcept {
    const change now(*this);
    size_ -= places;
    going_ -= places;
    totals_.destroyed[static_cast<std::size_t>(why)] += places;
}
/// Under the lock: it is to be destroyed, in its place.
inline void resource_core::leave(pooled& p) noexcept {
    ++going_;
    all_.remove(p);
}
/// The same of those that are idle and of which `f(p)` is true, the last that was used first.
template <class F>
void resource_core::extract(F f, resource_stack& to) noexcept {
    idle_.extract([&](pooled& p) {
        const bool goes = f(p);
        if (goes) leave(p);
        return goes;
    }, to);
}
inline void resource_core::destroy_all(resource_stack& resources, gone why) noexcept {
    const std::size_t n = resources.size();
    while (!resources.empty()) destroy(resources.pop());
    if (n != 0) forget(n, why);
}

// --- what is made ---------------------------------------------------------------------------------------------------

inline void resource_core::born(pooled& made) noexcept {
    const clock::time_point now = clock::now();
    made.last_used = now;
    made.expires = (clock::time_point::max)();
    if (terms_.max_lifetime == unlimited || terms_.max_lifetime > made.expires - now) return;
    // up to a fortieth earlier, so that what was made together does not go together
    const auto earlier = static_cast<double>(terms_.max_lifetime.count()) * (random_.next() / 40);
    made.expires = now + terms_.max_lifetime - clock::duration(static_cast<clock::rep>(earlier));
}
inline bool resource_core::fill(place& p, pooled& made) noexcept {
    born(made);
    p.resource_ = &made;
    const change now(*this);
    ++totals_.created;
    --creating_;
    all_.push_back(made);
    return made.generation == generation();
}
inline void resource_core::created(pooled& made) noexcept {
    born(made);
    {
        const change now(*this);
        ++totals_.created;
        --creating_;
        all_.push_back(made);
        if (stays(made)) return idle_.push(made);
        leave(made);
    }
    destroy(made);
    forget(1, gone::surplus);
}

inline void resource_core::not_created(const std::exception_ptr& error) noexcept {
    const change now(*this);
    without_creation(error);
}
/// Under the lock: a creation of the pool's own has failed, or, if there is no error, was stopped.
inline void resource_core::without_creation(const std::exception_ptr& error) noexcept {
    --size_;
    --creating_;
    ++totals_.failed;
    refills_ = false;
    while (!closed_ && !waiters_.empty()) {
        turn& first = waiters_.pop_front();
        first.stopped_ = error == nullptr;
        first.error_ = error;
        if (first.complete()) return;
    }
}

// --- what is lent ---------------------------------------------------------------------------------------------------

/// Under the lock.
inline void resource_core::hand_out(pooled& p, const borrower& by, clock::time_point now) noexcept {
    p.borrowed_where = by.where;
    p.borrowed_by = by.task_id;
    p.borrowed_at = now;
    p.lent = pooled::now;
    ++lent_;
    ++totals_.acquired;
}
inline bool resource_core::lend(place& p, const borrower& by, clock::time_point now) noexcept {
    pooled& r = *p.resource_;
    {
        const spin_guard guard(lock_);
        if (closed_) return false;
        hand_out(r, by, now);
        p.pool_ = nullptr;
    }
    watch(r, by);
    return true;
}
inline void resource_core::watch(pooled& p, const borrower& by) noexcept {
    if (terms_.held_too_long == unlimited) return;
    const executor_ref watches = terms_.runs_on ? terms_.runs_on : by.runs_on;
    if (!watches) return;
    const clock::time_point from = p.borrowed_at;
    const deadline end = deadline::at(from + std::min(terms_.held_too_long, (clock::time_point::max)() - from));
    if (end.is_never()) return;
    p.when = end.time();
    p.watched_by = &watches.timers();
    p.watched_by->arm(p);
}

inline void resource_core::give_back(pooled& p, std::optional<gone> spoilt) noexcept {
    if (p.watched_by != nullptr) std::exchange(p.watched_by, nullptr)->cancel(p);
    const clock::time_point now_is = clock::now();
    if (std::exchange(p.reported, false)) [[unlikely]] report(p, now_is, true);
    {
        const change now(*this);
        p.lent = pooled::before;
        --lent_;
        p.last_used = now_is;
        if (!spoilt && now_is >= p.expires) spoilt = gone::old;
        if (!spoilt && !stays(p)) spoilt = gone::surplus;
        if (!spoilt) return idle_.push(p);
        leave(p);
    }
    destroy(p);
    forget(1, *spoilt);
}
inline void resource_core::let_go(pooled& p) noexcept {
    if (p.watched_by != nullptr) std::exchange(p.watched_by, nullptr)->cancel(p);
    const change now(*this);
    all_.remove(p);
    --lent_;
    --size_;
}

inline pool_holder resource_core::holder(const pooled& p, clock::time_point now) const {
    pool_holder h;
    h.where = p.borrowed_where;
    h.held_for = now - p.borrowed_at;
    h.task_id = p.borrowed_by;
    return h;
}
inline void resource_core::report(const pooled& p, clock::time_point now, bool returned) noexcept {
    if (!tell_) return;
    telling([&] {
        pool_holder h = holder(p, now);
        h.pool = name_;
        h.returned = returned;
        find_task(h);
        tell_(h);
    });
}
inline void resource_core::report_all() noexcept {
    if (!tell_) return;
    telling([&] {
        for (const pool_holder& h : holders()) telling([&] { tell_(h); });
    });
}
/// What `f` throws is dropped and counted.
template <class F>
void resource_core::telling(F f) noexcept {
#if defined(__cpp_exceptions)
    try {
        f();
    } catch (...) {
        const spin_guard guard(lock_);
        ++totals_.untold;
    }
#else
    f();
#endif
}
inline void pooled::held_too_long(timer& t) noexcept {
    auto& self = static_cast<pooled&>(t);
    self.reported = true;
    self.pool->report(self, clock::now(), false);
}

inline std::vector<pool_holder> resource_core::holders() const {
    std::vector<pool_holder> all;
    const clock::time_point now = clock::now();
    for (bool fits = false; !fits;) {
        all.reserve(look().in_use + 4);
        const spin_guard guard(lock_);
        fits = lent_ <= all.capacity();
        if (!fits) continue;
        for (const pooled* p = all_.empty() ? nullptr : &all_.front(); p != nullptr; p = all_.after(*p))
            if (p->lent == pooled::now) all.push_back(holder(*p, now));
    }
    const auto longer = [](const pool_holder& a, const pool_holder& b) { return a.held_for > b.held_for; };
    std::sort(all.begin(), all.end(), longer);
    for (pool_holder& h : all) {
        h.pool = name_;
        find_task(h);
    }
    return all;
}

// --- the pool as a whole --------------------------------------------------------------------------------------------

inline resource_core::figures resource_core::look() const noexcept {
    const spin_guard guard(lock_);
    return {limit_, size_, idle_.size(), lent_, creating_, waiters_.size(), closed_, totals_};
}

inline void resource_core::resize(std::size_t limit) noexcept {
    resource_stack surplus;
    {
        const change now(*this);
        limit_ = limit;
        const std::size_t go = too_many() ? std::min(size_ - going_ - limit_, idle_.size()) : 0;
        std::size_t stay = idle_.size() - go;
        extract([&](pooled&) { return stay == 0 || (--stay, false); }, surplus);
    }
    destroy_all(surplus, gone::surplus);
}

inline void resource_core::invalidate() noexcept {
    resource_stack old;
    {
        const change now(*this);
        generation_.store(generation() + 1, std::memory_order_relaxed);
        extract([](pooled&) { return true; }, old);
    }
    destroy_all(old, gone::surplus);
}

inline pooled* resource_core::withdraw_idle(std::size_t& n) noexcept {
    const spin_guard guard(lock_);
    if (n == 0 || idle_.empty()) return nullptr;
    n = std::min(n, idle_.size()) - 1;
    return &idle_.pop_bottom();
}

/// When it goes if nobody wants it.
inline clock::time_point resource_core::expiry(const pooled& p) const noexcept {
    if (terms_.max_idle_time >= (clock::time_point::max)() - p.last_used) return p.expires;
    return std::min(p.expires, p.last_used + terms_.max_idle_time);
}

inline void resource_core::reap() noexcept {
    const clock::time_point now_is = clock::now();
    resource_stack old, idle;
    {
        const change now(*this);
        refills_ = true;
        extract([&](pooled& p) { return now_is >= p.expires; }, old);
        std::size_t stay = terms_.min_idle;  // of those that were idle for too long, the last that were used
        extract([&](pooled& p) {
            if (stay == 0) return now_is >= expiry(p);
            --stay;
            return false;
        }, idle);
    }
    destroy_all(old, gone::old);
    destroy_all(idle, gone::idle);
}

/// For what may expire, or, after a creation that failed, for another one.
inline bool resource_core::needs_reaper() const noexcept {
    const bool expires = terms_.max_idle_time != unlimited || terms_.max_lifetime != unlimited;
    return !closed_ && ((expires && !idle_.empty()) || (terms_.min_idle != 0 && !refills_));
}

/// Under the lock.
inline void resource_core::arm_reaper(clock::time_point now) noexcept {
    // not later than a quarter of a limit after it, for what becomes idle meanwhile
    const clock::duration limit = std::min(terms_.max_idle_time, terms_.max_lifetime) / 4;
    clock::duration wait = std::max<clock::duration>(limit, std::chrono::milliseconds(1));
    for (const pooled* p = idle_.empty() ? nullptr : &idle_.top(); p != nullptr; p = p->below)
        if (const clock::time_point at = expiry(*p); at > now) wait = std::min(wait, at - now);
    if (terms_.min_idle != 0) wait = std::min<clock::duration>(wait, std::chrono::seconds(1));
    reaper_.armed = true;
    reaper_.when = now + wait;
    terms_.runs_on.timers().arm(reaper_);
}
inline void resource_core::reaper::fired(timer& t) noexcept {
    resource_core& core = *static_cast<reaper&>(t).core;
    core.reap();
    const spin_guard guard(core.lock_);
    core.reaper_.armed = false;
    if (core.needs_reaper()) core.arm_reaper(clock::now());
}

inline void resource_core::begin_close() noexcept {
    resource_stack idle;
    {
        const change now(*this);
        closed_ = true;
        while (!waiters_.empty()) waiters_.pop_front().refuse();
        extract([](pooled&) { return true; }, idle);
    }
    end_reaper();
    stop_creating();
    destroy_all(idle, gone::surplus);
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
