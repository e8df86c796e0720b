// SPDX-License-Identifier: MIT
#include <cordon/scope/shield.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::clock;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::shield;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::task;
using cordon::with;
using cordon::with_timeout;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

using lines = std::vector<std::string>;
constexpr cordon::context_key<std::string> request_id{"request_id"};

/// For operations that are meant to be overdue.
auto quiet() { return cordon::overdue((clock::duration::max)(), &cordon::overdue_policy::print); }

std::size_t armed_timers() { return simulation::current()->armed_timers(); }

/// Runs `op` below a stop that comes after `when`, and says how and after how long it ended.
struct end {
    std::string how;
    clock::duration after{};
};
task<> request_stop_after(std::chrono::nanoseconds d, inplace_stop_source& source) {
    co_await sleep_for(d);
    source.request_stop();
}
task<end> stopped_outside(std::chrono::nanoseconds when, task<int> op) {
    inplace_stop_source source;
    const auto begin = clock::now();
    auto timed = [](task<int> t, inplace_stop_source& s, clock::time_point from) -> task<end> {
        const outcome<int> o = co_await as_outcome(with(std::move(t), stop_on(s.get_token())));
        end e;
        e.how = o.has_value() ? "value" : o.is_error() ? "error" : "stopped";
        e.after = clock::now() - from;
        co_return e;
    };
    auto both = co_await cordon::when_all(timed(std::move(op), source, begin), request_stop_after(when, source));
    co_return std::get<0>(std::move(both));
}

}  // namespace

TEST_CASE("a shielded operation that is ready costs no timer", "[scope][shield]") {
    struct program {
        static task<> run() {
            async_semaphore s(1);
            co_await shield(s.acquire(), 1s);
            CHECK(s.stats().available == 0);
            CHECK(armed_timers() == 0);
        }
    };
    simulation sim;
    sim.run(program::run());
}

TEST_CASE("a shielded operation gives its value, its error or its refusal as without a shield", "[scope][shield]") {
    struct program {
        static task<int> value() {
            co_await sleep_for(1s);
            co_return 4;
        }
        static task<int> error() {
            co_await sleep_for(1s);
            throw std::runtime_error("broken");
        }
        static task<> run() {
            const int four = co_await shield(value(), 2s);
            CHECK(four == 4);
            const outcome<int> o = co_await as_outcome(shield(error(), 2s));
            CHECK(o.is_error());
            CHECK(armed_timers() == 0);
        }
    };
    simulation sim;
    sim.run(program::run());
}

TEST_CASE("a shielded operation sees the values, but neither the stop nor the deadline of the outside",
          "[scope][shield][C-050][X9][X17]") {
    struct program {
        static task<> inside(lines& log) {
            const std::string* id = co_await this_task::get(request_id);
            log.push_back(*id);
            const bool stop = co_await this_task::stop_requested();
            log.push_back(stop ? "stop" : "no stop");
            const cordon::deadline d = co_await this_task::deadline();
            log.push_back(d.expired() ? "expired" : "time left");
            co_await sleep_for(1s);
            log.push_back("done");
        }
        static task<> outside(lines& log) {
            co_await shield(inside(log), 1min);
            log.push_back("after");
            co_await sleep_for(1s);
            log.push_back("never");
        }
        static task<> late(lines& log) {
            co_await shield(sleep_for(2ms), 1s);
            co_await outside(log);
        }
    };
    simulation sim;
    lines log;
    const lines expected{"r-1", "no stop", "time left", "done", "after"};
    SECTION("stopped before") {
        inplace_stop_source source;
        source.request_stop();
        auto op = with(program::outside(log), stop_on(source.get_token()), request_id("r-1"));
        CHECK(sim.run(as_outcome(std::move(op))).is_stopped());
    }
    SECTION("expired before") {
        auto op = with(program::late(log), quiet(), cordon::within(1ms), request_id("r-1"));
        CHECK(sim.run(as_outcome(std::move(op))).is_error());
    }
    CHECK(log == expected);
}

