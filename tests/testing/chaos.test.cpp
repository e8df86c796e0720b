// SPDX-License-Identifier: MIT
#include <cordon/testing/chaos.hpp>

#include <cordon/core/error.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::chaos;
using co::testing::chaos_options;
using co::testing::simulation;

static_assert(co::reportable<chaos>);

struct ends {
    int values = 0, errors = 0, rejections = 0, stops = 0, calls = 0;
    std::string order;
};
/// `n` calls, one after the other, and how they ended.
ends of_calls(chaos& c, int n) {
    ends e;
    simulation sim;
    sim.run([&]() -> task<> {
        const auto guarded = co::pipeline(c);
        const auto call = [&]() -> task<> {
            ++e.calls;
            co_return;
        };
        for (int i = 0; i < n; ++i) {
            const auto o = co_await co::as_outcome(guarded(call));
            const char how = o.has_value() ? 'v' : o.is_error() ? 'e' : o.is_rejected() ? 'r' : 's';
            ++(how == 'v' ? e.values : how == 'e' ? e.errors : how == 'r' ? e.rejections : e.stops);
            e.order += how;
        }
    });
    return e;
}

}  // namespace

TEST_CASE("chaos strikes with its share: never at 0, always at 1, and of the rest about as many",
          "[testing][chaos][CH-01]") {
    for (const double rate : {0.0, 0.4, 0.6, 1.0}) {
        chaos c({.error_rate = rate, .seed = 3});
        const ends e = of_calls(c, 1000);
        CHECK(e.errors + e.values == 1000);
        CHECK(e.errors >= static_cast<int>(rate * 1000) - (rate > 0 && rate < 1 ? 60 : 0));
        CHECK(e.errors <= static_cast<int>(rate * 1000) + (rate > 0 && rate < 1 ? 60 : 0));
        CHECK(c.stats().errors == static_cast<std::uint64_t>(e.errors));
    }
    SECTION("shares outside 0 to 1 are refused") {
        CHECK_THROWS_WITH(chaos({.error_rate = 1.5}), "chaos: error_rate is 1.500000, allowed are 0 to 1");
        CHECK_THROWS_WITH(chaos({.latency = -1ns}), "chaos: latency is -1 ns, allowed are 0 and more");
        CHECK_THROWS_AS(chaos({.latency_rate = -0.1}), std::invalid_argument);
        CHECK_THROWS_AS(chaos({.error_rate = 0.6, .stop_rate = 0.6}), std::invalid_argument);
        CHECK_THROWS_AS(chaos({.latency = -1ns}), std::invalid_argument);
        CHECK_NOTHROW(chaos({.error_rate = 0.3, .rejection_rate = 0.3, .stop_rate = 0.4}));
    }
}

