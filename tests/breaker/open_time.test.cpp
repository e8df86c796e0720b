// SPDX-License-Identifier: MIT
#include <cordon/breaker/open_time.hpp>

#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "play.hpp"

#include <cstdint>
#include <limits>
#include <set>
#include <stdexcept>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace breaker_test;
namespace co = cordon;
using co::breaker_cause;
using co::breaker_event;
using co::breaker_state;
using co::last;
using co::last_calls;
using co::verdict;

}  // namespace

TEST_CASE("a growing time never exceeds its most, and stays where it does not fit", "[breaker][open_time]") {
    const auto grows = co::open_time::growing(5s, 60s, {.factor = 2, .jitter = 0});
    std::vector<co::clock::duration> times;
    for (std::uint32_t i = 0; i < 6; ++i) times.push_back(grows({.attempt = i}));
    CHECK(times == std::vector<co::clock::duration>{5s, 10s, 20s, 40s, 60s, 60s});
    CHECK(grows({.attempt = std::numeric_limits<std::uint32_t>::max()}) == 60s);
    const auto for_ever = co::open_time::growing(1s, std::chrono::hours::max(), {.factor = 10, .jitter = 1});
    CHECK(for_ever({.attempt = 1'000'000}) <= co::clock::duration::max());
    CHECK(for_ever({.attempt = 1'000'000}) >= 0s);
}

