// SPDX-License-Identifier: MIT
#pragma once

// The timers of one loop: any number pending, each armed and cancelled in constant time, each exact to the nanosecond.
//
//     cordon::locked_timer_queue timers{wake_the_loop, &loop};
//     for (;;) { timers.fire_due(clock::now()); ...; sleep_until(timers.next_wake()); }
//
// A timer lies in the bucket of the highest bit in which its deadline differs from `last`, the time up to which the
// queue has come. While `last` moves forward within the part that two deadlines share, their bucket stays right, so
// that only the lowest bucket is ever split, and a timer moves at most once for each of its 64 bits. A wheel of the
// same cost rounds to its tick, and a heap pays for each cancellation.
//
// Long, because I1 to I3 bind the buckets and both queues above them: they are read as one. Users need the two classes.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/timer.hpp>

#include <atomic>
#include <bit>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <thread>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A deadline as an unsigned number of the same order; the largest one stands for no deadline.
using timer_key = std::uint64_t;
inline constexpr timer_key no_timer_key = ~timer_key{0};

[[nodiscard]] inline timer_key key_of(timer::time_point t) noexcept {
    return static_cast<timer_key>(t.time_since_epoch().count()) ^ (timer_key{1} << 63);
}
[[nodiscard]] inline timer::time_point time_of(timer_key k) noexcept {
    return timer::time_point(timer::time_point::duration(static_cast<std::int64_t>(k ^ (timer_key{1} << 63))));
}

/// The buckets, each a list in order of arrival.
///  I1. Every key is at least `last`.
///  I2. A timer is in bucket `bit_width(key ^ last)`: equal keys share a bucket, and the lowest bucket in use holds the
///      earliest. Bucket 0 holds only keys equal to `last`.
///  I3. Bit n - 1 of `used_` is set exactly when bucket n > 0 is not empty. The head of one that is empty means nothing,
///      so that a queue of which nobody arms timers costs nothing to make.
class timer_buckets {
public:
    explicit timer_buckets(timer_key last) noexcept : last_(last) {
        heads_[0].prev = heads_[0].next = &heads_[0];
    }
    timer_buckets(const timer_buckets&) = delete;
    timer_buckets& operator=(const timer_buckets&) = delete;

    [[nodiscard]] timer_key last() const noexcept { return last_; }
    [[nodiscard]] bool empty() const noexcept { return used_ == 0 && bare(heads_[0]); }

    void insert(timer_link& t, timer_key k) noexcept {
        const timer_key difference = k ^ last_, bit = std::bit_floor(difference);
        timer_link& head = heads_[std::bit_width(difference)];
        if ((bit & ~used_) != 0) head.prev = &head;
        t.next = &head;
        t.prev = head.prev;
        head.prev->next = &t;
        head.prev = &t;
        used_ |= bit;
    }

    void erase(timer_link& t) noexcept {
        timer_link* const prev = t.prev;
        timer_link* const next = t.next;
        prev->next = next;
        next->prev = prev;
        t.prev = t.next = nullptr;
        if (prev == next) clear_used(static_cast<std::size_t>(prev - heads_));
    }

    /// The bucket of the earliest. Requires that there is one.
    [[nodiscard]] std::size_t lowest() const noexcept {
        return bare(heads_[0]) ? static_cast<std::size_t>(std::countr_zero(used_)) + 1 : 0;
    }

    /// The least key that bucket `n` can hold.
    [[nodiscard]] timer_key floor_of(std::size_t n) const noexcept {
        return n == 0 ? last_ : ((last_ >> (n - 1)) | 1) << (n - 1);
    }

    /// The first of the earliest in bucket `n`, or null if more than `look` must be looked at.
    [[nodiscard]] timer* earliest_in(std::size_t n, std::size_t look) const noexcept {
        const timer_link& head = heads_[n];
        auto* best = static_cast<timer*>(head.next);
        if (n == 0) return best;
        for (timer_link* i = best->next; i != &head; i = i->next) {
            if (--look == 0) return nullptr;
            auto* const t = static_cast<timer*>(i);
            if (t->when < best->when) best = t;
        }
        return best;
    }