TEST_CASE("a delay takes time of the clock and can be stopped, and one of nothing is none", "[testing][chaos][CH-03]") {
    simulation sim;
    sim.run([]() -> task<> {
        chaos slow({.latency_rate = 1, .latency = 200ms});
        const auto guarded = co::pipeline(slow);
        int calls = 0;
        const auto call = [&]() -> task<int> { co_return ++calls; };
        const auto from = co::clock::now();
        const int got = co_await guarded(call);
        CHECK(got == 1);
        CHECK(co::clock::now() - from == 200ms);
        const auto timed_out = co_await co::as_outcome(co::with_timeout(10ms, guarded(call)));
        CHECK(timed_out.is_error());
        CHECK(co::clock::now() - from == 210ms);
        CHECK(calls == 1);
        slow.set({.latency_rate = 1, .latency = 0ms});
        co_await guarded(call);
        CHECK(co::clock::now() - from == 210ms);
        CHECK(slow.stats().delayed == 2);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("what is struck is not called, and what is not, is", "[testing][chaos][CH-04]") {
    chaos c({.name = "trouble", .error_rate = 0.25, .rejection_rate = 0.25, .stop_rate = 0.25, .seed = 5});
    const ends e = of_calls(c, 400);
    CHECK(e.calls == e.values);
    for (const int n : {e.values, e.errors, e.rejections, e.stops}) CHECK(n > 60);
    CHECK(c.stats().rejected == static_cast<std::uint64_t>(e.rejections));
    CHECK(c.stats().stopped == static_cast<std::uint64_t>(e.stops));
    simulation sim;
    sim.run([&]() -> task<> {
        const auto call = []() -> task<int> { co_return 1; };
        c.set({.error_rate = 1, .error = std::errc::connection_reset, .latency_rate = 1, .latency = 5ms});
        const auto guarded = co::pipeline(c);
        const auto from = co::clock::now();
        const auto failed = co_await co::as_outcome(guarded(call));
        CHECK(co::clock::now() - from == 5ms);  // slow, and then it fails
        try {
            std::rethrow_exception(failed.error());
        } catch (const std::system_error& x) {
            CHECK(x.code() == std::errc::connection_reset);
        }
        c.set({.rejection_rate = 1, .reason = co::reject_reason::draining});
        const auto refused = co_await co::as_outcome(guarded(call));
        CHECK(refused.rejection().reason == co::reject_reason::draining);
        CHECK(refused.rejection().who() == "trouble");
    });
}

TEST_CASE("a call that is to stop already is stopped, and nothing strikes", "[testing][chaos][CH-05]") {
    simulation sim;
    sim.run([]() -> task<> {
        chaos c({.error_rate = 1});
        const auto guarded = co::pipeline(c);
        const auto call = []() -> task<int> { co_return 1; };
        co::inplace_stop_source source;
        source.request_stop();
        const auto ended = co_await co::as_outcome(co::with(guarded(call), co::stop_on(source.get_token())));
        CHECK(ended.is_stopped());
        CHECK(c.stats().errors == 0);
    });
}

TEST_CASE("the same seed strikes the same calls, also when another rate changes", "[testing][chaos]") {
    chaos one({.error_rate = 0.3, .seed = 11}), again({.error_rate = 0.3, .seed = 11});
    chaos other({.error_rate = 0.3, .seed = 12});
    chaos slow({.error_rate = 0.3, .latency_rate = 0.5, .latency = 1ms, .seed = 11});
    const std::string order = of_calls(one, 100).order;
    CHECK(of_calls(again, 100).order == order);
    CHECK(of_calls(slow, 100).order == order);
    CHECK(of_calls(other, 100).order != order);
    SECTION("and in a simulation without a seed a run repeats itself") {
        std::vector<std::string> runs;
        for (int i = 0; i < 2; ++i) {
            simulation sim(1);
            sim.run([&]() -> task<> {
                chaos c({.error_rate = 0.5});
                const auto guarded = co::pipeline(c);
                const auto call = []() -> task<> { co_return; };
                std::string ended;
                for (int k = 0; k < 50; ++k) {
                    const auto o = co_await co::as_outcome(guarded(call));
                    ended += o.has_value() ? 'v' : 'e';
                }
                runs.push_back(ended);
            });
        }
        CHECK(runs[0] == runs[1]);
    }
}

TEST_CASE("switched off it neither draws nor suspends", "[testing][chaos]") {
    chaos c({.error_rate = 1, .seed = 1});
    c.switch_off();
    simulation sim;
    sim.run([&]() -> task<> {
        const auto guarded = co::pipeline(c);
        const auto call = []() -> task<int> { co_return 1; };
        const auto ready = [] { return co::sleep_for(0s); };
        for (int i = 0; i < 100; ++i) co_await guarded(call);
        co_await guarded(ready);
        c.switch_on();
        const auto ended = co_await co::as_outcome(guarded(call));
        CHECK(ended.is_error());
    });
    CHECK(sim.steps() == 1);
    CHECK(c.stats().errors == 1);
}

TEST_CASE("chaos can be stopped at any point, and strikes nothing that is to stop",
          "[testing][chaos][cancel_sweep][T7]") {
    struct world {
        explicit world(std::uint64_t seed)
            : trouble({.error_rate = 0.3, .rejection_rate = 0.3, .stop_rate = 0.1, .latency_rate = 1, .latency = 1ms,
                       .seed = seed}) {}
        chaos trouble;
        std::uint64_t begun = 0, ended = 0, errors = 0, rejected = 0, stopped = 0;
    };
    for (std::uint64_t seed = 1; seed < 5; ++seed) {
        std::shared_ptr<world> w;
        const auto make = [&] {
            w = std::make_shared<world>(seed);
            return [](std::shared_ptr<world> in) -> task<> {
                const auto guarded = co::pipeline(in->trouble);
                const auto call = []() -> task<> { co_await co::sleep_for(1ms); };
                const co::context& ctx = *co_await co::this_task::context();
                for (int i = 0; i < 6; ++i) {
                    if (!ctx.stop_requested()) ++in->begun;
                    const auto ended = co_await co::as_outcome(guarded(call));
                    ++in->ended;
                    in->errors += ended.is_error();
                    in->rejected += ended.is_rejected();
                    in->stopped += ended.is_stopped();
                }
            }(w);
        };
        const auto check = [&](const auto&, const co::testing::sweep_point&) {
            const auto s = w->trouble.stats();
            // a call that it stopped, and that was then stopped from outside, has not ended
            return s.delayed == w->begun && s.errors == w->errors && s.rejected == w->rejected &&
                   s.stopped >= w->stopped && s.stopped - w->stopped <= w->begun - w->ended;
        };
        const auto swept = co::testing::cancel_sweep({.seed = seed}, make, check);
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 3);
    }
}

TEST_CASE("the figures of chaos are reported", "[testing][chaos][observable]") {
    const chaos c({.name = "c"});
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    c.report(sink);
    CHECK(names == "delayed errors rejected stopped on ");
    CHECK(c.name() == "c");
}
