// SPDX-License-Identifier: MIT
#include <cordon/testing/check_determinism.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::check_determinism;

std::string here(unsigned line) { return "check_determinism.test.cpp:" + std::to_string(line); }

}  // namespace

TEST_CASE("what takes all from its simulation runs the same twice, under any schedule",
          "[testing][check_determinism][T6]") {
    const auto root = []() -> task<> {
        co::async_semaphore slots(2, {.name = "slots"});
        const auto worker = [&](int i) -> task<> {
            const auto mine = co_await slots.hold();
            co_await co::sleep_for(std::chrono::milliseconds(co::clock::now().time_since_epoch().count() % 3 + i));
        };
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 6; ++i) group.spawn(worker(i), {.name = i % 2 == 0 ? "even" : "odd"});
            co_await co::this_task::yield();
        };
        co_await co::when_all(co::with_group(body), worker(1), worker(2));
    };
    CHECK_FALSE(check_determinism(root));
    for (std::uint64_t seed = 1; seed <= 20; ++seed) CHECK_FALSE(check_determinism(root, seed));
    CHECK_FALSE(check_determinism(root, co::testing::schedule::from_string("3/1:1,4:2")));
    const auto throws = []() -> task<> {
        co_await co::this_task::yield();
        throw std::runtime_error("always");
    };
    CHECK_FALSE(check_determinism(throws));
}

#if CORDON_TASK_RECORDS
TEST_CASE("what depends on the real clock, or on an earlier run, is found, with where it was in both",
          "[testing][check_determinism][V-025][T6]") {
    const auto first = std::chrono::steady_clock::now();
    const auto reads_the_clock = [&]() -> task<> {
        co_await co::this_task::yield();
        const auto ns = (std::chrono::steady_clock::now() - first).count();
        co_await co::sleep_for(std::chrono::nanoseconds(ns + 1));  // later each time
    };
    const auto differs = check_determinism(reads_the_clock);
    REQUIRE(differs);
    INFO(*differs);
    CHECK(says(*differs, "once:\n", "and again:\n", "time goes on to"));

    int runs = 0;
    const unsigned line = __LINE__ + 5;
    const auto remembers = [&]() -> task<> {
        co_await co::sleep_for(1ms);
        ++runs;
        for (int i = 0; i < 10; ++i) {
            if (runs == 2 && i == 7) co_await co::sleep_for(2ms);
            else co_await co::this_task::yield();
        }
    };
    const auto other = check_determinism(remembers, 5);
    REQUIRE(other);
    INFO(*other);
    const std::string yields = here(line + 1) + " in lambda", sleeps = here(line) + " in lambda";
    CHECK(says(*other, "once:\n  after 1 ms: #", "then waits at " + yields, "and again:\n  after 1 ms: #",
               "then waits at " + sleeps));
    CHECK(other->find(yields) < other->find("and again"));
    CHECK(other->find(sleeps) > other->find("and again"));
}
#endif

TEST_CASE("a run that takes more steps than the other differs from it", "[testing][check_determinism][T6]") {
    int runs = 0;
    const auto longer = [&]() -> task<> {
        ++runs;
        co_await co::sleep_for(1ms);
        if (runs == 2) co_await co::sleep_for(1ms);
    };
    const auto differs = check_determinism(longer);
    REQUIRE(differs);
    CHECK(says(*differs, "once:\n", "and again:\n"));
}
