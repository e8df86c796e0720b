// SPDX-License-Identifier: MIT
#include <cordon/limit/keyed_limiter.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;

}  // namespace

TEST_CASE("threads that ask for the same keys get no more than a burst of each",
          "[stress][limit][keyed_limiter][RL-06]") {
    const std::uint64_t seed = stress::fresh_seed();
    constexpr int keys = 1'000, burst = 5;
    co::keyed_limiter<std::string> b(co::every(1h), burst, {.max_keys = 4'000});
    std::array<std::atomic<int>, keys> admitted{};
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            std::mt19937_64 random(seed + t);
            for (int i = 0; i < 10'000; ++i) {
                const auto key = static_cast<std::size_t>(random() % keys);
                admitted[key] += b.try_acquire(std::to_string(key));
            }
        });
    for (std::thread& t : threads) t.join();
    int all = 0;
    for (const auto& n : admitted) {
        REQUIRE(n.load() <= burst);
        all += n.load();
    }
    CHECK(all > keys * burst * 9 / 10);
    CHECK(b.stats().keys == keys);
    CHECK(b.stats().overflowed == 0);
}

TEST_CASE("keys that come, go, and are purged from many threads stay within their memory",
          "[stress][limit][keyed_limiter]") {
    const std::uint64_t seed = stress::fresh_seed();
    co::keyed_limiter<std::uint64_t> b(co::per_second(1'000'000), 1, {.max_keys = 600});
    std::atomic<bool> stop{false};
    std::atomic<std::size_t> most{0};
    std::thread purges([&] {
        while (!stop.load(std::memory_order_relaxed)) {
            b.purge();
            most = std::max(most.load(), b.stats().keys);
        }
    });
    std::vector<std::thread> threads;
    for (std::uint64_t t = 0; t < 3; ++t)
        threads.emplace_back([&, t] {
            std::mt19937_64 random(seed + t);
            for (int i = 0; i < 10'000; ++i) (void)b.try_acquire(random() % 5'000);
        });
    for (std::thread& t : threads) t.join();
    stop = true;
    purges.join();
    CHECK(most.load() <= 600);
    CHECK(b.stats().keys <= 600);
}
