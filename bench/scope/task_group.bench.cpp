// SPDX-License-Identifier: MIT
// Empty tasks, all queued before the first one runs, and the wait for the last. Built twice: the second program has no
// task records, and only the rows that differ by it.
#include "../rows.hpp"

#if CORDON_TASK_RECORDS
#if __has_include(<asio.hpp>)
#include <asio.hpp>
#endif
#if __has_include(<boost/asio.hpp>)
#include <boost/asio.hpp>
#endif
#endif

#include <algorithm>
#include <vector>

namespace {

using namespace bench;

std::int64_t ran;

/// What the process grew by while the first round was queued, for each task. Later rounds find the memory there.
class memory_of_first_round {
public:
    void begin() {
        if (bytes_ < 0) before_ = resident_bytes();
    }
    void queued(std::int64_t n) {
        if (bytes_ < 0) bytes_ = (resident_bytes() - before_) / static_cast<double>(n);
    }
    void report(benchmark::State& state) const { state.counters["bytes"] = bytes_; }

private:
    double before_ = 0, bytes_ = -1;
};

template <std::int64_t n>
memory_of_first_round memory;

[[gnu::noinline]] co::task<> nothing() {
    ++ran;
    co_return;
}
template <std::int64_t n>
co::task<> spawn_and_join(benchmark::State& state) {
    const co::context& ctx = *co_await co::this_task::context();
    for (auto _ : state) {
        memory<n>.begin();
        co::task_group group{ctx};
        for (std::int64_t i = 0; i < n; ++i) group.spawn(nothing());
        memory<n>.queued(n);
        co_await group.join();
    }
}
template <std::int64_t n>
void cordon_group(benchmark::State& state) {
    ran = 0;
    run_as_child(&spawn_and_join<n>, state);
    expect(state, ran, state.iterations() * n);
    if (n == 1'000'000) memory<n>.report(state);
}

/// Bare coroutines in a vector, resumed and destroyed in turn: no group, no executor, no record.
[[gnu::noinline]] bare_task<cached_frames> bare_nothing() {
    ++ran;
    co_return 0;
}
template <std::int64_t n>
void bare(benchmark::State& state) {
    ran = 0;
    std::vector<std::coroutine_handle<>> queue;
    queue.reserve(n);
    for (auto _ : state) {
        for (std::int64_t i = 0; i < n; ++i) queue.push_back(bare_nothing().release());
        for (const std::coroutine_handle<> h : queue) {
            h.resume();
            h.destroy();
        }
        queue.clear();
    }
    expect(state, ran, state.iterations() * n);
}

#if CORDON_TASK_RECORDS
#define CORDON_ROW "cordon"
#define FLOOR_ROW "floor"
#else
#define CORDON_ROW "cordon_no_records"
#define FLOOR_ROW "floor_no_records"
#endif
BENCHMARK(bare<1'000>)->Name("spawn_1k/" FLOOR_ROW);
BENCHMARK(bare<100'000>)->Name("spawn_100k/" FLOOR_ROW);
BENCHMARK(bare<1'000'000>)->Name("spawn_1m/" FLOOR_ROW)->Iterations(1);
BENCHMARK(cordon_group<1'000>)->Name("spawn_1k/" CORDON_ROW);
BENCHMARK(cordon_group<100'000>)->Name("spawn_100k/" CORDON_ROW);
BENCHMARK(cordon_group<1'000'000>)->Name("spawn_1m/" CORDON_ROW)->Iterations(1);

#if CORDON_TASK_RECORDS && __has_include(<asio.hpp>)
asio::awaitable<void> asio_nothing() {
    ++ran;
    co_return;
}
template <std::int64_t n>
void asio_spawn(benchmark::State& state) {
    ran = 0;
    asio::io_context io(1);
    for (auto _ : state) {
        memory<-n>.begin();
        for (std::int64_t i = 0; i < n; ++i) asio::co_spawn(io, asio_nothing(), asio::detached);
        memory<-n>.queued(n);
        io.restart();
        io.run();
    }
    expect(state, ran, state.iterations() * n);
    if (n == 1'000'000) memory<-n>.report(state);
}
BENCHMARK(asio_spawn<1'000>)->Name("spawn_1k/asio_co_spawn");
BENCHMARK(asio_spawn<100'000>)->Name("spawn_100k/asio_co_spawn");
BENCHMARK(asio_spawn<1'000'000>)->Name("spawn_1m/asio_co_spawn")->Iterations(1);

/// Without a coroutine: a function.
template <std::int64_t n>
void asio_post(benchmark::State& state) {
    ran = 0;
    asio::io_context io(1);
    for (auto _ : state) {
        for (std::int64_t i = 0; i < n; ++i) asio::post(io, [] { ++ran; });
        io.restart();
        io.run();
    }
    expect(state, ran, state.iterations() * n);
}
BENCHMARK(asio_post<1'000>)->Name("spawn_1k/asio_post");
BENCHMARK(asio_post<100'000>)->Name("spawn_100k/asio_post");
BENCHMARK(asio_post<1'000'000>)->Name("spawn_1m/asio_post")->Iterations(1);
#endif

#if CORDON_TASK_RECORDS && __has_include(<boost/asio.hpp>)
boost::asio::awaitable<void> boost_nothing() {
    ++ran;
    co_return;
}
template <std::int64_t n>
void boost_spawn(benchmark::State& state) {
    ran = 0;
    boost::asio::io_context io(1);
    for (auto _ : state) {
        for (std::int64_t i = 0; i < n; ++i) boost::asio::co_spawn(io, boost_nothing(), boost::asio::detached);
        io.restart();
        io.run();
    }
    expect(state, ran, state.iterations() * n);
}
BENCHMARK(boost_spawn<1'000>)->Name("spawn_1k/boost_asio_co_spawn");
BENCHMARK(boost_spawn<100'000>)->Name("spawn_100k/boost_asio_co_spawn");
#endif

}  // namespace
