// SPDX-License-Identifier: MIT
#include <cordon/scope/future.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/channel.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"
#include "scope/works.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

namespace {

co::task<int> refuse() {
    throw co::rejected(co::rejection(co::reject_reason::circuit_open, "breaker"));
    co_return 0;
}

/// An awaitable thing of value semantics: two futures of one type compare by what they give.
static_assert(std::is_move_constructible_v<co::future<int>> && std::is_move_assignable_v<co::future<int>>);
static_assert(!std::is_copy_constructible_v<co::future<int>>);
static_assert(co::awaitable<co::future<int>&> && co::awaitable<co::future<int>>);

}  // namespace

TEST_CASE("a future gives the result of its task: waited for, or there already", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        auto number = group.spawn_future(later(5ms, 42), {.name = "number"});
        auto nothing = group.spawn_future(pause(1ms));
        auto owner = group.spawn_future(later(1ms, std::make_unique<int>(7)));
        auto sleeping = group.spawn_future(co::sleep_for(2ms));
        CHECK_FALSE(number.ready());
        const auto before = co::clock::now();
        const int n = co_await number;
        CHECK(n == 42);
        CHECK(co::clock::now() - before == 5ms);
        CHECK(nothing.ready());
        CHECK(owner.ready());
        co_await nothing;
        co_await sleeping;
        const auto owned = co_await owner;
        CHECK(*owned == 7);
        CHECK(co::clock::now() - before == 5ms);
        co_await group.join();
    });
}

TEST_CASE("a future of a callable, of a reference and of a temporary", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int there = 1;
        const auto named = [&there]() -> co::task<int&> {
            co_await co::sleep_for(1ms);
            co_return there;
        };
        auto same = group.spawn_future(named);
        int& seen = co_await same;
        CHECK(&seen == &there);
        const std::string text = "long enough to need an allocation of its own";
        auto captured = group.spawn_future([text]() -> co::task<std::string> { co_return text; });
        const std::string back = co_await captured;
        CHECK(back == text);
        const int direct = co_await group.spawn_future(later(1ms, 3));
        CHECK(direct == 3);
        co_await group.join();
    });
}

TEST_CASE("a future throws the error of its task, the very object", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        auto failing = group.spawn_future(fail_after(1ms, "failed"));
        std::string what;
        try {
            co_await failing;
        } catch (const std::runtime_error& e) {
            what = e.what();
        }
        CHECK(what == "failed");
        co_await group.join();
        CHECK(group.error_count() == 1);
    });
}

TEST_CASE("a refusal in the task is a refusal of its future, and a failure in the group", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        auto refused = group.spawn_future(refuse());
        const auto ended = co_await co::as_outcome(refused);
        REQUIRE(ended.is_rejected());
        CHECK(ended.rejection().who() == "breaker");
        co_await group.join();
        CHECK(group.error_count() == 1);
    });
}

TEST_CASE("the future of a refused spawn is rejected, by the name of the group", "[scope][future][G9]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.name = "uploads", .max_running = 1}};
        auto first = group.spawn_future(later(1ms, 1));
        auto full = group.spawn_future(later(1ms, 2));
        CHECK(full.ready());
        const auto said = co_await co::as_outcome(full);
        REQUIRE(said.is_rejected());
        CHECK(said.rejection().reason == co::reject_reason::full);
        CHECK(said.rejection().who() == "uploads");
        group.request_stop();
        auto closed = group.spawn_future(later(1ms, 3));
        bool thrown = false;
        try {
            (void)co_await closed;
        } catch (const co::rejected& r) {
            thrown = r.rejection().reason == co::reject_reason::closed;
        }
        CHECK(thrown);
        co_await group.join();
    });
}

TEST_CASE("the future of a stopped task ends stopped", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        auto running = group.spawn_future(later(1h, 1));
        co_await simulation::settle();
        auto not_begun = group.spawn_future(later(1h, 2));
        group.request_stop();
        const auto a = co_await co::as_outcome(running);
        const auto b = co_await co::as_outcome(not_begun);
        CHECK(a.is_stopped());
        CHECK(b.is_stopped());
        auto gives_up = []() -> co::task<int> {
            co_await co::this_task::stop();
            co_return 1;
        };
        co_await group.join();
        co::task_group other{co::executor_ref(sim)};
        auto by_itself = other.spawn_future(gives_up);
        const auto c = co_await co::as_outcome(by_itself);
        CHECK(c.is_stopped());
        co_await other.join();
        CHECK(other.error_count() == 1);
    });
}

