// SPDX-License-Identifier: MIT
#include <cordon/run/sync_wait.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <memory>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

template <class T>
co::task<T> give(T value) {
    co_return value;
}
co::task<> pause(co::clock::duration d) { co_await co::sleep_for(d); }
co::task<int> recurse(int depth) {
    if (depth == 0) co_return 0;
    co_return 1 + co_await recurse(depth - 1);
}

}  // namespace

TEST_CASE("sync_wait gives the value of what it runs", "[run][sync_wait]") {
    CHECK(co::sync_wait(give(42)) == 42);
    CHECK(co::sync_wait(give(std::string("text"))) == "text");
    CHECK(*co::sync_wait(give(std::make_unique<int>(7))) == 7);
    int there = 1;
    const auto refer = [](int& i) -> co::task<int&> { co_return i; };
    int& same = co::sync_wait(refer(there));
    CHECK(&same == &there);
    static_assert(std::is_void_v<decltype(co::sync_wait(pause(1ms)))>);
    co::sync_wait(pause(0ms));
    CHECK(co::sync_wait(recurse(10'000)) == 10'000);
}

TEST_CASE("sync_wait takes a callable that makes a task, and keeps it meanwhile", "[run][sync_wait]") {
    const std::string text(100, 'x');
    CHECK(co::sync_wait([text]() -> co::task<std::string> {
              co_await co::this_task::yield();
              co_return text;
          }) == text);
    const auto named = [n = std::make_shared<int>(7)]() -> co::task<int> { co_return *n; };
    CHECK(co::sync_wait(named) == 7);
    CHECK(co::sync_wait([] { return give(3); }) == 3);
}

TEST_CASE("sync_wait runs timers", "[run][sync_wait]") {
    const auto before = co::clock::now();
    co::sync_wait(co::sleep_for(2ms));  // real time: that sync_wait sleeps and wakes is what is tested
    CHECK(co::clock::now() - before >= 2ms);
    const auto late = co::sync_wait(co::as_outcome(co::with_timeout(1ms, co::sleep_for(1h))));
    REQUIRE(late.is_error());
    CHECK_THROWS_AS(co::sync_wait(co::with_timeout(1ms, pause(1h))), co::timeout_error);
}

TEST_CASE("sync_wait runs on the calling thread", "[run][sync_wait]") {
    std::thread::id ran;
    const auto look = [&]() -> co::task<> {
        co_await co::sleep_for(100us);
        ran = std::this_thread::get_id();
    };
    co::sync_wait(look());
    CHECK(ran == std::this_thread::get_id());
}

TEST_CASE("sync_wait throws the error, the refusal, and canceled for a stop", "[run][sync_wait]") {
    const auto fails = []() -> co::task<int> {
        co_await co::this_task::yield();
        throw std::out_of_range("too far");
    };
    CHECK_THROWS_AS(co::sync_wait(fails()), std::out_of_range);
    const auto refuses = []() -> co::task<int> {
        throw co::rejected(co::rejection(co::reject_reason::rate_limited, "api"));
        co_return 1;
    };
    CHECK_THROWS_AS(co::sync_wait(refuses()), co::rejected);

    co::inplace_stop_source source;
    source.request_stop(4);
    CHECK_THROWS_AS(co::sync_wait(co::with(pause(1h), co::stop_on(source.get_token()))), co::canceled);
    const auto gives_up = []() -> co::task<int> {
        co_await co::this_task::stop();
        co_return 1;
    };
    CHECK_THROWS_AS(co::sync_wait(gives_up()), co::canceled);
    CHECK_FALSE(std::is_base_of_v<std::exception, co::canceled>);
}

TEST_CASE("sync_wait returns when another thread gives what is waited for", "[run][sync_wait]") {
    co::completion<int> there;
    std::thread other([&] {
        std::this_thread::sleep_for(2ms);  // for sync_wait to fall asleep; if it does not, the test still holds
        there.set_value(6);
    });
    CHECK(co::sync_wait(there.wait()) == 6);
    other.join();
}

TEST_CASE("sync_wait on a thread that runs an executor throws logic_error, and starts nothing", "[run][sync_wait]") {
    bool started = false, refused = false;
    const auto inner = [&]() -> co::task<> {
        started = true;
        co_return;
    };
    const auto outer = [&]() -> co::task<> {
        co_await co::this_task::yield();
        try {
            co::sync_wait(inner());
        } catch (const std::logic_error&) {
            refused = true;
        }
    };
    co::sync_wait(outer());
    CHECK(refused);
    CHECK_FALSE(started);
    refused = false;
    co::testing::simulation sim;
    sim.run(outer());
    CHECK(refused);
    CHECK_FALSE(started);
    co::sync_wait(inner());  // and outside of it again
    CHECK(started);
}

TEST_CASE("what sync_wait runs is listed by its caller's place", "[run][sync_wait]") {
    const auto before = co::live_tasks().size();
    unsigned line = 0;
    const auto look = [&]() -> co::task<unsigned> {
        const auto all = co::live_tasks();
        const auto mine = std::find_if(all.begin(), all.end(), [](const auto& t) { return t.name == "sync_wait"; });
        co_return mine == all.end() ? 0 : mine->spawned_at.line();
    };
    line = std::source_location::current().line() + 1;
    CHECK(co::sync_wait(look()) == line);
    CHECK(co::live_tasks().size() == before);
}
