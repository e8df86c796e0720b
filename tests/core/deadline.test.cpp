// SPDX-License-Identifier: MIT
#include <cordon/core/deadline.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <limits>
#include <ratio>
#include <type_traits>

namespace {

using namespace std::chrono_literals;
using cordon::clock;
using cordon::deadline;
using cordon::task;
using cordon::testing::simulation;

static_assert(std::is_trivially_copyable_v<deadline>);
static_assert(deadline().is_never() && deadline() == deadline::never());
static_assert(deadline::at(clock::time_point(5s)).time() == clock::time_point(5s));

using cordon::detail::saturated;
constexpr auto longest = (clock::duration::max)();
constexpr auto shortest = (clock::duration::min)();
static_assert(saturated(3ms) == 3ms && saturated(-3ms) == -3ms && saturated(longest) == longest);
static_assert(saturated(std::chrono::hours(291 * 365 * 24)) == std::chrono::hours(291 * 365 * 24));
static_assert(saturated(std::chrono::hours(300 * 365 * 24)) == longest);
static_assert(saturated(-std::chrono::hours(300 * 365 * 24)) == shortest);
static_assert(saturated((std::chrono::hours::max)()) == longest);
static_assert(saturated((std::chrono::hours::min)()) == shortest);
static_assert(saturated(std::chrono::duration<std::int64_t, std::ratio<1'000'000'000>>(1'000'000'000)) == longest);
static_assert(saturated(std::chrono::duration<double>(1.5)) == 1500ms);
static_assert(saturated(std::chrono::duration<double>(1e300)) == longest);
static_assert(saturated(std::chrono::duration<double>(std::numeric_limits<double>::infinity())) == longest);
static_assert(saturated(-std::chrono::duration<double>(std::numeric_limits<double>::infinity())) == shortest);

/// Runs `check` at a virtual time that stands still.
template <class F>
void at_some_time(F check) {
    simulation sim;
    auto body = [](F& f) -> task<> {
        f();
        co_return;
    };
    sim.run(body(check));
}

}  // namespace

TEST_CASE("a deadline that was not set never passes", "[core][deadline]") {
    const deadline d;
    CHECK(d.is_never());
    CHECK_FALSE(d.expired());
    CHECK(d.remaining() == longest);
    CHECK(d.less(1h) == d);
}

TEST_CASE("a deadline after a duration is that far from now", "[core][deadline]") {
    at_some_time([] {
        const deadline d = deadline::after(20ms);
        CHECK(d.time() == clock::now() + 20ms);
        CHECK(d.remaining() == 20ms);
        CHECK_FALSE(d.expired());
        CHECK_FALSE(d.is_never());
        CHECK(deadline::after(std::chrono::duration<double, std::milli>(0.5)).remaining() == 500us);
    });
}

TEST_CASE("a deadline of zero, and one that is in the past, has passed from the start", "[core][deadline][C-007][X5]") {
    at_some_time([] {
        CHECK(deadline::after(0s).expired());
        CHECK(deadline::after(0s).remaining() == 0s);
        CHECK(deadline::after(-1h).expired());
        CHECK(deadline::after(shortest).expired());
        CHECK(deadline::after((std::chrono::hours::min)()).expired());
        CHECK(deadline::at(clock::now()).expired());
        CHECK(deadline::at((clock::time_point::min)()).expired());
        CHECK(deadline::at((clock::time_point::min)()).remaining() == 0s);
    });
}

TEST_CASE("a duration that the clock cannot hold never passes, and does not wrap around", "[core][deadline][X5]") {
    at_some_time([] {
        CHECK(deadline::after(longest).is_never());
        CHECK(deadline::after(longest - 1ns).is_never());
        CHECK(deadline::after((std::chrono::hours::max)()).is_never());
        CHECK(deadline::after(std::chrono::duration<double>(1e300)).is_never());

        const auto left = (clock::time_point::max)() - clock::now();
        CHECK(deadline::after(left).is_never());
        CHECK(deadline::after(left - 1ns).time() == (clock::time_point::max)() - 1ns);
        CHECK(deadline::after(left + 1ns).is_never());
    });
}

TEST_CASE("what remains shrinks with time, and stays at zero", "[core][deadline][X15]") {
    simulation sim;
    struct {
        clock::duration half{}, none{}, later{};
        bool just_before = true, at_the_tick = false;
    } seen;
    auto body = [](decltype(seen)& s) -> task<> {
        const deadline d = deadline::after(10ms);
        co_await cordon::sleep_for(5ms);
        s.half = d.remaining();
        co_await cordon::sleep_for(5ms - 1ns);
        s.just_before = d.expired();
        co_await cordon::sleep_for(1ns);
        s.at_the_tick = d.expired();
        s.none = d.remaining();
        co_await cordon::sleep_for(1h);
        s.later = d.remaining();
    };
    sim.run(body(seen));
    CHECK(seen.half == 5ms);
    CHECK_FALSE(seen.just_before);
    CHECK(seen.at_the_tick);
    CHECK(seen.none == 0s);
    CHECK(seen.later == 0s);
}

TEST_CASE("time is kept back for the answer by moving a deadline earlier", "[core][deadline][X15]") {
    at_some_time([] {
        const deadline d = deadline::after(100ms);
        CHECK(d.less(30ms).remaining() == 70ms);
        CHECK(d.less(1h).expired());
        CHECK(d.less(1h).remaining() == 0s);
        CHECK(d.less(longest).expired());
        CHECK(deadline::at((clock::time_point::min)()).less(1h).expired());
    });
}

TEST_CASE("deadlines are ordered by time, never last", "[core][deadline][X5]") {
    const deadline early = deadline::at(clock::time_point(1s)), late = deadline::at(clock::time_point(2s));
    CHECK(early < late);
    CHECK(late < deadline::never());
    CHECK(early == deadline::at(clock::time_point(1s)));
    CHECK((std::min)(late, early) == early);
}

TEST_CASE("what is no number has passed, and moving a deadline later ends at the last time there is", "[core][deadline]") {
    const double nan = std::numeric_limits<double>::quiet_NaN();
    CHECK(deadline::after(std::chrono::duration<double>(nan)).expired());
    const deadline last = deadline::at((clock::time_point::max)() - 1ns);
    CHECK(last.less(-1s).is_never());
    CHECK(last.less(-1ns).is_never());
    CHECK(deadline::at(clock::time_point()).less(-1s).time() == clock::time_point() + 1s);
}
