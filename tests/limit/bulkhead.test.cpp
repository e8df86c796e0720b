// SPDX-License-Identifier: MIT
#include <cordon/limit/bulkhead.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::bulkhead;
using co::outcome;
using co::reject_reason;
using co::task;
using co::testing::explore_all;
using co::testing::simulation;

static_assert(co::observable<bulkhead>);
static_assert(!std::is_copy_constructible_v<bulkhead::permit>);
static_assert(std::is_nothrow_move_constructible_v<bulkhead::permit>);

/// Runs `d` long as soon as it may, and writes down its name and when it began, in ms from `t0`, or why not.
task<> call(bulkhead& b, std::chrono::milliseconds d, std::string& log, char name, co::clock::time_point t0) {
    auto got = co_await co::as_outcome(b.acquire());
    log += name;
    if (!got.has_value()) {
        log += std::string(" ") + (got.is_rejected() ? to_string(got.rejection().reason) : "?") + ' ';
        co_return;
    }
    log += std::to_string((co::clock::now() - t0) / 1ms) + ' ';
    co_await co::sleep_for(d);
}

task<> until_waiting(bulkhead& b, std::size_t count) {
    while (b.stats().waiting < count) co_await co::this_task::yield();
}

/// In a scope of its own, so that it can be stopped alone.
struct stoppable {
    explicit stoppable(const co::context& ctx) : scope(ctx), group(scope.ctx()) {}
    co::cancel_scope scope;
    co::task_group group;
};

/// in use and waiting
std::pair<std::size_t, std::size_t> figures(const bulkhead& b) {
    const auto s = b.stats();
    return {s.in_use, s.waiting};
}
using both = std::pair<std::size_t, std::size_t>;

template <class F>
void in_simulations(F root) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

}  // namespace

TEST_CASE("as many as the limit run, and one more for each that ends", "[limit][bulkhead][BH-21]") {
    bulkhead b(10, {.name = "ten"});
    CHECK(b.name() == "ten");
    std::vector<bulkhead::permit> held;
    for (int i = 0; i < 10; ++i) {
        held.push_back(b.try_acquire());
        CHECK(held.back());
    }
    CHECK_FALSE(b.try_acquire());
    held.pop_back();
    auto one_more = b.try_acquire();
    CHECK(one_more);
    CHECK_FALSE(b.try_acquire());
    CHECK(b.stats().rejected == 2);
    CHECK(b.stats().in_use == 10);
    bulkhead::permit moved = std::move(one_more);
    CHECK_FALSE(one_more);  // NOLINT
    one_more = std::move(moved);
    moved.release();
    CHECK(b.stats().in_use == 10);
    one_more.settle(co::verdict::failure);
    one_more.settle(co::verdict::success);
    CHECK(b.stats().in_use == 9);
    held.clear();
    CHECK(b.stats().in_use == 0);
}

