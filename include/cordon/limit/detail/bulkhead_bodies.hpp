// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/limit/bulkhead.hpp>, which includes this, and has the invariants of its word.

#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/limit/bulkhead.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

namespace cordon::inline CORDON_ABI {

class bulkhead::waiter : private timer, public detail::leaf<waiter>, public detail::list_hook {
public:
    explicit waiter(bulkhead& b) noexcept : timer(&waiter::fired), bulkhead_(&b) {}
    ~waiter() {
        if (owes_) [[unlikely]] bulkhead_->release();  // got, and never taken: it lost a race
    }
    bool ready() noexcept { return owes_ = bulkhead_->take_uncontended(); }
    std::coroutine_handle<> start(receiver_ref r) noexcept {
        if (bulkhead_->refused_early(*this)) return r.complete();
        return suspend(r);
    }
    outcome<permit> take() noexcept {
        if (refusal_) [[unlikely]] return *refusal_;
        owes_ = false;
        return outcome<permit>(std::in_place, permit(bulkhead_));
    }

private:
    friend class leaf<waiter>;
    friend class bulkhead;
    void enqueue() noexcept {
        const clock::duration most = bulkhead_->max_wait_;
        if (most != (clock::duration::max)()) {
            const executor_ref e = receiver().ctx().executor();
            if (!e) [[unlikely]]
                detail::fail("waiting for a bulkhead with max_wait in a context without an executor: nobody ends it");
            const deadline end = deadline::after(most);
            if (!end.is_never()) {
                when = end.time();
                timers_ = &e.timers();
            }
        }
        bulkhead_->enqueue(*this);
    }
    void dequeue(bool) noexcept { bulkhead_->dequeue(*this); }
    void leave_queue() noexcept { bulkhead_->dequeue(*this); }
    const detail::wait_label& label() const noexcept { return bulkhead_->label_; }
    static void fired(timer& t) noexcept {
        auto& w = static_cast<waiter&>(t);
        w.bulkhead_->time_out(w);
    }
    void refuse(reject_reason why) noexcept {
        refusal_.emplace(bulkhead_->refuse(why));
        complete();
    }

    bulkhead* bulkhead_;
    timer_service* timers_ = nullptr;  ///< null: it waits as long as it takes
    bool owes_ = false;                ///< has a permit that nobody has been told of
    std::optional<rejection> refusal_;
};

class bulkhead::acquire_operation : public detail::operation_base<acquire_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = true;

    explicit acquire_operation(bulkhead& b) noexcept : bulkhead_(&b) {}
    /// See `admits_at_once`.
    permit at_once() noexcept { return permit(bulkhead_->take_uncontended() ? bulkhead_ : nullptr); }
    class state : public waiter {
    public:
        explicit state(acquire_operation&& a) noexcept : waiter(*a.bulkhead_) {}
    };

private:
    bulkhead* bulkhead_;
};

inline bulkhead::bulkhead(std::size_t max_concurrent, bulkhead_options options)
    : word_(checked("bulkhead", max_concurrent) * one_permit),
      limit_(static_cast<std::int64_t>(max_concurrent)), max_waiting_(options.max_waiting),
      max_wait_(options.max_wait), name_(options.name), label_(detail::wait_label("bulkhead"), options.name) {
    detail::check_option(max_wait_ > clock::duration::zero(), "bulkhead", "max_wait", max_wait_, "is more than 0");
}

inline bulkhead::~bulkhead() {
    const std::size_t present = present_.load(std::memory_order_acquire);
    if (present != 0) [[unlikely]] detail::fail_in_use("bulkhead", name_, waiters_.size(), present);
    const std::int64_t out = limit_ - (word_.load(std::memory_order_acquire) >> 1);
    if (out != 0) [[unlikely]]
        detail::fail("bulkhead \"" + name_ + "\" destroyed while " + std::to_string(out) + " calls have its permit");
}

