// SPDX-License-Identifier: MIT
// A resource that is idle, borrowed and given back, on one thread and on two.
#include "../rows.hpp"

#include <cordon/pool/resource_pool.hpp>

#include <condition_variable>
#include <cstddef>
#include <deque>
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
/// What one would write by hand for the same job: at most so many are made, who waits is served in turn by who gives
/// back, and what was not used for too long is not lent.
class locked_pool {
public:
    explicit locked_pool(std::size_t limit) : limit_(limit) {}
    int* acquire() {
        const co::clock::time_point now = co::clock::now();
        std::unique_lock lock(mutex_);
        while (waiting_.empty() && !idle_.empty()) {
            const dated last = idle_.back();
            idle_.pop_back();
            if (now - last.used < 1h) return last.resource;
            --size_;
        }
        if (waiting_.empty() && size_ < limit_) {
            ++size_;
            lock.unlock();
            return new int(7);
        }
        waiter mine;
        waiting_.push_back(&mine);
        mine.served.wait(lock, [&] { return mine.got != nullptr; });
        return mine.got;
    }
    void give_back(int* resource) {
        const co::clock::time_point now = co::clock::now();
        const std::lock_guard lock(mutex_);
        if (waiting_.empty()) return idle_.push_back({resource, now});
        waiter& first = *waiting_.front();
        waiting_.pop_front();
        first.got = resource;
        first.served.notify_one();
    }

private:
    struct dated {
        int* resource;
        co::clock::time_point used;
    };
    struct waiter {
        std::condition_variable served;
        int* got = nullptr;
    };
    std::mutex mutex_;
    const std::size_t limit_;
    std::size_t size_ = 0;
    std::vector<dated> idle_;
    std::deque<waiter*> waiting_;
};
void mutex_and_condition_variable(State& state) {
    begin_threads();
    static locked_pool pool(8);
    if (state.thread_index() == 0) {
        int* const a = pool.acquire();
        int* const b = pool.acquire();
        pool.give_back(a);
        pool.give_back(b);
    }
    for (auto _ : state) {
        int* const mine = pool.acquire();
        keep(mine);
        pool.give_back(mine);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(in_group<&acquires>)->Name("resource_pair/cordon_acquire");
BENCHMARK(try_acquire)->Name("resource_pair/cordon_try_acquire");
BENCHMARK(mutex_and_condition_variable)->Name("resource_pair/mutex_and_condition_variable");
BENCHMARK(mutex_and_vector)->Name("resource_pair/mutex_and_vector");
BENCHMARK(try_acquire)->Name("resource_pair_2_threads/cordon_try_acquire")->Threads(2)->UseRealTime();
BENCHMARK(mutex_and_condition_variable)
    ->Name("resource_pair_2_threads/mutex_and_condition_variable")
    ->Threads(2)
    ->UseRealTime();
BENCHMARK(mutex_and_vector)->Name("resource_pair_2_threads/mutex_and_vector")->Threads(2)->UseRealTime();

}  // namespace
