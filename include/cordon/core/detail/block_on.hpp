// SPDX-License-Identifier: MIT
#pragma once

// How a thread waits for an operation that is a leaf: one that arms at most one timer and runs nothing.

#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/std_stop_token.hpp>
#include <cordon/core/timer.hpp>

#include <condition_variable>
#include <coroutine>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What waits on a thread is under it: it is stopped with what the wait heeds. It has no timer for the deadline: who
/// waits calls `expire`.
class heeded_scope final : public scope {
public:
    explicit heeded_scope(const blocking_scope& heeds)
        : scope(heeds.ctx_ != nullptr ? context_access::scope_of(*heeds.ctx_) : nullptr), heeds_(heeds) {
        arm();
#if defined(__cpp_lib_jthread)
        if (heeds.stop_ != nullptr) adopted_.emplace(*heeds.stop_, source());
#endif
    }
    ~heeded_scope() {
#if defined(__cpp_lib_jthread)
        adopted_.reset();
#endif
        unlink_from_parent();
    }

    [[nodiscard]] cordon::deadline deadline() const noexcept { return heeds_.until_; }
    /// The executor of what is heeded, if there is one.
    [[nodiscard]] executor_ref executor() const noexcept {
        return heeds_.ctx_ != nullptr ? heeds_.ctx_->executor() : executor_ref();
    }
    /// What is heeded, on another executor and under this scope.
    [[nodiscard]] context ctx_on(executor_ref e) noexcept {
        const context outer = heeds_.ctx_ != nullptr ? context_access::with_executor(*heeds_.ctx_, e) : context(e);
        return context_access::with_scope(outer, *this, heeds_.until_);
    }
    /// The deadline has passed. A scope above is asked first, for its own reason.
    void expire() noexcept {
        if (heeds_.ctx_ != nullptr) static_cast<void>(heeds_.ctx_->stop_requested());
        source().request_stop(stop_reason{stop_kind::deadline, 0, {}});
    }

private:
    void on_expire(clock::time_point now) noexcept override {
        if (!heeds_.until_.is_never() && heeds_.until_.time() <= now) expire();
    }

    const blocking_scope& heeds_;
#if defined(__cpp_lib_jthread)
    std::optional<std_stop_parent> adopted_;
#endif
};

/// The executor of one wait, and its timers. The thread sleeps until an item comes, the timer is due or the deadline
/// passes.
class blocking_wait final : private timer_service {
public:
    explicit blocking_wait(const blocking_scope& heeds) : scope_(heeds), ctx_(scope_.ctx_on(executor_ref(*this))) {}
    [[nodiscard]] const context& ctx() const noexcept { return ctx_; }

    void submit(work_item& item) noexcept {
        const std::lock_guard lock(mutex_);
        item_ = &item;
        arrived_.notify_one();
    }
    [[nodiscard]] bool is_current() const noexcept { return runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return *this; }

    /// Runs the item that the leaf submits, once it has ended.
    void wait() noexcept {
        std::unique_lock lock(mutex_);
        bool may_pass = !scope_.deadline().is_never();
        while (item_ == nullptr) {
            const clock::time_point passes = may_pass ? scope_.deadline().time() : (clock::time_point::max)();
            const clock::time_point due = timer_ != nullptr ? timer_->when : (clock::time_point::max)();
            const clock::time_point until = due < passes ? due : passes;
            if (until == (clock::time_point::max)()) {
                arrived_.wait(lock);
            } else if (clock::now() < until) {
                arrived_.wait_until(lock, until);
            } else if (due <= passes) {
                fire(lock);
            } else {
                lock.unlock();
                may_pass = false;
                scope_.expire();
                lock.lock();
            }
        }
        lock.unlock();
        const executor_entry entry(this, clock::now());
        item_->run(*item_);
    }

private:
    void arm(timer& t) noexcept override {
        const std::lock_guard lock(mutex_);
        if (timer_ != nullptr) [[unlikely]] fail("a blocking wait has one timer, and it is armed");
        timer_ = &t;
        arrived_.notify_one();
    }
    void cancel(timer& t) noexcept override {
        std::unique_lock lock(mutex_);
        while (firing_ == &t && std::this_thread::get_id() != waits_) fired_.wait(lock);
        if (timer_ == &t) timer_ = nullptr;
    }
    void fire(std::unique_lock<std::mutex>& lock) noexcept {
        firing_ = std::exchange(timer_, nullptr);
        lock.unlock();
        firing_->fire(*firing_);
        lock.lock();
        firing_ = nullptr;
        fired_.notify_all();
    }

    std::mutex mutex_;
    std::condition_variable arrived_;
    work_item* item_ = nullptr;  // under mutex_
    timer* timer_ = nullptr;     // under mutex_
    timer* firing_ = nullptr;    // under mutex_
    std::condition_variable fired_;
    const std::thread::id waits_ = std::this_thread::get_id();
    heeded_scope scope_;
    context ctx_;
};

/// Who waits for the operation.
template <operation O>
class blocked final : private receiver {
public:
    blocked(O&& op, const context& c) noexcept : receiver(&c, nullptr, {}, &blocked::ended), state_(std::move(op)) {}

    /// Returns:       whether it has ended at once
    bool start() noexcept {
        if (state_.ready()) return true;
        resume(state_.start(receiver_ref(static_cast<receiver&>(*this))));
        return ended_;
    }
    outcome<typename O::value_type> take() noexcept {
        return stopped_ ? outcome<typename O::value_type>::stopped() : state_.take();
    }

private:
    static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
        discard(stopped ? child : nullptr);
        static_cast<blocked&>(self).ended_ = true;
        static_cast<blocked&>(self).stopped_ = stopped;
        return std::noop_coroutine();
    }

    typename O::state state_;
    bool ended_ = false;
    bool stopped_ = false;
};

[[noreturn]] CORDON_NOINLINE inline void raise_would_block() {
    raise(std::logic_error("a blocking wait on a thread that runs an executor: co_await instead, or wait inside "
                           "run_blocking"),
          "a blocking wait on a thread that runs an executor: co_await instead, or wait inside run_blocking");
}

template <operation O>
[[nodiscard]] outcome<typename O::value_type> block_on(O op, const blocking_scope& heeds) {
    if (runs_any_here() || simulated_here()) raise_would_block();
    blocking_wait wait(heeds);
    blocked<O> root(std::move(op), wait.ctx());
    if (!root.start()) wait.wait();
    return root.take();
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