TEST_CASE("it sees neither when the outside is stopped or expires after it was made, and both are delivered after it",
          "[scope][shield][C-051][X17]") {
    struct program {
        static task<int> commit(lines& log) {
            co_await shield(sleep_for(5s), 1min);
            log.push_back("committed");
            co_await sleep_for(1h);
            log.push_back("never");
            co_return 1;
        }
    };
    simulation sim;
    lines log;
    SECTION("stopped") {
        const end e = sim.run(stopped_outside(1s, program::commit(log)));
        CHECK(e.how == "stopped");
        CHECK(e.after == 5s);
    }
    SECTION("expired") {
        const auto begin = sim.now();
        CHECK_THROWS_AS(sim.run(with(program::commit(log), quiet(), cordon::within(1s))), cordon::timeout_error);
        CHECK(sim.now() - begin == 5s);
    }
    CHECK(log == lines{"committed"});
}

TEST_CASE("inside a shield a timeout of its own works, while a stop from outside is ignored",
          "[scope][shield][C-052][X17]") {
    struct program {
        static task<int> run(clock::duration& took) {
            const auto begin = clock::now();
            const outcome<void> o = co_await as_outcome(shield(with_timeout(3s, sleep_for(1h)), 1min));
            took = clock::now() - begin;
            co_return o.is_error() ? 1 : 0;
        }
    };
    simulation sim;
    clock::duration took{};
    const end e = sim.run(stopped_outside(1s, program::run(took)));
    CHECK(e.how == "value");
    CHECK(took == 3s);
}

TEST_CASE("a callback registered inside a shield does not run for a stop outside", "[scope][shield][C-067][X9]") {
    struct program {
        static task<> inside(int& runs) {
            const cordon::inplace_stop_token token = co_await this_task::stop_token();
            const auto count = [&runs]() noexcept { ++runs; };
            const cordon::inplace_stop_callback callback(token, count);
            co_await sleep_for(5s);
        }
        static task<int> outside(int& runs) {
            co_await shield(inside(runs), 1min);
            co_return 1;
        }
    };
    simulation sim;
    int runs = 0;
    CHECK(sim.run(stopped_outside(1s, program::outside(runs))).how == "value");
    CHECK(runs == 0);
}

TEST_CASE("when the bound has passed a stop that is pending is delivered", "[scope][shield][X17]") {
    struct program {
        static task<int> too_long() {
            co_await shield(sleep_for(1h), 10s);
            co_return 1;
        }
    };
    simulation sim;
    const end e = sim.run(stopped_outside(1s, program::too_long()));
    CHECK(e.how == "stopped");
    CHECK(e.after == 10s);

    const auto begin = sim.now();
    CHECK_THROWS_AS(sim.run(with(program::too_long(), quiet(), cordon::within(1s))), cordon::timeout_error);
    CHECK(sim.now() - begin == 10s);
}

TEST_CASE("when the bound has passed the operation runs on unprotected, and a later stop is delivered at once",
          "[scope][shield][X17]") {
    struct program {
        static task<int> too_long() {
            co_await shield(sleep_for(1h), 10s);
            co_return 1;
        }
    };
    simulation sim;
    const end e = sim.run(stopped_outside(25s, program::too_long()));
    CHECK(e.how == "stopped");
    CHECK(e.after == 25s);
    CHECK(sim.run(stopped_outside(2h, program::too_long())).how == "value");
}

