// SPDX-License-Identifier: MIT
#include <cordon/limit/sliding_window_limiter.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::sliding_window_limiter;
using co::task;
using co::testing::simulation;

static_assert(co::reportable<sliding_window_limiter>);

}  // namespace

TEST_CASE("never more than the limit in any span of the window, and exactly at its end the next",
          "[limit][sliding_window_limiter]") {
    fake_clock clock;
    sliding_window_limiter api{3, 1s, {.name = "api"}};
    CHECK(api.try_acquire());
    clock.advance(400ms);
    CHECK(api.try_acquire());
    CHECK(api.try_acquire());
    CHECK_FALSE(api.try_acquire());
    CHECK(api.time_until() == 600ms);
    clock.advance(600ms - 1ns);
    CHECK_FALSE(api.try_acquire());
    CHECK(api.stats().used == 3);
    clock.advance(1ns);
    CHECK(api.stats().used == 2);
    CHECK(api.time_until() == 0s);
    CHECK(api.try_acquire());
    CHECK_FALSE(api.try_acquire());
    clock.advance(400ms);
    CHECK(api.try_acquire());
    CHECK(api.try_acquire());
    CHECK_FALSE(api.try_acquire());
    CHECK(api.stats().admitted == 6);
    CHECK(api.stats().rejected == 4);
    CHECK(api.stats().used == 3);
    SECTION("a clock that goes back admits none") {
        clock.advance(-10s);
        CHECK_FALSE(api.try_acquire());
        clock.advance(10s);
        CHECK_FALSE(api.try_acquire());
    }
}

TEST_CASE("an event that came back holds up nobody, also not after the clock went back",
          "[limit][sliding_window_limiter]") {
    fake_clock clock;
    sliding_window_limiter one{1, 10s};
    one.admission().at_once().settle(co::verdict::stopped);
    clock.advance(-1s);
    CHECK(one.stats().used == 0);
    CHECK(one.time_until() == 0s);
    CHECK(one.try_acquire());
    sliding_window_limiter two{2, 10s};
    CHECK(two.try_acquire());
    clock.advance(3s);
    CHECK(two.try_acquire());
    clock.advance(17s);
    two.admission().at_once().settle(co::verdict::stopped);
    clock.advance(-5s);  // the second has left the window, too
    CHECK(two.stats().used == 0);
    CHECK(two.time_until() == 0s);
    CHECK(two.try_acquire());
}

TEST_CASE("waiters go first come, first served, each when its turn has come", "[limit][sliding_window_limiter]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        simulation sim(seed);
        sim.run([]() -> task<> {
            sliding_window_limiter api{2, 10ms};
            const auto begin = co::clock::now();
            std::vector<std::pair<int, co::clock::duration>> order;
            const auto one = [&](int i) -> task<> {
                co_await co::sleep_for(i * 1us);
                co_await api.acquire();
                order.emplace_back(i, co::clock::now() - begin);
            };
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 6; ++i) group.spawn(one(i));
                co_await co::sleep_for(1ms);
                CHECK(api.stats().waiting == 4);
                CHECK_FALSE(api.try_acquire());
                CHECK(api.time_until() == 29ms);
            };
            co_await co::with_group(body);
            const std::vector<std::pair<int, co::clock::duration>> expected{
                {0, 0us}, {1, 1us}, {2, 10ms}, {3, 10ms + 1us}, {4, 20ms}, {5, 20ms + 1us}};
            CHECK(order == expected);
        });
        CHECK(sim.armed_timers() == 0);
    }
}

TEST_CASE("what cannot come in time is refused at once, and says when", "[limit][sliding_window_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        sliding_window_limiter api{1, 1s, {.name = "api", .max_waiting = 1}};
        co_await api.acquire();
        const auto from = co::clock::now();
        const auto late = co_await as_outcome(co::with_timeout(1s, api.acquire()));
        REQUIRE(late.is_rejected());
        CHECK(late.rejection().reason == co::reject_reason::rate_limited);
        CHECK(late.rejection().retry_after == 1s);
        CHECK(late.rejection().who() == "api");
        CHECK(co::clock::now() == from);
        const auto wait = [&]() -> task<> { co_await api.acquire(); };
        const auto third = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            const auto ended = co_await as_outcome(api.acquire());
            CHECK(ended.is_rejected());
            CHECK(ended.rejection().retry_after == 1999ms);
        };
        (void)co_await co::when_all(wait(), third());
        co_await co::with_timeout(1s + 1ns, api.acquire());
        CHECK(co::clock::now() - from == 2s);
        CHECK(api.stats().rejected == 2);
    });
}