TEST_CASE("a free permit is there at once", "[limit][bulkhead]") {
    const auto root = []() -> task<> {
        bulkhead b(1);
        const bulkhead::permit p = co_await b.acquire();
        CHECK(p);
        CHECK(figures(b) == both(1, 0));
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("a limit of none refuses all", "[limit][bulkhead][BH-13]") {
    const auto root = []() -> task<> {
        bulkhead b(0);
        CHECK_FALSE(b.try_acquire());
        auto refused = co_await co::as_outcome(b.acquire());
        CHECK(refused.rejection().reason == reject_reason::full);
        bulkhead queue(0, {.max_waiting = 1});
        auto late = co_await co::as_outcome(co::with_timeout(1s, queue.acquire()));
        CHECK(late.is_error());
        CHECK(figures(queue) == both(0, 0));
    };
    simulation().run(root());
}

TEST_CASE("without a queue a full bulkhead refuses at once, and names itself", "[limit][bulkhead][BH-17]") {
    const auto root = []() -> task<> {
        bulkhead b(1, {.name = "reports"});
        const auto from = co::clock::now();
        {
            const bulkhead::permit p = co_await b.admission();
            auto refused = co_await co::as_outcome(b.admission());
            CHECK(refused.is_rejected());
            CHECK(refused.rejection().reason == reject_reason::full);
            CHECK(refused.rejection().who() == "reports");
            CHECK_THROWS_AS((void)std::move(refused).value(), co::rejected);
        }
        auto passes = co_await co::as_outcome(b.admission());
        CHECK(passes.has_value());
        CHECK(co::clock::now() == from);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);
}

TEST_CASE("slots and queue fill and empty in order", "[limit][bulkhead][BH-19]") {
    in_simulations([]() -> task<> {
        bulkhead b(2, {.max_waiting = 2});
        const auto t0 = co::clock::now();
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            const std::array<both, 4> filling{{{1, 0}, {2, 0}, {2, 1}, {2, 2}}};
            for (std::size_t i = 0; i < 4; ++i) {
                group.spawn(call(b, std::chrono::milliseconds(10 * (i + 1)), log, static_cast<char>('a' + i), t0));
                co_await simulation::settle();
                CHECK(figures(b) == filling[i]);
            }
            auto fifth = co_await co::as_outcome(b.acquire());
            CHECK(fifth.rejection().reason == reject_reason::full);
            const std::array<both, 4> emptying{{{2, 1}, {2, 0}, {1, 0}, {0, 0}}};
            const std::array<std::chrono::milliseconds, 4> ends{10ms, 20ms, 40ms, 60ms};
            for (std::size_t i = 0; i < 4; ++i) {
                co_await simulation::advance(t0 + ends[i] - co::clock::now());
                CHECK(figures(b) == emptying[i]);
            }
        };
        co_await co::with_group(body);
        CHECK(log == "a0 b0 c10 d20 ");
    });
}

TEST_CASE("waiters are served first come, first served, and nobody passes them", "[limit][bulkhead][BH-16]") {
    in_simulations([]() -> task<> {
        bulkhead b(1, {.max_waiting = 10});
        const auto t0 = co::clock::now();
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            bulkhead::permit held = co_await b.acquire();
            for (std::size_t i = 0; i < 5; ++i) {
                group.spawn(call(b, 10ms, log, static_cast<char>('a' + i), t0));
                co_await until_waiting(b, i + 1);
            }
            held.release();
            CHECK(log == "");  // nobody is resumed inside the call
            CHECK(figures(b) == both(1, 4));
            CHECK_FALSE(b.try_acquire());
        };
        co_await co::with_group(body);
        CHECK(log == "a0 b10 c20 d30 e40 ");
    });
}

TEST_CASE("a permit lasts as long as the call, and goes back however that ends",
          "[limit][bulkhead][BH-12][BH-14][BH-15]") {
    in_simulations([]() -> task<> {
        bulkhead b(2, {.max_waiting = 1});
        bool third = false;
        const auto body = [&](co::task_group& group) -> task<> {
            std::optional<bulkhead::permit> first(co_await b.acquire()), second(co_await b.acquire());
            group.spawn([](bulkhead& k, bool& ran) -> task<> {
                const auto p = co_await k.acquire();
                ran = true;
            }(b, third));
            co_await until_waiting(b, 1);
            co_await simulation::settle();
            CHECK_FALSE(third);
            second.reset();
            co_await simulation::settle();
            CHECK(third);
            { auto unused = b.acquire(); (void)unused; }  // an operation that nobody awaits takes nothing
            CHECK(figures(b) == both(1, 0));
        };
        co_await co::with_group(body);
        CHECK(figures(b) == both(0, 0));

        const auto fails = [&]() -> task<> {
            const auto p = co_await b.acquire();
            throw std::runtime_error("the call failed");
        };
        auto failed = co_await co::as_outcome(fails());
        CHECK(failed.is_error());
        CHECK(figures(b) == both(0, 0));
        const auto hangs = [&]() -> task<> {
            const auto p = co_await b.acquire();
            co_await co::sleep_for(1h);
        };
        auto abandoned = co_await co::as_outcome(co::with_timeout(10ms, hangs()));
        CHECK(abandoned.is_error());
        CHECK(figures(b) == both(0, 0));
    });
}

