// SPDX-License-Identifier: MIT

// The host's loop as an executor. Included by asio.hpp and boost_asio.hpp, as its two neighbours are, with
//   CORDON_ASIO         the library's namespace,
//   CORDON_ASIO_ERROR   that of its error_code,
//   CORDON_OVER_ASIO    an inline namespace, so that both libraries can be used in one program, and even in one file
//                       if the names are qualified: `cordon::over_asio::use_cordon`.
// No `#pragma once`.

#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/item_queue.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/time/timer_queue.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <string>

namespace cordon::inline CORDON_ABI {
namespace detail::CORDON_OVER_ASIO {

namespace net = ::CORDON_ASIO;

/// What a coroutine of the host waits for in `as_asio`, as the loop sees it: a scope to stop.
class asio_guest : public list_hook {
public:
    asio_guest(executor_ref runs_on, const std::source_location& where) noexcept
        : scope_(runs_on, deadline::never(), where), where_(where) {}
    void stop() noexcept { scope_.request_stop(stop_reason{stop_kind::requested, 0, where_}); }

protected:
    ~asio_guest() = default;
    [[nodiscard]] const context& ctx() const noexcept { return scope_.ctx(); }
    [[nodiscard]] const std::source_location& where() const noexcept { return where_; }

private:
    cancel_scope scope_;
    std::source_location where_;
};

/// Runs items and timers on an io_context: one service for each context, made when it is first asked for.
class asio_loop final : public net::execution_context::service {
public:
    CORDON_ONE_COPY static inline net::execution_context::id id;

    explicit asio_loop(net::execution_context& owner)
        : service(owner), io_(static_cast<net::io_context&>(owner)), wake_timer_(io_), timers_(*this) {}
    ~asio_loop() {
        const std::size_t waiting = stopped_guests_.size();
        const std::size_t armed = timers_.queue().size();
        inbox_.collect(ready_);
        if (waiting == 0 && armed == 0 && ready_.empty()) return;
        fail("an io_context is destroyed with " + std::to_string(armed) + " timers armed, " + std::to_string(waiting) +
             " operations that as_asio waits for, and " + (ready_.empty() ? "nothing" : "something") +
             " ready to run: end what runs on an asio_executor before its io_context");
    }

    /// The loop of the context that `e` belongs to.
    /// Requires:      it is an io_context
    template <class Executor>
    static asio_loop& of(const Executor& e) {
        return net::use_service<asio_loop>(static_cast<net::io_context&>(net::query(e, net::execution::context)));
    }

