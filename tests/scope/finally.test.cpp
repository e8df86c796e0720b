// SPDX-License-Identifier: MIT
#include <cordon/scope/finally.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
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
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

namespace {

co::task<> clean(std::vector<std::string>& log, std::string what, co::clock::duration d) {
    log.push_back(what);
    co_await co::sleep_for(d);
    log.push_back(what + " done");
}
co::task<> clean_badly(std::string what) {
    co_await co::sleep_for(1ms);
    throw std::runtime_error(what);
}

/// How `op` ends if it is stopped after `d`.
template <co::awaitable A>
co::task<std::string> stopped_after(co::clock::duration d, A op) {
    co::inplace_stop_source source;
    auto stoppable = co::as_outcome(co::with(std::move(op), co::stop_on(source.get_token())));
    auto both = co::when_all(std::move(stoppable), stop_at(d, source));
    auto ended = co_await std::move(both);
    co_return text_of(std::get<0>(ended));
}

using texts = std::vector<std::string>;

}  // namespace

TEST_CASE("finally cleans up after a value, and gives the value", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto before = co::clock::now();
        const auto cleanup = [&] { return clean(log, "cleanup", 3ms); };
        const int a = co_await co::finally(later(2ms, 5), cleanup, 1s);
        CHECK(a == 5);
        CHECK(co::clock::now() - before == 5ms);
        const int b = co_await co::finally(ready(6), cleanup, 1s);
        CHECK(b == 6);
        co_await co::finally(co::sleep_for(0ms), cleanup, 1s);
        CHECK(log == texts{"cleanup", "cleanup done", "cleanup", "cleanup done", "cleanup", "cleanup done"});
        const auto owner = []() -> co::task<std::unique_ptr<int>> { co_return std::make_unique<int>(7); };
        const auto owned = co_await co::finally(owner(), cleanup, 1s);
        CHECK(*owned == 7);
    });
}

TEST_CASE("finally cleans up after an error, and throws the error", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 3ms); };
        const auto ended = co_await co::as_outcome(co::finally(fail_after(1ms, "the work"), cleanup, 1s));
        CHECK(text_of(ended) == "the work");
        CHECK(log == texts{"cleanup", "cleanup done"});
        const auto refuses = []() -> co::task<> {
            throw co::rejected(co::rejection(co::reject_reason::circuit_open));
            co_return;
        };
        const auto refused = co_await co::as_outcome(co::finally(refuses(), cleanup, 1s));
        CHECK(refused.is_rejected());
        CHECK(log.size() == 4);
        const auto refused_cleanup = co_await co::as_outcome(co::finally(later(1ms, 1), refuses, 1s));
        CHECK(refused_cleanup.is_rejected());
    });
}

TEST_CASE("a stop ends the work, then the cleanup awaits, then the stop goes on up", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 3ms); };
        const auto before = co::clock::now();
        const auto ended = co_await stopped_after(1ms, co::finally(pause(1h), cleanup, 1s));
        CHECK(ended == "stopped");
        CHECK(log == texts{"cleanup", "cleanup done"});
        CHECK(co::clock::now() - before == 4ms);
    });
}

TEST_CASE("what was stopped is destroyed before its cleanup begins", "[scope][finally]") {
    struct noisy {
        explicit noisy(texts& l) : log(&l) {}
        noisy(const noisy&) = delete;
        noisy& operator=(const noisy&) = delete;
        ~noisy() { log->push_back("destroyed"); }
        texts* log;
    };
    struct work {
        static co::task<> run(texts& log) {
            const noisy local(log);
            co_await co::sleep_for(1h);
        }
    };
    simulate([]() -> co::task<> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 1ms); };
        const auto ended = co_await stopped_after(1ms, co::finally(work::run(log), cleanup, 1s));
        CHECK(ended == "stopped");
        CHECK(log == texts{"destroyed", "cleanup", "cleanup done"});
    });
}

TEST_CASE("a deadline that passes during the work or the cleanup does not cut the cleanup short", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 10ms); };
        const auto before = co::clock::now();
        const auto during_work = co_await co::as_outcome(co::with_timeout(5ms, co::finally(pause(1h), cleanup, 1s)));
        REQUIRE(during_work.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(during_work.error()), co::timeout_error);
        CHECK(co::clock::now() - before == 15ms);
        CHECK(log.size() == 2);
        // the value is there when the deadline passes
        const auto during_cleanup =
            co_await co::as_outcome(co::with_timeout(5ms, co::finally(later(1ms, 8), cleanup, 1s)));
        REQUIRE(during_cleanup.has_value());
        CHECK(*during_cleanup == 8);
        CHECK(log.size() == 4);
    });
}

