// SPDX-License-Identifier: MIT
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/observable.hpp>
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
#include <cstddef>
#include <functional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::simulation;
using pool = server::pool;
using lease = pool::lease;
using options = co::resource_pool_options<server::connection>;

static_assert(co::reportable<pool>);
static_assert(!std::is_copy_constructible_v<lease>);
static_assert(std::is_nothrow_move_constructible_v<lease>);

}  // namespace

TEST_CASE("one is made when it is wanted, and what was used last is lent first", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{3, s.connect(), {.name = "db"}};
        CHECK(p.name() == "db");
        CHECK(s.made == 0);
        {
            auto a = co_await p.acquire();
            auto b = co_await p.acquire();
            CHECK(a->id == 0);
            CHECK(b->id == 1);
            CHECK(of(p) == figures{0, 2, 2});
            a.release();
            CHECK_FALSE(a);
            CHECK(of(p) == figures{1, 1, 2});
        }
        const auto again = co_await p.acquire();
        CHECK(s.made == 2);
        CHECK(of(p) == figures{1, 1, 2});
    };
    simulation().run(root());
}

TEST_CASE("while something is idle a lease costs no step", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        for (int i = 0; i < 10; ++i) {
            auto mine = co_await p.acquire();
            CHECK(mine->id == 0);
        }
        CHECK(p.stats().acquired == 10);
        CHECK(p.stats().waited == 1);  // the first, which made it
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);
}

TEST_CASE("a pool may be a member that says its options, and be made from a function", "[pool][resource_pool]") {
    struct service {
        static task<int> connect() { co_return 7; }
        co::resource_pool<int> db{2, connect, {.max_idle_time = 1min, .usable = [](int& c) { return c > 0; }}};
    } s;
    const auto root = [&]() -> task<> {
        auto mine = co_await s.db.acquire();
        CHECK(*mine == 7);
    };
    simulation().run(root());
}

TEST_CASE("a hundred tasks share three, and there are never more", "[pool][resource_pool][PO-03]") {
    const auto root = []() -> task<> {
        server s{.takes = 1ms};
        pool p{3, s.connect()};
        int total = 0;
        const auto add = [&]() -> task<> {
            auto mine = co_await p.acquire();
            CHECK(s.alive <= 3);
            CHECK(p.stats().size <= 3);
            co_await co::this_task::yield();
            total += mine->usable ? 1 : 0;
        };
        co_await co::with_group([&](co::task_group& group) -> task<> {
            for (int i = 0; i < 100; ++i) group.spawn(add);
            co_return;
        });
        CHECK(total == 100);
        CHECK(s.made <= 3);
        CHECK(of(p) == figures{p.stats().size, 0, p.stats().size});
    };
    in_simulations(root);
}

TEST_CASE("a resource that is taken out makes room for another", "[pool][resource_pool][PO-04]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        auto mine = co_await p.acquire();
        const server::connection kept = mine.take();
        CHECK_FALSE(mine);
        CHECK(of(p) == figures{0, 0, 0});
        const auto other = co_await p.acquire();
        CHECK(s.alive == 2);
        CHECK(kept.id == 0);
    };
    simulation().run(root());
}

TEST_CASE("what is idle is let go by a predicate, what is lent is not", "[pool][resource_pool][PO-05]") {
    const auto root = []() -> task<> {
        server s;
        pool p{4, s.connect()};
        {
            std::vector<lease> all;
            for (int i = 0; i < 4; ++i) all.push_back(co_await p.acquire());
        }
        auto lent = co_await p.acquire();
        CHECK(p.retain([&](server::connection& c) { return c.id != 1 && c.id != lent->id; }) == 1);
        CHECK(of(p) == figures{2, 1, 3});
        CHECK(s.alive == 3);
        CHECK_THROWS_AS(p.retain([](server::connection&) -> bool { throw std::runtime_error("no"); }),
                        std::runtime_error);
        CHECK(of(p) == figures{2, 1, 3});
        CHECK(p.stats().closed_surplus == 1);
    };
    simulation().run(root());
}

