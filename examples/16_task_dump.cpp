// SPDX-License-Identifier: MIT
// What is this process doing right now? A dump, a count by site, a watchdog and a check for leaks.
#include <cordon/cordon.hpp>
#include <cordon/testing/leak_check.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

co::task<> query(co::async_semaphore& connections) {
    const auto mine = co_await connections.hold();
    co_await co::sleep_for(1h);
}
co::task<> session(co::async_semaphore& connections) { co_await query(connections); }

struct seen {
    std::ostringstream dump, by_site, json;
    std::vector<std::string> suspicious;
    std::string left;
};

/// In a simulation, so that the ages are always the same; in a service all of this runs on any thread.
co::task<> look(seen& out) {
    co::async_semaphore connections{1, {.name = "db"}};
    co::executor_ref executor{*co::testing::simulation::current()};
    co::task_group group{executor, {.name = "sessions"}};
    // [watchdog]
    co::leak_watchdog watchdog{executor, 10min, [&](const co::task_info& task) {
                                   out.suspicious.push_back(co::describe(task));  // each task once
                               }};
    // [/watchdog]
    // [check]
    co::testing::leak_check check{group};  // or of the whole process
    check.ignore_name("metrics");
    // [/check]
    for (const char* name : {"ada", "bob", "eve"}) group.spawn(session(connections), {.name = name});
    co_await co::testing::simulation::advance(1500ms);

    // [dump]
    co::write_task_dump(out.dump);
    co::write_task_dump(out.by_site, {.by_site = true});
    co::write_task_dump(out.json, {.format = co::dump_format::json});
    // [/dump]

    // [left]
    assert(check.live_tasks() == 3 && !check.settled());
    out.left = check.report();
    // [/left]
    co_await co::testing::simulation::advance(15min);
    group.request_stop();
    co_await group.join();
    assert(check.settled());
}

int main() {
    seen out;
    co::testing::simulation().run(look(out));
    std::cout << out.dump.str() << "\nby site:\n" << out.by_site.str() << "\nleft behind:\n" << out.left;

    const std::string dump = out.dump.str();
    assert(dump.find("\"ada\"  alive 1500 ms  spawned at 16_task_dump.cpp:") != std::string::npos);
    assert(dump.find(" in query   semaphore db, held by 1\n") != std::string::npos);
    assert(out.by_site.str().find("2 tasks  alive 1500 ms") == 0);  // bob and eve wait at the same places
    assert(out.json.str().find("\"waits_for\":\"semaphore db, held by 1\"") != std::string::npos);
    assert(out.left.find("\"eve\"") != std::string::npos);
    assert(out.suspicious.size() == 4);  // the three, and the simulation's own
    assert(co::live_tasks().empty());
}
