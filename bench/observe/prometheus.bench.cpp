// SPDX-License-Identifier: MIT
// What a scrape of a thousand semaphores costs, two figures each.
#include "../rows.hpp"

#include <cstddef>
#include <cstdint>
#include <deque>
#include <sstream>
#include <string>
#include <vector>

namespace {

using namespace bench;

constexpr std::size_t many = 1000;

struct semaphores {
    semaphores() {
        for (std::size_t i = 0; i < many; ++i) {
            const std::string name = "shard-" + std::to_string(i);
            here.push_back(metrics.add(all.emplace_back(i, co::semaphore_options{.name = name})));
        }
    }
    co::registry metrics;
    std::deque<co::async_semaphore> all;
    std::vector<co::registry::registration> here;
};

/// The figures, and nothing done with them but to add them up.
void scrape(benchmark::State& state) {
    const semaphores s;
    std::int64_t sum = 0;
    const auto add = [&](const co::metric_source&, const co::metric& m) { sum += static_cast<std::int64_t>(m.value); };
    for (auto _ : state) s.metrics.scrape(add);
    expect(state, 2 * sum / static_cast<std::int64_t>(many - 1), state.iterations() * static_cast<std::int64_t>(many));
}

template <co::prometheus_format format>
void write(benchmark::State& state) {
    const semaphores s;
    for (auto _ : state) {
        std::ostringstream out;
        co::write_prometheus(out, s.metrics, {.format = format});
        keep(out.str().size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

/// The same text without a registry: nothing is escaped, and the families are known.
void by_hand(benchmark::State& state) {
    const semaphores s;
    for (auto _ : state) {
        std::ostringstream out;
        std::string available = "# HELP cordon_semaphore_available Permits.\n# TYPE cordon_semaphore_available gauge\n";
        std::string waiting = "# HELP cordon_semaphore_waiting Waiters.\n# TYPE cordon_semaphore_waiting gauge\n";
        for (const co::async_semaphore& one : s.all) {
            const auto now = one.stats();
            ((available += "cordon_semaphore_available{name=\"") += one.name()) += "\"} ";
            (available += std::to_string(now.available)) += '\n';
            ((waiting += "cordon_semaphore_waiting{name=\"") += one.name()) += "\"} ";
            (waiting += std::to_string(now.waiting)) += '\n';
        }
        out << available << waiting;
        keep(out.str().size());
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(many));
}

BENCHMARK(by_hand)->Name("metrics_1k/by_hand")->Unit(benchmark::kMicrosecond);
BENCHMARK(scrape)->Name("metrics_1k/scrape")->Unit(benchmark::kMicrosecond);
BENCHMARK(write<co::prometheus_format::text>)->Name("metrics_1k/text")->Unit(benchmark::kMicrosecond);
BENCHMARK(write<co::prometheus_format::openmetrics>)->Name("metrics_1k/openmetrics")->Unit(benchmark::kMicrosecond);

}  // namespace