TEST_CASE("a waiter that is stopped takes nothing, and those behind it move up",
          "[limit][bulkhead][BH-03][BH-09][BH-11][BH-18][BH-20]") {
    in_simulations([]() -> task<> {
        bulkhead b(1, {.max_waiting = 2});
        const auto t0 = co::clock::now();
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            bulkhead::permit held = co_await b.acquire();
            stoppable doomed(group.ctx());
            doomed.group.spawn(call(b, 1ms, log, '!', t0));
            co_await until_waiting(b, 1);
            group.spawn(call(b, 1ms, log, 'a', t0));
            co_await until_waiting(b, 2);
            co_await co::sleep_for(100ms);
            doomed.scope.request_stop();
            CHECK(figures(b) == both(1, 1));  // its place in the queue is free again
            group.spawn(call(b, 1ms, log, 'b', t0));
            co_await until_waiting(b, 2);
            held.release();
            CHECK(figures(b) == both(1, 1));
            co_await doomed.group.join();
        };
        co_await co::with_group(body);
        CHECK(log == "a100 b101 ");
        CHECK(figures(b) == both(0, 0));
    });
}

TEST_CASE("a wait that takes too long is refused, and swallows no permit later",
          "[limit][bulkhead][BH-09][BH-10][BH-11][BH-24]") {
    in_simulations([]() -> task<> {
        bulkhead b(1, {.max_waiting = 5, .max_wait = 10ms});
        const auto t0 = co::clock::now();
        bulkhead::permit held = co_await b.acquire();
        auto refused = co_await co::as_outcome(b.acquire());
        CHECK(refused.rejection().reason == reject_reason::full);
        CHECK(co::clock::now() - t0 == 10ms);
        CHECK(figures(b) == both(1, 0));
        held.release();
        CHECK(figures(b) == both(0, 0));
        CHECK(b.try_acquire());

        held = co_await b.acquire();
        auto late = co_await co::as_outcome(co::with_timeout(5ms, b.acquire()));
        CHECK(late.is_error());  // the outer deadline came first
        CHECK(co::clock::now() - t0 == 15ms);
        CHECK(figures(b) == both(1, 0));

        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(call(b, 1ms, log, 'a', co::clock::now()));
            co_await until_waiting(b, 1);
            co_await co::sleep_for(4ms);
            held.release();
        };
        co_await co::with_group(body);
        CHECK(log == "a4 ");
    });
}

TEST_CASE("a permit and the end of a wait at the same time: either way it is where it should be",
          "[limit][bulkhead][BH-25]") {
    int refusals = 0, grants = 0;
    const auto root = [&]() -> task<bool> {
        bulkhead b(1, {.max_waiting = 1, .max_wait = 10ms});
        std::optional<bulkhead::permit> held(co_await b.acquire());
        const auto releases = [&]() -> task<> {
            co_await co::sleep_for(10ms);
            held.reset();
        };
        bool right = true;
        const auto waits = [&]() -> task<> {
            auto got = co_await co::as_outcome(b.acquire());
            (got.has_value() ? grants : refusals) += 1;
            right = b.stats().in_use == (got.has_value() ? 1u : b.stats().in_use);
        };
        co_await co::when_all(waits(), releases());
        co_return right && figures(b) == both(0, 0);
    };
    const auto all = explore_all(5'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(refusals + grants > 0);
}

TEST_CASE("a stop and a permit that come together: the permit wins, or is still there", "[limit][bulkhead]") {
    enum { stopped = 1, got = 2 };
    int seen = 0;
    const auto root = [&seen]() -> task<bool> {
        bulkhead b(1, {.max_waiting = 1});
        std::optional<bulkhead::permit> held(co_await b.acquire());
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(b.acquire().with(scope.ctx()));
            seen |= ended.has_value() ? got : stopped;
        };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        const auto releases = [&]() -> task<> {
            held.reset();
            co_return;
        };
        co_await co::when_all(waits(), stops(), releases());
        co_return figures(b) == both(0, 0);
    };
    const auto all = explore_all(10'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(seen == (stopped | got));
}

TEST_CASE("a smaller limit holds nobody up, a larger one lets those who wait go",
          "[limit][bulkhead][BH-06][BH-23][BH-24]") {
    in_simulations([]() -> task<> {
        bulkhead b(3, {.max_waiting = 10});
        const auto t0 = co::clock::now();
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            std::vector<bulkhead::permit> held;
            for (int i = 0; i < 3; ++i) held.push_back(co_await b.acquire());
            b.resize(1);
            CHECK(b.stats().in_use == 3);
            CHECK(b.stats().limit == 1);
            group.spawn(call(b, 10ms, log, 'a', t0));
            co_await until_waiting(b, 1);
            group.spawn(call(b, 10ms, log, 'b', t0));
            co_await until_waiting(b, 2);
            held.pop_back();
            held.pop_back();
            co_await simulation::settle();
            CHECK(log == "");
            CHECK(figures(b) == both(1, 2));
            held.pop_back();
            co_await simulation::settle();
            CHECK(log == "a0 ");
            CHECK(figures(b) == both(1, 1));
            co_await co::sleep_for(3ms);
            b.resize(2);
            CHECK(figures(b) == both(2, 0));
        };
        co_await co::with_group(body);
        CHECK(log == "a0 b3 ");
        b.resize(0);
        CHECK_FALSE(b.try_acquire());
        b.resize(1);
        CHECK(b.try_acquire());
    });
    in_simulations([]() -> task<> {  // eight, one after the other
        bulkhead b(1, {.max_waiting = 8});
        std::string log;
        const auto t0 = co::clock::now();
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 8; ++i) group.spawn(call(b, 1ms, log, 'x', t0));
            co_return;
        };
        co_await co::with_group(body);
        CHECK(log == "x0 x1 x2 x3 x4 x5 x6 x7 ");
    });
}

