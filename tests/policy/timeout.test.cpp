// SPDX-License-Identifier: MIT
#include <cordon/policy/timeout.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/shield.hpp>

#include "calls.hpp"
#include "catch.hpp"

#include <chrono>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::constant;
using co::pipeline;
using co::retry;
using co::timeout;

co::clock::duration since(co::clock::time_point begin) { return co::clock::now() - begin; }

constexpr co::context_key<co::clock::duration> patience{"patience"};

struct by_context {
    template <class Call>
    auto operator()(Call call) const -> task<co::await_result_t<std::invoke_result_t<Call&>>> {
        const auto* const said = co_await co::this_task::get(patience);
        const auto d = said != nullptr ? *said : co::clock::duration(1s);
        co_return co_await co::with_timeout(d, call());
    }
};

}  // namespace

TEST_CASE(
    "a call that takes too long is stopped, waited for, and ends in an error that says where the timeout was made",
    "[policy][timeout][TO-07]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const unsigned here = __LINE__ + 1;
        const auto guarded = pipeline(timeout(100ms));
        const auto ended = co_await as_outcome(guarded(s.fetch()));
        CHECK(timed_out_line(ended) == here);
        CHECK(since(begin) == 100ms);
        CHECK(s.calls == 1);
        CHECK(s.running == 0);
    });
    CHECK(sim.armed_timers() == 0);
    SECTION("also one that takes its time to end") {
        const auto slow_to_end = [&]() -> task<int> {
            try {
                co_await co::sleep_for(10ms);
                co_await co::shield(co::sleep_for(1s), 1min);
            } catch (...) {}
            co_await co::sleep_for(1h);
            co_return 1;
        };
        sim.run([&]() -> task<> {
            const auto begin = co::clock::now();
            const auto ended = co_await as_outcome(pipeline(timeout(100ms))(slow_to_end));
            CHECK(timed_out_line(ended) != 0);
            CHECK(since(begin) == 1010ms);
        });
    }
}

TEST_CASE("a call that ends in time gives what it gives, and leaves no timer", "[policy][timeout]") {
    simulation sim;
    service s("SFRL", 10ms);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(100ms));
        const int got = co_await guarded(s.fetch());
        CHECK(got == 1);
        const auto failed = co_await as_outcome(guarded(s.fetch()));
        CHECK(error_text(failed) == "2");
        const auto refused = co_await as_outcome(guarded(s.fetch()));
        CHECK(refused.is_rejected());
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a timeout without end arms no timer, and one that is not positive is refused when it is made",
          "[policy][timeout][TO-02]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(co::clock::duration::max()));
        auto looks = [&]() -> task<std::size_t> {
            co_await co::sleep_for(1ms);
            co_return sim.armed_timers();
        };
        auto both = co_await co::when_all(guarded(s.fetch()), looks());
        CHECK(std::get<0>(both) == 1);
        CHECK(std::get<1>(both) == 1);  // the sleep of the call
    });
    for (const auto d : {0ns, -1ns}) CHECK_THROWS_AS(timeout(d), std::invalid_argument);
    auto policy = timeout(1s);
    CHECK_THROWS_WITH(policy.set(-5ns), "timeout: the duration is -5 ns, allowed is what is positive");
    CHECK(policy.duration() == 1s);
    CHECK_NOTHROW(timeout(1ns));
}

TEST_CASE("a timeout counts the calls that it ended, none that others ended or that were in time",
          "[policy][timeout][observable]") {
    static_assert(co::reportable<co::timeout_policy>);
    simulation sim;
    const auto policy = timeout(10ms, {.name = "stock"});
    service slow("S", 1h), quick("SF", 1ms);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(policy);
        (void)co_await as_outcome(guarded(slow.fetch()));
        (void)co_await as_outcome(guarded(slow.fetch()));
        (void)co_await as_outcome(guarded(quick.fetch()));
        (void)co_await as_outcome(guarded(quick.fetch()));
        (void)co_await stopped_after(5ms, guarded(slow.fetch()));
        (void)co_await as_outcome(co::with_timeout(5ms, guarded(slow.fetch())));
    });
    CHECK(policy.stats().timed_out == 2);
    CHECK(policy.name() == "stock");
    std::string text;
    auto take = [&](const co::metric& m) { text += std::string(m.name) + ' ' + std::to_string(m.total); };
    co::metric_sink sink(take);
    policy.report(sink);
    CHECK(text == "timed_out 2");
    const auto move = [](co::timeout_policy p) { return p; };
    auto other = timeout(1s, {.name = "a name that is too long to be kept in place"});
    CHECK(move(std::move(other)).name() == "a name that is too long to be kept in place");
}

