// SPDX-License-Identifier: MIT
#include <cordon/testing/explore.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/chaos.hpp>
#include <cordon/testing/fault.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
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
using co::testing::choice;
using co::testing::explore;
using co::testing::explore_all;
using co::testing::schedule;
using co::testing::shrink;
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
bool a_is_first(const std::string& order) { return order == "ab"; }

task<> two_steps(std::string& order, char name) {
    order.push_back(name);
    co_await co::this_task::yield();
    order.push_back(name);
}
task<std::string> two_of_two_steps() {
    std::string order;
    co_await co::when_all(two_steps(order, 'a'), two_steps(order, 'b'));
    co_return order;
}

task<> noise(int steps) {
    for (; steps > 0; --steps) co_await co::this_task::yield();
}

std::ptrdiff_t others_than_first(const std::vector<std::uint32_t>& choices) {
    return std::count_if(choices.begin(), choices.end(), [](std::uint32_t taken) { return taken != 0; });
}

/// A variable of the environment, for a while.
class environment {
public:
    environment(const char* name, const std::string& value) : name_(name) { setenv(name, value.c_str(), 1); }
    environment(const environment&) = delete;
    ~environment() { unsetenv(name_); }

private:
    const char* name_;
};

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

TEST_CASE("a racy check is found within a hundred random schedules, and what was found replays it every time",
          "[testing][explore][V-026][T4]") {
    const std::optional<schedule> failing = explore({.schedules = 100}, racy_counter, both_counted);
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
    const auto note = [&](const std::string& order) { return orders.insert(order), true; };
    const auto all = explore_all(1000, two_of_two_steps, note);
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(all.schedules == 6);
    CHECK(orders.size() == 6);

    const auto cut = explore_all(3, two_of_two_steps, [](const std::string&) { return true; });
    CHECK(cut.schedules == 3);
    CHECK_FALSE(cut.complete);
}