TEST_CASE("closing refuses all who wait and come, and leaves those who run", "[limit][bulkhead][BH-18][BH-27]") {
    in_simulations([]() -> task<> {
        bulkhead b(1, {.name = "door", .max_waiting = 5});
        std::string log;
        const auto t0 = co::clock::now();
        const auto body = [&](co::task_group& group) -> task<> {
            bulkhead::permit held = co_await b.acquire();
            group.spawn(call(b, 1ms, log, 'a', t0));
            group.spawn(call(b, 1ms, log, 'a', t0));
            co_await until_waiting(b, 2);
            b.close();
            co_await simulation::settle();
            CHECK(log == "a closed a closed ");
            CHECK(figures(b) == both(1, 0));
            auto later = co_await co::as_outcome(b.acquire());
            CHECK(later.rejection().reason == reject_reason::closed);
            CHECK(later.rejection().who() == "door");
            held.release();
            CHECK(figures(b) == both(0, 0));
            CHECK_FALSE(b.try_acquire());
            auto still = co_await co::as_outcome(b.acquire());
            CHECK(still.rejection().reason == reject_reason::closed);
            b.resize(5);
            CHECK_FALSE(b.try_acquire());
            b.close();
            CHECK(b.stats().closed);
        };
        co_await co::with_group(body);
    });
}

TEST_CASE("a thread waits for a permit, and heeds its stop, its deadline and the bound of the wait",
          "[limit][bulkhead]") {
    bulkhead b(1, {.max_waiting = 2});
    {
        outcome<bulkhead::permit> got = b.acquire_blocking();
        CHECK(got.has_value());
        CHECK(b.acquire_blocking(co::deadline::after(1ms)).is_stopped());
        std::jthread other([&](std::stop_token stop) { CHECK(b.acquire_blocking(stop).is_stopped()); });
        while (b.stats().waiting == 0) std::this_thread::yield();
        other.request_stop();
        other.join();
        std::jthread next([&] { CHECK(b.acquire_blocking().has_value()); });
        while (b.stats().waiting == 0) std::this_thread::yield();
        got = outcome<bulkhead::permit>::stopped();
    }
    CHECK(figures(b) == both(0, 0));
    bulkhead bounded(1, {.max_waiting = 2, .max_wait = 2ms});
    const auto held = bounded.try_acquire();
    const auto from = co::clock::now();
    const outcome<bulkhead::permit> refused = bounded.acquire_blocking();
    CHECK(refused.rejection().reason == reject_reason::full);
    CHECK(co::clock::now() - from >= 2ms);  // real time: a thread has no other
}

