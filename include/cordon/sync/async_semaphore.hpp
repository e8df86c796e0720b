// SPDX-License-Identifier: MIT
#pragma once

// A bound on how many do something at the same time.
//
//     async_semaphore connections{8, {.name = "db"}};
//     const async_semaphore::permit mine = co_await connections.hold();
//     ...                                                  // the permit goes back with `mine`, also by a stop
//
// `acquire` and `release` are the low-level face, for permits that are given back elsewhere than they were got: nothing
// between the two may end early, by a stop or an exception, or the permit is lost.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct semaphore_options {
    std::string_view name = {};
};

/// A counter of permits that tasks wait for. A task that wants several waits until all are there.
/// Threads:       all members from any; a permit may be given back on another thread than it was got on
/// Order:         first come, first served: nobody who tries, or wants fewer, passes one that waits. A release
///                happens before the acquisition that it serves
/// Lifetime:      destroyed with waiters it prints its name and terminates
/// Cost:          one exchange to acquire, one to release, while nobody waits; no allocation
class async_semaphore {
    class acquire_operation;
    class hold_operation;

public:
    static constexpr std::string_view kind = "semaphore";
    class permit;

    struct snapshot {
        std::size_t available = 0;
        std::size_t waiting = 0;
    };

    /// Errors:        `std::invalid_argument` if `permits` is more than `max_permits`
    explicit async_semaphore(std::size_t permits, semaphore_options options = {});
    async_semaphore(const async_semaphore&) = delete;
    async_semaphore& operator=(const async_semaphore&) = delete;
    ~async_semaphore();

    /// Takes `n` permits, waiting for them.
    /// Returns:       what gives them back when it dies; one that its task never sees, since somebody above drops it,
    ///                gives them back all the same
    /// Errors:        `std::invalid_argument` if `n` is more than `max_permits`
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing. Permits that are free are taken
    ///                even by a task that is to stop
    [[nodiscard]] hold_operation hold(std::size_t n = 1);

    /// Takes `n` permits if they are there and nobody waits.
    /// Returns:       what gives them back; empty if they were not there
    [[nodiscard]] permit try_hold(std::size_t n = 1) noexcept;

    /// Takes `n` permits on a thread.
    [[nodiscard]] outcome<permit> hold_blocking(const blocking_scope& heeds = {}, std::size_t n = 1);

    /// As `try_hold`, but nothing gives them back by itself: for permits that go back elsewhere.
    [[nodiscard]] bool try_acquire(std::size_t n = 1) noexcept;

    /// As `hold`, but nothing gives them back by itself: `release(n)` does.
    [[nodiscard]] acquire_operation acquire(std::size_t n = 1);

    /// The same on a thread.
    [[nodiscard]] outcome<void> acquire_blocking(const blocking_scope& heeds = {}, std::size_t n = 1);

    /// Gives `n` permits back, or adds some; hands them to those who wait. Resumes nobody inside the call but a waiter
    /// without an executor, which goes on here unless a loop runs on this thread: so not under a lock that it takes.
    /// Requires:      there are never more than `max_permits` in all
    void release(std::size_t n = 1) noexcept;

    /// Both figures at one time.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("available", now.available, "Permits that are free.");
        sink.gauge("waiting", now.waiting, "Acquisitions that wait.");
    }

    static constexpr std::size_t max_permits = std::numeric_limits<std::uint32_t>::max() / 2;