TEST_CASE("what stops the caller is no timeout, and the reason is the caller's", "[policy][timeout][TO-03][TO-04]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        auto ended = co_await stopped_after(50ms, pipeline(timeout(100ms))(s.fetch()));
        CHECK(ended.first.is_stopped());
        CHECK(ended.second == 50ms);

        co::inplace_stop_source source;
        int code = 0;
        const auto looks = [&]() -> task<int> {
            source.request_stop(7);
            const co::context* const inside = co_await co::this_task::context();
            code = inside->reason().code;
            co_return 3;
        };
        const auto guarded = pipeline(timeout(100ms));
        const int got = co_await co::with(guarded(looks), co::stop_on(source.get_token()));
        CHECK(got == 3);
        CHECK(code == 7);
    });
    CHECK(s.running == 0);
}

TEST_CASE("after a timed call the caller's own context is in force again", "[policy][timeout][TO-05]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1ms));
        const auto inner = [&]() -> task<co::clock::duration> {
            const co::context* const c = co_await co::this_task::context();
            co_return c->deadline().remaining();
        };
        const auto before = (co_await co::this_task::context())->deadline().remaining();
        const auto inside = co_await guarded(inner);
        const auto after = (co_await co::this_task::context())->deadline().remaining();
        CHECK(inside == 1ms);
        CHECK(before == after);
        co_await co::sleep_for(10ms);
    });
}

TEST_CASE("a policy of the user's own may compute a timeout for each call from its context",
          "[policy][timeout][TO-06]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(by_context{});
        const auto begin = co::clock::now();
        const auto usual = co_await as_outcome(guarded(s.fetch()));
        CHECK(timed_out_line(usual) != 0);
        CHECK(since(begin) == 1s);
        const auto hasty = co_await as_outcome(co::with(guarded(s.fetch()), patience(5ms)));
        CHECK(timed_out_line(hasty) != 0);
        CHECK(since(begin) == 1005ms);
    });
}

TEST_CASE("a thousand calls leave nothing registered with the caller's token", "[policy][timeout][TO-07]") {
    simulation sim;
    service s("SF", 2ms);
    sim.run([&]() -> task<> {
        co::cancel_scope scope;
        const auto guarded = pipeline(timeout(1ms), retry(2, {.backoff = constant(1ms)}), timeout(3ms));
        for (int i = 0; i < 1000; ++i) {
            const auto ended = co_await as_outcome(guarded(s.fetch()).with(*co_await co::this_task::context()));
            CHECK_FALSE(ended.has_value());
        }
    });
    CHECK(sim.armed_timers() == 0);
    CHECK(s.running == 0);
}

TEST_CASE("outside a retry a timeout bounds all attempts, inside each one", "[policy][timeout][TO-10]") {
    simulation sim;
    sim.run([&]() -> task<> {
        service s("F", 60ms);
        const auto begin = co::clock::now();
        const auto all = pipeline(timeout(150ms), retry(5, {.backoff = constant(0s)}));
        const auto ended = co_await as_outcome(all(s.fetch()));
        CHECK(timed_out_line(ended) != 0);
        CHECK(s.calls == 3);
        CHECK(s.finished == 2);
        CHECK(since(begin) == 150ms);

        service slow("S", 60ms);
        const auto second = co::clock::now();
        const auto each = pipeline(retry(3, {.backoff = constant(10ms)}), timeout(50ms));
        const auto none = co_await as_outcome(each(slow.fetch()));
        CHECK(timed_out_line(none) != 0);
        CHECK(slow.calls == 3);
        CHECK(slow.finished == 0);
        CHECK(since(second) == 170ms);
    });
}

