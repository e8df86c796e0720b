// SPDX-License-Identifier: MIT
#include <cordon/policy/retry_budget.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <random>
#include <thread>

namespace {

namespace co = cordon;

using co::detail::windowed_balance;

/// Runs `f(random)` on three threads that begin together, and waits.
template <class F>
void on_threads(std::uint64_t seed, F f) {
    std::atomic<int> ready{0};
    std::array<std::thread, 3> threads;
    for (std::size_t i = 0; i < threads.size(); ++i)
        threads[i] = std::thread([&, i] {
            std::mt19937_64 random(seed + i);
            ready.fetch_add(1);
            while (ready.load() < 3) std::this_thread::yield();
            f(random);
        });
    for (std::thread& t : threads) t.join();
}

}  // namespace

TEST_CASE("while many slots end, and the floor changes, each change is in one slot, and leaves the balance with it",
          "[stress][policy][retry_budget]") {
    const std::uint64_t seed = stress::fresh_seed();
    constexpr std::int64_t floor = 5, slot = 20;
    windowed_balance balance(floor, slot, 0);
    std::atomic<std::int64_t> now{0}, paid{0}, taken{0};
    on_threads(seed, [&](std::mt19937_64& random) {
        for (int i = 0; i < 1'000'000; ++i) {
            const auto later = static_cast<std::int64_t>(random() % 10);
            const std::int64_t time = now.fetch_add(later, std::memory_order_relaxed);
            if (i % 512 == 0) balance.set(static_cast<std::int64_t>(random() % (floor + 1)), slot);
            if (random() % 2 == 0) {
                balance.add(1, time);
                paid.fetch_add(1, std::memory_order_relaxed);
            } else {
                taken.fetch_add(balance.try_take(1, time), std::memory_order_relaxed);
            }
        }
    });
    balance.set(floor, slot);
    // Slot by slot, since a window that is old as a whole is not summed up. A change that is missing in its slot, or in
    // two, would stay in the balance for ever.
    std::int64_t left = 0;
    for (std::int64_t i = 0; i <= windowed_balance::slots; ++i) left = balance.available(now.load() + i * slot);
    CHECK(left == floor);
    CHECK(taken.load() > floor);
    CHECK(taken.load() <= paid.load() + floor * (now.load() / slot + 1));
}

TEST_CASE("within one slot nothing is taken that is not there, and nothing lost", "[stress][policy][retry_budget]") {
    const std::uint64_t seed = stress::fresh_seed();
    windowed_balance balance(2, 100, 0);
    std::atomic<std::int64_t> paid{0}, taken{0};
    std::atomic<int> below{0};
    on_threads(seed, [&](std::mt19937_64& random) {
        for (int i = 0; i < 1'000'000; ++i) {
            if (random() % 3 == 0) {
                balance.add(1, 50);
                paid.fetch_add(1, std::memory_order_relaxed);
            } else {
                taken.fetch_add(balance.try_take(1, 50), std::memory_order_relaxed);
            }
            below.fetch_add(balance.available(50) < 0, std::memory_order_relaxed);
        }
    });
    CHECK(below.load() == 0);
    CHECK(balance.available(50) == 2 + paid.load() - taken.load());
}

TEST_CASE("never are more retries in flight than allowed, and none is left at the end",
          "[stress][policy][retry_budget]") {
    const std::uint64_t seed = stress::fresh_seed();
    co::retry_budget b{{.in_flight_ratio = 0.5, .min_in_flight = 2}};
    std::atomic<int> held{0}, too_many{0};
    std::atomic<std::uint64_t> asked{0};
    on_threads(seed, [&](std::mt19937_64& random) {  // with at most three calls, two may be in flight
        for (int i = 0; i < 1'000'000; ++i) {
            b.called();
            asked.fetch_add(1, std::memory_order_relaxed);
            if (b.try_retry()) {
                if (held.fetch_add(1) + 1 > 2) too_many.fetch_add(1);
                stress::dawdle(static_cast<std::uint32_t>(random() % 50));
                held.fetch_sub(1);
                if (random() % 2 == 0) b.retry_ended();
                else b.refund();
            }
            if (random() % 4 == 0) b.uncounted();
            else b.ended(random() % 2 == 0);
        }
    });
    CHECK(too_many.load() == 0);
    const auto now = b.stats();
    CHECK(now.retries_in_flight == 0);
    CHECK(now.calls_in_flight == 0);
    CHECK(now.available == 2);
    CHECK(now.granted + now.rejected == asked.load());
    CHECK(now.granted > 0);
}

TEST_CASE("tokens that threads take and bring back are neither made nor lost", "[stress][policy][retry_budget]") {
    const std::uint64_t seed = stress::fresh_seed();
    co::retry_budget b{{.max_tokens = 1'000'000, .per_success = 1}};
    std::atomic<std::uint64_t> taken{0};
    on_threads(seed, [&](std::mt19937_64& random) {  // never full after this, and never half empty
        for (int i = 0; i < 1'000; ++i) taken.fetch_add(b.try_retry(), std::memory_order_relaxed);
        for (int i = 0; i < 100'000; ++i) {
            switch (random() % 3) {
                case 0:
                    if (!b.try_retry()) break;
                    taken.fetch_add(1, std::memory_order_relaxed);
                    break;
                case 1:
                    b.ended(true);
                    taken.fetch_add(1, std::memory_order_relaxed);
                    break;
                default:
                    b.ended(false);
                    taken.fetch_sub(1, std::memory_order_relaxed);
                    break;
            }
        }
    });
    CHECK(b.stats().available == 499'999 - taken.load());
}