TEST_CASE("a stop ends the wait for a future, whose result can still be awaited", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        auto result = group.spawn_future(later(10ms, 5));
        for (int i = 0; i < 3; ++i) {
            const auto gave_up = co_await co::as_outcome(co::with_timeout(1ms, result));
            CHECK(gave_up.is_error());
        }
        const int n = co_await result;
        CHECK(n == 5);
        co_await group.join();
    });
}

TEST_CASE("a result and a stop at the same time: the result is had, or is still there", "[scope][future]") {
    const auto make = []() -> co::task<bool> {
        co::task_group group{co::executor_ref(*simulation::current())};
        auto result = group.spawn_future(later(1ms, 5));
        const auto first = co_await co::as_outcome(co::with_timeout(1ms, result));
        int n = 0;
        if (first.has_value()) n = *first;
        else n = co_await result;
        co_await group.join();
        co_return n == 5;
    };
    const auto seen = co::testing::explore_all(10'000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("a future that is dropped does not stop its task", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int done = 0;
        const auto work = [&done]() -> co::task<int> {
            co_await co::sleep_for(1ms);
            co_return ++done;
        };
        (void)group.spawn_future(work);
        auto replaced = group.spawn_future(work);
        replaced = group.spawn_future(work);
        const int n = co_await replaced;
        CHECK(n > 0);
        co_await group.join();
        CHECK(done == 3);
    });
}

TEST_CASE("a future may outlive its group", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        std::optional<co::future<std::string>> kept;
        {
            co::task_group group{co::executor_ref(sim)};
            kept.emplace(group.spawn_future(later(1ms, std::string("kept"))));
            co_await group.join();
        }
        const std::string text = co_await *kept;
        CHECK(text == "kept");
        std::optional<co::future<int>> dropped;
        co_await co::with_group([&](co::task_group& group) -> co::task<> {
            dropped.emplace(group.spawn_future(later(1ms, 1)));
            co_return;
        });
        dropped.reset();
    });
}

TEST_CASE("a hundred results that arrive in random order are had in the order of submission",
          "[scope][future][G-021][G12]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulate(
            [](simulation& sim) -> co::task<> {
                std::minstd_rand dice(static_cast<std::uint32_t>(sim.seed()));
                co::task_group group{co::executor_ref(sim), {.max_running = 100}};
                std::vector<co::future<int>> results;
                for (int i = 0; i < 100; ++i)
                    results.push_back(group.spawn_future(later(std::chrono::milliseconds(dice() % 50), i)));
                std::vector<int> got;
                for (auto& result : results) got.push_back(co_await result);
                co_await group.join();
                std::vector<int> expected;
                for (int i = 0; i < 100; ++i) expected.push_back(i);
                CHECK(got == expected);
            },
            seed);
    }
}

TEST_CASE("a future awaited twice, or by two tasks at once, says so and terminates", "[scope][future]") {
    const auto twice = last_words([] {
        simulation sim;
        sim.run([](simulation& s) -> co::task<> {
            co::task_group group{co::executor_ref(s)};
            auto result = group.spawn_future(later(1ms, 5));
            (void)co_await result;
            (void)co_await result;
        }(sim));
    });
    CAPTURE(twice);
    CHECK(says(twice, "awaited twice"));
    const auto at_once = last_words([] {
        simulation sim;
        sim.run([](simulation& s) -> co::task<> {
            co::task_group group{co::executor_ref(s)};
            auto result = group.spawn_future(later(1ms, 5));
            auto both = co::when_all(result, result);
            co_await std::move(both);
        }(sim));
    });
    CAPTURE(at_once);
    CHECK(says(at_once, "by two tasks at once"));
}

