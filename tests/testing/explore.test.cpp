// SPDX-License-Identifier: MIT
#include <cordon/testing/explore.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::explore;
using co::testing::explore_all;
using co::testing::simulation;

/// A lost update, if both read before either writes.
task<> increment(int& counter) {
    const int seen = counter;
    co_await co::this_task::yield();
    counter = seen + 1;
}
task<int> racy_counter() {
    int counter = 0;
    co_await co::when_all(increment(counter), increment(counter));
    co_return counter;
}
bool both_counted(int counter) { return counter == 2; }

task<> append(std::string& order, char name, co::clock::duration d) {
    co_await co::sleep_for(d);
    order.push_back(name);
}
task<std::string> equal_deadlines() {
    std::string order;
    co_await co::when_all(append(order, 'a', 1ms), append(order, 'b', 1ms));
    co_return order;
}

/// What goes to stderr while `f()` runs in a process of its own, which then dies.
template <class F>
std::string printed(F f) {
    return last_words([&] {
        f();
        std::abort();
    });
}

}  // namespace

TEST_CASE("of equal deadlines both orders are seen over a thousand seeds, and each seed repeats its own",
          "[testing][explore][V-008][T4]") {
    std::map<std::string, int> seen;
    std::map<std::uint64_t, std::string> of_seed;
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        simulation sim(seed);
        of_seed[seed] = sim.run(equal_deadlines());
        ++seen[of_seed[seed]];
    }
    CHECK(seen.size() == 2);
    CHECK(seen["ab"] > 300);
    CHECK(seen["ba"] > 300);
    std::uint64_t repeated = 0;
    for (const auto& [seed, order] : of_seed) {
        simulation sim(seed);
        if (sim.run(equal_deadlines()) == order) ++repeated;
    }
    CHECK(repeated == 1000);
}

TEST_CASE("of two branches that are ready at the same time either wins", "[testing][explore][T4]") {
    const auto race = []() -> task<std::size_t> {
        const auto after = [](int v) -> task<int> {
            co_await co::sleep_for(1ms);
            co_return v;
        };
        auto first = co_await co::when_any(after(0), after(1));
        co_return first.index();
    };
    std::set<std::size_t> winners;
    const auto note = [&](std::size_t w) { return winners.insert(w), true; };
    CHECK_FALSE(explore({.schedules = 100}, race, note));
    CHECK(winners == std::set<std::size_t>{0, 1});
}

TEST_CASE("a racy check is found within a hundred random schedules, and the seed replays it every time",
          "[testing][explore][V-026][T4]") {
    const std::optional<std::uint64_t> failing = explore({.schedules = 100}, racy_counter, both_counted);
    REQUIRE(failing);
    for (int i = 0; i < 100; ++i) {
        simulation sim(*failing);
        CHECK(sim.run(racy_counter()) == 1);
    }
    simulation sim(*failing);
    sim.run(racy_counter());
    simulation traced(sim.trace());
    CHECK(traced.run(racy_counter()) == 1);
}

