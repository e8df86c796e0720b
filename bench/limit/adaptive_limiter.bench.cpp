// SPDX-License-Identifier: MIT
// A permit of an adaptive limiter, taken and told of a success, on one thread and on two. Beside it what it is made of:
// a bulkhead's permit, and two readings of the clock.
#include "../rows.hpp"

#include <cordon/limit/adaptive_limiter.hpp>

#include <chrono>

namespace {

using namespace bench;
using benchmark::State;

co::bulkhead& slots() {
    static co::bulkhead b{8, {.name = "slots"}};
    return b;
}
void bulkhead_and_clocks(State& state) {
    for (auto _ : state) {
        const auto begin = co::clock::now();
        const auto p = slots().try_acquire();
        if (!p) state.SkipWithError("not free");
        keep(co::clock::now() - begin);
    }
    state.SetItemsProcessed(state.iterations());
}
co::adaptive_limiter& limit() {
    static co::adaptive_limiter l{co::gradient2{.initial = 8, .min = 8}, {.name = "limit", .min_latency = 0s}};
    return l;
}
void succeeds(State& state) {
    for (auto _ : state) {
        auto p = limit().try_acquire();
        if (!p) state.SkipWithError("not free");
        p.succeeded();
    }
    state.SetItemsProcessed(state.iterations());
}
void no_sample(State& state) {
    for (auto _ : state) {
        auto p = limit().try_acquire();
        if (!p) state.SkipWithError("not free");
        p.failed();
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bulkhead_and_clocks)->Name("adaptive_limiter/floor_bulkhead_and_two_clocks");
BENCHMARK(succeeds)->Name("adaptive_limiter/cordon");
BENCHMARK(no_sample)->Name("adaptive_limiter/cordon_no_sample");
BENCHMARK(bulkhead_and_clocks)
    ->Name("adaptive_limiter_2_threads/floor_bulkhead_and_two_clocks")
    ->Threads(2)
    ->UseRealTime();
BENCHMARK(succeeds)->Name("adaptive_limiter_2_threads/cordon")->Threads(2)->UseRealTime();

}  // namespace
