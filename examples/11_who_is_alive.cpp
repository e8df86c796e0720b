// SPDX-License-Identifier: MIT
// Who is alive, since when, and where does it wait? Every task that was spawned can be asked, in release builds, too.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [tasks]
co::task<> query(co::async_semaphore& connections) {
    const auto mine = co_await connections.hold();
    co_await co::sleep_for(1h);
}
co::task<> session(co::async_semaphore& connections) {
    co_await query(connections);
}
// [/tasks]

/// In a simulation, so that the ages are always the same.
co::task<std::string> look() {
    co::async_semaphore connections{1, {.name = "db"}};
    std::string seen;
    // [dump]
    co_await co::with_group({.name = "sessions"}, [&](co::task_group& group) -> co::task<> {
        group.spawn(session(connections), {.name = "ada"});
        co_await co::testing::simulation::advance(20ms);
        group.spawn(session(connections), {.name = "bob"});
        co_await co::testing::simulation::advance(1500ms);
        for (const co::task_info& task : group.children()) seen += co::describe(task);
        group.request_stop();
    });
    // [/dump]
    co_return seen;
}

int main() {
    const std::string seen = co::testing::simulation().run(look());
    std::cout << seen;
    assert(seen.find("\"ada\"  alive 1520 ms") != std::string::npos);
    assert(seen.find("\"bob\"  alive 1500 ms") != std::string::npos);
    assert(seen.find("semaphore db") != std::string::npos);

    // [all]
    for (const co::task_info& task : co::live_tasks()) std::cout << co::describe(task);  // of the whole process
    // [/all]
    assert(co::live_tasks().empty());
}
