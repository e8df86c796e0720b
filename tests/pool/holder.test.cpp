// SPDX-License-Identifier: MIT
#include <cordon/pool/holder.hpp>

#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "connections.hpp"
#include "last_words.hpp"

#include <chrono>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::simulation;
using pool = server::pool;
using options = co::resource_pool_options<server::connection>;

}  // namespace

TEST_CASE("a lease that is held too long is reported once, with who and where, and its return, too",
          "[pool][resource_pool][LK-01]") {
    const auto root = []() -> task<> {
        server s;
        std::vector<co::pool_holder> told;
        const auto tell = [&](const co::pool_holder& h) { told.push_back(h); };
        pool p{2, s.connect(), {.name = "db", .held_too_long = 1s, .on_held_too_long = tell}};
        const auto handler = [&]() -> task<> {
            const auto mine = co_await p.acquire();
            co_await co::sleep_for(4s);
        };
        co_await co::with_group([&](co::task_group& group) -> task<> {
            group.spawn(handler(), {.name = "ada"});
            co_await co::sleep_for(999ms);
            CHECK(told.empty());
            CHECK(p.holders().size() == 1);
            co_await co::sleep_for(2s);
            REQUIRE(told.size() == 1);
        });
        REQUIRE(told.size() == 2);
        CHECK(told[0].pool == "db");
        CHECK(told[0].held_for == 1s);
        CHECK_FALSE(told[0].returned);
        CHECK(says(told[0].where.file_name(), "holder.test.cpp"));
        CHECK(says(told[0].task, "\"ada\"", "sleep"));
        CHECK(told[1].returned);
        CHECK(told[1].held_for == 4s);
        CHECK(p.holders().empty());
        {
            const auto quick = co_await p.acquire();
            co_await co::sleep_for(999ms);
        }
        co_await co::sleep_for(1h);
        CHECK(told.size() == 2);
    };
    simulation().run(root());
}

TEST_CASE("a report that throws is dropped and counted", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        const auto tell = [](const co::pool_holder&) { throw std::runtime_error("no"); };
        pool p{2, s.connect(), {.held_too_long = 1s, .on_held_too_long = tell}};
        auto a = co_await p.acquire();
        co_await co::sleep_for(1s);
        CHECK(p.stats().report_errors == 1);
        auto b = co_await p.acquire();
        auto late = co_await co::as_outcome(co::with_timeout(1ms, p.close()));  // tells of both
        CHECK(late.is_error());
        CHECK(p.stats().report_errors == 3);
        a.release();
        CHECK(p.stats().report_errors == 4);
        b.release();
        co_await p.close();
    };
    simulation().run(root());
}

TEST_CASE("reports cost nothing unless they are asked for, and keep nothing", "[pool][resource_pool][LK-03]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s;
        pool p{2, s.connect()};
        const auto mine = co_await p.acquire();
        CHECK(sim.armed_timers() == 0);
        int told = 0;
        const auto tell = [&](const co::pool_holder&) { ++told; };
        pool q{1, s.connect(), {.held_too_long = 1s, .on_held_too_long = tell}};
        for (int i = 0; i < 100; ++i) {
            const auto l = co_await q.acquire();
            CHECK(sim.armed_timers() == 1);
        }
        CHECK(sim.armed_timers() == 0);
        CHECK(told == 0);
    };
    sim.run(root());
}

TEST_CASE("a dump says which pool a task waits for, and how many have something of it", "[pool][resource_pool]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s;
        pool p{2, s.connect(), {.name = "db"}};
        const auto a = co_await p.acquire(), b = co_await p.acquire();
        co_await co::with_group([&](co::task_group& group) -> task<> {
            group.spawn(co::as_outcome(co::with_timeout(1s, p.acquire())));
            co_await until_waiting(p, 1);
            CHECK(says(sim.who_waits(), "resource_pool db, held by 2"));
        });
    };
    sim.run(root());
}

TEST_CASE("a pool that is destroyed in use says who has what", "[pool][resource_pool]") {
    const std::string text = last_words([] {
        simulation().run([]() -> task<> {
            server s;
            std::optional<pool> p(std::in_place, 2u, s.connect(), options{.name = "db"});
            const auto mine = co_await p->acquire();
            p.reset();
        });
    });
    CHECK(says(text, "resource_pool \"db\" destroyed while 1 of its places are in use: co_await close() first",
               "holder.test.cpp"));
}

TEST_CASE("a holder is told by pool, time, place and task", "[pool][holder]") {
    co::pool_holder h;
    h.held_for = 2500ms;
    h.where = std::source_location::current();
    CHECK(says(describe(h), "pool: held for 2500 ms, borrowed at ", "holder.test.cpp"));
    h.pool = "db";
    h.task_id = 7;
    CHECK(says(describe(h), "pool \"db\": held for ", " by a task that has ended\n"));
    h.task = "#7 \"ada\"\n";
    h.returned = true;
    CHECK(says(describe(h), "pool \"db\": came back after 2500 ms", "\n  by #7 \"ada\"\n"));
}
