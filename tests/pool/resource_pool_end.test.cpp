// SPDX-License-Identifier: MIT
// Pools that have an executor of their own, and how pools end.
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "connections.hpp"
#include "last_words.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::reject_reason;
using co::task;
using co::testing::simulation;
using pool = server::pool;
using lease = pool::lease;
using server_options = co::resource_pool_options<server::connection>;

}  // namespace

TEST_CASE("who waits for a creation takes what comes back meanwhile, and the new one becomes idle",
          "[pool][resource_pool][PO-36]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s;
        pool p{2, s.connect(), {.runs_on = co::executor_ref(sim)}};
        auto a = co_await p.acquire();
        s.takes = 10ms;
        co_await co::with_group([&](co::task_group& group) -> task<> {
            auto waits = group.spawn_future(p.acquire());
            co_await until_tried(s, 2);
            CHECK(p.stats().creating == 1);
            const auto from = co::clock::now();
            a.release();
            auto got = co_await waits;
            CHECK(got->id == 0);
            CHECK(co::clock::now() == from);
            CHECK(of(p) == figures{0, 1, 2});
            co_await co::sleep_for(10ms);
            CHECK(of(p) == figures{1, 1, 2});
        });
        co_await p.close();
    };
    sim.run(root());
}

TEST_CASE("a creation of the pool's own goes on when its waiter is stopped, and is kept",
          "[pool][resource_pool][PO-36]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s{.takes = 10ms};
        pool p{1, s.connect(), {.name = "db", .runs_on = co::executor_ref(sim)}};
        auto late = co_await co::as_outcome(co::with_timeout(1ms, p.acquire()));
        CHECK(late.is_error());
        CHECK(p.stats().creating == 1);
        CHECK(sim.who_waits().find("\"db\"") != std::string::npos);  // the creation is a task with a name
        co_await co::sleep_for(10ms);
        CHECK(of(p) == figures{1, 0, 1});
        CHECK(p.stats().gave_up == 1);
        co_await p.close();
    };
    sim.run(root());
}

TEST_CASE("a creation of the pool's own that fails is the error of who has waited longest, and the next gets another",
          "[pool][resource_pool]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s{.takes = 1ms, .fails = 1};
        pool p{1, s.connect(), {.runs_on = co::executor_ref(sim)}};
        std::string ended;
        const auto tries = [&](char name) -> task<> {
            auto mine = co_await co::as_outcome(p.acquire());
            ended += mine.has_value() ? name : static_cast<char>(name - 'a' + 'A');
        };
        co_await co::with_group([&](co::task_group& group) -> task<> {
            for (std::size_t i = 0; i < 3; ++i) {
                group.spawn(tries(static_cast<char>('a' + i)));
                co_await until_waiting(p, i + 1);
            }
        });
        CHECK(ended == "Abc");
        s.fails = 1;
        p.invalidate();
        const auto refuses = []() -> task<server::connection> {
            co_await co::this_task::yield();
            throw co::rejected(co::rejection(reject_reason::rate_limited, "connects"));
        };
        pool q{1, refuses, {.runs_on = co::executor_ref(sim)}};
        auto refused = co_await co::as_outcome(q.acquire());
        CHECK(refused.is_rejected());
        CHECK(refused.rejection().who() == "connects");
        const auto stops = []() -> task<server::connection> {
            co_await co::this_task::stop();
            throw 0;
        };
        pool r{1, stops, {.runs_on = co::executor_ref(sim)}};
        auto stopped = co_await co::as_outcome(r.acquire());
        CHECK(stopped.is_stopped());
        CHECK(r.stats().creations_failed == 1);
    };
    sim.run(root());
}

