// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>

#include <cordon/core/task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::executor_ref;
using cordon::run_loop;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::task;
using cordon::with;
using cordon::within;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

constexpr cordon::context_key<std::string> request_id{"request_id"};

}  // namespace

TEST_CASE("a task asks for its deadline, and gets the earliest", "[core][this_task][X5]") {
    struct program {
        static task<cordon::deadline> ask() { co_return co_await this_task::deadline(); }
    };
    simulation sim;
    const auto now = sim.now();
    CHECK(sim.run(program::ask()).is_never());
    CHECK(sim.run(with(program::ask(), within(2s))).time() == now + 2s);
    CHECK(sim.run(with(program::ask(), within(2s), within(5s))).time() == now + 2s);
    CHECK(sim.run(with(program::ask(), within(5s), within(2s))).time() == now + 2s);
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a task asks for a value, and gets a pointer that is null where nobody bound one", "[core][this_task][X8]") {
    struct program {
        static task<std::string> ask() {
            const std::string* id = co_await this_task::get(request_id);
            if (id == nullptr) co_return "none";
            co_return *id;
        }
    };
    simulation sim;
    CHECK(sim.run(program::ask()) == "none");
    CHECK(sim.run(with(program::ask(), request_id("r-1"))) == "r-1");
}

TEST_CASE("a task asks whether to stop, without waiting and without a timer that could fire", "[core][this_task][X5]") {
    struct program {
        static task<std::string> computes(cordon::run_loop& busy) {
            std::string seen;
            const bool before = co_await this_task::stop_requested();
            seen += before ? "stop " : "go ";
            const auto until = cordon::clock::now() + 2ms;
            while (cordon::clock::now() < until) {}  // real time, and the loop is kept from its timers
            const bool after = co_await this_task::stop_requested();
            seen += after ? "stop" : "go";
            busy.stop();
            co_return seen;
        }
    };
    run_loop loop;
    std::string seen;
    cordon::start_on(executor_ref(loop), with(program::computes(loop), within(1ms)),
                     [&](cordon::outcome<std::string> o) { seen = std::move(o).value(); });
    loop.run();
    loop.poll();
    CHECK(seen == "go stop");
}

TEST_CASE("a task asks for its stop token, its executor and its whole context", "[core][this_task]") {
    struct program {
        static task<bool> run(cordon::inplace_stop_source& source, executor_ref here) {
            const cordon::inplace_stop_token token = co_await this_task::stop_token();
            const cordon::context* const ctx = co_await this_task::context();
            const executor_ref e = co_await this_task::executor();
            const bool before = token.stop_possible() && !token.stop_requested() && ctx->stop_token() == token;
            source.request_stop(9);
            co_return before && token.stop_requested() && token.reason().code == 9 && e == here &&
                ctx->reason().code == 9 && ctx->get(request_id) != nullptr;
        }
    };
    simulation sim;
    cordon::inplace_stop_source source;
    CHECK(sim.run(with(program::run(source, executor_ref(sim)), stop_on(source.get_token()), request_id("r"))));
    CHECK(cordon::detail::attached(source) == 0);
}

TEST_CASE("yield lets what else is ready run first", "[core][this_task]") {
    struct program {
        static task<> talk(std::vector<std::string>& log, std::string name) {
            for (int i = 0; i < 3; ++i) {
                log.push_back(name);
                co_await this_task::yield();
            }
        }
    };
    run_loop loop;
    std::vector<std::string> log;
    cordon::start_on(executor_ref(loop), program::talk(log, "a"));
    cordon::start_on(executor_ref(loop), program::talk(log, "b"));
    while (loop.poll()) {}
    CHECK(log == std::vector<std::string>{"a", "b", "a", "b", "a", "b"});
}

TEST_CASE("yield is a cancel point when it is entered, and none while it waits for its turn", "[core][this_task]") {
    struct program {
        static task<int> run(cordon::inplace_stop_source& source, bool stop_before) {
            if (stop_before) source.request_stop();
            co_await this_task::yield();
            co_return 1;
        }
        static task<> stop(cordon::inplace_stop_source& source) {
            source.request_stop();
            co_return;
        }
    };
    run_loop loop;
    cordon::inplace_stop_source before, between;
    bool stopped = false, resumed = false;
    cordon::start_on(executor_ref(loop), with(program::run(before, true), stop_on(before.get_token())),
                     [&](const cordon::outcome<int>& o) { stopped = o.is_stopped(); });
    cordon::start_on(executor_ref(loop), with(program::run(between, false), stop_on(between.get_token())),
                     [&](const cordon::outcome<int>& o) { resumed = o.has_value(); });
    cordon::start_on(executor_ref(loop), program::stop(between));
    while (loop.poll()) {}
    CHECK(stopped);
    CHECK(resumed);
}

TEST_CASE("a task may end itself as stopped, locals destroyed, although nobody asked it to", "[core][this_task][D1]") {
    struct program {
        struct counts {
            int* n;
            ~counts() { ++*n; }
        };
        static task<> inner(int& destroyed) {
            const counts c{&destroyed};
            co_await this_task::stop();
            destroyed = 100;
        }
        static task<int> outer(int& destroyed) {
            const counts c{&destroyed};
            co_await inner(destroyed);
            co_return 1;
        }
    };
    simulation sim;
    int destroyed = 0;
    CHECK(sim.run(as_outcome(program::outer(destroyed))).is_stopped());
    CHECK(destroyed == 2);
    CHECK_THROWS_AS(sim.run(program::outer(destroyed)), cordon::canceled);
}
