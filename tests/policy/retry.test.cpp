// SPDX-License-Identifier: MIT
#include <cordon/policy/retry.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/scope/shield.hpp>

#include "calls.hpp"
#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::constant;
using co::pipeline;
using co::retry;
using co::retry_budget;

co::clock::duration since(co::clock::time_point begin) { return co::clock::now() - begin; }

template <class Options>
std::string complaint(int attempts, const Options& options) {
    try {
        (void)retry(attempts, options);
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

}  // namespace

// --- attempts and waits -------------------------------------------------------------------------------------------

TEST_CASE("by default a call is made three times, half a second apart, and the last error is what it ends with",
          "[policy][retry][RT-01]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto ended = co_await as_outcome(pipeline(retry())(s.fetch()));
        CHECK(error_text(ended) == "3");
        CHECK(s.calls == 3);
        CHECK(since(begin) == 1000ms);
    });
}

TEST_CASE("a success ends it, after one wait for one failure", "[policy][retry][RT-02]") {
    simulation sim;
    service s("FS", 3ms);
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto guarded = pipeline(retry(5, {.backoff = constant(20ms)}));
        const int got = co_await guarded(s.fetch());
        CHECK(got == 2);
        CHECK(s.calls == 2);
        CHECK(since(begin) == 26ms);
    });
}

TEST_CASE("one attempt is no retry, and waits for nothing", "[policy][retry]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto ended = co_await as_outcome(pipeline(retry(1))(s.fetch()));
        CHECK(error_text(ended) == "1");
        CHECK(since(begin) == 0s);
    });
}

TEST_CASE("a value that counts as a failure is retried, and the last one is returned", "[policy][retry][RT-05]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        const auto patient = pipeline(retry(2, {.backoff = constant(1ms)})).failing_when([](int n) { return n < 10; });
        const int got = co_await patient(s.fetch());
        CHECK(got == 2);
        CHECK(s.calls == 2);
    });
}

TEST_CASE("a wait may depend on the result", "[policy][retry][RT-06]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto hinted = retry(3, {.backoff = constant(1ms)}).honoring([](int n) { return n * 100ms; });
        const auto patient = pipeline(hinted).failing_when([](int n) { return n < 3; });
        const int got = co_await patient(s.fetch());
        CHECK(got == 3);
        CHECK(since(begin) == 300ms);
    });
}

TEST_CASE("without a bound it goes on until there is a success", "[policy][retry][RT-22]") {
    simulation sim;
    service s(failures(200) + 'S');
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(co::unlimited_attempts, {.backoff = constant(1ms)}));
        const int got = co_await guarded(s.fetch());
        CHECK(got == 201);
    });
    SECTION("and what it ends with otherwise is the bare last failure") {
        service always("F");
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(4, {.backoff = constant(0s)}));
            const auto ended = co_await as_outcome(guarded(always.fetch()));
            CHECK(error_text(ended) == "4");
        });
    }
}

TEST_CASE("a retry says what is wrong with its numbers", "[policy][retry][RT-30]") {
    CHECK(complaint(0, co::retry_options{}) ==
          "retry: attempts is 0, allowed are 1, which is no retry, to unlimited_attempts");
    CHECK(complaint(-1, co::retry_options{}).find("attempts is -1") != std::string::npos);
    CHECK(complaint(1, co::retry_options{}).empty());
    CHECK(complaint(3, co::retry_options{.max_duration = -1ns}) ==
          "retry: max_duration is -1 ns, allowed is what is not negative");
    auto policy = retry(3);
    CHECK_THROWS_AS(policy.set(0), std::invalid_argument);
    CHECK_THROWS_AS(policy.set(2, {.max_duration = -1s}), std::invalid_argument);
}

