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
        pooled* const resource = idle_.empty() ? nullptr : &idle_.back();
        if (resource == nullptr && (terms_.runs_on || size_ >= limit_ || creating_ >= terms_.max_creating)) break;
        turn& first = waiters_.pop_front();
        first.owes_ = true;
        first.resource_ = resource;
        if (!first.complete()) {
            first.owes_ = false;
        } else if (resource != nullptr) {
            idle_.remove(*resource);
        } else {
            ++size_;
            ++creating_;
        }
    }
    if (!waiters_.empty()) label_.held_by(out_.size());
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

// --- what is idle ---------------------------------------------------------------------------------------------------

inline place resource_core::take_idle(bool& closed) noexcept {
    const spin_guard guard(lock_);
    closed = closed_;
    if (closed_ || !waiters_.empty() || idle_.empty()) return {};
    pooled& last = idle_.back();
    idle_.remove(last);
    return place(*this, &last);
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
        ++going_;
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
        pooled& last = idle_.back();
        idle_.remove(last);
        --size_;
        --creating_;
        p.resource_ = &last;
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
            if (!p.uncertain_ && stays(*p.resource_)) return idle_.push_back(*p.resource_);
            ++going_;
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
inline void resource_core::destroy_all(clean_up& resources, gone why) noexcept {
    std::size_t n = 0;
    for (; !resources.empty(); ++n) destroy(resources.pop_front());
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
    return made.generation == generation();
}
inline void resource_core::created(pooled& made) noexcept {
    born(made);
    {
        const change now(*this);
        ++totals_.created;
        --creating_;
        if (stays(made)) return idle_.push_back(made);
        ++going_;
    }
    destroy(made);
    forget(1, gone::surplus);
}

inline void resource_core::not_created(std::exception_ptr error) noexcept {
    const change now(*this);
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

inline bool resource_core::lend(place& p, const borrower& by, clock::time_point now) noexcept {
    pooled& r = *p.resource_;
    {
        const spin_guard guard(lock_);
        if (closed_) return false;
        r.by = by;
        r.borrowed_at = now;
        out_.push_back(r);
        ++totals_.acquired;
        p.pool_ = nullptr;
    }
    const executor_ref watches = terms_.runs_on ? terms_.runs_on : by.runs_on;
    if (terms_.held_too_long == unlimited || !watches) return true;
    const deadline end = deadline::at(now + std::min(terms_.held_too_long, (clock::time_point::max)() - now));
    if (end.is_never()) return true;
    r.when = end.time();
    r.watched_by = &watches.timers();
    r.watched_by->arm(r);
    return true;
}

inline void resource_core::give_back(pooled& p, std::optional<gone> spoilt) noexcept {
    if (p.watched_by != nullptr) std::exchange(p.watched_by, nullptr)->cancel(p);
    const clock::time_point now_is = clock::now();
    if (std::exchange(p.reported, false)) report(p, now_is, true);
    {
        const change now(*this);
        out_.remove(p);
        p.last_used = now_is;
        if (!spoilt && now_is >= p.expires) spoilt = gone::old;
        if (!spoilt && !stays(p)) spoilt = gone::surplus;
        if (!spoilt) return idle_.push_back(p);
        ++going_;
    }
    destroy(p);
    forget(1, *spoilt);
}
inline void resource_core::let_go(pooled& p) noexcept {
    if (p.watched_by != nullptr) std::exchange(p.watched_by, nullptr)->cancel(p);
    const change now(*this);
    out_.remove(p);
    --size_;
}

inline pool_holder resource_core::holder(const pooled& p, clock::time_point now) const {
    pool_holder h;
    h.where = p.by.where;
    h.held_for = now - p.borrowed_at;
    h.task_id = p.by.task_id;
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
        fits = out_.size() <= all.capacity();
        if (!fits) continue;
        for (const pooled* p = out_.empty() ? nullptr : &out_.front(); p != nullptr; p = out_.after(*p))
            all.push_back(holder(*p, now));
    }
    for (pool_holder& h : all) {
        h.pool = name_;
        find_task(h);
    }
    return all;
}

// --- the pool as a whole --------------------------------------------------------------------------------------------

inline resource_core::figures resource_core::look() const noexcept {
    const spin_guard guard(lock_);
    return {limit_, size_, idle_.size(), out_.size(), creating_, waiters_.size(), closed_, totals_};
}

inline void resource_core::resize(std::size_t limit) noexcept {
    clean_up surplus;
    {
        const change now(*this);
        limit_ = limit;
        for (; too_many() && !idle_.empty(); ++going_) surplus.push_back(idle_.pop_front());
    }
    destroy_all(surplus, gone::surplus);
}

inline void resource_core::invalidate() noexcept {
    clean_up old;
    {
        const change now(*this);
        generation_.store(generation() + 1, std::memory_order_relaxed);
        for (; !idle_.empty(); ++going_) old.push_back(idle_.pop_front());
    }
    destroy_all(old, gone::surplus);
}

inline pooled* resource_core::withdraw_idle(std::size_t& n) noexcept {
    const spin_guard guard(lock_);
    if (n == 0 || idle_.empty()) return nullptr;
    n = std::min(n, idle_.size()) - 1;
    return &idle_.pop_front();
}

/// When it goes if nobody wants it.
inline clock::time_point resource_core::expiry(const pooled& p) const noexcept {
    if (terms_.max_idle_time >= (clock::time_point::max)() - p.last_used) return p.expires;
    return std::min(p.expires, p.last_used + terms_.max_idle_time);
}

inline void resource_core::reap() noexcept {
    const clock::time_point now_is = clock::now();
    clean_up old, idle;
    {
        const change now(*this);
        refills_ = true;
        std::size_t stay = idle_.size();
        for (pooled* p = idle_.empty() ? nullptr : &idle_.front(); p != nullptr;) {
            pooled& seen = *std::exchange(p, idle_.after(*p));
            const bool is_old = now_is >= seen.expires;
            if (!is_old && (now_is < expiry(seen) || stay <= terms_.min_idle)) continue;
            idle_.remove(seen);
            (is_old ? old : idle).push_back(seen);
            ++going_;
            --stay;
        }
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
    for (pooled* p = idle_.empty() ? nullptr : &idle_.front(); p != nullptr; p = idle_.after(*p))
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
    clean_up idle;
    {
        const change now(*this);
        closed_ = true;
        while (!waiters_.empty()) waiters_.pop_front().refuse();
        for (; !idle_.empty(); ++going_) idle.push_back(idle_.pop_front());
    }
    end_reaper();
    stop_creating();
    destroy_all(idle, gone::surplus);
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
