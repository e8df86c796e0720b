// SPDX-License-Identifier: MIT
// A breaker allocates when it is made and when somebody begins to listen, and never again.
#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "counted_new.hpp"
#include "play.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#ifdef SANITIZED

TEST_CASE("under a sanitizer a breaker's allocations are not counted", "[breaker][allocation]") {
    WARN("SKIPPED: a sanitizer has an operator new of its own");
}

#else

namespace {

using namespace breaker_test;

/// A whole life: closed, open, half-open, closed again, and all that can be done by hand.
void live(circuit_breaker& b, hand_clock& clock) {
    play(b, "SFXCSFFFFFFFF");
    if (refusal(b)->retry_after <= 0s) FAIL("not open");
    clock += 1h;
    play(b, "F");
    clock += 1h;
    auto late = b.try_acquire();
    play(b, "SS");
    late.succeeded();
    b.force_open();
    b.disable();
    b.metrics_only();
    play(b, "FFFFFFFFFF");
    b.restore(b.export_state());
    b.open_until(clock.now());
    (void)b.stats();
    b.reset();
}

}  // namespace

TEST_CASE("a breaker that lives through all its states allocates nothing", "[breaker][allocation]") {
    hand_clock clock;
    const bool of_time = GENERATE(false, true);
    const auto fixed_time = [](const co::breaker_trip& t) { return t.attempt == 0 ? 5s : 10s; };
    circuit_breaker b({.name = "a name that is longer than any string keeps inside of itself",
                       .window = of_time ? co::last(10s) : co::last_calls(10),
                       .min_calls = 5,
                       .consecutive_failures = 8,
                       .slow_call = 1s,
                       .open_for = fixed_time,
                       .half_open_calls = 3});
    std::size_t told = 0;
    const auto listens = b.on_event([&](const co::breaker_event&) { ++told; });
    live(b, clock);
    const std::size_t before = allocations.load(), told_before = told;
    REQUIRE(before > 0);
    for (int i = 0; i < 10; ++i) live(b, clock);
    const std::size_t after = allocations.load();
    CHECK(told > told_before + 50);
    CHECK(after == before);
}

#endif
