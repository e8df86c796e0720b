// SPDX-License-Identifier: MIT
// Hedged calls on a pool: copies that end at the same time as the call, as the timer, and as a stop.
#include <cordon/core/detail/random.hpp>
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

}  // namespace

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
