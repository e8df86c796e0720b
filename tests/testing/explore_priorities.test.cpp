// SPDX-License-Identifier: MIT
// The search by priorities of <cordon/testing/explore.hpp>.
#include <cordon/testing/explore.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/fault.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::choice;
using co::testing::explore;
using co::testing::explore_options;
using co::testing::schedule;
using co::testing::shrink;
using co::testing::simulation;

task<> noise(int steps) {
    for (; steps > 0; --steps) co_await co::this_task::yield();
}

/// A and B, and `others` tasks of as many steps that have nothing to do with them.
template <class A, class B>
task<> among_others(A a, B b, int others, int steps) {
    const auto body = [&](co::task_group& group) -> task<> {
        group.spawn(a);
        for (int i = 0; i < others; ++i) group.spawn(noise(steps));
        group.spawn(b);
        co_return;
    };
    co_await co::with_group(body);
}

/// Breaks if the user looks before the closer ends, and acts after it: twenty steps between two that come together.
task<bool> closed_in_use() {
    bool open = true, broken = false;
    const auto closes = [&]() -> task<> {
        co_await noise(20);
        open = false;
    };
    const auto uses = [&]() -> task<> {
        const bool was_open = open;
        co_await co::this_task::yield();
        broken = was_open && !open;
    };
    co_await among_others(closes, uses, 4, 20);
    co_return !broken;
}

/// Breaks if the reader looks before the writer begins, goes on within its change, and ends within it.
task<bool> read_in_a_change() {
    bool begun = false, changing = false, broken = false;
    const auto reads = [&]() -> task<> {
        if (begun) co_return;
        co_await co::this_task::yield();
        if (!changing) co_return;
        co_await noise(8);
        broken = changing;
    };
    const auto writes = [&]() -> task<> {
        begun = true;
        co_await noise(8);
        changing = true;
        co_await co::this_task::yield();
        changing = false;
    };
    co_await among_others(reads, writes, 3, 8);
    co_return !broken;
}

bool holds(bool good) { return good; }

template <class Make>
std::optional<std::uint64_t> schedules_until_found(Make make, explore_options options) {
    std::uint64_t runs = 0;
    const auto counted = [&] {
        ++runs;
        return make();
    };
    options.shrink_steps = 0;
    if (!explore(options, counted, holds)) return std::nullopt;
    return runs;
}

/// What `make` gives, a text, over many seeds, with how often.
template <class Make>
std::map<std::string, int> seen(Make make, std::uint32_t changes, std::uint64_t schedules) {
    std::map<std::string, int> orders;
    const auto note = [&](const std::string& order) { return ++orders[order] > 0; };
    CHECK_FALSE(explore({.schedules = schedules, .priority_changes = changes}, make, note));
    return orders;
}

task<> two_steps(std::string& order, char first, char second) {
    order.push_back(first);
    co_await co::this_task::yield();
    order.push_back(second);
}
task<std::string> three_of_two_steps() {
    std::string order;
    co_await co::when_all(two_steps(order, 'a', 'A'), two_steps(order, 'b', 'B'), two_steps(order, 'c', 'C'));
    co_return order;
}

}  // namespace

TEST_CASE("priorities find soon what needs two or three places in an order and chance does not find",
          "[testing][explore][priorities][T4]") {
    // Of ten seeds each, with 20,000 schedules at most: of depth two chance finds one, after 1144 schedules; priorities
    // find all, with one change after 251 on average, with two after 117, with three after 42. Of depth three chance
    // finds one, after 8651; priorities all, with two changes after 2412, with three after 983. Bounds on delays find
    // none of them, since no task is ever late by more than a round.
    for (const std::uint64_t first : {1u, 100'001u, 200'001u}) {
        CAPTURE(first);
        CHECK(schedules_until_found(closed_in_use, {.schedules = 500, .first_seed = first, .priority_changes = 1}));
        CHECK(schedules_until_found(read_in_a_change, {.schedules = 1500, .first_seed = first, .priority_changes = 3}));
    }
    CHECK_FALSE(schedules_until_found(closed_in_use, {.schedules = 1000}));
    CHECK_FALSE(schedules_until_found(closed_in_use, {.schedules = 200, .most_delays = 3}));
    CHECK_FALSE(schedules_until_found(closed_in_use, {.schedules = 200, .priority_changes = 0}));
    CHECK_FALSE(schedules_until_found(read_in_a_change, {.schedules = 3000}));
}