TEST_CASE("a predicate that throws leaves what stays in its order", "[pool][resource_pool][PO-05]") {
    const auto root = []() -> task<> {
        server s;
        pool p{4, s.connect()};
        {
            std::vector<lease> all;
            for (int i = 0; i < 4; ++i) all.push_back(co_await p.acquire());
            for (lease& l : all) l.release();
        }
        CHECK_THROWS_AS(p.retain([](server::connection& c) {
            if (c.id == 1) throw std::runtime_error("no");
            return c.id != 0;
        }), std::runtime_error);
        CHECK(of(p) == figures{3, 0, 3});
        std::vector<lease> all;
        std::vector<int> order;
        for (int i = 0; i < 3; ++i) {
            all.push_back(co_await p.acquire());
            order.push_back(all.back()->id);
        }
        CHECK(order == std::vector<int>{3, 2, 1});
    };
    simulation().run(root());
}

TEST_CASE("a smaller limit lets go what comes back, a larger one lets a waiter go on", "[pool][resource_pool][PO-06]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect()};
        auto a = co_await p.acquire();
        auto b = co_await p.acquire();
        p.resize(1);
        a.release();
        CHECK(of(p) == figures{0, 1, 1});
        CHECK(s.alive == 1);
        co_await co::with_group([&](co::task_group& group) -> task<> {
            auto waits = group.spawn_future(p.acquire());
            co_await until_waiting(p, 1);
            p.resize(2);
            const auto c = co_await waits;
            CHECK(c);
            CHECK(of(p) == figures{0, 2, 2});
        });
        b.release();
        CHECK(of(p) == figures{2, 0, 2});
        p.resize(0);  // what is idle goes at once
        CHECK(of(p) == figures{0, 0, 0});
        CHECK(s.alive == 0);
    };
    in_simulations(root);
}

TEST_CASE("a smaller limit lets go of what is idle those that were used longest ago", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{3, s.connect()};
        {
            auto a = co_await p.acquire();
            auto b = co_await p.acquire();
            const auto c = co_await p.acquire();
            b.release();
            a.release();
        }
        p.resize(2);
        CHECK(of(p) == figures{2, 0, 2});
        const auto last = co_await p.acquire();
        const auto before = co_await p.acquire();
        CHECK(last->id == 2);
        CHECK(before->id == 0);
        CHECK(s.alive == 2);
    };
    in_simulations(root);
}

TEST_CASE("what comes back while surplus ones are destroyed is not surplus, too", "[pool][resource_pool][PO-06]") {
    static std::function<void()> meanwhile;  // called by the next destructor
    struct slow {
        slow() = default;
        slow(slow&& other) noexcept : lives(std::exchange(other.lives, false)) {}
        slow& operator=(slow&&) = delete;
        ~slow() {
            if (lives && meanwhile) std::exchange(meanwhile, nullptr)();
        }
        bool lives = true;
    };
    const auto root = []() -> task<> {
        const auto make = []() -> task<slow> { co_return slow(); };
        co::resource_pool<slow> p{4, make};
        auto a = co_await p.acquire(), b = co_await p.acquire(), c = co_await p.acquire(), d = co_await p.acquire();
        p.resize(3);
        meanwhile = [&] { b.release(); };  // as another thread may
        a.release();
        CHECK(p.stats().size == 3);
        CHECK(p.stats().idle == 1);
        c.release();
        meanwhile = [&] { d.release(); };
        p.resize(1);  // the two that are idle go
        CHECK(p.stats().size == 1);
        CHECK(p.stats().closed_surplus == 3);
    };
    simulation().run(root());
}