TEST_CASE("a stopped waiter takes nothing, and those behind it move up", "[limit][sliding_window_limiter]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        simulation sim(seed);
        sim.run([]() -> task<> {
            sliding_window_limiter api{1, 10ms};
            const auto begin = co::clock::now();
            co_await api.acquire();
            const auto first = [&]() -> task<> { co_await api.acquire(); };
            co::inplace_stop_source source;
            const auto stopped = [&]() -> task<> {
                co_await co::sleep_for(100us);
                const auto ended = co_await as_outcome(co::with(api.acquire(), co::stop_on(source.get_token())));
                CHECK(ended.is_stopped());
            };
            const auto stops = [&]() -> task<> {
                co_await co::sleep_for(2ms);
                source.request_stop();
            };
            const auto behind = [&]() -> task<> {
                co_await co::sleep_for(1ms);
                CHECK(api.time_until() == 29ms);
                co_await api.acquire();
                CHECK(co::clock::now() - begin == 20ms);
            };
            (void)co_await co::when_all(first(), stopped(), behind(), stops());
        });
    }
}

TEST_CASE("the event of a call that was stopped comes back if it was the last", "[limit][sliding_window_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        sliding_window_limiter api{3, 1s};
        const auto guarded = co::pipeline(api);
        const auto slow = []() -> task<> { co_await co::sleep_for(1h); };
        const auto fast = []() -> task<> { co_return; };
        (void)co_await as_outcome(co::with_timeout(1ms, guarded(slow)));
        CHECK(api.stats().used == 0);
        co_await guarded(fast);
        CHECK(api.stats().used == 1);
        const auto another = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            co_await guarded(fast);
        };
        const auto stops = [&]() -> task<> { (void)co_await as_outcome(co::with_timeout(2ms, guarded(slow))); };
        (void)co_await co::when_all(stops(), another());
        CHECK(api.stats().admitted == 3);
        CHECK(api.stats().used == 3);
    });
}

TEST_CASE("a permit that is dropped or replaced unsettled gives its event back, once", "[limit][sliding_window_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        sliding_window_limiter api{3, 1s};
        { const auto dropped = co_await api.admission(); }
        CHECK(api.stats().used == 0);
        auto event = co_await api.admission();
        event = co_await api.admission();  // the first was not the last any more
        CHECK(api.stats().used == 2);
        auto moved = std::move(event);
        event = {};
        CHECK(api.stats().used == 2);
        moved.settle(co::verdict::ignored);
        moved = {};
        CHECK(api.stats().used == 2);
        co_await api.acquire();
        CHECK(api.stats().used == 3);
        CHECK_FALSE(api.try_acquire());
    });
}

TEST_CASE("what comes back gives room", "[limit][sliding_window_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        sliding_window_limiter api{2, 10s};
        CHECK(api.try_acquire());
        co_await co::sleep_for(1s);
        const auto slow = []() -> task<> { co_await co::sleep_for(1h); };
        (void)co_await as_outcome(co::with_timeout(1s, api(slow)));
        CHECK(api.stats().used == 1);
        CHECK(api.try_acquire());
        CHECK_FALSE(api.try_acquire());
    });
}

TEST_CASE("behind more who wait than there is time for, nothing comes in time", "[limit][sliding_window_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        sliding_window_limiter api{1, 24h * 365};
        const auto body = [&](co::task_group& group) -> task<> {
            const auto waits = [&]() -> task<> { co_await api.acquire(); };
            for (int i = 0; i < 400; ++i) group.spawn(waits());
            co_await co::sleep_for(1s);
            CHECK(api.stats().waiting == 399);
            CHECK(api.time_until() > 24h * 365 * 250);
            const auto late = co_await as_outcome(co::with_timeout(1s, api.acquire()));
            CHECK(late.is_rejected());
            group.request_stop();
        };
        co_await co::with_group(body);
    });
}

