// SPDX-License-Identifier: MIT
#include <cordon/run/run_blocking.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::run_blocking;

namespace {

std::thread::id here() { return std::this_thread::get_id(); }

/// Waits, as blocking code does, until it is asked to stop.
void wait_for_stop(std::stop_token stop) {
    std::mutex m;
    std::condition_variable_any never;
    std::unique_lock lock(m);
    never.wait(lock, stop, [] { return false; });
}

/// What lives now and is called `name`.
std::vector<co::task_info> called(std::string_view name) {
    std::vector<co::task_info> all = co::live_tasks();
    std::erase_if(all, [name](const co::task_info& t) { return t.name != name; });
    return all;
}

}  // namespace

TEST_CASE("a function runs there, and the task goes on where it came from", "[run][run_blocking]") {
    co::thread_pool pool(1);
    const auto goes = [&]() -> co::task<> {
        const auto mine = here();
        const auto there = co_await run_blocking(pool, [] { return here(); });
        CHECK(there != mine);
        CHECK(here() == mine);
        const auto again = co_await run_blocking(pool, here);
        CHECK(again == there);
    };
    co::sync_wait(goes());
    CHECK(co::sync_wait(run_blocking(pool, [](std::stop_token) { return 3; })) == 3);
    const auto on_the_pool = [&]() -> co::task<bool> {
        const bool counts = co_await run_blocking(pool, [&] { return pool.is_current(); });
        co_return !counts && pool.is_current();
    };
    CHECK(co::sync_wait(co::on(pool, on_the_pool)));
}

TEST_CASE("a function may give a value, a reference, something that only moves, or nothing", "[run][run_blocking]") {
    co::thread_pool pool(1);
    static int one = 1;
    const auto goes = [&]() -> co::task<> {
        static_assert(std::is_same_v<decltype(run_blocking(pool, []() -> int& { return one; }))::value_type, int&>);
        const auto gives_away = []() -> int&& { return std::move(one); };
        static_assert(std::is_same_v<decltype(run_blocking(pool, gives_away))::value_type, int>);
        static_assert(std::is_same_v<decltype(run_blocking(pool, [] {}))::value_type, void>);
        int& same = co_await run_blocking(pool, []() -> int& { return one; });
        CHECK(&same == &one);
        int& moved = one;
        const int taken = co_await run_blocking(pool, [&]() -> int&& { return std::move(moved); });
        CHECK(taken == 1);
        const auto owned = co_await run_blocking(pool, [] { return std::make_unique<int>(5); });
        CHECK(*owned == 5);
        bool ran = false;
        co_await run_blocking(pool, [&] { ran = true; });
        CHECK(ran);
        const std::string text = co_await run_blocking(pool, [] { return std::string(100, 'x'); });
        CHECK(text.size() == 100);
    };
    co::sync_wait(goes());
}

TEST_CASE("a named function is used where it is, a temporary one is kept", "[run][run_blocking]") {
    co::thread_pool pool(1);
    struct counts {
        int calls = 0;
        int operator()() { return ++calls; }
    };
    const auto goes = [&]() -> co::task<> {
        counts named;
        int n = co_await run_blocking(pool, named);
        n += co_await run_blocking(pool, named);
        CHECK(n == 3);
        CHECK(named.calls == 2);
        const int once = co_await run_blocking(pool, counts());
        CHECK(once == 1);
        const auto moves_only = [p = std::make_unique<int>(7)] { return *p; };
        const int seven = co_await run_blocking(pool, moves_only);
        CHECK(seven == 7);
    };
    co::sync_wait(goes());
}