TEST_CASE("the first wait has the number 0, and nobody is told of a retry that is not made", "[policy][retry][RT-19]") {
    struct told {
        std::uint32_t number;
        co::clock::duration delay;
        std::string why;
        bool at_last;
    };
    simulation sim;
    service s("FSRF");
    sim.run([&]() -> task<> {
        std::vector<told> events;
        const auto note = [](const co::retry_event& e, void* to) noexcept {
            std::string why = e.why.is_value()      ? "a value"
                              : e.why.is_rejected() ? std::string(e.why.rejection().who())
                                                    : "";
            if (e.why.is_error()) why = error_text(outcome<int>(e.why.error()));
            static_cast<std::vector<told>*>(to)->push_back({e.number, e.delay, why, false});
        };
        const auto guarded =
            pipeline(retry(4, {.backoff = co::exponential(10ms, 1s), .on_retry = note, .argument = &events}))
                .failing_when([](int) { return true; });
        const auto ended = co_await as_outcome(guarded(s.fetch()));
        CHECK(error_text(ended) == "4");
        REQUIRE(events.size() == 3);
        for (std::uint32_t i = 0; i < 3; ++i) {
            CHECK(events[i].number == i);
            CHECK(events[i].delay == 10ms * (1 << i));
        }
        CHECK(events[0].why == "1");
        CHECK(events[1].why == "a value");
        CHECK(events[2].why == "service");
    });
}

// --- what is no reason to retry -----------------------------------------------------------------------------------

TEST_CASE("neither a programming error, nor what is ignored, nor a refusal for good is tried again",
          "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        for (const char* script : {"LS", "DS"}) {
            service s(script);
            const auto ended = co_await as_outcome(pipeline(retry(3))(s.fetch()));
            CHECK_FALSE(ended.has_value());
            CHECK(s.calls == 1);
        }
        service ignored("FS");
        const auto guarded = pipeline(retry(3)).ignoring([](const std::exception&) { return true; });
        const auto ended = co_await as_outcome(guarded(ignored.fetch()));
        CHECK(error_text(ended) == "1");
        CHECK(ignored.calls == 1);
    });
}

TEST_CASE("a refusal that passes with time is tried again, unless the pipeline says otherwise of refusals",
          "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        service s("RS");
        const int got = co_await pipeline(retry(3))(s.fetch());
        CHECK(got == 2);

        service refused("RS");
        const auto never = pipeline(retry(3)).failing_when([](const co::rejection&) { return false; });
        const auto ended = co_await as_outcome(never(refused.fetch()));
        CHECK(ended.is_rejected());
        CHECK(refused.calls == 1);

        service draining("DS");
        const auto always = pipeline(retry(3)).failing_when([](const co::rejection&) { return true; });
        const int second = co_await always(draining.fetch());
        CHECK(second == 2);
    });
}

TEST_CASE("a callable that throws is a call that failed, and one that refuses or stops does that", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        int calls = 0;
        const auto throws = [&]() -> task<int> {
            if (++calls < 3) throw std::runtime_error("before the task");
            return [](int n) -> task<int> { co_return n; }(calls);
        };
        const int got = co_await pipeline(retry(3))(throws);
        CHECK(got == 3);

        calls = 0;
        const auto refuses = [&]() -> task<int> {
            ++calls;
            throw co::rejected(co::rejection(co::reject_reason::draining, "door"));
        };
        const auto refused = co_await as_outcome(pipeline(retry(3))(refuses));
        CHECK(refused.is_rejected());
        CHECK(calls == 1);

        calls = 0;
        const auto stops = [&]() -> task<int> {
            ++calls;
            throw co::canceled();
        };
        const auto stopped = co_await as_outcome(pipeline(retry(3))(stops));
        CHECK(stopped.is_stopped());
        CHECK(calls == 1);
    });
}

// --- stops --------------------------------------------------------------------------------------------------------

TEST_CASE("stopped before the first attempt it makes none", "[policy][retry][RT-16]") {
    simulation sim;
    service s("S");
    retry_budget budget{co::in_flight_budget_options{}};
    sim.run([&]() -> task<> {
        co::inplace_stop_source source;
        source.request_stop();
        const auto guarded = pipeline(retry(3, {.budget = &budget}));
        const auto ended = co_await as_outcome(co::with(guarded(s.fetch()), co::stop_on(source.get_token())));
        CHECK(ended.is_stopped());
        CHECK(s.calls == 0);
        CHECK(budget.stats().calls_in_flight == 0);
    });
}

