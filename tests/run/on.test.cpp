// SPDX-License-Identifier: MIT
#include <cordon/run/on.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

inline constexpr co::context_key<std::string> request{"request"};

/// A loop with a thread of its own.
class other_thread {
public:
    other_thread() : thread_([this] { loop_.run(); }) {}
    ~other_thread() {
        loop_.stop();
        thread_.join();
    }
    [[nodiscard]] co::executor_ref executor() noexcept { return loop_; }
    [[nodiscard]] co::run_loop& loop() noexcept { return loop_; }
    [[nodiscard]] std::thread::id id() const noexcept { return thread_.get_id(); }

private:
    co::run_loop loop_;
    std::thread thread_;
};

co::task<std::thread::id> where() { co_return std::this_thread::get_id(); }
co::task<std::thread::id> where_after_a_sleep() {
    co_await co::sleep_for(100us);
    co_return std::this_thread::get_id();
}
co::task<> pause(co::clock::duration d) { co_await co::sleep_for(d); }
co::task<int> fail() {
    co_await co::this_task::yield();
    throw std::out_of_range("there");
}

}  // namespace

TEST_CASE("on runs there, and the awaiting task goes on where it came from", "[run][on]") {
    other_thread there;
    const auto go = [&]() -> co::task<> {
        const auto here = std::this_thread::get_id();
        const auto ran = co_await co::on(there.executor(), where());
        CHECK(ran == there.id());
        CHECK(std::this_thread::get_id() == here);
        const auto after_a_sleep = co_await co::on(there.executor(), where_after_a_sleep());
        CHECK(after_a_sleep == there.id());
        CHECK(std::this_thread::get_id() == here);
    };
    co::sync_wait(go());
}

TEST_CASE("on takes a callable and keeps its captures", "[run][on]") {
    other_thread there;
    const auto go = [&]() -> co::task<> {
        const std::string text = "long enough to need an allocation of its own";
        const auto named = [text]() -> co::task<std::size_t> {
            co_await co::sleep_for(100us);
            co_return text.size();
        };
        const std::size_t n = co_await co::on(there.executor(), named);
        CHECK(n == text.size());
        const auto id = co_await co::on(there.executor(), [] { return where(); });
        CHECK(id == there.id());
        co_await co::on(there.executor(), co::sleep_for(100us));
    };
    co::sync_wait(go());
}

TEST_CASE("errors, refusals and stops come back from there", "[run][on]") {
    other_thread there;
    const auto go = [&]() -> co::task<> {
        const auto here = std::this_thread::get_id();
        const auto failed = co_await co::as_outcome(co::on(there.executor(), fail()));
        REQUIRE(failed.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(failed.error()), std::out_of_range);
        const auto refuse = []() -> co::task<> {
            throw co::rejected(co::rejection(co::reject_reason::full));
            co_return;
        };
        const auto refused = co_await co::as_outcome(co::on(there.executor(), refuse));
        CHECK(refused.is_rejected());
        const auto gives_up = []() -> co::task<> { co_await co::this_task::stop(); };
        const auto stopped = co_await co::as_outcome(co::on(there.executor(), gives_up));
        CHECK(stopped.is_stopped());
        CHECK(std::this_thread::get_id() == here);
    };
    co::sync_wait(go());
}

TEST_CASE("stop, deadline, values and record go along, only the executor is another", "[run][on]") {
    other_thread there;
    struct probe {
        static co::task<bool> look(co::deadline expected, co::executor_ref runs_on) {
            const std::string* const text = co_await co::this_task::get(request);
            const co::deadline d = co_await co::this_task::deadline();
            const co::executor_ref e = co_await co::this_task::executor();
            co_return text != nullptr && *text == "r-42" && d == expected && e == runs_on;
        }
    };
    const auto go = [&]() -> co::task<> {
        const co::deadline soon = co::deadline::after(1h);
        auto probing = co::on(there.executor(), probe::look(soon, there.executor()));
        const bool good = co_await co::with(std::move(probing), co::until(soon), request("r-42"));
        CHECK(good);
        // a deadline of here stops what waits there, and is a timeout here
        const auto late = co_await co::as_outcome(co::with_timeout(2ms, co::on(there.executor(), pause(1h))));
        CHECK(late.is_error());
        // and one of there
        const auto inner = []() { return co::with_timeout(2ms, pause(1h)); };
        const auto late_there = co_await co::as_outcome(co::on(there.executor(), inner));
        CHECK(late_there.is_error());
    };
    co::sync_wait(go());
}

