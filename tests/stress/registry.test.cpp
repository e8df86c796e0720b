// SPDX-License-Identifier: MIT
#include <cordon/observe/registry.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/observe/prometheus.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace co = cordon;

/// Its figures are no atomics, so that TSan sees whoever reads them while it dies.
struct fragile {
    static constexpr std::string_view kind = "fragile";
    struct snapshot {
        std::size_t number = 0, again = 0;
    };
    explicit fragile(std::size_t n) : number(n), called(std::to_string(n % 16)) {}
    std::string_view name() const noexcept { return called; }
    snapshot stats() const noexcept { return {number, number}; }
    void report(co::metric_sink& sink) const {
        const snapshot now = stats();
        sink.counter("number", now.number, "A number.");
        sink.gauge("again", now.again, "The same.");
    }

    std::size_t number;
    std::string called;
};

}  // namespace

TEST_CASE("sources come and go while several scrape, and nobody reads one that is gone",
          "[stress][observe][registry]") {
    const std::uint64_t seed = stress::fresh_seed();
    co::registry metrics;
    std::atomic<bool> stop{false};
    std::atomic<long> wrong{0}, figures{0}, added{0}, refused{0};

    std::vector<std::thread> hosts, scrapers;
    for (unsigned host = 0; host < 3; ++host)
        hosts.emplace_back([&, random = std::minstd_rand(static_cast<std::uint32_t>(seed + host))]() mutable {
            struct shown {
                std::unique_ptr<fragile> source;
                co::registry::registration here;  // dies first
            };
            std::vector<shown> mine(6);
            for (int round = 0; round < 4000 || (figures < 1000 && round < 1'000'000); ++round) {
                shown& one = mine[random() % mine.size()];
                one.here = {};  // first: `one = {}` would destroy the source first
                one.source.reset();
                auto source = std::make_unique<fragile>(random() % 1000);  // another host may have that name
                try {
                    auto here = metrics.add(*source);
                    one.source = std::move(source);
                    one.here = std::move(here);
                    ++added;
                } catch (const std::invalid_argument&) {
                    ++refused;
                }
                stress::dawdle(static_cast<std::uint32_t>(random() % 200));
            }
        });
    for (int i = 0; i < 2; ++i)
        scrapers.emplace_back([&] {
            while (!stop.load(std::memory_order_relaxed)) {
                std::set<std::string> names;
                std::string last;
                std::uint64_t number = 0, id = 0;
                metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
                    ++figures;
                    if (std::exchange(id, who.id) == who.id) {
                        wrong += m.value != static_cast<double>(number);
                        return;
                    }
                    number = m.total;
                    wrong += !names.insert(who.name).second || who.name < last;
                    wrong += who.name != std::to_string(number % 16);
                    last = who.name;
                });
            }
        });
    scrapers.emplace_back([&] {
        while (!stop.load(std::memory_order_relaxed)) {
            std::ostringstream text;
            co::write_prometheus(text, metrics);
            wrong += !text.str().empty() && !text.str().starts_with("# HELP cordon_fragile_number_total A number.\n");
        }
    });
    for (std::thread& t : hosts) t.join();
    stop = true;
    for (std::thread& t : scrapers) t.join();
    CHECK(wrong == 0);
    CHECK(figures >= 1000);
    CHECK(added > 0);
    CHECK(refused > 0);
    CHECK(metrics.size() == 0);
}
