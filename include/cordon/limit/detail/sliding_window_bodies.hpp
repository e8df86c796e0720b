// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/limit/sliding_window_limiter.hpp>, which includes this, and has its invariants.

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/limit/sliding_window_limiter.hpp>

#include <algorithm>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>

namespace cordon::inline CORDON_ABI {

class sliding_window_limiter::waiter : private timer, public detail::leaf<waiter>, public detail::list_hook {
public:
    explicit waiter(sliding_window_limiter& l) noexcept : timer(&waiter::fired), limiter_(&l) {}
    bool ready() noexcept {
        got_ = limiter_->take_at_once();
        return bool(got_);
    }
    std::coroutine_handle<> start(receiver_ref r) noexcept {
        until_ = r.ctx().deadline();
        if (limiter_->refused_early(*this)) return r.complete();
        return suspend(r);
    }
    outcome<permit> take() noexcept {
        if (refusal_) [[unlikely]] return *refusal_;
        return outcome<permit>(std::in_place, std::move(got_));
    }

private:
    friend class leaf<waiter>;
    friend class sliding_window_limiter;
    void enqueue() noexcept {
        const executor_ref e = receiver().ctx().executor();
        if (!e) [[unlikely]]
            detail::fail("waiting for a sliding_window_limiter in a context without an executor: nobody is there to "
                         "wake it");
        timers_ = &e.timers();
        limiter_->enqueue(*this);
    }
    void dequeue(bool) noexcept { limiter_->dequeue(*this); }
    void leave_queue() noexcept { limiter_->dequeue(*this); }
    const detail::wait_label& label() const noexcept { return limiter_->label_; }
    static void fired(timer& t) noexcept {
        auto& w = static_cast<waiter&>(t);
        w.limiter_->time_passed(w);
    }

    sliding_window_limiter* limiter_;
    timer_service* timers_ = nullptr;
    deadline until_;
    permit got_;          // that nobody has been told of; goes back with this if it lost a race
    bool armed_ = false;  // under the limiter's lock
    std::optional<rejection> refusal_;
};

class sliding_window_limiter::acquire_operation : public detail::operation_base<acquire_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    explicit acquire_operation(sliding_window_limiter& l) noexcept : limiter_(&l) {}
    class state : public waiter {
    public:
        explicit state(acquire_operation&& a) noexcept : waiter(*a.limiter_) {}
        outcome<void> take() noexcept {
            outcome<permit> got = waiter::take();
            if (!got.has_value()) return detail::as_failure<void>(got);
            got->settle(verdict::success);
            return {};
        }
    };

private:
    sliding_window_limiter* limiter_;
};

class sliding_window_limiter::admission_operation : public detail::operation_base<admission_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = true;

    explicit admission_operation(sliding_window_limiter& l) noexcept : limiter_(&l) {}
    /// See `admits_at_once`.
    permit at_once() noexcept { return limiter_->take_at_once(); }
    class state : public waiter {
    public:
        explicit state(admission_operation&& a) noexcept : waiter(*a.limiter_) {}
    };

private:
    sliding_window_limiter* limiter_;
};

inline sliding_window_limiter::sliding_window_limiter(std::size_t limit, clock::duration window,
                                                      const sliding_window_options& options)
    : limit_(detail::checked_range("sliding_window_limiter", "limit", limit, 1, max_limit)),
      window_(window), max_waiting_(options.max_waiting), times_(std::make_unique<clock::time_point[]>(limit)),
      name_(options.name),
      label_(detail::wait_label("sliding_window_limiter"), options.name) {
    detail::check_option(window > clock::duration::zero() && window <= max_window, "sliding_window_limiter", "window",
                         window, "is more than 0, up to a year");
    std::fill_n(times_.get(), limit, long_ago);
}

inline clock::time_point sliding_window_limiter::turn(std::size_t ahead) const noexcept {
    const clock::time_point first = times_[(next_ + ahead) % limit_] + window_;
    if (ahead < limit_) return first;
    // whoever is a whole ring behind another comes a window later, and that one not before now
    const clock::time_point next = (std::max)(first, clock::now()), never = (clock::time_point::max)();
    const std::size_t windows = ahead / limit_;
    if (windows > static_cast<std::uint64_t>((never - next) / window_)) [[unlikely]] return never;
    return next + window_ * static_cast<clock::rep>(windows);
}
/// Event `next_`, whose turn it is. Under the lock.
inline sliding_window_limiter::permit sliding_window_limiter::take(clock::time_point now) noexcept {
    const clock::time_point last = next_ == 0 ? now : times_[(next_ - 1) % limit_];
    times_[next_ % limit_] = (std::max)(now, last);  // E1
    return permit(this, next_++);
}
inline sliding_window_limiter::permit sliding_window_limiter::take_at_once() noexcept {
    const detail::spin_guard guard(lock_);
    const clock::time_point now = clock::now();
    return waiters_.empty() && turn(0) <= now ? take(now) : permit();
}
/// Under the lock.
inline void sliding_window_limiter::take_back_last() noexcept {
    clock::time_point& came = times_[--next_ % limit_];
    // as good as what stood there, which had left the window by then; not after the one behind it (E1)
    came = next_ < limit_ ? long_ago : (std::min)(came - window_, times_[(next_ + 1) % limit_]);
}
inline void sliding_window_limiter::give_back(std::uint64_t number) noexcept {
    const detail::waking_guard guard(lock_);
    if (number + 1 != next_) return;
    take_back_last();
    serve();
}