TEST_CASE("a limit that was none and is one again keeps what was lent meanwhile", "[pool][resource_pool][PO-06]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        {
            const auto a = co_await p.acquire();
            p.resize(0);
            auto none = co_await co::as_outcome(co::with_timeout(1s, p.acquire()));
            CHECK(none.is_error());
            p.resize(1);
            none = co_await co::as_outcome(co::with_timeout(1s, p.acquire()));
            CHECK(none.is_error());
            CHECK(s.made == 1);
        }
        CHECK(of(p) == figures{1, 0, 1});
        co_await p.close();
        p.resize(5);
        CHECK(of(p) == figures{0, 0, 0});
        auto refused = co_await co::as_outcome(p.acquire());
        CHECK(refused.is_rejected());
    };
    simulation().run(root());
}

TEST_CASE("a creation that fails is the error of who wanted it, and takes no room", "[pool][resource_pool][PO-07]") {
    const auto root = []() -> task<> {
        server s{.fails = 1};
        pool p{2, s.connect(), {.usable = [](const server::connection& c) { return c.usable; }}};
        auto failed = co_await co::as_outcome(p.acquire());
        CHECK(failed.is_error());
        CHECK(of(p) == figures{0, 0, 0});
        CHECK(p.stats().creations_failed == 1);
        {
            auto a = co_await p.acquire();
            auto b = co_await p.acquire();
            a->usable = b->usable = false;
        }
        CHECK(of(p) == figures{2, 0, 2});
        const auto c = co_await p.acquire();
        CHECK(of(p) == figures{0, 1, 1});
        CHECK(s.alive == 1);
        CHECK(s.made == 3);
        CHECK(p.stats().closed_unusable == 2);
    };
    simulation().run(root());
}

TEST_CASE("one that a check refuses, or that makes it throw, is passed over", "[pool][resource_pool][PO-09]") {
    const auto root = []() -> task<> {
        server s;
        int bad = -1, worse = -1;
        pool p{3, s.connect(), {.usable = [&](server::connection& c) {
                   if (c.id == worse) throw std::runtime_error("gone");
                   return c.id != bad;
               }}};
        {
            std::vector<lease> all;
            for (int i = 0; i < 3; ++i) all.push_back(co_await p.acquire());
            while (!all.empty()) all.pop_back();  // 0 is used last
        }
        bad = 0;
        worse = 1;
        auto mine = co_await p.acquire();
        CHECK(mine->id == 2);
        CHECK(of(p) == figures{0, 1, 1});
        CHECK(p.try_acquire().operator bool() == false);
        mine.release();
        worse = 2;
        CHECK_FALSE(p.try_acquire());
        CHECK(of(p) == figures{0, 0, 0});
    };
    simulation().run(root());
}

TEST_CASE("a check that is a task is asked of what was not used just now, and passes over what fails or takes too long",
          "[pool][resource_pool][PO-09][PO-11]") {
    const auto root = []() -> task<> {
        server s;
        int asked = 0;
        std::chrono::milliseconds takes = 2ms;
        const auto ping = [&](server::connection& c) -> task<bool> {
            ++asked;
            co_await co::sleep_for(takes);
            if (c.id == 0) throw std::runtime_error("gone");
            co_return c.usable;
        };
        pool p{2, s.connect(), {.usable = ping, .trusted_for = 500ms, .max_check_time = 10ms}};
        {
            const auto a = co_await p.acquire();
            const auto b = co_await p.acquire();
        }
        co_await co::sleep_for(499ms);
        {
            const auto trusted = co_await p.acquire();
            CHECK(asked == 0);
        }
        co_await co::sleep_for(500ms);
        CHECK_FALSE(p.try_acquire());  // only a task could tell
        CHECK(of(p) == figures{2, 0, 2});
        {
            const auto from = co::clock::now();
            auto mine = co_await p.acquire();
            CHECK(mine->id == 1);
            CHECK(asked == 2);
            CHECK(co::clock::now() - from == 4ms);
            CHECK(s.alive == 1);
            CHECK(p.stats().closed_unusable == 1);
        }
        co_await co::sleep_for(1s);
        takes = 1h;
        const auto from = co::clock::now();
        auto fresh = co_await p.acquire();
        CHECK(co::clock::now() - from == 10ms);
        CHECK(fresh->id == 2);
        CHECK(p.stats().closed_unusable == 2);
    };
    in_simulations(root);
}