TEST_CASE("a bound of zero or less protects nothing, one that the clock cannot hold protects to the end",
          "[scope][shield][X17]") {
    struct program {
        static task<int> run(std::chrono::nanoseconds bound) {
            co_await shield(sleep_for(5s), bound);
            co_return 1;
        }
    };
    simulation sim;
    for (const std::chrono::nanoseconds bound : {0ns, -1ns, std::chrono::nanoseconds(-1h)}) {
        const end e = sim.run(stopped_outside(1s, program::run(bound)));
        CHECK(e.how == "stopped");
        CHECK(e.after == 1s);
    }
    const end e = sim.run(stopped_outside(1s, program::run((std::chrono::nanoseconds::max)())));
    CHECK(e.how == "value");
    CHECK(e.after == 5s);
}

TEST_CASE("shields nest: the innermost that still holds protects", "[scope][shield][X17]") {
    struct program {
        static task<int> run(std::chrono::seconds outer, std::chrono::seconds inner) {
            co_await shield(shield(sleep_for(1h), inner), outer);
            co_return 1;
        }
    };
    simulation sim;
    CHECK(sim.run(stopped_outside(1s, program::run(10s, 20s))).after == 20s);
    CHECK(sim.run(stopped_outside(1s, program::run(20s, 10s))).after == 20s);
}

TEST_CASE("a shield arms one timer, and leaves neither that nor a registration behind", "[scope][shield][X12]") {
    struct program {
        static task<> inside(std::size_t& armed, std::size_t& registered, const cordon::context& outer) {
            const cordon::inplace_stop_token connected = co_await this_task::stop_token();
            (void)connected;
            armed = armed_timers();
            auto& source = cordon::detail::context_access::scope_of(outer)->source();
            registered = cordon::detail::attached(source);
            co_await sleep_for(1s);
        }
        static task<> run() {
            const cordon::context& ctx = *co_await this_task::context();
            std::size_t armed = 0, registered = 1;
            co_await shield(inside(armed, registered, ctx), 1min);
            CHECK(armed == 1);
            CHECK(registered == 0);
            CHECK(armed_timers() == 0);
            (void)co_await as_outcome(with_timeout(10s, shield(sleep_for(1h), 1s)));
            CHECK(armed_timers() == 0);
            CHECK(cordon::detail::attached(cordon::detail::context_access::scope_of(ctx)->source()) == 0);
        }
    };
    simulation sim;
    inplace_stop_source never;
    sim.run(with(program::run(), stop_on(never.get_token())));
    CHECK(cordon::detail::attached(never) == 0);
}

TEST_CASE("whoever asks inside a shield is told to stop as soon as the bound has passed", "[scope][shield][X17]") {
    struct program {
        static task<> asks(lines& log) {
            co_await sleep_for(2s);
            const bool before = co_await this_task::stop_requested();
            log.push_back(before ? "stop" : "go");
            co_await sleep_for(8s);
            const bool after = co_await this_task::stop_requested();
            log.push_back(after ? "stop" : "go");
        }
        static task<> run(lines& log) { (void)co_await as_outcome(shield(asks(log), 10s)); }
    };
    simulation sim;
    lines log;
    const outcome<void> o = sim.run(as_outcome(with(program::run(log), quiet(), cordon::within(1s))));
    CHECK(o.is_error());
    CHECK(log == lines{"go"});
}

TEST_CASE("a bound that is noticed on one thread while its timer fires on another is lifted once", "[scope][shield]") {
    struct program {
        static task<> polls() {
            for (;;) {
                const bool stop = co_await this_task::stop_requested();
                if (stop) break;
                std::this_thread::yield();
            }
        }
        static task<> run(cordon::executor_ref there) {
            co_await shield(cordon::on(there, polls()), 200us);
            co_await sleep_for(1h);
        }
    };
    cordon::run_loop other;
    std::thread runs([&other] { other.run(); });
    // Real time, since the race is between real threads.
    for (int i = 0; i < 50; ++i) {
        const outcome<void> o =
            cordon::sync_wait(as_outcome(with_timeout(100us, program::run(cordon::executor_ref(other)))));
        if (!o.is_error()) FAIL("round " << i);
    }
    other.stop();
    runs.join();
}
