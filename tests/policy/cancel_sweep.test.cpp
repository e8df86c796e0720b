// SPDX-License-Identifier: MIT
// Pipelines as they are used, stopped at each of their steps and with a deadline at each of their times: what guards
// have granted is back, and what was stopped is counted nowhere.
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "last_words.hpp"
#include "waiting_guard.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::constant;
using co::pipeline;
using co::retry;
using co::timeout;
using co::testing::cancel_sweep;
using co::testing::sweep_point;
using co::testing::sweep_variant;

/// What the runs have in common. Made anew for each.
struct world {
    explicit world(const char* script, co::clock::duration each) : remote(script, each) {}
    service remote;
    co::circuit_breaker breaker{{.name = "breaker"}};
    co::retry_budget tokens{co::token_budget_options{.max_tokens = 20, .per_success = 0.001}};
    co::retry_budget in_flight{co::in_flight_budget_options{}};
    co::retry_budget windowed{co::retry_budget_options{.ratio = 1, .min_per_second = 10, .window = 10s}};
    waiting_guard guard{1};
    int failed_calls = 0;  // that ended as failures
    int asked = 0;         // fallbacks that began to answer
    int answers = 0;       // of those
};
using shared = std::shared_ptr<world>;

/// Awaits a call, so that a failure of it is no error of the run, and writes down how it ended.
template <class Op>
task<> call_of(shared w, Op op) {
    const auto ended = co_await as_outcome(std::move(op));
    if (!ended.has_value()) ++w->failed_calls;
}

/// Sweeps over a few schedules; `holds(world, point)` must be true after each run.
template <class Make, class Holds>
void expect_clean(const char* script, co::clock::duration each, Make make, Holds holds) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        shared w;
        const auto begin = [&] {
            w = std::make_shared<world>(script, each);
            return make(w);
        };
        const auto check = [&](const auto&, const sweep_point& at) {
            const auto flying = w->in_flight.stats();
            return w->remote.running == 0 && flying.calls_in_flight == 0 && flying.retries_in_flight == 0 &&
                   w->guard.stats().available == 1 && w->guard.stats().waiting == 0 && holds(*w, at);
        };
        auto swept = cancel_sweep({.seed = seed, .max_findings = 1000, .fail_awaits = true}, begin, check);
        // A retry looks at the deadline and gives up before it: not what the baseline did. Those are run below.
        std::erase_if(swept.findings, [](const co::testing::sweep_finding& f) {
            return f.variant == sweep_variant::deadline && says(f.what, "does not run as the baseline did");
        });
        INFO("seed " << seed << ": " << describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 8);
        for (co::clock::duration d = 0ms; d < 10ms; d += 250us) {
            simulation sim(seed);
            sim.run([&]() -> task<> {
                (void)co_await as_outcome(co::with_timeout(d, begin()));
                INFO("deadline after " << d.count() << " ns");
                CHECK(check(0, sweep_point{.variant = sweep_variant::deadline}));
            });
            CHECK(sim.armed_timers() == 0);
        }
    }
}

/// A policy that gives its permit back only for what has ended.
template <class Call>
task<int> forgetful(co::async_semaphore& permits, Call call) {
    co_await permits.acquire();
    const int got = co_await call();
    permits.release();
    co_return got;
}

std::uint64_t count(const std::string& text, char c) {
    return static_cast<std::uint64_t>(std::count(text.begin(), text.end(), c));
}

}  // namespace

