// SPDX-License-Identifier: MIT
// Empty tasks on a pool of one and of two threads, from one pool to another and back, and two trees of tasks that wait
// for their children: fib, whose tasks fork two, and skynet, whose tasks fork ten.
#include "../rows.hpp"

#include "../locked_pool.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#endif

#if __has_include(<tbb/task_group.h>)
#include <tbb/task_arena.h>
#include <tbb/task_group.h>
#endif

#include <atomic>
#include <exception>
#include <future>
#include <vector>

namespace {

using namespace bench;
using benchmark::State;

alignas(64) std::atomic<std::int64_t> ran;

[[gnu::noinline]] co::task<> nothing() { co_return; }

// --- spawn and join ---------------------------------------------------------------------------------------------

template <std::int64_t n>
co::task<> spawn_and_join(State& state) {
    const co::context& ctx = *co_await co::this_task::context();
    for (auto _ : state) {
        co::task_group group{ctx};
        for (std::int64_t i = 0; i < n; ++i) group.spawn(nothing());
        co_await group.join();
    }
}
template <std::size_t threads, std::int64_t n>
void cordon_spawn(State& state) {
    co::thread_pool pool(threads);
    co::sync_wait(co::on(pool, spawn_and_join<n>(state)));
    state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(cordon_spawn<1, 1'000'000>)->Name("pool_spawn_1t_1m/cordon")->Iterations(1)->UseRealTime();
BENCHMARK(cordon_spawn<2, 1'000'000>)->Name("pool_spawn_2t_1m/cordon")->Iterations(1)->UseRealTime();
BENCHMARK(cordon_spawn<1, 1'000>)->Name("pool_spawn_1t_1k/cordon")->UseRealTime();
BENCHMARK(cordon_spawn<2, 1'000>)->Name("pool_spawn_2t_1k/cordon")->UseRealTime();

/// From a thread that is none of the pool's, while the pool runs them.
template <std::size_t threads, std::int64_t n>
void cordon_spawn_from_outside(State& state) {
    co::thread_pool pool(threads);
    for (auto _ : state) {
        co::task_group group{pool};
        for (std::int64_t i = 0; i < n; ++i) group.spawn(nothing());
        if (!group.join_blocking()) state.SkipWithError("the work was not done");
    }
    state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(cordon_spawn_from_outside<1, 1'000'000>)
    ->Name("pool_spawn_outside_1t_1m/cordon")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(cordon_spawn_from_outside<2, 1'000'000>)
    ->Name("pool_spawn_outside_2t_1m/cordon")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(cordon_spawn_from_outside<2, 100>)->Name("pool_spawn_outside_2t_100/cordon")->UseRealTime();

/// Posts `n` functions, of which the last one tells.
template <std::int64_t n, class Post>
void post_and_tell(std::atomic<bool>& done, Post post) {
    ran = 0;
    for (std::int64_t i = 0; i < n; ++i)
        post([&done] {
            if (ran.fetch_add(1, std::memory_order_acq_rel) + 1 != n) return;
            done = true;
            done.notify_one();
        });
}

/// Functions, not tasks.
template <std::size_t threads, std::int64_t n, bool from_outside>
void locked_pool_post(State& state) {
    locked_pool pool(threads);
    const auto post = [&](auto f) { pool.post(f); };
    for (auto _ : state) {
        std::atomic<bool> done{false};
        if constexpr (from_outside) post_and_tell<n>(done, post);
        else pool.post([&] { post_and_tell<n>(done, post); });
        done.wait(false);
    }
    state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(locked_pool_post<1, 1'000'000, false>)
    ->Name("pool_spawn_1t_1m/std_mutex_deque")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(locked_pool_post<2, 1'000'000, false>)
    ->Name("pool_spawn_2t_1m/std_mutex_deque")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(locked_pool_post<1, 1'000, false>)->Name("pool_spawn_1t_1k/std_mutex_deque")->UseRealTime();
BENCHMARK(locked_pool_post<2, 1'000, false>)->Name("pool_spawn_2t_1k/std_mutex_deque")->UseRealTime();
BENCHMARK(locked_pool_post<1, 1'000'000, true>)
    ->Name("pool_spawn_outside_1t_1m/std_mutex_deque")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(locked_pool_post<2, 1'000'000, true>)
    ->Name("pool_spawn_outside_2t_1m/std_mutex_deque")
    ->Iterations(1)
    ->UseRealTime();
BENCHMARK(locked_pool_post<2, 100, true>)->Name("pool_spawn_outside_2t_100/std_mutex_deque")->UseRealTime();

/// A thread for each, started by `start()`.
template <class Start>
void one_thread_each(State& state, Start start) {
    constexpr std::int64_t n = 100;
    using one = decltype(start());
    for (auto _ : state) {
        std::vector<one> all;
        all.reserve(n);
        ran = 0;
        for (std::int64_t i = 0; i < n; ++i) all.push_back(start());
        all.clear();  // waits for each
        if (ran != n) state.SkipWithError("the work was not done");
    }
    state.SetItemsProcessed(state.iterations() * n);
}
void count_one() noexcept { ran.fetch_add(1, std::memory_order_relaxed); }
void std_async(State& state) {
    one_thread_each(state, [] { return std::async(std::launch::async, count_one); });
}
void std_jthread(State& state) {
    one_thread_each(state, [] { return std::jthread(count_one); });
}
BENCHMARK(std_async)->Name("pool_spawn_outside_2t_100/std_async")->UseRealTime();
BENCHMARK(std_jthread)->Name("pool_spawn_outside_2t_100/std_jthread")->UseRealTime();

#if __has_include(<asio.hpp>)
/// Functions, not tasks.
template <std::size_t threads, std::int64_t n>
void asio_post(State& state) {
    asio::thread_pool pool(threads);
    const auto post = [&](auto f) { asio::post(pool, f); };
    for (auto _ : state) {
        std::atomic<bool> done{false};
        asio::post(pool, [&] { post_and_tell<n>(done, post); });
        done.wait(false);
    }
    pool.join();
    state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(asio_post<1, 1'000'000>)->Name("pool_spawn_1t_1m/asio_post")->Iterations(1)->UseRealTime();
BENCHMARK(asio_post<2, 1'000'000>)->Name("pool_spawn_2t_1m/asio_post")->Iterations(1)->UseRealTime();
BENCHMARK(asio_post<1, 1'000>)->Name("pool_spawn_1t_1k/asio_post")->UseRealTime();
BENCHMARK(asio_post<2, 1'000>)->Name("pool_spawn_2t_1k/asio_post")->UseRealTime();
#endif

// --- there and back ---------------------------------------------------------------------------------------------

/// Neither is given the time to fall asleep.
co::task<> travel(co::thread_pool& there, State& state) {
    for (auto _ : state) co_await co::on(there, nothing());
}
void hop_awake(State& state) {
    co::thread_pool here(1), there(1);
    co::sync_wait(co::on(here, travel(there, state)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(hop_awake)->Name("pool_hop_round_trip_awake/cordon")->UseRealTime();

/// The other one sleeps before each hop; this one waits for it awake.
co::task<> travel_to_sleepers(co::thread_pool& there, State& state) {
    for (auto _ : state) {
        while (there.stats().sleeping != 1) std::this_thread::yield();
        const auto from = std::chrono::steady_clock::now();
        co_await co::on(there, nothing());
        state.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - from).count());
    }
}
void hop_parked(State& state) {
    co::thread_pool here(1), there(1);
    co::sync_wait(co::on(here, travel_to_sleepers(there, state)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(hop_parked)->Name("pool_hop_round_trip_parked/cordon")->UseManualTime();

#if __has_include(<asio.hpp>)
void asio_hop(State& state) {
    asio::thread_pool here(1), there(1);
    const auto travels = [&]() -> asio::awaitable<void> {
        for (auto _ : state) {
            co_await asio::post(asio::bind_executor(there, asio::use_awaitable));
            co_await asio::post(asio::bind_executor(here, asio::use_awaitable));
        }
    };
    asio::co_spawn(here, travels, asio::detached);
    here.join();
    there.join();
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(asio_hop)->Name("pool_hop_round_trip_parked/asio")->UseRealTime();
#endif

// --- one task that goes on --------------------------------------------------------------------------------------

/// Nothing for a second thread to do.
template <std::size_t threads>
void yields(State& state) {
    co::thread_pool pool(threads);
    co::sync_wait(co::on(pool, yield(state)));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(yields<1>)->Name("pool_yield_1t/cordon")->UseRealTime();
BENCHMARK(yields<2>)->Name("pool_yield_2t/cordon")->UseRealTime();

// --- trees ------------------------------------------------------------------------------------------------------

co::task<int> fib(int n) {
    if (n < 2) co_return n;
    auto both = co_await co::when_all(fib(n - 1), fib(n - 2));
    co_return std::get<0>(both) + std::get<1>(both);
}
/// Forks one and runs the other itself.
co::task<> store(co::task<int> from, int& into) { into = co_await std::move(from); }
co::task<int> fib_forking_one(int n) {
    if (n < 2) co_return n;
    int a = 0, b = 0;
    const auto forks = [&](co::task_group& group) -> co::task<> {
        group.spawn(store(fib_forking_one(n - 1), a));
        b = co_await fib_forking_one(n - 2);
    };
    co_await co::with_group(forks);
    co_return a + b;
}
constexpr std::int64_t calls_of_fib_25 = 242'785;

template <std::size_t threads, bool forks_one>
void fib_25(State& state) {
    co::thread_pool pool(threads);
    for (auto _ : state) {
        int result = 0;
        if constexpr (forks_one) result = co::sync_wait(co::on(pool, fib_forking_one(25)));
        else result = co::sync_wait(co::on(pool, fib(25)));
        if (result != 75'025) state.SkipWithError("the work was not done");
    }
    state.SetItemsProcessed(state.iterations() * calls_of_fib_25);
}
BENCHMARK(fib_25<1, false>)->Name("pool_fib25_1t/cordon_when_all")->UseRealTime();
BENCHMARK(fib_25<2, false>)->Name("pool_fib25_2t/cordon_when_all")->UseRealTime();
BENCHMARK(fib_25<1, true>)->Name("pool_fib25_1t/cordon_group")->UseRealTime();
BENCHMARK(fib_25<2, true>)->Name("pool_fib25_2t/cordon_group")->UseRealTime();

co::task<> skynet(std::int64_t first, std::int64_t leaves, std::int64_t& sum) {
    if (leaves == 1) {
        sum = first;
        co_return;
    }
    std::int64_t sums[10];
    const auto forks = [&](co::task_group& group) -> co::task<> {
        for (int i = 0; i < 10; ++i) group.spawn(skynet(first + i * (leaves / 10), leaves / 10, sums[i]));
        co_return;
    };
    co_await co::with_group(forks);
    sum = 0;
    for (const std::int64_t s : sums) sum += s;
}
template <std::size_t threads>
void skynet_100k(State& state) {
    co::thread_pool pool(threads);
    for (auto _ : state) {
        std::int64_t sum = 0;
        co::sync_wait(co::on(pool, skynet(0, 100'000, sum)));
        if (sum != 4'999'950'000) state.SkipWithError("the work was not done");
    }
    state.SetItemsProcessed(state.iterations() * 111'111);
}
BENCHMARK(skynet_100k<1>)->Name("pool_skynet_1t/cordon")->UseRealTime();
BENCHMARK(skynet_100k<2>)->Name("pool_skynet_2t/cordon")->UseRealTime();

#if __has_include(<tbb/task_group.h>)
// Functions, not tasks: one that waits for others keeps its thread, which runs others meanwhile.

template <int threads, std::int64_t n>
void tbb_spawn(State& state) {
    tbb::task_arena arena(threads);
    for (auto _ : state)
        arena.execute([] {
            tbb::task_group group;
            for (std::int64_t i = 0; i < n; ++i) group.run([] {});
            group.wait();
        });
    state.SetItemsProcessed(state.iterations() * n);
}
BENCHMARK(tbb_spawn<1, 1'000'000>)->Name("pool_spawn_1t_1m/tbb")->Iterations(1)->UseRealTime();
BENCHMARK(tbb_spawn<2, 1'000'000>)->Name("pool_spawn_2t_1m/tbb")->Iterations(1)->UseRealTime();
BENCHMARK(tbb_spawn<1, 1'000>)->Name("pool_spawn_1t_1k/tbb")->UseRealTime();
BENCHMARK(tbb_spawn<2, 1'000>)->Name("pool_spawn_2t_1k/tbb")->UseRealTime();

int tbb_fib(int n) {
    if (n < 2) return n;
    int a = 0, b = 0;
    tbb::task_group group;
    group.run([&a, n] { a = tbb_fib(n - 1); });
    group.run_and_wait([&b, n] { b = tbb_fib(n - 2); });
    return a + b;
}
template <int threads>
void tbb_fib_25(State& state) {
    tbb::task_arena arena(threads);
    for (auto _ : state)
        if (arena.execute([] { return tbb_fib(25); }) != 75'025) state.SkipWithError("the work was not done");
    state.SetItemsProcessed(state.iterations() * calls_of_fib_25);
}
BENCHMARK(tbb_fib_25<1>)->Name("pool_fib25_1t/tbb")->UseRealTime();
BENCHMARK(tbb_fib_25<2>)->Name("pool_fib25_2t/tbb")->UseRealTime();

std::int64_t tbb_skynet(std::int64_t first, std::int64_t leaves) {
    if (leaves == 1) return first;
    std::int64_t sums[10];
    tbb::task_group group;
    for (int i = 0; i < 10; ++i)
        group.run([&sum = sums[i], first, leaves, i] { sum = tbb_skynet(first + i * (leaves / 10), leaves / 10); });
    group.wait();
    std::int64_t sum = 0;
    for (const std::int64_t s : sums) sum += s;
    return sum;
}
template <int threads>
void tbb_skynet_100k(State& state) {
    tbb::task_arena arena(threads);
    for (auto _ : state)
        if (arena.execute([] { return tbb_skynet(0, 100'000); }) != 4'999'950'000)
            state.SkipWithError("the work was not done");
    state.SetItemsProcessed(state.iterations() * 111'111);
}
BENCHMARK(tbb_skynet_100k<1>)->Name("pool_skynet_1t/tbb")->UseRealTime();
BENCHMARK(tbb_skynet_100k<2>)->Name("pool_skynet_2t/tbb")->UseRealTime();
#endif

}  // namespace
