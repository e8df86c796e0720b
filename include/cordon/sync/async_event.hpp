// SPDX-License-Identifier: MIT
#pragma once

// A door: closed, tasks wait in front of it; once `set()`, all pass until `reset()`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/flagged_lock.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct event_options {
    std::string_view name = {};
    bool set = false;  ///< how it begins
};

/// A flag that tasks wait for. Who may set it can be counted by handles: with the last one the event is abandoned, and
/// those who wait for it are refused, instead of waiting for ever.
/// Threads:       all members from any
/// Order:         those who wait go on in the order in which they came. What happened before `set()` is seen by them
/// Lifetime:      destroyed with waiters it prints its name and terminates
/// Cost:          one load to pass a set event; no allocation
class async_event {
    class wait_operation;

public:
    class setter;

    static constexpr std::string_view kind = "event";

    struct snapshot {
        bool set = false;
        bool abandoned = false;
        std::size_t waiting = 0;
    };

    explicit async_event(event_options options = {})
        : lock_(options.set), name_(options.name), label_(detail::wait_label("event"), options.name) {}
    async_event(const async_event&) = delete;
    async_event& operator=(const async_event&) = delete;
    ~async_event() {
        if (present_ != 0) [[unlikely]]
            detail::fail_in_use("async_event", name_, waiters_.size(), present_);
        if (setters_.load(std::memory_order_relaxed) != 0) [[unlikely]]
            detail::fail("async_event \"" + name_ + "\" destroyed while somebody has a setter of it");
    }

    /// Waits until the event is set; not at all if it is.
    /// Errors:        refused, as `closed`, if the event is abandoned
    /// Cancellation:  a cancel point while it waits
    [[nodiscard]] wait_operation wait() noexcept;

    /// The same on a thread.
    [[nodiscard]] outcome<void> wait_blocking(const blocking_scope& heeds = {});

    /// Lets all who wait go on, and those who come. Resumes nobody inside the call but a waiter without an executor,
    /// which goes on here unless a loop runs on this thread: so not under a lock that it takes.
    void set() noexcept;
    /// Lets those who come from now on wait.
    void reset() noexcept {
        lock_.lock();
        lock_.unlock(false);
    }

    /// A counted right to set it: with the last one that was made the event is abandoned, unless it is set. One that
    /// nobody made a handle of never is.
    [[nodiscard]] setter make_setter() noexcept;

    [[nodiscard]] bool is_set() const noexcept { return lock_.raised(); }
    [[nodiscard]] bool is_abandoned() const noexcept { return abandoned_.load(std::memory_order_acquire); }
    [[nodiscard]] std::size_t waiting() const noexcept { return stats().waiting; }
    /// All at one time.
    [[nodiscard]] snapshot stats() const noexcept {
        lock_.lock();
        const snapshot now{lock_.raised_inside(), abandoned_.load(std::memory_order_relaxed), waiters_.size()};
        lock_.unlock();
        return now;
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("set", now.set, "Whether the event is set.");
        sink.gauge("abandoned", now.abandoned, "Whether nobody is left who could set it.");
        sink.gauge("waiting", now.waiting, "Tasks and threads that wait.");
    }

private:
    class waiter;

    void abandon() noexcept;

    mutable detail::flagged_lock lock_;       ///< its flag says that the event is set
    detail::counted_list<waiter> waiters_;    ///< under lock_
    std::size_t present_ = 0;                 ///< under lock_: those who wait, or were let go and have not gone on yet
    std::atomic<std::size_t> setters_{0};
    std::atomic<bool> abandoned_{false};      ///< set under lock_, once
    std::string name_;
    detail::named_wait_label label_;
};

/// One of those whose number decides. An empty one counts for nothing.
/// Lifetime:      the event outlives it
class async_event::setter {
public:
    setter() noexcept = default;
    setter(const setter& other) noexcept : event_(other.event_) {
        if (event_ != nullptr) event_->setters_.fetch_add(1, std::memory_order_relaxed);
    }
    setter(setter&& other) noexcept : event_(std::exchange(other.event_, nullptr)) {}
    setter& operator=(setter other) noexcept {
        std::swap(event_, other.event_);
        return *this;
    }
    ~setter() { reset(); }

    /// Requires:      it is not empty
    void set() const noexcept { event_->set(); }
    /// Gives the right up.
    void reset() noexcept {
        async_event* const e = std::exchange(event_, nullptr);
        if (e != nullptr && e->setters_.fetch_sub(1, std::memory_order_acq_rel) == 1) e->abandon();
    }
    [[nodiscard]] explicit operator bool() const noexcept { return event_ != nullptr; }

private:
    friend class async_event;
    explicit setter(async_event& e) noexcept : event_(&e) { e.setters_.fetch_add(1, std::memory_order_relaxed); }

    async_event* event_ = nullptr;
};

class async_event::waiter : public detail::leaf<waiter>, public detail::list_hook {
public:
    explicit waiter(async_event& e) noexcept : event_(&e) {}
    bool ready() const noexcept { return event_->is_set(); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept {
        if (refusal_) [[unlikely]] return *refusal_;
        return {};
    }

    /// Under the event's lock.
    void refuse() noexcept {
        refusal_.emplace(reject_reason::closed, event_->name_);
        complete();
    }

private:
    friend class leaf<waiter>;
    void enqueue() noexcept {
        event_->lock_.lock();
        ++event_->present_;
        if (event_->lock_.raised_inside()) {
            complete();
        } else if (event_->abandoned_.load(std::memory_order_relaxed)) {
            refuse();
        } else {
            event_->waiters_.push_back(*this);
        }
        event_->lock_.unlock();
    }
    void dequeue(bool) noexcept {
        event_->lock_.lock();
        event_->waiters_.remove(*this);
        --event_->present_;
        event_->lock_.unlock();
    }
    void leave_queue() noexcept { dequeue(true); }
    const detail::wait_label& label() const noexcept { return event_->label_; }

    async_event* event_;
    std::optional<rejection> refusal_;
};

class async_event::wait_operation : public detail::operation_base<wait_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = false;

    explicit wait_operation(async_event& e) noexcept : event_(&e) {}
    class state : public waiter {
    public:
        explicit state(wait_operation&& w) noexcept : waiter(*w.event_) {}
    };

private:
    async_event* event_;
};

inline async_event::wait_operation async_event::wait() noexcept { return wait_operation(*this); }

inline outcome<void> async_event::wait_blocking(const blocking_scope& heeds) {
    return detail::block_on(wait(), heeds);
}

inline async_event::setter async_event::make_setter() noexcept { return setter(*this); }

/// Nobody who could set it is left.
inline void async_event::abandon() noexcept {
    lock_.lock();
    if (!lock_.raised_inside()) {
        abandoned_.store(true, std::memory_order_release);
        while (!waiters_.empty()) waiters_.pop_front().refuse();
    }
    lock_.unlock();
    detail::run_woken();
}

inline void async_event::set() noexcept {
    lock_.lock();
    while (!waiters_.empty()) waiters_.pop_front().complete();
    lock_.unlock(true);
    detail::run_woken();
}

}  // namespace cordon::inline CORDON_ABI