TEST_CASE("with a bound on delays exactly the schedules within it are tried, and a long run is broken by few",
          "[testing][explore][T4]") {
    const auto delays_now = [] {
        const auto& trace = simulation::current()->trace();
        return std::count_if(trace.begin(), trace.end(), [](const choice& c) { return c.taken != 0; });
    };
    std::map<std::string, std::ptrdiff_t> fewest;  // delays for each order
    std::ptrdiff_t most = 0;
    const auto root = [&]() -> task<std::string> {
        std::string order;
        co_await co::when_all(two_steps(order, 'a'), two_steps(order, 'b'), two_steps(order, 'c'));
        const auto [at, is_new] = fewest.try_emplace(order, delays_now());
        if (!is_new) at->second = std::min(at->second, delays_now());
        most = std::max(most, delays_now());
        co_return order;
    };
    const auto any = [](const std::string&) { return true; };
    const auto all = explore_all(10'000, root, any);
    REQUIRE(all.complete);
    CHECK(fewest.size() == 90);  // 6! / 2! 2! 2!
    const auto orders = std::exchange(fewest, {});
    std::uint64_t before = 0;
    for (std::uint32_t bound = 0; bound <= static_cast<std::uint32_t>(most); ++bound) {
        fewest.clear();
        const auto some = explore_all({.most_delays = bound}, root, any);
        CAPTURE(bound);
        CHECK(some.complete);
        CHECK(some.schedules > before);
        before = some.schedules;
        for (const auto& [order, delays] : orders) CHECK(fewest.contains(order) == (delays <= bound));
    }
    CHECK(before == all.schedules);

    const auto later = [](int& counter) -> task<> {
        co_await co::this_task::yield();
        co_await increment(counter);
    };
    const auto long_run = [&]() -> task<int> {
        int counter = 0;
        co_await co::when_all(noise(200), increment(counter), noise(200), later(counter));
        co_return counter;
    };
    const auto failing = explore({.most_delays = 2, .shrink_steps = 0}, long_run, both_counted);
    REQUIRE(failing);
    CHECK(others_than_first(failing->choices()) <= 2);
    CHECK(simulation(*failing).run(long_run) != 2);
    CHECK_FALSE(explore({.most_delays = 0}, long_run, both_counted));
}

TEST_CASE("an observer takes whom it likes", "[testing][explore][T4]") {
    struct takes_the_last final : simulation::observer {
        void before_step(std::uint64_t, co::cancel_scope&) override {}
        std::uint32_t choose(std::uint32_t of, std::uint32_t taken) override {
            asked.push_back({taken, of});
            return 1000;  // the last
        }
        std::vector<choice> asked;
    } last;
    simulation sim;
    sim.observe(&last);
    CHECK(sim.run(two_of_two_steps) == "bbaa");
    REQUIRE_FALSE(last.asked.empty());
    CHECK(last.asked.size() == sim.trace().size());
    const auto all_last = [](const choice& c) { return c.taken == c.of - 1; };
    CHECK(std::all_of(sim.trace().begin(), sim.trace().end(), all_last));
    CHECK(simulation(schedule(sim.trace())).run(two_of_two_steps) == "bbaa");
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
        int counter = 0;
        co_await co::when_all(noise(5), increment(counter), noise(5), increment(counter), noise(5));
        co_return counter;
    };
    const auto fails = [&](const std::vector<choice>& choices) {
        simulation sim(choices);
        return sim.run(root) != 2;
    };
    int tried = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        simulation sim(seed);
        if (sim.run(root) == 2) continue;
        ++tried;
        const auto found = shrink(seed, root, both_counted);
        REQUIRE(found);
        CHECK(found->seed() == seed);
        CHECK_FALSE(found->is_seeded());
        CHECK(others_than_first(found->choices()) <= 4);
        CHECK(found->choices().size() < sim.trace().size());
        std::vector<choice> trace;
        for (const std::uint32_t taken : found->choices()) trace.push_back({taken, 0});
        CHECK(fails(trace));
        for (choice& c : trace) {
            if (c.taken == 0) continue;
            const std::uint32_t taken = std::exchange(c.taken, 0U);
            CHECK_FALSE(fails(trace));
            c.taken = taken;
        }
    }
    CHECK(tried > 3);
    CHECK_FALSE(shrink(1, root, [](int) { return true; }));
    SECTION("one that fails always needs no choice at all") {
        const auto always = shrink(7, root, [](int) { return false; });
        REQUIRE(always);
        CHECK(*always == schedule(std::vector<choice>{}, 7));
    }
}

TEST_CASE("of a failing schedule of two hundred choices at most twenty are left that are not the first",
          "[testing][explore][V-030][T5]") {
    // Fails if the second writer is ahead of the first at three places in a row, with ten others in between.
    const auto root = []() -> task<int> {
        int ahead = 0, places[2] = {0, 0};
        const auto writer = [&](int which) -> task<> {
            for (int i = 0; i < 6; ++i) {
                co_await co::this_task::yield();
                ++places[which];
                if (which == 1) ahead = places[1] > places[0] ? ahead + 1 : 0;
                if (ahead == 3) co_return;
            }
        };
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(writer(0));
            group.spawn(writer(1));
            for (int i = 0; i < 10; ++i) group.spawn(noise(20));
            co_return;
        };
        co_await co::with_group(body);
        co_return ahead;
    };
    const auto never_far_ahead = [](int ahead) { return ahead < 3; };
    int tried = 0;
    for (std::uint64_t seed = 1; tried < 5; ++seed) {
        simulation sim(seed);
        if (never_far_ahead(sim.run(root))) continue;
        ++tried;
        REQUIRE(sim.trace().size() >= 200);
        const auto found = shrink(seed, root, never_far_ahead);
        REQUIRE(found);
        INFO(found->to_string());
        CHECK(others_than_first(found->choices()) <= 20);
        CHECK(others_than_first(found->choices()) > 0);
        simulation again(*found);
        CHECK_FALSE(never_far_ahead(again.run(root)));
        CHECK(found->to_string().size() < 150);
    }
}

