// SPDX-License-Identifier: MIT
#include <cordon/sync/async_event.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <memory>
#include <string>
#include <thread>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::async_event;
using co::task;
using co::testing::explore_all;
using co::testing::simulation;

task<> pass(async_event& e, std::string& order, char name) {
    co_await e.wait();
    order.push_back(name);
}

static_assert(co::observable<async_event>);

}  // namespace

TEST_CASE("a set event is passed at once", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event open({.name = "door", .set = true});
        CHECK(open.name() == "door");
        CHECK(open.is_set());
        co_await open.wait();
        async_event closed;
        CHECK_FALSE(closed.is_set());
        closed.set();
        closed.set();
        co_await closed.wait();
        co_await closed.wait();
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("set lets all who wait go on, in the order in which they came, and resumes nobody itself",
          "[sync][async_event]") {
    co::run_loop loop;
    async_event e;
    std::string order;
    for (const char name : {'a', 'b', 'c'}) co::start_on(loop, pass(e, order, name));
    while (loop.poll()) {}
    CHECK(e.waiting() == 3);
    CHECK(order == "");
    e.set();
    CHECK(order == "");
    CHECK(e.waiting() == 0);
    while (loop.poll()) {}
    CHECK(order == "abc");
}

TEST_CASE("after a reset one waits again, and who was let go before has passed", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(pass(e, order, 'a'));
            co_await simulation::settle();
            e.set();
            e.reset();
            e.reset();
            CHECK_FALSE(e.is_set());
            group.spawn(pass(e, order, 'b'));
            co_await simulation::settle();
            CHECK(order == "a");
            CHECK(e.waiting() == 1);
            const auto before = e.stats();
            CHECK((before.waiting == 1 && !before.set && !before.abandoned));
            e.set();
            const auto after = e.stats();
            CHECK((after.waiting == 0 && after.set && !after.abandoned));
        };
        co_await co::with_group(body);
        CHECK(order == "ab");
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a stopped waiter leaves the event as it was", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(pass(e, order, 'a'));
            co::cancel_scope scope(group.ctx());
            co::task_group doomed(scope.ctx());
            doomed.spawn(pass(e, order, '!'));
            doomed.spawn(pass(e, order, '!'));
            co_await simulation::settle();
            CHECK(e.waiting() == 3);
            scope.request_stop();
            co_await simulation::settle();
            CHECK(e.waiting() == 1);
            CHECK_FALSE(e.is_set());
            e.set();
            co_await doomed.join();
        };
        co_await co::with_group(body);
        CHECK(order == "a");
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("who is already stopped does not wait, but passes an event that is set", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        co::cancel_scope scope(*co_await co::this_task::context());
        scope.request_stop();
        auto waited = co_await co::as_outcome(e.wait().with(scope.ctx()));
        CHECK(waited.is_stopped());
        e.set();
        auto passed = co_await co::as_outcome(e.wait().with(scope.ctx()));
        CHECK(passed.has_value());
    };
    simulation().run(root());
}

TEST_CASE("set and a stop that come together: one of them wins, and the others are let go", "[sync][async_event]") {
    int stopped = 0, passed = 0;
    const auto root = [&]() -> task<bool> {
        async_event e;
        co::cancel_scope scope(*co_await co::this_task::context());
        int bystanders = 0;
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(e.wait().with(scope.ctx()));
            ++(ended.has_value() ? passed : stopped);
        };
        const auto bystander = [&]() -> task<> {
            co_await e.wait();
            ++bystanders;
        };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        const auto sets = [&]() -> task<> {
            e.set();
            co_return;
        };
        co_await co::when_all(waits(), bystander(), stops(), sets());
        co_return bystanders == 1 && e.waiting() == 0 && e.is_set();
    };
    const auto all = explore_all(100'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(stopped > 0);
    CHECK(passed > 0);
}

TEST_CASE("a passed deadline ends the wait for an event", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        const auto begin = co::clock::now();
        auto ended = co_await co::as_outcome(co::with_timeout(5ms, e.wait()));
        CHECK(ended.is_error());
        CHECK(co::clock::now() - begin == 5ms);
        CHECK(e.waiting() == 0);
        const auto sets = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            e.set();
        };
        co_await co::when_all(co::with_timeout(5ms, e.wait()), sets());
    };
    simulation().run(root());
}

