// SPDX-License-Identifier: MIT
#include <cordon/policy/any_pipeline.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace {

using namespace policy_test;
using co::any_pipeline;
using co::circuit_breaker;
using co::constant;
using co::fallback;
using co::pipeline;
using co::retry;
using co::timeout;

static_assert(std::is_constructible_v<any_pipeline<int>, co::timeout_policy>);
static_assert(!std::is_constructible_v<any_pipeline<int>, int>);
static_assert(!std::is_constructible_v<any_pipeline<int>, circuit_breaker&>);  // a guard is shared by reference

/// A class that has one.
class client {
public:
    explicit client(any_pipeline<int> guarded) : guarded_(std::move(guarded)) {}
    task<int> get(service& s) { co_return co_await guarded_(s.fetch()); }

private:
    any_pipeline<int> guarded_;
};

}  // namespace

TEST_CASE("a stored pipeline does what the pipeline does", "[policy][any_pipeline]") {
    simulation sim;
    circuit_breaker breaker{{.name = "b"}};
    sim.run([&]() -> task<> {
        client c(pipeline(timeout(1s), retry(3, {.backoff = constant(10ms)}), breaker, timeout(100ms)));
        service s("FFS", 1ms), slow("S", 1h), fails("F"), wrong("L");
        const auto begin = co::clock::now();
        const int got = co_await c.get(s);
        CHECK(got == 3);
        CHECK(co::clock::now() - begin == 23ms);
        const auto late = co_await as_outcome(c.get(slow));
        CHECK(timed_out_line(late) != 0);
        CHECK(slow.calls == 3);
        const auto failed = co_await as_outcome(c.get(fails));
        CHECK(error_text(failed) == "3");
        const auto ignored = co_await as_outcome(c.get(wrong));
        CHECK(error_text(ignored) == "1");
        breaker.force_open();
        const auto refused = co_await as_outcome(c.get(s));
        CHECK(refused.is_rejected());
        CHECK(s.calls == 3);
    });
}

TEST_CASE("every type of result goes through what is stored, and callables that return something else to await",
          "[policy][any_pipeline]") {
    simulation sim;
    const bool waits = GENERATE(false, true);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(3, {.backoff = constant(1ms)}), timeout(1s));
        int calls = 0;
        const auto nothing = [&]() -> task<> {
            if (waits) co_await co::sleep_for(1ms);
            if (++calls < 2) throw std::runtime_error("once more");
        };
        const any_pipeline<void> of_nothing = pipeline(guarded);
        co_await of_nothing(nothing);
        CHECK(calls == 2);
        const auto begin = co::clock::now();
        co_await of_nothing([] { return co::sleep_for(5ms); });
        CHECK(co::clock::now() - begin == 5ms);

        const any_pipeline<std::string> of_text = pipeline(guarded);
        const auto text = [&]() -> task<std::string> {
            if (waits) co_await co::sleep_for(1ms);
            if (++calls < 4) throw std::runtime_error("once more");
            co_return "text";
        };
        const std::string got = co_await of_text(text);
        CHECK(got == "text");
        const std::string converted = co_await of_text([]() -> task<const char*> { co_return "converted"; });
        CHECK(converted == "converted");

        const any_pipeline<std::unique_ptr<int>> of_box = pipeline(guarded);
        const auto box = [&]() -> task<std::unique_ptr<int>> {
            if (waits) co_await co::sleep_for(1ms);
            co_return std::make_unique<int>(4);
        };
        const std::unique_ptr<int> got_box = co_await of_box(box);
        CHECK(*got_box == 4);

        int n = 0;
        const any_pipeline<int&> of_ref = pipeline(guarded);
        const auto ref = [&]() -> task<int&> {
            if (waits) co_await co::sleep_for(1ms);
            co_return n;
        };
        int& got_ref = co_await of_ref(ref);
        CHECK(&got_ref == &n);
    });
}

TEST_CASE("copies share the pipeline, and keep it when another is put in the place of one", "[policy][any_pipeline]") {
    simulation sim;
    circuit_breaker breaker{{.name = "b"}};
    sim.run([&]() -> task<> {
        any_pipeline<int> first = pipeline(breaker);
        const any_pipeline<int> second = first;
        service s("S", 10ms);
        (void)co_await first(s.fetch());
        first = pipeline(timeout(1ms));
        (void)co_await second(s.fetch());
        CHECK(breaker.stats().calls == 2);
        const auto late = co_await as_outcome(first(s.fetch()));
        CHECK(timed_out_line(late) != 0);
        CHECK(breaker.stats().calls == 2);
    });
}

TEST_CASE("an empty one says so, and a call of it ends the program with its reason", "[policy][any_pipeline]") {
    const any_pipeline<int> empty;
    CHECK_FALSE(empty);
    CHECK(any_pipeline<int>(timeout(1s)));
    const std::string words = last_words([&] {
        service s("S");
        auto op = empty(s.fetch());
        (void)op;
    });
    CHECK(says(words, "a call of an any_pipeline that is empty"));
}

TEST_CASE("a stop goes through what is stored, during a call, during a wait, and before", "[policy][any_pipeline]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const any_pipeline<int> guarded = pipeline(retry(3, {.backoff = constant(100ms)}), timeout(1s));
        service slow("S", 1h), fails("F"), never("S");
        auto during_call = co_await stopped_after(10ms, guarded(slow.fetch()));
        CHECK(during_call.first.is_stopped());
        CHECK(during_call.second == 10ms);
        CHECK(slow.running == 0);
        auto during_wait = co_await stopped_after(10ms, guarded(fails.fetch()));
        CHECK(during_wait.first.is_stopped());
        CHECK(fails.calls == 1);
        co::inplace_stop_source source;
        source.request_stop();
        const auto before = co_await as_outcome(co::with(guarded(never.fetch()), co::stop_on(source.get_token())));
        CHECK(before.is_stopped());
        CHECK(never.calls == 0);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("the callable lives until the end of a stored pipeline's call, or of one that nobody awaits",
          "[policy][any_pipeline]") {
    simulation sim;
    const auto shared = std::make_shared<int>(0);
    const any_pipeline<int> guarded = pipeline(retry(3, {.backoff = constant(1ms)}), timeout(1s));
    const auto make = [&] {
        const auto call = [shared]() -> task<int> {
            co_await co::sleep_for(1ms);
            if (++*shared < 3) throw std::runtime_error("once more");
            co_return *shared;
        };
        return guarded(call);
    };
    sim.run([&]() -> task<> {
        auto op = make();
        const int got = co_await std::move(op);
        CHECK(got == 3);
    });
    {
        auto unawaited = make();
        (void)unawaited;
    }
    CHECK(shared.use_count() == 1);
}

TEST_CASE("a stored pipeline is a policy of another, and a coroutine of somebody else's type awaits it with a context",
          "[policy][any_pipeline]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const any_pipeline<int> inner = pipeline(retry(2, {.backoff = constant(1ms)}));
        const any_pipeline<int> outer = pipeline(fallback([](const co::failure&) { return -1; }), inner);
        service s("FS"), fails("F");
        const int got = co_await outer(s.fetch());
        CHECK(got == 2);
        const int answered = co_await outer(fails.fetch());
        CHECK(answered == -1);
        service third("FS", 1ms);
        int host_got = 0;
        const auto host = [](const any_pipeline<int>& p, service& from, const co::context& ctx, int& to) -> foreign {
            to = co_await p(from.fetch()).with(ctx);
        };
        auto hosted = host(outer, third, *co_await co::this_task::context(), host_got);
        co_await std::move(hosted);
        CHECK(host_got == 2);
    });
}
