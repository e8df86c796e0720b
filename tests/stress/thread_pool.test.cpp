// SPDX-License-Identifier: MIT
#include <cordon/run/thread_pool.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

/// An item that is submitted again and again, and counts its runs.
struct runner : co::work_item {
    runner(co::thread_pool& p, int again, std::atomic<int>& runs) noexcept
        : work_item(&runner::call), pool(&p), left(again), ran(&runs) {}
    static void call(co::work_item& item) noexcept {
        auto& r = static_cast<runner&>(item);
        std::atomic<int>& ran = *r.ran;
        if (r.left-- > 0) r.pool->submit(r);
        ran.fetch_add(1, std::memory_order_release);
    }
    co::thread_pool* pool;
    int left;  // written by whoever runs it: never two at a time
    std::atomic<int>* ran;
};

template <class F>
void on_threads(std::size_t n, std::uint32_t seed, F f) {
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < n; ++i)
        threads.emplace_back([&f, i, seed] {
            std::minstd_rand random(seed + static_cast<std::uint32_t>(i));
            f(i, random);
        });
    for (std::thread& t : threads) t.join();
}

void until(const std::atomic<int>& n, int is) {
    while (n.load(std::memory_order_acquire) != is) std::this_thread::yield();
}

}  // namespace

TEST_CASE("what threads and workers submit to a pool runs once, however its workers sleep between",
          "[stress][run][thread_pool]") {
    const auto seed = static_cast<std::uint32_t>(stress::fresh_seed());
    for (const std::size_t workers : {1u, 2u, 4u}) {
        constexpr std::size_t threads = 3, items = 400;
        constexpr int again = 5;
        std::atomic<int> ran{0};
        std::deque<runner> all;
        {
            co::thread_pool pool(workers);
            for (std::size_t i = 0; i < threads * items; ++i) all.emplace_back(pool, again, ran);
            on_threads(threads, seed, [&](std::size_t t, std::minstd_rand& random) {
                for (std::size_t i = 0; i < items; ++i) {
                    if (random() % 4 == 0) stress::dawdle(static_cast<std::uint32_t>(random() % 5'000));
                    pool.submit(all[t * items + i]);
                }
            });
            if (seed % 2 == 0) until(ran, static_cast<int>(threads * items) * (again + 1));
        }  // or else the destructor runs what is left
        CHECK(ran == static_cast<int>(threads * items) * (again + 1));
    }
}

TEST_CASE("one item at a time wakes a sleeping pool each time", "[stress][run][thread_pool]") {
    stress::dice d;
    std::atomic<int> ran{0};
    co::thread_pool pool(3);
    for (int i = 0; i < 3'000; ++i) {
        runner one(pool, 0, ran);
        stress::dawdle(d.below(40'000));
        pool.submit(one);
        until(ran, i + 1);
    }
}

TEST_CASE("a pool may be destroyed as soon as what was submitted has run", "[stress][run][thread_pool]") {
    const auto seed = static_cast<std::uint32_t>(stress::fresh_seed());
    std::minstd_rand random(seed);
    for (int round = 0; round < stress::rounds(500); ++round) {
        std::atomic<int> ran{0};
        auto pool = std::make_unique<co::thread_pool>(1 + random() % 3);
        runner first(*pool, 0, ran), second(*pool, 1, ran);
        std::thread other([p = pool.get(), &first, wait = static_cast<std::uint32_t>(random() % 3'000)] {
            stress::dawdle(wait);
            p->submit(first);
        });
        stress::dawdle(static_cast<std::uint32_t>(random() % 20'000));
        pool->submit(second);
        until(ran, 3);
        pool.reset();  // while `submit` may be about to return over there
        other.join();
    }
}

TEST_CASE("pools are made and destroyed idle, falling asleep, waking up and busy", "[stress][run][thread_pool]") {
    stress::dice d;
    for (int round = 0; round < stress::rounds(500); ++round) {
        std::atomic<int> ran{0};
        std::deque<runner> all;
        int expected = 0;
        {
            co::thread_pool pool(1 + d.below(4));
            stress::dawdle(d.below(60'000));
            const int n = static_cast<int>(d.below(20)), again = static_cast<int>(d.below(10));
            for (int i = 0; i < n; ++i) all.emplace_back(pool, again, ran);
            for (runner& r : all) pool.submit(r);
            expected = n * (again + 1);
            stress::dawdle(d.below(60'000));
        }
        REQUIRE(ran == expected);
    }
}

TEST_CASE("timers that threads and workers arm and cancel fire once, not early, or not at all",
          "[stress][run][thread_pool]") {
    struct fuse : co::timer {
        fuse() noexcept : timer(&fuse::burnt) {}
        static void burnt(co::timer& t) noexcept {
            auto& f = static_cast<fuse&>(t);
            if (co::clock::now() < f.when) f.early.store(true);
            f.fired.fetch_add(1);
        }
        std::atomic<int> fired{0};
        std::atomic<bool> early{false};
    };
    const auto seed = static_cast<std::uint32_t>(stress::fresh_seed());
    co::thread_pool pool(3);
    std::atomic<int> bad{0}, seen{0};
    on_threads(3, seed, [&](std::size_t, std::minstd_rand& random) {
        for (int i = 0; i < 1'500; ++i) {
            fuse f;
            f.when = co::clock::now() + std::chrono::microseconds(random() % 200);
            pool.timers().arm(f);
            if (random() % 3 == 0) {
                stress::dawdle(static_cast<std::uint32_t>(random() % 20'000));
                pool.timers().cancel(f);
            } else {
                while (f.fired.load() == 0) std::this_thread::yield();
                pool.timers().cancel(f);
            }
            if (f.fired.load() > 1 || f.early.load()) bad.fetch_add(1);
            seen.fetch_add(f.fired.load());
        }
    });
    CHECK(bad == 0);
    CHECK(seen > 0);
}

TEST_CASE("a timer is noticed by a pool whose workers come and go", "[stress][run][thread_pool]") {
    const auto naps = [](std::uint64_t seed, int rounds) -> co::task<> {
        std::minstd_rand random(static_cast<std::uint32_t>(seed));
        for (int i = 0; i < rounds; ++i) {
            switch (random() % 3) {
                case 0: co_await co::sleep_for(std::chrono::microseconds(random() % 300)); break;
                case 1: co_await co::this_task::yield(); break;
                default: {
                    const auto within = std::chrono::microseconds(random() % 100);
                    auto ended = co_await co::as_outcome(co::with_timeout(within, co::sleep_for(50us)));
                    (void)ended;
                    break;
                }
            }
        }
    };
    const std::uint64_t seed = stress::fresh_seed();
    for (const std::size_t workers : {1u, 2u, 4u}) {
        co::thread_pool pool(workers);
        co::task_group group(pool);
        for (std::uint64_t i = 0; i < 8; ++i) group.spawn(naps(seed + i, 150));
        co::sync_wait(group.join());
        CHECK(group.error_count() == 0);
    }
}

TEST_CASE("groups of thousands of tasks end on a pool", "[stress][run][thread_pool]") {
    struct forest {
        std::atomic<int> grown{0};
        co::async_semaphore room{64};

        co::task<> leaf(int i) {
            if (i % 3 == 0) co_await co::this_task::yield();
            if (i % 5 == 0) {
                co_await room.acquire();
                if (i % 2 == 0) co_await co::this_task::yield();
                room.release();
            }
            if (i % 97 == 0) co_await co::sleep_for(std::chrono::microseconds(i % 50));
            grown.fetch_add(1, std::memory_order_relaxed);
        }
        co::task<> branch(co::task_group& group, int leaves) {
            for (int i = 0; i < leaves; ++i) group.spawn(leaf(i));
            co_return;
        }
    };
    for (const std::size_t workers : {2u, 3u, 4u}) {
        forest f;
        co::thread_pool pool(workers);
        const auto body = [&](co::task_group& group) -> co::task<> {
            for (int i = 0; i < 8; ++i) group.spawn(f.branch(group, 500));
            co_return;
        };
        co::sync_wait(co::on(pool, co::with_group(body)));
        CHECK(f.grown == 4'000);
        CHECK(f.room.stats().available == 64);
    }
}

TEST_CASE("a stop from outside races with tasks that start, wait and end on a pool", "[stress][run][thread_pool]") {
    stress::dice d;
    std::atomic<int> alive{0};
    const auto works = [](std::atomic<int>& n, int i) -> co::task<> {
        const stress::counted self(n);
        if (i % 2 == 0) co_await co::this_task::yield();
        if (i % 3 == 0) co_await co::sleep_for(std::chrono::microseconds(i));
        if (i % 7 == 0) co_await co::sleep_for(1h);
        co_await co::this_task::yield();
    };
    co::thread_pool pool(3);
    for (int round = 0; round < 150; ++round) {
        co::task_group group(pool);
        for (int i = 0; i < 60; ++i) group.spawn(works(alive, i));
        stress::dawdle(d.below(100'000));
        group.request_stop();
        co::sync_wait(group.join());
        REQUIRE(alive == 0);
        CHECK(group.error_count() == 0);
    }
}

TEST_CASE("tasks hop between pools that are destroyed right behind them", "[stress][run][thread_pool]") {
    const auto hops = [](co::thread_pool& there, int n) -> co::task<int> {
        const auto one = []() -> co::task<int> { co_return 1; };
        int sum = 0;
        for (int i = 0; i < n; ++i) sum += co_await co::on(there, one);
        co_return sum;
    };
    stress::dice d;
    for (int round = 0; round < stress::rounds(200); ++round) {
        co::thread_pool one(1 + d.below(3)), two(1 + d.below(3));  // `two` goes first
        const int n = static_cast<int>(d.below(20));
        auto both = co::when_all(co::on(one, hops(two, n)), co::on(two, hops(one, n)));
        const auto sums = co::sync_wait(std::move(both));
        REQUIRE(std::get<0>(sums) == n);
        REQUIRE(std::get<1>(sums) == n);
    }
}