    void submit(work_item& item) noexcept {
        if (is_current()) ready_.push(item);
        else if (inbox_.push(item)) ask();
    }
    [[nodiscard]] bool is_current() const noexcept { return runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

    void add(asio_guest& g) noexcept {
        const spin_guard guard(guests_lock_);
        guests_.push_back(g);
    }
    void remove(asio_guest& g) noexcept {
        const spin_guard guard(guests_lock_);
        guests_.remove(g);
    }
    [[nodiscard]] net::io_context& host() const noexcept { return io_; }
    /// Whether the context is being destroyed, so that nobody runs what is posted to it.
    [[nodiscard]] bool closing() const noexcept { return closing_; }

private:
    /// The timers, which keep the context's own timer at the earliest of them, and cancel it when there is none: a
    /// context with nothing to wait for returns from its run().
    class loop_timers final : public timer_service {
    public:
        explicit loop_timers(asio_loop& loop) noexcept : loop_(&loop), queue_(&loop_timers::earlier, &loop) {}
        void arm(timer& t) noexcept override { queue_.arm(t); }
        void cancel(timer& t) noexcept override {
            queue_.cancel(t);
            if (!loop_->is_current() && queue_.empty()) loop_->ask();
        }
        locked_timer_queue& queue() noexcept { return queue_; }

    private:
        static void earlier(void* loop) noexcept {
            if (!static_cast<asio_loop*>(loop)->is_current()) static_cast<asio_loop*>(loop)->ask();
        }
        asio_loop* loop_;
        locked_timer_queue queue_;
    };

    /// Called when the context is destroyed. Coroutines that wait in `as_asio` end as those that wait for operations of
    /// Asio's own do: they are not resumed. What they wait for is stopped first, so that it leaves its queue.
    void shutdown() noexcept override {
        closing_ = true;
        while (!guests_.empty()) {
            asio_guest& g = guests_.pop_front();
            stopped_guests_.push_back(g);
            g.stop();
        }
        end_guests();
    }
    /// Runs what is ready as long as that may help a guest to end; without being the current executor, as it executes
    /// nothing new. Called again by whoever is submitted later on, as the context drops its operations.
    void end_guests() noexcept {
        if (ending_guests_) return;
        ending_guests_ = true;
        for (inbox_.collect(ready_); !ready_.empty() && !stopped_guests_.empty(); inbox_.collect(ready_)) run_next();
        ending_guests_ = false;
    }

    [[nodiscard]] bool claim_duty() noexcept { return duty_.exchange(asked, std::memory_order_acq_rel) == idle; }
    void ask() noexcept {
        if (closing_) end_guests();
        else if (claim_duty()) post_drain();
    }
    void post_drain() noexcept {
        net::post(io_, [this] { drain(); });
    }
    void drain() noexcept {
        duty_.exchange(draining, std::memory_order_acq_rel);
        const clock::time_point now = clock::now();
        {
            const executor_entry entry(this, now);
            timers_.queue().fire_due(now);
            inbox_.collect(ready_);
            for (int budget = items_per_turn; !ready_.empty() && budget != 0; --budget) run_next();
        }
        set_wake_timer(now);
        std::uint8_t seen = draining;
        if (!ready_.empty() || !duty_.compare_exchange_strong(seen, idle, std::memory_order_acq_rel)) post_drain();
    }
    void run_next() noexcept {
        work_item& item = ready_.pop();
        item.run(item);
    }

    /// Moves the context's timer to an earlier time, or away; never to a later one, since to let it ring in vain once
    /// costs less than to follow each deadline that was met.
    void set_wake_timer(clock::time_point now) noexcept {
        const std::optional<clock::time_point> next = timers_.queue().next_wake();
        if (wakes_at_ && next && *wakes_at_ <= *next && *wakes_at_ > now) return;
        if (wakes_at_ && !next) wake_timer_.cancel();
        wakes_at_ = next;
        if (!next) return;
        wake_timer_.expires_at(*next);
        wake_timer_.async_wait([this](const CORDON_ASIO_ERROR::error_code& e) {
            if (!e && claim_duty()) drain();
        });
    }

    static constexpr int items_per_turn = 64;  // then the host's own handlers have a turn

    net::io_context& io_;

    // duty_: who will look at the inbox and at the timers.
    //   idle      nobody: who has something new makes it `asked`, and posts a drain
    //   asked     a drain is posted, or one runs and will post another
    //   draining  a drain runs, and nothing new has come since it began
    // A1 Only who leaves idle posts, and a drain either goes back to idle or posts the next: there is one at a time,
    //    however many threads run the context; ready_, wakes_at_ and wake_timer_ are its own.
    // A2 Who asks has pushed or armed before (release). A drain begins with an exchange, which reads the last request
    //    and sees what was pushed before it (acquire); a store could still be on its way while the drain looks at the
    //    inbox, and hide from who asks in between that nobody will look again.
    enum : std::uint8_t { idle, asked, draining };
    std::atomic<std::uint8_t> duty_{idle};

    item_inbox inbox_;
    item_fifo ready_;
    net::steady_timer wake_timer_;
    std::optional<clock::time_point> wakes_at_;  // what wake_timer_ is set to
    loop_timers timers_;
    spin_lock guests_lock_;
    intrusive_list<asio_guest> guests_;          // under guests_lock_
    intrusive_list<asio_guest> stopped_guests_;  // those of a context that is being destroyed
    bool closing_ = false;
    bool ending_guests_ = false;
};

}  // namespace detail::CORDON_OVER_ASIO

namespace detail::CORDON_OVER_ASIO {

/// The loop that an executor is; null if it is none of this library's.
asio_loop* loop_of(executor_ref e) noexcept;

}  // namespace detail::CORDON_OVER_ASIO

inline namespace CORDON_OVER_ASIO {

/// The executor of an io_context: its loop runs our tasks and timers, and no thread of ours. Satisfies `executor`.
/// Tasks run one after the other, also if several threads run the context. `run()` of the context returns when it has
/// nothing left, and a task that waits for something outside counts as little as any callback: hold a work guard.
/// Lifetime:      outlives what runs on it, and the io_context outlives both. An io_context that is destroyed while
///                tasks wait for its timers or operations says so and terminates. Coroutines that wait in `as_asio` are
///                destroyed with it, as they are by Asio; what they wait for is stopped
/// Cost:          a submission from the context's own tasks takes no atomic; from elsewhere it posts to the context,
///                once until that has run
class asio_executor {
public:
    explicit asio_executor(::CORDON_ASIO::io_context& io)
        : loop_(&::CORDON_ASIO::use_service<detail::CORDON_OVER_ASIO::asio_loop>(io)) {}
    void submit(work_item& item) noexcept { loop_->submit(item); }
    [[nodiscard]] bool is_current() const noexcept { return loop_->is_current(); }
    [[nodiscard]] timer_service& timers() noexcept { return loop_->timers(); }

private:
    friend detail::CORDON_OVER_ASIO::asio_loop* detail::CORDON_OVER_ASIO::loop_of(executor_ref) noexcept;
    detail::CORDON_OVER_ASIO::asio_loop* loop_;
};

}  // inline namespace CORDON_OVER_ASIO

namespace detail::CORDON_OVER_ASIO {

inline asio_loop* loop_of(executor_ref e) noexcept {
    using by_host = ::cordon::CORDON_OVER_ASIO::asio_executor;
    if (const by_host* const given = e.target<by_host>()) return given->loop_;
    return e.target<asio_loop>();
}

}  // namespace detail::CORDON_OVER_ASIO
}  // namespace cordon::inline CORDON_ABI