private:
    class waiter;

    // word_: permits available, times two, and a bit.
    //   contended   someone waits, or is about to: whoever acquires or releases takes the lock
    // S1 Without contended a change is one exchange on the word and touches nothing else.
    // S2 contended is set and cleared only under the lock; while it is set only the holder of the lock changes the
    //    word. So whoever serves sets it before reading the word: what is read of an unmarked word is old at the store.
    // S3 A releaser that hands permits over under the lock, or by its exchange (release), is seen by who takes them
    //    (acquire).
    static constexpr std::uint64_t contended = 1, one_permit = 2;

    bool take_uncontended(std::uint64_t permits) noexcept {
        std::uint64_t seen = word_.load(std::memory_order_relaxed);
        do {
            if ((seen & contended) != 0 || seen < permits) return false;
        } while (!word_.compare_exchange_weak(seen, seen - permits, std::memory_order_acquire,  // S3
                                              std::memory_order_relaxed));
        return true;
    }
    void release_contended(std::uint64_t permits) noexcept;
    void enqueue(waiter& w) noexcept;
    void dequeue(waiter& w) noexcept;
    void serve(std::uint64_t free) noexcept;

    std::atomic<std::uint64_t> word_;
    const std::uint64_t at_first_;            // permits, times two
    mutable detail::spin_lock lock_;
    detail::counted_list<waiter> waiters_;    // under lock_
    std::size_t present_ = 0;                 // under lock_: those who wait, or were served and have not gone on yet
    std::string name_;
    detail::named_wait_label label_;
};

/// Has permits, and gives them back when it dies; whom that may resume inside says `release`.
/// Lifetime:      the semaphore outlives it
class [[nodiscard]] async_semaphore::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept : semaphore_(std::exchange(other.semaphore_, nullptr)), count_(other.count_) {}
    permit& operator=(permit&& other) noexcept {
        if (this != &other) {
            release();
            semaphore_ = std::exchange(other.semaphore_, nullptr);
            count_ = other.count_;
        }
        return *this;
    }
    ~permit() { release(); }

    /// Gives them back early; does nothing if it is empty.
    void release() noexcept {
        if (semaphore_ != nullptr) std::exchange(semaphore_, nullptr)->release(count_);
    }
    /// Whether it has any; one of `hold(0)` has none to give back, and is not empty.
    [[nodiscard]] explicit operator bool() const noexcept { return semaphore_ != nullptr; }

private:
    friend class async_semaphore;
    permit(async_semaphore* got_from, std::size_t count) noexcept : semaphore_(got_from), count_(count) {}

    async_semaphore* semaphore_ = nullptr;
    std::size_t count_ = 0;
};

class async_semaphore::waiter : public detail::leaf<waiter>, public detail::list_hook {
public:
    waiter(async_semaphore& s, std::size_t n) noexcept : semaphore_(&s), permits_(n * one_permit) {}
    ~waiter() {
        if (owes_) [[unlikely]] semaphore_->release(permits_ / one_permit);  // got, and never taken: it lost a race
    }
    bool ready() noexcept { return owes_ = semaphore_->take_uncontended(permits_); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept {
        owes_ = false;
        return {};
    }
    void get() noexcept { owes_ = false; }

protected:
    /// What was got, for who takes it: empty if nothing was.
    permit hand_over() noexcept {
        return std::exchange(owes_, false) ? permit(semaphore_, permits_ / one_permit) : permit();
    }

private:
    friend class leaf<waiter>;
    friend class async_semaphore;
    void enqueue() noexcept { semaphore_->enqueue(*this); }
    void dequeue(bool) noexcept { semaphore_->dequeue(*this); }
    void leave_queue() noexcept { semaphore_->dequeue(*this); }
    const detail::wait_label& label() const noexcept { return semaphore_->label_; }

    async_semaphore* semaphore_;
    std::uint64_t permits_;
    bool owes_ = false;  ///< has permits that nobody has been told of
};

class async_semaphore::acquire_operation : public detail::operation_base<acquire_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = false;

    acquire_operation(async_semaphore& s, std::size_t n) noexcept : semaphore_(&s), permits_(n) {}
    class state : public waiter {
    public:
        explicit state(acquire_operation&& a) noexcept : waiter(*a.semaphore_, a.permits_) {}
    };

private:
    async_semaphore* semaphore_;
    std::size_t permits_;
};

