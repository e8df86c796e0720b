// SPDX-License-Identifier: MIT
#include <cordon/observe/leak_watchdog.hpp>

#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::detail::task_record;
using co::testing::simulation;

[[maybe_unused]] task<> park() { co_await co::sleep_for(24h); }
[[maybe_unused]] task<> park_for(co::clock::duration d) { co_await co::sleep_for(d); }

/// Whose names begin with "t", and when they were reported.
struct reports {
    std::vector<std::string> names;
    std::vector<std::chrono::nanoseconds> at;
    co::clock::time_point begin = co::clock::now();

    auto handler() {
        return [this](const co::task_info& task) {
            if (!task.name.starts_with('t')) return;
            names.push_back(task.name);
            at.push_back(co::clock::now() - begin);
        };
    }
};

/// An executor whose items and timers wait until they are told to go on, on whatever thread tells.
struct by_hand : co::timer_service {
    void submit(co::work_item& i) noexcept { item = &i; }
    bool is_current() const noexcept { return false; }
    co::timer_service& timers() noexcept { return *this; }
    void arm(co::timer& t) noexcept override {
        armed = &t;
        if (on_arm) on_arm(*this);
    }
    void cancel(co::timer&) noexcept override {
        armed = nullptr;
        ++cancelled;
    }
    void fire() {
        co::timer* const t = std::exchange(armed, nullptr);
        t->fire(*t);
    }

    co::work_item* item = nullptr;
    co::timer* armed = nullptr;
    int cancelled = 0;
    void (*on_arm)(by_hand&) = nullptr;
};

}  // namespace

#if CORDON_TASK_RECORDS

TEST_CASE("a watchdog reports each task once, when it has reached the age, and no group", "[observe][leak_watchdog]") {
    std::optional<reports> seen;
    const auto root = [&]() -> task<> {
        seen.emplace();
        const auto body = [&](co::task_group& group) -> task<> {
            co::leak_watchdog watchdog{*simulation::current(), 10ms, seen->handler()};
            group.spawn(park(), {.name = "t1"});
            group.spawn(park_for(9ms), {.name = "t short"});
            co_await simulation::advance(3ms);
            group.spawn(park(), {.name = "t2"});
            co_await simulation::advance(200ms);
            group.request_stop();
        };
        co_await co::with_group({.name = "t group"}, body);
    };
    simulation sim;
    sim.run(root());
    CHECK(seen->names == std::vector<std::string>{"t1", "t2"});
    CHECK(seen->at == std::vector<std::chrono::nanoseconds>{10ms, 15ms});  // it looks every 5 ms
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a new task in the record of one that was reported is reported, too", "[observe][leak_watchdog]") {
    std::optional<reports> seen;
    const auto root = [&]() -> task<> {
        seen.emplace();
        co::leak_watchdog watchdog{*simulation::current(), 10ms, seen->handler()};
        const auto now = [] { return co::detail::to_record_ms(co::clock::now()); };
        task_record* const first = task_record::open(false, "t first", {}, nullptr, now());
        co_await simulation::advance(20ms);
        first->close();
        task_record* const second = task_record::open(false, "t second", {}, nullptr, now());
        CHECK(second == first);
        co_await simulation::advance(20ms);
        second->close();
        co_await simulation::advance(20ms);
    };
    simulation().run(root());
    CHECK(seen->names == std::vector<std::string>{"t first", "t second"});
}

TEST_CASE("the handler is told all that a dump tells", "[observe][leak_watchdog]") {
    co::task_info told;
    const auto root = [&]() -> task<> {
        const auto body = [&](co::task_group& group) -> task<> {
            co::leak_watchdog watchdog{*simulation::current(), 10ms, [&](const co::task_info& task) {
                                           if (task.name == "t1") told = task;
                                       }};
            group.spawn(park(), {.name = "t1"});
            co_await simulation::advance(20ms);
            group.request_stop();
        };
        co_await co::with_group(body);
    };
    simulation().run(root());
    CHECK(told.age == 10ms);
    CHECK(told.waits.size() == 1);
    CHECK(told.waits_for == "sleep");
    CHECK(std::string(told.spawned_at.file_name()).ends_with("leak_watchdog.test.cpp"));
}

TEST_CASE("a watchdog looks no more often than once in a millisecond", "[observe][leak_watchdog]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        co::leak_watchdog watchdog{sim, 1ns, [](const co::task_info&) {}};
        co_await co::sleep_for(100ms);
    };
    sim.run(root());
    CHECK(sim.steps() < 2 * 100 + 20);
}