TEST_CASE("waiting for a sliding window can be stopped at any point",
          "[limit][sliding_window_limiter][cancel_sweep][T7]") {
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        std::shared_ptr<sliding_window_limiter> api;
        std::shared_ptr<int> passed;
        const auto make = [&] {
            api = std::make_shared<sliding_window_limiter>(std::size_t{2}, 3ms);
            passed = std::make_shared<int>(0);
            return [](std::shared_ptr<sliding_window_limiter> in, std::shared_ptr<int> n) -> task<> {
                const auto one = [&]() -> task<> {
                    co_await in->acquire();
                    ++*n;
                };
                const auto body = [&](co::task_group& group) -> task<> {
                    for (int i = 0; i < 5; ++i) group.spawn(one());
                    co_return;
                };
                co_await co::with_group(body);
            }(api, passed);
        };
        auto swept = co::testing::cancel_sweep({.seed = seed, .max_findings = 1000, .fail_awaits = true}, make,
                                               [&](const auto&, co::testing::sweep_point) {
                                                   return api->stats().waiting == 0 &&
                                                          api->stats().admitted == static_cast<std::uint64_t>(*passed);
                                               });
        // Under a deadline it refuses at the beginning what would come too late: not what the baseline did.
        std::erase_if(swept.findings, [](const co::testing::sweep_finding& f) {
            return f.variant == co::testing::sweep_variant::deadline && f.what.find("check") == std::string::npos;
        });
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 5);
    }
}

TEST_CASE("a call behind a sliding window can be stopped at any point, and its event comes back",
          "[limit][sliding_window_limiter][cancel_sweep][T7]") {
    struct world {
        sliding_window_limiter api{2, 5ms};
        std::vector<co::clock::time_point> events;  // when the calls began that have ended
    };
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in) -> task<> {
            const auto call = [&]() -> task<> {
                const auto began = co::clock::now();
                bool broken = false;
                try {
                    co_await co::sleep_for(1ms);
                } catch (const co::testing::injected_error&) {
                    broken = true;
                }
                in->events.push_back(began);
                if (broken || in->events.size() % 2 == 0) throw std::runtime_error("failed");
            };
            for (int i = 0; i < 5; ++i) (void)co_await as_outcome(in->api(call));
        }(w);
    };
    const auto check = [&](const auto&, const co::testing::sweep_point&) {
        const auto s = w->api.stats();
        const auto inside = std::count_if(w->events.begin(), w->events.end(),
                                          [](auto began) { return began + 5ms > co::clock::now(); });
        return s.waiting == 0 && s.admitted == w->events.size() && s.used == static_cast<std::size_t>(inside);
    };
    auto swept = co::testing::cancel_sweep({.max_findings = 1000, .fail_awaits = true}, make, check);
    std::erase_if(swept.findings, [](const co::testing::sweep_finding& f) {  // refused when there is no time to wait
        return f.variant == co::testing::sweep_variant::deadline && f.what.find("check") == std::string::npos;
    });
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(swept.points > 10);
}

TEST_CASE("threads wait for a sliding window, too", "[limit][sliding_window_limiter]") {
    sliding_window_limiter api{1, 2ms};
    CHECK(api.acquire_blocking().has_value());
    CHECK(api.acquire_blocking().has_value());
    sliding_window_limiter slow{1, 1h};
    CHECK(slow.acquire_blocking().has_value());
    CHECK(slow.acquire_blocking(1ms).is_rejected());
}

TEST_CASE("a sliding window says what is wrong with its numbers, reports, and dies loudly",
          "[limit][sliding_window_limiter][observable]") {
    CHECK_THROWS_WITH(sliding_window_limiter(0, 1s), "sliding_window_limiter: limit is 0, allowed are 1 to 16777216");
    CHECK_THROWS_WITH(sliding_window_limiter(1, 0s),
                      "sliding_window_limiter: window is 0 ns, allowed is more than 0, up to a year");
    CHECK_THROWS_AS(sliding_window_limiter(1, sliding_window_limiter::max_window + 1ns), std::invalid_argument);
    CHECK_THROWS_AS(sliding_window_limiter(16'777'217, 1s), std::invalid_argument);
    const sliding_window_limiter api{5, 1s, {.name = "api"}};
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    api.report(sink);
    CHECK(names == "admitted rejected available waiting ");
    const auto text = last_words([] {
        simulation sim;
        const co::sliding_window_options named{.name = "w"};
        auto dies = std::make_unique<sliding_window_limiter>(std::size_t{1}, 1h, named);
        sim.run([&]() -> task<> {
            co_await dies->acquire();
            const auto waits = [&]() -> task<> { co_await dies->acquire(); };
            const auto kills = [&]() -> task<> {
                co_await co::sleep_for(1ms);
                dies.reset();
            };
            (void)co_await co::when_all(waits(), kills());
        });
    });
    CHECK(says(text, "sliding_window_limiter", "\"w\"", "destroyed while 1"));
}
