// SPDX-License-Identifier: MIT
#pragma once

// One at a time, across suspensions, which a `std::mutex` must not be held across.
//
//     async_mutex books{{.name = "books"}};
//     const async_mutex::guard mine = co_await books.lock();
//     co_await write_down(amount);                            // nobody else is in here meanwhile
//
// For a few instructions without a `co_await` between them a `std::mutex` is the better choice.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/sync/async_semaphore.hpp>

#include <coroutine>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct mutex_options {
    std::string_view name = {};
};

/// A lock that tasks wait for. It belongs to no thread and to no task: whoever has the guard has the lock. Not
/// recursive: a task that locks twice waits for itself, which a simulation reports as a deadlock.
/// Threads:       all members from any; a guard may be given back on another thread than it was got on
/// Order:         first come, first served: `try_lock` does not pass one that waits. An unlock happens before the lock
///                that it makes possible
/// Lifetime:      destroyed while it is locked, or waited for, it prints its name and terminates
/// Cost:          one exchange to lock, one to unlock, while nobody waits; no allocation
class async_mutex {
    class lock_operation;

public:
    class guard;

    static constexpr std::string_view kind = "mutex";

    struct snapshot {
        bool locked = false;
        std::size_t waiting = 0;
    };

    explicit async_mutex(mutex_options options = {})
        : permit_(1, {.name = options.name}), label_(detail::wait_label("mutex"), options.name) {}
    async_mutex(const async_mutex&) = delete;
    async_mutex& operator=(const async_mutex&) = delete;
    ~async_mutex();

    /// Locks it, waiting for that.
    /// Returns:       the guard; a guard that its task never sees, since somebody above drops it, unlocks all the same
    /// Cancellation:  a cancel point while it waits; stopped, it has not locked. A free lock is taken even by a task
    ///                that is to stop
    [[nodiscard]] lock_operation lock() noexcept;

    /// Locks it if it is free and nobody waits.
    /// Returns:       the guard, which is empty if it was taken
    [[nodiscard]] guard try_lock() noexcept;

    /// Locks it on a thread.
    [[nodiscard]] outcome<guard> lock_blocking(const blocking_scope& heeds = {});

    /// Both at one time.
    [[nodiscard]] snapshot stats() const noexcept {
        const async_semaphore::snapshot s = permit_.stats();
        return {s.available == 0, s.waiting};
    }
    [[nodiscard]] std::string_view name() const noexcept { return permit_.name(); }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("locked", now.locked, "Whether somebody has the lock.");
        sink.gauge("waiting", now.waiting, "Lock operations that wait.");
    }

private:
    async_semaphore permit_;
    detail::named_wait_label label_;
};

/// Has the lock, and gives it back when it dies. That resumes nobody inside but a waiter without an executor, which
/// goes on here unless a loop runs on this thread: so not under another lock that it takes.
/// Lifetime:      the mutex outlives it
class [[nodiscard]] async_mutex::guard {
public:
    guard() noexcept = default;
    guard(guard&& other) noexcept : mutex_(std::exchange(other.mutex_, nullptr)) {}
    guard& operator=(guard&& other) noexcept {
        if (this != &other) {
            unlock();
            mutex_ = std::exchange(other.mutex_, nullptr);
        }
        return *this;
    }
    ~guard() { unlock(); }

    /// Gives the lock back early; does nothing if it is empty.
    void unlock() noexcept {
        if (mutex_ != nullptr) std::exchange(mutex_, nullptr)->permit_.release();
    }
    /// Whether it has a lock.
    [[nodiscard]] explicit operator bool() const noexcept { return mutex_ != nullptr; }

private:
    friend class async_mutex;
    explicit guard(async_mutex* locked) noexcept : mutex_(locked) {}

    async_mutex* mutex_ = nullptr;
};

/// An acquisition of the one permit. It is shown no record, so that dumps tell of a mutex and not of a semaphore: this
/// one notes the wait itself.
class async_mutex::lock_operation : public detail::operation_base<lock_operation> {
    using acquisition = decltype(std::declval<async_semaphore&>().acquire());

public:
    using value_type = guard;
    static constexpr bool needs_executor = false;

    explicit lock_operation(async_mutex& m) noexcept : mutex_(&m) {}

    class state : private receiver {
    public:
        using waits = void;  ///< see detail::may_fail_in_a_test

        explicit state(lock_operation&& l) noexcept
            : receiver(nullptr, nullptr, {}, &state::ended), mutex_(l.mutex_), permit_(l.mutex_->permit_.acquire()) {}
        bool ready() noexcept { return locked_ = permit_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            ctx = &r.ctx();
            up = r;
            detail::note_wait(r, mutex_->label_);
            return permit_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<guard> take() noexcept { return outcome<guard>(std::in_place, get()); }
        guard get() noexcept {
            if (!std::exchange(locked_, false)) return guard(nullptr);
            permit_.get();
            return guard(mutex_);
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base*, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            detail::note_running(s.up);
            if (stopped) return s.up.stop();
            s.locked_ = true;
            return s.up.complete();
        }

        async_mutex* mutex_;
        typename acquisition::state permit_;
        bool locked_ = false;
    };

private:
    async_mutex* mutex_;
};

inline async_mutex::~async_mutex() {
    const snapshot now = stats();
    if (now.waiting != 0)
        detail::fail("async_mutex \"" + std::string(name()) + "\" destroyed while " + std::to_string(now.waiting) +
                     " wait for it");
    if (now.locked) detail::fail("async_mutex \"" + std::string(name()) + "\" destroyed while it is locked");
}

inline async_mutex::lock_operation async_mutex::lock() noexcept { return lock_operation(*this); }

inline async_mutex::guard async_mutex::try_lock() noexcept {
    return guard(permit_.try_acquire() ? this : nullptr);
}

inline outcome<async_mutex::guard> async_mutex::lock_blocking(const blocking_scope& heeds) {
    return detail::block_on(lock(), heeds);
}

}  // namespace cordon::inline CORDON_ABI
