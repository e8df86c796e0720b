// SPDX-License-Identifier: MIT
#include <cordon/testing/leak_check.hpp>

#include <cordon/core/stop_token.hpp>
#include <cordon/core/task.hpp>
#include <cordon/observe/leak_watchdog.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <thread>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::leak_check;
using co::testing::simulation;

[[maybe_unused]] std::size_t count(std::string_view text, std::string_view part) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++n;
    return n;
}

[[maybe_unused]] task<> read_row(co::async_event& answer) { co_await answer.wait(); }
[[maybe_unused]] task<> session(co::async_event& answer) { co_await read_row(answer); }
[[maybe_unused]] void spawn_one(co::task_group& group, co::async_event& answer, std::string_view name = {}) {
    group.spawn(session(answer), {.name = name});
}

/// A group whose tasks run when `run` is called, and are stopped in the end.
struct polled_group {
    ~polled_group() {
        group.request_stop();
        run();
        co::sync_wait(group.join());
    }
    void run() {
        while (loop.poll()) {}
    }
    co::run_loop loop;
    co::task_group group{loop};
};

}  // namespace

#if CORDON_TASK_RECORDS

TEST_CASE("a parked task is reported with its name, where it was spawned and where it waits, until it goes on",
          "[testing][leak_check][L-001]") {
    co::async_event answer{{.name = "answer"}};
    polled_group host;
    leak_check check;
    CHECK(check.live_tasks() == 0);
    CHECK(check.report().empty());

    spawn_one(host.group, answer, "ada");
    host.run();
    CHECK(check.live_tasks() == 1);
    const std::string report = check.report();
    INFO(report);
    CHECK(report.find("\"ada\"") != std::string::npos);
    CHECK(count(report, "spawned at leak_check.test.cpp:45 in spawn_one\n") == 1);
    CHECK(count(report, "    waits at leak_check.test.cpp:43 in session\n"
                        "    waits at leak_check.test.cpp:42 in read_row   event answer\n") == 1);
    CHECK_FALSE(check.settled(0ms));

    answer.set();
    host.run();
    CHECK(check.live_tasks() == 0);
    CHECK(check.report().empty());
    CHECK(check.settled(0ms));
}

TEST_CASE("what was alive before, is not counted", "[testing][leak_check][L-001]") {
    co::async_event answer;
    polled_group host;
    spawn_one(host.group, answer, "older");
    host.run();
    leak_check check;
    CHECK(check.live_tasks() == 0);
    CHECK(check.live_groups() == 0);
    spawn_one(host.group, answer, "younger");
    polled_group other;
    CHECK(check.live_tasks() == 1);
    CHECK(check.live_groups() == 1);
    CHECK(count(check.report(), "#") == 1);
}

TEST_CASE("a task that ends a moment later is no leak", "[testing][leak_check][L-002]") {
    co::thread_pool pool{1};
    co::task_group group{pool};
    leak_check check;
    const auto brief = []() -> task<> { co_await co::sleep_for(1ms); };
    group.spawn(brief());
    CHECK(check.settled());
    CHECK(check.report().empty());
    co::sync_wait(group.join());
}

TEST_CASE("settled gives up after its time, and does not wait in a simulation", "[testing][leak_check][L-002]") {
    co::async_event answer;
    polled_group host;
    leak_check check;
    spawn_one(host.group, answer);
    const auto begin = std::chrono::steady_clock::now();
    CHECK_FALSE(check.settled(10ms));
    CHECK(std::chrono::steady_clock::now() - begin >= 10ms);

    const auto root = [&]() -> task<> {
        const leak_check inside;
        const auto body = [&](co::task_group& group) -> task<> {
            const auto brief = []() -> task<> { co_return; };
            group.spawn(brief());
            const auto before = co::clock::now();
            CHECK_FALSE(inside.settled(1h));
            co_await simulation::settle();
            CHECK(inside.live_tasks() == 1);  // this body
            CHECK(co::clock::now() == before);
        };
        co_await co::with_group(body);
        CHECK(inside.settled(1h));
    };
    simulation().run(root());
}

TEST_CASE("a task may be excused by its name", "[testing][leak_check][L-006]") {
    co::async_event answer;
    polled_group host;
    leak_check check;
    spawn_one(host.group, answer, "metrics: cpu");
    spawn_one(host.group, answer, "metrics: io");
    spawn_one(host.group, answer, "session");
    host.run();
    check.ignore_name("metrics:");
    CHECK(check.live_tasks() == 1);
    CHECK(check.report().find("metrics") == std::string::npos);
    check.ignore_name("ses");
    CHECK(check.live_tasks() == 0);
}