TEST_CASE("errors come back, a canceled is a stop again, and a rejected a refusal", "[run][run_blocking]") {
    co::thread_pool pool(1);
    const auto goes = [&]() -> co::task<> {
        const auto mine = here();
        const auto fails = []() -> int { throw std::out_of_range("there"); };
        const auto error = co_await co::as_outcome(run_blocking(pool, fails));
        CHECK(error.is_error());
        CHECK_THROWS_AS(error.value(), std::out_of_range);
        const auto refused = co_await co::as_outcome(
            run_blocking(pool, [] { throw co::rejected(co::rejection(co::reject_reason::full, "disk")); }));
        REQUIRE(refused.is_rejected());
        CHECK(refused.rejection().who() == "disk");
        const auto stopped = co_await co::as_outcome(run_blocking(pool, [] { throw co::canceled(); }));
        CHECK(stopped.is_stopped());
        const auto foreign = co_await co::as_outcome(run_blocking(pool, [] { throw 5; }));
        CHECK(foreign.is_error());
        CHECK(here() == mine);
    };
    co::sync_wait(goes());
    CHECK_THROWS_AS(co::sync_wait(run_blocking(pool, [] { throw co::canceled(); })), co::canceled);
}

TEST_CASE("its token is stopped with the awaiting context, by a deadline or a request, and it is waited for",
          "[run][run_blocking]") {
    co::thread_pool pool(1);
    const auto goes = [&]() -> co::task<> {
        const auto mine = here();
        std::atomic<bool> begun{false}, left{false};
        const auto waits = [&](std::stop_token stop) {
            begun = true;
            wait_for_stop(stop);
            left = true;
            throw co::canceled();
        };
        while (!begun) {  // on a busy machine the deadline may pass before it begins
            const auto late = co_await co::as_outcome(co::with_timeout(1ms, run_blocking(pool, waits)));
            CHECK(late.is_error());
            CHECK(left == begun);
            CHECK(here() == mine);
        }
        begun = left = false;
        const auto stops = [&](co::task_group& group) -> co::task<> {
            const auto child = [&]() -> co::task<> { co_await run_blocking(pool, waits); };
            group.spawn(child);
            while (!begun) co_await co::sleep_for(100us);
            group.request_stop();
        };
        const auto stopped = co_await co::as_outcome(co::with_group(stops));
        (void)stopped;
        CHECK(left);
    };
    co::sync_wait(goes());
}

TEST_CASE("a value that a function gives although it was stopped is not lost", "[run][run_blocking]") {
    co::thread_pool pool(1);
    const auto goes = [&]() -> co::task<> {
        std::atomic<bool> begun{false};
        const auto finishes = [&](std::stop_token stop) {
            begun = true;
            wait_for_stop(stop);
            return 5;
        };
        while (!begun) {  // as above
            const auto value = co_await co::as_outcome(co::with_timeout(1ms, run_blocking(pool, finishes)));
            CHECK(value.has_value() == begun);
        }
        begun = false;
        const auto fails = [&](std::stop_token stop) {
            begun = true;
            wait_for_stop(stop);
            throw std::runtime_error("half written");
        };
        while (!begun) {
            const auto error = co_await co::as_outcome(co::with(run_blocking(pool, fails), co::within(1ms)));
            if (begun) CHECK_THROWS_WITH(error.value(), "half written");
        }
    };
    co::sync_wait(goes());
}

TEST_CASE("stopped before it begins, a function is not called", "[run][run_blocking]") {
    co::thread_pool pool(1);
    const auto goes = [&]() -> co::task<> {
        bool called = false;
        const auto f = [&] { called = true; };
        co::cancel_scope stopped(*co_await co::this_task::context());
        stopped.request_stop();
        const auto before = co_await co::as_outcome(run_blocking(pool, f).with(stopped.ctx()));
        CHECK(before.is_stopped());
        CHECK_FALSE(called);

        // Stopped while it waits for the only thread.
        co::cancel_scope queued(*co_await co::this_task::context());
        const auto holds = [&] {
            while (!queued.stop_requested()) std::this_thread::yield();
        };
        const auto stops = [&]() -> co::task<> {
            queued.request_stop();
            co_return;
        };
        const auto both = co_await co::when_all(run_blocking(pool, holds),
                                                co::as_outcome(run_blocking(pool, f).with(queued.ctx())), stops());
        CHECK(std::get<1>(both).is_stopped());
        CHECK_FALSE(called);
    };
    co::sync_wait(goes());
}