TEST_CASE("what the pool has just made is lent unasked, as what its user makes is", "[pool][resource_pool][PO-09]") {
    for (const bool by_task : {false, true})
        for (const bool own : {false, true}) {
            simulation sim;
            const auto root = [&]() -> task<> {
                server s{.takes = 1ms};
                int asked = 0;
                server_options o{.trusted_for = 0s};
                const auto refuses = [&](server::connection&) -> task<bool> {
                    co_await co::this_task::yield();
                    co_return ++asked > 9;  // or this might never end
                };
                if (by_task) o.usable = refuses;
                else o.usable = [&](server::connection&) { return ++asked > 9; };
                if (own) o.runs_on = co::executor_ref(sim);
                pool p{1, s.connect(), std::move(o)};
                for (int i = 1; i < 3; ++i) {
                    const auto mine = co_await p.acquire();
                    CHECK(s.made == i);
                }
                CHECK(asked == 1);  // the one that came back
                CHECK(p.stats().closed_unusable == 1);
                CHECK(p.stats().waited == 2);
                co_await p.close();
            };
            sim.run(root());
        }
}

TEST_CASE("what the pool has just made was not idle, but may be from before an invalidation", "[pool][resource_pool]") {
    server s;
    co::run_loop loop;  // in which time passes between the creation and its user's turn
    pool p{1, s.connect(), {.max_idle_time = 1ns, .runs_on = co::executor_ref(loop)}};
    int id = -1;
    const auto borrows = [&]() -> task<> {
        auto mine = co_await p.acquire();
        id = mine->id;
        mine.discard();
    };
    co::start_on(loop, borrows());
    while (loop.poll()) {
    }
    CHECK(id == 0);
    const auto invalidates = [&]() -> task<> {
        while (p.stats().created == 1) co_await co::this_task::yield();
        p.invalidate();
        co_await p.close();
    };
    const auto before_it_is_had = [&]() -> task<> {
        auto refused = co_await co::as_outcome(p.acquire());
        CHECK(refused.is_rejected());
    };
    co::start_on(loop, invalidates());
    co::start_on(loop, before_it_is_had());
    while (loop.poll()) {
    }
    CHECK(s.made == 2);
    CHECK(p.stats().closed_surplus == 1);
}

TEST_CASE("a thread waits for a resource that is made, or comes back, elsewhere", "[pool][resource_pool]") {
    server s;
    co::run_loop loop;
    std::thread runs([&] { loop.run(); });
    {
        const auto ping = [](server::connection& c) -> task<bool> {
            co_await co::this_task::yield();
            co_return c.usable;
        };
        pool p{1, s.connect(), {.usable = ping, .trusted_for = 0s, .runs_on = co::executor_ref(loop)}};
        {
            auto first = p.acquire_blocking();
            REQUIRE(first.has_value());
            CHECK((*first)->id == 0);
            auto none = p.acquire_blocking(1ms);  // really waits: a thread has no virtual time
            CHECK(none.is_stopped());
            (*first)->usable = false;
        }
        auto other = p.acquire_blocking();
        REQUIRE(other.has_value());
        CHECK((*other)->id == 1);
        std::jthread waits([&](std::stop_token stop) { CHECK(p.acquire_blocking(stop).is_stopped()); });
        while (p.stats().waiting == 0) std::this_thread::yield();
        waits.request_stop();
        waits.join();
        other->release();
        pool none{1, s.connect()};
        CHECK_THROWS_AS((void)none.acquire_blocking(), std::logic_error);
        std::atomic<bool> closed{false};
        const auto closes = [](pool& of, std::atomic<bool>& done) -> task<> {
            co_await of.close();
            done = true;
        };
        co::start_on(loop, closes(p, closed));
        while (!closed) std::this_thread::yield();
    }
    loop.stop();
    runs.join();
    CHECK(s.alive == 0);
}

