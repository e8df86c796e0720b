// SPDX-License-Identifier: MIT
#include <cordon/limit/load_shedder.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::load_shedder;
using co::task;
using co::testing::simulation;

static_assert(co::reportable<load_shedder>);

bool admits(load_shedder& s, const fake_clock& clock, co::clock::duration waited) {
    return bool(s.try_acquire(clock.now() - waited));
}

}  // namespace

TEST_CASE("a queue in which somebody waits little is good, however long others wait", "[limit][load_shedder]") {
    fake_clock clock;
    load_shedder door;
    for (int interval = 0; interval < 20; ++interval) {
        for (int i = 0; i < 10; ++i, clock.advance(10ms)) CHECK(admits(door, clock, i == 4 ? 5ms : 80ms));
        CHECK_FALSE(door.stats().overloaded);
    }
    CHECK(door.stats().admitted == 200);
    CHECK(door.stats().least_wait == 5ms);
}

TEST_CASE("when all have waited longer than the target for an interval, those who waited twice as long are refused",
          "[limit][load_shedder][LS-01][LS-02]") {
    fake_clock clock;
    load_shedder door({.name = "door", .target = 5ms, .interval = 100ms});
    for (int i = 0; i < 10; ++i, clock.advance(10ms)) CHECK(admits(door, clock, 5ms + 1ns));
    CHECK_FALSE(admits(door, clock, 11ms));  // the first of the next interval
    CHECK(door.stats().overloaded);
    CHECK(admits(door, clock, 10ms));
    CHECK_FALSE(admits(door, clock, 10ms + 1ns));
    CHECK(admits(door, clock, 5ms));
    CHECK_FALSE(door.try_acquire(co::clock::time_point::min()));
    CHECK(door.stats().rejected == 3);
    clock.advance(100ms);
    CHECK(admits(door, clock, 1h));  // one of the last interval waited 5 ms: it does not stand any more
    CHECK_FALSE(door.stats().overloaded);
    CHECK(door.stats().least_wait == 5ms);
}

TEST_CASE("a queue stands from an interval after the last who waited no longer than the target, at any rate",
          "[limit][load_shedder][LS-05]") {
    for (const co::clock::duration every : {1ms, 9ms, 33ms}) {
        fake_clock clock;
        load_shedder door({.target = 5ms, .interval = 100ms});
        for (int i = 0; i < 50; ++i, clock.advance(every)) CHECK(admits(door, clock, 5ms));
        const auto begin = clock.now();
        for (; clock.now() - begin < 100ms; clock.advance(every)) CHECK(admits(door, clock, 11ms));
        CHECK_FALSE(admits(door, clock, 11ms));
        CHECK(door.stats().least_wait == 11ms);
    }
}

TEST_CASE("one request in an interval is no queue, however long it has waited", "[limit][load_shedder][LS-03]") {
    fake_clock clock;
    load_shedder door({.target = 5ms, .interval = 100ms});
    for (int i = 0; i < 20; ++i, clock.advance(110ms)) CHECK(admits(door, clock, 1s));
    CHECK_FALSE(door.stats().overloaded);
}

TEST_CASE("a pause is no queue that stands, and what comes from the future has not waited", "[limit][load_shedder]") {
    fake_clock clock;
    load_shedder door;
    for (int i = 0; i < 20; ++i, clock.advance(10ms)) (void)admits(door, clock, 8ms);
    CHECK(door.stats().overloaded);
    clock.advance(250ms);
    CHECK(admits(door, clock, 1h));
    CHECK_FALSE(door.stats().overloaded);
    CHECK(admits(door, clock, -1h));
}

TEST_CASE("behind a pipeline it measures one trip around the loop, or since `arrived`", "[limit][load_shedder]") {
    simulation sim;
    sim.run([]() -> task<> {
        load_shedder door({.name = "door", .target = 1ms, .interval = 10ms});
        int calls = 0;
        const auto call = [&]() -> task<int> { co_return ++calls; };
        const auto guarded = co::pipeline(door);
        const int first = co_await guarded(call);
        CHECK(first == 1);
        CHECK(door.stats().admitted == 1);
        for (int i = 0; i < 30; ++i) {
            const auto since = co::clock::now() - 5ms;
            (void)co_await as_outcome(co::with(guarded(call), co::arrived(since)));
            co_await co::sleep_for(1ms);
        }
        CHECK(door.stats().overloaded);
        const int before = calls;
        const auto old = co::clock::now() - 1s;
        const auto refused = co_await as_outcome(co::with(guarded(call), co::arrived(old)));
        REQUIRE(refused.is_rejected());
        CHECK(refused.rejection().reason == co::reject_reason::full);
        CHECK(refused.rejection().who() == "door");
        CHECK(calls == before);
        const auto p = co_await door.admission();  // the loop is fast
        CHECK(p);
    });
}