TEST_CASE("options out of range are refused by name, value and range", "[limit][bulkhead]") {
    CHECK_THROWS_WITH(bulkhead(std::numeric_limits<std::size_t>::max()),
                      "bulkhead: max_concurrent is 18446744073709551615, allowed are 0 to 4294967295");
    CHECK_THROWS_WITH(bulkhead(1, {.max_wait = 0ms}), "bulkhead: max_wait is 0 ns, allowed is more than 0");
    bulkhead b(bulkhead::max_limit);
    CHECK_THROWS_AS(b.resize(bulkhead::max_limit + 1), std::invalid_argument);
    CHECK(b.try_acquire());
}

TEST_CASE("wherever callers are stopped, no permit is lost or made", "[limit][bulkhead][cancel_sweep][T7]") {
    const bool guarded = GENERATE(false, true);
    const auto b = std::make_shared<std::optional<bulkhead>>();
    const auto most = std::make_shared<std::size_t>();
    const auto make = [=] {
        b->emplace(1, co::bulkhead_options{.max_waiting = 4, .max_wait = 1min});
        *most = 0;
        return [](bulkhead& k, std::size_t& peak, bool calls) -> task<> {
            const auto call = [&]() -> task<> {
                peak = std::max(peak, k.stats().in_use);
                co_await co::sleep_for(1ms);
            };
            const auto one = [&]() -> task<> {
                const auto p = co_await k.acquire();
                co_await call();
            };
            if (calls) co_await co::when_all(k(call), k(call), k(call));
            else co_await co::when_all(one(), one(), one());
        }(**b, *most, guarded);
    };
    const auto swept = co::testing::cancel_sweep(
        {.seed = 3, .fail_awaits = true}, make, [=](const outcome<void>&, const co::testing::sweep_point&) {
            return figures(**b) == both(0, 0) && *most <= 1 && (*b)->try_acquire();
        });
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(swept.points > 10);
}

TEST_CASE("a permit that lost a race goes on to the next", "[limit][bulkhead]") {
    in_simulations([]() -> task<> {
        bulkhead b(1, {.max_waiting = 4});
        std::optional<bulkhead::permit> held(co_await b.acquire());
        const auto frees = [&]() -> task<> {
            co_await co::this_task::yield();
            held.reset();
            co_await co::sleep_for(1ms);
        };
        const auto races = [&]() -> task<> {
            auto won = co_await co::when_any(b.acquire(), b.acquire());
            (void)won;
        };
        co_await co::when_all(races(), frees());
        CHECK(figures(b) == both(0, 0));
    });
}

TEST_CASE("a bulkhead that is destroyed while it is in use says so", "[limit][bulkhead]") {
    const std::string waited = last_words([] {
        co::run_loop loop;
        auto b = std::make_unique<bulkhead>(0, co::bulkhead_options{.name = "reports", .max_waiting = 1});
        const auto waits = [](bulkhead& k) -> task<> { const auto p = co_await k.acquire(); };
        co::start_on(loop, waits(*b));
        loop.poll();
        b.reset();
    });
    CHECK(says(waited, "bulkhead \"reports\" destroyed while 1 wait for it"));
    const std::string held = last_words([] {
        auto b = std::make_unique<bulkhead>(2, co::bulkhead_options{.name = "reports"});
        const auto p = b->try_acquire();
        b.reset();
    });
    CHECK(says(held, "bulkhead \"reports\" destroyed while 1 calls have its permit"));
}

TEST_CASE("a bulkhead reports what metrics ask for", "[limit][bulkhead]") {
    struct sink {
        std::string text;
        void counter(std::string_view name, std::uint64_t value, std::string_view) {
            text += std::string(name) + "=" + std::to_string(value) + " ";
        }
        void gauge(std::string_view name, double value, std::string_view) {
            text += std::string(name) + "=" + std::to_string(static_cast<long>(value)) + " ";
        }
    };
    bulkhead b(2);
    const auto first = b.try_acquire(), second = b.try_acquire();
    CHECK_FALSE(b.try_acquire());
    sink s;
    b.report(s);
    CHECK(s.text == "rejected=1 available=0 in_use=2 waiting=0 ");
    CHECK(bulkhead::kind == "bulkhead");
}
