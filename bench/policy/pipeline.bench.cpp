// SPDX-License-Identifier: MIT
// A call through five policies that all let it pass: a fallback, retries with a budget, a breaker, a token bucket and a
// bulkhead, around a task that ends at once. Beside it the bare call, the guards by hand, and the same number of
// coroutines around each other. Then a call that an open breaker refuses, as a value and thrown.
#include "../rows.hpp"

namespace {

using namespace bench;
using benchmark::State;

co::task<> bare(State& state) {
    for (auto _ : state) keep(co_await child(1));
}
co::task<> by_pipeline(State& state) { return call_through_five(state); }
co::task<> by_hand(State& state) { return call_by_hand(state); }
co::task<> by_any_pipeline(State& state) {
    five_policies all;
    const co::any_pipeline<int> guarded = all.pipeline();
    const auto call = [] { return child(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> with_a_timeout_too(State& state) {
    five_policies all;
    const auto guarded = co::pipeline(co::timeout(1s), all.pipeline());
    const auto call = [] { return child(1); };
    for (auto _ : state) keep(co_await guarded(call));
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

/// By two threads, which share the guards.
five_policies& shared() {
    static five_policies all;
    return all;
}
co::task<> by_shared_pipeline(State& state) { return call_through_five(shared(), state); }

BENCHMARK(in_group<bare>)->Name("pipeline_of_five_2_threads/bare")->Threads(2)->UseRealTime();
BENCHMARK(in_group<by_shared_pipeline>)->Name("pipeline_of_five_2_threads/cordon")->Threads(2)->UseRealTime();

/// A plain function on a thread.
[[gnu::noinline]] int function() {
    int n = 1;
    keep(n);
    return n;
}
void bare_function(State& state) {
    for (auto _ : state) keep(function());
}
void by_call_blocking(State& state) {
    five_policies all;
    const auto guarded = all.pipeline();
    for (auto _ : state) keep(co::call_blocking(guarded, &function).has_value());
}
BENCHMARK(bare_function)->Name("pipeline_on_a_thread/bare");
BENCHMARK(by_call_blocking)->Name("pipeline_on_a_thread/cordon_call_blocking");

co::task<> refused(State& state) { return call_refused(state); }
five_policies& refusing() {
    static five_policies all;
    return all;
}
co::task<> refused_together(State& state) { return call_refused(refusing(), state); }
co::task<> refused_and_thrown(State& state) {
    five_policies all;
    all.breaker.force_open();
    const auto guarded = co::pipeline(all.breaker);
    const auto call = [] { return child(1); };
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
BENCHMARK(in_group<refused_together>)->Name("pipeline_refusal_2_threads/cordon")->Threads(2)->UseRealTime();

}  // namespace