class async_semaphore::hold_operation : public detail::operation_base<hold_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = false;

    hold_operation(async_semaphore& s, std::size_t n) noexcept : semaphore_(&s), permits_(n) {}
    class state : public waiter {
    public:
        explicit state(hold_operation&& h) noexcept : waiter(*h.semaphore_, h.permits_) {}
        outcome<permit> take() noexcept { return outcome<permit>(std::in_place, hand_over()); }
        permit get() noexcept { return hand_over(); }
    };

private:
    async_semaphore* semaphore_;
    std::size_t permits_;
};

inline async_semaphore::async_semaphore(std::size_t permits, semaphore_options options)
    : word_(detail::checked_range("async_semaphore", "permits", permits, 0, max_permits) * one_permit),
      at_first_(permits * one_permit), name_(options.name), label_(detail::wait_label("semaphore"), options.name) {}

inline async_semaphore::~async_semaphore() {
    if (present_ != 0) [[unlikely]]
        detail::fail_in_use("async_semaphore", name_, waiters_.size(), present_);
}

inline bool async_semaphore::try_acquire(std::size_t n) noexcept {
    return n <= max_permits && take_uncontended(n * one_permit);
}

inline async_semaphore::hold_operation async_semaphore::hold(std::size_t n) {
    return hold_operation(*this, detail::checked_range("async_semaphore::hold", "n", n, 0, max_permits));
}
inline async_semaphore::permit async_semaphore::try_hold(std::size_t n) noexcept {
    return try_acquire(n) ? permit(this, n) : permit();
}
inline outcome<async_semaphore::permit> async_semaphore::hold_blocking(const blocking_scope& heeds, std::size_t n) {
    return detail::block_on(hold(n), heeds);
}

inline async_semaphore::acquire_operation async_semaphore::acquire(std::size_t n) {
    return acquire_operation(*this, detail::checked_range("async_semaphore::acquire", "n", n, 0, max_permits));
}

inline outcome<void> async_semaphore::acquire_blocking(const blocking_scope& heeds, std::size_t n) {
    return detail::block_on(acquire(n), heeds);
}

inline void async_semaphore::release(std::size_t n) noexcept {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);
    do {
        if ((seen & contended) != 0) return release_contended(n * one_permit);
    } while (!word_.compare_exchange_weak(seen, seen + n * one_permit, std::memory_order_release,  // S3
                                          std::memory_order_relaxed));
}
CORDON_NOINLINE inline void async_semaphore::release_contended(std::uint64_t permits) noexcept {
    const detail::waking_guard guard(lock_);
    const std::uint64_t seen = word_.fetch_or(contended, std::memory_order_acquire);  // S2: whoever waited may be gone
    serve(seen / one_permit * one_permit + permits);
}

/// Gives what is free to those who wait, in order, and stores the rest. Under the lock, which keeps a waiter alive that
/// may be running already.
inline void async_semaphore::serve(std::uint64_t free) noexcept {
    while (!waiters_.empty() && waiters_.front().permits_ <= free) {
        waiter& first = waiters_.pop_front();
        first.owes_ = true;
        if (first.complete()) free -= first.permits_;
        else first.owes_ = false;
    }
    if (!waiters_.empty()) label_.held_by(free < at_first_ ? (at_first_ - free) / one_permit : 0);
    word_.store(free | (waiters_.empty() ? 0 : contended), std::memory_order_release);
}

inline void async_semaphore::enqueue(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    const std::uint64_t seen = word_.fetch_or(contended, std::memory_order_acquire);  // S2
    ++present_;
    waiters_.push_back(w);
    serve(seen / one_permit * one_permit);
}
inline void async_semaphore::dequeue(waiter& w) noexcept {
    const detail::waking_guard guard(lock_);
    --present_;
    if (!w.linked()) return;
    waiters_.remove(w);
    serve(word_.load(std::memory_order_relaxed) / one_permit * one_permit);  // the next may want less
}

inline async_semaphore::snapshot async_semaphore::stats() const noexcept {
    const detail::spin_guard guard(lock_);
    return {static_cast<std::size_t>(word_.load(std::memory_order_acquire) / one_permit), waiters_.size()};
}

}  // namespace cordon::inline CORDON_ABI