TEST_CASE("the cleanup's error is thrown only if the work had a value", "[scope][finally]") {
    simulate([]() -> co::task<> {
        const auto bad = [] { return clean_badly("the cleanup"); };
        const auto after_value = co_await co::as_outcome(co::finally(later(1ms, 5), bad, 1s));
        CHECK(text_of(after_value) == "the cleanup");
        const auto after_error = co_await co::as_outcome(co::finally(fail_after(1ms, "the work"), bad, 1s));
        CHECK(text_of(after_error) == "the work");
        const auto after_stop = co_await stopped_after(1ms, co::finally(pause(1h), bad, 1s));
        CHECK(after_stop == "stopped");
    });
}

TEST_CASE("a cleanup that throws before it gives something to await has failed as well", "[scope][finally]") {
    simulate([]() -> co::task<> {
        const auto bad = []() -> co::task<> { throw std::runtime_error("at once"); };
        const auto after_value = co_await co::as_outcome(co::finally(later(1ms, 5), bad, 1s));
        CHECK(text_of(after_value) == "at once");
        const auto after_error = co_await co::as_outcome(co::finally(fail_after(1ms, "the work"), bad, 1s));
        CHECK(text_of(after_error) == "the work");
        const auto after_stop = co_await stopped_after(1ms, co::finally(pause(1h), bad, 1s));
        CHECK(after_stop == "stopped");
    });
}

TEST_CASE("a stop is held back from the cleanup for its bound, and no longer", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto slow = [&] { return clean(log, "slow", 1h); };
        const auto before = co::clock::now();
        const auto ended = co_await stopped_after(1ms, co::finally(pause(1h), slow, 10ms));
        CHECK(ended == "stopped");
        CHECK(log == texts{"slow"});
        CHECK(co::clock::now() - before == 11ms);
        const auto failed = co_await stopped_after(5ms, co::finally(fail_after(1ms, "the work"), slow, 10ms));
        CHECK(failed == "the work");
        CHECK(co::clock::now() - before == 22ms);
    });
}

TEST_CASE("without a stop the bound does not limit the cleanup", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto slow = [&] { return clean(log, "slow", 1min); };
        const int value = co_await co::finally(later(1ms, 4), slow, 1ms);
        CHECK(value == 4);
        CHECK(log == texts{"slow", "slow done"});
    });
}

TEST_CASE("a cleanup that is cut short takes no value away and throws nothing", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto slow = [&] { return clean(log, "slow", 1h); };
        bool caught = false, went_on = false;
        int value = 0;
        const auto work = [&]() -> co::task<> {
            try {
                value = co_await co::finally(later(1ms, 4), slow, 10ms);
            } catch (...) {
                caught = true;
            }
            co_await co::sleep_for(1ms);  // where the stop is delivered
            went_on = true;
        };
        const auto before = co::clock::now();
        const auto ended = co_await stopped_after(5ms, work());
        CHECK(ended == "stopped");
        CHECK(co::clock::now() - before == 11ms);
        CHECK(value == 4);
        CHECK_FALSE(caught);
        CHECK_FALSE(went_on);
        CHECK(log == texts{"slow"});
    });
}

TEST_CASE("finally in finally cleans up from the inside out", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto inner = [&] { return clean(log, "inner", 2ms); };
        const auto outer = [&] { return clean(log, "outer", 2ms); };
        auto nested = co::finally(co::finally(pause(1h), inner, 1s), outer, 1s);
        const auto ended = co_await stopped_after(1ms, std::move(nested));
        CHECK(ended == "stopped");
        CHECK(log == texts{"inner", "inner done", "outer", "outer done"});
    });
}

TEST_CASE("a group waits for the cleanup of a child that it stops", "[scope][finally]") {
    simulate([]() -> co::task<> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 5ms); };
        co_await co::with_group([&](co::task_group& group) -> co::task<> {
            group.spawn(co::finally(pause(1h), cleanup, 1s));
            co_await co::sleep_for(1ms);
            group.request_stop();
        });
        CHECK(log == texts{"cleanup", "cleanup done"});
    });
}

TEST_CASE("finally cleans up once, in every schedule of work, stop and cleanup", "[scope][finally]") {
    const auto make = []() -> co::task<bool> {
        texts log;
        const auto cleanup = [&] { return clean(log, "cleanup", 1ms); };
        const auto ended = co_await stopped_after(1ms, co::finally(later(1ms, 1), cleanup, 1s));
        co_return log == texts{"cleanup", "cleanup done"} && (ended == "value" || ended == "stopped");
    };
    const auto seen = co::testing::explore_all(10'000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}
