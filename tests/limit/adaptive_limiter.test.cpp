// SPDX-License-Identifier: MIT
#include <cordon/limit/adaptive_limiter.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"
#include "last_words.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::adaptive_limiter;
using co::adaptive_limiter_options;
using co::aimd;
using co::gradient2;
using co::task;
using co::testing::simulation;

static_assert(co::reportable<adaptive_limiter>);
static_assert(!std::is_copy_constructible_v<adaptive_limiter::permit>);
static_assert(std::is_nothrow_move_constructible_v<adaptive_limiter::permit>);

/// Each call changes the limit.
adaptive_limiter_options each_call() { return {.window = 0s, .min_samples = 1}; }

/// Lets `in_flight` calls run, of which the last one ends after `latency`, with a success or dropped. The others are no
/// samples.
void one_sample(adaptive_limiter& l, fake_clock& clock, co::clock::duration latency, std::size_t in_flight,
                bool dropped = false) {
    std::vector<adaptive_limiter::permit> running;
    for (std::size_t i = 0; i < in_flight; ++i) running.push_back(l.try_acquire());
    REQUIRE(running.back());
    clock.advance(latency);
    if (dropped) running.back().dropped();
    else running.back().succeeded();
}
/// One call after the other.
void calls(adaptive_limiter& l, fake_clock& clock, co::clock::duration latency, int n) {
    for (int i = 0; i < n; ++i) one_sample(l, clock, latency, 1);
}
std::size_t limit(const adaptive_limiter& l) { return l.stats().limit; }