TEST_CASE("an exhaustive search finds the race, and counts every schedule where there is none",
          "[testing][explore][V-026][T4]") {
    const auto racy = explore_all(1000, racy_counter, both_counted);
    REQUIRE(racy.failing);
    CHECK_FALSE(racy.complete);
    simulation sim(*racy.failing);
    CHECK(sim.run(racy_counter()) == 1);

    // two tasks of two steps each: the interleavings of aabb
    std::set<std::string> orders;
    const auto two_steps = [](std::string& order, char name) -> task<> {
        order.push_back(name);
        co_await co::this_task::yield();
        order.push_back(name);
    };
    const auto root = [&]() -> task<std::string> {
        std::string order;
        co_await co::when_all(two_steps(order, 'a'), two_steps(order, 'b'));
        co_return order;
    };
    const auto all = explore_all(1000, root, [&](const std::string& order) { return orders.insert(order), true; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(all.schedules == 6);
    CHECK(orders.size() == 6);

    const auto cut = explore_all(3, root, [](const std::string&) { return true; });
    CHECK(cut.schedules == 3);
    CHECK_FALSE(cut.complete);
}

TEST_CASE("what a schedule throws is a failure, a deadlock included", "[testing][explore][T9]") {
    const auto throws_if_b_is_first = []() -> task<> {
        const std::string order = co_await equal_deadlines();
        if (order == "ba") throw std::runtime_error("b came first");
    };
    const auto fine = [] { return true; };
    CHECK(explore({.schedules = 100}, throws_if_b_is_first, fine));
    CHECK(explore_all(100, throws_if_b_is_first, fine).failing);

    const auto misses_a_signal = []() -> task<> {
        co::async_event signal;
        const auto waits = [&]() -> task<> { co_await signal.wait(); };
        const auto pulses = [&]() -> task<> {
            signal.set();
            signal.reset();
            co_return;
        };
        co_await co::when_all(waits(), pulses());
    };
    const auto failing = explore({.schedules = 100}, misses_a_signal, fine);
    REQUIRE(failing);
    CHECK_THROWS_AS(simulation(*failing).run(misses_a_signal()), co::testing::deadlock);
}

TEST_CASE("a schedule that fails is made shorter, until each choice that is left is needed", "[testing][explore][T5]") {
    // A lost update among tasks that have nothing to do with it: only if b reads between the two halves of a.
    const auto root = []() -> task<int> {
        int counter = 0, steps = 0;
        const auto noise = [&]() -> task<> {
            for (int i = 0; i < 5; ++i, ++steps) co_await co::this_task::yield();
        };
        co_await co::when_all(noise(), increment(counter), noise(), increment(counter), noise());
        co_return counter;
    };
    const auto fails = [&](const std::vector<co::testing::choice>& choices) {
        simulation sim(choices);
        return sim.run(root) != 2;
    };
    const auto others_than_first = [](const std::vector<co::testing::choice>& choices) {
        return std::count_if(choices.begin(), choices.end(), [](const auto& c) { return c.taken != 0; });
    };
    int tried = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        simulation sim(seed);
        if (sim.run(root) == 2) continue;
        ++tried;
        const auto found = co::testing::shrink(seed, root, both_counted);
        REQUIRE(found);
        CHECK(fails(*found));
        CHECK(found->size() < sim.trace().size());
        CHECK(others_than_first(*found) <= others_than_first(sim.trace()));
        CHECK(others_than_first(*found) <= 4);
        for (std::size_t i = 0; i < found->size(); ++i) {
            auto without = *found;
            if (without[i].taken == 0) continue;
            without[i].taken = 0;
            CHECK_FALSE(fails(without));
        }
    }
    CHECK(tried > 3);
    CHECK_FALSE(co::testing::shrink(1, root, [](int) { return true; }));
    SECTION("one that fails always needs no choice at all") {
        const auto always = co::testing::shrink(7, root, [](int) { return false; });
        REQUIRE(always);
        CHECK(always->empty());
    }
}

TEST_CASE("the seed that fails is printed with the reason", "[testing][explore][T5]") {
    const auto fails = []() -> task<> {
        throw std::runtime_error("the reason");
        co_return;
    };
    const auto stops = []() -> task<> { co_await co::this_task::stop(); };
    const auto fine = [] { return true; };
    const auto search = [&](const auto& make) { return [&] { (void)explore({.first_seed = 41}, make, fine); }; };
    CHECK(says(printed(search(fails)), "seed 41 fails: the reason"));
    CHECK(says(printed(search(stops)), "seed 41 fails: it was stopped"));
    CHECK(says(printed([] { (void)explore({}, racy_counter, both_counted); }), "fails: the check says false"));
    CHECK(says(printed([] { (void)explore_all(10, racy_counter, both_counted); }), "explore_all: schedule"));
}

TEST_CASE("what is explored is made anew for each schedule, inside the simulation", "[testing][explore]") {
    int made = 0;
    const auto make = [&] {
        CHECK(simulation::current() != nullptr);
        ++made;
        return co::sleep_for(1s);
    };
    CHECK_FALSE(explore({.schedules = 7}, make, [] { return true; }));
    CHECK(made == 7);
}
