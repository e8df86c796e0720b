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
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/detail/split_counts.hpp>
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
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp
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

    static std::int64_t checked(const char* where, std::size_t max_concurrent) {
        return static_cast<std::int64_t>(detail::checked_range(where, "max_concurrent", max_concurrent, 0, max_limit));
    }
    bool take_uncontended() noexcept {
        std::int64_t seen = word_.load(std::memory_order_relaxed);
        detail::stand_back lost;
        while ((seen & contended) == 0 && seen >= one_permit) {
            if (word_.compare_exchange_weak(seen, seen - one_permit, std::memory_order_acquire,  // H3
                                            std::memory_order_relaxed))
                return true;
            lost();
            seen = word_.load(std::memory_order_relaxed);
        }
        return false;
    }
    void release() noexcept;
    void release_contended() noexcept;
    [[nodiscard]] std::optional<reject_reason> why_not() const noexcept;
    [[nodiscard]] rejection refuse(reject_reason why) noexcept {
        rejected_.add();
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
    detail::counted_list<waiter> waiters_;    // under lock_
    std::atomic<std::size_t> present_{0};     // those who wait, or were served and have not gone on yet
    detail::split_counts<> rejected_;
    const std::size_t max_waiting_;
    const clock::duration max_wait_;
    std::string name_;
    detail::named_wait_label label_;
};

/// A call that may run. Gives its place back when it dies. That resumes nobody inside but a waiter without an executor,
/// which goes on here unless a loop runs on this thread: so not under a lock that it takes.
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

}  // namespace cordon::inline CORDON_ABI

#include <cordon/limit/detail/bulkhead_bodies.hpp>