TEST_CASE("inside a shield it makes attempts although the stop has come", "[policy][retry]") {
    simulation sim;
    service s("FS");
    sim.run([&]() -> task<> {
        co::inplace_stop_source source;
        source.request_stop();
        const auto guarded = pipeline(retry(3, {.backoff = co::constant(1ms)}));
        const auto inside = [&]() -> task<int> { co_return co_await co::shield(guarded(s.fetch()), 1s); };
        const auto ended = co_await as_outcome(co::with(inside(), co::stop_on(source.get_token())));
        CHECK(ended.has_value());
        CHECK(s.calls == 2);
    });
}

TEST_CASE("of an attempt during which the stop comes it is what that ends with, and there is no other",
          "[policy][retry][RT-17]") {
    simulation sim;
    for (const char how : {'S', 'F'}) {
        int calls = 0;
        sim.run([&]() -> task<> {
            co::inplace_stop_source source;
            const auto heedless = [&]() -> task<int> {
                ++calls;
                source.request_stop();
                if (how == 'F') throw std::runtime_error("failed");
                co_return 5;
            };
            const auto guarded = pipeline(retry(3, {.backoff = constant(1ms)}));
            const auto ended = co_await as_outcome(co::with(guarded(heedless), co::stop_on(source.get_token())));
            CHECK(ended.has_value() == (how == 'S'));
            CHECK(error_text(ended) == (how == 'S' ? "" : "failed"));
        });
        CHECK(calls == 1);
    }
}

TEST_CASE("stopped while an attempt waits it is stopped, and there is no other", "[policy][retry][RT-17]") {
    simulation sim;
    service s("F", 100ms);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(3, {.backoff = constant(10ms)}));
        auto ended = co_await stopped_after(150ms, guarded(s.fetch()));  // in the second
        CHECK(ended.first.is_stopped());
        CHECK(ended.second == 150ms);
        CHECK(s.calls == 2);
        CHECK(s.finished == 1);
        CHECK(s.running == 0);
    });
}

TEST_CASE("stopped during a wait it ends at once and calls no more", "[policy][retry][RT-09][RT-17][RT-23]") {
    simulation sim;
    service s("F");
    retry_budget budget{co::in_flight_budget_options{}};
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(3, {.backoff = constant(1s), .budget = &budget}));
        auto ended = co_await stopped_after(50ms, guarded(s.fetch()));
        CHECK(ended.first.is_stopped());
        CHECK(ended.second == 50ms);
        CHECK(s.calls == 1);
        CHECK(budget.stats().retries_in_flight == 0);
        CHECK(budget.stats().calls_in_flight == 0);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a stop that comes when the wait is over, and before the attempt begins, lets none begin",
          "[policy][retry][RT-17]") {
    bool seen_between = false;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        simulation sim(seed);
        retry_budget budget{co::in_flight_budget_options{}};
        sim.run([&]() -> task<> {
            co::inplace_stop_source source;
            int calls = 0;
            bool late = false;
            const auto fails = [&]() -> task<int> {
                ++calls;
                late = late || source.stop_requested();
                throw std::runtime_error("no");
                co_return 1;
            };
            const auto guarded = pipeline(retry(2, {.backoff = constant(10ms), .budget = &budget}));
            const auto one = [&]() -> task<> {
                const auto ended = co_await as_outcome(co::with(guarded(fails), co::stop_on(source.get_token())));
                CHECK(ended.is_stopped() == (calls == 1));
                seen_between = seen_between || calls == 1;
            };
            (void)co_await co::when_all(one(), stop_after(source, 10ms));
            CHECK_FALSE(late);
            CHECK(budget.stats().calls_in_flight == 0);
            CHECK(budget.stats().retries_in_flight == 0);
        });
    }
    CHECK(seen_between);
}

TEST_CASE("an attempt that stops by itself is no failure", "[policy][retry]") {
    simulation sim;
    service s("CS");
    sim.run([&]() -> task<> {
        const auto ended = co_await as_outcome(pipeline(retry(3))(s.fetch()));
        CHECK(ended.is_stopped());
        CHECK(s.calls == 1);
    });
}

