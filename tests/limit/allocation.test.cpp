// SPDX-License-Identifier: MIT
// What the limiters do again and again allocates nothing. Not measured under sanitizers, where coroutine frames are not
// recycled.
#include <cordon/limit/adaptive_limiter.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/keyed_limiter.hpp>
#include <cordon/limit/load_shedder.hpp>
#include <cordon/limit/sliding_window_limiter.hpp>
#include <cordon/limit/token_bucket.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>

#include "catch.hpp"
#include "counted_new.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <string>
#include <string_view>
#include <vector>

#ifdef SANITIZED

TEST_CASE("under a sanitizer allocations are not counted", "[limit][allocation]") {
    WARN("SKIPPED: coroutine frames are not recycled under a sanitizer");
}

#else

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

/// Allocations of `f()`, once everything is warm.
template <class F>
std::size_t allocations_of(F f) {
    for (int i = 0; i < 3; ++i) f();
    const std::size_t before = allocations.load();
    f();
    return allocations.load() - before;
}

}  // namespace

TEST_CASE("a known key is looked up by any string without an allocation", "[limit][keyed_limiter][allocation]") {
    co::keyed_limiter<std::string> b(co::per_second(1), 2, {.max_keys = 4});
    const std::string_view view = "a name that is too long for the small string";
    (void)b.try_acquire(view);
    CHECK(allocations_of([&] {
              (void)b.try_acquire(view);
              (void)b.try_acquire("a name that is too long for the small string");
              (void)b.time_until(view);
              (void)b.stats();
          }) == 0);
    co::keyed_limiter<std::string> one(co::per_second(1'000'000'000), 1, {.max_keys = 1});
    (void)one.try_acquire(view);
    CHECK(allocations_of([&] {  // a key that takes the place of another uses its memory
              (void)one.try_acquire("another name that has about its length");
              (void)one.try_acquire(view);
          }) == 0);
    CHECK(one.stats().evicted > 0);
}

TEST_CASE("waiting, refusing and giving back allocate nothing", "[limit][allocation]") {
    co::token_bucket bucket(co::per_second(1'000'000), 2);
    co::bulkhead slots(1, {.max_waiting = 4, .max_wait = 1h});
    const auto waits = [&]() -> task<> {
        co_await bucket.acquire(2);
        co_await bucket.acquire(2);
        auto large = co_await co::as_outcome(bucket.acquire(3));
        auto late = co_await co::as_outcome(co::with_timeout(1ns, bucket.acquire(2)));
        auto permit = co_await bucket.admission();
        permit.settle(co::verdict::stopped);
        (void)bucket.reserve(2);
        bucket.set_rate(co::per_second(1'000'000), 2);
    };
    const auto calls = [&]() -> task<> {
        const auto p = co_await slots.acquire();
        co_await co::this_task::yield();
    };
    const auto all = [&]() -> task<> {
        co_await waits();
        co_await co::when_all(calls(), calls(), calls());
    };
    CHECK(allocations_of([&] { co::sync_wait(all()); }) == allocations_of([&] { co::sync_wait(calls()); }));
    CHECK(allocations_of([&] {
              CHECK(bucket.acquire_blocking().has_value());
              CHECK(slots.acquire_blocking().has_value());
          }) == 0);
}

TEST_CASE("measuring, probing, shedding and sliding allocate nothing", "[limit][allocation]") {
    co::adaptive_limiter adaptive(co::gradient2{.initial = 1, .min = 1},
                                  {.max_waiting = 4, .window = 0s, .min_samples = 1, .min_latency = 0s,
                                   .probe_at_floor = 1, .probe_samples = 2});
    co::load_shedder door;
    co::sliding_window_limiter window(1, 1us);
    const auto yields = []() -> task<> { co_await co::this_task::yield(); };
    const auto calls = [&]() -> task<> {
        auto p = co_await adaptive.acquire();
        co_await co::this_task::yield();
        p.succeeded();
        co_await window.acquire();
        co_await window.acquire();
        (void)co_await co::as_outcome(co::with_timeout(1ns, window.acquire()));
        (void)co_await door.admission();
    };
    const auto all = [&]() -> task<> { co_await co::when_all(calls(), calls(), calls()); };
    const auto none = [&]() -> task<> { co_await co::when_all(yields(), yields(), yields()); };
    CHECK(allocations_of([&] { co::sync_wait(all()); }) == allocations_of([&] { co::sync_wait(none()); }));
    CHECK(allocations_of([&] {
              if (auto p = adaptive.try_acquire()) p.dropped();
              (void)door.try_acquire(co::clock::now());
              (void)window.try_acquire();
          }) == 0);
}

#endif
