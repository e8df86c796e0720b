// SPDX-License-Identifier: MIT
// Simulation: the same code under a virtual clock and a seeded scheduler. A failing seed is a bug that can be repeated.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [interleave]
co::task<std::string> interleave() {
    std::string order;
    auto step = [](std::string& into, char name) -> co::task<> {
        co_await co::this_task::yield();
        into += name;
    };
    co_await co::with_group([&](co::task_group& group) -> co::task<> {
        for (char name : {'a', 'b', 'c', 'd'}) group.spawn(step(order, name));
        co_return;
    });
    co_return order;
}
// [/interleave]

// [racy]
// Loses an update, but only in one order of the two.
co::task<int> racy_counter() {
    int counter = 0;
    auto increment = [](int& c) -> co::task<> {
        const int seen = c;
        co_await co::this_task::yield();
        c = seen + 1;
    };
    co_await co::when_all(increment(counter), increment(counter));
    co_return counter;
}
// [/racy]

co::task<> a_year() { co_await co::sleep_for(24h * 365); }

// [stuck]
co::task<> wait_for_nobody(co::async_semaphore& slots) {
    const auto mine = co_await slots.hold();
}
// [/stuck]

int main() {
    // [seed]
    co::testing::simulation once{7}, again{7};
    const std::string order = once.run(interleave());
    assert(again.run(interleave()) == order);  // the same seed, the same schedule
    // [/seed]
    std::cout << "seed 7 runs them as " << order << '\n';

    // [year]
    const auto before = std::chrono::steady_clock::now();
    once.run(a_year());
    assert(std::chrono::steady_clock::now() - before < 1s);  // time jumps when nothing can run
    // [/year]

    // [explore]
    const auto found = co::testing::explore({.schedules = 1000}, racy_counter, [](int sum) { return sum == 2; });
    assert(found.has_value());  // a schedule that fails; simulation{*found} does it again, under a debugger
    // [/explore]

    // [replay]
    const auto same = co::testing::schedule::from_string(found->to_string());
    co::testing::simulation failing{same};
    assert(failing.run(racy_counter) == 1);
    // [/replay]

    // [deadlock]
    co::async_semaphore slots{0, {.name = "connections"}};
    try {
        co::testing::simulation().run(wait_for_nobody(slots));
        assert(false);
    } catch (const co::testing::deadlock& e) {
        std::cout << e.what();  // who waits, where, and for what
    }
    // [/deadlock]
}
