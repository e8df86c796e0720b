// SPDX-License-Identifier: MIT
#include <cordon/limit/rate.hpp>

#include <cordon/limit/detail/gcra.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::rate;
using co::detail::gcra;
using co::detail::uint128;

constexpr std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();

template <class F>
std::string refused(F f) {
    try {
        f();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("an interval becomes the rate of one event in it, and none or less has no limit", "[limit][rate][RL-01]") {
    CHECK(co::every(0s).is_unlimited());
    CHECK(co::every(-1s).is_unlimited());
    CHECK(co::every(1ns) == co::per_second(1'000'000'000));
    CHECK(co::every(100ms) == co::per_second(10));
    CHECK(co::every(30s) == rate(1, 30s));
    CHECK(co::every(30s) == co::per_minute(2));
    CHECK(co::every(std::chrono::duration<double>(0.5)) == co::per_second(2));
}

TEST_CASE("rates are equal if they admit the same, and ordered by how much", "[limit][rate]") {
    STATIC_REQUIRE(co::per_second(1) == co::per_minute(60));
    STATIC_REQUIRE(co::per_hour(60) == co::per_minute(1));
    STATIC_REQUIRE(rate{} == rate::zero());
    CHECK(rate(0, 5s) == rate::zero());
    CHECK(rate(0, 0s) == rate::zero());
    CHECK(rate(7, 0s) == rate::unlimited());
    CHECK(co::per_minute(7) < co::per_minute(8));
    CHECK(co::per_second(1) > co::per_minute(59));
    CHECK(rate::zero() < co::every(std::chrono::hours(24 * 365)));
    CHECK(co::per_second(largest) < rate::unlimited());
    CHECK(co::per_second(30).events() == 3);
    CHECK(co::per_second(30).period() == 100ms);
    CHECK(co::per_second(0).is_zero());
}

TEST_CASE("a negative number of events is refused by name, value and range", "[limit][rate]") {
    CHECK(refused([] { (void)co::per_second(-3); }) == "rate: events is -3, allowed are 0 and more");
    CHECK(refused([] { (void)co::per_second(0); }).empty());
}

TEST_CASE("a period that the clock cannot hold is cut", "[limit][rate]") {
    const rate r = co::every(std::chrono::hours(24 * 365 * 317));  // 1e-10 per second
    CHECK(r.period() == std::chrono::nanoseconds::max());
    CHECK(r > rate::zero());
}

TEST_CASE("times and units agree to the nanosecond, whatever the rate", "[limit][rate][RL-40][RL-76]") {
    std::mt19937_64 random(7);
    const auto some = [&] { return random() >> random() % 64; };
    for (int i = 0; i < 20'000; ++i) {
        const rate r(some(), std::chrono::nanoseconds(static_cast<std::int64_t>(some() >> 1)));
        const std::uint64_t burst = some();
        const gcra g(r, burst);
        INFO("events " << r.events() << ", period " << r.period().count() << ", burst " << burst);
        REQUIRE(g.burst == std::min(burst, gcra::largest_window));
        if (r.is_unlimited()) {
            REQUIRE(g.cost == 0);
            continue;
        }
        REQUIRE(g.cost > 0);
        REQUIRE(g.window <= gcra::largest_window);
        REQUIRE(uint128{g.cost} * g.burst == g.window);
        if (r.is_zero()) continue;
        REQUIRE(uint128{g.reach} * g.multiplier >> g.shift <= 2 * gcra::largest_window);
        // Never more than the rate says: cost / multiplier << shift is at least period / events.
        const uint128 cost = uint128{g.cost} << g.shift;
        const auto period = static_cast<std::uint64_t>(r.period().count());
        if (g.shift < 60) REQUIRE(cost / g.multiplier >= period / r.events());
        const std::uint64_t ns = random() % (g.reach + 1);
        const std::uint64_t u = g.units(ns);
        REQUIRE(g.ns_at(u) <= ns);
        REQUIRE(u == g.far_units(ns));
        const std::uint64_t later = u + random() % gcra::largest_window, then = g.ns_at(later);
        if (then == gcra::never || then > g.reach) continue;
        REQUIRE(g.units(then) >= later);
        if (then > 0) REQUIRE(g.units(then - 1) < later);
    }
}

TEST_CASE("usual rates are counted without any rounding", "[limit][rate]") {
    for (const rate r : {co::per_second(1000), co::per_second(7), co::per_minute(7), co::per_second(999'983),
                         co::per_hour(13), co::every(3ns), co::per_second(3'000'000'000)}) {
        const gcra g(r, 1'000);
        CHECK(g.shift == 0);
        CHECK(uint128{g.cost} * r.events() == uint128{g.multiplier} * static_cast<std::uint64_t>(r.period().count()));
    }
    const gcra odd(co::per_second(1'000'000'001), 5);  // less than 1/1024 ns too slow
    CHECK(odd.multiplier == 1024);
    CHECK(odd.cost == 1024);
}