    /// Moves `last` forward. Requires that no timer is earlier than `to`; only the lowest bucket can change then.
    void advance(timer_key to) noexcept {
        if (used_ == 0 || to < floor_of(lowest())) {
            last_ = to;
            return;
        }
        const std::size_t n = lowest();
        timer_link& head = heads_[n];
        timer_link* i = head.next;
        head.prev = head.next = &head;  // for bucket 0
        clear_used(n);
        last_ = to;
        while (i != &head) {
            timer_link* const next = i->next;
            insert(*i, key_of(static_cast<timer*>(i)->when));
            i = next;
        }
    }

    /// Moves `last` back to an earlier time: what was in the buckets below the first bit that changes is in its bucket
    /// now, which was empty, since that bit was set in `last` (I1).
    void rewind(timer_key to) noexcept {
        if (!empty()) {
            const timer_key bit = std::bit_floor(to ^ last_);
            timer_link& target = heads_[std::bit_width(bit)];
            target.prev = target.next = &target;
            splice(heads_[0], target);
            for (timer_key below = used_ & (bit - 1); below != 0; below &= below - 1) {
                splice(heads_[std::countr_zero(below) + 1], target);
            }
            used_ &= ~(bit - 1);
            if (!bare(target)) used_ |= bit;
        }
        last_ = to;
    }

private:
    static bool bare(const timer_link& head) noexcept { return head.next == &head; }

    static void splice(timer_link& from, timer_link& to) noexcept {
        if (bare(from)) return;
        from.next->prev = to.prev;
        to.prev->next = from.next;
        from.prev->next = &to;
        to.prev = from.prev;
        from.prev = from.next = &from;
    }

    void clear_used(std::size_t n) noexcept {
        if (n != 0) used_ &= ~(timer_key{1} << (n - 1));
    }

    timer_key last_;
    timer_key used_ = 0;
    union {
        timer_link heads_[65];
    };
};

}  // namespace detail

/// The plain structure, for one thread: what has no thread but its own, such as a simulation, uses it as it is.
/// Cost:          insert and erase are constant; a timer that is not cancelled moves at most 64 times; no allocation
class timer_queue {
public:
    using time_point = timer::time_point;

    timer_queue() noexcept = default;
    timer_queue(const timer_queue&) = delete;
    timer_queue& operator=(const timer_queue&) = delete;

    [[nodiscard]] bool empty() const noexcept { return size_ == 0; }
    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// Whether the timer is in a queue.
    [[nodiscard]] static bool armed(const timer& t) noexcept { return t.next != nullptr; }

    /// Takes a timer that is in no queue.
    void insert(timer& t) noexcept;

    /// Gives back a timer that is in this queue.
    void erase(timer& t) noexcept;

    /// Takes out the first timer that is due at `now`: the earliest, among equal ones the one inserted first.
    /// Returns:       null if none is due
    [[nodiscard]] timer* pop_due(time_point now) noexcept;

    /// When the earliest timer is due, exactly; nothing if there is none.
    /// Cost:          constant while the earliest stays; else it looks through the lowest bucket, which may hold all
    [[nodiscard]] std::optional<time_point> next() noexcept;

    /// A time until which a loop can sleep: never later than `next()`, and exact unless many timers share the lowest
    /// bucket. After a `pop_due` that found nothing it lies in the future, unless a deadline that had passed was added
    /// since. A loop that wakes early calls `pop_due` and asks again; that happens at most 64 times for a timer.
    /// Cost:          constant, whatever was cancelled before
    [[nodiscard]] std::optional<time_point> next_wake() noexcept;

private:
    static constexpr std::size_t few = 16;  // so many are looked at, one after the other, before a bucket is split

    detail::timer_buckets& first() noexcept { return past_.empty() ? future_ : past_; }
    void forget_earliest() noexcept { earliest_ = detail::no_timer_key; }