TEST_CASE("inside a function the thread may block: sync_wait and the blocking faces are allowed",
          "[run][run_blocking]") {
    co::thread_pool pool(1);
    co::async_semaphore slots(1, {.name = "slots"});
    co::completion<int> done;
    const auto goes = [&]() -> co::task<> {
        const auto blocks = [&](std::stop_token stop) {
            if (!slots.acquire_blocking(stop)) return 0;
            slots.release();
            const auto waits = []() -> co::task<int> {
                co_await co::sleep_for(100us);
                co_return 1;
            };
            done.set_value(co::sync_wait(waits()));
            return done.wait_blocking().value() + 1;
        };
        const int n = co_await run_blocking(pool, blocks);
        CHECK(n == 2);
        bool refused = false;
        try {
            (void)slots.acquire_blocking();
        } catch (const std::logic_error&) {
            refused = true;
        }
        CHECK(refused);
    };
    co::sync_wait(goes());
}

TEST_CASE("a dump shows the task as waiting for run_blocking, with its place", "[run][run_blocking]") {
    co::thread_pool pool(1);
    std::optional<co::task_info> during, after;
    const auto goes = [&](co::task_group& group) -> co::task<> {
        const auto child = [&]() -> co::task<> {
            const auto looks = [&] {
                const auto found = called("reader");
                if (!found.empty()) during = found.front();
            };
            const auto line = std::source_location::current().line() + 1;
            co_await run_blocking(pool, looks);
            CHECK(during.has_value());
            if (during && !during->waits.empty()) CHECK(during->waits.back().line() == line);
            const auto found = called("reader");
            if (!found.empty()) after = found.front();
        };
        group.spawn(child, {.name = "reader"});
        co_await group.join();
    };
    co::sync_wait(co::with_group(goes));
#if CORDON_TASK_RECORDS
    REQUIRE(during.has_value());
    CHECK(during->state == co::task_info::activity::suspended);
    CHECK(during->waits_for == "run_blocking");
    REQUIRE(after.has_value());
    CHECK(after->state == co::task_info::activity::running);
#endif
}

TEST_CASE("inside a simulation a function is called by the simulation, as a step of its own", "[run][run_blocking]") {
    co::thread_pool pool(1);
    co::testing::simulation sim;
    const auto goes = [&]() -> co::task<> {
        const auto mine = here();
        std::vector<int> order;
        const auto other = [&]() -> co::task<> {
            order.push_back(1);
            co_return;
        };
        const auto called_there = [&]() -> co::task<> {
            const auto there = co_await run_blocking(pool, [&] {
                order.push_back(2);
                return here();
            });
            CHECK(there == mine);
            order.push_back(3);
        };
        co_await co::when_all(called_there(), other());
        CHECK(order == std::vector<int>{1, 2, 3});
        const auto from = co::clock::now();
        const auto slow = co_await co::as_outcome(co::with_timeout(1h, run_blocking(pool, [](std::stop_token stop) {
                                                                        return stop.stop_requested();
                                                                    })));
        CHECK(slow.has_value());
        CHECK(co::clock::now() == from);
    };
    sim.run(goes());
}

TEST_CASE("many functions block at the same time, each on a thread of the pool", "[run][run_blocking]") {
    co::thread_pool pool(4);
    std::atomic<int> inside{0};
    const auto goes = [&](co::task_group& group) -> co::task<> {
        const auto child = [&]() -> co::task<> {
            co_await run_blocking(pool, [&] {
                ++inside;
                while (inside < 4) std::this_thread::yield();  // until all four are here
            });
        };
        for (int i = 0; i < 4; ++i) group.spawn(child);
        co_return;
    };
    co::sync_wait(co::with_group(goes));
    CHECK(inside == 4);
}

TEST_CASE("a loop's thread can be the one that blocks", "[run][run_blocking]") {
    co::run_loop disk;
    std::thread thread([&] { disk.run(); });
    const auto id = thread.get_id();
    CHECK(co::sync_wait(run_blocking(disk, here)) == id);
    disk.stop();
    thread.join();
}