// --- time ---------------------------------------------------------------------------------------------------------

TEST_CASE("no retry begins later than the longest duration", "[policy][retry][RT-21]") {
    simulation sim;
    SECTION("because attempts took long") {
        service s("F", 60ms);
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(9, {.backoff = constant(0s), .max_duration = 100ms}));
            const auto ended = co_await as_outcome(guarded(s.fetch()));
            CHECK(error_text(ended) == "2");
            CHECK(s.calls == 2);
        });
    }
    SECTION("because the wait would be long, also after an attempt that took no time") {
        service s("F");
        sim.run([&]() -> task<> {
            const auto begin = co::clock::now();
            const auto guarded = pipeline(retry(9, {.backoff = constant(10s), .max_duration = 5s}));
            const auto ended = co_await as_outcome(guarded(s.fetch()));
            CHECK(error_text(ended) == "1");
            CHECK(since(begin) == 0s);
        });
    }
    SECTION("but one may begin exactly then") {
        service s("FFS");
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(9, {.backoff = constant(50ms), .max_duration = 100ms}));
            const int got = co_await guarded(s.fetch());
            CHECK(got == 3);
        });
        service late("FFS");
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(9, {.backoff = constant(50ms), .max_duration = 100ms - 1ns}));
            const auto ended = co_await as_outcome(guarded(late.fetch()));
            CHECK(error_text(ended) == "2");
        });
    }
    SECTION("zero allows retries that take no time") {
        service s("FFS");
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(9, {.backoff = constant(0s), .max_duration = 0s}));
            const int got = co_await guarded(s.fetch());
            CHECK(got == 3);
        });
    }
}

TEST_CASE("a wait that would end behind the deadline is not begun, and the last error is what it ends with",
          "[policy][retry][RT-28]") {
    simulation sim;
    const auto ends_at = GENERATE(99ms, 100ms, 101ms);
    service s("FS");
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto guarded = pipeline(retry(3, {.backoff = constant(100ms)}));
        const auto ended = co_await as_outcome(co::with_timeout(ends_at, guarded(s.fetch())));
        if (ends_at > 100ms) {
            CHECK(ended.has_value());
            CHECK(since(begin) == 100ms);
        } else {
            CHECK(error_text(ended) == "1");
            CHECK(since(begin) == 0s);
        }
    });
}

TEST_CASE("a Retry-After is the least that is waited, of a value, an exception or a refusal",
          "[policy][retry][RT-28]") {
    simulation sim;
    struct busy : std::runtime_error {
        busy() : std::runtime_error("busy") {}
    };
    const auto hint = [](const std::exception& e) -> co::clock::duration {
        return dynamic_cast<const busy*>(&e) != nullptr ? 5s : 0s;
    };
    const auto kind = GENERATE(0, 1, 2, 3);
    const auto usual = kind == 3 ? 7s : 1s;  // longer than what is hinted
    int calls = 0;
    const auto call = [&]() -> task<int> {
        if (++calls > 1) co_return calls;
        if (kind == 1) throw co::rejected(co::rejection(co::reject_reason::rate_limited, "api", 5s));
        if (kind == 2) co_return -5;
        throw busy();
    };
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        if (kind == 2) {
            const auto of_value = [](int n) { return std::chrono::seconds(n < 0 ? -n : 0); };
            const auto guarded =
                pipeline(retry(2, {.backoff = constant(usual)}).honoring(of_value)).failing_when([](int n) {
                    return n < 0;
                });
            const int got = co_await guarded(call);
            CHECK(got == 2);
        } else {
            const auto guarded = pipeline(retry(2, {.backoff = constant(usual)}).honoring(hint));
            const int got = co_await guarded(call);
            CHECK(got == 2);
        }
        CHECK(since(begin) == std::max<co::clock::duration>(usual, 5s));
    });
    SECTION("and one that is too long for the deadline ends it at once") {
        calls = 0;
        if (kind == 2) return;
        sim.run([&]() -> task<> {
            const auto begin = co::clock::now();
            const auto guarded = pipeline(retry(2, {.backoff = constant(usual)}).honoring(hint));
            const auto ended = co_await as_outcome(co::with_timeout(4s, guarded(call)));
            CHECK_FALSE(ended.has_value());
            CHECK(calls == 1);
            CHECK(since(begin) == 0s);
        });
    }
}

