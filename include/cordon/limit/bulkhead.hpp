// SPDX-License-Identifier: MIT
#pragma once

// A limit on how many calls run at the same time, and how many wait for that: so that one slow dependency does not take
// everything else with it.
//
//     bulkhead reports{8, {.name = "reports", .max_waiting = 32, .max_wait = 200ms}};
//     const bulkhead::permit running = co_await reports.acquire();
//     co_await make_report();
//
// For a limit on how often see token_bucket.hpp; for permits that are counted by hand, sync/async_semaphore.hpp.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/core/verdict.hpp>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct bulkhead_options {
    std::string_view name = {};
    std::size_t max_waiting = 0;                          ///< beyond these a call is refused at once
    clock::duration max_wait = (clock::duration::max)();  ///< after which one that waits is refused; more than 0
};

/// So many calls at a time, and so many that wait. None at a time refuses all.
/// Threads:       all members from any; a permit may be given back on another thread than it was got on
/// Order:         first come, first served: `try_acquire` does not pass one that waits. A permit given back happens
///                before it is had again
/// Lifetime:      destroyed with permits out or waiters it prints its name and terminates
/// Cost:          one exchange to acquire, one to give back, while nobody waits; no allocation. Only refusals
///                are counted
class bulkhead {
    class acquire_operation;

public:
    class permit;

    static constexpr std::string_view kind = "bulkhead";
    static constexpr std::size_t max_limit = std::numeric_limits<std::uint32_t>::max();

    struct snapshot {
        std::size_t limit = 0;
        std::size_t in_use = 0;      ///< more than the limit after it was made smaller, until they have ended
        std::size_t waiting = 0;
        std::uint64_t rejected = 0;  ///< refusals of all kinds since it was made
        bool closed = false;
    };

    /// Errors:        `std::invalid_argument` if `max_concurrent` is more than `max_limit`, or `max_wait` is not
    ///                above 0
    explicit bulkhead(std::size_t max_concurrent, bulkhead_options options = {});
    bulkhead(const bulkhead&) = delete;
    bulkhead& operator=(const bulkhead&) = delete;
    ~bulkhead();

    /// Takes a permit if one is free and nobody waits.
    /// Returns:       the permit, which is empty otherwise
    [[nodiscard]] permit try_acquire() noexcept;

    /// Takes a permit, waiting for it.
    /// Returns:       the permit; one that its task never sees, since somebody above drops it, goes back all the same
    /// Errors:        refused at once as `full` if `max_waiting` wait already, after `max_wait` as `full`, and
    ///                as `closed`
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing. A free permit is taken even by a
    ///                task that is to stop
    [[nodiscard]] acquire_operation acquire() noexcept;

    /// The same on a thread.
    [[nodiscard]] outcome<permit> acquire_blocking(const blocking_scope& heeds = {});

    /// `acquire`, for a guarded call.
    [[nodiscard]] acquire_operation admission() noexcept;

    /// `call()` once there is room, which it keeps until the call has ended; an operation that gives what the call
    /// gives.
    /// Errors:        as `acquire`; nothing was called then
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// Another number of calls at a time. More are let go at once; fewer come about as calls end: nobody is held up.
    /// Errors:        `std::invalid_argument` if it is more than `max_limit`
    void resize(std::size_t max_concurrent);

    /// Refuses all who wait and all who come, as `closed`. Permits that are out stay good.
    void close() noexcept;

    /// All figures at one time.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        const std::size_t available = now.limit > now.in_use ? now.limit - now.in_use : 0;
        sink.counter("rejected", now.rejected, "Calls that were refused.");
        sink.gauge("available", static_cast<double>(available), "Calls that may begin now.");
        sink.gauge("in_use", static_cast<double>(now.in_use), "Calls that run.");
        sink.gauge("waiting", static_cast<double>(now.waiting), "Calls that wait for others to end.");
    }

private:
    class waiter;

    // word_: permits that are free, times two, and a bit. Fewer than none are free after a resize, until calls end.
    //   contended   someone waits, or is about to, or it is closed: whoever acquires or gives back takes the lock
    // H1 Without contended a change is one exchange on the word and touches nothing else.
    // H2 contended is set and cleared only under the lock; while it is set only the lock's holder changes the word.
    // H3 Who gives a permit back, by its exchange or under the lock (release), is seen by who takes it (acquire).
    // H4 limit_ minus the free ones are out: so both figures are read under the lock at one time.
    static constexpr std::int64_t contended = 1, one_permit = 2;

    bool take_uncontended() noexcept {
        std::int64_t seen = word_.load(std::memory_order_relaxed);
        do {
            if ((seen & contended) != 0 || seen < one_permit) return false;
        } while (!word_.compare_exchange_weak(seen, seen - one_permit, std::memory_order_acquire,  // H3
                                              std::memory_order_relaxed));
        return true;
    }
    void release() noexcept;
    void release_contended() noexcept;
    [[nodiscard]] std::optional<reject_reason> why_not() const noexcept;
    [[nodiscard]] rejection refuse(reject_reason why) noexcept {
        rejected_.fetch_add(1, std::memory_order_relaxed);
        return rejection(why, name_);
    }
    bool refused_early(waiter& w) noexcept;
    void enqueue(waiter& w) noexcept;
    void dequeue(waiter& w) noexcept;
    void serve(std::int64_t free) noexcept;
    void time_out(waiter& w) noexcept;
    std::int64_t contend() noexcept { return word_.fetch_or(contended, std::memory_order_acquire) >> 1; }  // H2

    std::atomic<std::int64_t> word_;
    mutable detail::spin_lock lock_;
    bool closed_ = false;                     // under lock_
    std::int64_t limit_;                      // under lock_
    detail::intrusive_list<waiter> waiters_;  // under lock_
    std::size_t waiting_ = 0;                 // under lock_: how many are in waiters_
    std::atomic<std::size_t> present_{0};     // those who wait, or were served and have not gone on yet
    std::atomic<std::uint64_t> rejected_{0};
    const std::size_t max_waiting_;
    const clock::duration max_wait_;
    std::string name_;
    detail::named_wait_label label_;
};

