// SPDX-License-Identifier: MIT
#include <cordon/run/start_on.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

/// Counts those of its kind that live.
class counted {
public:
    explicit counted(int& n) noexcept : n_(&n) { ++n; }
    counted(const counted& other) noexcept : counted(*other.n_) {}
    counted& operator=(const counted&) = delete;
    ~counted() { --*n_; }

private:
    int* n_;
};

co::task<int> give(int value) { co_return value; }
co::task<> pause(co::clock::duration d) { co_await co::sleep_for(d); }
co::task<int> fail() {
    co_await co::this_task::yield();
    throw std::out_of_range("too far");
}
co::task<std::string> refuse() {
    throw co::rejected(co::rejection(co::reject_reason::draining, "gate"));
    co_return "";
}
co::task<> give_up() { co_await co::this_task::stop(); }

void run_all(co::run_loop& loop) {
    while (loop.poll()) {
    }
}

}  // namespace

TEST_CASE("start_on starts later and calls back with the outcome, whatever it is", "[run][start_on]") {
    co::run_loop loop;
    std::optional<int> value;
    co::start_on(loop, give(42), [&](co::outcome<int> o) { value = *o; });
    CHECK_FALSE(value.has_value());
    run_all(loop);
    CHECK(value == 42);

    bool good = false;
    co::start_on(loop, fail(), [&](const co::outcome<int>& o) {
        good = o.is_error();
        CHECK_THROWS_AS(std::rethrow_exception(o.error()), std::out_of_range);
    });
    run_all(loop);
    CHECK(good);

    std::string who;
    co::start_on(loop, refuse(), [&](co::outcome<std::string>&& o) { who = o.rejection().who(); });
    run_all(loop);
    CHECK(who == "gate");

    bool stopped = false;
    co::start_on(loop, give_up(), [&](co::outcome<void> o) { stopped = o.is_stopped(); });
    run_all(loop);
    CHECK(stopped);
}

TEST_CASE("start_on takes a callable, an operation, and what can only be moved", "[run][start_on]") {
    co::run_loop loop;
    int calls = 0;
    const std::string text = "long enough to need an allocation of its own";
    std::size_t length = 0;
    co::start_on(loop, [text]() -> co::task<std::size_t> {
        co_await co::this_task::yield();
        co_return text.size();
    }, [&](co::outcome<std::size_t> o) { length = *o; });
    co::start_on(loop, co::sleep_for(0ms), [&](co::outcome<void> o) { calls += o.has_value() ? 1 : 0; });
    auto owned = std::make_unique<int>(1);
    const auto owner = []() -> co::task<std::unique_ptr<int>> { co_return std::make_unique<int>(2); };
    co::start_on(loop, owner, [&calls, mine = std::move(owned)](co::outcome<std::unique_ptr<int>> o) {
        calls += *mine + **o;
    });
    co::start_on(loop, pause(0ms));
    run_all(loop);
    CHECK(length == text.size());
    CHECK(calls == 4);
}

TEST_CASE("the callback runs on the executor, after all awaits, then everything is freed", "[run][start_on]") {
    co::run_loop loop;
    int alive = 0;
    bool current = false;
    int alive_in_callback = 0;
    {
        const counted one(alive);
        co::start_on(loop, [one]() -> co::task<> { co_await co::this_task::yield(); }, [&, one](co::outcome<void>) {
            current = loop.is_current();
            alive_in_callback = alive;
        });
    }
    CHECK(alive > 0);
    run_all(loop);
    CHECK(current);
    CHECK(alive_in_callback > 0);
    CHECK(alive == 0);
}

TEST_CASE("a callback may start the next, and stop the loop", "[run][start_on]") {
    co::run_loop loop;
    int rounds = 0;
    struct relay {
        static void next(co::run_loop& l, int& n) {
            co::start_on(l, pause(0ms), [&](co::outcome<void>) {
                if (++n == 1000) l.stop();
                else next(l, n);
            });
        }
    };
    relay::next(loop, rounds);
    loop.run();
    CHECK(rounds == 1000);
}

TEST_CASE("start_on from another thread wakes the loop", "[run][start_on]") {
    co::run_loop loop;
    std::thread::id ran;
    std::thread other([&] {
        const auto where = []() -> co::task<std::thread::id> { co_return std::this_thread::get_id(); };
        co::start_on(loop, where, [&](co::outcome<std::thread::id> o) {
            ran = *o;
            loop.stop();
        });
    });
    loop.run();
    other.join();
    CHECK(ran == std::this_thread::get_id());
}

TEST_CASE("under a context that is given by hand its stop ends what was started, and the callback hears of it",
          "[run][start_on]") {
    co::testing::simulation sim;
    const auto scenario = [&]() -> co::task<> {
        co::cancel_scope scope{co::executor_ref(sim)};
        bool stopped = false, timed_out = false;
        co::start_on(scope.ctx(), pause(1h), [&](co::outcome<void> o) { stopped = o.is_stopped(); });
        co_await co::sleep_for(1ms);
        CHECK_FALSE(stopped);
        scope.request_stop();
        co_await co::testing::simulation::settle();
        CHECK(stopped);
        co::cancel_scope brief{co::executor_ref(sim), co::deadline::after(5ms)};
        co::start_on(brief.ctx(), pause(1h), [&](co::outcome<void> o) { timed_out = o.is_stopped(); });
        co_await co::sleep_for(6ms);
        CHECK(timed_out);
        CHECK(brief.reason().kind == co::stop_kind::deadline);
    };
    sim.run(scenario());
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("what was started is listed by name and place until its callback has returned", "[run][start_on]") {
    co::run_loop loop;
    const auto find = [](const char* name) {
        const auto all = co::live_tasks();
        const auto it = std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.name == name; });
        return it == all.end() ? 0U : it->spawned_at.line();
    };
    unsigned in_callback = 0;
    const unsigned line = std::source_location::current().line() + 1;
    co::start_on(loop, pause(0ms), [&](co::outcome<void>) { in_callback = find("import"); }, {.name = "import"});
    CHECK(find("import") == line);
    run_all(loop);
    CHECK(in_callback == line);
    CHECK(find("import") == 0);
}

TEST_CASE("a callback that throws terminates", "[run][start_on]") {
    const auto survived = last_words([] {
        co::run_loop loop;
        std::set_terminate([] {
            std::fputs("terminated", stderr);
            std::abort();
        });
        co::start_on(loop, pause(0ms), [](co::outcome<void>) { throw std::runtime_error("from the callback"); });
        run_all(loop);
    });
    CHECK(says(survived, "terminated"));
}

TEST_CASE("a callable whose copy throws leaves no record behind", "[run][start_on]") {
    struct fragile {
        fragile() = default;
        fragile(const fragile&) { throw std::runtime_error("copied"); }
        co::task<> operator()() const { co_return; }
    };
    const std::size_t before = co::live_tasks().size();
    co::run_loop loop;
    const fragile f;
    CHECK_THROWS_AS(co::start_on(loop, f, {.name = "ghost"}), std::runtime_error);
    CHECK(co::live_tasks().size() == before);
}