TEST_CASE("jitter differs from time to time and from seed to seed, repeats itself, and keeps to its part",
          "[breaker][open_time]") {
    const auto one = co::open_time::growing(10s, 60s, {.jitter = 0.2, .seed = 1});
    const auto two = co::open_time::growing(10s, 60s, {.jitter = 0.2, .seed = 2});
    std::set<co::clock::duration> seen;
    co::clock::duration least = 1h, most = 0s;
    for (int i = 0; i < 1'000; ++i) {
        const co::breaker_trip trip{.at = co::clock::time_point(std::chrono::microseconds(i))};
        const auto d = one(trip);
        CHECK(d == one(trip));
        seen.insert(d);
        seen.insert(two(trip));
        least = d < least ? d : least;
        most = d > most ? d : most;
        if (d < 8s || d > 12s) FAIL("outside of a fifth: " << d.count());
    }
    CHECK(seen.size() > 1'990);
    CHECK(least < 8'100ms);
    CHECK(most > 11'900ms);
    CHECK(one({.attempt = 20}) <= 60s);
}

TEST_CASE("how long a breaker was healthy is known once it was closed or reset", "[breaker][open_time]") {
    hand_clock clock;
    std::vector<co::clock::duration> healthy;
    const auto note = [&](const co::breaker_trip& t) {
        healthy.push_back(t.healthy_for);
        return co::clock::duration(1s);
    };
    circuit_breaker first({.consecutive_failures = 1, .open_for = note});
    circuit_breaker second({.consecutive_failures = 1, .open_for = note});
    second.reset();
    clock += 1min;
    play(first, "F");
    play(second, "F");
    CHECK(healthy == std::vector<co::clock::duration>{co::clock::duration::max(), 1min});
}

TEST_CASE("what a time is made of is checked", "[breaker][open_time]") {
    using co::open_time;
    CHECK(open_time(1s).fault() == nullptr);
    CHECK(open_time([](const co::breaker_trip&) { return 1s; }).fault() == nullptr);
    CHECK(open_time(0s).fault() != nullptr);
    CHECK(open_time(-1s).fault() != nullptr);
    CHECK(open_time::growing(2s, 1s).fault() != nullptr);
    CHECK(open_time::growing(1s, 1s, {.factor = 0.9}).fault() != nullptr);
    CHECK(open_time::growing(1s, 1s, {.factor = std::numeric_limits<double>::infinity()}).fault() != nullptr);
    CHECK(open_time::growing(1s, 1s, {.jitter = 1.1}).fault() != nullptr);
    CHECK(open_time::growing(1s, 1s, {.jitter = -0.1}).fault() != nullptr);
    CHECK(open_time([](const co::breaker_trip&) { return -1s; })({}) == 0s);
    const open_time copied = open_time([n = 0](const co::breaker_trip&) mutable { return std::chrono::seconds(++n); });
    CHECK(open_time(copied)({}) == 1s);
    CHECK(copied({}) == 2s);
}

TEST_CASE("the time that it is open grows with each attempt and starts afresh once it was closed",
          "[breaker][open_time][CB-30]") {
    hand_clock clock;
    auto options = resilience4j();
    options.open_for = co::open_time::growing(5s, 60s, {.factor = 1.5, .jitter = 0});
    circuit_breaker b(options);
    play(b, "FFFFF");
    CHECK(b.stats().attempt == 1);
    clock += 6s;
    CHECK(b.state() == breaker_state::half_open);
    play(b, "FF");
    CHECK(b.state() == breaker_state::open);
    CHECK(b.stats().retry_after == 7'500ms);
    CHECK(b.stats().attempt == 2);
    clock += 6s;
    CHECK(b.state() == breaker_state::open);
    clock += 5s;
    CHECK(b.state() == breaker_state::half_open);
    play(b, "SSS");
    CHECK(b.state() == breaker_state::closed);
    CHECK(b.stats().attempt == 0);
    play(b, "FFFFF");
    CHECK(b.stats().retry_after == 5s);
}

TEST_CASE("a function of the time sees the attempts, the rates and the last time", "[breaker][open_time][CB-89]") {
    hand_clock clock;
    std::vector<co::breaker_trip> trips;
    circuit_breaker b({.window = last_calls(4),
                       .failure_rate = 0.5,
                       .open_for =
                           [&](const co::breaker_trip& t) {
                               trips.push_back(t);
                               return co::clock::duration(1s + trips.size() * 1s);
                           },
                       .half_open_calls = 1});
    play(b, "SFSF");
    for (int i = 0; i < 4; ++i) {
        clock += 1h;
        play(b, "F");
    }
    clock += 1h;
    play(b, "S");
    CHECK(b.state() == breaker_state::closed);
    clock += 5min;
    play(b, "FFFF");
    REQUIRE(trips.size() == 6);
    for (std::uint32_t i = 0; i < 5; ++i) CHECK(trips[i].attempt == i);
    CHECK(trips[5].attempt == 0);
    CHECK(trips[0].failure_rate == 0.5);
    CHECK(trips[1].failure_rate == 1.0);
    CHECK(trips[0].last_open == 0s);
    CHECK(trips[1].last_open == 2s);
    CHECK(trips[0].healthy_for == co::clock::duration::max());
    CHECK(trips[1].healthy_for == 0s);
    CHECK(trips[5].healthy_for == 5min);
    CHECK(b.stats().retry_after == 7s);
    CHECK(b.stats().opened == 6);
}

TEST_CASE("the time doubles when it opens again soon, and starts afresh after long health",
          "[breaker][open_time][CB-71]") {
    hand_clock clock;
    const auto brpc = [](const co::breaker_trip& t) -> co::clock::duration {
        if (t.last_open == 0s || t.healthy_for > 30s) return 100ms;
        return t.last_open * 2 < co::clock::duration(30s) ? t.last_open * 2 : 30s;
    };
    circuit_breaker b({.window = last_calls(1), .open_for = brpc, .half_open_calls = 1});
    const auto opens_for = [&] {
        play(b, "F");
        const auto d = b.stats().retry_after;
        clock += d;
        play(b, "S");
        REQUIRE(b.state() == breaker_state::closed);
        return d;
    };
    CHECK(opens_for() == 100ms);
    CHECK(opens_for() == 200ms);
    CHECK(opens_for() == 400ms);
    for (int i = 0; i < 6; ++i) opens_for();
    CHECK(opens_for() == 30s);
    clock += 31s;
    CHECK(opens_for() == 100ms);
}

TEST_CASE("a function of the time that throws is counted, and one that is negative means now", "[breaker][open_time]") {
    hand_clock clock;
    const bool throws = GENERATE(true, false);
    circuit_breaker b({.window = last_calls(1), .open_for = [throws](const co::breaker_trip&) -> co::clock::duration {
                           if (throws) throw std::runtime_error("no idea");
                           return -1s;
                       }});
    play(b, "F");
    CHECK(b.stats().listener_errors == (throws ? 1u : 0u));
    CHECK(b.state() == (throws ? breaker_state::open : breaker_state::half_open));
    clock += 5s;
    CHECK(b.state() == breaker_state::half_open);
}

TEST_CASE("a function of the time may use the breaker, which is open meanwhile", "[breaker][open_time]") {
    hand_clock clock;
    circuit_breaker* self = nullptr;
    circuit_breaker b({.window = last_calls(1), .open_for = [&](const co::breaker_trip&) -> co::clock::duration {
                           clock += 1h;
                           CHECK(self->state() == breaker_state::open);
                           CHECK(refusal(*self)->retry_after == 0s);
                           return 2h;
                       }});
    self = &b;
    play(b, "F");
    CHECK(b.stats().retry_after == 1h);  // counted from when it opened
}
