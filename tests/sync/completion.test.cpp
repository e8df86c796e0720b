// SPDX-License-Identifier: MIT
#include <cordon/sync/completion.hpp>

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

#include <atomic>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::completion;
using co::task;
using co::testing::explore_all;
using co::testing::simulation;

std::exception_ptr failure() { return std::make_exception_ptr(std::runtime_error("failed")); }

}  // namespace

TEST_CASE("a result that was set before anybody waits is there at once", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> value;
        CHECK_FALSE(value.is_set());
        CHECK(value.set_value(5));
        CHECK(value.is_set());
        const int five = co_await value.wait();
        CHECK(five == 5);
        completion<int> hooked;
        hooked.set_value(6);
        const int six = co_await hooked.wait([] {});
        CHECK(six == 6);
        completion<void> nothing;
        nothing.set_value();
        co_await nothing.wait();
        completion<int> error;
        error.set_error(failure());
        auto failed = co_await co::as_outcome(error.wait());
        CHECK(failed.is_error());
        completion<std::unique_ptr<int>> moved;
        moved.set(std::make_unique<int>(7));
        const std::unique_ptr<int> got = co_await moved.wait();
        CHECK(*got == 7);
        completion<int> refused;
        refused.set(co::rejection(co::reject_reason::full, "library"));
        auto no = co_await co::as_outcome(refused.wait());
        CHECK(no.is_rejected());
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("a result that is set while somebody waits ends the wait", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<std::string> text;
        const auto sets = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            text.set_value(3, 'x');  // built in place
        };
        auto both = co_await co::when_all(text.wait(), sets());
        CHECK(std::get<0>(both) == "xxx");

        completion<int> error;
        const auto fails = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            error.set_error(failure());
        };
        auto failed = co_await co::as_outcome(co::when_all(error.wait(), fails()));
        CHECK_THROWS_AS(std::move(failed).value(), std::runtime_error);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("only the first result counts", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> c;
        CHECK(c.set_value(1));
        CHECK_FALSE(c.set_value(2));
        CHECK_FALSE(c.set_error(failure()));
        CHECK_FALSE(c.set_stopped());
        const int first = co_await c.wait();
        CHECK(first == 1);
        CHECK_FALSE(c.set_value(3));
    };
    simulation().run(root());
}

TEST_CASE("set_stopped ends the wait stopped, before it and during it, with a hook and without", "[sync][completion]") {
    const auto root = []() -> task<> {
        for (const bool before : {true, false}) {
            completion<int> plain, hooked;
            const auto sets = [&]() -> task<> {
                if (!before) co_await co::sleep_for(1ms);
                plain.set_stopped();
                hooked.set_stopped();
            };
            const auto wait_plain = [&]() -> task<> {
                auto ended = co_await co::as_outcome(plain.wait());
                CHECK(ended.is_stopped());
            };
            const auto wait_hooked = [&]() -> task<> {
                auto ended = co_await co::as_outcome(hooked.wait([] { FAIL("nobody asked to stop"); }));
                CHECK(ended.is_stopped());
            };
            co_await co::when_all(sets(), wait_plain(), wait_hooked());
        }
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a stop ends the plain wait, and the result can still be set and awaited", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> c;
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto stops = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            scope.request_stop();
        };
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(c.wait().with(scope.ctx()));
            CHECK(ended.is_stopped());
        };
        co_await co::when_all(waits(), stops());
        CHECK_FALSE(c.is_set());
        auto at_once = co_await co::as_outcome(c.wait().with(scope.ctx()));
        CHECK(at_once.is_stopped());
        CHECK(c.set_value(9));
        auto there = co_await co::as_outcome(c.wait().with(scope.ctx()));
        CHECK(there.has_value());  // a value that is there wins
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("with a hook a stop calls it once and the wait goes on to the end", "[sync][completion]") {
    const auto root = [](bool stop_before, bool value_comes) -> task<> {
        completion<int> c;
        int asked = 0;
        co::cancel_scope scope(*co_await co::this_task::context());
        if (stop_before) scope.request_stop();
        const auto stops = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            scope.request_stop();
            scope.request_stop();
            CHECK(asked == 1);
            co_await co::sleep_for(1ms);  // the library takes its time
            if (value_comes) c.set_value(3);
            else c.set_stopped();
        };
        const auto waits = [&]() -> task<> {
            const auto begin = co::clock::now();
            const auto hook = [&] { ++asked; };
            auto ended = co_await co::as_outcome(c.wait(hook).with(scope.ctx()));
            CHECK(ended.has_value() == value_comes);
            CHECK(ended.is_stopped() == !value_comes);
            CHECK(co::clock::now() - begin == 2ms);
        };
        co_await co::when_all(waits(), stops());
        CHECK(asked == 1);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed)
        for (const bool before : {false, true})
            for (const bool value : {false, true}) simulation(seed).run(root(before, value));
}

TEST_CASE("a hook may end the wait itself", "[sync][completion]") {
    const auto root = [](bool stop_before) -> task<> {
        completion<int> c;
        co::cancel_scope scope(*co_await co::this_task::context());
        if (stop_before) scope.request_stop();
        const auto stops = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            scope.request_stop();
        };
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(c.wait([&] { c.set_stopped(); }).with(scope.ctx()));
            CHECK(ended.is_stopped());
        };
        co_await co::when_all(waits(), stops());
    };
    for (const bool before : {false, true}) simulation().run(root(before));
}

