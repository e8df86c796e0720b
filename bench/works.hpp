// SPDX-License-Identifier: MIT
#pragma once

// The loops that are both timed by the benchmarks and counted by counts.cpp. `Steps` is a benchmark::State or `repeat`.

#include "bare_task.hpp"

#include <cordon/cordon.hpp>

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <utility>

namespace bench {

using namespace std::chrono_literals;
namespace co = cordon;

/// Makes the compiler believe that `value` is looked at.
template <class T>
[[gnu::always_inline]] inline void keep(const T& value) {
    asm volatile("" : : "r,m"(value) : "memory");
}

/// As many steps as it says, counted in memory like those of a benchmark::State.
class repeat {
public:
    explicit repeat(std::int64_t n) noexcept : n_(n) {}

    struct [[maybe_unused]] value {};
    class iterator {
    public:
        explicit iterator(std::int64_t left) noexcept : left_(left) {}
        value operator*() const noexcept { return {}; }
        iterator& operator++() noexcept {
            --left_;
            return *this;
        }
        bool operator!=(std::default_sentinel_t) const noexcept { return left_ != 0; }

    private:
        std::int64_t left_;
    };
    iterator begin() const noexcept { return iterator(n_); }
    std::default_sentinel_t end() const noexcept { return {}; }

private:
    std::int64_t n_;
};

/// Runs `body(steps)` on a loop of this thread, as the child of a group: with a record, an executor and a stop.
template <class Body, class Steps>
void run_as_child(Body body, Steps& steps) {
    co::run_loop loop;
    co::task_group group{loop};
    group.spawn(body(steps));
    co::start_on(loop, group.join(), [&](co::outcome<void>) { loop.stop(); });
    loop.run();
}

// --- await of a ready child -------------------------------------------------------------------------------------

template <class Frames>
[[gnu::noinline]] bare_task<Frames> bare_child(int x) {
    co_return x;
}
template <class Frames, class Steps>
bare_task<Frames> await_bare(Steps& steps) {
    int sum = 0;
    for (auto _ : steps) sum += co_await bare_child<Frames>(1);
    keep(sum);
    co_return sum;
}

[[gnu::noinline]] inline co::task<int> child(int x) { co_return x; }

template <class Steps>
co::task<> await_child(Steps& steps) {
    int sum = 0;
    for (auto _ : steps) sum += co_await child(1);
    keep(sum);
}

template <class Steps>
co::task<> await_child_within(Steps& steps) {
    int sum = 0;
    for (auto _ : steps) sum += co_await co::with_timeout(1h, child(1));
    keep(sum);
}

inline constexpr co::context_key<int> number{"number"};

template <class Steps>
co::task<> await_child_with_value(Steps& steps) {
    int sum = 0;
    for (auto _ : steps) sum += co_await co::with(child(1), number(7));
    keep(sum);
}

// --- once around the loop ---------------------------------------------------------------------------------------

inline constinit const co::detail::wait_label hop_label{"hop"};

/// A leaf like any other, with a stop callback and an entry in the record, that is completed as soon as it waits.
class hop : public co::detail::operation_base<hop> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    class state : public co::detail::leaf<state> {
    public:
        explicit state(hop&&) noexcept {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(co::receiver_ref r) noexcept {
            const std::coroutine_handle<> to_resume = suspend(r);
            complete();
            return to_resume;
        }
        co::outcome<void> take() noexcept { return {}; }

    private:
        friend class co::detail::leaf<state>;
        void enqueue() noexcept {}
        void dequeue(bool) noexcept {}
        const co::detail::wait_label& label() const noexcept { return hop_label; }
    };
};

template <class Steps>
co::task<> yield(Steps& steps) {
    for (auto _ : steps) co_await co::this_task::yield();
}
template <class Steps>
co::task<> hop_bare(Steps& steps) {
    for (auto _ : steps) co_await hop();
}
template <class Steps>
co::task<> hop_within(Steps& steps) {
    for (auto _ : steps) co_await co::with_timeout(1h, hop());
}

[[gnu::noinline]] inline co::task<> hopping_child() { co_await hop(); }

template <class Steps>
co::task<> hop_in_child(Steps& steps) {
    for (auto _ : steps) co_await hopping_child();
}
template <class Steps>
co::task<> hop_in_child_within(Steps& steps) {
    for (auto _ : steps) co_await co::with_timeout(1h, hopping_child());
}

// --- groups -----------------------------------------------------------------------------------------------------

[[gnu::noinline]] inline co::task<> empty_task() { co_return; }

/// Spawns in a group that has few children at a time: frames and records are warm.
template <class Steps>
co::task<> spawn_few_at_a_time(Steps& steps) {
    constexpr int at_a_time = 50;
    co::task_group group{*co_await co::this_task::context()};
    int left = at_a_time;
    for (auto _ : steps) {
        group.spawn(empty_task());
        if (--left != 0) continue;
        left = at_a_time;
        co_await co::this_task::yield();  // they all run before this goes on
    }
    co_await group.join();
}

// --- what is not a coroutine ------------------------------------------------------------------------------------

template <class Steps>
void stop_callback(Steps& steps) {
    co::inplace_stop_source source;
    int called = 0;
    auto f = [&called]() noexcept { ++called; };
    for (auto _ : steps) {
        co::inplace_stop_callback callback(source.get_token(), f);
        keep(&callback);
    }
    keep(called);
}

template <class Steps>
void create_and_stop(Steps& steps) {
    for (auto _ : steps) {
        co::inplace_stop_source source;
        keep(&source);
        source.request_stop();
        keep(source.stop_requested());
    }
}

/// One timer at two seconds from `now()`, armed and cancelled at once.
template <class Steps, class Now>
void timer_armed_and_cancelled(Steps& steps, co::timer_service& timers, Now now) {
    co::timer t([](co::timer&) noexcept {});
    for (auto _ : steps) {
        t.when = now() + 2s;
        timers.arm(t);
        keep(&t);
        timers.cancel(t);
    }
}

// --- semaphore --------------------------------------------------------------------------------------------------

template <class Steps>
co::task<> semaphore_uncontended(Steps& steps) {
    co::async_semaphore semaphore{1};
    for (auto _ : steps) {
        co_await semaphore.acquire();
        semaphore.release();
    }
}

/// Two tasks that wake each other: one step is two switches.
template <class Steps>
co::task<> semaphore_ping_pong(Steps& steps) {
    struct table {
        co::async_semaphore ping{0}, pong{0};
        bool last = false;
        co::task<> answer() {
            while (!last) {
                co_await ping.acquire();
                pong.release();
            }
        }
    };
    table t;
    co::task_group group{*co_await co::this_task::context()};
    group.spawn(t.answer());
    for (auto _ : steps) {
        t.ping.release();
        co_await t.pong.acquire();
    }
    t.last = true;
    t.ping.release();
    co_await group.join();
}

// --- policies ---------------------------------------------------------------------------------------------------

/// A fallback, retries with a budget, a breaker, a token bucket and a bulkhead, all of which let everything pass.
struct five_policies {
    co::circuit_breaker breaker{{.window = co::last_calls(100)}};
    co::token_bucket limiter{co::per_second(1'000'000'000), 1'000'000};
    co::bulkhead slots{16};
    co::retry_budget budget{co::token_budget_options{}};

    auto pipeline() {
        return co::pipeline(co::fallback([](const co::failure&) { return -1; }), co::retry(3, {.budget = &budget}),
                            breaker, limiter, slots);
    }
};

template <class Steps>
co::task<> call_through_five(five_policies& all, Steps& steps) {
    const auto guarded = all.pipeline();
    const auto call = [] { return child(1); };
    for (auto _ : steps) keep(co_await guarded(call));
}
template <class Steps>
co::task<> call_through_five(Steps& steps) {
    five_policies all;
    co_await call_through_five(all, steps);
}
/// The same guards, asked and told by hand.
template <class Steps>
co::task<> call_by_hand(Steps& steps) {
    five_policies all;
    bool refused = false;
    for (auto _ : steps) {
        all.budget.called();
        auto let_through = all.breaker.try_acquire();
        const bool has_token = all.limiter.try_acquire();
        const auto slot = all.slots.try_acquire();
        refused = refused || !let_through || !has_token || !slot;
        keep(co_await child(1));
        let_through.succeeded();
        all.budget.ended(false);
    }
    keep(refused);
}
/// A call that a breaker, which is open, refuses.
template <class Steps>
co::task<> call_refused(five_policies& all, Steps& steps) {
    all.breaker.force_open();
    const auto guarded = co::pipeline(all.breaker);
    const auto call = [] { return child(1); };
    for (auto _ : steps) {
        const auto ended = co_await co::as_outcome(guarded(call));
        keep(ended.is_rejected());
    }
}
template <class Steps>
co::task<> call_refused(Steps& steps) {
    five_policies all;
    co_await call_refused(all, steps);
}

}  // namespace bench
