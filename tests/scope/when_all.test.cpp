// SPDX-License-Identifier: MIT
#include <cordon/scope/when_all.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "scope/works.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

namespace {

co::task<> refuse() {
    co_await co::sleep_for(1ms);
    throw co::rejected(co::rejection(co::reject_reason::full, "who"));
}

}  // namespace

TEST_CASE("when_all gives all values, of any types, after the longest", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        const auto before = co::clock::now();
        auto all = co_await co::when_all(later(5ms, std::string("a")), pause(9ms), later(3ms, 2),
                                         later(1ms, std::make_unique<int>(4)));
        static_assert(std::is_same_v<decltype(all),
                                     std::tuple<std::string, std::monostate, int, std::unique_ptr<int>>>);
        CHECK(co::clock::now() - before == 9ms);
        CHECK(std::get<0>(all) == "a");
        CHECK(std::get<2>(all) == 2);
        CHECK(*std::get<3>(all) == 4);
    });
}

TEST_CASE("when_all of what is ready takes no time", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        co::async_event set{{.set = true}};
        const auto before = co::clock::now();
        const auto all = co_await co::when_all(ready(1), set.wait(), ready(2), co::sleep_for(0ms));
        CHECK(std::get<0>(all) + std::get<2>(all) == 3);
        const auto one = co_await co::when_all(ready(3));
        CHECK(std::get<0>(one) == 3);
        CHECK(co::clock::now() == before);
    });
}

TEST_CASE("when_all starts in the order of its arguments", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        std::vector<int> order;
        const auto note = [&](int i) -> co::task<> {
            order.push_back(i);
            co_await co::sleep_for(1ms);
        };
        std::vector<co::task<>> range;
        for (int i = 0; i < 5; ++i) range.push_back(note(i));
        co_await co::when_all(std::move(range));
        std::sort(order.begin(), order.end());  // a simulation runs what is ready in an order of its own
        CHECK(order == std::vector<int>{0, 1, 2, 3, 4});
    });
}

TEST_CASE("the first failure of a when_all stops the others, waits for them, and is thrown", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto before = co::clock::now();
        auto failing =
            co::when_all(wait_here(alive), fail_after(2ms, "first"), deaf(7ms, 1), fail_after(3ms, "second"));
        const auto ended = co_await co::as_outcome(std::move(failing));
        CHECK(text_of(ended) == "first");
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 7ms);
    });
}

TEST_CASE("a refusal of a branch is a refusal of the when_all", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto ended = co_await co::as_outcome(co::when_all(wait_here(alive), refuse()));
        CHECK(ended.is_rejected());
        CHECK(ended.rejection().who() == "who");
        CHECK(alive == 0);
    });
}

TEST_CASE("of two failures at the same time one is thrown, in every schedule", "[scope][when_all]") {
    int alive = 0;
    const auto make = [&]() -> co::task<bool> {
        auto all = co::when_all(fail_after(1ms, "a"), wait_here(alive), fail_after(1ms, "b"));
        const auto ended = co_await co::as_outcome(std::move(all));
        co_return text_of(ended) == "a" || text_of(ended) == "b";
    };
    const auto seen = co::testing::explore_all(10'000, make, [&](bool held) { return held && alive == 0; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("a stop reaches all branches of a when_all, which is stopped by it", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        co::inplace_stop_source source;
        auto inner =
            co::with(co::when_all(wait_here(alive), wait_here(alive), ready(1)), co::stop_on(source.get_token()));
        auto both = co::when_all(co::as_outcome(std::move(inner)), stop_at(1ms, source));
        const auto before = co::clock::now();
        auto ended = co_await std::move(both);
        CHECK(std::get<0>(ended).is_stopped());
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 1ms);
    });
}

TEST_CASE("values that are all there win over a stop, and so does a failure", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        co::inplace_stop_source source;
        auto values = co::with(co::when_all(deaf(2ms, 1), deaf(3ms, 2)), co::stop_on(source.get_token()));
        auto both = co::when_all(co::as_outcome(std::move(values)), stop_at(1ms, source));
        auto ended = co_await std::move(both);
        REQUIRE(std::get<0>(ended).has_value());
        CHECK(std::get<1>(*std::get<0>(ended)) == 2);

        const auto fails_after_stop = []() -> co::task<> {
            co_await deaf(2ms, 1);
            throw std::runtime_error("after the stop");
        };
        co::inplace_stop_source again;
        auto mixed = co::with(co::when_all(pause(1h), fails_after_stop()), co::stop_on(again.get_token()));
        auto second = co::when_all(co::as_outcome(std::move(mixed)), stop_at(1ms, again));
        auto failed = co_await std::move(second);
        CHECK(text_of(std::get<0>(failed)) == "after the stop");
    });
}

TEST_CASE("a branch that stops by itself stops the others, and the when_all ends stopped", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto before = co::clock::now();
        const auto ended = co_await co::as_outcome(co::when_all(wait_here(alive), stop_after(1ms), wait_here(alive)));
        CHECK(ended.is_stopped());
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 1ms);
    });
}