template <class Rule>
std::string complaint(const Rule& rule, const adaptive_limiter_options& options = {}) {
    try {
        const adaptive_limiter l(rule, options);
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("additive increase, multiplicative decrease: the numbers", "[limit][adaptive_limiter][AL-01][B8]") {
    fake_clock clock;
    CHECK(limit(adaptive_limiter(aimd{.initial = 10, .min = 10})) == 10);

    adaptive_limiter grows(aimd{.initial = 20}, each_call());
    one_sample(grows, clock, 1ms, 10);
    CHECK(limit(grows) == 21);
    one_sample(grows, clock, 1ms, 10);  // less than half of it
    CHECK(limit(grows) == 21);

    adaptive_limiter shrinks(aimd{.initial = 30}, each_call());
    one_sample(shrinks, clock, 1ms, 1, true);
    CHECK(limit(shrinks) == 27);
    one_sample(shrinks, clock, 5s, 14);
    CHECK(limit(shrinks) == 28);
    one_sample(shrinks, clock, 5s + 1ns, 14);  // as good as a drop
    CHECK(limit(shrinks) == 25);

    adaptive_limiter at_most(aimd{.initial = 21, .max = 21}, each_call());
    one_sample(at_most, clock, 1ms, 20);
    CHECK(limit(at_most) == 21);
    adaptive_limiter at_least(aimd{.initial = 20}, each_call());
    one_sample(at_least, clock, 1ms, 1, true);
    CHECK(limit(at_least) == 20);
}

TEST_CASE("a limit that is not used is not changed by the gradient", "[limit][adaptive_limiter][AL-07]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{.initial = 100, .min = 1}, each_call());
    for (int i = 0; i < 10; ++i) one_sample(l, clock, 10ms, 49);
    CHECK(limit(l) == 100);
    CHECK(l.stats().usual_latency == 10ms);
}

TEST_CASE("latency times four shrinks the limit by a half, smoothed: the numbers",
          "[limit][adaptive_limiter][AL-08]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{.initial = 100, .min = 1}, each_call());
    calls(l, clock, 10ms, 10);
    for (const std::size_t expected : {90u, 82u, 75u, 68u, 62u}) {  // 90.8, 82.52, 75.068, 68.361, 62.325
        one_sample(l, clock, 40ms, limit(l));
        CHECK(limit(l) == expected);
    }
    SECTION("and the fractions are kept") {
        co::detail::limit_estimate e({true, 100, 1, 200, 0.9, 0, 1.5, 0.2, 4, 600});
        for (int i = 0; i < 10; ++i) e.update({10, 1, false});
        for (const double expected : {90.8, 82.52, 75.068, 68.3612, 62.32508}) {
            e.update({40, 100, false});
            CHECK(e.limit() == Approx(expected).epsilon(1e-9));
        }
    }
}

TEST_CASE("latency within the tolerance lets the limit grow: the numbers", "[limit][adaptive_limiter][AL-09]") {
    co::detail::limit_estimate e({true, 100, 1, 200, 0.9, 0, 1.5, 0.2, 4, 600});
    for (int i = 0; i < 10; ++i) e.update({10, 1, false});
    for (const double expected : {100.8, 101.6, 102.4}) {
        e.update({14, 100, false});
        CHECK(e.limit() == Approx(expected).epsilon(1e-9));
    }
    e.update({14, 100, true});
    CHECK(e.limit() == Approx(102.4 * 0.9));
}

TEST_CASE("a usual latency that is too high comes down with each fast call", "[limit][adaptive_limiter][AL-10]") {
    co::detail::limit_estimate e({true, 100, 1, 200, 0.9, 0, 1.5, 0.2, 4, 600});
    for (int i = 0; i < 10; ++i) e.update({1000, 1, false});
    double before = e.usual();
    for (int i = 0; i < 10; ++i) {
        e.update({100, 1, false});
        const double mean = before + (100 - before) * 2 / 601;
        CHECK(e.usual() == Approx(mean * 0.95));
        before = e.usual();
    }
    for (int i = 0; i < 100; ++i) e.update({100, 1, false});
    CHECK(e.usual() <= 200.1);
    CHECK(e.usual() > 170);  // and then as slowly as otherwise
}

TEST_CASE("while the usual latency is measured, few calls run, and the limit stays",
          "[limit][adaptive_limiter][AL-11][AL-12]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{.initial = 100, .min = 1},
                       {.window = 0s, .min_samples = 1, .probe_every = 1s, .probe_concurrency = 7});
    one_sample(l, clock, 1500ms, 1);
    REQUIRE(l.stats().probing);
    CHECK(limit(l) == 7);
    std::vector<adaptive_limiter::permit> running;
    for (int i = 0; i < 7; ++i) running.push_back(l.try_acquire());
    CHECK(running.back());
    CHECK_FALSE(l.try_acquire());
    CHECK_FALSE(l.try_acquire());
    clock.advance(13ms);
    for (auto& p : running) p.succeeded();
    for (int i = 0; i < 42; ++i) {
        one_sample(l, clock, 13ms, 1);
        CHECK(limit(l) == 7);
    }
    CHECK(l.stats().probing);
    one_sample(l, clock, 13ms, 1);
    CHECK_FALSE(l.stats().probing);
    CHECK(l.stats().usual_latency == 13ms);
    CHECK(limit(l) == 100);
    SECTION("and not more than the most") {
        adaptive_limiter one(gradient2{.initial = 1, .min = 1, .max = 1},
                             {.window = 0s, .min_samples = 1, .probe_every = 1s});
        one_sample(one, clock, 1500ms, 1);
        REQUIRE(one.stats().probing);
        CHECK(limit(one) == 1);
        const auto only = one.try_acquire();
        CHECK_FALSE(one.try_acquire());
    }
    SECTION("it is the median of them") {
        adaptive_limiter five(gradient2{}, {.window = 0s, .min_samples = 1, .probe_every = 1s, .probe_samples = 5});
        one_sample(five, clock, 2s, 1);
        for (const auto d : {5ms, 1ms, 3ms, 4ms, 2ms}) one_sample(five, clock, d, 1);
        CHECK(five.stats().usual_latency == 3ms);
    }
}

TEST_CASE("what began before the measurement is no part of it, and afterwards the limit is what it was",
          "[limit][adaptive_limiter][AL-15]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{.initial = 30, .min = 2},
                       {.window = 0s, .min_samples = 1, .probe_every = 1s, .probe_samples = 20});
    std::vector<adaptive_limiter::permit> old;
    for (int i = 0; i < 27; ++i) old.push_back(l.try_acquire());
    one_sample(l, clock, 1350ms, 1);
    REQUIRE(l.stats().probing);
    CHECK(limit(l) == 3);
    for (auto& p : old) p.succeeded();
    CHECK(l.stats().probing);  // not ended by those
    CHECK(l.stats().stale == 27);
    CHECK(limit(l) == 3);
    auto late = l.try_acquire();
    calls(l, clock, 10ms, 20);
    CHECK_FALSE(l.stats().probing);
    CHECK(limit(l) == 30);
    late.succeeded();  // began under the limit of three: says nothing about one of thirty
    CHECK(l.stats().stale == 28);
    CHECK(l.stats().usual_latency == 10ms);
}