TEST_CASE("a task may be excused by where it was spawned, and by any place where it waits",
          "[testing][leak_check][L-006]") {
    co::async_event answer;
    polled_group host;
    const auto left_with = [&](auto configure) {
        leak_check check;
        configure(check);
        spawn_one(host.group, answer);
        host.run();
        return check.live_tasks();
    };
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("spawn_one"); }) == 0);
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("leak_check.test.cpp"); }) == 0);
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("testing/leak_check.test.cpp"); }) == 0);
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("check.test.cpp"); }) == 1);  // part of a name
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("spawn"); }) == 1);
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in(""); }) == 1);
    CHECK(left_with([](leak_check& c) { c.ignore_spawned_in("session"); }) == 1);  // it waits there
    CHECK(left_with([](leak_check& c) { c.ignore_waiting_in("session"); }) == 0);
    CHECK(left_with([](leak_check& c) { c.ignore_waiting_in("read_row"); }) == 0);
    CHECK(left_with([](leak_check& c) { c.ignore_waiting_in("spawn_one"); }) == 1);  // it was spawned there
    CHECK(left_with([](leak_check& c) { c.ignore_name("x").ignore_waiting_in("leak_check.test.cpp"); }) == 0);
}

TEST_CASE("threads, timers and watchdogs of the library are never reported", "[testing][leak_check][L-008]") {
    const leak_check check;
    co::thread_pool pool{3};
    co::run_loop loop;
    std::thread looping([&] { loop.run(); });
    const co::leak_watchdog watchdog{pool, 1h, [](const co::task_info&) {}};
    const co::cancel_scope scope{pool, co::deadline::after(1h)};
    co::timer armed{[](co::timer&) noexcept {}};
    armed.when = co::clock::now() + 1h;
    loop.timers().arm(armed);
    std::this_thread::sleep_for(5ms);  // so that the watchdog has looked, and waits
    CHECK(check.live_tasks() == 0);
    CHECK(check.live_groups() == 0);
    CHECK(check.report().empty());
    loop.timers().cancel(armed);
    loop.stop();
    looping.join();
}

TEST_CASE("a hundred tasks that wait at one place for what no longer comes are one entry with a hundred names",
          "[testing][leak_check][L-015]") {
    co::async_event result{{.name = "result"}};
    polled_group host;
    leak_check check;
    const auto call = [](co::async_event& from) -> task<> {  // its caller has timed out, and nobody sets the event
        co_await from.wait();
    };
    for (int i = 0; i < 100; ++i) host.group.spawn(call(result), {.name = "call " + std::to_string(i)});
    host.run();
    {
        co::cancel_scope caller;
        caller.request_stop();
    }
    CHECK(check.live_tasks() == 100);
    const std::string report = check.report();
    INFO(report);
    CHECK(report.starts_with("100 tasks  spawned at leak_check.test.cpp:"));
    CHECK(count(report, "waits at") == 1);
    CHECK(count(report, "event result") == 1);
    for (int i = 0; i < 100; ++i) CHECK(count(report, "\"call " + std::to_string(i) + "\"") == 1);

    host.group.request_stop();  // what the caller should have done
    host.run();
    CHECK(check.report().empty());
}

TEST_CASE("a check of one group sees what is below it, at any depth, and nothing else", "[testing][leak_check]") {
    co::async_event answer, begun;
    polled_group host, other;
    leak_check check(host.group);
    spawn_one(other.group, answer, "elsewhere");
    other.run();
    CHECK(check.live_tasks() == 0);

    const auto nested = [](co::async_event& e) -> task<> {
        const auto body = [&](co::task_group& inner) -> task<> {
            inner.spawn(session(e), {.name = "grandchild"});
            co_return;
        };
        co_await co::with_group({.name = "inner"}, body);
    };
    host.group.spawn(nested(answer), {.name = "child"});
    host.run();
    const std::string report = check.report();
    INFO(report);
    CHECK(check.live_tasks() == 2);
    CHECK(check.live_groups() == 1);
    CHECK(report.find("\"child\"") != std::string::npos);
    CHECK(report.find("\"grandchild\"") != std::string::npos);
    CHECK(report.find("elsewhere") == std::string::npos);
    answer.set();
    host.run();
    CHECK(check.live_tasks() == 0);
}

TEST_CASE("checks of groups do not disturb each other when tests run in parallel", "[testing][leak_check]") {
    std::atomic<int> wrong{0};
    const auto one_test = [&] {
        for (int round = 0; round < 50; ++round) {
            co::async_event answer;
            polled_group host;
            leak_check check(host.group);
            spawn_one(host.group, answer);
            host.run();
            wrong += check.live_tasks() != 1;
            answer.set();
            host.run();
            wrong += check.live_tasks() != 0;
        }
    };
    std::thread first(one_test), second(one_test);
    first.join();
    second.join();
    CHECK(wrong == 0);
}

#else

TEST_CASE("without records nothing is counted", "[testing][leak_check]") {
    polled_group host;
    co::async_event answer;
    const leak_check check(host.group);
    answer.set();
    spawn_one(host.group, answer);
    CHECK(check.live_tasks() == 0);
    CHECK(check.settled());
    host.run();
}

#endif
