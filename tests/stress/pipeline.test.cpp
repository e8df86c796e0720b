// SPDX-License-Identifier: MIT
// One pipeline, shared by threads, whose numbers change meanwhile.
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <stdexcept>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

/// All alike, or it was read while it was written.
struct numbers {
    std::array<std::uint64_t, 9> all{};
    static numbers of(std::uint64_t n) {
        numbers made;
        made.all.fill(n);
        return made;
    }
    [[nodiscard]] bool whole() const {
        for (const std::uint64_t n : all)
            if (n != all[0]) return false;
        return true;
    }
};

}  // namespace

TEST_CASE("numbers that change are read whole, and never older than those read before",
          "[stress][policy][live_value]") {
    stress::dice dice;
    co::detail::live_value<numbers> live(numbers::of(0));
    constexpr std::uint64_t rounds = 20'000;
    std::atomic<bool> over{false};
    std::atomic<std::uint64_t> torn{0}, older{0}, reads{0};
    std::vector<std::thread> readers;
    for (int i = 0; i < 3; ++i)
        readers.emplace_back([&] {
            std::uint64_t last = 0;
            while (!over.load(std::memory_order_relaxed)) {
                const numbers now = live.load();
                if (!now.whole()) torn.fetch_add(1, std::memory_order_relaxed);
                if (now.all[0] < last) older.fetch_add(1, std::memory_order_relaxed);
                last = now.all[0];
                reads.fetch_add(1, std::memory_order_relaxed);
            }
        });
    for (std::uint64_t n = 1; n <= rounds; ++n) {
        live.store(numbers::of(n));
        stress::dawdle(dice.below(64));
    }
    while (reads.load() < 100) std::this_thread::yield();
    over = true;
    for (std::thread& t : readers) t.join();
    CHECK(torn.load() == 0);
    CHECK(older.load() == 0);
    CHECK(live.load().all[8] == rounds);
}

TEST_CASE("several may change the numbers at the same time, and one of them is what is read",
          "[stress][policy][live_value]") {
    co::detail::live_value<numbers> live(numbers::of(0));
    std::atomic<std::uint64_t> torn{0};
    std::vector<std::thread> writers;
    for (std::uint64_t w = 1; w <= 3; ++w)
        writers.emplace_back([&, w] {
            for (int i = 0; i < 3'000; ++i) {
                live.store(numbers::of(w));
                if (!live.load().whole()) torn.fetch_add(1, std::memory_order_relaxed);
            }
        });
    for (std::thread& t : writers) t.join();
    CHECK(torn.load() == 0);
    CHECK(live.load().whole());
    CHECK(live.load().all[0] >= 1);
}

TEST_CASE("one pipeline serves calls on several threads while its numbers change", "[stress][policy][pipeline]") {
    stress::dice dice;
    constexpr std::size_t loops = 3, calls = 300;
    co::circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1'000'000}};
    std::atomic<std::uint64_t> attempts{0}, ended{0}, values{0}, failures{0}, fallbacks{0}, wrong{0};
    {
        co::retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 1, .min_in_flight = 1'000}};
        auto guarded = co::pipeline(co::timeout(10s), co::retry(2, {.backoff = co::constant(0s), .budget = &budget}),
                                    breaker, co::timeout(10s));
        const co::any_pipeline<int> stored = co::pipeline(co::fallback([&](const co::failure&) {
                                                              fallbacks.fetch_add(1);
                                                              return -1;
                                                          }),
                                                          co::timeout(10s), breaker);
        std::atomic<bool> over{false};
        std::thread changes([&] {
            for (int i = 0; !over.load(); ++i) {
                // Attempts and waits that belong together: 2 with none, or 3 with a microsecond.
                if (i % 2 == 0) guarded.get<1>().set(3, {.backoff = co::constant(1us), .budget = &budget});
                else guarded.get<1>().set(2, {.backoff = co::constant(0s), .budget = &budget});
                guarded.get<0>().set(i % 2 == 0 ? 20s : 10s);
                guarded.get<3>().set(i % 2 == 0 ? 5s : 10s);
                std::this_thread::yield();
            }
        });
        stress::crew<loops> crew;
        const auto caller = [&](std::uint32_t seed) -> task<> {
            for (std::size_t i = 0; i < calls; ++i) {
                int mine = 0;
                const bool fails = (seed + i) % 3 == 0;
                const auto call = [&]() -> task<int> {
                    ++mine;
                    attempts.fetch_add(1);
                    co_await co::this_task::yield();
                    if (fails) throw std::runtime_error("fails");
                    co_return mine;
                };
                if (i % 4 == 3) {
                    const int got = co_await stored(call);
                    if (got != (fails ? -1 : 1)) wrong.fetch_add(1);
                } else {
                    const auto outcome = co_await co::as_outcome(guarded(call));
                    (outcome.has_value() ? values : failures).fetch_add(1);
                    if (outcome.has_value() == fails) wrong.fetch_add(1);
                    if (fails ? mine != 2 && mine != 3 : mine != 1) wrong.fetch_add(1);
                }
                ended.fetch_add(1);
            }
        };
        for (std::size_t i = 0; i < loops * 2; ++i) {
            const std::uint32_t seed = dice.below(100);
            crew.start(i, caller(seed));
        }
        crew.wait();
        over = true;
        changes.join();
        CHECK(budget.stats().calls_in_flight == 0);
        CHECK(budget.stats().retries_in_flight == 0);
    }
    CHECK(wrong.load() == 0);
    CHECK(ended.load() == loops * 2 * calls);
    CHECK(values.load() > 0);
    CHECK(failures.load() > 0);
    CHECK(fallbacks.load() > 0);
    CHECK(breaker.stats().ignored == 0);
}

TEST_CASE("calls that are stopped from another thread leave the budget and the breaker as they were",
          "[stress][policy][pipeline]") {
    stress::dice dice;
    co::circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1'000'000}};
    co::retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 1, .min_in_flight = 1'000}};
    const auto guarded = co::pipeline(
        co::timeout(10s), co::retry(co::unlimited_attempts, {.backoff = co::constant(1us), .budget = &budget}), breaker,
        co::timeout(10s));
    std::atomic<int> running{0}, stopped{0};
    std::atomic<std::uint64_t> failed{0};
    for (int round = 0; round < 100; ++round) {
        std::array<co::inplace_stop_source, 4> sources;
        const auto caller = [&](std::size_t k) -> task<> {
            const auto call = [&]() -> task<int> {
                const stress::counted here(running);
                co_await co::this_task::yield();
                failed.fetch_add(1);
                throw std::runtime_error("fails");
            };
            const auto ended = co_await co::as_outcome(co::with(guarded(call), co::stop_on(sources[k].get_token())));
            if (ended.is_stopped() || ended.is_error()) stopped.fetch_add(1);
        };
        {
            stress::crew<2> crew;
            for (std::size_t i = 0; i < sources.size(); ++i) crew.start(i, caller(i));
            stress::dawdle(dice.below(20'000));
            for (auto& source : sources) source.request_stop();
            crew.wait();
        }
    }
    CHECK(running.load() == 0);
    CHECK(stopped.load() == 400);
    CHECK(budget.stats().calls_in_flight == 0);
    CHECK(budget.stats().retries_in_flight == 0);
    CHECK(breaker.stats().consecutive_failures == failed.load());
}
