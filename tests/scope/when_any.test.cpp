// SPDX-License-Identifier: MIT
#include <cordon/scope/when_any.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "scope/works.hpp"

#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

TEST_CASE("the first value of a when_any wins, at the index of its branch", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        const auto before = co::clock::now();
        auto first = co_await co::when_any(later(5ms, std::string("slow")), later(2ms, 7), pause(3ms));
        static_assert(std::is_same_v<decltype(first), std::variant<std::string, int, std::monostate>>);
        REQUIRE(first.index() == 1);
        CHECK(std::get<1>(first) == 7);
        CHECK(co::clock::now() - before == 2ms);
        const auto nothing = co_await co::when_any(pause(1ms), later(2ms, 1));
        CHECK(nothing.index() == 0);
        const auto owned = co_await co::when_any(later(1ms, std::make_unique<int>(3)));
        CHECK(*std::get<0>(owned) == 3);
        const auto twice = co_await co::when_any(later(2ms, 1), later(1ms, 2));  // of one type
        CHECK(twice.index() == 1);
    });
}

TEST_CASE("the losers of a when_any are stopped, and waited for", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto before = co::clock::now();
        const auto quick = co_await co::when_any(wait_here(alive), later(1ms, 1), wait_here(alive));
        CHECK(quick.index() == 1);
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 1ms);
        const auto held_up = co_await co::when_any(later(1ms, 1), deaf(10ms, 2));
        CHECK(held_up.index() == 0);
        CHECK(co::clock::now() - before == 11ms);
    });
}

TEST_CASE("losers that have not begun when one has won never begin", "[scope][when_any]") {
    const auto make = []() -> co::task<bool> {
        int alive = 0;
        const auto first = co_await co::when_any(wait_here(alive), ready(1), wait_here(alive));
        co_return first.index() == 1 && alive == 0;
    };
    const auto seen = co::testing::explore_all(1000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("of several values at the same time exactly one wins, in every schedule", "[scope][when_any]") {
    const auto make = []() -> co::task<bool> {
        const auto first = co_await co::when_any(later(1ms, 1), later(1ms, 2), later(1ms, 3));
        const int value = std::visit([](int v) { return v; }, first);
        co_return value == static_cast<int>(first.index()) + 1;
    };
    const auto seen = co::testing::explore_all(10'000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("a failed branch does not decide a when_any while another may succeed", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        const auto first = co_await co::when_any(fail_after(1ms, "no"), later(5ms, 2), stop_after(2ms));
        REQUIRE(first.index() == 1);
        CHECK(std::get<1>(first) == 2);
    });
}

TEST_CASE("if every branch of a when_any failed, the first error is thrown", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        auto failing = co::when_any(fail_after(3ms, "third"), fail_after(1ms, "first"), fail_after(2ms, "second"));
        const auto before = co::clock::now();
        const auto ended = co_await co::as_outcome(std::move(failing));
        CHECK(text_of(ended) == "first");
        CHECK(co::clock::now() - before == 3ms);
        const auto mixed = co_await co::as_outcome(co::when_any(stop_after(1ms), fail_after(2ms, "the only error")));
        CHECK(text_of(mixed) == "the only error");
        const auto stopped = co_await co::as_outcome(co::when_any(stop_after(1ms), stop_after(2ms)));
        CHECK(stopped.is_stopped());
    });
}

TEST_CASE("a stop from outside ends all branches of a when_any, which is stopped by it", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        co::inplace_stop_source source;
        auto racing = co::with(co::when_any(wait_here(alive), wait_here(alive)), co::stop_on(source.get_token()));
        auto both = co::when_all(co::as_outcome(std::move(racing)), stop_at(1ms, source));
        const auto ended = co_await std::move(both);
        CHECK(std::get<0>(ended).is_stopped());
        CHECK(alive == 0);

        const auto timed_out =
            co_await co::as_outcome(co::with_timeout(1ms, co::when_any(wait_here(alive), wait_here(alive))));
        CHECK(timed_out.is_error());
        CHECK(alive == 0);
    });
}

TEST_CASE("a value that is there wins over a stop from outside", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        co::inplace_stop_source source;
        auto racing = co::with(co::when_any(wait_here(alive), deaf(3ms, 4)), co::stop_on(source.get_token()));
        auto both = co::when_all(co::as_outcome(std::move(racing)), stop_at(1ms, source));
        auto ended = co_await std::move(both);
        REQUIRE(std::get<0>(ended).has_value());
        CHECK((*std::get<0>(ended)).index() == 1);
        CHECK(alive == 0);
    });
}

TEST_CASE("when_any of a range tells which one has won", "[scope][when_any]") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        simulate(
            []() -> co::task<> {
                int alive = 0;
                std::vector<co::task<int>> range;
                for (int i = 0; i < 20; ++i) range.push_back(i == 13 ? later(2ms, 130) : wait_here(alive));
                const auto won = co_await co::when_any(std::move(range));
                CHECK(won.first == 13);
                CHECK(won.second == 130);
                CHECK(alive == 0);
                std::vector<co::task<>> pauses;
                for (int i = 0; i < 5; ++i) pauses.push_back(pause(std::chrono::milliseconds(5 - i)));
                const auto last = co_await co::when_any(std::move(pauses));
                CHECK(last.first == 4);
            },
            seed);
    }
}

TEST_CASE("a range in which all fail throws the first error, and an empty one ends stopped", "[scope][when_any]") {
    simulate([]() -> co::task<> {
        std::vector<co::task<int>> range;
        for (int i = 0; i < 5; ++i) range.push_back(fail_after(std::chrono::milliseconds(5 - i), std::to_string(i)));
        const auto failed = co_await co::as_outcome(co::when_any(std::move(range)));
        CHECK(text_of(failed) == "4");
        const auto none = co_await co::as_outcome(co::when_any(std::vector<co::task<int>>()));
        CHECK(none.is_stopped());
    });
}