inline bool sliding_window_limiter::try_acquire() noexcept {
    permit event = take_at_once();
    if (event) {
        event.settle(verdict::success);
        return true;
    }
    rejected_.fetch_add(1, std::memory_order_relaxed);
    return false;
}
inline sliding_window_limiter::acquire_operation sliding_window_limiter::acquire() noexcept {
    return acquire_operation(*this);
}
inline sliding_window_limiter::admission_operation sliding_window_limiter::admission() noexcept {
    return admission_operation(*this);
}
inline outcome<void> sliding_window_limiter::acquire_blocking(const blocking_scope& heeds) {
    return detail::block_on(acquire(), heeds);
}

inline bool sliding_window_limiter::refused_early(waiter& w) noexcept {
    const detail::spin_guard guard(lock_);
    if (!refuses(w)) return false;
    rejected_.fetch_add(1, std::memory_order_relaxed);
    return true;
}
/// Whether it makes no sense to begin to wait. Under the lock.
inline bool sliding_window_limiter::refuses(waiter& w) noexcept {
    const clock::time_point at = turn(waiters_.size()), now = clock::now();
    if (waiters_.size() < max_waiting_ && (w.until_.is_never() || at < w.until_.time())) return false;
    if (waiters_.empty() && at <= now) return false;  // has just become free
    w.refusal_.emplace(reject_reason::rate_limited, name_, (std::max)(at - now, clock::duration::zero()));
    return true;
}
inline void sliding_window_limiter::enqueue(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    present_.fetch_add(1, std::memory_order_relaxed);
    if (refuses(w)) {  // others came meanwhile
        if (w.complete()) rejected_.fetch_add(1, std::memory_order_relaxed);
        return;
    }
    waiters_.push_back(w);
    serve();
}
inline void sliding_window_limiter::dequeue(waiter& w) noexcept {
    {
        const detail::waking_guard guard(lock_);
        if (w.linked()) {
            waiters_.remove(w);
            serve();
        }
    }
    w.timers_->cancel(w);  // without the lock, which its fire takes
    present_.fetch_sub(1, std::memory_order_release);
}
inline void sliding_window_limiter::time_passed(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    w.armed_ = false;
    serve();
}
/// Lets go whoever is due, in order, and arms the timer of the first who is not. Under the lock.
inline void sliding_window_limiter::serve() noexcept {
    if (waiters_.empty()) return;
    const clock::time_point now = clock::now();
    while (!waiters_.empty() && turn(0) <= now) {
        waiter& first = waiters_.pop_front();
        first.got_ = take(now);
        if (first.complete()) continue;
        first.got_.settle(verdict::success);  // a stop was faster; it goes back here, under the lock
        take_back_last();
    }
    if (waiters_.empty() || waiters_.front().armed_) return;
    waiter& first = waiters_.front();
    first.armed_ = true;  // E2
    first.when = turn(0);
    first.timers_->arm(first);
}

inline clock::duration sliding_window_limiter::time_until() const noexcept {
    const detail::spin_guard guard(lock_);
    return (std::max)(turn(waiters_.size()) - clock::now(), clock::duration::zero());
}
inline sliding_window_limiter::snapshot sliding_window_limiter::stats() const noexcept {
    const detail::spin_guard guard(lock_);
    const clock::time_point now = clock::now();
    std::uint64_t inside = next_, outside = next_ - (std::min<std::uint64_t>)(next_, limit_);
    while (outside < inside) {  // the first that is within the window
        const std::uint64_t middle = outside + (inside - outside) / 2;
        if (times_[middle % limit_] + window_ > now) inside = middle;
        else outside = middle + 1;
    }
    return {limit_, static_cast<std::size_t>(next_ - inside), waiters_.size(), next_,
            rejected_.load(std::memory_order_relaxed)};
}

}  // namespace cordon::inline CORDON_ABI