TEST_CASE("what is made of a temporary future keeps the result alive", "[scope][future]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        const auto bounded = [](co::future<int> f) { return co::with_timeout(1s, std::move(f)); };
        auto timed = bounded(group.spawn_future(later(1ms, 3)));
        const int three = co_await std::move(timed);
        CHECK(three == 3);
        std::optional<int> called;
        co::start_on(co::executor_ref(sim), group.spawn_future(later(1ms, 4)),
                     [&](co::outcome<int> o) { called = *std::move(o); });
        group.spawn(group.spawn_future(later(1ms, 5)));
        co_await group.join();
        co_await co::sleep_for(1ms);
        CHECK(called == 4);
    });
}

TEST_CASE("a thread waits for a future: its result, its error, its stop, and not longer than it may", "[scope][future]") {
    co::thread_pool pool(1);
    co::task_group group{co::executor_ref(pool)};
    co::async_event go;
    const auto seven = [&]() -> co::task<int> {
        co_await go.wait();
        co_return 7;
    };
    const auto fails = []() -> co::task<int> {
        throw std::runtime_error("no such row");
        co_return 0;
    };
    co::future<int> result = group.spawn_future(seven);
    co::future<int> error = group.spawn_future(fails);
    co::cancel_scope impatient;
    impatient.request_stop();
    CHECK(result.wait_blocking(impatient).is_stopped());
    CHECK_FALSE(result.ready());
    go.set();
    CHECK(*result.wait_blocking() == 7);
    CHECK_THROWS_WITH(error.wait_blocking().value(), "no such row");
    co::async_event never;
    const auto waits = [&]() -> co::task<int> {
        co_await never.wait();
        co_return 0;
    };
    co::future<int> stopped = group.spawn_future(waits);
    group.request_stop();
    CHECK(stopped.wait_blocking().is_stopped());
    CHECK(group.join_blocking().has_value());
}

TEST_CASE("awaiting a future that has been moved from says so", "[scope][future]") {
    const std::string words = last_words([] {
        simulation sim;
        sim.run([](co::executor_ref here) -> co::task<> {
            co::task_group group{here};
            auto first = group.spawn_future(later(1ms, 1));
            auto second = std::move(first);
            co_await first;
        }(co::executor_ref(sim)));
    });
    CHECK(says(words, "awaiting a future that has been moved from"));
}

TEST_CASE("a callable whose copy throws leaves nothing behind", "[scope][future]") {
    struct fragile {
        fragile() = default;
        fragile(const fragile&) { throw std::runtime_error("copied"); }
        co::task<int> operator()() const { co_return 1; }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        const fragile f;
        CHECK_THROWS_AS(group.spawn_future(f), std::runtime_error);
        CHECK(group.size() == 0);
        co_await group.join();
    });
}

TEST_CASE("results are taken in the order of the spawns, whoever ends first, and producers are held back",
          "[scope][future][G-025]") {
    simulate([](simulation& sim) -> co::task<> {
        constexpr std::size_t limit = 4;
        co::channel<co::future<int>> in_order{limit};
        std::minstd_rand random(7);
        std::size_t running = 0, most = 0;
        const auto work = [&](int i) -> co::task<int> {
            most = std::max(most, ++running);
            co_await co::sleep_for(std::chrono::milliseconds(random() % 20));
            --running;
            if (i == 60) throw std::runtime_error("60");
            co_return i;
        };
        bool all_sent = false;
        const auto produce = [&](co::task_group& group) -> co::task<> {
            for (int i = 0; i < 100; ++i) {
                auto result = group.spawn_future(work(i));
                const bool sent = co_await in_order.send(std::move(result));
                if (!sent) break;
            }
            all_sent = true;
            in_order.close();
        };
        std::vector<int> taken;
        int errors = 0;
        const auto consume = [&]() -> co::task<> {
            for (;;) {
                std::optional<co::future<int>> next = co_await in_order.receive();
                if (!next) break;
                const co::outcome<int> ended = co_await co::as_outcome(*next);
                if (ended.has_value()) taken.push_back(*ended);
                else ++errors;
            }
        };
        co::task_group group{co::executor_ref(sim)};
        co_await co::when_all(produce(group), consume());
        co_await group.join();
        CHECK(all_sent);
        CHECK(errors == 1);
        CHECK(taken.size() == 99);
        CHECK(std::is_sorted(taken.begin(), taken.end()));
        CHECK(most <= limit + 2);  // those in the channel, the one that is sent and the one that is awaited
    });
}
