// SPDX-License-Identifier: MIT
// Waiting for each other: a semaphore bounds how many do something at a time, an event holds all back until it is set.
#include <cordon/cordon.hpp>

#include <algorithm>
#include <cassert>
#include <iostream>

using namespace std::chrono_literals;
namespace co = cordon;

// [permit]
struct database {
    co::async_semaphore connections{2, {.name = "connections"}};
    co::async_event ready{{.name = "ready"}};
    int in_use = 0, peak = 0, done = 0;
};

co::task<> query(database& db) {
    co_await db.ready.wait();                                                 // nobody begins before it is set
    const co::async_semaphore::permit mine = co_await db.connections.hold();  // first come, first served
    db.peak = std::max(db.peak, ++db.in_use);
    co_await co::sleep_for(1ms);
    --db.in_use, ++db.done;
}   // the permit goes back, also if a stop or an error ends the query earlier
// [/permit]

co::task<> eight_queries(database& db) {
    co_await co::with_group({.name = "queries"}, [&](co::task_group& group) -> co::task<> {
        for (int i = 0; i < 8; ++i) group.spawn(query(db));
        co_await co::this_task::yield();
        assert(db.done == 0 && db.in_use == 0);
        db.ready.set();
    });
    std::cout << db.done << " queries, at most " << db.peak << " at a time\n";
    assert(db.done == 8 && db.peak == 2);
}

// [try]
co::task<> without_waiting_long(database& db) {
    co::async_semaphore::permit both = db.connections.try_hold(2);  // never waits
    assert(both && !db.connections.try_hold());
    const auto in_time = co_await co::as_outcome(co::with_timeout(1ms, db.connections.hold()));
    assert(in_time.is_error());              // stopped while it waited, it has taken nothing
    both.release();

    const auto now = db.connections.stats(); // both figures at one time
    assert(now.available == 2 && now.waiting == 0);
}
// [/try]

int main() {
    database db;
    co::sync_wait(eight_queries(db));
    co::sync_wait(without_waiting_long(db));
}
