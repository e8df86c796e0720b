// SPDX-License-Identifier: MIT
// A resource that is idle, borrowed and given back, on one thread and on two.
#include "../rows.hpp"

#include <cordon/pool/resource_pool.hpp>

#include <mutex>
#include <vector>

namespace {

using namespace bench;
using benchmark::State;

co::task<int> make() { co_return 7; }
co::resource_pool<int>& few() {
    static co::resource_pool<int> p{8, make, {.name = "few", .max_idle_time = 1h, .max_lifetime = 24h}};
    return p;
}
co::task<> acquires(State& state) {
    begin_threads();
    for (auto _ : state) {
        const auto mine = co_await few().acquire();
        keep(mine);
    }
}
void try_acquire(State& state) {
    begin_threads();
    if (state.thread_index() == 0) {
        const auto both = [](int&) -> co::task<> {
            const auto a = co_await few().acquire(), b = co_await few().acquire();
        };
        int once = 1;
        run_as_child(both, once);
    }
    for (auto _ : state) {
        const auto mine = few().try_acquire();
        if (!mine) state.SkipWithError("nothing is idle");
    }
    state.SetItemsProcessed(state.iterations());
}
/// Which knows when something was used last, and neither for how long it may be nor who has it.
void mutex_and_vector(State& state) {
    begin_threads();
    struct dated {
        int* resource;
        co::clock::time_point used;
    };
    static int resources[2];
    static std::mutex mutex;
    static std::vector<dated> idle{{&resources[0], {}}, {&resources[1], {}}};
    for (auto _ : state) {
        dated mine{};
        const co::clock::time_point now = co::clock::now();
        {
            const std::lock_guard lock(mutex);
            mine = idle.back();
            idle.pop_back();
        }
        if (now - mine.used > 24h) keep(now);
        mine.used = co::clock::now();
        const std::lock_guard lock(mutex);
        idle.push_back(mine);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(in_group<&acquires>)->Name("resource_pair/cordon_acquire");
BENCHMARK(try_acquire)->Name("resource_pair/cordon_try_acquire");
BENCHMARK(mutex_and_vector)->Name("resource_pair/mutex_and_vector");
BENCHMARK(try_acquire)->Name("resource_pair_2_threads/cordon_try_acquire")->Threads(2)->UseRealTime();
BENCHMARK(mutex_and_vector)->Name("resource_pair_2_threads/mutex_and_vector")->Threads(2)->UseRealTime();

}  // namespace
