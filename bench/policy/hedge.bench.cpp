// SPDX-License-Identifier: MIT
// A call that is fast enough to have no copy: one that is ready, and one that goes once around its loop, so that a
// timer is armed and cancelled. Beside it the bare call, and one within a timeout. Then a call with a copy at once.
#include "../rows.hpp"

#include <cordon/policy/hedge.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/scope/when_any.hpp>

namespace {

using namespace bench;
using benchmark::State;

co::task<int> works(int n) { co_return n; }
co::task<int> hops() {
    co_await co::this_task::yield();
    co_return 1;
}

co::task<> ready_bare(State& state) {
    for (auto _ : state) keep(co_await works(1));
}
co::task<> ready_hedged(State& state) {
    const auto guarded = co::pipeline(co::hedge({.after = 1s}));
    const auto call = [] { return works(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> ready_by_percentile(State& state) {
    const auto guarded = co::pipeline(co::hedge({.after = co::percentile(0.99)}));
    const auto call = [] { return works(1); };
    for (auto _ : state) keep(co_await guarded(call));
}
BENCHMARK(in_group<ready_bare>)->Name("hedge_ready/bare");
BENCHMARK(in_group<ready_hedged>)->Name("hedge_ready/cordon");
BENCHMARK(in_group<ready_by_percentile>)->Name("hedge_ready/cordon_percentile");

co::task<> hop_bare(State& state) {
    for (auto _ : state) keep(co_await hops());
}
co::task<> hop_timeout(State& state) {
    const auto guarded = co::pipeline(co::timeout(1s));
    const auto call = [] { return hops(); };
    for (auto _ : state) keep(co_await guarded(call));
}
co::task<> hop_hedged(State& state) {
    const auto guarded = co::pipeline(co::hedge({.after = 1s}));
    const auto call = [] { return hops(); };
    for (auto _ : state) keep(co_await guarded(call));
}
BENCHMARK(in_group<hop_bare>)->Name("hedge_hop/bare");
BENCHMARK(in_group<hop_timeout>)->Name("hedge_hop/cordon_timeout");
BENCHMARK(in_group<hop_hedged>)->Name("hedge_hop/cordon");

co::task<> copy_any(State& state) {
    for (auto _ : state) keep(co_await co::when_any(hops(), hops()));
}
co::task<> copy_hedged(State& state) {
    const auto guarded = co::pipeline(co::hedge({.after = 0s}));
    const auto call = [] { return hops(); };
    for (auto _ : state) keep(co_await guarded(call));
}
BENCHMARK(in_group<copy_any>)->Name("hedge_copy/cordon_when_any_of_two");
BENCHMARK(in_group<copy_hedged>)->Name("hedge_copy/cordon");

}  // namespace
