// SPDX-License-Identifier: MIT
// What a look at a live process costs: a hundred thousand tasks, each three frames deep, all waiting; alone, and while
// two threads of a pool spawn and end other tasks.
#include "../rows.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <sstream>
#include <thread>

namespace {

using namespace bench;

constexpr std::size_t many = 100'000;

co::task<> read_row(co::async_event& e) { co_await e.wait(); }
co::task<> query(co::async_event& e) { co_await read_row(e); }
co::task<> session(co::async_event& e) { co_await query(e); }

class waiting_tasks {
public:
    waiting_tasks() {
        for (std::size_t i = 0; i < many; ++i) group_.spawn(session(never_), {.name = "session 10.0.0.7:51234"});
        while (loop_.poll()) {}
    }
    ~waiting_tasks() {
        group_.request_stop();
        while (loop_.poll()) {}
        co::sync_wait(group_.join());
    }

private:
    co::run_loop loop_;
    co::async_event never_{{.name = "never"}};
    co::task_group group_{loop_, {.name = "sessions"}};
};

template <co::dump_format format, bool by_site>
void dump(benchmark::State& state) {
    const waiting_tasks tasks;
    for (auto _ : state) {
        std::ostringstream out;
        co::write_task_dump(out, {.format = format, .by_site = by_site});
        keep(out.str().size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

void list(benchmark::State& state) {
    const waiting_tasks tasks;
    for (auto _ : state) keep(co::live_tasks().size());
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

/// What a watchdog or a leak_check does while there is nothing to report.
void glimpse(benchmark::State& state) {
    const waiting_tasks tasks;
    for (auto _ : state) {
        std::size_t groups = 0;
        co::detail::record_reader(0).each_glimpse([&](const auto& g) { groups += g.is_group ? 1 : 0; });
        keep(groups);
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

BENCHMARK(dump<co::dump_format::text, false>)->Name("dump_100k/text")->Unit(benchmark::kMillisecond);
BENCHMARK(dump<co::dump_format::json, false>)->Name("dump_100k/json")->Unit(benchmark::kMillisecond);
BENCHMARK(dump<co::dump_format::text, true>)->Name("dump_100k/by_site")->Unit(benchmark::kMillisecond);
BENCHMARK(list)->Name("dump_100k/live_tasks")->Unit(benchmark::kMillisecond);
BENCHMARK(glimpse)->Name("dump_100k/glimpse")->Unit(benchmark::kMillisecond);

// --- while others are at work -----------------------------------------------------------------------------------

/// A hundred thousand that wait on a pool of two threads, and two that spawn and join others there until told to end.
class busy_pool {
public:
    explicit busy_pool(bool busy) {
        for (std::size_t i = 0; i < many; ++i) waiting_.spawn(session(never_), {.name = "session 10.0.0.7:51234"});
        while (pool_.stats().queued != 0 || pool_.stats().sleeping != 2) std::this_thread::yield();
        for (int i = 0; busy && i < 2; ++i) spawning_.spawn(spawn_and_join());
    }
    ~busy_pool() {
        last_.store(true, std::memory_order_relaxed);
        waiting_.request_stop();
        keep(spawning_.join_blocking().has_value());
        keep(waiting_.join_blocking().has_value());
    }
    /// How many tasks have ended so far that are none of the hundred thousand.
    std::int64_t ended() const noexcept { return ended_.load(std::memory_order_relaxed); }

private:
    static constexpr int at_a_time = 50;

    co::task<> spawn_and_join() {
        const co::context& ctx = *co_await co::this_task::context();
        while (!last_.load(std::memory_order_relaxed)) {
            co::task_group group{ctx, {.name = "requests"}};
            for (int i = 0; i < at_a_time; ++i) group.spawn(empty_task(), {.name = "request"});
            co_await group.join();
            ended_.fetch_add(at_a_time, std::memory_order_relaxed);
        }
    }

    co::thread_pool pool_{2};
    co::async_event never_{{.name = "never"}};
    std::atomic<bool> last_{false};
    std::atomic<std::int64_t> ended_{0};
    co::task_group waiting_{pool_, {.name = "sessions"}}, spawning_{pool_, {.name = "clients"}};
};

double wall_time() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

/// By the wall, of which the pool's threads want a part; or the processor time of the dump alone. The counter says how
/// many tasks the pool ends during one dump.
template <co::dump_format format, bool busy, bool by_wall = true>
void dump_of_pool(benchmark::State& state) {
    busy_pool pool(busy);
    while (busy && pool.ended() < 10'000) std::this_thread::yield();
    std::int64_t ended = 0;
    for (auto _ : state) {
        const std::int64_t before = pool.ended();
        const double from = by_wall ? wall_time() : thread_time();
        std::ostringstream out;
        co::write_task_dump(out, {.format = format});
        keep(out.str().size());
        state.SetIterationTime((by_wall ? wall_time() : thread_time()) - from);
        const std::int64_t meanwhile = pool.ended() - before;
        if (busy && meanwhile == 0) state.SkipWithError("the pool stood still");
        ended += meanwhile;
    }
    state.counters["ended"] = benchmark::Counter(static_cast<double>(ended), benchmark::Counter::kAvgIterations);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

constexpr auto text = co::dump_format::text, json = co::dump_format::json;
BENCHMARK(dump_of_pool<text, false>)->Name("dump_100k_of_busy_pool/bare_text")->UseManualTime();
BENCHMARK(dump_of_pool<text, true>)->Name("dump_100k_of_busy_pool/cordon_text")->UseManualTime();
BENCHMARK(dump_of_pool<text, true, false>)->Name("dump_100k_of_busy_pool/cordon_text_processor")->UseManualTime();
BENCHMARK(dump_of_pool<json, true>)->Name("dump_100k_of_busy_pool/cordon_json")->UseManualTime();

}  // namespace