inline bulkhead::permit bulkhead::try_acquire() noexcept {
    if (take_uncontended()) return permit(this);
    rejected_.add();
    return permit();
}
inline bulkhead::acquire_operation bulkhead::acquire() noexcept { return acquire_operation(*this); }
inline bulkhead::acquire_operation bulkhead::admission() noexcept { return acquire_operation(*this); }
inline outcome<bulkhead::permit> bulkhead::acquire_blocking(const blocking_scope& heeds) {
    return detail::block_on(acquire(), heeds);
}

inline void bulkhead::release() noexcept {
    std::int64_t seen = word_.load(std::memory_order_relaxed);
    do {
        if ((seen & contended) != 0) return release_contended();
    } while (!word_.compare_exchange_weak(seen, seen + one_permit, std::memory_order_release,  // H3
                                          std::memory_order_relaxed));
}
CORDON_NOINLINE inline void bulkhead::release_contended() noexcept {
    const detail::waking_guard guard(lock_);
    serve(contend() + 1);  // whoever waited may be gone
}

/// Gives what is free to those who wait, in order, and stores the rest. Under the lock, which keeps a waiter alive that
/// may be running already.
inline void bulkhead::serve(std::int64_t free) noexcept {
    while (free > 0 && !waiters_.empty()) {
        waiter& first = waiters_.pop_front();
        first.owes_ = true;
        if (first.complete()) --free;
        else first.owes_ = false;
    }
    const bool stays = closed_ || !waiters_.empty();
    word_.store(free * one_permit | (stays ? contended : 0), std::memory_order_release);  // H3
}

/// Why one that finds no free permit may not wait either. Under the lock.
inline std::optional<reject_reason> bulkhead::why_not() const noexcept {
    if (closed_) return reject_reason::closed;
    return waiters_.size() >= max_waiting_ ? std::optional(reject_reason::full) : std::nullopt;
}
/// Whether it makes no sense to begin to wait.
inline bool bulkhead::refused_early(waiter& w) noexcept {
    const detail::spin_guard guard(lock_);
    if (!closed_ && word_.load(std::memory_order_relaxed) >= one_permit) return false;  // has just become free
    const auto why = why_not();
    if (why) w.refusal_.emplace(refuse(*why));
    return why.has_value();
}
inline void bulkhead::enqueue(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    present_.fetch_add(1, std::memory_order_relaxed);
    const std::int64_t free = contend();
    const bool takes = !closed_ && free > 0 && waiters_.empty();
    if (const auto why = why_not(); !takes && why) {
        w.timers_ = nullptr;
        w.refuse(*why);
        return serve(free);
    }
    waiters_.push_back(w);
    if (takes) w.timers_ = nullptr;
    else if (w.timers_ != nullptr) w.timers_->arm(w);
    serve(free);
}
inline void bulkhead::dequeue(waiter& w) noexcept {
    {
        const detail::waking_guard guard(lock_);
        if (w.linked()) {
            waiters_.remove(w);
            serve(contend());
        }
    }
    if (w.timers_ != nullptr) w.timers_->cancel(w);  // without the lock, which its fire takes
    present_.fetch_sub(1, std::memory_order_release);
}
inline void bulkhead::time_out(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    if (!w.linked()) return;
    waiters_.remove(w);
    w.refuse(reject_reason::full);
    serve(contend());
}

inline void bulkhead::resize(std::size_t max_concurrent) {
    const std::int64_t limit = checked("bulkhead::resize", max_concurrent);
    const detail::waking_guard guard(lock_);
    const std::int64_t free = contend();
    const std::int64_t more = limit - std::exchange(limit_, limit);
    serve(free + more);
}
inline void bulkhead::close() noexcept {
    const detail::waking_guard guard(lock_);
    const std::int64_t free = contend();
    closed_ = true;
    while (!waiters_.empty()) waiters_.pop_front().refuse(reject_reason::closed);
    serve(free);
}

inline bulkhead::snapshot bulkhead::stats() const noexcept {
    const detail::spin_guard guard(lock_);
    snapshot s;
    s.limit = static_cast<std::size_t>(limit_);
    s.in_use = static_cast<std::size_t>(limit_ - (word_.load(std::memory_order_acquire) >> 1));
    s.waiting = waiters_.size();
    s.rejected = rejected_[0];
    s.closed = closed_;
    return s;
}

}  // namespace cordon::inline CORDON_ABI
