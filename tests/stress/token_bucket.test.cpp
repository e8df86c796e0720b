// SPDX-License-Identifier: MIT
#include <cordon/limit/token_bucket.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <stop_token>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::token_bucket;

/// As many threads as asked for call `f(i)` at about the same time.
template <class F>
void at_once(int threads, F f) {
    std::atomic<int> ready{0};
    std::vector<std::thread> crew;
    for (int i = 0; i < threads; ++i)
        crew.emplace_back([&, i] {
            ready.fetch_add(1);
            while (ready.load() < threads) std::this_thread::yield();
            f(i);
        });
    for (std::thread& t : crew) t.join();
}

/// Acquires at random: by trying, waiting, waiting for a short time, reserving, or below a scope that is stopped.
co::task<> customer(token_bucket& b, std::uint64_t seed, int rounds, std::atomic<std::uint64_t>& used,
                    std::atomic<std::uint64_t>& refused) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
        const std::uint64_t n = 1 + random() % 4;
        bool mine = true;
        switch (random() % 6) {
            case 0: mine = b.try_acquire(n); break;
            case 1: co_await b.acquire(n); break;
            case 2: {
                auto ended =
                    co_await co::as_outcome(co::with_timeout(std::chrono::microseconds(random() % 50), b.acquire(n)));
                mine = ended.has_value();
                break;
            }
            case 3: {
                auto promise = b.reserve(n, 1ms);
                mine = promise.has_value() && random() % 2 == 0;
                if (mine) promise->commit();
                break;
            }
            case 4: {
                auto permit = co_await b.admission(n);
                mine = random() % 2 == 0;
                permit.settle(mine ? co::verdict::success : co::verdict::stopped);
                break;
            }
            default: {
                co::cancel_scope scope(*co_await co::this_task::context());
                if (random() % 2 == 0) scope.request_stop();
                auto ended = co_await co::as_outcome(b.acquire(n).with(scope.ctx()));
                mine = ended.has_value();
                break;
            }
        }
        (mine ? used : refused).fetch_add(n, std::memory_order_relaxed);
    }
}

}  // namespace

TEST_CASE("fifteen requests at once are admitted up to the burst", "[stress][limit][token_bucket][RL-06]") {
    for (int round = 0; round < 50; ++round) {
        token_bucket b(co::every(1h), 5);
        std::atomic<int> admitted{0};
        at_once(15, [&](int) { admitted += b.try_acquire(); });
        REQUIRE(admitted.load() == 5);
    }
}

TEST_CASE("twenty threads share a burst of twenty, and none comes soon after", "[stress][limit][token_bucket][RL-37]") {
    token_bucket b(co::per_minute(20), 20);
    std::atomic<int> admitted{0};
    at_once(20, [&](int) { admitted += b.try_acquire(); });
    CHECK(admitted.load() == 20);
    CHECK_FALSE(b.try_acquire());
}