TEST_CASE("windows at the floor measure the usual latency anew, and the floor is no bound for that",
          "[limit][adaptive_limiter][AL-17]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{.initial = 10, .min = 1, .max = 100},
                       {.window = 1s, .min_samples = 2, .probe_concurrency = 2, .probe_samples = 4});
    const auto window = [&](co::clock::duration latency) {
        for (auto end = clock.now() + 1s; clock.now() < end && !l.stats().probing;) one_sample(l, clock, latency, 1);
    };
    for (int i = 0; i < 10; ++i) window(10ms);
    // A service that became slower for good. The limit falls, since what was usual is far behind.
    int windows = 0;
    for (; !l.stats().probing && windows < 200; ++windows) {
        std::vector<adaptive_limiter::permit> all;
        while (auto p = l.try_acquire()) all.push_back(std::move(p));
        clock.advance(600ms);
        for (auto& p : all) p.dropped();
    }
    REQUIRE(l.stats().probing);
    CHECK(limit(l) == 2);  // more than the floor
    calls(l, clock, 600ms, 4);
    CHECK_FALSE(l.stats().probing);
    CHECK(limit(l) == 1);
    CHECK(l.stats().usual_latency == 600ms);
    for (int i = 0; i < 20; ++i) one_sample(l, clock, 600ms, limit(l));
    CHECK(limit(l) > 2);  // it recovers, since 600 ms are usual now
}

TEST_CASE("a probe ends, also of a service that is too fast to count, or that drops what it gets",
          "[limit][adaptive_limiter]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{}, {.window = 0s, .min_samples = 1, .probe_every = 1s});
    one_sample(l, clock, 2s, 1);
    REQUIRE(l.stats().probing);
    SECTION("too fast") {
        calls(l, clock, 80us, 50);
        CHECK_FALSE(l.stats().probing);
        CHECK(l.stats().usual_latency == 100us);
        const auto samples = l.stats().samples;
        calls(l, clock, 80us, 50);
        CHECK(l.stats().samples == samples);
    }
    SECTION("dropped") {
        calls(l, clock, 3ms, 49);
        for (int i = 0; i < 49; ++i) one_sample(l, clock, 1ms, 1, true);
        CHECK(l.stats().probing);
        one_sample(l, clock, 1ms, 1, true);
        CHECK_FALSE(l.stats().probing);
        CHECK(l.stats().usual_latency == 2s);
    }
    CHECK(limit(l) == 20);
}

TEST_CASE("a limit that is hardly used is not stuck at its floor: nothing is refused to measure it",
          "[limit][adaptive_limiter]") {
    fake_clock clock;
    adaptive_limiter l(gradient2{}, {.window = 10ms, .min_samples = 1});  // begins at the floor
    for (int i = 0; i < 100; ++i) {
        one_sample(l, clock, 10ms, 9);
        REQUIRE_FALSE(l.stats().probing);
    }
    CHECK(limit(l) == 20);
    CHECK(l.stats().rejected == 0);
}

TEST_CASE("a limit that shrinks below what runs stops nobody, and admits nobody until enough have ended",
          "[limit][adaptive_limiter][AL-27]") {
    fake_clock clock;
    adaptive_limiter l(aimd{.initial = 4, .min = 2}, each_call());
    std::vector<adaptive_limiter::permit> running;
    for (int i = 0; i < 4; ++i) running.push_back(l.try_acquire());
    clock.advance(1ms);
    running[3].dropped();
    CHECK(limit(l) == 3);
    running[2].dropped();
    CHECK(limit(l) == 2);
    CHECK(l.stats().in_use == 2);
    CHECK_FALSE(l.try_acquire());
    running[1].release();
    CHECK(l.try_acquire());
    CHECK(l.stats().dropped == 2);
}

TEST_CASE("a window is a time and a number of calls, and what is too fast says nothing",
          "[limit][adaptive_limiter][B8]") {
    fake_clock clock;
    adaptive_limiter l(aimd{.initial = 20}, {.window = 1s, .min_samples = 10});
    for (int i = 0; i < 50; ++i) one_sample(l, clock, 10ms, 20);
    CHECK(limit(l) == 20);  // half a second
    for (int i = 0; i < 50; ++i) one_sample(l, clock, 10ms, 20);
    CHECK(limit(l) == 21);
    clock.advance(10s);
    for (int i = 0; i < 9; ++i) one_sample(l, clock, 10ms, 20);
    CHECK(limit(l) == 21);
    one_sample(l, clock, 10ms, 20);
    CHECK(limit(l) == 22);
    const auto samples = l.stats().samples;
    for (int i = 0; i < 100; ++i) one_sample(l, clock, 99us, 20);
    CHECK(l.stats().samples == samples);
    SECTION("one drop in a window is enough") {
        clock.advance(10s);
        one_sample(l, clock, 10ms, 20, true);
        for (int i = 0; i < 9; ++i) one_sample(l, clock, 10ms, 20);
        CHECK(limit(l) == 20);  // 19.8
    }
}

