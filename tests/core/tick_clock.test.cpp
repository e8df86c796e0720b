// SPDX-License-Identifier: MIT
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <limits>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::clock;
using co::detail::quick_error;
using co::detail::quick_now;
using co::detail::tick_rate;
using co::detail::time_left;

/// A processor whose counter can be turned, and one thread that reads it.
struct machine {
    std::int64_t ns = 5'000'000'000;
    std::uint64_t ticks = 12'345'678'901;
    double ticks_per_ns = 2.6;
    tick_rate known;

    void pass(std::chrono::nanoseconds d) {
        ns += d.count();
        ticks += static_cast<std::uint64_t>(static_cast<double>(d.count()) * ticks_per_ns);
    }
    /// Both clocks are read, and the steady one takes 20 ns.
    void look(std::chrono::nanoseconds takes = 20ns) {
        const std::uint64_t before = ticks;
        pass(takes);
        known.see(before, ns, ticks);
    }
    bool knows() const { return known.knows(ticks); }
    std::int64_t error() const { return known.at(ticks) - ns; }
    void learn() {
        for (int i = 0; i < 3; ++i) {
            look();
            pass(2ms);
        }
        look();
    }
};

}  // namespace

TEST_CASE("the time at a count is known once two measured rates agree, for two milliseconds", "[core][tick_clock]") {
    machine m;
    CHECK_FALSE(m.knows());
    m.look();
    m.pass(2ms);
    CHECK_FALSE(m.knows());
    m.look();
    CHECK_FALSE(m.knows());  // a rate, but only one
    m.pass(2ms);
    m.look();
    for (int i = 0; i < 199; ++i) {
        REQUIRE(m.knows());
        REQUIRE(m.error() >= -170);
        REQUIRE(m.error() <= -30);
        m.pass(10us);
    }
    m.pass(10us);
    CHECK_FALSE(m.knows());
    m.look();
    CHECK(m.knows());
}

TEST_CASE("looks that follow each other closely measure no rate, and take none away", "[core][tick_clock]") {
    machine m;
    for (int i = 0; i < 100; ++i) {
        m.look();
        m.pass(1us);
    }
    CHECK_FALSE(m.knows());
    m.learn();
    m.look();
    m.pass(100us);
    m.look();
    CHECK(m.knows());
    CHECK(m.error() >= -170);
    CHECK(m.error() <= -30);
}

TEST_CASE("a counter that jumps or counts at another speed is not believed before it is steady again",
          "[core][tick_clock]") {
    machine m;
    m.learn();
    REQUIRE(m.knows());
    SECTION("ahead") { m.ticks += 1'000'000'000; }
    SECTION("back") { m.ticks -= 1'000'000; }
    SECTION("to zero") { m.ticks = 0; }
    SECTION("faster") {
        m.pass(1900us);
        m.ticks_per_ns = 3.1;
        m.pass(400us);
    }
    SECTION("not at all, and on") { m.ns += 3'000'000'000; }
    if (m.knows()) m.pass(2ms);  // it held until then
    CHECK_FALSE(m.knows());
    m.look();
    if (m.knows()) {  // the jump was as long as a measured time, by the speed from before
        CHECK(m.error() >= -1000);
        CHECK(m.error() <= 1000);
    }
    for (int i = 0; i < 3; ++i) {
        m.pass(2ms);
        m.look();
        if (m.knows()) {
            CHECK(m.error() >= -1000);
            CHECK(m.error() <= 1000);
        }
    }
    CHECK(m.knows());
}

TEST_CASE("a counter that goes back and comes by the same counts again is not believed there", "[core][tick_clock]") {
    machine m;
    m.learn();
    m.pass(600us);
    m.ticks -= 26'000'000;  // 10 ms
    REQUIRE_FALSE(m.knows());
    m.look();  // too soon to measure another rate
    for (int i = 0; i < 200; ++i) {
        m.pass(100us);
        if (m.knows()) {
            CHECK(m.error() >= -1000);
            CHECK(m.error() <= 1000);
        }
    }
}

TEST_CASE("a count and a time that were not read together say nothing, and where they never are it gives up",
          "[core][tick_clock]") {
    machine m;
    m.learn();
    m.look(1ms);  // set aside between the two
    CHECK_FALSE(m.knows());
    CHECK_FALSE(m.known.hopeless());
    m.pass(1ms);
    m.look();
    CHECK(m.knows());
    CHECK(m.error() <= 0);

    machine slow;  // its steady clock is a call of the system
    for (int i = 0; i < tick_rate::patience; ++i) {
        CHECK_FALSE(slow.known.hopeless());
        slow.look(300ns);
        slow.pass(2ms);
        CHECK_FALSE(slow.knows());
    }
    CHECK(slow.known.hopeless());
}

TEST_CASE("the quick clock lies between two readings of the steady one", "[core][tick_clock]") {
    const clock::time_point end = clock::now() + 30ms;
    for (clock::time_point before = clock::now(); before < end;) {
        const clock::time_point quick = quick_now(), after = clock::now();
        REQUIRE(quick >= before - quick_error);
        REQUIRE(quick <= after + quick_error);
        before = after;
    }
}

TEST_CASE("what is left to a time is nothing once the clock is there, and never nothing before", "[core][tick_clock]") {
    CHECK(time_left(clock::now()) == 0ns);
    CHECK(time_left(clock::time_point{}) == 0ns);
    CHECK(time_left((clock::time_point::min)()) == 0ns);
    CHECK(time_left(clock::now() - 1h) == 0ns);
    CHECK(time_left((clock::time_point::max)()) > 24h);
    const clock::time_point begin = clock::now();
    const clock::duration left = time_left(begin + 1h), passed = clock::now() - begin;
    CHECK(left <= 1h + 50ms);
    CHECK(left >= 1h - passed);
    const clock::time_point soon = clock::now() + 60ms;  // from ticks to the clock itself
    while (time_left(soon) != 0ns) REQUIRE(time_left(soon) <= 120ms);
    CHECK(clock::now() >= soon);
}

TEST_CASE("in a simulation the quick clock is the virtual one, and what is left is exact", "[core][tick_clock]") {
    const auto root = []() -> co::task<> {
        const clock::time_point begin = quick_now(), end = begin + 1h;
        CHECK(begin == clock::now());
        co_await co::sleep_for(1ns);
        CHECK(quick_now() == begin + 1ns);
        CHECK(time_left(end) == 1h - 1ns);
        co_await co::sleep_until(end - 1ns);
        CHECK(time_left(end) == 1ns);
        co_await co::sleep_until(end);
        CHECK(time_left(end) == 0ns);
    };
    co::testing::simulation().run(root());
}