TEST_CASE("jitter differs from call to call and repeats itself with the seed", "[policy][retry]") {
    const auto waits = [](std::uint64_t seed) {
        simulation sim;
        std::vector<co::clock::duration> all;
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(retry(4, {.backoff = constant(1s, co::full_jitter), .seed = seed}));
            for (int i = 0; i < 2; ++i) {
                service s("F");
                const auto begin = co::clock::now();
                (void)co_await as_outcome(guarded(s.fetch()));
                all.push_back(since(begin));
            }
        });
        return all;
    };
    const auto first = waits(1);
    CHECK(first == waits(1));
    CHECK(first != waits(2));
    CHECK(first[0] != first[1]);
    CHECK(first[0] < 3s);
}

// --- what it does with outcomes and callables -----------------------------------------------------------------------

TEST_CASE("what an attempt gave is destroyed before the next begins, and the last lives", "[policy][retry][RT-18]") {
    struct resource {
        explicit resource(std::vector<std::string>& to, int n) : log(&to), number(n) {}
        resource(resource&& other) noexcept : log(std::exchange(other.log, nullptr)), number(other.number) {}
        resource& operator=(resource&&) = delete;
        ~resource() {
            if (log != nullptr) log->push_back("gone " + std::to_string(number));
        }
        std::vector<std::string>* log;
        int number;
    };
    simulation sim;
    const auto delay = GENERATE(0ms, 1ms);
    const bool waits = GENERATE(false, true);
    std::vector<std::string> log;
    int calls = 0;
    const auto call = [&]() -> task<resource> {
        const int mine = ++calls;
        if (waits) co_await co::sleep_for(1ms);
        log.push_back("made " + std::to_string(mine));
        co_return resource(log, mine);
    };
    sim.run([&]() -> task<> {
        const auto guarded =
            pipeline(retry(6, {.backoff = constant(delay)})).failing_when([](const resource&) { return true; });
        const resource last = co_await guarded(call);
        CHECK(last.number == 6);
        CHECK(last.log != nullptr);
        CHECK(log == std::vector<std::string>{"made 1", "gone 1", "made 2", "gone 2", "made 3", "gone 3", "made 4",
                                              "gone 4", "made 5", "gone 5", "made 6"});
    });
}

TEST_CASE("the callable lives until the end, moved or copied, and its captures with it", "[policy][retry]") {
    simulation sim;
    std::weak_ptr<int> watched;
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(3, {.backoff = constant(1ms)}));
        auto op = [&] {
            auto shared = std::make_shared<int>(0);
            watched = shared;
            auto captures = [shared]() -> task<int> {  // a coroutine that uses its closure after a wait
                co_await co::sleep_for(1ms);
                if (++*shared < 3) throw std::runtime_error("not yet");
                co_return *shared;
            };
            return guarded(captures);
        }();
        CHECK(watched.use_count() == 1);
        const int got = co_await std::move(op);
        CHECK(got == 3);
    });
    CHECK(watched.expired());

    SECTION("also in an operation that nobody awaits") {
        const auto guarded = pipeline(retry(3));
        auto shared = std::make_shared<int>(0);
        const auto captures = [shared]() -> task<int> { co_return *shared; };
        {
            const auto op = guarded(captures);
            CHECK(shared.use_count() == 3);
        }
        CHECK(shared.use_count() == 2);
    }
    SECTION("a callable may change itself, and be one that cannot be copied") {
        auto counts = [n = std::make_unique<int>(0)]() mutable -> task<int> {
            if (++*n < 2) throw std::runtime_error("once more");
            return [](int k) -> task<int> { co_return k; }(*n);
        };
        sim.run([&]() -> task<> {
            const int got = co_await pipeline(retry(2))(counts);
            CHECK(got == 2);
        });
    }
}

