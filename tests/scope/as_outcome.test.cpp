// SPDX-License-Identifier: MIT
#include <cordon/scope/as_outcome.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::clock;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::task;
using cordon::with;
using cordon::with_timeout;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

using lines = std::vector<std::string>;

task<int> give(int n) { co_return n; }
task<int> give_after(std::chrono::nanoseconds d, int n) {
    co_await sleep_for(d);
    co_return n;
}
task<int> fail_after(std::chrono::nanoseconds d, const char* what) {
    if (d != 0ns) co_await sleep_for(d);
    throw std::runtime_error(what);
}
task<int> refuse_after(std::chrono::nanoseconds d) {
    if (d != 0ns) co_await sleep_for(d);
    throw cordon::rejected(cordon::rejection(cordon::reject_reason::full, "queue", 2s));
}
task<int> stop_itself_after(std::chrono::nanoseconds d) {
    if (d != 0ns) co_await sleep_for(d);
    co_await this_task::stop();
    co_return 1;
}
task<> request_stop_after(std::chrono::nanoseconds d, inplace_stop_source& source) {
    co_await sleep_for(d);
    source.request_stop();
}

/// Runs `op` below a stop that comes after `when`. Gives what came out further up.
template <class T>
task<outcome<T>> stopped_outside(std::chrono::nanoseconds when, task<T> op) {
    inplace_stop_source source;
    auto both = co_await cordon::when_all(as_outcome(with(std::move(op), stop_on(source.get_token()))),
                                          request_stop_after(when, source));
    co_return std::get<0>(std::move(both));
}

template <class T>
std::string how(const outcome<T>& o) {
    return o.has_value() ? "value" : o.is_error() ? "error" : o.is_rejected() ? "rejected" : "stopped";
}

}  // namespace

TEST_CASE("the outcome of an operation is given as a value and never thrown", "[scope][as_outcome][D2]") {
    struct program {
        static task<> run(std::chrono::nanoseconds d) {
            const outcome<int> value = co_await as_outcome(give_after(d, 3));
            CHECK(value.value() == 3);
            const outcome<int> error = co_await as_outcome(fail_after(d, "broken"));
            REQUIRE(error.is_error());
            CHECK_THROWS_WITH(std::rethrow_exception(error.error()), "broken");
            const outcome<int> refused = co_await as_outcome(refuse_after(d));
            REQUIRE(refused.is_rejected());
            CHECK(refused.rejection().who() == "queue");
            CHECK(refused.rejection().retry_after == 2s);
            const outcome<int> stopped = co_await as_outcome(stop_itself_after(d));
            CHECK(stopped.is_stopped());
            const outcome<void> nothing = co_await as_outcome(sleep_for(d));
            CHECK(nothing.has_value());
        }
    };
    simulation sim;
    sim.run(program::run(0ns));
    sim.run(program::run(1s));
}

TEST_CASE("an outcome holds references, what can only be moved, and other outcomes", "[scope][as_outcome]") {
    struct program {
        static task<int&> same(int& n) { co_return n; }
        static task<std::unique_ptr<int>> owned() { co_return std::make_unique<int>(5); }
        static task<> run() {
            int n = 1;
            outcome<int&> r = co_await as_outcome(same(n));
            CHECK(&r.value() == &n);
            outcome<std::unique_ptr<int>> p = co_await as_outcome(owned());
            CHECK(**p == 5);
            const outcome<outcome<int>> nested = co_await as_outcome(as_outcome(fail_after(0ns, "inner")));
            REQUIRE(nested.has_value());
            CHECK(nested->is_error());
            const outcome<outcome<int>> stopped = co_await as_outcome(as_outcome(stop_itself_after(1ms)));
            REQUIRE(stopped.has_value());  // the inner one holds it
            CHECK(stopped->is_stopped());
        }
    };
    simulation sim;
    sim.run(program::run());
}

TEST_CASE("an exception of the operation is the very object", "[scope][as_outcome]") {
    struct program {
        static task<> rethrow(std::exception_ptr e) {
            co_await this_task::yield();
            std::rethrow_exception(e);
        }
        static task<bool> run() {
            const auto e = std::make_exception_ptr(42);
            const outcome<void> o = co_await as_outcome(rethrow(e));
            co_return o.error() == e;
        }
    };
    CHECK(cordon::sync_wait(program::run()));
}

TEST_CASE("a stop that comes from inside is held, whoever asked goes on", "[scope][as_outcome][D1]") {
    struct program {
        static task<lines> run() {
            lines log;
            inplace_stop_source source;
            auto inner = with(give_after(1h, 1), stop_on(source.get_token()));
            auto both = co_await cordon::when_all(as_outcome(std::move(inner)), request_stop_after(1s, source));
            log.push_back(how(std::get<0>(both)));
            const bool stop = co_await this_task::stop_requested();
            log.push_back(stop ? "is to stop" : "goes on");
            co_await sleep_for(1s);
            log.push_back("waits again");
            co_return log;
        }
    };
    simulation sim;
    CHECK(sim.run(program::run()) == lines{"stopped", "goes on", "waits again"});
}