TEST_CASE("a rate above one in a nanosecond refuses nobody", "[stress][limit][token_bucket][RL-40]") {
    token_bucket b(co::per_second(1'000'000'001), 1'000'000'001);
    std::atomic<int> refused{0};
    at_once(2, [&](int) {
        for (int i = 0; i < 200'000; ++i) refused += !b.try_acquire();
    });
    CHECK(refused.load() == 0);
}

TEST_CASE("who is slow between the clock and the bucket is not refused for it", "[stress][limit][token_bucket]") {
    token_bucket b(co::per_second(1'000'000'001), 2'000);  // two microseconds; a thread that is set aside is slower
    std::atomic<int> refused{0};
    at_once(3, [&](int) {
        for (int i = 0; i < 200'000; ++i) refused += !b.try_acquire();
    });
    CHECK(refused.load() == 0);
}

TEST_CASE("random requests of all kinds use no more tokens than there were", "[stress][limit][token_bucket]") {
    const std::uint64_t seed = stress::fresh_seed();
    constexpr std::uint64_t rate = 2'000'000, burst = 50;
    token_bucket b(co::per_second(rate), burst, {.name = "busy"});
    std::atomic<std::uint64_t> used{0}, refused{0};
    const auto from = co::clock::now();
    {
        stress::crew<3> crew;
        for (std::uint64_t i = 0; i < 9; ++i) crew.start(i, customer(b, seed + i, 2'000, used, refused));
        crew.wait();
    }
    // Reservations act up to 1 ms later; a stopped call may, at worst, give back a token that had overflowed.
    const std::chrono::duration<double> took = co::clock::now() - from + 1ms;
    CHECK(static_cast<double>(used.load()) <= burst + took.count() * rate * 1.05);
    CHECK(used.load() > 0);
    CHECK(refused.load() > 0);
    CHECK(b.stats().waiting == 0);
    std::this_thread::sleep_for(5ms);  // real time: the bucket fills
    CHECK(b.stats().available == burst);
}

TEST_CASE("terms that change all the time neither lose a waiter nor admit too much", "[stress][limit][token_bucket]") {
    const std::uint64_t seed = stress::fresh_seed();
    token_bucket b(co::per_second(100'000), 8);
    std::atomic<std::uint64_t> used{0}, refused{0};
    std::atomic<bool> stop{false};
    const auto from = co::clock::now();
    std::thread changes([&] {
        std::mt19937_64 random(seed);
        while (!stop.load(std::memory_order_relaxed)) {
            b.set_rate(co::rate(100'000 + random() % 1'900'000, 1s), 4 + random() % 5);
            if (random() % 8 == 0) b.drain();
            (void)b.stats();
            std::this_thread::yield();
        }
    });
    {
        stress::crew<2> crew;
        for (std::uint64_t i = 0; i < 6; ++i) crew.start(i, customer(b, seed + 1 + i, 800, used, refused));
        crew.wait();
    }
    stop = true;
    changes.join();
    const std::chrono::duration<double> took = co::clock::now() - from + 1ms;
    CHECK(static_cast<double>(used.load()) <= 9 + took.count() * 2'000'000);
    CHECK(used.load() > 0);
    CHECK(b.stats().waiting == 0);
}

TEST_CASE("a refund or another rate that hurries a waiter meets its timer and its stop",
          "[stress][limit][token_bucket]") {
    stress::dice dice;
    stress::crew<2> crew;
    std::atomic<int> served{0}, stopped{0};
    for (int round = 0; round < stress::rounds(1'500); ++round) {
        token_bucket b(co::per_second(20'000), 2);  // 50 us each
        auto used = b.reserve(2), ahead = b.reserve(2);  // those that are there, and the next
        REQUIRE(used.has_value());
        REQUIRE(ahead.has_value());
        used->commit();
        co::cancel_scope scope{co::executor_ref(crew.loop(0))};
        const bool stops = dice.below(2) == 0, refunds = dice.below(2) == 0;
        const auto waits = [](token_bucket& bucket, const co::context& ctx, std::atomic<int>& good,
                              std::atomic<int>& bad) -> co::task<> {
            auto ended = co_await co::as_outcome(bucket.acquire(1 + 1).with(ctx));
            (ended.has_value() ? good : bad).fetch_add(1);
        };
        crew.start(0, waits(b, scope.ctx(), served, stopped));
        const auto hurries = [](token_bucket& bucket, token_bucket::reservation* refund, co::cancel_scope* stop,
                                std::uint32_t wait) -> co::task<> {
            stress::dawdle(wait);
            if (refund != nullptr) refund->cancel();
            else bucket.set_rate(co::per_second(200'000), 2);
            if (stop != nullptr) stop->request_stop();
            co_return;
        };
        crew.start(1, hurries(b, refunds ? &*ahead : nullptr, stops ? &scope : nullptr, dice.below(60'000)));
        crew.wait();
        ahead->commit();
        CHECK(b.stats().waiting == 0);
    }
    CHECK(served.load() + stopped.load() == stress::rounds(1'500));
    CHECK(served.load() > 0);
}

TEST_CASE("threads wait for tokens side by side with tasks, and stop when told", "[stress][limit][token_bucket]") {
    token_bucket b(co::per_second(200'000), 3);
    std::atomic<std::uint64_t> used{0}, refused{0};
    const std::uint64_t seed = stress::fresh_seed();
    {
        std::vector<std::jthread> threads;
        for (int i = 0; i < 3; ++i)
            threads.emplace_back([&](std::stop_token stop) {
                while (b.acquire_blocking(stop)) used.fetch_add(1, std::memory_order_relaxed);
            });
        stress::crew<1> crew;
        for (std::uint64_t i = 0; i < 3; ++i) crew.start(i, customer(b, seed + i, 500, used, refused));
        crew.wait();
    }
    CHECK(b.stats().waiting == 0);
    CHECK(used.load() > 0);
}