TEST_CASE("waiting, checking and making end at the caller's deadline, and the last two at their own",
          "[pool][resource_pool][PO-11]") {
    const auto root = []() -> task<> {
        server s{.takes = 1h};
        pool p{1, s.connect(), {.max_create_time = 5s}};
        auto from = co::clock::now();
        auto late = co_await co::as_outcome(co::with_timeout(1s, p.acquire()));
        CHECK(late.is_error());
        CHECK(co::clock::now() - from == 1s);
        CHECK(of(p) == figures{0, 0, 0});
        from = co::clock::now();
        late = co_await co::as_outcome(p.acquire());
        CHECK(late.is_error());
        CHECK(co::clock::now() - from == 5s);
        CHECK(p.stats().creations_failed == 2);
        s.takes = 0ms;
        const auto held = co_await p.acquire();
        late = co_await co::as_outcome(co::with_timeout(0s, p.acquire()));
        CHECK(late.is_error());
        CHECK(p.stats().waited == 3);  // nobody waits whose time is over
        late = co_await co::as_outcome(co::with_timeout(1s, p.acquire()));
        CHECK(late.is_error());
        CHECK(p.stats().gave_up == 1);
    };
    simulation().run(root());
}

TEST_CASE("a waiter ends at its deadline, and gets what comes back before it", "[pool][resource_pool][PO-13][PO-27]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        auto held = co_await p.acquire();
        auto from = co::clock::now();
        auto late = co_await co::as_outcome(co::with_timeout(100ms, p.acquire()));
        CHECK(late.is_error());
        CHECK(co::clock::now() - from == 100ms);
        from = co::clock::now();
        const auto giver = [&]() -> task<> {
            co_await co::sleep_for(800ms);
            held.release();
        };
        const auto taker = [&]() -> task<> {
            const auto got = co_await co::with_timeout(2800ms, p.acquire());
            CHECK(got);
            CHECK(co::clock::now() - from == 800ms);
        };
        co_await co::when_all(giver(), taker());
    };
    in_simulations(root);
}

TEST_CASE("a factory that tries again is waited for until the caller's deadline",
          "[pool][resource_pool][PO-16][PO-27]") {
    const auto root = []() -> task<> {
        server s;
        const auto patient = [&]() -> task<server::connection> {
            for (;;) {
                auto one = co_await co::as_outcome(s.connect()());
                if (one.has_value()) co_return *std::move(one);
                co_await co::sleep_for(100ms);
            }
        };
        pool p{1, patient};
        s.fails = 1'000;
        auto from = co::clock::now();
        auto late = co_await co::as_outcome(co::with_timeout(2800ms, p.acquire()));
        CHECK(late.is_error());
        CHECK(co::clock::now() - from == 2800ms);
        s.fails = 3;
        from = co::clock::now();
        const auto got = co_await co::with_timeout(2800ms, p.acquire());
        CHECK(got);
        CHECK(co::clock::now() - from == 300ms);
    };
    simulation().run(root());
}

TEST_CASE("who has waited longest is served first, and nobody who comes passes him", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        std::string order;
        auto held = co_await p.acquire();
        co_await co::with_group([&](co::task_group& group) -> task<> {
            const auto waits = [&](char name) -> task<> {
                const auto mine = co_await p.acquire();
                order += name;
            };
            for (char name : {'a', 'b', 'c'}) {
                group.spawn(waits(name));
                co_await until_waiting(p, order.size() + static_cast<std::size_t>(name - 'a') + 1);
            }
            held.release();
            CHECK_FALSE(p.try_acquire());
            auto mine = co_await p.acquire();
            order += 'd';
        });
        CHECK(order == "abcd");
    };
    in_simulations(root);
}