TEST_CASE("a deadline around a when_all is a timeout of all branches", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto ended =
            co_await co::as_outcome(co::with_timeout(4ms, co::when_all(wait_here(alive), wait_here(alive))));
        REQUIRE(ended.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(ended.error()), co::timeout_error);
        CHECK(alive == 0);
    });
}

TEST_CASE("as outcomes the branches of a when_all do not disturb each other", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        auto all = co::when_all(co::as_outcome(fail_after(1ms, "a")), co::as_outcome(later(3ms, 5)),
                                co::as_outcome(stop_after(2ms)), co::as_outcome(co::with_timeout(1ms, pause(1h))));
        const auto ended = co_await std::move(all);
        CHECK(text_of(std::get<0>(ended)) == "a");
        CHECK(*std::get<1>(ended) == 5);
        CHECK(std::get<2>(ended).is_stopped());
        CHECK(std::get<3>(ended).is_error());
    });
}

TEST_CASE("when_all of a range gives its values in the order of the range, whoever ends first",
          "[scope][when_all][G-021][G12]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulate(
            [&]() -> co::task<> {
                std::vector<co::task<int>> range;
                for (int i = 0; i < 100; ++i)
                    range.push_back(later(std::chrono::milliseconds((i * 37 + static_cast<int>(seed)) % 100), i));
                const std::vector<int> values = co_await co::when_all(std::move(range));
                std::vector<int> expected;
                for (int i = 0; i < 100; ++i) expected.push_back(i);
                CHECK(values == expected);
            },
            seed);
    }
}

TEST_CASE("when_all of a range without elements or values", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        const auto before = co::clock::now();
        const auto none = co_await co::when_all(std::vector<co::task<int>>());
        CHECK(none.empty());
        co_await co::when_all(std::vector<co::task<>>());
        CHECK(co::clock::now() == before);
        std::vector<co::task<>> pauses;
        for (int i = 1; i <= 3; ++i) pauses.push_back(pause(std::chrono::milliseconds(i)));
        co_await co::when_all(std::move(pauses));
        CHECK(co::clock::now() - before == 3ms);
        std::vector<decltype(co::sleep_for(1ms))> naps{co::sleep_for(2ms), co::sleep_for(1ms)};
        co_await co::when_all(naps);  // of what can be copied a named range is
        CHECK(co::clock::now() - before == 5ms);
        std::vector<co::task<std::unique_ptr<int>>> owners;
        owners.push_back(later(1ms, std::make_unique<int>(9)));
        const auto owned = co_await co::when_all(std::move(owners));
        CHECK(*owned.at(0) == 9);
    });
}

TEST_CASE("a failure in a range stops the others and is thrown, a stop ends all", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        std::vector<co::task<int>> range;
        for (int i = 0; i < 10; ++i) range.push_back(i == 5 ? fail_after(2ms, "the fifth") : wait_here(alive));
        const auto ended = co_await co::as_outcome(co::when_all(std::move(range)));
        CHECK(text_of(ended) == "the fifth");
        CHECK(alive == 0);

        std::vector<co::task<int>> waiting;
        for (int i = 0; i < 10; ++i) waiting.push_back(wait_here(alive));
        const auto late = co_await co::as_outcome(co::with_timeout(1ms, co::when_all(std::move(waiting))));
        CHECK(late.is_error());
        CHECK(alive == 0);
    });
}

TEST_CASE("branches that have not begun when one has failed never begin", "[scope][when_all]") {
    const auto make = []() -> co::task<bool> {
        int began = 0, alive = 0;
        const auto begins = [&]() -> co::task<> {
            const counted here(alive);
            ++began;
            co_await co::sleep_for(1h);
        };
        const auto fails = []() -> co::task<> {
            throw std::runtime_error("at once");
            co_return;
        };
        auto all = co::when_all(begins(), fails(), begins());
        const auto ended = co_await co::as_outcome(std::move(all));
        co_return ended.is_error() && alive == 0 && began <= 2;
    };
    const auto seen = co::testing::explore_all(1000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("each branch of a when_all has a record of its own", "[scope][when_all]") {
    simulate([]() -> co::task<> {
        const std::size_t before = co::live_tasks().size();
        std::size_t during = 0, of_one_parent = 0;
        const auto look = [&]() -> co::task<> {
            co_await co::sleep_for(1ms);
            const auto all = co::live_tasks();
            during = all.size();
            of_one_parent = static_cast<std::size_t>(std::count_if(
                all.begin(), all.end(), [&](const auto& t) { return t.parent_id == all.back().parent_id; }));
        };
        co_await co::when_all(pause(2ms), pause(2ms), look());
        CHECK(during == before + 3);
        CHECK(of_one_parent == 3);
        CHECK(co::live_tasks().size() == before);
    });
}
