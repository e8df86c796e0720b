// SPDX-License-Identifier: MIT
#include <cordon/core/clock.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <thread>
#include <type_traits>

namespace {

using namespace std::chrono_literals;
using cordon::clock;
using cordon::task;
using cordon::testing::simulation;

static_assert(std::chrono::is_clock_v<clock>);
static_assert(clock::is_steady);
static_assert(noexcept(clock::now()));
static_assert(std::is_same_v<clock::time_point, std::chrono::steady_clock::time_point>);

}  // namespace

TEST_CASE("outside a simulation the clock is the steady clock", "[core][clock][X7]") {
    const auto before = std::chrono::steady_clock::now();
    const clock::time_point here = clock::now();
    const auto after = std::chrono::steady_clock::now();
    CHECK(before <= here);
    CHECK(here <= after);
}

TEST_CASE("inside a simulation the clock shows virtual time, exact to the nanosecond", "[core][clock][X7]") {
    simulation sim;
    struct readings {
        clock::time_point begin, end;
    } seen;
    auto body = [](readings& r) -> task<> {
        r.begin = clock::now();
        co_await cordon::sleep_for(1h + 1ns);
        r.end = clock::now();
    };
    const auto real_begin = std::chrono::steady_clock::now();
    sim.run(body(seen));
    CHECK(seen.end - seen.begin == 1h + 1ns);
    CHECK(seen.end == sim.now());
    CHECK(std::chrono::steady_clock::now() - real_begin < 30min);
}

TEST_CASE("after a simulation the clock is real again, and meanwhile it is for every other thread", "[core][clock]") {
    simulation sim;
    bool other_is_real = false;
    auto body = [](bool& real) -> task<> {
        std::thread other([&real] {
            const auto before = std::chrono::steady_clock::now();
            const auto here = clock::now();
            real = before <= here && here <= std::chrono::steady_clock::now();
        });
        other.join();
        co_return;
    };
    sim.run(body(other_is_real));
    CHECK(other_is_real);
    const auto before = std::chrono::steady_clock::now();
    const auto here = clock::now();
    CHECK(before <= here);
    CHECK(here <= std::chrono::steady_clock::now());
}
