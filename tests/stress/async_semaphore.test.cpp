// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstdint>
#include <random>
#include <thread>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;

struct shared_state {
    explicit shared_state(std::size_t permits) : semaphore(permits, {.name = "s"}), total(permits) {}
    co::async_semaphore semaphore;
    const std::size_t total;
    std::atomic<std::size_t> held{0};
    std::atomic<std::size_t> most{0};
    std::atomic<long> acquired{0}, given_up{0};

    void took(std::size_t n) {
        const std::size_t now = held.fetch_add(n) + n;
        std::size_t seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {}
        acquired.fetch_add(1, std::memory_order_relaxed);
    }
    void give(std::size_t n) {
        held.fetch_sub(n);
        semaphore.release(n);
    }
};

/// Acquires and releases at random: by trying, waiting, waiting for a short time, or below a scope that is stopped.
co::task<> customer(shared_state& s, std::uint64_t seed, int rounds) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
        const std::size_t n = 1 + random() % s.total;
        bool mine = true;
        switch (random() % 4) {
            case 0: mine = s.semaphore.try_acquire(n); break;
            case 1: co_await s.semaphore.acquire(n); break;
            case 2: {
                auto ended = co_await co::as_outcome(
                    co::with_timeout(std::chrono::microseconds(random() % 50), s.semaphore.acquire(n)));
                mine = ended.has_value();
                break;
            }
            default: {
                co::cancel_scope scope(*co_await co::this_task::context());
                if (random() % 2 == 0) scope.request_stop();
                auto ended = co_await co::as_outcome(s.semaphore.acquire(n).with(scope.ctx()));
                mine = ended.has_value();
                break;
            }
        }
        if (!mine) {
            s.given_up.fetch_add(1, std::memory_order_relaxed);
            continue;
        }
        s.took(n);
        if (random() % 4 == 0) co_await co::this_task::yield();
        s.give(n);
    }
}

}  // namespace

TEST_CASE("permits are neither lost nor made by random acquisitions, releases, stops and timeouts",
          "[stress][sync][async_semaphore]") {
    const std::uint64_t seed = stress::fresh_seed();
    shared_state s(4);
    stress::crew<3> crew;
    for (std::uint64_t i = 0; i < 9; ++i) crew.start(i, customer(s, seed + i, 2'000));
    crew.wait();
    CHECK(s.semaphore.stats().available == s.total);
    CHECK(s.semaphore.stats().waiting == 0);
    CHECK(s.most.load() <= s.total);
    CHECK(s.acquired.load() > 0);
    CHECK(s.given_up.load() > 0);
}

TEST_CASE("a release that finds a waiter which leaves meanwhile neither makes nor loses a permit",
          "[stress][sync][async_semaphore]") {
    constexpr std::size_t total = 3;
    co::async_semaphore semaphore(total);
    std::atomic<bool> stop{false};
    std::atomic<std::size_t> held{0};
    std::atomic<int> too_many{0};
    const auto passer = [&] {
        while (!stop.load(std::memory_order_relaxed)) {
            if (!semaphore.try_acquire()) continue;
            if (held.fetch_add(1) + 1 > total) too_many.fetch_add(1);
            held.fetch_sub(1);
            semaphore.release();
        }
    };
    const auto comes_and_goes = [](co::async_semaphore& s, int rounds) -> co::task<> {
        for (int i = 0; i < rounds; ++i) {
            auto never = co_await co::as_outcome(co::with_timeout(1us, s.acquire(total + 1)));
            (void)never;
        }
    };
    std::thread first(passer), second(passer);
    stress::crew<1> crew;
    crew.start(0, comes_and_goes(semaphore, 20'000));
    crew.wait();
    stop = true;
    first.join();
    second.join();
    CHECK(too_many.load() == 0);
    CHECK(semaphore.stats().available == total);
}

TEST_CASE("who got the last permit may destroy the semaphore while the release returns",
          "[stress][sync][async_semaphore]") {
    stress::crew<2> crew;
    for (int round = 0; round < 2'000; ++round) {
        auto* const s = new co::async_semaphore(0);
        const auto waits = [](co::async_semaphore* mine) -> co::task<> {
            co_await mine->acquire();
            delete mine;
        };
        const auto releases = [](co::async_semaphore* theirs) -> co::task<> {
            theirs->release();
            co_return;
        };
        crew.start(0, waits(s));
        crew.start(1, releases(s));
        crew.wait();
    }
    SUCCEED();
}