TEST_CASE("what was handed to a waiter that is stopped before it goes on serves the next",
          "[pool][resource_pool][PO-15]") {
    const auto root = []() -> task<int> {
        server s;
        pool p{1, s.connect()};
        int got = 0;
        const auto waits = [&]() -> task<> {
            const auto mine = co_await p.acquire();
            ++got;
        };
        auto held = co_await p.acquire();
        stoppable first(*co_await co::this_task::context());
        co::task_group second(*co_await co::this_task::context());
        first.group.spawn(waits);
        co_await until_waiting(p, 1);
        second.spawn(waits);
        co_await until_waiting(p, 2);
        const auto gives = [&]() -> task<> {
            held.release();
            co_return;
        };
        const auto stops = [&]() -> task<> {
            first.scope.request_stop();
            co_return;
        };
        co_await co::when_all(gives(), stops());
        co_await first.group.join();
        co_await second.join();
        CHECK(of(p) == figures{1, 0, 1});
        co_return got;
    };
    CHECK_FALSE(co::testing::explore({.schedules = 300}, root, [](int got) { return got >= 1; }));
}

TEST_CASE("a creation that is stopped with its caller lets the next make another", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s{.takes = 10ms};
        pool p{1, s.connect()};
        stoppable first(*co_await co::this_task::context());
        std::vector<int> seen;
        first.group.spawn(use(p, 1ms, seen));
        co_await until_tried(s, 1);
        co_await co::with_group([&](co::task_group& group) -> task<> {
            group.spawn(use(p, 1ms, seen));
            co_await until_waiting(p, 1);
            const auto from = co::clock::now();
            first.scope.request_stop();
            co_await group.join();
            CHECK(co::clock::now() - from == 11ms);
        });
        co_await first.group.join();
        CHECK(s.tried == 2);
        CHECK(seen.size() == 1);
        CHECK(p.stats().creations_failed == 1);
    };
    in_simulations(root);
}

TEST_CASE("a creation that fails is one caller's error, and the next makes another", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s{.takes = 1ms, .fails = 1};
        pool p{1, s.connect()};
        int failed = 0, got = 0;
        const auto tries = [&]() -> task<> {
            auto mine = co_await co::as_outcome(p.acquire());
            mine.has_value() ? ++got : ++failed;
            co_await co::sleep_for(1ms);
        };
        co_await co::when_all(tries(), tries(), tries());
        CHECK(failed == 1);
        CHECK(got == 2);
    };
    in_simulations(root);
}

TEST_CASE("so many are made at the same time, and no more", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s{.takes = 10ms};
        pool p{5, s.connect(), {.max_creating = 2}};
        std::vector<int> seen;
        const auto from = co::clock::now();
        co_await co::with_group([&](co::task_group& group) -> task<> {
            for (int i = 0; i < 5; ++i) group.spawn(use(p, 100ms, seen));
            co_await co::sleep_for(5ms);
            CHECK(p.stats().creating == 2);
            CHECK(p.stats().waiting == 3);
        });
        CHECK(co::clock::now() - from == 130ms);
        CHECK(s.made == 5);
    };
    in_simulations(root);
}

TEST_CASE("a discarded resource is destroyed, and makes room", "[pool][resource_pool][PO-16]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        auto a = co_await p.acquire();
        a.discard();
        a.discard();
        CHECK_FALSE(a);
        CHECK(s.alive == 0);
        CHECK(of(p) == figures{0, 0, 0});
        CHECK(p.stats().closed_broken == 1);
        const auto b = co_await p.acquire();
        CHECK(s.made == 2);
    };
    simulation().run(root());
}