TEST_CASE("a watchdog may be destroyed by its own handler, which is not called again", "[observe][leak_watchdog]") {
    int calls = 0;
    bool handler_lives = false;
    const auto root = [&]() -> task<> {
        std::optional<co::leak_watchdog> watchdog;
        const auto owned = std::make_shared<bool>(true);
        const std::weak_ptr<bool> seen = owned;
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 5; ++i) group.spawn(park());
            watchdog.emplace(*simulation::current(), 10ms, [&, owned](const co::task_info&) {
                ++calls;
                watchdog.reset();
                handler_lives = *owned;
            });
            co_await simulation::advance(1s);
            group.request_stop();
        };
        co_await co::with_group(body);
        CHECK(owned.use_count() == 1);  // the handler died after its call
    };
    simulation sim;
    sim.run(root());
    CHECK(calls == 1);
    CHECK(handler_lives);
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a watchdog may be destroyed at any moment of its life in a simulation", "[observe][leak_watchdog]") {
    for (int when = 0; when < 40; ++when) {
        int calls = 0;
        const auto owned = std::make_shared<int>();
        simulation sim(static_cast<std::uint64_t>(when));
        const auto root = [&]() -> task<> {
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(park(), {.name = "t"});
                std::optional<co::leak_watchdog> watchdog;
                watchdog.emplace(sim, 2ms, [&, owned](const co::task_info& task) { calls += task.name == "t"; });
                co_await co::sleep_for(when / 4 * 500us);
                for (int i = 0; i < when % 4; ++i) co_await co::this_task::yield();
                watchdog.reset();
                const int before = calls;
                co_await co::sleep_for(1s);
                CHECK(calls == before);
                CHECK(owned.use_count() == 1);  // the last item has gone, too
                group.request_stop();
            };
            co_await co::with_group(body);
        };
        sim.run(root());
        CHECK(calls == (when / 4 * 500us > 2ms ? 1 : calls));
    }
}

TEST_CASE("the destructor waits for a handler that runs on another thread", "[observe][leak_watchdog]") {
    co::thread_pool pool{2};
    std::atomic<bool> inside{false}, over{false};
    co::task_group group{pool};
    group.spawn(park(), {.name = "t"});
    {
        co::leak_watchdog watchdog{pool, 1ms, [&](const co::task_info&) {
                                       inside = true;
                                       inside.notify_all();
                                       std::this_thread::sleep_for(20ms);  // long enough for a destructor not to wait
                                       over = true;
                                   }};
        inside.wait(false);
    }
    CHECK(over);
    group.request_stop();
    co::sync_wait(group.join());
}

TEST_CASE("a watchdog may be destroyed by a task on its executor's only thread", "[observe][leak_watchdog]") {
    co::thread_pool pool{1};
    co::task_group group{pool};
    std::optional<co::leak_watchdog> watchdog;
    std::atomic<int> calls{0};
    group.spawn(park(), {.name = "t"});
    watchdog.emplace(pool, 1ms, [&](const co::task_info&) { ++calls; });
    const auto ends_it = [&]() -> task<> {
        co_await co::sleep_for(5ms);
        watchdog.reset();
        calls = 0;
        co_await co::sleep_for(5ms);
        group.request_stop();
    };
    group.spawn(ends_it());
    co::sync_wait(group.join());
    CHECK(calls == 0);
}

TEST_CASE("an item that still waits in the queue outlives the watchdog, and does nothing", "[observe][leak_watchdog]") {
    co::run_loop loop;
    bool called = false;
    const auto owned = std::make_shared<int>();
    task_record* const old = task_record::open(false, "t", {}, nullptr, 0);
    {
        const co::leak_watchdog watchdog{loop, 1ms, [&, owned](const co::task_info&) { called = true; }};
        CHECK(owned.use_count() == 2);
    }
    CHECK(owned.use_count() == 2);
    while (loop.poll()) {}
    CHECK(owned.use_count() == 1);
    CHECK_FALSE(called);
    old->close();
}

TEST_CASE("a timer that fires before the run has gone on does not run twice, nor is it lost",
          "[observe][leak_watchdog]") {
    by_hand host;
    const auto owned = std::make_shared<int>();
    {
        const co::leak_watchdog watchdog{host, 1ms, [owned](const co::task_info&) {}};
        host.on_arm = [](by_hand& h) { h.fire(); };  // as if another thread had been faster
        for (int i = 0; i < 3; ++i) {
            co::work_item* const item = std::exchange(host.item, nullptr);
            REQUIRE(item != nullptr);
            item->run(*item);
        }
        CHECK(host.item != nullptr);
        CHECK(host.armed == nullptr);
    }
    host.item->run(*host.item);
    CHECK(owned.use_count() == 1);
}

#endif

TEST_CASE("a watchdog that waits is cancelled, and one whose age is nothing is refused", "[observe][leak_watchdog]") {
    by_hand host;
    {
        const co::leak_watchdog watchdog{host, 1ms, [](const co::task_info&) {}};
        host.item->run(*host.item);
        CHECK(host.armed != nullptr);
    }
    CHECK(host.armed == nullptr);
    CHECK(host.cancelled == 1);

    const auto ignore = [](const co::task_info&) {};
    CHECK_THROWS_AS((co::leak_watchdog{host, 0ms, ignore}), std::invalid_argument);
    CHECK_THROWS_AS((co::leak_watchdog{host, -1ns, ignore}), std::invalid_argument);
    CHECK_THROWS_AS((co::leak_watchdog{co::executor_ref(), 1ms, ignore}), std::invalid_argument);
    CHECK_NOTHROW((co::leak_watchdog{co::executor_ref(host), co::clock::duration::max(), ignore}));
    host.item->run(*host.item);
}