    // Keys below future_.last() are in past_, the others in future_. A deadline that has already passed is rare, but a
    // thousand of them must not move a million others: they have buckets of their own.
    detail::timer_buckets future_{detail::key_of(time_point{})};
    detail::timer_buckets past_{0};
    detail::timer_key earliest_ = detail::no_timer_key;  // the earliest key, or none: not known, or no timer
    std::size_t size_ = 0;
};

/// A queue with a lock, and with the rule by which a timer fires on one thread while another cancels it.
///
/// One thread at a time fires. Whoever fires or is woken by `on_earlier` must look at `next_wake()` again before it
/// sleeps, or hand that duty on: nobody else is told.
class locked_timer_queue final : public timer_service {
public:
    using time_point = timer::time_point;
    using hook = void (*)(void*) noexcept;

    /// `on_earlier(argument)` is called, outside the lock, by whoever arms a timer that is due before the time which
    /// `next_wake()` gave last, so that a loop which sleeps until then can be woken.
    explicit locked_timer_queue(hook on_earlier = nullptr, void* argument = nullptr) noexcept
        : on_earlier_(on_earlier), argument_(argument) {}

    /// Fails loudly if a timer is armed: its owner would later cancel it in a queue that is gone.
    ~locked_timer_queue();

    void arm(timer& t) noexcept override {
        if (add(t) && on_earlier_ != nullptr) on_earlier_(argument_);
    }
    void cancel(timer& t) noexcept override;

    /// Fires what is due at `now`, one after the other, each outside the lock; at most as many as were armed at the
    /// start, so that a timer which arms itself for a time that has passed cannot keep the loop here.
    /// Returns:       how many fired; 0 at once if another thread is firing, or this one already
    /// Cost:          one relaxed load if nothing is due
    std::size_t fire_due(time_point now) noexcept;

    /// As `timer_queue::next()`.
    [[nodiscard]] std::optional<time_point> next() noexcept;

    /// As `timer_queue::next_wake()`; from now on who arms an earlier timer calls `on_earlier`.
    [[nodiscard]] std::optional<time_point> next_wake() noexcept;

    [[nodiscard]] std::size_t size() const noexcept;
    [[nodiscard]] bool empty() const noexcept { return size() == 0; }

private:
    bool add(timer& t) noexcept;
    void cancel_firing(timer& t) noexcept;
    std::optional<time_point> refresh_wake() noexcept;
    CORDON_NOINLINE static std::thread::id this_thread() noexcept { return std::this_thread::get_id(); }

    mutable detail::spin_lock lock_;
    // Written under the lock. No armed timer is due before it, nor has a sleeper been promised a later time without
    // having been woken since. Reads without the lock may be late: whoever arms wakes the loop by other means.
    std::atomic<detail::timer_key> wake_at_{detail::no_timer_key};
    timer* firing_ = nullptr;  // under the lock: the one whose `fire` runs now, perhaps dead already; never followed
    std::thread::id firer_;    // under the lock: who runs it
    const hook on_earlier_;
    void* const argument_;
    timer_queue queue_;  // under the lock
};

inline void timer_queue::insert(timer& t) noexcept {
    assert(!armed(t));
    const detail::timer_key k = detail::key_of(t.when);
    if (k >= future_.last()) [[likely]] {
        future_.insert(t, k);
    } else {
        if (past_.empty() || k < past_.last()) past_.rewind(k);
        past_.insert(t, k);
    }
    if (k < earliest_ && (earliest_ != detail::no_timer_key || size_ == 0)) earliest_ = k;
    ++size_;
}

inline void timer_queue::erase(timer& t) noexcept {
    assert(armed(t));
    const detail::timer_key k = detail::key_of(t.when);
    (k >= future_.last() ? future_ : past_).erase(t);
    if (k == earliest_) forget_earliest();
    --size_;
}