TEST_CASE("both of two that turn bad are tried before the creation that fails is the error",
          "[pool][resource_pool][PO-16]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect(), {.usable = [](const server::connection& c) { return c.usable; }}};
        {
            auto a = co_await p.acquire();
            auto b = co_await p.acquire();
            a->usable = b->usable = false;
        }
        s.fails = 1;
        auto failed = co_await co::as_outcome(p.acquire());
        CHECK(failed.is_error());
        CHECK(p.stats().closed_unusable == 2);
        CHECK(of(p) == figures{0, 0, 0});
    };
    simulation().run(root());
}

TEST_CASE("broken ones do not starve those who come", "[pool][resource_pool][PO-17]") {
    const auto root = []() -> task<> {
        server s;
        pool p{5, s.connect()};
        int served = 0;
        {
            std::vector<lease> broken;
            for (int i = 0; i < 5; ++i) broken.push_back(co_await p.acquire());
            for (lease& l : broken) l.discard();
        }
        const auto work = [&]() -> task<> {
            auto mine = co_await co::with_timeout(1s, p.acquire());
            co_await co::sleep_for(1ms);
            mine.discard();
            ++served;
        };
        co_await co::with_group([&](co::task_group& group) -> task<> {
            for (int i = 0; i < 10; ++i) group.spawn(work);
            co_return;
        });
        CHECK(served == 10);
        CHECK(s.alive == 0);
    };
    in_simulations(root);
}

TEST_CASE("what is too old or idle for too long is passed over, and goes as it comes back",
          "[pool][resource_pool][PO-18]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect(), {.max_idle_time = 10s, .max_lifetime = 1min}};
        {
            const auto a = co_await p.acquire();
        }
        co_await co::sleep_for(9999ms);
        {
            auto a = co_await p.acquire();
            CHECK(a->id == 0);
        }
        co_await co::sleep_for(10s);
        {
            auto b = co_await p.acquire();
            CHECK(b->id == 1);
            CHECK(p.stats().closed_idle == 1);
            co_await co::sleep_for(1min);
        }
        CHECK(p.stats().closed_old == 1);
        CHECK(s.alive == 0);
        {
            const auto c = co_await p.acquire();
        }
        co_await co::sleep_for(20s);
        p.reap();
        CHECK(p.stats().closed_idle == 2);
        CHECK(s.alive == 0);
    };
    simulation().run(root());
}

TEST_CASE("lifetimes are spread, never longer and at most a fortieth shorter", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{40, s.connect(), {.max_lifetime = 40s, .seed = 7}};
        {
            std::vector<lease> all;
            for (int i = 0; i < 40; ++i) all.push_back(co_await p.acquire());
        }
        co_await co::sleep_for(39s - 1ns);
        p.reap();
        CHECK(s.alive == 40);
        co_await co::sleep_for(500ms);
        p.reap();
        CHECK(s.alive > 5);
        CHECK(s.alive < 35);
        co_await co::sleep_for(501ms);
        p.reap();
        CHECK(s.alive == 0);
        CHECK(p.stats().closed_old == 40);
    };
    simulation().run(root());
}

TEST_CASE("who destroys the pool destroys what is idle", "[pool][resource_pool][PO-20]") {
    const auto root = []() -> task<> {
        server s;
        {
            pool p{10, s.connect()};
            {
                std::vector<lease> all;
                for (int i = 0; i < 10; ++i) all.push_back(co_await p.acquire());
            }
            CHECK(s.alive == 10);
        }
        CHECK(s.alive == 0);
    };
    simulation().run(root());
}

TEST_CASE("figures say who was served at once, who waited, and who gave up", "[pool][resource_pool][PO-22]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        std::vector<int> seen;
        co_await use(p, 0ms, seen);
        co_await use(p, 0ms, seen);
        {
            const auto held = co_await p.acquire();
            auto late = co_await co::as_outcome(co::with_timeout(1ms, p.acquire()));
            CHECK(late.is_error());
        }
        const auto f = p.stats();
        CHECK(f.acquired == 3);
        CHECK(f.waited == 2);
        CHECK(f.gave_up == 1);
        CHECK(f.created == 1);
        std::string text;
        auto write = [&](const co::metric& m) { (text += m.name) += ' '; };
        co::metric_sink sink(write);
        p.report(sink);
        CHECK(text == "acquired waited gave_up created creations_failed report_errors closed_broken closed_unusable "
                      "closed_old closed_idle closed_surplus limit idle in_use creating waiting ");
    };
    simulation().run(root());
}

