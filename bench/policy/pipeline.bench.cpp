// SPDX-License-Identifier: MIT
// A call through five policies that all let it pass: a fallback, retries with a budget, a breaker, a token bucket and a
// bulkhead, around a task that ends at once. Beside it the bare call, the guards by hand, and the same number of
// coroutines around each other. Then a call that an open breaker refuses, as a value and thrown.
#include "../rows.hpp"

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/token_bucket.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>

#include <cstdint>

namespace {

using namespace bench;
using namespace std::chrono_literals;
using benchmark::State;

co::task<int> works(int n) { co_return n; }

struct guards {
    co::circuit_breaker breaker{{.window = co::last_calls(100)}};
    co::token_bucket limiter{co::per_second(1'000'000'000), 1'000'000};
    co::bulkhead slots{16};
    co::retry_budget budget{co::token_budget_options{}};

    auto pipeline() {
        return co::pipeline(co::fallback([](const co::failure&) { return -1; }), co::retry(3, {.budget = &budget}),
                            breaker, limiter, slots);
    }
};

co::task<> bare(State& state) {
    for (auto _ : state) keep(co_await works(1));
}
co::task<> by_pipeline(State& state) {
    guards all;
    const auto guarded = all.pipeline();
    const auto call = [] { return works(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> by_any_pipeline(State& state) {
    guards all;
    const co::any_pipeline<int> guarded = all.pipeline();
    const auto call = [] { return works(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> with_a_timeout_too(State& state) {
    guards all;
    const auto guarded = co::pipeline(co::timeout(1s), all.pipeline());
    const auto call = [] { return works(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> by_hand(State& state) {
    guards all;
    for (auto _ : state) {
        all.budget.called();
        auto let_through = all.breaker.try_acquire();
        const bool has_token = all.limiter.try_acquire();
        auto slot = all.slots.try_acquire();
        if (!let_through || !has_token || !slot) state.SkipWithError("refused");
        keep(co_await works(1));
        let_through.succeeded();
        all.budget.ended(false);
    }
}
template <int depth>
co::task<int> nested() {
    if constexpr (depth == 0) {
        co_return 1;
    } else {
        const int n = co_await nested<depth - 1>();
        co_return n;
    }
}
co::task<> by_coroutines(State& state) {
    for (auto _ : state) keep(co_await nested<5>());
}

BENCHMARK(in_group<bare>)->Name("pipeline_of_five/bare");
BENCHMARK(in_group<by_pipeline>)->Name("pipeline_of_five/cordon");
BENCHMARK(in_group<by_any_pipeline>)->Name("pipeline_of_five/cordon_any_pipeline");
BENCHMARK(in_group<with_a_timeout_too>)->Name("pipeline_of_five/cordon_with_a_timeout_too");
BENCHMARK(in_group<by_hand>)->Name("pipeline_of_five/guards_by_hand");
BENCHMARK(in_group<by_coroutines>)->Name("pipeline_of_five/five_coroutines_that_do_nothing");

co::task<> refused(State& state) {
    guards all;
    all.breaker.force_open();
    const auto guarded = co::pipeline(all.breaker);
    const auto call = [] { return works(1); };
    for (auto _ : state) {
        const auto ended = co_await co::as_outcome(guarded(call));
        if (!ended.is_rejected()) state.SkipWithError("not refused");
    }
}
co::task<> refused_and_thrown(State& state) {
    guards all;
    all.breaker.force_open();
    const auto guarded = co::pipeline(all.breaker);
    const auto call = [] { return works(1); };
    for (auto _ : state) {
        bool thrown = false;
        try {
            keep(co_await guarded(call));
        } catch (const co::rejected&) {
            thrown = true;
        }
        if (!thrown) state.SkipWithError("not refused");
    }
}

BENCHMARK(in_group<refused>)->Name("pipeline_refusal/cordon");
BENCHMARK(in_group<refused_and_thrown>)->Name("pipeline_refusal/cordon_thrown");

}  // namespace