TEST_CASE("a retry around a retry starts afresh for each outer attempt", "[policy][retry][CO-08]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        const auto ended = co_await as_outcome(pipeline(retry(), retry())(s.fetch()));
        CHECK(error_text(ended) == "9");
        CHECK(s.calls == 9);
    });
}

TEST_CASE("inner and outer retries may look at different errors", "[policy][retry][CO-09]") {
    struct state_error : std::runtime_error {
        state_error() : std::runtime_error("state") {}
    };
    simulation sim;
    int calls = 0;
    const auto alternates = [&]() -> task<int> {
        if (++calls % 2 == 1) throw state_error();
        throw std::runtime_error("argument");
        co_return 0;
    };
    sim.run([&]() -> task<> {
        const auto is_state = [](const std::exception& e) { return dynamic_cast<const state_error*>(&e) != nullptr; };
        const auto inner = pipeline(retry(3, {.backoff = constant(0s)})).failing_when(is_state);
        const auto outer = pipeline(retry(2, {.backoff = constant(0s)}), inner);
        const auto ended = co_await as_outcome(outer(alternates));  // state, argument | state, argument
        CHECK(error_text(ended) == "argument");
        CHECK(calls == 4);
    });
}

TEST_CASE("attempts that fail at once, without a wait and without an end, let others run", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        bool there = false;
        const auto looks = [&]() -> task<int> {
            if (!there) throw std::runtime_error("not yet");
            co_return 1;
        };
        const auto guarded = pipeline(retry(co::unlimited_attempts, {.backoff = constant(0s)}));
        const auto asks = [&]() -> task<int> { co_return co_await guarded(looks); };
        const auto comes = [&]() -> task<> {
            for (int i = 0; i < 3; ++i) co_await co::this_task::yield();
            there = true;
        };
        auto both = co_await co::when_all(asks(), comes());
        CHECK(std::get<0>(both) == 1);
    });
}

TEST_CASE("stopped between two attempts without a wait there is no other", "[policy][retry][RT-17]") {
    simulation sim;
    retry_budget budget{co::in_flight_budget_options{}};
    sim.run([&]() -> task<> {
        co::inplace_stop_source source;
        int calls = 0;
        const auto fails = [&]() -> task<int> {
            ++calls;
            throw std::runtime_error("no");
            co_return 1;
        };
        const auto decided = [](const co::retry_event&, void* s) noexcept {
            static_cast<co::inplace_stop_source*>(s)->request_stop();
        };
        const auto guarded = pipeline(
            retry(3, {.backoff = constant(0s), .budget = &budget, .on_retry = decided, .argument = &source}));
        const auto ended = co_await as_outcome(co::with(guarded(fails), co::stop_on(source.get_token())));
        CHECK(ended.is_stopped());
        CHECK(calls == 1);
        CHECK(budget.stats().calls_in_flight == 0);
        CHECK(budget.stats().retries_in_flight == 0);
    });
}

TEST_CASE("many attempts that fail at once need no stack", "[policy][retry]") {
    simulation sim;
    constexpr int many = 100'000;
    service s(failures(many) + 'S');
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(co::unlimited_attempts, {.backoff = constant(0s)}));
        const int got = co_await guarded(s.fetch());
        CHECK(got == many + 1);
    });
    int calls = 0;
    const auto no_time = [&] {  // ends inside its start
        ++calls;
        return co::with(co::sleep_for(1s), co::within(0s));
    };
    sim.run([&]() -> task<> {
        const auto many_times = pipeline(retry(many, {.backoff = constant(0s)}));
        const auto ended = co_await as_outcome(many_times(no_time));
        CHECK(timed_out_line(ended) != 0);
        CHECK(calls == many);
    });
}

// --- budgets ------------------------------------------------------------------------------------------------------

