// SPDX-License-Identifier: MIT
// Calls through pipelines allocate nothing once they run. Not measured under sanitizers, where coroutine frames are not
// recycled.
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/hedge.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/single_flight.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/run/call_blocking.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "counted_new.hpp"
#include "waiting_guard.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <optional>

#ifdef SANITIZED

TEST_CASE("under a sanitizer the allocations of pipelines are not counted", "[policy][pipeline][allocation]") {
    WARN("SKIPPED: coroutine frames are not recycled under a sanitizer");
}

#else

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

/// How often `once` allocates in 100 runs, after a warm-up. A run loop rather than a simulation, which writes down what
/// it does and allocates for that.
template <class F>
task<std::size_t> count_in(F once) {
    for (int i = 0; i < 200; ++i) co_await once();
    const std::size_t before = allocations.load();
    for (int i = 0; i < 100; ++i) co_await once();
    co_return allocations.load() - before;
}
template <class F>
std::size_t allocations_of(F once) {
    return co::sync_wait(count_in(once));
}

}  // namespace

TEST_CASE("the counter of the policies counts", "[policy][pipeline][allocation]") {
    CHECK(allocations_of([]() -> task<> {
              int* volatile p = new int(1);
              delete p;
              co_return;
          }) == 100);
}

TEST_CASE("five policies around a task allocate nothing, whether it is ready, waits, or fails by its value",
          "[policy][pipeline][allocation]") {
    co::circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1'000'000}};
    co::retry_budget budget{{.min_per_second = 1'000'000}};
    const auto guarded = co::pipeline(co::fallback([](const co::failure&) { return -1; }), co::timeout(1h),
                                      co::retry(3, {.budget = &budget}), breaker, co::timeout(1h))
                             .failing_when([](int n) { return n < 0; });
    const auto now = []() -> task<int> { co_return 1; };
    const auto hop = []() -> task<int> {
        co_await co::this_task::yield();
        co_return 1;
    };
    const auto sleeps = []() -> task<int> {
        co_await co::sleep_for(1us);
        co_return 1;
    };
    const auto five = [&](auto call) {
        return [&guarded, call]() -> task<> {
            const int got = co_await guarded(call);
            if (got != 1) std::abort();
        };
    };
    CHECK(allocations_of(five(now)) == 0);
    CHECK(allocations_of(five(hop)) == 0);
    CHECK(allocations_of(five(sleeps)) == 0);
    CHECK(allocations_of([&]() -> task<> {
              const co::outcome<int> o = co_await co::as_outcome(guarded(hop));
              if (!o.has_value()) std::abort();
          }) == 0);

    const auto quick =
        co::pipeline(co::fallback([](const co::failure&) { return -1; }), co::timeout(1h),
                     co::retry(3, {.backoff = co::constant(1us), .budget = &budget}), breaker, co::timeout(1h))
            .failing_when([](int n) { return n < 0; });
    int calls = 0;
    CHECK(allocations_of([&]() -> task<> {
              const auto third = [&]() -> task<int> {
                  co_await co::this_task::yield();
                  co_return ++calls % 3 == 0 ? 1 : -1;
              };
              const int got = co_await quick(third);
              if (got != 1) std::abort();
          }) == 0);
    CHECK(allocations_of([&]() -> task<> {
              const auto never = []() -> task<int> { co_return -5; };
              const int got = co_await quick(never);
              if (got != -1) std::abort();
          }) == 0);
}

TEST_CASE("a refusal allocates nothing and makes no frame", "[policy][pipeline][allocation]") {
    co::circuit_breaker breaker{{.name = "b"}};
    breaker.force_open();
    int calls = 0;
    const auto guarded = co::pipeline(co::timeout(1h), breaker, co::timeout(1h));
    CHECK(allocations_of([&]() -> task<> {
              const auto call = [&]() -> task<int> {
                  ++calls;
                  co_return 1;
              };
              const co::outcome<int> o = co_await co::as_outcome(guarded(call));
              if (!o.is_rejected()) std::abort();
          }) == 0);
    CHECK(calls == 0);
}

TEST_CASE("a stored pipeline and a guard that waits allocate nothing", "[policy][any_pipeline][allocation]") {
    policy_test::waiting_guard guard(1);
    guard.settled.reserve(10'000);
    const co::any_pipeline<int> stored = co::pipeline(co::timeout(1h), guard, co::timeout(1h));
    CHECK(allocations_of([&]() -> task<> {
              const auto call = []() -> task<int> {
                  co_await co::this_task::yield();
                  co_return 1;
              };
              const int got = co_await stored(call);
              if (got != 1) std::abort();
          }) == 0);
}

TEST_CASE("a function behind a pipeline on a thread allocates nothing, a refusal either",
          "[policy][pipeline][call_blocking][allocation]") {
    co::circuit_breaker breaker{{.name = "db", .window = co::last_calls(100)}};
    const auto guarded = co::pipeline(co::fallback([](const co::failure&) { return -1; }),
                                      co::retry(3, {.backoff = co::constant(0s)}), breaker);
    const auto allocations_of_calls = [&](int expected) {
        std::size_t before = 0;
        for (int i = 0; i < 300; ++i) {
            if (i == 200) before = allocations.load();
            if (co::call_blocking(guarded, [] { return 1; }).value() != expected) std::abort();
        }
        return allocations.load() - before;
    };
    CHECK(allocations_of_calls(1) == 0);
    breaker.force_open();
    CHECK(allocations_of_calls(-1) == 0);
}

TEST_CASE("pipelines of nothing allocate nothing", "[policy][pipeline][allocation][CO-17]") {
    const auto nothing = co::pipeline();
    CHECK(allocations_of([&]() -> task<> { co_await nothing([] { return co::this_task::yield(); }); }) == 0);
}

TEST_CASE("hedged calls allocate nothing, with a copy or without one", "[policy][hedge][allocation]") {
    co::retry_budget budget{co::in_flight_budget_options{}};
    const auto later = co::pipeline(co::hedge({.after = 1h, .budget = &budget}));
    const auto at_once = co::pipeline(co::hedge({.after = 0s, .max_extra = 2, .budget = &budget}));
    const auto usual = co::pipeline(co::hedge({.after = co::percentile(0.99)}));
    const auto hop = []() -> task<int> {
        co_await co::this_task::yield();
        co_return 1;
    };
    CHECK(allocations_of([&]() -> task<> { co_await later(hop); }) == 0);
    CHECK(allocations_of([&]() -> task<> { co_await at_once(hop); }) == 0);
    CHECK(allocations_of([&]() -> task<> { co_await usual(hop); }) == 0);
}

TEST_CASE("a value that is kept, and a call that is shared, allocate nothing",
          "[policy][cache][single_flight][allocation]") {
    co::cache<int, int> kept(1h), short_lived(1ns);
    co::single_flight<int, int> flights;
    const auto hop = []() -> task<int> {
        co_await co::this_task::yield();
        co_return 1;
    };
    const auto hit = co::pipeline(kept.for_key(1));
    const auto miss = co::pipeline(short_lived.for_key(1), flights.for_key(1));
    CHECK(allocations_of([&]() -> task<> { co_await hit(hop); }) == 0);
    const auto misses = [&]() -> task<> {
        const auto too_old = co::clock::now() + std::chrono::microseconds(1);  // the counter is read up to 0.1 us behind
        while (co::clock::now() < too_old) {}
        co_await miss(hop);
    };
    CHECK(allocations_of(misses) == 0);
    CHECK(kept.stats().hits > 200);
    CHECK(short_lived.stats().hits == 0);
}

#endif