TEST_CASE("an event that dies while somebody waits for it says which, and how many", "[sync][async_event]") {
    const std::string words = last_words([] {
        simulation sim;
        std::string order;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            async_event e({.name = "door"});
            co::start_on(here, pass(e, order, 'a'));
            co_await simulation::settle();
        };
        sim.run(root());
    });
    CHECK(says(words, "async_event \"door\" destroyed while 1 wait for it"));
}

TEST_CASE("an event that dies before those it has let go went on says so", "[sync][async_event]") {
    const std::string words = last_words([] {
        simulation sim;
        std::string order;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            async_event e({.name = "door"});
            co::start_on(here, pass(e, order, 'a'));
            co_await simulation::settle();
            e.set();
        };
        sim.run(root());
    });
    CHECK(says(words, "async_event \"door\" destroyed while 1 that it has woken have not gone on yet"));
}

TEST_CASE("who is stopped has left the event at once", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        co::inplace_stop_source source;
        const auto asks = [&]() -> task<> {
            co_await simulation::settle();
            CHECK(e.waiting() == 1);
            source.request_stop();
            CHECK(e.waiting() == 0);
            co_return;
        };
        auto both = co::when_all(co::as_outcome(co::with(e.wait(), co::stop_on(source.get_token()))), asks());
        const auto ended = co_await std::move(both);
        CHECK(std::get<0>(ended).is_stopped());
    };
    simulation().run(root());
}

TEST_CASE("who has waited alone for an event may destroy it at once", "[sync][async_event]") {
    const auto root = []() -> task<> {
        auto e = std::make_unique<async_event>();
        async_event* const seen = e.get();
        const auto sets = [&]() -> task<> {
            seen->set();
            co_return;
        };
        const auto waits = [&]() -> task<> {
            co_await e->wait();
            e.reset();
        };
        co_await co::when_all(waits(), sets());
    };
    CHECK_FALSE(explore_all(1000, root, [] { return true; }).failing);
}

TEST_CASE("an event may be set by another thread, and what was written before is seen", "[sync][async_event]") {
    async_event e;
    int written = 0;
    std::thread setter;
    const auto root = [&]() -> task<int> {
        setter = std::thread([&] {
            while (e.waiting() == 0) std::this_thread::yield();
            written = 42;
            e.set();
        });
        co_await e.wait();
        co_return written;
    };
    CHECK(co::sync_wait(root()) == 42);
    setter.join();
}

TEST_CASE("those who wait for an event that nobody can set any more are refused, and named", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event door({.name = "door"});
        co::outcome<void> ended, later;
        const auto waits = [&]() -> task<> { ended = co_await co::as_outcome(door.wait()); };
        const auto gives_up = [&](async_event::setter first) -> task<> {
            async_event::setter second = first;
            co_await simulation::settle();
            first.reset();
            co_await simulation::settle();
            CHECK(door.waiting() == 1);
            CHECK_FALSE(door.is_abandoned());
        };
        co_await co::when_all(waits(), gives_up(door.make_setter()));
        REQUIRE(ended.is_rejected());
        CHECK(ended.rejection().reason == co::reject_reason::closed);
        CHECK(ended.rejection().who() == "door");
        CHECK(door.is_abandoned());
        later = co_await co::as_outcome(door.wait());
        CHECK(later.is_rejected());
        door.set();
        co_await door.wait();
    };
    simulation().run(root());
}

TEST_CASE("an event that is set before its last setter goes is not abandoned", "[sync][async_event]") {
    const auto root = []() -> task<> {
        async_event e;
        {
            const async_event::setter setter = e.make_setter();
            const async_event::setter other(setter);
            setter.set();
        }
        CHECK_FALSE(e.is_abandoned());
        co_await e.wait();
        CHECK_FALSE(async_event::setter());
    };
    simulation().run(root());
}

TEST_CASE("an event that dies while somebody has a setter of it says so", "[sync][async_event]") {
    const std::string words = last_words([] {
        async_event::setter left;
        async_event e({.name = "door"});
        left = e.make_setter();
    });
    CHECK(says(words, "async_event \"door\" destroyed while somebody has a setter of it"));
}