TEST_CASE("with a budget that is used up a call ends with its last outcome, at once", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 0, .min_in_flight = 1}};
        const auto guarded = pipeline(retry(3, {.backoff = constant(10ms), .budget = &budget}));
        service slow("F", 100ms), other("F");
        auto both = [&]() -> task<> {
            co_await co::sleep_for(50ms);
            (void)budget.try_retry();  // somebody else's
            const auto begin = co::clock::now();
            const auto ended = co_await as_outcome(guarded(other.fetch()));
            CHECK(error_text(ended) == "1");
            CHECK(since(begin) == 0s);
            budget.retry_ended();
        };
        const auto waits = [&]() -> task<> {
            const auto ended = co_await as_outcome(guarded(slow.fetch()));
            CHECK(error_text(ended) == "3");
        };
        co_await co::when_all(both(), waits());
        CHECK(budget.stats().calls_in_flight == 0);
        CHECK(budget.stats().retries_in_flight == 0);
        CHECK(budget.stats().granted == 3);
        CHECK(budget.stats().rejected == 1);
    });
}

TEST_CASE("a budget is told of each call how it ended, and of those that do not count nothing", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        retry_budget tokens{co::token_budget_options{.max_tokens = 10, .per_success = 1}};
        CHECK(tokens.stats().available == 4);
        const auto guarded = pipeline(retry(2, {.backoff = constant(1ms), .budget = &tokens}));
        service fails("F");
        (void)co_await as_outcome(guarded(fails.fetch()));  // the retry costs one token, the last failure another
        CHECK(tokens.stats().available == 2);
        service ignored("L"), refused("D"), stopped("C");
        (void)co_await as_outcome(guarded(ignored.fetch()));
        (void)co_await as_outcome(guarded(refused.fetch()));
        (void)co_await as_outcome(guarded(stopped.fetch()));
        CHECK(tokens.stats().available == 2);
        service works("S");
        (void)co_await guarded(works.fetch());
        CHECK(tokens.stats().available == 3);
    });
}

TEST_CASE("a retry that is stopped before it is sent costs nothing, one that was sent is paid for", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        retry_budget tokens{co::token_budget_options{.max_tokens = 10}};
        const auto guarded = pipeline(retry(2, {.backoff = constant(100ms), .budget = &tokens}));
        service s("F", 10ms);
        auto during_wait = co_await stopped_after(50ms, guarded(s.fetch()));
        CHECK(during_wait.first.is_stopped());
        CHECK(tokens.stats().available == 4);
        auto during_retry = co_await stopped_after(115ms, guarded(s.fetch()));
        CHECK(during_retry.first.is_stopped());
        CHECK(tokens.stats().available == 3);
        CHECK(s.calls == 3);
    });
}

// --- numbers that change --------------------------------------------------------------------------------------------

TEST_CASE("numbers may change while it is used: calls in flight keep theirs", "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        auto guarded = pipeline(retry(2, {.backoff = constant(100ms)}));
        service old("F"), later("F");
        const auto before = [&]() -> task<> { (void)co_await as_outcome(guarded(old.fetch())); };
        const auto changes = [&]() -> task<> {
            co_await co::sleep_for(10ms);
            guarded.get<0>().set(4, {.backoff = constant(1ms)});
            const auto begin = co::clock::now();
            (void)co_await as_outcome(guarded(later.fetch()));
            CHECK(since(begin) == 3ms);
        };
        co_await co::when_all(before(), changes());
        CHECK(old.calls == 2);
        CHECK(later.calls == 4);
    });
}

TEST_CASE("a call that has not failed yet takes the numbers that are there when it does, but keeps its budget and time",
          "[policy][retry]") {
    simulation sim;
    sim.run([&]() -> task<> {
        retry_budget before{co::in_flight_budget_options{}}, after{co::in_flight_budget_options{.min_in_flight = 0}};
        auto guarded = pipeline(retry(2, {.backoff = constant(1h), .budget = &before}));
        service s("FFFS", 10ms);
        const auto changes = [&]() -> task<> {
            co_await co::sleep_for(5ms);
            guarded.get<0>().set(4, {.backoff = constant(1ms), .budget = &after, .max_duration = 0s});
        };
        const auto calls = [&]() -> task<> {
            const int got = co_await guarded(s.fetch());
            CHECK(got == 4);
        };
        co_await co::when_all(calls(), changes());
        CHECK(before.stats().granted == 3);
        CHECK(before.stats().calls_in_flight == 0);
        CHECK(after.stats().rejected == 0);
    });
}