TEST_CASE("a shorter schedule fails in the same way, and is looked for only so long", "[testing][explore][T5]") {
    // Always taking the first is a deadlock; another order trips the check.
    const auto root = []() -> task<int> {
        int counter = 0;
        co::async_event door;
        const auto waits = [&]() -> task<> {
            if (counter == 0) co_await door.wait();
        };
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(waits);
            for (int i = 0; i < 4; ++i) group.spawn(increment(counter));
            co_return;
        };
        co_await co::with_group(body);
        co_return counter;
    };
    const auto never = [](int) { return false; };
    CHECK_THROWS_AS(simulation(schedule(std::vector<choice>{})).run(root), co::testing::deadlock);
    int tried = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulation sim(seed);
        bool blocked = false;
        try {
            sim.run(root);
        } catch (const co::testing::deadlock&) {
            blocked = true;
        }
        const auto found = shrink(seed, root, never);
        REQUIRE(found);
        simulation again(*found);
        if (blocked) {
            CHECK(found->choices().empty());
        } else {
            CHECK_NOTHROW(again.run(root));
            ++tried;
        }
    }
    CHECK(tried > 0);

    std::uint64_t steps = 0;
    const auto counted = [&] {
        ++steps;
        return racy_counter();
    };
    const schedule last = schedule::from_string("0/0:1x8");
    const auto all_is_wrong = [](int) { return false; };
    CHECK(shrink(last, counted, all_is_wrong, 0));
    CHECK(steps == 1);
    CHECK(shrink(last, counted, all_is_wrong, 1));
    CHECK(steps == 3);
}

TEST_CASE("what a run takes from its seed stays the same when its schedule is made shorter", "[testing][explore][T5]") {
    const auto make = []() -> task<bool> {
        co::testing::fault_plan plan{simulation::current()->seed(), {.armed = 1, .fires = 0.5}};
        co_await co::when_all(noise(3), noise(3));
        bool all = true;
        for (int i = 0; i < 4; ++i) all = all && co::testing::fault("full");
        co_return all;
    };
    const auto failing = explore({.schedules = 200}, make, [](bool all) { return !all; });
    REQUIRE(failing);
    CHECK(failing->seed() != 0);
    CHECK_FALSE(failing->is_seeded());  // it was made shorter, although only some seeds fail
    CHECK(others_than_first(failing->choices()) == 4);  // that all faults strike
    CHECK(simulation(*failing).run(make));
}

TEST_CASE("whether a fault strikes is a choice of the schedule, of which all are tried",
          "[testing][explore][fault][T8]") {
    const auto make = []() -> task<int> {
        co::testing::fault_plan plan{0, {.armed = 1, .fires = 0.25}};
        plan.set("never", 0);
        plan.set("always", 1);
        int struck = 0;
        for (int i = 0; i < 3; ++i) {
            struck += co::testing::fault("now and then") ? 1 : 0;
            struck += co::testing::fault("never") ? 10 : 0;
            struck += co::testing::fault("always") ? 100 : 0;
        }
        co_return struck;
    };
    std::map<int, int> seen;
    const auto all = explore_all(100, make, [&](int struck) { return ++seen[struck] != 0; });
    CHECK(all.complete);
    CHECK(all.schedules == 8);
    CHECK(seen == std::map<int, int>{{300, 1}, {301, 3}, {302, 3}, {303, 1}});
    const auto failing = explore({.schedules = 1000}, make, [](int struck) { return struck != 302; });
    REQUIRE(failing);
    CHECK(others_than_first(failing->choices()) == 2);
    CHECK(shrink(*failing, make, [](int struck) { return struck == 300; }));
}

TEST_CASE("what chaos does differs from seed to seed, and is found and made shorter", "[testing][explore][chaos]") {
    co::testing::chaos trouble{{.error_rate = 0.05, .latency_rate = 0.05, .latency = 1s}};
    const auto make = [&]() -> task<int> {
        int failed = 0;
        for (int i = 0; i < 10; ++i) {
            const auto o = co_await co::as_outcome(trouble([] { return noise(1); }));
            failed += o.is_error() ? 1 : 0;
        }
        co_return failed;
    };
    const auto failing = explore({.schedules = 200}, make, [](int failed) { return failed < 2; });
    REQUIRE(failing);
    CHECK(others_than_first(failing->choices()) == 2);  // two errors, and no delay
    CHECK(simulation(*failing).run(make) == 2);
}

