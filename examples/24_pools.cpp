// SPDX-License-Identifier: MIT
// Pools: spare objects that nobody waits for, and scarce things that one has at a time.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [object]
void spare_buffers() {
    co::object_pool<std::string> buffers{{
        .name = "buffers",
        .reset = [](std::string& s) { s.clear(); },
        .keep = [](const std::string& s) { return s.capacity() <= 64 * 1024; },  // not one that has grown too large
    }};
    {
        auto text = buffers.acquire();  // never waits
        text->assign(1000, 'x');
    }                                   // back in the pool, cleared
    assert(buffers.acquire()->capacity() >= 1000 && buffers.stats().made == 1);
    buffers.acquire()->assign(100'000, 'x');
    assert(buffers.stats().spare == 0);
}
// [/object]

struct connection {
    int id;
    bool healthy = true;
    co::task<int> query() { co_await co::sleep_for(10ms); co_return id; }
};

co::task<> few_connections() {
    // [resource]
    int made = 0;
    const auto connect = [&]() -> co::task<connection> { co_return connection{made++}; };
    const auto healthy = [](const connection& c) { return c.healthy; };  // may also be a task: a ping
    co::resource_pool<connection> db{2, connect, {.name = "db", .max_idle_time = 10min, .usable = healthy}};
    {
        auto mine = co_await db.acquire();
        const int answer = co_await mine->query();
        assert(answer == 0 && db.stats().in_use == 1);
    }
    assert(db.stats().idle == 1);
    // [/resource]

    // [stopped]
    const auto handler = [&]() -> co::task<int> {
        auto mine = co_await db.acquire();
        co_return co_await mine->query();
    };
    auto late = co_await co::as_outcome(co::with_timeout(5ms, handler()));
    assert(late.is_error() && db.stats().idle == 0);  // its reply is still to come: nobody else shall read that
    assert(db.stats().closed_broken == 1);
    // [/stopped]

    // [holders]
    auto first = co_await db.acquire(), second = co_await db.acquire();
    co_await co::sleep_for(20ms);
    auto none = co_await co::as_outcome(co::with_timeout(5ms, db.acquire()));
    assert(none.is_error());
    for (const co::pool_holder& h : db.holders()) std::cout << describe(h);
    // [/holders]
    first.release();
    second.discard();  // broken: makes room for a new one
    co_await db.close();
}

int main() {
    spare_buffers();
    co::testing::simulation simulation;
    simulation.run(few_connections());
}