TEST_CASE("at ten times the capacity those who are served are served soon, and the capacity is used",
          "[limit][load_shedder]") {
    struct result {
        int served_in_time = 0;
        co::clock::duration longest{0};
    };
    // One server that takes 1 ms for each; a caller gives up after 50 ms.
    const auto surge = [](load_shedder* door) {
        result r;
        simulation sim;
        sim.run([&]() -> task<> {
            co::async_semaphore server{1, {.name = "server"}};
            const auto one = [&]() -> task<> {
                const auto arrived = co::clock::now();
                const auto turn = co_await server.hold();
                if (door != nullptr && !door->try_acquire(arrived)) co_return;
                co_await co::sleep_for(1ms);
                const auto took = co::clock::now() - arrived;
                if (took <= 50ms) ++r.served_in_time;
                r.longest = (std::max)(r.longest, took);
            };
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 10'000; ++i) {
                    group.spawn(one());
                    co_await co::sleep_for(100us);
                }
            };
            co_await co::with_group(body);
        });
        return r;
    };
    load_shedder door({.target = 5ms, .interval = 100ms});
    const result with = surge(&door), without = surge(nullptr);
    CHECK(with.served_in_time >= 900);  // of a thousand; half of the first interval is lost
    CHECK(with.longest <= 105ms);       // an interval, and what a service takes
    CHECK(without.longest > 5s);
    CHECK(without.served_in_time < 100);
}

TEST_CASE("a call behind a shedder can be stopped at any point, and counts once it is let through",
          "[limit][load_shedder][cancel_sweep][T7]") {
    struct world {
        load_shedder door{{.target = 1ms, .interval = 2ms}};
        std::uint64_t made = 0, refused = 0;
    };
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in) -> task<> {
            const auto guarded = co::pipeline(in->door);
            const auto call = [&]() -> task<> {
                ++in->made;
                co_await co::sleep_for(1ms);
            };
            const auto late = [&]() -> task<> {
                const auto ended = co_await as_outcome(co::with(guarded(call), co::arrived(co::clock::now() - 1h)));
                if (ended.is_rejected()) ++in->refused;
            };
            for (int i = 0; i < 4; ++i) co_await late();
            co_await guarded(call);
        }(w);
    };
    const auto check = [&](const auto&, const co::testing::sweep_point& at) {
        const auto s = w->door.stats();
        if (at.variant == co::testing::sweep_variant::baseline && (s.admitted < 3 || s.rejected == 0)) return false;
        return s.admitted == w->made && s.rejected == w->refused;
    };
    const auto swept = co::testing::cancel_sweep({.fail_awaits = true}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(swept.points > 5);
}

TEST_CASE("a shedder says what is wrong with its numbers, and can be changed",
          "[limit][load_shedder][observable][LS-04]") {
    CHECK_THROWS_WITH(load_shedder({.target = 0s}), "load_shedder: target is 0 ns, allowed is more than 0");
    CHECK_THROWS_WITH(load_shedder({.target = 5ms, .interval = 5ms}),
                      "load_shedder: interval is 5000000 ns, allowed is more than target, 5000000 ns, to a day");
    load_shedder door({.name = "door"});
    CHECK_THROWS_AS(door.set(1s, 1ms), std::invalid_argument);
    door.set(1ms, 10ms);
    fake_clock clock;
    for (int i = 0; i < 11; ++i, clock.advance(1ms)) (void)admits(door, clock, 2ms);
    CHECK(door.stats().overloaded);
    CHECK_FALSE(admits(door, clock, 3ms));
    door.set(2ms, 10ms);
    CHECK(admits(door, clock, 3ms));
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    door.report(sink);
    CHECK(names == "admitted rejected overloaded least_wait_seconds ");
    CHECK(door.name() == "door");
}