TEST_CASE("what fails is printed as one line to run it again, with the reason, and then what happens in it",
          "[testing][explore][T5]") {
    const auto fails = []() -> task<> {
        throw std::runtime_error("the reason");
        co_return;
    };
    const auto stops = []() -> task<> { co_await co::this_task::stop(); };
    const auto fine = [] { return true; };
    const auto search = [&](const auto& make) { return [&] { (void)explore({.first_seed = 41}, make, fine); }; };
    CHECK(says(printed(search(fails)), "explore at explore.test.cpp:", "CORDON_SIM=41 fails: the reason\n",
               "CORDON_SIM=41/ fails as well, with 0 choices that are not the first, instead of 0\n"));
    CHECK(says(printed(search(stops)), "CORDON_SIM=41 fails: it was stopped"));
    CHECK(says(printed([] { (void)explore({}, racy_counter, both_counted); }), "fails: the check says false"));
    const std::string all = printed([] { (void)explore_all(10, equal_deadlines, a_is_first); });
    INFO(all);
    CHECK(says(all, "explore_all at explore.test.cpp", "CORDON_SIM=0/1:1 fails: the check says false\n"));
    CHECK_FALSE(says(all, "fails as well"));  // it is as short as can be
    const std::string unshrunk = printed([] { (void)explore({.shrink_steps = 0}, equal_deadlines, a_is_first); });
    CHECK(says(unshrunk, "fails: the check says false"));
    CHECK_FALSE(says(unshrunk, "after"));
#if CORDON_TASK_RECORDS
    CHECK(says(all, "  after 0 s: time goes on to 1 ms\n", "\n* after 1 ms, choice 1:1 of 2: #",
               " goes on at explore.test.cpp:", "in append (sleep) and ends"));
#endif
}

TEST_CASE("with CORDON_SIM a search runs that schedule and no other, and says how it went", "[testing][explore][T5]") {
    int runs = 0;
    std::string seen;
    const auto make = [&] {
        ++runs;
        return equal_deadlines();
    };
    const auto note = [&](const std::string& order) {
        seen = order;
        return a_is_first(order);
    };
    SECTION("a schedule that fails") {
        const auto found = explore({.schedules = 100}, equal_deadlines, a_is_first);
        REQUIRE(found);
        const environment asks("CORDON_SIM", found->to_string());
        for (int i = 0; i < 100; ++i) {
            CHECK(explore({.schedules = 100}, make, note) == found);
            CHECK(seen == "ba");
            const auto all = explore_all(100, make, note);
            CHECK(all.failing == found);
            CHECK(all.schedules == 1);
            CHECK_FALSE(all.complete);
        }
        CHECK(runs == 200);
        const std::string said = printed([&] { (void)explore({}, make, note); });
        CHECK(says(said, "CORDON_SIM=" + found->to_string() + " alone was run, and fails: the check says false\n"));
        CHECK(says(said, "\n* after 1 ms, choice 1:1 of 2"));
    }
    SECTION("one that does not") {
        const environment asks("CORDON_SIM", "0/");
        CHECK_FALSE(explore({.schedules = 100}, make, note));
        CHECK_FALSE(explore_all(100, make, note).failing);
        CHECK(runs == 2);
        CHECK(says(printed([&] { (void)explore({}, make, note); }), "CORDON_SIM=0/ alone was run, and passes\n"));
    }
    SECTION("one of another test") {
        for (const char* other : {"0/1:1,9:1", "0/1:7"}) {
            const environment asks("CORDON_SIM", other);
            CHECK(says(printed([&] { (void)explore({}, make, note); }), "has choices that the run did not have"));
        }
    }
    SECTION("what is none") {
        const environment asks("CORDON_SIM", "7/3");
        CHECK_THROWS_AS(explore({}, make, note), std::invalid_argument);
        CHECK_THROWS_WITH(explore_all(10, make, note),
                          "CORDON_SIM: \"7/3\" is no schedule: ':' is expected at character 4");
        CHECK(runs == 0);
    }
    SECTION("an empty one asks for nothing") {
        const environment asks("CORDON_SIM", "");
        CHECK(explore_all(100, make, note).failing);
        CHECK(runs > 1);
    }
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