TEST_CASE("an acquisition has waited once at most: if it found nothing idle and good", "[pool][resource_pool][PO-22]") {
    for (const bool own : {false, true}) {
        simulation sim;
        const auto root = [&]() -> task<> {
            server s;
            const auto ping = [](server::connection& c) -> task<bool> {
                co_await co::this_task::yield();
                co_return c.usable;
            };
            options o{.usable = ping, .trusted_for = 0s, .max_create_time = 1h};
            if (own) o.runs_on = co::executor_ref(sim);
            pool p{1, s.connect(), std::move(o)};
            const auto borrow = [&](bool spoils) -> task<> { (co_await p.acquire())->usable = !spoils; };
            co_await borrow(false);
            CHECK(p.stats().waited == 1);
            co_await borrow(true);  // its check says that it is good
            CHECK(p.stats().waited == 1);
            co_await borrow(true);  // makes its own, or waits for one, as the check says no
            CHECK(p.stats().waited == 2);
            s.takes = 1h;
            auto late = co_await co::as_outcome(co::with_timeout(1s, p.acquire()));
            CHECK(late.is_error());
            CHECK(p.stats().waited == 3);
            CHECK(p.stats().gave_up == (own ? 1 : 0));  // else it was its own creation that was stopped
            co_await p.close();
        };
        sim.run(root());
    }
}

TEST_CASE("a lease moves, and is given back once", "[pool][resource_pool][PO-25][PO-31]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect()};
        auto a = co_await p.acquire();
        auto b = std::move(a);
        CHECK_FALSE(a);  // NOLINT
        a.release();
        b.release();
        b.release();
        b.discard();
        CHECK(of(p) == figures{1, 0, 1});
        a = co_await p.acquire();
        a = co_await p.acquire();  // what it had goes back
        CHECK(of(p) == figures{1, 1, 2});
    };
    simulation().run(root());
}

TEST_CASE("what is invalid is not lent again: idle ones go at once, lent ones as they come back",
          "[pool][resource_pool][PO-25]") {
    const auto root = []() -> task<> {
        server s;
        pool p{2, s.connect()};
        auto lent = co_await p.acquire();
        {
            const auto idle = co_await p.acquire();
        }
        p.invalidate();
        CHECK(s.alive == 1);
        CHECK(lent->id == 0);
        lent.release();
        CHECK(s.alive == 0);
        CHECK(p.stats().closed_surplus == 2);
        const auto fresh = co_await p.acquire();
        CHECK(s.made == 3);
    };
    simulation().run(root());
}

// --- leases that are stopped -----------------------------------------------------------------------------------------

TEST_CASE("a lease whose task is stopped in the middle of a use takes its resource with it", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        const auto query = [&](bool touches, bool says_clean) -> task<> {
            auto mine = co_await p.acquire();
            if (touches) mine->usable = true;
            if (says_clean) mine.mark_clean();
            co_await co::sleep_for(1h);
        };
        auto stopped = co_await co::as_outcome(co::with_timeout(1ms, query(true, false)));
        CHECK(stopped.is_error());
        CHECK(of(p) == figures{0, 0, 0});
        CHECK(p.stats().closed_broken == 1);
        stopped = co_await co::as_outcome(co::with_timeout(1ms, query(false, false)));
        CHECK(of(p) == figures{1, 0, 1});
        stopped = co_await co::as_outcome(co::with_timeout(1ms, query(true, true)));
        CHECK(of(p) == figures{1, 0, 1});
        CHECK(p.stats().closed_broken == 1);
    };
    simulation().run(root());
}

