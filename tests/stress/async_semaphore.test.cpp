// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;

std::uint64_t fresh_seed() {
    const std::uint64_t seed = std::random_device{}();
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    return seed;
}

/// A loop with a thread of its own, which ends with it.
class looping_thread {
public:
    looping_thread() : thread_([this] { loop_.run(); }) {}
    ~looping_thread() {
        loop_.stop();
        thread_.join();
    }
    co::run_loop& loop() noexcept { return loop_; }

private:
    co::run_loop loop_;
    std::thread thread_;
};

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
    const std::uint64_t seed = fresh_seed();
    constexpr int loops = 4, customers = 3;
    shared_state s(4);
    {
        std::atomic<int> left{loops * customers};
        std::vector<std::unique_ptr<looping_thread>> threads;
        for (int i = 0; i < loops; ++i) threads.push_back(std::make_unique<looping_thread>());
        for (int i = 0; i < loops * customers; ++i)
            co::start_on(threads[static_cast<std::size_t>(i % loops)]->loop(),
                         customer(s, seed + static_cast<std::uint64_t>(i), 4'000),
                         [&](const co::outcome<void>&) { left.fetch_sub(1); });
        while (left.load() != 0) std::this_thread::sleep_for(1ms);  // real threads: there is no other clock to wait on
    }
    CHECK(s.semaphore.stats().available == s.total);
    CHECK(s.semaphore.stats().waiting == 0);
    CHECK(s.most.load() <= s.total);
    CHECK(s.acquired.load() > 0);
    CHECK(s.given_up.load() > 0);
}

TEST_CASE("a release that finds a waiter which leaves meanwhile makes no permit", "[stress][sync][async_semaphore]") {
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
    {
        looping_thread loop;
        std::thread first(passer), second(passer);
        std::atomic<bool> ended{false};
        co::start_on(loop.loop(), comes_and_goes(semaphore, 50'000), [&](const co::outcome<void>&) { ended = true; });
        while (!ended.load()) std::this_thread::sleep_for(1ms);
        stop = true;
        first.join();
        second.join();
    }
    CHECK(too_many.load() == 0);
    CHECK(semaphore.stats().available == total);
}
