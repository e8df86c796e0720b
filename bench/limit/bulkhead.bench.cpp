// SPDX-License-Identifier: MIT
// A permit that is free, taken and given back, and one that is not, on one thread and on two.
#include "../rows.hpp"

#include <atomic>
#include <mutex>
#include <semaphore>

namespace {

using namespace bench;
using benchmark::State;

void two_exchanges(State& state) {
    static std::atomic<std::uint64_t> word{8};
    for (auto _ : state) {
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        while (!word.compare_exchange_weak(seen, seen - 1, std::memory_order_acquire)) {}
        seen = word.load(std::memory_order_relaxed);
        while (!word.compare_exchange_weak(seen, seen + 1, std::memory_order_release)) {}
    }
    state.SetItemsProcessed(state.iterations());
}
co::bulkhead& slots() {
    static co::bulkhead b{8, {.name = "slots"}};
    return b;
}
void try_acquire(State& state) {
    for (auto _ : state) {
        const auto p = slots().try_acquire();
        if (!p) state.SkipWithError("not free");
    }
    state.SetItemsProcessed(state.iterations());
}
co::task<> acquires(State& state) {
    for (auto _ : state) const auto p = co_await slots().acquire();
}
void semaphore(State& state) {
    static std::counting_semaphore<> s{8};
    for (auto _ : state) {
        if (!s.try_acquire()) state.SkipWithError("not free");
        s.release();
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(two_exchanges)->Name("bulkhead/floor_two_exchanges");
BENCHMARK(try_acquire)->Name("bulkhead/cordon_try_acquire");
BENCHMARK(in_group<&acquires>)->Name("bulkhead/cordon_acquire");
BENCHMARK(semaphore)->Name("bulkhead/std_counting_semaphore");
BENCHMARK(two_exchanges)->Name("bulkhead_2_threads/floor_two_exchanges")->Threads(2)->UseRealTime();
BENCHMARK(try_acquire)->Name("bulkhead_2_threads/cordon_try_acquire")->Threads(2)->UseRealTime();
BENCHMARK(semaphore)->Name("bulkhead_2_threads/std_counting_semaphore")->Threads(2)->UseRealTime();

void refuse(State& state) {
    static co::bulkhead b{0};
    for (auto _ : state)
        if (b.try_acquire()) state.SkipWithError("free");
    state.SetItemsProcessed(state.iterations());
}
/// Which counts nothing.
void refuse_semaphore(State& state) {
    static std::counting_semaphore<> s{0};
    for (auto _ : state)
        if (s.try_acquire()) state.SkipWithError("free");
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(refuse)->Name("bulkhead_refuse/cordon");
BENCHMARK(refuse_semaphore)->Name("bulkhead_refuse/std_counting_semaphore_uncounted");
BENCHMARK(refuse)->Name("bulkhead_refuse_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(refuse_semaphore)
    ->Name("bulkhead_refuse_2_threads/std_counting_semaphore_uncounted")->Threads(2)->UseRealTime();

}  // namespace