TEST_CASE("a retry of its own, without a pipeline, judges as a pipeline does", "[policy][retry]") {
    simulation sim;
    service s("FFS"), wrong("LS");
    sim.run([&]() -> task<> {
        const auto policy = retry(3, {.backoff = constant(1ms)});
        const int got = co_await policy(s.fetch());
        CHECK(got == 3);
        const auto ended = co_await as_outcome(policy(wrong.fetch()));
        CHECK(error_text(ended) == "1");
    });
}

TEST_CASE("attempts that a limit refuses are attempts, but execute nothing", "[policy][retry][CO-04]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        int retries = 0;
        const auto count = [](const co::retry_event&, void* n) noexcept { ++*static_cast<int*>(n); };
        const auto seven = retry(7, {.backoff = constant(1ms), .on_retry = count, .argument = &retries});
        int left = 3;  // in this second
        const auto limit = [&](auto call) -> task<int> {
            if (left-- <= 0) throw co::rejected(co::rejection(co::reject_reason::rate_limited, "three"));
            co_return co_await call();
        };
        const auto limited = pipeline(seven, limit);
        const auto fetch = s.fetch();
        const auto ended = co_await as_outcome(limited(fetch));
        CHECK(ended.is_rejected());
        CHECK(retries == 6);
        CHECK(s.calls == 3);

        co::bulkhead full(0);
        const auto refused = pipeline(seven, full);
        const auto none = co_await as_outcome(refused(fetch));
        CHECK(none.is_rejected());
        CHECK(retries == 12);
        CHECK(s.calls == 3);
    });
}

TEST_CASE("what on_retry throws is counted, and changes nothing", "[policy][retry]") {
    simulation sim;
    service s("FFS");
    const auto throws = [](const co::retry_event& e, void*) {
        if (e.number == 0) throw std::runtime_error("a log that is full");
    };
    const auto policy = retry(3, {.backoff = constant(1ms), .on_retry = throws});
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(policy);
        const int got = co_await guarded(s.fetch());
        CHECK(got == 3);
    });
    CHECK(policy.stats().listener_errors == 1);
}

TEST_CASE("a retry counts attempts that it made, calls that they mended, and calls that it gave up",
          "[policy][retry][observable]") {
    static_assert(co::reportable<co::retry_policy<>>);
    simulation sim;
    const auto policy = retry(3, {.name = "stock", .backoff = constant(1ms)});
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(policy);
        for (const char* script : {"S", "FS", "FFF", "FL", "L", "D", "FC"}) {
            service s(script);
            (void)co_await as_outcome(guarded(s.fetch()));
        }
        service slow("F", 2ms);
        (void)co_await as_outcome(co::with_timeout(2500us, guarded(slow.fetch())));  // no time for a second
        (void)co_await stopped_after(4ms, guarded(slow.fetch()));                    // in the second
    });
    const auto now = policy.stats();
    CHECK(now.retries == 6);  // FS 1, FFF 2, FL 1, FC 1, the one that was stopped 1
    CHECK(now.recovered == 1);
    CHECK(now.gave_up == 2);
    CHECK(now.listener_errors == 0);
    const co::retry_policy<> moved = [&] {
        auto made = retry(1, {.name = "a name that is too long to be kept in place"});
        return made;
    }();
    CHECK(moved.name() == "a name that is too long to be kept in place");
    const auto hints = retry(2, {.name = "h"}).honoring([](const std::exception&) { return co::clock::duration(0); });
    CHECK(hints.name() == "h");
    std::string text;
    auto take = [&](const co::metric& m) { text += std::string(m.name) + ' ' + std::to_string(m.total) + ' '; };
    co::metric_sink sink(take);
    policy.report(sink);
    CHECK(text == "retries 6 recovered 1 gave_up 2 listener_errors 0 ");
}