TEST_CASE("a hook is not called after the wait", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> c;
        int asked = 0;
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto sets = [&]() -> task<> {
            c.set_value(1);
            co_return;
        };
        const auto hook = [&] { ++asked; };
        co_await co::when_all(c.wait(hook).with(scope.ctx()), sets());
        scope.request_stop();
        CHECK(asked == 0);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a result and a stop that come together: the result is taken, or still there", "[sync][completion]") {
    int stopped = 0, got = 0;
    const auto root = [&]() -> task<bool> {
        completion<int> c;
        co::cancel_scope scope(*co_await co::this_task::context());
        int value = 0;
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(c.wait().with(scope.ctx()));
            if (ended.has_value()) value = *ended;
        };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        const auto sets = [&]() -> task<> {
            c.set_value(4);
            co_return;
        };
        co_await co::when_all(waits(), stops(), sets());
        ++(value == 4 ? got : stopped);
        if (value == 0) value = co_await c.wait();
        co_return value == 4;
    };
    const auto all = explore_all(100'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(stopped > 0);
    CHECK(got > 0);
}

TEST_CASE("a passed deadline ends the plain wait, and calls the hook of the other", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> plain, hooked;
        auto ended = co_await co::as_outcome(co::with_timeout(1ms, plain.wait()));
        CHECK(ended.is_error());
        int asked = 0;
        const auto hook = [&] {
            ++asked;
            hooked.set_stopped();
        };
        auto timed_out = co_await co::as_outcome(co::with_timeout(1ms, hooked.wait(hook)));
        CHECK(timed_out.is_error());
        CHECK(asked == 1);
    };
    simulation().run(root());
}

TEST_CASE("who has awaited a completion may destroy it at once", "[sync][completion]") {
    const auto root = []() -> task<> {
        auto c = std::make_unique<completion<int>>();
        completion<int>* const seen = c.get();
        const auto sets = [&]() -> task<> {
            seen->set_value(1);
            co_return;
        };
        const auto waits = [&]() -> task<> {
            const int one = co_await c->wait();
            CHECK(one == 1);
            c.reset();
        };
        co_await co::when_all(waits(), sets());
    };
    CHECK_FALSE(explore_all(1000, root, [] { return true; }).failing);
}

TEST_CASE("a completion that dies while a task waits for it prints the task", "[sync][completion]") {
    const std::string words = last_words([] {
        simulation sim;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            completion<int> c;
            const auto waits = [&]() -> task<> { (void)co_await c.wait(); };
            co::start_on(here, waits, {.name = "reader"});
            co_await simulation::settle();
        };
        sim.run(root());
    });
    CHECK(says(words, "completion destroyed while a task waits for it", "\"reader\"", "completion.test.cpp"));
}

TEST_CASE("a completion is awaited by one task, once", "[sync][completion]") {
    const std::string together = last_words([] {
        completion<int> c;
        simulation().run([&] { return co::when_all(c.wait(), c.wait()); });
    });
    CHECK(says(together, "awaited by two tasks at once"));
    const std::string again = last_words([] {
        completion<int> c;
        c.set_value(1);
        simulation().run([&] { return c.wait(); });
        simulation().run([&] { return c.wait(); });
    });
    CHECK(says(again, "awaited twice"));
}

TEST_CASE("a result may be set by another thread, and what was written before is seen", "[sync][completion]") {
    completion<int> c;
    int written = 0;
    std::thread setter([&] {
        written = 41;
        c.set_value(1);
    });
    const auto root = [&]() -> task<int> {
        const int one = co_await c.wait();
        co_return written + one;
    };
    CHECK(co::sync_wait(root()) == 42);
    setter.join();
}

TEST_CASE("a hook runs on the thread that asks to stop", "[sync][completion]") {
    completion<int> c;
    co::run_loop loop;
    std::thread::id asked_on;
    co::cancel_scope scope{co::executor_ref(loop)};
    const auto hook = [&] {
        asked_on = std::this_thread::get_id();
        c.set_value(2);
    };
    const auto waits = [&]() -> task<int> { co_return co_await c.wait(hook); };
    int got = 0;
    co::start_on(scope.ctx(), waits, [&](co::outcome<int> ended) { got = std::move(ended).value(); });
    while (loop.poll()) {}
    std::thread asker([&] { scope.request_stop(); });
    const std::thread::id expected = asker.get_id();
    asker.join();
    while (loop.poll()) {}
    CHECK(got == 2);
    CHECK(asked_on == expected);
}

TEST_CASE("a completion whose waiter was stopped can be awaited again at once", "[sync][completion]") {
    const auto root = []() -> task<> {
        completion<int> c;
        co::inplace_stop_source source;
        const auto again = [&]() -> task<int> {
            source.request_stop();
            auto sets = [&]() -> task<> {
                co_await co::sleep_for(1ms);
                c.set_value(3);
            };
            auto both = co::when_all(c.wait(), sets());
            const auto got = co_await std::move(both);
            co_return std::get<0>(got);
        };
        auto first = co::as_outcome(co::with(c.wait(), co::stop_on(source.get_token())));
        auto both = co::when_all(std::move(first), again());
        const auto ended = co_await std::move(both);
        CHECK(std::get<0>(ended).is_stopped());
        CHECK(std::get<1>(ended) == 3);
    };
    simulation().run(root());
}

TEST_CASE("a completion refuses an error that is none", "[sync][completion]") {
    const std::string words = last_words([] {
        completion<int> c;
        c.set_error(nullptr);
    });
    CHECK(says(words, "an outcome was made of a null exception_ptr"));
}
