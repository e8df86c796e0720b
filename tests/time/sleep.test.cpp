// SPDX-License-Identifier: MIT
#include <cordon/time/sleep.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::explore_all;
using co::testing::simulation;
using nanoseconds = std::chrono::nanoseconds;

task<> sleep_and_note(co::clock::duration d, std::string& order, char name) {
    co_await co::sleep_for(d);
    order.push_back(name);
}

}  // namespace

TEST_CASE("nothing to wait for is over at once", "[time][sleep]") {
    const auto root = []() -> task<> {
        co_await co::sleep_for(0s);
        co_await co::sleep_for(-5s);
        co_await co::sleep_for(co::clock::duration::min());
        co_await co::sleep_until(co::clock::now());
        co_await co::sleep_until(co::clock::now() - 1h);
        co_await co::sleep_until(co::clock::time_point::min());
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a sleep ends at its time, to the nanosecond", "[time][sleep][T2]") {
    const auto root = []() -> task<> {
        for (const nanoseconds d : std::vector<nanoseconds>{1ns, 999ms, 1h, 24h * 365 * 100}) {
            auto begin = co::clock::now();
            co_await co::sleep_for(d);
            CHECK(co::clock::now() - begin == d);
            begin = co::clock::now();
            co_await co::sleep_until(begin + d);
            CHECK(co::clock::now() - begin == d);
        }
        const auto begin = co::clock::now();
        co_await co::sleep_for(std::chrono::duration<double, std::milli>(1.5));
        CHECK(co::clock::now() - begin == 1500us);
    };
    simulation().run(root());
}

TEST_CASE("a sleep is counted from the call, not from the await", "[time][sleep]") {
    const auto root = []() -> task<> {
        const auto begin = co::clock::now();
        auto later = co::sleep_for(3s);
        co_await co::sleep_for(2s);
        co_await std::move(later);
        CHECK(co::clock::now() - begin == 3s);
        auto overdue = co::sleep_for(1s);
        co_await co::sleep_for(2s);
        co_await std::move(overdue);
        CHECK(co::clock::now() - begin == 5s);
    };
    simulation().run(root());
}

TEST_CASE("what the clock cannot hold is slept for ever, and can be stopped", "[time][sleep]") {
    const auto root = []() -> task<> {
        for (const bool saturates : {true, false}) {
            const auto begin = co::clock::now();
            const auto sleeps = [&]() -> task<> {
                if (saturates) co_await co::sleep_for(std::chrono::hours::max());
                else co_await co::sleep_until(co::clock::time_point::max());
            };
            auto ended = co_await co::as_outcome(co::with_timeout(1h, sleeps()));
            CHECK(ended.is_error());
            CHECK(co::clock::now() - begin == 1h);
        }
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("sleepers of the same time go on in the order in which they began", "[time][sleep]") {
    std::string order;
    std::vector<co::testing::choice> always_the_first;
    simulation sim(always_the_first);
    const auto root = [&]() -> task<> {
        co_await co::when_all(sleep_and_note(2ms, order, 'x'), sleep_and_note(1ms, order, 'a'),
                              sleep_and_note(1ms, order, 'b'), sleep_and_note(1ms, order, 'c'));
    };
    sim.run(root());
    CHECK(order == "abcx");
}

TEST_CASE("a stop ends a sleep at once and takes its timer along", "[time][sleep]") {
    const auto root = []() -> task<> {
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto begin = co::clock::now();
        const auto stops = [&]() -> task<> {
            co_await co::sleep_for(1s);
            CHECK(simulation::current()->armed_timers() == 1);
            scope.request_stop();
        };
        const auto sleeps = [&]() -> task<> {
            auto ended = co_await co::as_outcome(co::sleep_for(1h).with(scope.ctx()));
            CHECK(ended.is_stopped());
            CHECK(co::clock::now() - begin == 1s);
            CHECK(simulation::current()->armed_timers() == 0);
            auto again = co_await co::as_outcome(co::sleep_for(1h).with(scope.ctx()));
            CHECK(again.is_stopped());
            auto at_once = co_await co::as_outcome(co::sleep_for(0s).with(scope.ctx()));
            CHECK(at_once.has_value());
        };
        co_await co::when_all(sleeps(), stops());
        CHECK(co::clock::now() - begin == 1s);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a sleep that ends as it is stopped ends once, either way", "[time][sleep]") {
    int woken = 0, stopped = 0;
    const auto root = [&]() -> task<> {
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto stops = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            scope.request_stop();
        };
        const auto sleeps = [&]() -> task<> {
            auto ended = co_await co::as_outcome(co::sleep_for(1ms).with(scope.ctx()));
            ++(ended.has_value() ? woken : stopped);
        };
        co_await co::when_all(stops(), sleeps());
    };
    const auto all = explore_all(10'000, root, [] { return true; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(woken > 0);  // due at the same time, it has its value before the other task can stop it
    CHECK(stopped == 0);
    CHECK(static_cast<std::uint64_t>(woken) == all.schedules);
}

TEST_CASE("a deadline ends a sleep that would be longer, and not one that is shorter", "[time][sleep]") {
    const auto root = []() -> task<> {
        const auto begin = co::clock::now();
        auto longer = co_await co::as_outcome(co::with_timeout(1s, co::sleep_for(2s)));
        CHECK(longer.is_error());
        CHECK(co::clock::now() - begin == 1s);
        auto shorter = co_await co::as_outcome(co::with_timeout(2s, co::sleep_for(1s)));
        CHECK(shorter.has_value());
        CHECK(co::clock::now() - begin == 2s);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a dump says that a task sleeps, and where", "[time][sleep]") {
    const auto root = []() -> task<> {
        const auto body = [](co::task_group& group) -> task<> {
            const auto sleeps = []() -> task<> { co_await co::sleep_for(5s); };
            group.spawn(sleeps, {.name = "sleeper"});
            co_await co::sleep_for(3s);
            std::string dump;
            for (const co::task_info& child : group.children()) dump += describe(child);
            CHECK(says(dump, "\"sleeper\"", "alive 3000 ms", "sleep.test.cpp", "   sleep"));
        };
        co_await co::with_group(body);
    };
    simulation().run(root());
}

TEST_CASE("sleeping without an executor says that nobody would wake it", "[time][sleep]") {
    const std::string words = last_words([] {
        const auto sleeps = [](const co::context& none) -> task<> { co_await co::sleep_for(1s).with(none); };
        const co::context none;
        co::sync_wait(sleeps(none));
    });
    CHECK(says(words, "sleeping in a context without an executor"));
}

TEST_CASE("in real time a loop sleeps at least as long as it says", "[time][sleep][T16]") {
    // Real sleeps, of a few milliseconds: what is tested is the loop's own waiting.
    const auto root = []() -> task<nanoseconds> {
        const auto begin = co::clock::now();
        std::string order;
        co_await co::when_all(sleep_and_note(3ms, order, 'b'), sleep_and_note(1ms, order, 'a'), co::sleep_for(0s));
        CHECK(order == "ab");
        co_return co::clock::now() - begin;
    };
    CHECK(co::sync_wait(root()) >= 3ms);

    SECTION("and a stop from another thread ends it early") {
        co::run_loop loop;
        co::cancel_scope scope{co::executor_ref(loop)};
        bool stopped = false;
        const auto sleeps = []() -> task<> { co_await co::sleep_for(1h); };
        co::start_on(scope.ctx(), sleeps, [&](const co::outcome<void>& ended) {
            stopped = ended.is_stopped();
            loop.stop();
        });
        std::thread stopper([&] { scope.request_stop(); });
        loop.run();
        stopper.join();
        CHECK(stopped);
    }
}

TEST_CASE("sleeps can be stopped at any point and leave nothing", "[time][sleep][cancel_sweep][T7]") {
    const auto root = []() -> task<> {
        std::string order;
        co_await co::when_all(sleep_and_note(1ms, order, 'a'), sleep_and_note(1ms, order, 'b'),
                              sleep_and_note(1h, order, 'c'));
        co_await co::sleep_for(1ns);
    };
    const auto swept = co::testing::cancel_sweep({.fail_awaits = true}, root);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
}
