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
    static inline net::execution_context::id id;

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

    /// Called when the context is destroyed. Coroutines that wait in `as_asio` end as those that wait for Asio's own
    /// operations do: without being resumed. What they wait for is stopped first, so that it leaves its queue.
    void shutdown() noexcept override {
        closing_ = true;
        while (!guests_.empty()) {
            asio_guest& g = guests_.pop_front();
            stopped_guests_.push_back(g);
            g.stop();
        }
        drain();
    }

    void ask() noexcept {
        if (duty_.exchange(asked, std::memory_order_acq_rel) == idle) post_drain();
    }
    void post_drain() noexcept {
        if (closing_) drain();
        else net::post(io_, [this] { drain(); });
    }
    void drain() noexcept {
        duty_.exchange(draining, std::memory_order_acq_rel);
        run_items();
        if (!closing_) arm_wake_timer();
        std::uint8_t seen = draining;
        if (!ready_.empty() || !duty_.compare_exchange_strong(seen, idle, std::memory_order_acq_rel)) post_drain();
    }
    void run_items() noexcept {
        const clock::time_point now = clock::now();
        const executor_entry entry(this, now);
        timers_.queue().fire_due(now);
        inbox_.collect(ready_);
        for (int budget = items_per_turn; !ready_.empty() && budget != 0; --budget) {
            work_item& item = ready_.pop();
            item.run(item);
        }
    }

    /// Only ever moves the context's timer to an earlier time, or away: one that rings too early is set again, which
    /// costs less than to follow each deadline that is met.
    void arm_wake_timer() noexcept {
        const std::optional<clock::time_point> next = timers_.queue().next_wake();
        if (!next) {
            if (wakes_at_) wake_timer_.cancel();
            wakes_at_.reset();
            return;
        }
        if (wakes_at_ && *wakes_at_ <= *next && !rang_) return;
        rang_ = false;
        wakes_at_ = next;
        wake_timer_.expires_at(*next);
        wake_timer_.async_wait([this](const CORDON_ASIO_ERROR::error_code& e) {
            if (!e) ask();
        });
    }

    static constexpr int items_per_turn = 64;  // then the host's own handlers have a turn

    net::io_context& io_;

    // duty_: whose turn it is to look at the inbox and at the timers.
    //   idle      nobody's: whoever has something new makes it `asked`, and posts a drain
    //   asked     a drain is posted, or one runs and will post the next
    //   draining  a drain runs, and nothing new has come since it began
    // D1 Only the change from idle posts, and a drain hands its duty on before it gives it up: one runs at a time,
    //    whatever number of threads runs the context, and ready_, wakes_at_ and wake_timer_ are the drain's alone.
    // D2 Who asks has pushed or armed before (release); a drain begins with an exchange, not a store, so that it reads
    //    the last request, and what was pushed before it (acquire). After a store its look at the inbox could come
    //    first, and a request in between be lost.
    enum : std::uint8_t { idle, asked, draining };
    std::atomic<std::uint8_t> duty_{idle};

    item_inbox inbox_;
    item_fifo ready_;
    net::steady_timer wake_timer_;
    std::optional<clock::time_point> wakes_at_;  // what wake_timer_ is set to
    loop_timers timers_;
    spin_lock guests_lock_;
    intrusive_list<asio_guest> guests_;
    intrusive_list<asio_guest> stopped_guests_;  // the context is being destroyed, and they have not ended
    bool closing_ = false;
};

}  // namespace detail::CORDON_OVER_ASIO