TEST_CASE("each order of places is as likely as the number of changes promises",
          "[testing][explore][priorities][T4]") {
    constexpr std::uint64_t schedules = 2000;
    constexpr int chains = 3, choices = 5;  // of three tasks that are all ready one is left for the last step
    const std::string places = "aAbBcC";
    const auto in_order = [](const std::string& order, const std::string& wanted) {
        std::size_t next = 0;
        for (const char c : order) next += next < wanted.size() && c == wanted[next] ? 1 : 0;
        return next == wanted.size();
    };
    const auto possible = [](const std::string& wanted) {
        for (std::size_t i = 0; i < wanted.size(); ++i)
            for (std::size_t j = i + 1; j < wanted.size(); ++j)
                if (wanted[i] == wanted[j] || (wanted[i] < 'a' && wanted[j] == wanted[i] - 'A' + 'a')) return false;
        return true;
    };
    int walked = 0;
    std::vector<std::string> wanted{""};
    double promised = 1.0 / chains;
    for (std::uint32_t changes = 0; changes < 3; ++changes, promised /= choices) {
        std::vector<std::string> longer;
        for (const std::string& w : wanted)
            for (const char c : places)
                if (possible(w + c)) longer.push_back(w + c);
        wanted = longer;
        const auto orders = seen(three_of_two_steps, changes, schedules);
        for (const std::string& w : wanted) {
            int hits = 0;
            for (const auto& [order, times] : orders) hits += in_order(order, w) ? times : 0;
            CAPTURE(changes, w);
            CHECK(hits >= promised * static_cast<double>(schedules));
            ++walked;
        }
    }
    CHECK(walked == 6 + 27 + 84);
}

TEST_CASE("without a change each task goes on as far as it can, and with enough of them all orders are seen",
          "[testing][explore][priorities][T4]") {
    std::set<std::string> in_one_go;
    for (const auto& [order, times] : seen(three_of_two_steps, 0, 200)) in_one_go.insert(order);
    CHECK(in_one_go ==
          std::set<std::string>{"aAbBcC", "aAcCbB", "bBaAcC", "bBcCaA", "cCaAbB", "cCbBaA"});
    std::set<std::string> before = in_one_go;
    for (const std::uint32_t changes : {1u, 20u}) {
        const auto more = seen(three_of_two_steps, changes, 4000);
        CHECK(more.size() > before.size());
        for (const std::string& order : before) CHECK(more.contains(order));
        for (const auto& [order, times] : more) before.insert(order);
    }
    CHECK(before.size() == 90);  // 6! / 2! 2! 2!
}

TEST_CASE("a task keeps its priority while it sleeps, while it settles, and when it is woken",
          "[testing][explore][priorities][T4]") {
    SECTION("a sleep, also below deadlines") {
        const auto sleeps = [](std::string& order, char name) -> task<> {
            for (int i = 0; i < 3; ++i) {
                order.push_back(name);
                co_await co::sleep_for(1ms);
            }
        };
        const auto root = [&]() -> task<std::string> {
            std::string order;
            co_await co::when_all(sleeps(order, 'a'), co::with_timeout(1s, sleeps(order, 'b')));
            co_return order;
        };
        const auto orders = seen(root, 0, 50);
        CHECK(orders.size() == 2);
        CHECK(orders.contains("ababab"));
        CHECK(orders.contains("bababa"));
    }
    SECTION("time that a task advances") {
        const auto root = []() -> task<std::string> {
            std::string order;
            const auto sleeps = [&](char name) -> task<> {
                co_await co::sleep_for(1ms);
                order.push_back(name);
                co_await co::sleep_for(1ms);
                order.push_back(name);
            };
            const auto advances = [&]() -> task<> {
                co_await simulation::advance(1ms);
                co_await simulation::advance(1ms);
                co_await two_steps(order, '1', '2');
            };
            co_await co::when_all(sleeps('a'), sleeps('b'), advances());
            co_return order;
        };
        const auto orders = seen(root, 0, 50);
        CHECK(orders.size() == 2);
        CHECK(orders.contains("abab12"));
        CHECK(orders.contains("baba12"));
    }
    SECTION("of several that are woken at once the first goes on with the priority of who woke them") {
        const auto root = []() -> task<std::string> {
            std::string order;
            co::async_event event;
            const auto waits = [&](char before, char after) -> task<> {
                co_await event.wait();
                co_await two_steps(order, before, after);
            };
            const auto sets = [&]() -> task<> {
                co_await simulation::settle();
                event.set();
            };
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(waits('a', 'A'));
                group.spawn(waits('b', 'B'));
                group.spawn(sets());
                co_return;
            };
            co_await co::with_group(body);
            co_return order;
        };
        const auto orders = seen(root, 0, 100);
        CHECK(orders.size() == 2);
        CHECK(orders.contains("aAbB"));
        CHECK(orders.contains("bBaA"));
    }
}