TEST_CASE("a computation there that never waits notices a deadline of here", "[run][on]") {
    other_thread there;
    const auto spins = []() -> co::task<int> {
        int rounds = 0;
        for (;; ++rounds) {
            const bool stop = co_await co::this_task::stop_requested();
            if (stop) co_return rounds;
        }
    };
    const auto go = [&]() -> co::task<> {
        // its value is there when it ends, which wins over the deadline that made it end
        const int rounds = co_await co::with_timeout(2ms, co::on(there.executor(), spins));
        CHECK(rounds >= 0);
    };
    co::sync_wait(go());
}

TEST_CASE("on the executor that is current already it still takes its turn", "[run][on]") {
    const auto go = [&]() -> co::task<> {
        const co::executor_ref here = co_await co::this_task::executor();
        const auto id = co_await co::on(here, where_after_a_sleep());
        CHECK(id == std::this_thread::get_id());
        int n = 0;
        for (int i = 0; i < 10'000; ++i) {
            const auto one = []() -> co::task<int> { co_return 1; };
            n += co_await co::on(here, one);
        }
        CHECK(n == 10'000);
    };
    co::sync_wait(go());
}

TEST_CASE("two loops play ping-pong a hundred thousand times", "[run][on]") {
    other_thread there;
    struct game {
        static co::task<int> pong(int i) { co_return i + 1; }
    };
    const auto go = [&]() -> co::task<int> {
        int i = 0;
        while (i < 100'000) i = co_await co::on(there.executor(), game::pong(i));
        co_return i;
    };
    CHECK(co::sync_wait(go()) == 100'000);
}

TEST_CASE("on nests: from here to there, back to here, and on to there", "[run][on]") {
    other_thread there;
    struct nest {
        static co::task<int> down(co::executor_ref a, co::executor_ref b, int depth) {
            if (depth == 0) co_return 0;
            const int below = co_await co::on(a, down(b, a, depth - 1));
            co_return below + 1;
        }
    };
    const auto go = [&]() -> co::task<> {
        const co::executor_ref here = co_await co::this_task::executor();
        const int depth = co_await nest::down(there.executor(), here, 500);
        CHECK(depth == 500);
        const auto stopped = co_await co::as_outcome(
            co::with_timeout(3ms, co::on(there.executor(), co::on(here, co::on(there.executor(), pause(1h))))));
        CHECK(stopped.is_error());
    };
    co::sync_wait(go());
}

TEST_CASE("branches and groups may run on several threads, and end here", "[run][on]") {
    other_thread one, two;
    const auto go = [&]() -> co::task<> {
        const auto here = std::this_thread::get_id();
        const auto ids = co_await co::when_all(co::on(one.executor(), where_after_a_sleep()),
                                               co::on(two.executor(), where_after_a_sleep()), where());
        CHECK(std::get<0>(ids) == one.id());
        CHECK(std::get<1>(ids) == two.id());
        CHECK(std::get<2>(ids) == here);
        const auto first = co_await co::when_any(co::on(one.executor(), pause(1h)), co::on(two.executor(), pause(1ms)));
        CHECK(first.index() == 1);
        const auto in_group = [&](co::task_group& group) -> co::task<> {
            for (int i = 0; i < 10; ++i) group.spawn(where_after_a_sleep());
            co_return;
        };
        co_await co::on(one.executor(), co::with_group(in_group));
        CHECK(std::this_thread::get_id() == here);
    };
    co::sync_wait(go());
}

TEST_CASE("inside a simulation nothing runs on another executor", "[run][on]") {
    const auto text = last_words([] {
        co::run_loop loop;
        co::testing::simulation sim;
        sim.run(co::on(loop, where()));
    });
    CHECK(says(text, "simulation"));
    co::testing::simulation sim;
    const auto same = [&]() -> co::task<int> {
        const auto one = []() -> co::task<int> { co_return 1; };
        co_return co_await co::on(sim, one);
    };
    CHECK(sim.run(same()) == 1);
}

TEST_CASE("going to no executor says so", "[run][on]") {
    const std::string words = last_words([] { co::sync_wait(co::on(co::executor_ref(), co::this_task::yield())); });
    CHECK(says(words, "on(): there is no executor"));
}
