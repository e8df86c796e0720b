// SPDX-License-Identifier: MIT
#include <cordon/policy/retry_budget.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::retry_budget;
using co::task;
using co::detail::windowed_balance;
using co::testing::simulation;

static_assert(co::observable<retry_budget>);

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

/// A call without retries.
void call(retry_budget& b, bool failure = false) {
    b.called();
    b.ended(failure);
}
void calls(retry_budget& b, int n, bool failure = false) {
    while (n-- > 0) call(b, failure);
}
/// How many retries are granted before the first is refused; they run on.
int granted(retry_budget& b) {
    int n = 0;
    while (b.try_retry()) ++n;
    return n;
}
template <class Options>
std::string complaint(const Options& options) {
    try {
        const retry_budget b{options};
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

/// What a budget reports.
struct figures {
    std::map<std::string, double, std::less<>> values;
    void counter(std::string_view what, std::uint64_t value, std::string_view help) {
        values[std::string(what) + (help.empty() ? "" : " total")] = static_cast<double>(value);
    }
    void gauge(std::string_view what, double value, std::string_view help) {
        if (!help.empty()) values[std::string(what)] = value;
    }
};

}  // namespace

TEST_CASE("the options that are named choose the kind of a budget", "[policy][retry_budget]") {
    const retry_budget windowed{{.name = "stock", .ratio = 0.2, .min_per_second = 10, .window = 10s}};
    CHECK(windowed.name() == "stock");
    CHECK(windowed.stats().available == 100);
    const retry_budget tokens{{.name = "t", .max_tokens = 10}};
    CHECK(tokens.name() == "t");
    CHECK(tokens.stats().available == 4);
    const retry_budget in_flight{{.name = "f", .min_in_flight = 3}};
    CHECK(in_flight.name() == "f");
    CHECK(in_flight.stats().available == 3);
    CHECK(retry_budget().stats().available == 100);
    CHECK(retry_budget{co::token_budget_options{}}.stats().available == 4);
}

TEST_CASE("a windowed budget without a floor grants nothing before there were calls",
          "[policy][retry_budget][RT-40]") {
    const auto root = []() -> task<> {
        retry_budget b{{.ratio = 1.0, .min_per_second = 0, .window = 1s}};
        CHECK_FALSE(b.try_retry());
        co_return;
    };
    simulation().run(root());
}

TEST_CASE("calls pay for retries until they are a window old", "[policy][retry_budget][RT-42]") {
    const auto root = []() -> task<> {
        retry_budget b{{.ratio = 0.5, .min_per_second = 0, .window = 1s}};
        SECTION("younger than the window, then older, then two that are younger") {
            calls(b, 2);
            co_await co::sleep_for(901ms);
            CHECK(b.try_retry());
            CHECK_FALSE(b.try_retry());
            co_await co::sleep_for(2001ms);
            call(b);
            co_await co::sleep_for(301ms);
            call(b);
            CHECK(b.stats().available == 1);
            co_await co::sleep_for(801ms);
            CHECK(b.stats().available == 0);  // of two calls one has expired
            call(b);
            CHECK(b.try_retry());
            CHECK_FALSE(b.try_retry());
        }
        SECTION("all are older") {
            calls(b, 20);
            CHECK(b.stats().available == 10);
            co_await co::sleep_for(2001ms);
            CHECK_FALSE(b.try_retry());
        }
    };
    simulation().run(root());
}

TEST_CASE("the floor is granted without any calls, once in a window", "[policy][retry_budget][RT-43]") {
    const auto root = []() -> task<> {
        retry_budget b{{.ratio = 1.0, .min_per_second = 5, .window = 1s}};
        CHECK(granted(b) == 5);
        co_await co::sleep_for(999ms);
        CHECK(granted(b) == 0);
        co_await co::sleep_for(1ms);
        CHECK(granted(b) == 5);
        co_await co::sleep_for(24h * 365);
        CHECK(granted(b) == 5);
    };
    simulation().run(root());
}

TEST_CASE("retries outlive the calls that paid for them, until they are a window old themselves",
          "[policy][retry_budget]") {
    const auto root = []() -> task<> {
        retry_budget b{{.ratio = 1.0, .min_per_second = 0, .window = 1s}};
        calls(b, 4);
        co_await co::sleep_for(500ms);
        CHECK(granted(b) == 4);
        co_await co::sleep_for(500ms);  // the calls are gone, their retries are not
        calls(b, 3);
        CHECK_FALSE(b.try_retry());
        co_await co::sleep_for(500ms);
        CHECK(granted(b) == 3);
    };
    simulation().run(root());
}

TEST_CASE("a service whose calls all fail is sent a fifth more than its calls, not three times as many",
          "[policy][retry_budget]") {
    const auto root = []() -> task<> {
        retry_budget b{{.ratio = 0.2, .min_per_second = 0, .window = 10s}};
        int sent = 0;
        for (int i = 0; i < 10'000; ++i) {
            b.called();
            for (int attempt = 1; attempt < 4 && b.try_retry(); ++attempt) {
                ++sent;
                b.retry_ended();
            }
            b.ended(true);
            co_await co::sleep_for(10ms);
        }
        CHECK(sent <= 2'000);
        CHECK(sent >= 1'990);
    };
    simulation().run(root());
}

TEST_CASE("options of budgets that make no sense are refused with the field, its value and the range",
          "[policy][retry_budget][RT-44]") {
    using windowed = co::retry_budget_options;
    CHECK(complaint(windowed{.window = 999ms}) ==
          "retry_budget: window is 999000000 ns, allowed are 1000000000 ns to 60000000000 ns");
    CHECK(complaint(windowed{.window = 60s + 1ns}) != "");
    CHECK(complaint(windowed{.window = -10s}) != "");
    CHECK(complaint(windowed{.ratio = -0.5}) ==
          "retry_budget: ratio is -0.500000, allowed are 0.000000 to 1000.000000");
    for (const double ratio : {1000.1, no_number, infinity}) CHECK(complaint(windowed{.ratio = ratio}) != "");
    CHECK(complaint(windowed{.min_per_second = 1'000'001}) ==
          "retry_budget: min_per_second is 1000001, allowed are 0 to 1000000");
    CHECK(complaint(windowed{.ratio = 1000, .min_per_second = 1'000'000, .window = 60s}) == "");
    CHECK(complaint(windowed{.ratio = 0, .min_per_second = 0, .window = 1s}) == "");

    using tokens = co::token_budget_options;
    for (const std::uint32_t most : {0u, 2u, 1'000'001u})
        CHECK(complaint(tokens{.max_tokens = most}) ==
              "retry_budget: max_tokens is " + std::to_string(most) + ", allowed are 3 to 1000000");
    CHECK(complaint(tokens{.max_tokens = 3, .per_success = 3.1}) ==
          "retry_budget: per_success is 3.100000, allowed are 0.001000 to 3.000000");
    for (const double brings : {0.0, -1.0, no_number}) CHECK(complaint(tokens{.per_success = brings}) != "");
    CHECK(complaint(tokens{.max_tokens = 3, .per_success = 3}) == "");

    using in_flight = co::in_flight_budget_options;
    for (const double ratio : {-0.1, 1.1, no_number}) CHECK(complaint(in_flight{.in_flight_ratio = ratio}) != "");
    CHECK(complaint(in_flight{.min_in_flight = 1'000'001}) ==
          "retry_budget: min_in_flight is 1000001, allowed are 0 to 1000000");
}

TEST_CASE("tokens allow retries while more than half of them are there", "[policy][retry_budget]") {
    retry_budget b{{.max_tokens = 10, .per_success = 0.1}};
    CHECK(granted(b) == 4);  // from 10 to 6; a fifth would leave half
    b.ended(true);           // the attempt that was not retried: 5
    CHECK(b.stats().available == 0);
    for (int i = 0; i < 10; ++i) {
        CHECK_FALSE(b.try_retry());
        b.ended(false);
    }
    CHECK_FALSE(b.try_retry());  // 6 less 1 is half
    b.ended(false);
    CHECK(b.stats().available == 1);
    CHECK(granted(b) == 1);
    calls(b, 20, true);  // not below 0
    calls(b, 60, false);
    CHECK_FALSE(b.try_retry());
    calls(b, 1, false);
    CHECK(b.try_retry());
    calls(b, 1000, false);  // not above the most
    CHECK(granted(b) == 4);
}

TEST_CASE("a call that fails for good costs a token for each attempt, whether it is refused or has had its tries",
          "[policy][retry_budget]") {
    const auto tokens_after = [](int attempts) {
        retry_budget b{{.max_tokens = 100}};
        b.called();
        for (int i = 1; i < attempts; ++i) {
            CHECK(b.try_retry());
            b.retry_ended();
        }
        b.ended(true);
        return b.stats().available;
    };
    const auto at_first = retry_budget{{.max_tokens = 100}}.stats().available;
    CHECK(at_first == 49);
    CHECK(tokens_after(1) == at_first - 1);
    CHECK(tokens_after(4) == at_first - 4);
}

TEST_CASE("as many retries may be in flight as the share of the calls, and the floor",
          "[policy][retry_budget][RT-51]") {
    const auto with_calls = [](int n) {
        retry_budget b{{.in_flight_ratio = 0.2, .min_in_flight = 3}};
        for (int i = 0; i < n; ++i) b.called();
        const int result = granted(b);
        CHECK(b.stats().calls_in_flight == static_cast<std::uint32_t>(n));
        CHECK(b.stats().retries_in_flight == static_cast<std::uint32_t>(result));
        for (int i = 0; i < n; ++i) b.ended(true);
        return result;
    };
    CHECK(with_calls(100) == 20);
    CHECK(with_calls(5) == 3);
    CHECK(with_calls(0) == 3);
    CHECK(with_calls(19) == 3);
    CHECK(with_calls(20) == 4);
    CHECK(with_calls(24) == 4);
}

TEST_CASE("a retry in flight makes room for another when it ends", "[policy][retry_budget][RT-46]") {
    retry_budget b{{.in_flight_ratio = 0.5, .min_in_flight = 1}};
    b.called();
    b.called();
    CHECK(b.try_retry());
    CHECK_FALSE(b.try_retry());
    b.retry_ended();
    CHECK(b.try_retry());
    CHECK_FALSE(b.try_retry());
    b.refund();
    CHECK(b.stats().available == 1);
    b.ended(true);
    b.ended(false);
}

TEST_CASE("a retry that was not sent costs nothing, whatever the kind", "[policy][retry_budget]") {
    const auto root = []() -> task<> {
        retry_budget windowed{{.ratio = 1, .min_per_second = 3, .window = 1s}};
        retry_budget tokens{{.max_tokens = 10}};
        retry_budget in_flight{{.min_in_flight = 4}};
        for (retry_budget* const b : {&windowed, &tokens, &in_flight}) {
            const auto before = b->stats().available;
            for (int i = 0; i < 100; ++i) {
                CHECK(b->try_retry());
                b->refund();
            }
            CHECK(b->stats().available == before);
            CHECK(granted(*b) == static_cast<int>(before));
        }
        co_return;
    };
    simulation().run(root());
}

TEST_CASE("a call that was stopped is not counted, whatever the kind", "[policy][retry_budget]") {
    const auto root = []() -> task<> {
        retry_budget windowed{{.ratio = 1, .min_per_second = 3, .window = 1s}};
        retry_budget tokens{{.max_tokens = 10}};
        retry_budget in_flight{{.in_flight_ratio = 1, .min_in_flight = 4}};
        CHECK(tokens.try_retry());
        for (retry_budget* const b : {&windowed, &tokens, &in_flight}) {
            const auto before = b->stats().available;
            for (int i = 0; i < 100; ++i) {
                b->called();
                b->uncounted();
            }
            CHECK(b->stats().available == before);
        }
        co_return;
    };
    simulation().run(root());
}

TEST_CASE("a budget reports what it granted and refused", "[policy][retry_budget]") {
    retry_budget tokens{{.max_tokens = 10}};
    CHECK(granted(tokens) == 4);
    CHECK_FALSE(tokens.try_retry());
    figures seen;
    tokens.report(seen);
    CHECK(retry_budget::kind == "retry_budget");
    CHECK(seen.values.size() == 3);
    CHECK(seen.values["granted total"] == 4);
    CHECK(seen.values["rejected total"] == 2);
    CHECK(seen.values["available"] == 0);

    retry_budget in_flight{{.min_in_flight = 3}};
    in_flight.called();
    in_flight.called();
    CHECK(in_flight.try_retry());
    figures more;
    in_flight.report(more);
    CHECK(more.values.size() == 5);
    CHECK(more.values["calls_in_flight"] == 2);
    CHECK(more.values["retries_in_flight"] == 1);
    CHECK(more.values["available"] == 2);
    in_flight.ended(false);
    in_flight.ended(false);
}

TEST_CASE("a windowed balance does what a list of its changes says, over random times that jump",
          "[policy][retry_budget]") {
    std::mt19937_64 random(20);
    for (int sequence = 0; sequence < 200; ++sequence) {
        const auto slot = static_cast<std::int64_t>(1 + random() % 1000);
        const auto floor = static_cast<std::int64_t>(random() % 50);
        const auto begin = static_cast<std::int64_t>(random() % 1'000'000);
        std::int64_t now = begin, open = 0;
        std::map<std::int64_t, std::int64_t> sums;  // by slot
        windowed_balance balance(floor, slot, begin);
        const auto expected = [&] {
            open = std::max(open, now >= begin ? (now - begin) / slot : 0);
            std::int64_t sum = floor;
            for (const auto& [when, n] : sums) sum += when > open - windowed_balance::slots ? n : 0;
            return sum;
        };
        for (int i = 0; i < 400; ++i) {
            switch (random() % 16) {
                case 0: now += static_cast<std::int64_t>(random() % 20) * slot; break;
                case 1: now -= static_cast<std::int64_t>(random() % 20) * slot; break;
                case 2: now += static_cast<std::int64_t>(random() % 1'000'000'000'000); break;
                default: now += static_cast<std::int64_t>(random()) % slot; break;
            }
            const std::int64_t there = expected();
            const auto n = static_cast<std::int64_t>(random() % 10);
            if (random() % 2 == 0) {
                balance.add(n, now);
                sums[open] += n;
            } else {
                const bool took = balance.try_take(n, now);
                REQUIRE(took == (there >= n));
                if (took) sums[open] -= n;
            }
            REQUIRE(balance.available(now) == expected());
        }
    }
}

TEST_CASE("random calls and retries of each kind get what slower arithmetic says", "[policy][retry_budget]") {
    std::mt19937_64 random(21);
    for (int sequence = 0; sequence < 100; ++sequence) {
        const auto most = static_cast<std::uint32_t>(3 + random() % 20);
        const auto brings = static_cast<double>(1 + random() % 3000) / 1000;
        retry_budget tokens{{.max_tokens = most, .per_success = brings}};
        long long thousandths = 1000LL * most;
        const auto percent = static_cast<int>(random() % 101);
        const auto floor = static_cast<std::uint32_t>(random() % 4);
        retry_budget in_flight{{.in_flight_ratio = percent / 100.0, .min_in_flight = floor}};
        int under_way = 0, retries = 0;
        for (int i = 0; i < 500; ++i) {
            switch (random() % 6) {
                case 0:
                    tokens.ended(false);
                    thousandths = std::min(1000LL * most, thousandths + std::llround(brings * 1000));
                    break;
                case 1:
                    tokens.ended(true);
                    thousandths = std::max(0LL, thousandths - 1000);
                    break;
                case 2: {
                    const bool allowed = thousandths - 1000 > 500LL * most;
                    REQUIRE(tokens.try_retry() == allowed);
                    if (allowed) thousandths -= 1000;
                    break;
                }
                case 3:
                    if (random() % 3 != 0) {
                        in_flight.called();
                        ++under_way;
                    } else if (under_way > 0) {
                        in_flight.ended(random() % 2 == 0);
                        --under_way;
                    }
                    break;
                case 4: {
                    const bool allowed =
                        retries < static_cast<int>(floor) || (retries + 1) * 100 <= percent * under_way;
                    REQUIRE(in_flight.try_retry() == allowed);
                    retries += allowed;
                    break;
                }
                default:
                    if (retries > 0) {
                        in_flight.retry_ended();
                        --retries;
                    }
                    break;
            }
            REQUIRE(in_flight.stats().retries_in_flight == static_cast<std::uint32_t>(retries));
        }
        while (under_way-- > 0) in_flight.uncounted();
    }
}

TEST_CASE("a budget that is destroyed with calls in flight says its name", "[policy][retry_budget]") {
    const std::string said = last_words([] {
        retry_budget b{{.name = "upstream", .min_in_flight = 3}};
        b.called();
    });
    CHECK(said.find("retry_budget \"upstream\" destroyed while calls are in flight: 1") != std::string::npos);
}

TEST_CASE("the numbers of a budget can be changed, those of its own kind, and what was counted counts on",
          "[policy][retry_budget]") {
    SECTION("of a window: the floor at once, the share for what ends from now on, and what was taken stays taken") {
        simulation sim;
        sim.run([]() -> task<> {
            retry_budget b{{.ratio = 0.1, .min_per_second = 1, .window = 10s}};
            calls(b, 100);
            CHECK(b.stats().available == 20);
            CHECK(b.try_retry());
            b.set({.ratio = 1, .min_per_second = 2, .window = 10s});
            CHECK(b.stats().available == 29);
            calls(b, 10);
            CHECK(b.stats().available == 39);
            for (int tenth = 0; tenth < 11; ++tenth) {  // not in one step: a window that is old as a whole is not summed up
                co_await co::sleep_for(1s);
                (void)b.stats();
            }
            CHECK(b.stats().available == 20);
            b.set({.ratio = 0, .min_per_second = 0, .window = 10s});
            CHECK(b.stats().available == 0);
            CHECK_FALSE(b.try_retry());
        });
    }
    SECTION("the window: what is in it leaves it in tenths of the new one") {
        simulation sim;
        sim.run([]() -> task<> {
            retry_budget b{{.ratio = 1, .min_per_second = 0, .window = 60s}};
            calls(b, 10);
            b.set({.ratio = 1, .min_per_second = 0, .window = 10s});
            co_await co::sleep_for(14s);
            CHECK(b.stats().available == 10);
            co_await co::sleep_for(1100ms);
            CHECK(b.stats().available == 0);
        });
    }
    SECTION("tokens: those that are gone stay gone") {
        retry_budget b{{.max_tokens = 10, .per_success = 0.5}};
        calls(b, 2, true);
        b.set({.max_tokens = 20, .per_success = 2});
        CHECK(b.stats().available == 7);  // 18 of 20
        calls(b, 1);
        CHECK(b.stats().available == 9);
        calls(b, 10, true);
        b.set({.max_tokens = 5});
        CHECK(b.stats().available == 0);  // ten are gone, and there are five
        calls(b, 100);
        CHECK(granted(b) == 2);
    }
    SECTION("calls in flight") {
        retry_budget b{{.in_flight_ratio = 0.5, .min_in_flight = 1}};
        for (int i = 0; i < 10; ++i) b.called();
        CHECK(granted(b) == 5);
        b.set({.in_flight_ratio = 0.2, .min_in_flight = 1});
        CHECK_FALSE(b.try_retry());
        b.set({.in_flight_ratio = 0.2, .min_in_flight = 7});
        CHECK(granted(b) == 2);
        for (int i = 0; i < 7; ++i) b.retry_ended();
        for (int i = 0; i < 10; ++i) b.ended(false);
    }
    SECTION("options out of range, or of another kind, change nothing") {
        retry_budget b{{.max_tokens = 10}};
        CHECK_THROWS_AS(b.set({.max_tokens = 2}), std::invalid_argument);
        CHECK_THROWS_WITH(b.set({.ratio = 0.2}),
                          "retry_budget: the kind of the options is retry_budget_options, allowed is that it was made "
                          "with, token_budget_options");
        CHECK_THROWS_AS(b.set({.in_flight_ratio = 0.2}), std::invalid_argument);
        CHECK(b.stats().available == 4);
    }
}