TEST_CASE("calls in a pipeline are samples if they succeed, drops if they fail, and nothing otherwise",
          "[limit][adaptive_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        adaptive_limiter l(aimd{.initial = 20, .min = 1}, each_call());
        adaptive_limiter gentle(aimd{.initial = 20, .min = 1},
                                {.window = 0s, .min_samples = 1, .failures_shrink = false});
        const auto guarded = co::pipeline(l, gentle);
        const auto call = [](char how) {
            return [how]() -> task<int> {
                co_await co::sleep_for(1ms);
                if (how == 'F') throw std::runtime_error("no");
                if (how == 'L') throw std::logic_error("no");
                if (how == 'C') throw co::canceled();
                co_return 1;
            };
        };
        const auto good = call('S'), bad = call('F'), wrong = call('L'), stops = call('C');
        (void)co_await as_outcome(guarded(good));
        CHECK(l.stats().samples == 1);
        (void)co_await as_outcome(guarded(bad));
        CHECK(l.stats().samples == 2);
        CHECK(l.stats().dropped == 1);
        CHECK(limit(l) == 18);
        (void)co_await as_outcome(guarded(wrong));
        (void)co_await as_outcome(guarded(stops));
        CHECK(l.stats().samples == 2);
        CHECK(gentle.stats().samples == 1);
        CHECK(gentle.stats().dropped == 0);
        CHECK(l.stats().in_use == 0);
    });
}

TEST_CASE("waiters are let go when calls end, and when the limit grows", "[limit][adaptive_limiter]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        simulation sim(seed);
        sim.run([]() -> task<> {
            adaptive_limiter l(aimd{.initial = 2, .min = 1},
                               {.max_waiting = 4, .max_wait = 1s, .window = 0s, .min_samples = 1});
            const auto begin = co::clock::now();
            std::vector<co::clock::duration> starts;
            const auto one = [&]() -> task<> {
                auto permit = co_await l.acquire();
                starts.push_back(co::clock::now() - begin);
                co_await co::sleep_for(10ms);
                permit.succeeded();
            };
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 5; ++i) group.spawn(one());
                co_return;
            };
            co_await co::with_group(body);
            CHECK(starts == std::vector<co::clock::duration>{0ms, 0ms, 10ms, 10ms, 10ms});
            CHECK(limit(l) >= 5);
            std::vector<adaptive_limiter::permit> all;
            while (auto p = l.try_acquire()) all.push_back(std::move(p));
            CHECK(all.size() == limit(l));
            const auto from = co::clock::now();
            auto late = co_await as_outcome(l.acquire());
            CHECK(late.is_rejected());
            CHECK(co::clock::now() - from == 1s);
            auto timed_out = co_await as_outcome(co::with_timeout(10ms, l.acquire()));
            CHECK(timed_out.is_error());
            all.clear();
            l.close();
            auto closed = co_await as_outcome(l.admission());
            CHECK(closed.rejection().reason == co::reject_reason::closed);
        });
    }
}

TEST_CASE("an adaptive limiter that threads wait for", "[limit][adaptive_limiter]") {
    adaptive_limiter l(aimd{.initial = 1, .min = 1}, {.name = "a", .max_waiting = 1});
    auto first = l.acquire_blocking();
    REQUIRE(first.has_value());
    std::stop_source stop;
    stop.request_stop();
    CHECK(l.acquire_blocking(stop.get_token()).is_stopped());
    auto late = l.acquire_blocking(1ms);
    CHECK_FALSE(late.has_value());
    first->release();
    CHECK(l.acquire_blocking(1ms).has_value());
    CHECK(l.stats().in_use == 0);
    CHECK(l.name() == "a");
}