TEST_CASE("so does one below which a call timed out, or that a child of a stopped group has",
          "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        const auto times_out = [&]() -> task<> {
            auto mine = co_await p.acquire();
            mine->usable = true;
            co_await co::with_timeout(1ms, co::sleep_for(1h));
        };
        auto failed = co_await co::as_outcome(times_out());
        CHECK(failed.is_error());
        CHECK(p.stats().closed_broken == 1);
        const auto waits = [&]() -> task<> {
            auto mine = co_await p.acquire();
            mine->usable = true;
            co_await co::sleep_for(1h);
        };
        stoppable child(*co_await co::this_task::context());
        child.group.spawn(waits());  // the frame that the group destroys itself
        co_await co::sleep_for(1ms);
        child.scope.request_stop();
        co_await child.group.join();
        CHECK(p.stats().closed_broken == 2);
        CHECK(of(p) == figures{0, 0, 0});
        const auto ends_well = [&]() -> task<> {
            auto mine = co_await p.acquire();
            mine->usable = true;
        };
        co_await ends_well();
        CHECK(of(p) == figures{1, 0, 1});
    };
    in_simulations(root);
}

TEST_CASE("a lease in a frame that survives the stop of another is kept", "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        pool p{1, s.connect()};
        {
            auto mine = co_await p.acquire();
            mine->usable = true;
            auto other = co_await co::as_outcome(co::with_timeout(1ms, co::sleep_for(1h)));
            CHECK(other.is_error());
        }
        CHECK(of(p) == figures{1, 0, 1});
    };
    simulation().run(root());
}

TEST_CASE("a check that is stopped midway takes its resource with it, and the next waiter makes another",
          "[pool][resource_pool]") {
    const auto root = []() -> task<> {
        server s;
        const auto ping = [](server::connection&) -> task<bool> {
            co_await co::sleep_for(1s);
            co_return true;
        };
        pool p{1, s.connect(), {.usable = ping, .trusted_for = 0s}};
        std::vector<int> seen;
        co_await use(p, 0ms, seen);
        auto late = co_await co::as_outcome(co::with_timeout(1ms, use(p, 0ms, seen)));
        CHECK(late.is_error());
        CHECK(p.stats().closed_broken == 1);
        CHECK(of(p) == figures{0, 0, 0});
        co_await use(p, 0ms, seen);
        CHECK(seen == std::vector<int>{0, 1});
    };
    simulation().run(root());
}

TEST_CASE("options of pools that make no sense are refused with the field, its value and the range",
          "[pool][resource_pool]") {
    server s;
    const auto refusal = [&](options o) -> std::string {
        try {
            const pool p(2, s.connect(), std::move(o));
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "accepted";
    };
    CHECK(refusal({}) == "accepted");
    CHECK(refusal({.max_idle_time = 0s}) == "resource_pool: max_idle_time is 0 ns, allowed is more than 0");
    CHECK(refusal({.max_lifetime = -1ns}) == "resource_pool: max_lifetime is -1 ns, allowed is more than 0");
    CHECK(refusal({.held_too_long = 0s}) == "resource_pool: held_too_long is 0 ns, allowed is more than 0");
    CHECK(refusal({.trusted_for = -1ns}) == "resource_pool: trusted_for is -1 ns, allowed is 0 or more");
    CHECK(refusal({.max_check_time = 0s}) == "resource_pool: max_check_time is 0 ns, allowed is more than 0");
    CHECK(refusal({.max_create_time = 0s}) == "resource_pool: max_create_time is 0 ns, allowed is more than 0");
    CHECK(refusal({.max_creating = 0}) == "resource_pool: max_creating is 0, allowed is 1 or more");
    CHECK(refusal({.min_idle = 3}) == "resource_pool: min_idle is 3, allowed are 0 to max_size, 2");
    CHECK(refusal({.min_idle = 1}) ==
          "resource_pool: min_idle is 1, allowed is 0 without runs_on, which makes what is kept ready");
}