TEST_CASE("a stop of the awaiting task itself goes on up through as_outcome", "[scope][as_outcome][D1]") {
    struct program {
        struct guard {
            lines* log;
            ~guard() { log->push_back("destroyed"); }
        };
        static task<int> once(lines& log) {
            const guard g{&log};
            const outcome<int> o = co_await as_outcome(give_after(1h, 1));
            log.push_back("resumed with " + how(o));
            co_return 1;
        }
        static task<int> nested(lines& log) {
            const guard g{&log};
            const auto o = co_await as_outcome(as_outcome(as_outcome(once(log))));
            log.push_back("resumed with " + how(o));
            co_return 1;
        }
    };
    simulation sim;
    lines log;
    CHECK(sim.run(stopped_outside(1s, program::once(log))).is_stopped());
    CHECK(log == lines{"destroyed"});
    log.clear();
    CHECK(sim.run(stopped_outside(1s, program::nested(log))).is_stopped());
    CHECK(log == lines{"destroyed", "destroyed"});
}

TEST_CASE("under a stop a value, an error or a refusal that is already there still wins", "[scope][as_outcome][D1]") {
    struct program {
        /// Ends by itself, whatever stops it.
        static task<std::string> ends(task<int> op) {
            const auto o = co_await as_outcome(cordon::shield(std::move(op), 1h));
            co_return how(o);
        }
        static task<std::string> ready(inplace_stop_source& source) {
            async_semaphore s(1);
            source.request_stop();
            const outcome<void> permit = co_await as_outcome(s.acquire());
            const outcome<int> value = co_await as_outcome(give(1));
            co_return how(permit) + " " + how(value);
        }
    };
    simulation sim;
    CHECK(sim.run(stopped_outside(1s, program::ends(give_after(2s, 1)))).value() == "value");
    CHECK(sim.run(stopped_outside(1s, program::ends(fail_after(2s, "e")))).value() == "error");
    CHECK(sim.run(stopped_outside(1s, program::ends(refuse_after(2s)))).value() == "rejected");
    inplace_stop_source source;
    CHECK(sim.run(with(program::ready(source), stop_on(source.get_token()))) == "value value");
}

TEST_CASE("an operation that stops itself while its task is to stop takes the task along", "[scope][as_outcome][D1]") {
    struct program {
        static task<int> run(bool& resumed) {
            auto own = cordon::shield(stop_itself_after(2s), 1h);
            const outcome<int> o = co_await as_outcome(std::move(own));
            resumed = o.is_stopped();
            co_return 1;
        }
    };
    simulation sim;
    bool resumed = false;
    CHECK(sim.run(stopped_outside(1s, program::run(resumed))).is_stopped());
    CHECK_FALSE(resumed);
    CHECK(sim.run(stopped_outside(1h, program::run(resumed))).has_value());
    CHECK(resumed);
}

TEST_CASE("a deadline around the awaiting task goes on up, one that was set inside is an error",
          "[scope][as_outcome][D1]") {
    struct program {
        static task<std::string> inside() {
            const outcome<int> o = co_await as_outcome(with_timeout(1s, give_after(1h, 1)));
            co_return how(o);
        }
        static task<std::string> around(bool& resumed) {
            const outcome<int> o = co_await as_outcome(give_after(1h, 1));
            resumed = true;
            co_return how(o);
        }
    };
    simulation sim;
    CHECK(sim.run(program::inside()) == "error");
    bool resumed = false;
    CHECK_THROWS_AS(sim.run(with_timeout(1s, program::around(resumed))), cordon::timeout_error);
    CHECK_FALSE(resumed);
}

TEST_CASE("a deadline that has passed, though no timer has fired yet, takes a stopped operation along",
          "[scope][as_outcome][D1]") {
    struct program {
        static task<> burn_then_stop(clock::time_point until) {
            while (clock::now() < until) {}  // real time: the loop is kept from firing its timers
            co_await this_task::stop();
        }
        static task<int> run(bool& resumed) {
            const outcome<void> o = co_await as_outcome(burn_then_stop(clock::now() + 2ms));
            resumed = o.is_stopped();
            co_return 1;
        }
    };
    bool resumed = false;
    CHECK_THROWS_AS(cordon::sync_wait(with_timeout(1ms, program::run(resumed))), cordon::timeout_error);
    CHECK_FALSE(resumed);
}

TEST_CASE("as_outcome adds nothing to what it wraps but the outcome", "[scope][as_outcome]") {
    using plain = decltype(give(1));
    using wrapped = decltype(as_outcome(give(1)));
    static_assert(sizeof(wrapped) == sizeof(plain));
    static_assert(std::is_same_v<wrapped::value_type, outcome<int>>);
    static_assert(wrapped::needs_executor == plain::needs_executor);
    using acquire = decltype(as_outcome(std::declval<async_semaphore&>().acquire()));
    static_assert(!acquire::needs_executor);
    SUCCEED();
}

TEST_CASE("settle, which combinators use, holds a stop of the awaiting task back as well", "[scope][as_outcome]") {
    struct program {
        static task<std::string> run() {
            const outcome<int> o = co_await cordon::detail::settle(give_after(1h, 1));
            co_return how(o);
        }
    };
    simulation sim;
    CHECK(sim.run(stopped_outside(1s, program::run())).value() == "stopped");
}