TEST_CASE("so many are kept ready", "[pool][resource_pool][PO-19][PO-25][PO-27]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s{.takes = 10ms};
        pool p{5, s.connect(), {.runs_on = co::executor_ref(sim), .min_idle = 2}};
        co_await co::sleep_for(11ms);
        CHECK(of(p) == figures{2, 0, 2});
        CHECK(sim.armed_timers() == 0);  // nothing can be due
        {
            std::vector<lease> three;
            for (int i = 0; i < 3; ++i) three.push_back(co_await p.acquire());
            co_await co::sleep_for(11ms);
            CHECK(of(p) == figures{2, 3, 5});
        }
        CHECK(of(p) == figures{5, 0, 5});
        p.invalidate();
        CHECK(s.alive == 0);
        co_await co::sleep_for(11ms);
        CHECK(of(p) == figures{2, 0, 2});
        s.fails = 2;
        p.invalidate();
        co_await co::sleep_for(12ms);
        CHECK(s.tried == s.made + 2);
        CHECK(of(p) == figures{0, 0, 0});
        co_await co::sleep_for(1100ms);  // not tried again at once
        CHECK(of(p) == figures{2, 0, 2});
        co_await p.close();
        CHECK(s.alive == 0);
        CHECK(sim.armed_timers() == 0);
    };
    sim.run(root());
}

TEST_CASE("old and idle ones go by a timer, which its end takes along", "[pool][resource_pool][PO-18][PO-34]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s;
        pool p{5, s.connect(), {.max_idle_time = 1s, .runs_on = co::executor_ref(sim)}};
        auto held = co_await p.acquire();
        {
            std::vector<lease> all;
            for (int i = 0; i < 4; ++i) all.push_back(co_await p.acquire());
        }
        CHECK(sim.armed_timers() == 1);
        co_await co::sleep_for(2s);
        CHECK(of(p) == figures{0, 1, 1});
        CHECK(p.stats().closed_idle == 4);
        CHECK(sim.armed_timers() == 0);
        held.release();
        co_await co::sleep_for(3s);
        CHECK(p.stats().closed_idle == 5);
        CHECK(s.alive == 0);
        pool q{5, s.connect(), {.max_lifetime = 10s, .runs_on = co::executor_ref(sim), .min_idle = 3}};
        co_await co::sleep_for(1s);
        CHECK(q.stats().created == 3);
        co_await co::sleep_for(11s);
        CHECK(q.stats().closed_old == 3);
        CHECK(of(q) == figures{3, 0, 3});
        CHECK(sim.armed_timers() == 1);
        co_await q.close();
        CHECK(sim.armed_timers() == 0);
    };
    sim.run(root());
    CHECK(sim.armed_timers() == 0);
}

// --- closing ---------------------------------------------------------------------------------------------------------

TEST_CASE("a close refuses who waits and who comes, and ends when all is back", "[pool][resource_pool][PO-28]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect(), {.name = "db"}};
        auto a = co_await p.acquire(), b = co_await p.acquire();
        a.release();
        a = co_await p.acquire();
        bool closed = false;
        co_await co::with_group([&](co::task_group& group) -> task<> {
            auto waits = group.spawn_future(co::as_outcome(p.acquire()));
            co_await until_waiting(p, 1);
            const auto closes = [&]() -> task<> {
                co_await p.close();
                closed = true;
            };
            group.spawn(closes);
            auto refused = co_await waits;
            CHECK(refused.is_rejected());
            CHECK(refused.rejection().reason == reject_reason::closed);
            CHECK(refused.rejection().who() == "db");
            refused = co_await co::as_outcome(p.acquire());
            CHECK(refused.is_rejected());
            CHECK_FALSE(p.try_acquire());
            CHECK(p.stats().closed);
            a.release();
            CHECK(s.alive == 1);
            co_await co::sleep_for(1ms);
            CHECK_FALSE(closed);
            b.release();
        });
        CHECK(closed);
        CHECK(s.alive == 0);
        CHECK(of(p) == figures{0, 0, 0});
        co_await p.close();  // as often as one likes
    };
    in_simulations(root);
}