TEST_CASE("a call behind an adaptive limit can be stopped at any point, and is no sample then",
          "[limit][adaptive_limiter][cancel_sweep][T7]") {
    struct world {
        adaptive_limiter limit{aimd{.initial = 1, .min = 1}, {.max_waiting = 8, .window = 0s, .min_samples = 1}};
        std::uint64_t ended = 0, failed = 0;
    };
    const bool guarded = GENERATE(false, true);
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in, bool calls) -> task<> {
            const auto call = [&]() -> task<> {
                bool broken = false;
                try {
                    co_await co::sleep_for(1ms);
                } catch (const co::testing::injected_error&) {
                    broken = true;
                }
                if (++in->ended % 2 == 1 && !broken) co_return;
                ++in->failed;
                throw std::runtime_error("failed");
            };
            const auto one = [&]() -> task<> {
                if (calls) {
                    (void)co_await as_outcome(in->limit(call));
                } else {
                    auto permit = co_await in->limit.acquire();
                    const auto how = co_await as_outcome(call());
                    if (how.has_value()) permit.succeeded();
                    else permit.dropped();
                }
            };
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 4; ++i) group.spawn(one());
                co_return;
            };
            co_await co::with_group(body);
        }(w, guarded);
    };
    const auto check = [&](const auto&, const co::testing::sweep_point&) {
        const auto s = w->limit.stats();
        return s.in_use == 0 && s.waiting == 0 && s.stale == 0 && s.samples == w->ended && s.dropped == w->failed &&
               s.limit >= 1 && s.limit <= 1 + s.samples;
    };
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        const auto swept = co::testing::cancel_sweep({.seed = seed, .fail_awaits = true}, make, check);
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 5);
    }
}

TEST_CASE("an adaptive limiter says what is wrong with its numbers", "[limit][adaptive_limiter]") {
    CHECK(complaint(aimd{}).empty());
    CHECK(complaint(aimd{.min = 0}) == "adaptive_limiter: min is 0, allowed are 1 to max, 200");
    CHECK(complaint(aimd{.initial = 10}) == "adaptive_limiter: initial is 10, allowed are 20 to 200");
    CHECK(complaint(aimd{.max = 0}).find("max is 0, allowed are 1 to 4294967295") != std::string::npos);
    CHECK(complaint(aimd{.backoff = 1}).find("backoff is 1.0") != std::string::npos);
    CHECK(complaint(aimd{.timeout = 0s}) == "adaptive_limiter: timeout is 0 ns, allowed are more than 0");
    CHECK(complaint(gradient2{.tolerance = 0.5}).find("tolerance is 0.5") != std::string::npos);
    CHECK(complaint(gradient2{.smoothing = 0}).find("smoothing is 0.0") != std::string::npos);
    CHECK(complaint(gradient2{.long_window = 0}) == "adaptive_limiter: long_window is 0, allowed are 1 and more");
    CHECK(complaint(aimd{}, {.max_wait = 0s}).find("max_wait is 0 ns") != std::string::npos);
    CHECK(complaint(aimd{}, {.window = -1ns}).find("window is -1 ns") != std::string::npos);
    CHECK(complaint(aimd{}, {.min_samples = 0}).find("min_samples is 0") != std::string::npos);
    CHECK(complaint(aimd{}, {.min_latency = -1ns}).find("min_latency is -1 ns") != std::string::npos);
    CHECK(complaint(aimd{}, {.probe_every = 0s}).find("probe_every is 0 ns") != std::string::npos);
    CHECK(complaint(aimd{}, {.probe_every = 1s}) ==
          "adaptive_limiter: probe_every is 1000000000 ns, allowed is with aimd only max(), since it measures no usual "
          "latency");
    CHECK(complaint(gradient2{}, {.probe_every = 1s}).empty());
    CHECK(complaint(aimd{}, {.probe_concurrency = 0}).find("probe_concurrency is 0") != std::string::npos);
    CHECK(complaint(aimd{}, {.probe_samples = 10'001}).find("probe_samples is 10001") != std::string::npos);
}

TEST_CASE("the figures of an adaptive limiter are reported, and destroyed in use it says so",
          "[limit][adaptive_limiter][observable]") {
    const adaptive_limiter l(gradient2{}, {.name = "stock"});
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    l.report(sink);
    CHECK(names == "rejected samples dropped stale limit in_use waiting usual_latency_seconds ");
    const auto text = last_words([] {
        adaptive_limiter::permit out;
        adaptive_limiter dies(gradient2{}, {.name = "dies"});
        out = dies.try_acquire();
    });
    CHECK(says(text, "dies", "destroyed"));
}
