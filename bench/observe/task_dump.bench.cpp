// SPDX-License-Identifier: MIT
// What a look at a live process costs: a hundred thousand tasks, each three frames deep, all waiting.
#include "../rows.hpp"

#include <cstddef>
#include <cstdint>
#include <sstream>

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

}  // namespace
