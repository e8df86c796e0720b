// SPDX-License-Identifier: MIT
#include <cordon/scope/overdue.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#if defined(__unix__)
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#endif

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::clock;
using cordon::outcome;
using cordon::overdue;
using cordon::overdue_policy;
using cordon::overdue_report;
using cordon::shield;
using cordon::sleep_for;
using cordon::task;
using cordon::with;
using cordon::with_timeout;
using cordon::within;
using cordon::testing::simulation;

/// Keeps what is reported, and when.
struct reports {
    std::vector<overdue_report> all;
    std::vector<clock::time_point> times;
    [[nodiscard]] overdue_policy policy(clock::duration after) { return overdue_policy(after, &reports::keep, this); }
    static void keep(const overdue_report& r, void* self) {
        static_cast<reports*>(self)->all.push_back(r);
        static_cast<reports*>(self)->times.push_back(clock::now());
    }
};

/// Ignores the stop for that long.
task<int> stubborn(std::chrono::nanoseconds d) {
    co_await shield(sleep_for(d), 24h);
    co_await sleep_for(24h);
    co_return 1;
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("an operation that ignores its deadline is reported while it is waited for: by name and place, once",
          "[scope][overdue][C-075]") {
    struct program {
        static task<> run(reports& seen, unsigned& line) {
            const auto begin = clock::now();
            line = std::source_location::current().line() + 1;
            auto timed = with(stubborn(30s), cordon::named("flush journal"), within(10s));
            const outcome<int> o = co_await as_outcome(std::move(timed));
            CHECK(o.is_error());
            CHECK(clock::now() - begin == 30s);
            CHECK(seen.times.size() == 1);
            CHECK(seen.times.at(0) - begin == 15s);
        }
    };
    simulation sim;
    reports seen;
    unsigned line = 0;
    sim.run(with(program::run(seen, line), overdue(seen.policy(5s))));
    REQUIRE(seen.all.size() == 1);
    const overdue_report& r = seen.all[0];
    CHECK(r.deadline_set_at.line() == line);
    CHECK(std::string_view(r.deadline_set_at.file_name()).ends_with("overdue.test.cpp"));
    CHECK(r.overdue_for == 5s);
#if CORDON_TASK_RECORDS
    CHECK(contains(r.task, "flush journal"));
    CHECK(contains(r.task, "in stubborn"));
    CHECK(contains(r.task, "overdue.test.cpp:"));
    CHECK(contains(r.task, "sleep"));
#endif
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("an awaitable of another library that outlasts a deadline is reported, and what it gives is kept",
          "[scope][overdue]") {
    struct other_library {
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> h) { *waits = h; }
        int await_resume() const noexcept { return 7; }
        std::coroutine_handle<>* waits;
    };
    simulation sim;
    reports seen;
    const auto program = [&]() -> task<> {
        const auto begin = clock::now();
        std::coroutine_handle<> waits;
        const auto asks = [&]() -> task<> {
            const auto foreign = [&]() -> task<int> {
                other_library answer{&waits};
                const int n = co_await answer;
                co_return n;
            };
            const int got = co_await with_timeout(10s, foreign());
            CHECK(got == 7);
        };
        const auto answers = [&]() -> task<> {
            co_await sleep_for(1s);
            CHECK(sim.armed_timers() == 1);
            co_await sleep_for(29s);
            waits.resume();
        };
        (void)co_await cordon::when_all(asks(), answers());
        REQUIRE(seen.times.size() == 1);
        CHECK(seen.times[0] - begin == 15s);
    };
    sim.run(with(program(), overdue(seen.policy(5s))));
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("what ends in time, at its deadline, or before it is overdue for long is not reported", "[scope][overdue]") {
    struct program {
        static task<> run() {
            co_await with_timeout(10s, sleep_for(9s));
            const outcome<void> at_once = co_await as_outcome(with_timeout(10s, sleep_for(1h)));
            CHECK(at_once.is_error());
            const outcome<int> soon = co_await as_outcome(with_timeout(10s, stubborn(14s)));
            CHECK(soon.is_error());
            auto ready = []() -> task<int> { co_return 1; };
            const int one = co_await with_timeout(1ns, ready());
            CHECK(one == 1);
            const outcome<int> never_started = co_await as_outcome(with_timeout(0s, ready()));
            CHECK(never_started.is_error());
            co_await sleep_for(1h);
        }
    };
    simulation sim;
    reports seen;
    sim.run(with(program::run(), overdue(seen.policy(5s))));
    CHECK(seen.all.empty());
}

TEST_CASE("an operation that was stopped by its caller, not by its deadline, is not reported", "[scope][overdue]") {
    struct program {
        static task<> run(cordon::inplace_stop_source& source) {
            source.request_stop();
            auto timed = with_timeout(10s, stubborn(30s));
            const outcome<int> o = co_await as_outcome(with(std::move(timed), cordon::stop_on(source.get_token())));
            CHECK(o.is_stopped());
        }
    };
    simulation sim;
    reports seen;
    cordon::inplace_stop_source source;
    sim.run(with(program::run(source), overdue(seen.policy(5s))));
    CHECK(seen.all.empty());
}

TEST_CASE("each deadline that is ignored is reported by the policy around it", "[scope][overdue]") {
    struct program {
        static task<> run(reports& inner) {
            auto both = with(stubborn(60s), within(20s), overdue(inner.policy(2s)), within(10s));
            const outcome<int> o = co_await as_outcome(std::move(both));
            CHECK(o.is_error());
        }
    };
    simulation sim;
    reports outer, inner;
    const auto begin = sim.now();
    sim.run(with(program::run(inner), overdue(outer.policy(5s))));
    REQUIRE(outer.all.size() == 1);
    REQUIRE(inner.all.size() == 1);
    CHECK(inner.times[0] - begin == 12s);
    CHECK(outer.times[0] - begin == 25s);
}

TEST_CASE("overdue at once is a report at the deadline itself, and still only one", "[scope][overdue]") {
    struct program {
        static task<> run() {
            const outcome<int> o = co_await as_outcome(with_timeout(10s, stubborn(30s)));
            CHECK(o.is_error());
        }
    };
    for (const clock::duration after : {clock::duration(0), clock::duration(-1s)}) {
        simulation sim;
        reports seen;
        const auto begin = sim.now();
        sim.run(with(program::run(), overdue(seen.policy(after))));
        REQUIRE(seen.all.size() == 1);
        CHECK(seen.times[0] - begin == 10s);
        CHECK(seen.all[0].overdue_for == 0s);
    }
}

TEST_CASE("a policy that never reports arms no second timer", "[scope][overdue]") {
    struct program {
        static task<> run() {
            const outcome<int> o = co_await as_outcome(with_timeout(10s, stubborn(30s)));
            CHECK(o.is_error());
        }
    };
    simulation sim;
    reports seen;
    sim.run(with(program::run(), overdue(seen.policy((clock::duration::max)()))));
    CHECK(seen.all.empty());
    CHECK(sim.armed_timers() == 0);
}

#if defined(__unix__)

TEST_CASE("without a policy the report goes to stderr after a second", "[scope][overdue]") {
    struct program {
        static task<> run() {
            auto timed = with(stubborn(30s), cordon::named("flush journal"), within(10s));
            const outcome<int> o = co_await as_outcome(std::move(timed));
            CHECK(o.is_error());
        }
    };
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    std::fflush(stderr);
    const int kept = dup(STDERR_FILENO);
    dup2(fds[1], STDERR_FILENO);
    close(fds[1]);
    simulation sim;
    sim.run(program::run());
    std::fflush(stderr);
    dup2(kept, STDERR_FILENO);
    close(kept);
    std::string said;
    char buffer[512];
    for (ssize_t n; (n = read(fds[0], buffer, sizeof buffer)) > 0;) said.append(buffer, static_cast<std::size_t>(n));
    close(fds[0]);
    CHECK(contains(said, "overdue by 1000 ms"));
    CHECK(contains(said, "overdue.test.cpp:"));
#if CORDON_TASK_RECORDS
    CHECK(contains(said, "flush journal"));
#endif
}

#endif
