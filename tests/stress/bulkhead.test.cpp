// SPDX-License-Identifier: MIT
#include <cordon/limit/bulkhead.hpp>

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
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::bulkhead;

struct shared_state {
    shared_state(std::size_t limit, co::bulkhead_options options) : slots(limit, options) {}
    bulkhead slots;
    std::atomic<std::size_t> running{0}, most{0};
    std::atomic<long> ran{0}, refused{0};

    void runs() {
        const std::size_t now = running.fetch_add(1) + 1;
        std::size_t seen = most.load();
        while (now > seen && !most.compare_exchange_weak(seen, now)) {}
        ran.fetch_add(1, std::memory_order_relaxed);
    }
};

co::task<> customer(shared_state& s, std::uint64_t seed, int rounds) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
        bulkhead::permit p;
        switch (random() % 4) {
            case 0: p = s.slots.try_acquire(); break;
            case 1: {
                auto got = co_await co::as_outcome(s.slots.acquire());
                if (got) p = *std::move(got);
                break;
            }
            case 2: {
                auto got = co_await co::as_outcome(
                    co::with_timeout(std::chrono::microseconds(random() % 50), s.slots.acquire()));
                if (got) p = *std::move(got);
                break;
            }
            default: {
                co::cancel_scope scope(*co_await co::this_task::context());
                if (random() % 2 == 0) scope.request_stop();
                auto got = co_await co::as_outcome(s.slots.acquire().with(scope.ctx()));
                if (got) p = *std::move(got);
                break;
            }
        }
        if (!p) {
            s.refused.fetch_add(1, std::memory_order_relaxed);
            continue;
        }
        s.runs();
        if (random() % 4 == 0) co_await co::this_task::yield();
        s.running.fetch_sub(1);
    }
}

}  // namespace

TEST_CASE("a hundred threads never run more than ten at a time", "[stress][limit][bulkhead][BH-22]") {
    shared_state s(10, {.max_waiting = 100});
    std::vector<std::thread> threads;
    for (int i = 0; i < 100; ++i)
        threads.emplace_back([&, i] {
            for (int round = 0; round < 20; ++round) {
                if ((i + round) % 2 == 0) {
                    const auto p = s.slots.try_acquire();
                    if (!p) continue;
                    s.runs();
                    s.running.fetch_sub(1);
                } else {
                    const auto p = s.slots.acquire_blocking();
                    if (!p.has_value()) s.refused.fetch_add(1);
                    s.runs();
                    s.running.fetch_sub(1);
                }
            }
        });
    for (std::thread& t : threads) t.join();
    CHECK(s.refused.load() == 0);
    CHECK(s.most.load() <= 10);
    CHECK(s.slots.stats().in_use == 0);
    CHECK(s.slots.stats().waiting == 0);
}

TEST_CASE("permits are neither lost nor made by random calls, stops, timeouts and resizes",
          "[stress][limit][bulkhead][BH-25]") {
    const std::uint64_t seed = stress::fresh_seed();
    shared_state s(4, {.max_waiting = 3, .max_wait = 40us});
    std::atomic<bool> stop{false};
    std::thread resizes([&] {
        std::mt19937_64 random(seed);
        while (!stop.load(std::memory_order_relaxed)) {
            s.slots.resize(random() % 5);
            std::this_thread::yield();
        }
    });
    {
        stress::crew<3> crew;
        for (std::uint64_t i = 0; i < 9; ++i) crew.start(i, customer(s, seed + 1 + i, 1'500));
        crew.wait();
    }
    stop = true;
    resizes.join();
    s.slots.resize(4);
    CHECK(s.most.load() <= 4);
    CHECK(s.ran.load() > 0);
    CHECK(s.refused.load() > 0);
    CHECK(s.slots.stats().in_use == 0);
    CHECK(s.slots.stats().waiting == 0);
    std::vector<bulkhead::permit> all;
    for (int i = 0; i < 4; ++i) {
        all.push_back(s.slots.try_acquire());
        CHECK(all.back());
    }
    CHECK_FALSE(s.slots.try_acquire());
}

TEST_CASE("a permit given back to a waiter that is stopped at that moment is not lost", "[stress][limit][bulkhead]") {
    stress::dice dice;
    stress::crew<1> crew;
    std::atomic<int> got{0}, stopped{0};
    std::atomic<co::cancel_scope*> next{nullptr};
    std::atomic<bool> last{false};
    std::thread stopper([&] {
        while (!last.load(std::memory_order_acquire))
            if (co::cancel_scope* const scope = next.load(std::memory_order_acquire)) {
                scope->request_stop();
                next.store(nullptr, std::memory_order_release);
            } else {
                std::this_thread::yield();
            }
    });
    for (int round = 0; round < 10'000; ++round) {
        bulkhead b(1, {.max_waiting = 1});
        bulkhead::permit held = b.try_acquire();
        co::cancel_scope scope{co::executor_ref(crew.loop(0))};
        const auto waits = [](bulkhead& k, const co::context& ctx, std::atomic<int>& good,
                              std::atomic<int>& bad) -> co::task<> {
            auto ended = co_await co::as_outcome(k.acquire().with(ctx));
            (ended.has_value() ? good : bad).fetch_add(1);
        };
        crew.start(0, waits(b, scope.ctx(), got, stopped));
        while (b.stats().waiting == 0) std::this_thread::yield();
        if (round % 100 == 1) held.release();  // now and then one is first for sure, on one processor as well
        next.store(&scope, std::memory_order_release);
        if (round % 100 == 2) while (!scope.stop_requested()) std::this_thread::yield();
        else stress::dawdle(dice.below(300));
        held.release();
        crew.wait();
        while (next.load(std::memory_order_acquire) != nullptr) std::this_thread::yield();
        REQUIRE(b.stats().in_use == 0);
    }
    last.store(true, std::memory_order_release);
    stopper.join();
    CHECK(got.load() + stopped.load() == 10'000);
    CHECK(got.load() > 0);
    CHECK(stopped.load() > 0);
}

TEST_CASE("a close meets waiters that are served, stopped and timed out", "[stress][limit][bulkhead]") {
    stress::crew<2> crew;
    std::atomic<int> ended{0};
    for (int round = 0; round < 500; ++round) {
        bulkhead b(1, {.max_waiting = 8, .max_wait = 20us});
        const auto calls = [](bulkhead& k, std::atomic<int>& n) -> co::task<> {
            auto got = co_await co::as_outcome(k.acquire());
            if (got) co_await co::this_task::yield();
            n.fetch_add(1);
        };
        for (std::size_t i = 0; i < 4; ++i) crew.start(i, calls(b, ended));
        const auto closes = [](bulkhead& k) -> co::task<> {
            k.close();
            co_return;
        };
        crew.start(1, closes(b));
        crew.wait();
        REQUIRE(b.stats().in_use == 0);
    }
    CHECK(ended.load() == 2'000);
}