/// A call that may run. Gives its place back when it dies; never resumes anybody inside.
/// Lifetime:      the bulkhead outlives it
class [[nodiscard]] bulkhead::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept : bulkhead_(std::exchange(other.bulkhead_, nullptr)) {}
    permit& operator=(permit&& other) noexcept {
        if (this != &other) {
            release();
            bulkhead_ = std::exchange(other.bulkhead_, nullptr);
        }
        return *this;
    }
    ~permit() { release(); }

    /// Gives the place back early; does nothing if it is empty.
    void release() noexcept {
        if (bulkhead_ != nullptr) std::exchange(bulkhead_, nullptr)->release();
    }
    /// The same, whatever the verdict.
    void settle(verdict) noexcept { release(); }
    [[nodiscard]] explicit operator bool() const noexcept { return bulkhead_ != nullptr; }

private:
    friend class bulkhead;
    explicit permit(bulkhead* of) noexcept : bulkhead_(of) {}

    bulkhead* bulkhead_ = nullptr;
};

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
    class state : public waiter {
    public:
        explicit state(acquire_operation&& a) noexcept : waiter(*a.bulkhead_) {}
    };

private:
    bulkhead* bulkhead_;
};

namespace detail {
CORDON_NOINLINE inline std::int64_t checked_limit(const char* where, std::size_t n) {
    constexpr std::size_t most = std::numeric_limits<std::uint32_t>::max();
    if (n > most)
        raise(std::invalid_argument(std::string(where) + ": max_concurrent is " + std::to_string(n) +
                                    ", allowed are 0 to " + std::to_string(most)),
              "a bulkhead's max_concurrent is too large");
    return static_cast<std::int64_t>(n);
}
}  // namespace detail

inline bulkhead::bulkhead(std::size_t max_concurrent, bulkhead_options options)
    : word_(detail::checked_limit("bulkhead", max_concurrent) * one_permit),
      limit_(static_cast<std::int64_t>(max_concurrent)), max_waiting_(options.max_waiting),
      max_wait_(options.max_wait), name_(options.name), label_(detail::wait_label("bulkhead"), options.name) {
    if (max_wait_ <= clock::duration::zero())
        detail::raise(std::invalid_argument("bulkhead: max_wait is " + std::to_string(max_wait_.count()) +
                                            " ns, allowed is more than 0"),
                      "a bulkhead's max_wait is not above 0");
}

inline bulkhead::~bulkhead() {
    const std::size_t present = present_.load(std::memory_order_acquire);
    if (present != 0) [[unlikely]] detail::fail_in_use("bulkhead", name_, waiting_, present);
    const std::int64_t out = limit_ - (word_.load(std::memory_order_acquire) >> 1);
    if (out != 0) [[unlikely]]
        detail::fail("bulkhead \"" + name_ + "\" destroyed while " + std::to_string(out) + " calls have its permit");
}

inline bulkhead::permit bulkhead::try_acquire() noexcept {
    if (take_uncontended()) return permit(this);
    rejected_.fetch_add(1, std::memory_order_relaxed);
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
        --waiting_;
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
    return waiting_ >= max_waiting_ ? std::optional(reject_reason::full) : std::nullopt;
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
    ++waiting_;
    if (takes) w.timers_ = nullptr;
    else if (w.timers_ != nullptr) w.timers_->arm(w);
    serve(free);
}
inline void bulkhead::dequeue(waiter& w) noexcept {
    {
        const detail::waking_guard guard(lock_);
        if (w.linked()) {
            waiters_.remove(w);
            --waiting_;
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
    --waiting_;
    w.refuse(reject_reason::full);
    serve(contend());
}

inline void bulkhead::resize(std::size_t max_concurrent) {
    const std::int64_t limit = detail::checked_limit("bulkhead::resize", max_concurrent);
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
    waiting_ = 0;
    serve(free);
}

inline bulkhead::snapshot bulkhead::stats() const noexcept {
    const detail::spin_guard guard(lock_);
    snapshot s;
    s.limit = static_cast<std::size_t>(limit_);
    s.in_use = static_cast<std::size_t>(limit_ - (word_.load(std::memory_order_acquire) >> 1));
    s.waiting = waiting_;
    s.rejected = rejected_.load(std::memory_order_relaxed);
    s.closed = closed_;
    return s;
}

}  // namespace cordon::inline CORDON_ABI
