// SPDX-License-Identifier: MIT
// Limits that find their size, windows that slide, caches, and calls that are shared, used from several threads.
#include <cordon/core/detail/random.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/limit/adaptive_limiter.hpp>
#include <cordon/limit/load_shedder.hpp>
#include <cordon/limit/sliding_window_limiter.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/single_flight.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

/// `one(i)` for so many numbers, on a pool, several at a time.
template <class F>
void on_a_pool(int calls, F one) {
    co::thread_pool pool{3, {.name = "pool"}};
    std::vector<int> all(static_cast<std::size_t>(calls));
    for (int i = 0; auto& n : all) n = i++;
    const auto body = [&]() -> task<> { co_await co::for_each(all, {.max_running = 24}, one); };
    co::sync_wait(co::on(pool, body));
}

}  // namespace

TEST_CASE("an adaptive limit is never exceeded by more than it has shrunk, and all permits come back",
          "[stress][limit][adaptive_limiter]") {
    co::adaptive_limiter limit(co::gradient2{.initial = 8, .min = 1, .max = 16},
                               {.max_waiting = 100, .window = 0s, .min_samples = 2, .min_latency = 0s,
                                .probe_every = 1ms, .probe_samples = 5});
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> running{0}, most{0};
    on_a_pool(3'000, [&](int i) -> task<> {
        const std::uint64_t n = co::detail::mixed(seed + static_cast<std::uint64_t>(i));
        auto waits = co::with_timeout(std::chrono::microseconds(n % 7 == 0 ? 30 : 1'000'000), limit.acquire());
        auto got = co_await co::as_outcome(std::move(waits));
        if (!got.has_value()) co_return;
        const int now = ++running;
        for (int seen = most; seen < now && !most.compare_exchange_weak(seen, now);) {}
        if (n % 3 == 0) co_await co::this_task::yield();
        if (n % 5 == 0) co_await co::sleep_for(20us);
        --running;
        if (n % 11 == 0) got->dropped();
        else if (n % 13 == 0) got->failed();
        else got->succeeded();
    });
    CHECK(most <= 16);
    const auto s = limit.stats();
    CHECK(s.in_use == 0);
    CHECK(s.waiting == 0);
    CHECK(s.samples > 100);
    std::vector<co::adaptive_limiter::permit> all;
    while (auto p = limit.try_acquire()) all.push_back(std::move(p));
    CHECK(all.size() == limit.stats().limit);  // the last change has reached those who acquire
}

TEST_CASE("a sliding window admits as many as it says, whoever waits, gives up or is stopped",
          "[stress][limit][sliding_window_limiter]") {
    co::sliding_window_limiter api{50, 5ms};
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<std::uint64_t> passed{0};
    const auto begin = co::clock::now();
    on_a_pool(1'500, [&](int i) -> task<> {
        const std::uint64_t n = co::detail::mixed(seed + static_cast<std::uint64_t>(i));
        if (n % 4 == 0) {
            passed += api.try_acquire();
        } else {
            auto waits = co::with_timeout(std::chrono::microseconds(n % 3 == 0 ? n % 5'000 : 1'000'000), api.acquire());
            const auto got = co_await co::as_outcome(std::move(waits));
            passed += got.has_value();
        }
    });
    const auto windows = static_cast<std::uint64_t>((co::clock::now() - begin) / 5ms + 1);
    CHECK(passed <= 50 * windows);
    CHECK(passed == api.stats().admitted);
    CHECK(api.stats().waiting == 0);
}

TEST_CASE("calls that are shared and kept, on a pool", "[stress][policy][single_flight][cache]") {
    co::single_flight<int, int> flights;
    co::cache<int, int> kept(500us, {.max_entries = 5, .refresh_ahead = 200us, .stale_for = 1ms});
    co::load_shedder door;
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> wrong{0}, calls{0}, ended{0};
    on_a_pool(3'000, [&](int i) -> task<> {
        const std::uint64_t n = co::detail::mixed(seed + static_cast<std::uint64_t>(i));
        const int key = static_cast<int>(n % 7);
        const auto call = [&, key, n]() -> task<int> {
            ++calls;
            if (n % 5 != 0) co_await co::this_task::yield();
            if (n % 5 == 1) co_await co::sleep_for(50us);
            if (n % 31 == 0) throw std::runtime_error("no");
            co_return key;
        };
        const auto both = co::pipeline(door, kept.for_key(key), flights.for_key(key));
        const auto alone = co::pipeline(flights.for_key(key));
        const auto time = std::chrono::microseconds(n % 3 == 0 ? 20 : 1'000'000);
        const auto look = [&](const co::outcome<int>& o) { wrong += o.has_value() && *o != key; };
        if (i % 2 == 0) look(co_await co::as_outcome(co::with_timeout(time, both(call))));
        else look(co_await co::as_outcome(co::with_timeout(time, alone(call))));
        ++ended;
    });
    CHECK(ended == 3'000);
    CHECK(wrong == 0);
    CHECK(calls < 3'000);
    CHECK(flights.stats().in_flight == 0);
    CHECK(flights.stats().waiting == 0);
    CHECK(kept.stats().entries <= 5);
}
