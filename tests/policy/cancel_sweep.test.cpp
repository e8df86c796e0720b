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
#include <optional>
#include <stdexcept>
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
    explicit world(const char* script, co::clock::duration takes) : remote(script, takes) {}
    service remote;
    co::circuit_breaker breaker{{.name = "breaker"}};
    co::retry_budget tokens{co::token_budget_options{.max_tokens = 20, .per_success = 0.001}};
    co::retry_budget last_token{co::token_budget_options{.max_tokens = 4, .per_success = 0.001}};
    co::retry_budget in_flight{co::in_flight_budget_options{}};
    co::retry_budget windowed{co::retry_budget_options{.ratio = 1, .min_per_second = 10, .window = 10s}};
    waiting_guard guard{1};
    co::timeout_policy limit = timeout(1s), each = timeout(3ms);
    std::optional<co::retry_policy<>> retries;
    std::uint64_t decided = 0;  // retries
    int failed_calls = 0;       // that ended as failures
    int asked = 0;              // fallbacks that began to answer
    int answers = 0;            // of those
    struct {
        std::uint64_t answered = 0, failed = 0;
    } told;                     // by the fallback

    void tries(int attempts, co::retry_options o) {
        o.on_retry = [](const co::retry_event&, void* n) { ++*static_cast<std::uint64_t*>(n); };
        o.argument = &decided;
        retries.emplace(attempts, o);
    }
    /// All zero if no call was made.
    co::retry_policy<>::snapshot retried() const {
        return retries ? retries->stats() : co::retry_policy<>::snapshot{};
    }
    /// Whether the retry has counted what became of `first` calls, all of which were made, if not stopped: attempts
    /// beyond theirs, those of them that succeeded, and calls that failed all the same.
    bool retried_rightly(int first, std::uint64_t succeeded) const {
        const auto now = retried();
        return now.retries == static_cast<std::uint64_t>(std::max(remote.calls - first, 0)) && now.retries <= decided &&
               now.recovered == succeeded && now.gave_up == static_cast<std::uint64_t>(failed_calls) &&
               now.listener_errors == 0;
    }
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
                   w->guard.stats().available == 1 && w->guard.stats().waiting == 0 &&
                   (at.variant == sweep_variant::error || holds(*w, at));  // which is told what the script says
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
                CHECK(check(0, sweep_point{.variant = sweep_variant::deadline, .at = d}));
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
        w->tries(4, {.backoff = constant(2ms), .budget = &w->tokens});
        const auto guarded = pipeline(w->limit, *w->retries, w->breaker);
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("FFS", 1ms, by_tokens, [](world& w, const sweep_point& at) {
        const auto b = w.breaker.stats();
        const auto finished = static_cast<std::uint64_t>(w.remote.finished);
        if (at.variant == sweep_variant::baseline && (finished != 3 || w.failed_calls != 0)) return false;
        if (b.calls != finished || b.failed != std::min<std::uint64_t>(finished, 2)) return false;
        // paid for: retries that were sent, and the failure that was the last; a success brings a thousandth back, with
        // which one more is granted
        const int paid = std::max(w.remote.calls - 1, 0) + w.failed_calls - (finished == 3 ? 1 : 0);
        const auto budget = w.tokens.stats();
        return budget.available == 9 - static_cast<std::uint64_t>(paid) && budget.granted == w.decided &&
               budget.rejected == 0 && w.limit.stats().timed_out == 0 && w.retried_rightly(1, finished == 3 ? 1 : 0);
    });
    // the last attempt fails too, or the second takes all tokens that may be taken
    const bool poor = GENERATE(false, true);
    const auto in_vain = [poor](shared w) -> task<> {
        w->tries(3, {.backoff = constant(2ms), .budget = poor ? &w->last_token : &w->tokens});
        const auto guarded = pipeline(w->limit, *w->retries, w->breaker);
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("F", 1ms, in_vain, [poor](world& w, const sweep_point& at) {
        const auto budget = (poor ? w.last_token : w.tokens).stats();
        // at 4 ms the budget is asked for more, unless there is a stop, or no time for the wait
        const auto until = at.variant == sweep_variant::stop ? 4ms : 6ms;
        const bool asks = at.variant == sweep_variant::baseline || at.at > until;
        const std::uint64_t refused = poor && asks && w.remote.finished == 2 ? 1 : 0;
        if (at.variant == sweep_variant::baseline && (w.failed_calls != 1 || w.remote.calls != (poor ? 2 : 3)))
            return false;
        return w.breaker.stats().failed == static_cast<std::uint64_t>(w.remote.finished) &&
               budget.granted == w.decided && budget.rejected == refused && w.retried_rightly(1, 0);
    });

    const auto by_calls = [](shared w) -> task<> {
        w->tries(4, {.backoff = constant(2ms), .budget = &w->windowed});
        const auto guarded = pipeline(w->limit, *w->retries, w->breaker);
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    expect_clean("FFS", 1ms, by_calls, [](world& w, const sweep_point&) {
        // each retry that was sent costs one, and a call that has ended, not one that was stopped, brings one
        const int paid = std::max(w.remote.calls - 1, 0), brought = w.failed_calls + (w.remote.finished == 3 ? 1 : 0);
        const auto budget = w.windowed.stats();
        return budget.available == 100 - static_cast<std::uint64_t>(paid - brought) && budget.granted == w.decided &&
               budget.rejected == 0 && w.retried_rightly(1, w.remote.finished == 3 ? 1 : 0);
    });

    const auto in_flight = [](shared w) -> task<> {
        w->tries(4, {.backoff = constant(0s), .budget = &w->in_flight});
        const auto guarded = pipeline(w->limit, *w->retries, w->breaker);
        co_await co::when_all(call_of(w, guarded(w->remote.fetch())), call_of(w, guarded(w->remote.fetch())));
    };
    expect_clean("FFFS", 1ms, in_flight, [](world& w, const sweep_point& at) {
        const auto budget = w.in_flight.stats();
        const auto finished = static_cast<std::uint64_t>(w.remote.finished);
        if (at.variant == sweep_variant::baseline && (w.decided != 3 || w.retried().retries != 3)) return false;
        // what was decided and not sent was stopped; of the calls the fourth and those after it are a success
        const auto b = w.breaker.stats();
        const std::uint64_t failed = std::min<std::uint64_t>(finished, 3);
        return b.calls == finished && b.failed == failed && budget.granted == w.decided && budget.rejected == 0 &&
               w.retried_rightly(2, finished - failed);
    });
}

TEST_CASE("a fallback, around a breaker and a timeout, can be stopped at any point",
          "[policy][pipeline][cancel_sweep][T7]") {
    const auto takes = GENERATE(1ms, 10ms);  // fails, or is too slow
    const bool waits = GENERATE(false, true);
    const auto check = [&](auto&& answers) {
        expect_clean("F", takes, answers, [&](world& w, const sweep_point& at) {
            const auto b = w.breaker.stats();
            const auto asked = static_cast<std::uint64_t>(w.asked);
            const auto& f = w.told;
            if (at.variant == sweep_variant::baseline && (b.failed != 3 || w.answers != 2 || f.failed != 1))
                return false;
            // what has failed is answered; what was stopped has not failed, and no timeout ended it
            return b.calls == b.failed && b.failed == asked && w.each.stats().timed_out == (takes > 3ms ? asked : 0) &&
                   f.answered == static_cast<std::uint64_t>(w.answers) &&
                   f.failed == static_cast<std::uint64_t>(w.failed_calls) &&
                   (waits || asked == f.answered + f.failed) && (takes > 3ms || w.remote.finished == w.asked);
        });
    };
    // Says what the fallback has counted when that is gone.
    const auto calls = [](shared w, auto answer) -> task<> {
        const auto policy = co::fallback(std::move(answer));
        struct at_the_end {
            const decltype(policy)& of;
            world& in;
            ~at_the_end() { in.told = {of.stats().answered, of.stats().failed}; }
        } const tells{policy, *w};
        const auto guarded = pipeline(policy, w->breaker, w->each);
        co_await call_of(w, guarded(w->remote.fetch()));
        co_await call_of(w, guarded(w->remote.fetch()));
        co_await call_of(w, guarded(w->remote.fetch()));
    };
    const auto at_once = [](world& w) {
        if (++w.asked == 2) throw std::runtime_error("no answer");
        return ++w.answers;
    };
    const auto later = [](shared w) -> task<int> {
        const bool has_none = ++w->asked == 2;
        co_await co::sleep_for(2ms);
        if (has_none) throw std::runtime_error("no answer");
        co_return ++w->answers;
    };
    if (waits)
        check([&](shared w) { return calls(w, [w, later](const co::failure&) { return later(w); }); });
    else
        check([&](shared w) { return calls(w, [w, at_once](const co::failure&) { return at_once(*w); }); });
}

TEST_CASE("a retry around a guard that waits can be stopped at any point", "[policy][pipeline][cancel_sweep][T7]") {
    const auto root = [](shared w) -> task<> {
        w->tries(3, {.backoff = constant(1ms), .budget = &w->in_flight});
        const auto guarded = pipeline(*w->retries, w->guard, w->each);
        co_await co::when_all(call_of(w, guarded(w->remote.fetch())), call_of(w, guarded(w->remote.fetch())),
                              call_of(w, guarded(w->remote.fetch())));
    };
    expect_clean("FSFS", 2ms, root, [](world& w, const sweep_point& at) {
        const std::string& told = w.guard.settled;
        if (at.variant == sweep_variant::baseline && (told != "FSFSS" || w.retried().recovered != 2)) return false;
        const auto finished = static_cast<std::uint64_t>(w.remote.finished);
        const auto now = w.retried();
        // every call that ended was told, once; those that were admitted and did not end were told as stopped
        return count(told, 'S') + count(told, 'F') == finished && count(told, 'I') == 0 &&
               count(told, 'X') == static_cast<std::uint64_t>(w.remote.calls) - finished &&
               w.in_flight.stats().granted == w.decided && now.retries <= w.decided &&
               now.recovered <= count(told, 'S') && now.recovered <= now.retries &&
               now.gave_up == static_cast<std::uint64_t>(w.failed_calls);
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