TEST_CASE("a timeout around a retry with a budget and a breaker can be stopped at any point",
          "[policy][pipeline][cancel_sweep][T7]") {
    const auto by_tokens = [](shared w) -> task<> {
        const auto guarded =
            pipeline(timeout(1s), retry(4, {.backoff = constant(2ms), .budget = &w->tokens}), w->breaker);
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("FFS", 1ms, by_tokens, [](world& w, const sweep_point& at) {
        const auto b = w.breaker.stats();
        const auto finished = static_cast<std::uint64_t>(w.remote.finished);
        if (at.variant == sweep_variant::baseline && (finished != 3 || w.failed_calls != 0)) return false;
        if (b.calls != finished || b.failed != static_cast<std::uint64_t>(w.remote.failed)) return false;
        // paid for: retries that were sent, and the failure that was the last; a success brings a thousandth back, with
        // which one more is granted
        const int paid = std::max(w.remote.calls - 1, 0) + w.failed_calls - (w.remote.finished - w.remote.failed);
        return w.tokens.stats().available == 9 - static_cast<std::uint64_t>(paid);
    });

    const auto by_calls = [](shared w) -> task<> {
        const auto guarded =
            pipeline(timeout(1s), retry(4, {.backoff = constant(2ms), .budget = &w->windowed}), w->breaker);
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("FFS", 1ms, by_calls, [](world& w, const sweep_point&) {
        // each retry that was sent costs one, and a call that has ended, not one that was stopped, brings one
        const int paid = std::max(w.remote.calls - 1, 0), brought = w.failed_calls + w.remote.finished - w.remote.failed;
        return w.windowed.stats().available == 100 - static_cast<std::uint64_t>(paid - brought);
    });

    const auto in_flight = [](shared w) -> task<> {
        const auto guarded =
            pipeline(timeout(1s), retry(4, {.backoff = constant(0s), .budget = &w->in_flight}), w->breaker);
        co_await co::when_all(call_of(w, guarded(w->remote.fetch())), call_of(w, guarded(w->remote.fetch())));
    };
    expect_clean("FFFS", 1ms, in_flight, [](world& w, const sweep_point& at) {
        const auto sent = static_cast<std::uint64_t>(std::max(w.remote.calls - 2, 0));
        const std::uint64_t granted = w.in_flight.stats().granted;
        if (at.variant == sweep_variant::baseline && granted != sent) return false;
        // of each call one retry that was granted may have been stopped before it was sent
        return w.breaker.stats().calls == static_cast<std::uint64_t>(w.remote.finished) && granted >= sent &&
               granted <= sent + 2;
    });
}

TEST_CASE("a fallback that waits, around a breaker and a timeout, can be stopped at any point",
          "[policy][pipeline][cancel_sweep][T7]") {
    const auto takes = GENERATE(1ms, 10ms);  // fails, or is too slow
    const auto root = [](shared w) -> task<> {
        const auto answer = [w](const co::failure&) -> task<int> {
            ++w->asked;
            co_await co::sleep_for(2ms);
            co_return ++w->answers;
        };
        const auto guarded = pipeline(co::fallback(answer), w->breaker, timeout(3ms));
        co_await call_of(w, guarded(w->remote.fetch()));
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("F", takes, root, [&](world& w, const sweep_point& at) {
        const auto b = w.breaker.stats();
        if (at.variant == sweep_variant::baseline && (b.failed != 2 || w.answers != 2)) return false;
        // what has failed is answered; what was stopped has not failed
        const bool answer_failed = w.failed_calls == 1 && at.variant == sweep_variant::error;
        return (w.failed_calls == 0 || answer_failed) && b.calls == b.failed &&
               b.failed == static_cast<std::uint64_t>(w.asked) && w.answers <= w.asked &&
               (takes > 3ms || w.remote.finished == w.asked);
    });
}

TEST_CASE("a retry around a guard that waits can be stopped at any point", "[policy][pipeline][cancel_sweep][T7]") {
    const auto root = [](shared w) -> task<> {
        const auto guarded =
            pipeline(retry(3, {.backoff = constant(1ms), .budget = &w->in_flight}), w->guard, timeout(5ms));
        co_await co::when_all(call_of(w, guarded(w->remote.fetch())), call_of(w, guarded(w->remote.fetch())),
                              call_of(w, guarded(w->remote.fetch())));
    };
    expect_clean("FSFS", 2ms, root, [](world& w, const sweep_point& at) {
        const std::string& told = w.guard.settled;
        if (at.variant == sweep_variant::baseline && told != "FSFSS") return false;
        const auto finished = static_cast<std::uint64_t>(w.remote.finished);
        // every call that ended was told, once; those that were admitted and did not end were told as stopped
        return count(told, 'S') + count(told, 'F') == finished && count(told, 'I') == 0 &&
               count(told, 'X') == static_cast<std::uint64_t>(w.remote.calls) - finished;
    });
}

TEST_CASE("the sweep of pipelines finds a guard that keeps the permit of what is stopped",
          "[policy][pipeline][cancel_sweep][T7]") {
    static auto& kept = *new std::vector<std::shared_ptr<co::async_semaphore>>;
    shared w;
    const auto begin = [&] {
        w = std::make_shared<world>("S", 1ms);
        auto permits = kept.emplace_back(std::make_shared<co::async_semaphore>(1u));
        return [](shared in, std::shared_ptr<co::async_semaphore> s) -> task<> {
            const auto policy = [s](auto call) { return forgetful(*s, call); };
            const auto guarded = pipeline(timeout(1s), policy);
            (void)co_await guarded(in->remote.fetch());
        }(w, permits);
    };
    const auto swept =
        cancel_sweep({}, begin, [&](const auto&, const sweep_point&) { return kept.back()->stats().available == 1; });
    CHECK_FALSE(swept.findings.empty());
}
