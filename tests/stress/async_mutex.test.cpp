// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_mutex.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <random>
#include <thread>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::async_mutex;

struct shared_state {
    async_mutex mutex{{.name = "m"}};
    long count = 0;  // plain: the mutex orders it
    std::atomic<int> inside{0}, wrong{0};
    std::atomic<long> visits{0}, given_up{0};

    void visit() {
        if (inside.fetch_add(1) != 0) wrong.fetch_add(1);
        ++count;
        visits.fetch_add(1, std::memory_order_relaxed);
    }
    void leave() { inside.fetch_sub(1); }
};

/// Locks at random: by trying, waiting, waiting for a short time, or below a scope that is stopped.
co::task<> visitor(shared_state& s, std::uint64_t seed, int rounds) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
        async_mutex::guard mine;
        switch (random() % 4) {
            case 0: mine = s.mutex.try_lock(); break;
            case 1: mine = co_await s.mutex.lock(); break;
            case 2: {
                auto ended = co_await co::as_outcome(
                    co::with_timeout(std::chrono::microseconds(random() % 50), s.mutex.lock()));
                if (ended.has_value()) mine = *std::move(ended);
                break;
            }
            default: {
                co::cancel_scope scope(*co_await co::this_task::context());
                if (random() % 2 == 0) scope.request_stop();
                auto ended = co_await co::as_outcome(s.mutex.lock().with(scope.ctx()));
                if (ended.has_value()) mine = *std::move(ended);
                break;
            }
        }
        if (!mine) {
            s.given_up.fetch_add(1, std::memory_order_relaxed);
            continue;
        }
        s.visit();
        if (random() % 4 == 0) co_await co::this_task::yield();
        s.leave();
        if (random() % 2 == 0) mine.unlock();
    }
}

}  // namespace

TEST_CASE("tasks on three threads and a thread are inside one at a time, through random stops and timeouts",
          "[stress][sync][async_mutex]") {
    const std::uint64_t seed = stress::fresh_seed();
    shared_state s;
    std::thread thread([&s] {
        for (int i = 0; i < 1'000; ++i) {
            auto mine = s.mutex.lock_blocking(co::deadline::after(i % 2 == 0 ? 1s : 10us));
            if (!mine.has_value()) continue;
            s.visit();
            s.leave();
        }
    });
    {
        stress::crew<3> crew;
        for (std::uint64_t i = 0; i < 9; ++i) crew.start(i, visitor(s, seed + i, 2'000));
        crew.wait();
    }
    thread.join();
    CHECK(s.wrong.load() == 0);
    CHECK(s.count == s.visits.load());
    CHECK(s.visits.load() > 0);
    CHECK(s.given_up.load() > 0);
    CHECK_FALSE(s.mutex.stats().locked);
    CHECK(s.mutex.stats().waiting == 0);
}

TEST_CASE("who has the lock last may destroy the mutex while the unlock returns", "[stress][sync][async_mutex]") {
    stress::crew<2> crew;
    for (int round = 0; round < 2'000; ++round) {
        auto* const m = new async_mutex;
        async_mutex::guard first = m->try_lock();
        const auto waits = [](async_mutex* mine) -> co::task<> {
            async_mutex::guard last = co_await mine->lock();
            last.unlock();
            delete mine;
        };
        const auto unlocks = [](async_mutex::guard theirs) -> co::task<> {
            theirs.unlock();
            co_return;
        };
        crew.start(0, waits(m));
        crew.start(1, unlocks(std::move(first)));
        crew.wait();
    }
    SUCCEED();
}
