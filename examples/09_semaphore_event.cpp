// SPDX-License-Identifier: MIT
// Waiting for each other: a semaphore bounds how many do something at a time, an event holds all back until it is set.
#include <cordon/cordon.hpp>

#include <algorithm>
#include <cassert>
#include <iostream>
#include <memory>

using namespace std::chrono_literals;
namespace co = cordon;

// [permit]
/// A permit that goes back with the block that holds it.
struct give_back {
    void operator()(co::async_semaphore* slots) const noexcept { slots->release(); }
};
using permit = std::unique_ptr<co::async_semaphore, give_back>;

struct database {
    co::async_semaphore connections{2, {.name = "connections"}};
    co::async_event ready{{.name = "ready"}};
    int in_use = 0, peak = 0, done = 0;
};

co::task<> query(database& db) {
    co_await db.ready.wait();           // nobody begins before it is set
    co_await db.connections.acquire();  // first come, first served
    const permit held(&db.connections);
    db.peak = std::max(db.peak, ++db.in_use);
    co_await co::sleep_for(1ms);
    --db.in_use, ++db.done;
}
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
    assert(db.connections.try_acquire(2));   // never waits
    assert(!db.connections.try_acquire());
    const auto in_time = co_await co::as_outcome(co::with_timeout(1ms, db.connections.acquire()));
    assert(in_time.is_error());              // stopped while it waited, it has taken nothing
    db.connections.release(2);

    const auto now = db.connections.stats(); // both figures at one time
    assert(now.available == 2 && now.waiting == 0);
}
// [/try]

int main() {
    database db;
    co::sync_wait(eight_queries(db));
    co::sync_wait(without_waiting_long(db));
}