TEST_CASE("of nested timeouts the inner fires, or the outer, whichever is first", "[policy][timeout][TO-14]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const auto outer_500 = timeout(500ms);
        const unsigned outer_line = __LINE__ - 1;
        const auto inner_100 = timeout(100ms);
        const unsigned inner_line = __LINE__ - 1;
        service s("S", 1h);

        auto begin = co::clock::now();
        const auto first = co_await as_outcome(pipeline(outer_500, inner_100)(s.fetch()));
        CHECK(timed_out_line(first) == inner_line);
        CHECK(since(begin) == 100ms);

        // outer 500, retry 10, inner 100: inner ones until the outer's
        begin = co::clock::now();
        s.calls = 0;
        const auto many = pipeline(outer_500, retry(10, {.backoff = constant(10ms)}), inner_100);
        const auto second = co_await as_outcome(many(s.fetch()));
        CHECK(timed_out_line(second) == outer_line);
        CHECK(s.calls == 5);
        CHECK(since(begin) == 500ms);

        // fallback, retry, outer 50, inner 100: three attempts, all ended by the outer
        const auto outer_50 = timeout(50ms);
        const unsigned line_50 = __LINE__ - 1;
        s.calls = 0;
        int outer_fired = 0;
        const auto note = [](const co::retry_event& e, void* n) noexcept {
            *static_cast<int*>(n) += timed_out_line(outcome<int>(e.why.error())) != 0 ? 1 : 100;
        };
        unsigned last = 0;
        const auto stale = [&](const co::failure& why) {
            last = timed_out_line(outcome<int>(why.error()));
            return -1;
        };
        const auto third = pipeline(co::fallback(stale),
                                    retry(3, {.backoff = constant(0s), .on_retry = note, .argument = &outer_fired}),
                                    outer_50, inner_100);
        const int got = co_await third(s.fetch());
        CHECK(got == -1);
        CHECK(s.calls == 3);
        CHECK(outer_fired == 2);
        CHECK(last == line_50);

        // retry, outer 200, inner 1 s: the inner never fires
        s.calls = 0;
        const auto outer_200 = timeout(200ms);
        const unsigned line_200 = __LINE__ - 1;
        const auto fourth = pipeline(retry(3, {.backoff = constant(0s)}), outer_200, timeout(1s));
        const auto ended = co_await as_outcome(fourth(s.fetch()));
        CHECK(timed_out_line(ended) == line_200);
        CHECK(s.calls == 3);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("the caller's deadline ends a call as exceeded, and there is no retry", "[policy][timeout][TO-15]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto guarded = pipeline(retry(3), timeout(10s));
        const unsigned here = __LINE__ + 1;
        const auto ended = co_await as_outcome(co::with_timeout(100ms, guarded(s.fetch())));
        CHECK(timed_out_line(ended) == here);
        CHECK(s.calls == 1);
        CHECK(since(begin) == 100ms);
    });
}

TEST_CASE("a timeout that is longer than what is left arms no timer", "[policy][timeout][TO-17]") {
    simulation sim;
    service s("S", 20ms);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1s), timeout(2s), timeout(3s));
        auto looks = [&]() -> task<std::size_t> {
            co_await co::sleep_for(1ms);
            co_return sim.armed_timers();
        };
        auto both = co_await co::when_all(guarded(s.fetch()), looks());
        CHECK(std::get<1>(both) == 2);  // the outermost, and the sleep of the call
    });
}

TEST_CASE("a call that is complete at the very tick of its timeout wins if its timer came first",
          "[policy][timeout][TO-18]") {
    for (int i = 0; i < 20; ++i) {
        simulation sim(static_cast<std::uint64_t>(i));
        service s("S", 100ms);
        sim.run([&]() -> task<> {
            co_await co::sleep_for(1ms);
            const auto early = co_await as_outcome(pipeline(timeout(100ms + 1ns))(s.fetch()));
            CHECK(early.has_value());
            const auto at_once = co_await as_outcome(pipeline(timeout(1ns))([]() -> task<int> { co_return 4; }));
            CHECK(at_once.has_value());
            const auto late = co_await as_outcome(pipeline(timeout(100ms - 1ns))(s.fetch()));
            CHECK_FALSE(late.has_value());
            bool first = false;
            for (int k = 0; k < 3; ++k) {
                const auto tie = co_await as_outcome(pipeline(timeout(100ms))(s.fetch()));
                if (k == 0) first = tie.has_value();
                CHECK(tie.has_value() == first);
            }
        });
    }
}

TEST_CASE("a call that has a value when its timeout has passed keeps it", "[policy][timeout]") {
    simulation sim;
    const auto heedless = []() -> task<std::string> {
        co_await co::shield(co::sleep_for(1s), 1min);
        co_return "late, but there";
    };
    sim.run([&]() -> task<> {
        const std::string got = co_await pipeline(timeout(100ms))(heedless);
        CHECK(got == "late, but there");
    });
}

TEST_CASE("a new duration holds for the calls that begin from then on", "[policy][timeout]") {
    simulation sim;
    sim.run([&]() -> task<> {
        auto guarded = pipeline(timeout(100ms));
        service s("S", 1h);
        const auto ends = [&]() -> task<co::clock::duration> {
            const auto begin = co::clock::now();
            (void)co_await as_outcome(guarded(s.fetch()));
            co_return since(begin);
        };
        const auto changes = [&]() -> task<co::clock::duration> {
            co_await co::sleep_for(10ms);
            guarded.get<0>().set(20ms);
            co_return co_await ends();
        };
        auto both = co_await co::when_all(ends(), changes());
        CHECK(std::get<0>(both) == 100ms);
        CHECK(std::get<1>(both) == 20ms);
        CHECK(guarded.get<0>().duration() == 20ms);
        const auto moved = std::move(guarded);
        const auto begin = co::clock::now();
        (void)co_await as_outcome(moved(s.fetch()));
        CHECK(since(begin) == 20ms);
    });
}

TEST_CASE("a timeout of its own, without a pipeline", "[policy][timeout]") {
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const auto policy = timeout(5ms);
        const auto ended = co_await as_outcome(policy(s.fetch()));
        CHECK(timed_out_line(ended) != 0);
    });
}
