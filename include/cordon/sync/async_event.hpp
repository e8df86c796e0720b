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
#include <cordon/core/operation.hpp>

#include <coroutine>
#include <cstddef>
#include <string>
#include <string_view>

namespace cordon::inline CORDON_ABI {

struct event_options {
    std::string_view name = {};
    bool set = false;  ///< how it begins
};

/// A flag that tasks wait for.
/// Threads:       all members from any
/// Order:         those who wait go on in the order in which they came. What happened before `set()` is seen by them
/// Lifetime:      destroyed with waiters it prints its name and terminates
/// Cost:          one load to pass a set event; no allocation
class async_event {
    class wait_operation;

public:
    explicit async_event(event_options options = {})
        : lock_(options.set), name_(options.name), label_(detail::wait_label("event"), options.name) {}
    async_event(const async_event&) = delete;
    async_event& operator=(const async_event&) = delete;
    ~async_event() {
        if (present_ != 0) [[unlikely]]
            detail::fail_in_use("async_event", name_, waiters_.size(), present_);
    }

    /// Waits until the event is set; not at all if it is.
    /// Cancellation:  a cancel point while it waits
    [[nodiscard]] wait_operation wait() noexcept;

    /// The same on a thread.
    [[nodiscard]] outcome<void> wait_blocking(const blocking_scope& heeds = {});

    /// Lets all who wait go on, and those who come. Never resumes anybody inside the call.
    void set() noexcept;
    /// Lets those who come from now on wait.
    void reset() noexcept {
        lock_.lock();
        lock_.unlock(false);
    }

    [[nodiscard]] bool is_set() const noexcept { return lock_.raised(); }
    [[nodiscard]] std::size_t waiting() const noexcept {
        lock_.lock();
        const std::size_t n = waiters_.size();
        lock_.unlock();
        return n;
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }

private:
    class waiter;

    mutable detail::flagged_lock lock_;       ///< its flag says that the event is set
    detail::intrusive_list<waiter> waiters_;  ///< under lock_
    std::size_t present_ = 0;                 ///< under lock_: those who wait, or were let go and have not gone on yet
    std::string name_;
    detail::named_wait_label label_;
};

class async_event::waiter : public detail::leaf<waiter>, public detail::list_hook {
public:
    explicit waiter(async_event& e) noexcept : event_(&e) {}
    bool ready() const noexcept { return event_->is_set(); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept { return {}; }

private:
    friend class leaf<waiter>;
    void enqueue() noexcept {
        event_->lock_.lock();
        ++event_->present_;
        if (event_->lock_.raised_inside()) complete();
        else event_->waiters_.push_back(*this);
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

inline void async_event::set() noexcept {
    lock_.lock();
    while (!waiters_.empty()) waiters_.pop_front().complete();
    lock_.unlock(true);
    detail::run_woken();
}

}  // namespace cordon::inline CORDON_ABI