TEST_CASE("a schedule found by priorities is repeated by its seed, by its trace and as a text, and is made shorter",
          "[testing][explore][priorities][T4][T5]") {
    const explore_options options{.first_seed = 1, .priority_changes = 1, .shrink_steps = 0};
    const auto found = explore(options, closed_in_use, holds);
    REQUIRE(found);
    CHECK(explore(options, closed_in_use, holds) == found);
    CHECK_FALSE(found->is_seeded());
    CHECK_FALSE(simulation(*found).run(closed_in_use));
    CHECK_FALSE(simulation(schedule::from_string(found->to_string())).run(closed_in_use));
    simulation sim(*found);
    (void)sim.run(closed_in_use);
    CHECK(schedule(sim.trace(), found->seed()) == *found);

    const auto shorter = shrink(*found, closed_in_use, holds);
    REQUIRE(shorter);
    CHECK_FALSE(simulation(*shorter).run(closed_in_use));
    CHECK(shorter->to_string().size() < found->to_string().size());
    CHECK(explore({.priority_changes = 1}, closed_in_use, holds) == shorter);
}

TEST_CASE("faults strike in a search by priorities as well, and the schedule has them",
          "[testing][explore][priorities][fault][T8]") {
    const auto make = []() -> task<bool> {
        co::testing::fault_plan plan{simulation::current()->seed(), {.armed = 1, .fires = 0.2}};
        int struck = 0;
        const auto asks = [&]() -> task<> {
            for (int i = 0; i < 3; ++i) {
                struck += co::testing::fault("now and then") ? 1 : 0;
                co_await co::this_task::yield();
            }
        };
        co_await co::when_all(asks(), asks());
        co_return struck < 3;
    };
    const auto found = explore({.priority_changes = 2}, make, holds);
    REQUIRE(found);
    CHECK_FALSE(simulation(*found).run(make));
    const auto& choices = found->choices();
    CHECK(std::count_if(choices.begin(), choices.end(), [](std::uint32_t taken) { return taken != 0; }) == 3);
}

TEST_CASE("a task that polls without a pause does not keep the others from what it waits for",
          "[testing][explore][priorities]") {
    const auto make = []() -> task<> {
        bool done = false;
        const auto polls = [&]() -> task<> {
            while (!done) co_await co::this_task::yield();
        };
        const auto ends = [&]() -> task<> {
            co_await noise(3);
            done = true;
        };
        co_await co::when_all(polls(), polls(), ends());
    };
    CHECK_FALSE(explore({.schedules = 5, .priority_changes = 3}, make, [] { return true; }));
}

TEST_CASE("priorities beside a bound on delays, or too many changes, are refused", "[testing][explore][priorities]") {
    int runs = 0;
    const auto make = [&]() -> task<> {
        ++runs;
        co_return;
    };
    const auto search = [&](const explore_options& options) { return explore(options, make, [] { return true; }); };
    CHECK_THROWS_WITH(search({.most_delays = 2, .priority_changes = 1}),
                      "explore: most_delays is 2, allowed is any_delays beside priority_changes");
    CHECK_THROWS_AS(search({.most_delays = 2, .priority_changes = 1}), std::invalid_argument);
    CHECK_THROWS_WITH(search({.priority_changes = 1001}),
                      "explore: priority_changes is 1001, allowed are 0 to 1000");
    CHECK(runs == 0);
    CHECK_FALSE(search({.schedules = 3, .priority_changes = 1000}));
    CHECK(runs == 3);
}