TEST_CASE("in every order of two users, a stop of one and a close, the pool ends empty", "[pool][resource_pool]") {
    for (const bool own : {false, true}) {
        const auto root = [own]() -> task<bool> {
            server s;
            co::resource_pool_options<server::connection> options;
            if (own) options.runs_on = co_await co::this_task::executor();
            pool p{1, s.connect(), std::move(options)};
            const auto uses = [&]() -> task<> {
                auto mine = co_await co::as_outcome(p.acquire());
                if (!mine.has_value()) co_return;
                (*mine)->usable = false;
                co_await co::this_task::yield();
            };
            stoppable one(*co_await co::this_task::context());
            one.group.spawn(uses());
            const auto stops = [&]() -> task<> {
                one.scope.request_stop();
                co_return;
            };
            co_await co::when_all(uses(), stops(), p.close());
            co_await one.group.join();
            co_return of(p) == figures{0, 0, 0} && s.alive == 0 && p.stats().creating == 0;
        };
        const auto seen = co::testing::explore_all(50'000, root, [](bool good) { return good; });
        CHECK(seen.complete);
        CHECK_FALSE(seen.failing);
        CHECK(seen.schedules > 20);
    }
}

TEST_CASE("a close waits for those whom it refuses: then the pool may be destroyed at once",
          "[pool][resource_pool][PO-28]") {
    for (const std::size_t limit : {0u, 1u}) {
        const auto root = [limit]() -> task<> {
            server s;
            auto p = std::make_unique<pool>(limit, s.connect(), server_options{.name = "db"});
            lease held;
            if (limit != 0) held = co_await p->acquire();
            const auto waits = [&]() -> task<> {
                auto got = co_await co::as_outcome(p->acquire());
                if (limit == 0) CHECK(got.is_rejected());  // otherwise one may have it before the close
                if (got.is_rejected()) CHECK(got.rejection().who() == "db");
            };
            co_await co::with_group([&](co::task_group& group) -> task<> {
                for (int i = 0; i < 3; ++i) group.spawn(waits);
                co_await until_waiting(*p, 3);
                const auto gives = [&]() -> task<> {
                    held.release();
                    co_return;
                };
                co_await co::when_all(p->close(), gives());
                p.reset();
            });
            CHECK(s.alive == 0);
        };
        in_simulations(root);
    }
}

TEST_CASE("what is being made or checked during a close is destroyed, and its caller refused",
          "[pool][resource_pool][PO-28]") {
    const auto root = []() -> task<> {
        server s{.takes = 10ms};
        pool p{1, s.connect()};
        const auto makes = [&]() -> task<> {
            auto refused = co_await co::as_outcome(p.acquire());
            CHECK(refused.is_rejected());
        };
        const auto closes = [&]() -> task<> {
            co_await until_tried(s, 1);
            co_await p.close();
            CHECK(s.made == 1);
            CHECK(s.alive == 0);
        };
        co_await co::when_all(makes(), closes());
    };
    in_simulations(root);
    simulation sim;
    const auto own = [&]() -> task<> {
        server s{.takes = 1h};
        pool p{2, s.connect(), {.runs_on = co::executor_ref(sim), .min_idle = 2}};
        co_await until_tried(s, 2);
        const auto from = co::clock::now();
        co_await p.close();  // they are stopped
        CHECK(co::clock::now() == from);
        CHECK(s.made == 0);
        CHECK(p.stats().creations_failed == 2);
    };
    sim.run(own());
}

TEST_CASE("a close that is stopped names who still has something", "[pool][resource_pool][PO-28]") {
    const auto root = []() -> task<> {
        server s;
        std::string told;
        const auto tell = [&](const co::pool_holder& h) { told += describe(h); };
        pool p{2, s.connect(), {.name = "db", .on_held_too_long = tell}};
        auto a = co_await p.acquire();
        co_await co::sleep_for(5ms);
        auto late = co_await co::as_outcome(co::with_timeout(10ms, p.close()));
        CHECK(late.is_error());
        CHECK(says(told, "pool \"db\": held for 15 ms, borrowed at ", "resource_pool_end.test.cpp"));
        CHECK(p.stats().closed);
        a.release();
        co_await p.close();
    };
    simulation().run(root());
}