inline timer* timer_queue::pop_due(time_point now) noexcept {
    const detail::timer_key limit = detail::key_of(now);
    detail::timer_buckets& buckets = first();
    while (!buckets.empty()) {
        const std::size_t n = buckets.lowest();
        const detail::timer_key floor = buckets.floor_of(n);
        if (floor > limit) break;
        if (timer* const t = buckets.earliest_in(n, few)) {
            if (detail::key_of(t->when) > limit) break;
            buckets.erase(*t);
            forget_earliest();
            --size_;
            return t;
        }
        buckets.advance(earliest_ == detail::no_timer_key ? floor : earliest_ < limit ? earliest_ : limit);
    }
    if (limit > buckets.last()) buckets.advance(limit);
    return nullptr;
}

inline std::optional<timer_queue::time_point> timer_queue::next() noexcept {
    if (size_ == 0) return std::nullopt;
    if (earliest_ == detail::no_timer_key) {
        const detail::timer_buckets& buckets = first();
        earliest_ = detail::key_of(buckets.earliest_in(buckets.lowest(), size_)->when);
    }
    return detail::time_of(earliest_);
}

inline std::optional<timer_queue::time_point> timer_queue::next_wake() noexcept {
    if (size_ == 0) return std::nullopt;
    if (earliest_ == detail::no_timer_key) {
        const detail::timer_buckets& buckets = first();
        const std::size_t n = buckets.lowest();
        const timer* const t = buckets.earliest_in(n, few);
        if (t == nullptr) return detail::time_of(buckets.floor_of(n));
        earliest_ = detail::key_of(t->when);
    }
    return detail::time_of(earliest_);
}

inline locked_timer_queue::~locked_timer_queue() {
    if (!queue_.empty()) {
        detail::fail("a timer queue is destroyed with " + std::to_string(queue_.size()) +
                     " timers armed: end what waits on an executor before the executor");
    }
}

inline bool locked_timer_queue::add(timer& t) noexcept {
    const detail::timer_key k = detail::key_of(t.when);
    const detail::spin_guard guard(lock_);
    queue_.insert(t);
    if (k >= wake_at_.load(std::memory_order_relaxed)) return false;
    wake_at_.store(k, std::memory_order_relaxed);
    return true;
}

inline void locked_timer_queue::cancel(timer& t) noexcept {
    const detail::spin_guard guard(lock_);
    if (timer_queue::armed(t)) queue_.erase(t);
    if (firing_ == &t) [[unlikely]] cancel_firing(t);
}

CORDON_NOINLINE inline void locked_timer_queue::cancel_firing(timer& t) noexcept {
    if (firer_ == this_thread()) return;
    detail::spin_wait wait;
    while (firing_ == &t) {
        lock_.unlock();
        wait();
        lock_.lock();
        if (timer_queue::armed(t)) queue_.erase(t);  // its `fire` has armed it again
    }
}

inline std::size_t locked_timer_queue::fire_due(time_point now) noexcept {
    if (detail::key_of(now) < wake_at_.load(std::memory_order_relaxed)) return 0;
    const detail::spin_guard guard(lock_);
    if (firing_ != nullptr) return 0;
    firer_ = this_thread();
    const std::size_t most = queue_.size();
    std::size_t fired = 0;
    while (fired < most) {
        timer* const t = queue_.pop_due(now);
        if (t == nullptr) break;
        firing_ = t;
        lock_.unlock();
        t->fire(*t);
        lock_.lock();
        firing_ = nullptr;
        ++fired;
    }
    static_cast<void>(refresh_wake());
    return fired;
}

inline std::optional<timer::time_point> locked_timer_queue::refresh_wake() noexcept {
    const std::optional<time_point> wake = queue_.next_wake();
    wake_at_.store(wake ? detail::key_of(*wake) : detail::no_timer_key, std::memory_order_relaxed);
    return wake;
}

inline std::optional<timer::time_point> locked_timer_queue::next() noexcept {
    const detail::spin_guard guard(lock_);
    return queue_.next();
}

inline std::optional<timer::time_point> locked_timer_queue::next_wake() noexcept {
    const detail::spin_guard guard(lock_);
    return refresh_wake();
}

inline std::size_t locked_timer_queue::size() const noexcept {
    const detail::spin_guard guard(lock_);
    return queue_.size();
}

}  // namespace cordon::inline CORDON_ABI
