// SPDX-License-Identifier: MIT
// What becomes invalid, too old or surplus while a check, a creation or a destructor is under way.
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "connections.hpp"

#include <chrono>
#include <functional>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::simulation;
using pool = server::pool;
using options = co::resource_pool_options<server::connection>;

task<bool> ping(server::connection&) {
    co_await co::sleep_for(1s);
    co_return true;
}

task<> make_one(pool& p) {
    const auto made = co_await p.acquire();
}

/// Acquires, and does `f` a while after that began.
template <class F>
task<pool::lease> acquire_while(pool& p, std::chrono::milliseconds later, F f) {
    pool::lease got;
    co_await co::with_group([&](co::task_group& group) -> task<> {
        auto comes = group.spawn_future(p.acquire());
        co_await co::sleep_for(later);
        f();
        got = co_await comes;
    });
    co_return got;
}

}  // namespace

TEST_CASE("what is being checked when all becomes invalid is not lent", "[pool][resource_pool][PO-25]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect(), {.usable = ping, .trusted_for = 0s}};
        co_await make_one(p);
        const auto got = co_await acquire_while(p, 500ms, [&] { p.invalidate(); });
        CHECK(got->id == 1);
        CHECK(s.alive == 1);
        CHECK(p.stats().closed_surplus == 1);
        CHECK(p.stats().closed_unusable == 0);
    };
    simulation().run(root());
}

TEST_CASE("what becomes too old while it is being checked is not lent, what would have been idle too long is",
          "[pool][resource_pool][PO-18]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect(), {.max_lifetime = 10s, .usable = ping, .trusted_for = 0s}};
        co_await make_one(p);
        co_await co::sleep_for(9700ms);
        {
            const auto got = co_await p.acquire();
            CHECK(got->id == 1);
            CHECK(p.stats().closed_old == 1);
            CHECK(p.stats().closed_unusable == 0);
        }
        pool wanted{1, s.connect(), {.max_idle_time = 10s, .usable = ping, .trusted_for = 0s}};
        co_await make_one(wanted);
        co_await co::sleep_for(9700ms);
        const auto got = co_await wanted.acquire();
        CHECK(got->id == 2);
    };
    simulation().run(root());
}

TEST_CASE("what is being made when all becomes invalid is not lent, and another is made",
          "[pool][resource_pool][PO-25]") {
    for (const bool own : {false, true}) {
        simulation sim;
        const auto root = [&]() -> task<> {
            server s{.takes = 10ms};
            options o;
            if (own) o.runs_on = co::executor_ref(sim);
            pool p{1, s.connect(), std::move(o)};
            const auto from = co::clock::now();
            {
                const auto got = co_await acquire_while(p, 5ms, [&] { p.invalidate(); });
                CHECK(got->id == 1);
                CHECK(co::clock::now() - from == 20ms);
                CHECK(s.alive == 1);
                CHECK(p.stats().created == 2);
                CHECK(p.stats().closed_surplus == 1);
            }
            CHECK(of(p) == figures{1, 0, 1});
            co_await p.close();
        };
        sim.run(root());
    }
}

TEST_CASE("what is being made for nobody when all becomes invalid is not kept, and made again if it is to be ready",
          "[pool][resource_pool][PO-25]") {
    simulation sim;
    const auto root = [&]() -> task<> {
        server s{.takes = 10ms};
        pool ready{1, s.connect(), {.runs_on = co::executor_ref(sim), .min_idle = 1}};
        pool wanted{1, s.connect(), {.runs_on = co::executor_ref(sim)}};
        auto late = co_await co::as_outcome(co::with_timeout(5ms, wanted.acquire()));
        CHECK(late.is_error());
        ready.invalidate();
        wanted.invalidate();
        co_await co::sleep_for(6ms);
        CHECK(of(ready) == figures{0, 0, 1});
        CHECK(of(wanted) == figures{0, 0, 0});
        co_await co::sleep_for(10ms);
        CHECK(of(ready) == figures{1, 0, 1});
        CHECK(s.made == 3);
        CHECK(s.alive == 1);
        co_await ready.close();
        co_await wanted.close();
    };
    sim.run(root());
}

TEST_CASE("what a predicate looks at when all becomes invalid does not become idle again",
          "[pool][resource_pool][PO-25]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        co_await make_one(p);
        CHECK(p.retain([&](server::connection&) {
            p.invalidate();
            return true;
        }) == 0);
        CHECK(of(p) == figures{0, 0, 0});
        CHECK(s.alive == 0);
        CHECK(p.stats().closed_surplus == 1);
    };
    simulation().run(root());
}

TEST_CASE("in no order of two users and an invalidation is anything lent that was begun before it",
          "[pool][resource_pool][PO-25]") {
    for (const bool own : {false, true}) {
        const auto root = [own]() -> task<bool> {
            int begun = 0, oldest_allowed = 0;
            bool right = true;
            const auto make = [&]() -> task<int> {
                const int id = begun++;
                co_await co::this_task::yield();
                co_return id;
            };
            const auto check = [](int&) -> task<bool> {
                co_await co::this_task::yield();
                co_return true;
            };
            co::resource_pool_options<int> o{.usable = check, .trusted_for = 0s};
            if (own) o.runs_on = co_await co::this_task::executor();
            co::resource_pool<int> p{2, make, std::move(o)};
            const auto user = [&]() -> task<> {
                for (int i = 0; i < 2; ++i) {
                    const auto mine = co_await p.acquire();
                    right = right && *mine >= oldest_allowed;
                    co_await co::this_task::yield();
                }
            };
            const auto invalidates = [&]() -> task<> {
                co_await co::this_task::yield();
                p.invalidate();
                oldest_allowed = begun;
            };
            co_await co::when_all(user(), user(), invalidates());
            co_await p.close();
            co_return right && p.stats().size == 0;
        };
        CHECK_FALSE(co::testing::explore({.schedules = 500}, root, [](bool right) { return right; }));
    }
}

TEST_CASE("a limit that comes down while an unusable one is destroyed lets go no good one",
          "[pool][resource_pool][PO-06]") {
    static std::function<void()> meanwhile;  // called by the next destructor
    struct slow {
        explicit slow(int i) : id(i) {}
        slow(slow&& other) noexcept : id(std::exchange(other.id, -1)) {}
        slow& operator=(slow&&) = delete;
        ~slow() {
            if (id >= 0 && meanwhile) std::exchange(meanwhile, nullptr)();
        }
        int id;
    };
    const auto root = []() -> task<> {
        int made = 0, bad = -1;
        const auto make = [&]() -> task<slow> { co_return slow(made++); };
        co::resource_pool<slow> p{2, make, {.usable = [&](const slow& r) { return r.id != bad; }}};
        {
            auto a = co_await p.acquire(), b = co_await p.acquire();
            a.release();
        }
        bad = 1;  // the one that was used last
        meanwhile = [&] { p.resize(1); };  // as another thread may
        const auto got = co_await p.acquire();
        CHECK(got->id == 0);
        CHECK(made == 2);
        CHECK(p.stats().size == 1);
        CHECK(p.stats().closed_surplus == 0);
        CHECK(p.stats().closed_unusable == 1);
    };
    simulation().run(root());
}
