// SPDX-License-Identifier: MIT
// Hedged calls on a pool: copies that end at the same time as the call, as the timer, and as a stop.
#include <cordon/core/detail/random.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/policy/hedge.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

/// Two threads that take turns, and timers of which every other one is due at once: a hedge sends its first copy, on
/// the other thread, where its call suspends, and waits for ever for the next.
class impatient {
public:
    void submit(co::work_item& item) noexcept { threads_[++submitted_ % 2].loop().submit(item); }
    bool is_current() const noexcept { return threads_[0].loop().is_current() || threads_[1].loop().is_current(); }
    co::timer_service& timers() noexcept { return timers_; }
    int armed() const noexcept { return timers_.armed; }

private:
    struct half_of_them final : co::timer_service {
        void arm(co::timer& t) noexcept override {
            if (++armed % 2 == 0) return;
            t.fire(t);
        }
        void cancel(co::timer&) noexcept override { armed = 0; }
        std::atomic<int> armed{0};
    };

    mutable std::array<stress::looping_thread, 2> threads_;
    std::atomic<unsigned> submitted_{0};
    half_of_them timers_;
};

}  // namespace

// An attempt looked whether it was the last, and counted itself out later: of two at the same time none was the last.
TEST_CASE("a call and its copy that fail at the same time leave no timer armed", "[stress][policy][hedge]") {
    impatient executor;
    std::atomic<int> judged{0}, met{0};
    const auto fails = [&](int) {  // both here at the same time, if both threads have a processor
        const bool first = ++judged == 1;
        for (int spins = 0; judged < 2 && spins < 10'000;) ++spins;
        if (first && judged == 2) ++met;
        return true;
    };
    const auto guarded = co::pipeline(co::hedge({.after = 1h, .max_extra = 2})).failing_when(fails);
    const auto call = []() -> task<int> {
        co_await co::this_task::yield();  // the timer is armed, and fires
        co_return 1;
    };
    int left_armed = 0;
    const auto body = [&]() -> task<> {
        for (int i = stress::rounds(3'000); i > 0 && met < stress::rounds(1'500); --i) {
            judged = 0;
            (void)co_await guarded(call);
            left_armed += executor.armed() != 0;
        }
    };
    co::sync_wait(co::on(executor, body));
    CHECK(left_armed == 0);
}

TEST_CASE("copies on a pool: each call has one outcome, and nobody is left", "[stress][policy][hedge]") {
    co::thread_pool pool{3, {.name = "pool"}};
    co::retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 1, .min_in_flight = 1'000}};
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<std::uint64_t> numbers{seed};
    std::atomic<int> alive{0}, values{0}, others{0};
    const auto now = co::pipeline(co::timeout(2ms), co::hedge({.after = 0s, .max_extra = 2, .budget = &budget}));
    const auto soon = co::pipeline(co::timeout(2ms), co::hedge({.after = 50us, .max_extra = 3, .budget = &budget}));
    const auto never = co::clock::duration::max();
    const auto failing = co::pipeline(co::timeout(2ms), co::hedge({.after = never, .max_extra = 2, .budget = &budget}));
    const auto by_share = co::pipeline(co::hedge({.after = co::percentile(0.5), .budget = &budget}));
    const auto call = [&]() -> task<std::unique_ptr<int>> {
        const stress::counted here(alive);
        const std::uint64_t n = co::detail::mixed(numbers.fetch_add(1) + 1);
        if (n % 8 == 0) throw std::runtime_error("no");
        if (n % 4 != 0) co_await co::sleep_for(std::chrono::microseconds((n >> 8) % 120));
        if (n % 16 == 1) co_await co::sleep_for(1s);  // until it is stopped
        if (n % 8 == 2) throw std::runtime_error("late");
        co_return std::make_unique<int>(1);
    };
    const auto one = [&](int i) -> task<> {
        const auto end = [&](const co::outcome<std::unique_ptr<int>>& o) { ++(o.has_value() ? values : others); };
        if (i % 4 == 0) end(co_await co::as_outcome(now(call)));
        if (i % 4 == 1) end(co_await co::as_outcome(soon(call)));
        if (i % 4 == 2) end(co_await co::as_outcome(failing(call)));
        if (i % 4 == 3) end(co_await co::as_outcome(co::with_timeout(1ms, by_share(call))));
    };
    std::vector<int> all(3'000);
    for (int i = 0; auto& n : all) n = i++;
    const auto body = [&]() -> task<> { co_await co::for_each(all, {.max_running = 16}, one); };
    co::sync_wait(co::on(pool, body));
    CHECK(values + others == 3'000);
    CHECK(values > 1'000);
    CHECK(alive == 0);
    CHECK(budget.stats().calls_in_flight == 0);
    CHECK(budget.stats().retries_in_flight == 0);
}
