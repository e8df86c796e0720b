// SPDX-License-Identifier: MIT
#include <cordon/policy/pipeline.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/token_bucket.hpp>
#include <cordon/observe/prometheus.hpp>
#include <cordon/observe/registry.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/timeout.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "waiting_guard.hpp"

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::breaker_state;
using co::circuit_breaker;
using co::constant;
using co::failure;
using co::fallback;
using co::pipeline;
using co::retry;
using co::retry_budget;
using co::timeout;

/// A policy as a user writes one.
class noted {
public:
    noted(std::vector<std::string>& to, std::string name) : log_(&to), name_(std::move(name)) {}
    template <class Call>
    auto operator()(Call call) const -> task<co::await_result_t<std::invoke_result_t<Call&>>> {
        log_->push_back(name_ + " in");
        auto ended = co_await as_outcome(call());
        log_->push_back(name_ + " out");
        co_return std::move(ended).value();
    }

private:
    std::vector<std::string>* log_;
    std::string name_;
};

}  // namespace

TEST_CASE("the first policy is the outermost", "[policy][pipeline][CO-10]") {
    simulation sim;
    std::vector<std::string> log;
    service s("S");
    sim.run([&]() -> task<> {
        const int got = co_await pipeline(noted(log, "a"), noted(log, "b"), noted(log, "c"))(s.fetch());
        CHECK(got == 1);
        CHECK(log == std::vector<std::string>{"a in", "b in", "c in", "c out", "b out", "a out"});
    });
}

TEST_CASE("stopped by a policy further out, what is inside is not called", "[policy][pipeline][CO-10]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        const auto stops = [](auto call) -> task<int> {
            co_await co::this_task::stop();
            co_return co_await call();
        };
        const auto ended = co_await as_outcome(pipeline(stops, retry(3))(s.fetch()));
        CHECK(ended.is_stopped());
        CHECK(s.calls == 0);
    });
}

TEST_CASE("a policy that is a function and throws refuses or fails, wherever it is", "[policy][pipeline]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        const auto refuses = [](auto call) -> decltype(call()) {
            throw co::rejected(co::rejection(co::reject_reason::full, "own"));
        };
        const auto fails = [](auto call) -> decltype(call()) { throw std::runtime_error("own"); };
        const auto first = co_await as_outcome(pipeline(refuses, timeout(1s))(s.fetch()));
        CHECK(first.is_rejected());
        const auto second = co_await as_outcome(pipeline(timeout(1s), refuses)(s.fetch()));
        CHECK(second.is_rejected());
        const auto third = co_await as_outcome(pipeline(fails)(s.fetch()));
        CHECK(error_text(third) == "own");
        CHECK(s.calls == 0);
    });
}

TEST_CASE("a pipeline of nothing calls through", "[policy][pipeline][CO-17]") {
    simulation sim;
    service s("SF");
    sim.run([&]() -> task<> {
        const auto nothing = pipeline();
        const int got = co_await nothing(s.fetch());
        CHECK(got == 1);
        const auto ended = co_await as_outcome(nothing(s.fetch()));
        CHECK(error_text(ended) == "2");
    });
}

TEST_CASE("every type of result goes through all policies", "[policy][pipeline]") {
    simulation sim;
    const bool waits = GENERATE(false, true);
    circuit_breaker breaker{{.name = "b"}};
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1s), retry(3, {.backoff = constant(1ms)}), breaker, timeout(100ms));
        int calls = 0;
        const auto nothing = [&]() -> task<> {
            if (waits) co_await co::sleep_for(1ms);
            if (++calls < 2) throw std::runtime_error("once more");
        };
        co_await guarded(nothing);
        const auto text = [&]() -> task<std::string> {
            if (waits) co_await co::sleep_for(1ms);
            co_return "a text that is longer than what a string keeps inside of itself";
        };
        const std::string got_text = co_await guarded(text);
        CHECK(got_text.size() == 63);
        const auto box = [&]() -> task<std::unique_ptr<int>> {
            if (waits) co_await co::sleep_for(1ms);
            if (++calls < 4) throw std::runtime_error("once more");
            co_return std::make_unique<int>(8);
        };
        const std::unique_ptr<int> got_box = co_await guarded(box);
        CHECK(*got_box == 8);
        int n = 5;
        const auto ref = [&]() -> task<int&> {
            if (waits) co_await co::sleep_for(1ms);
            if (++calls < 6) throw std::runtime_error("once more");
            co_return n;
        };
        int& got_ref = co_await guarded(ref);
        CHECK(&got_ref == &n);
        auto as_ref = co_await as_outcome(guarded(ref));
        CHECK(&*as_ref == &n);
        const auto empty = [&]() -> task<std::tuple<>> {
            if (waits) co_await co::sleep_for(1ms);
            co_return std::tuple<>();
        };
        const std::tuple<> got_empty = co_await guarded(empty);
        (void)got_empty;
    });
    CHECK(breaker.stats().calls == 9);
    CHECK(breaker.stats().failed == 3);
}

TEST_CASE("what is awaited need not be a task", "[policy][pipeline]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1s), retry(2));
        co_await guarded([] { return co::sleep_for(1ms); });
        struct at_once {
            bool await_ready() const noexcept { return false; }
            bool await_suspend(std::coroutine_handle<>) const noexcept { return false; }
            int await_resume() const { return 4; }
        };
        const int got = co_await guarded([] { return at_once(); });
        CHECK(got == 4);
        auto all = co_await guarded([] { return co::when_all(co::sleep_for(1ms), co::sleep_for(2ms)); });
        (void)all;
    });
}

TEST_CASE("a refusal calls nothing and makes no frame, and says who refused", "[policy][pipeline]") {
    simulation sim;
    service s("S");
    circuit_breaker breaker{{.name = "stock"}};
    breaker.force_open();
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1s), breaker, timeout(1s));
        const auto ended = co_await as_outcome(guarded(s.fetch()));
        CHECK(ended.is_rejected());
        CHECK(ended.rejection().who() == "stock");
        CHECK(ended.rejection().reason == co::reject_reason::circuit_open);
        CHECK(s.calls == 0);
        bool thrown = false;
        try {
            (void)co_await guarded(s.fetch());
        } catch (const co::rejected& r) {
            thrown = r.rejection().who() == "stock";
        }
        CHECK(thrown);
    });
    CHECK(breaker.stats().rejected_forced == 2);
    CHECK(s.calls == 0);
}

TEST_CASE("an operation that nobody awaits does nothing and lets its callable go", "[policy][pipeline]") {
    const auto shared = std::make_shared<int>(0);
    int calls = 0;
    circuit_breaker breaker{{.name = "b"}};
    const auto guarded = pipeline(timeout(1s), retry(3), breaker);
    {
        const auto call = [shared, &calls]() -> task<> {
            ++calls;
            co_return;
        };
        auto op = guarded(call);
        auto moved = std::move(op);
        (void)moved;
    }
    CHECK(shared.use_count() == 1);
    CHECK(calls == 0);
    CHECK(breaker.stats().calls == 0);
}

TEST_CASE("a lambda that is a coroutine with captures lives until the end, named or not", "[policy][pipeline]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(timeout(1s), retry(3, {.backoff = constant(1ms)}), timeout(100ms));
        auto op = [&] {
            const auto text = std::make_shared<std::string>("captured");
            auto call = [text, n = 0]() mutable -> task<std::string> {
                co_await co::sleep_for(1ms);
                if (++n < 3) throw std::runtime_error("once more");
                co_return *text;
            };
            return guarded(call);  // a copy of what goes now
        }();
        const std::string got = co_await std::move(op);
        CHECK(got == "captured");
        int n = 2;
        const int direct = co_await guarded([&n]() -> task<int> {
            co_await co::sleep_for(1ms);
            co_return n;
        });
        CHECK(direct == 2);
    });
}

TEST_CASE("a coroutine of somebody else's type awaits it with a context", "[policy][pipeline]") {
    simulation sim;
    service s("FS", 1ms), slow("S", 1h);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(2, {.backoff = constant(1ms)}), timeout(100ms));
        int got = 0;
        bool timed_out = false;
        const auto host = [](const auto& pipe, auto call, const co::context& ctx, int& result) -> foreign {
            result = co_await pipe(call).with(ctx);
        };
        const auto fails = [](const auto& pipe, auto call, const co::context& ctx, bool& result) -> foreign {
            try {
                (void)co_await pipe(call).with(ctx);
            } catch (const co::timeout_error&) {
                result = true;
            }
        };
        const co::context& ctx = *co_await co::this_task::context();
        auto first = host(guarded, s.fetch(), ctx, got);
        co_await std::move(first);
        CHECK(got == 2);
        auto second = fails(guarded, slow.fetch(), ctx, timed_out);
        co_await std::move(second);
        CHECK(timed_out);
    });
}

TEST_CASE("a pipeline is a policy", "[policy][pipeline]") {
    simulation sim;
    service s("FFFS", 1ms);
    circuit_breaker breaker{{.name = "b"}};
    sim.run([&]() -> task<> {
        const auto inner = pipeline(retry(2, {.backoff = constant(1ms)}), breaker);
        const auto outer =
            pipeline(fallback([](const failure&) { return -1; }), retry(2, {.backoff = constant(10ms)}), inner);
        const int got = co_await outer(s.fetch());
        CHECK(got == 4);
        const auto deepest = pipeline(pipeline(pipeline(timeout(1s))));
        const int second = co_await deepest(s.fetch());
        CHECK(second == 5);
    });
    CHECK(breaker.stats().calls == 4);
    CHECK(breaker.stats().failed == 3);
}

TEST_CASE("what has a name is one in all its pipelines: guards, timeouts, retries", "[policy][pipeline][CO-11]") {
    simulation sim;
    circuit_breaker breaker{{.name = "shared", .min_calls = 2, .open_for = 1h}};
    auto limit = timeout(1s);
    auto again = retry(1);
    sim.run([&]() -> task<> {
        auto first = pipeline(limit, again, breaker), second = pipeline(limit, again, breaker);
        service s("F");
        (void)co_await as_outcome(first(s.fetch()));
        (void)co_await as_outcome(second(s.fetch()));
        CHECK(breaker.state() == breaker_state::open);
        const auto refused = co_await as_outcome(first(s.fetch()));
        CHECK(refused.is_rejected());
        static_assert(std::is_same_v<decltype(first.get<2>()), circuit_breaker&>);
        CHECK(&first.get<0>() == &limit);
        CHECK(&second.get<1>() == &again);
        CHECK(&first.get<2>() == &breaker);
    });
    SECTION("numbers that are changed by the name are those of calls") {
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(limit, again);
            service fails("F"), hangs("S", 1h);
            limit.set(50ms);
            again.set(3, {.backoff = constant(1ms)});
            (void)co_await as_outcome(guarded(fails.fetch()));
            CHECK(fails.calls == 3);
            const auto begin = co::clock::now();
            const auto late = co_await as_outcome(guarded(hangs.fetch()));
            CHECK(timed_out_line(late) != 0);
            CHECK(co::clock::now() - begin == 50ms);
        });
    }
    SECTION("through a pipeline that is inside another, and one that is stored") {
        sim.run([&]() -> task<> {
            auto inner = pipeline(limit, retry(2, {.backoff = constant(1ms)}));
            const auto outer = pipeline(inner);
            const co::any_pipeline<int> stored = pipeline(inner);
            inner.get<1>().set(4, {.backoff = constant(1ms)});
            service fails("F");
            (void)co_await as_outcome(outer(fails.fetch()));
            CHECK(fails.calls == 4);
            (void)co_await as_outcome(stored(fails.fetch()));
            CHECK(fails.calls == 8);
        });
    }
}

TEST_CASE("a pipeline with policies that have numbers is moved, not copied, and keeps constants constant",
          "[policy][pipeline]") {
    const auto make = [] { return pipeline(timeout(1s), retry(3, {.backoff = constant(1ms)})); };
    using made = decltype(make());
    static_assert(!std::is_copy_constructible_v<made> && std::is_move_constructible_v<made>);
    static_assert(std::is_copy_constructible_v<decltype(pipeline(std::declval<co::timeout_policy&>()))>);
    const auto limit = timeout(1s);
    auto constant_limit = pipeline(limit);
    static_assert(std::is_same_v<decltype(constant_limit.get<0>()), const co::timeout_policy&>);
    simulation sim;
    sim.run([&]() -> task<> {
        auto first = make();
        first.get<1>().set(5, {.backoff = constant(1ms)});
        const auto moved = std::move(first);
        service s("F");
        (void)co_await as_outcome(moved(s.fetch()));
        CHECK(s.calls == 5);
        (void)co_await as_outcome(constant_limit(s.fetch()));
        CHECK(s.calls == 6);
    });
}

// --- with a breaker -------------------------------------------------------------------------------------------------

TEST_CASE("a retry around a breaker that opens and cannot say for how long makes all its attempts, and ends refused",
          "[policy][pipeline][CB-83]") {
    simulation sim;
    service s("F");
    circuit_breaker breaker{
        {.name = "b", .window = co::last_calls(10), .failure_rate = std::nullopt, .consecutive_failures = 3}};
    const auto for_ever = breaker.on_event([&](const co::breaker_event& e) {
        if (e.to == breaker_state::open) breaker.force_open();
    });
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(7, {.backoff = constant(1ms)}), breaker);
        const auto ended = co_await as_outcome(guarded(s.fetch()));
        CHECK(ended.is_rejected());
        CHECK(s.calls == 3);
        CHECK(breaker.stats().rejected == 4);
    });
}

TEST_CASE("a retry waits until the breaker lets calls through again, or gives up at once if it may not",
          "[policy][pipeline][CO-02]") {
    simulation sim;
    sim.run([&]() -> task<> {
        circuit_breaker breaker{
            {.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1, .open_for = 30s}};
        const auto guarded = pipeline(retry(3, {.backoff = constant(1ms)}), breaker);
        service s("FS");
        const auto begin = co::clock::now();
        const auto in_time = co_await as_outcome(co::with_timeout(1s, guarded(s.fetch())));
        CHECK(in_time.is_rejected());
        CHECK(s.calls == 1);
        CHECK(co::clock::now() - begin == 1ms);
        const int patient = co_await guarded(s.fetch());
        CHECK(patient == 2);
        CHECK(co::clock::now() - begin == 30s);
    });
}

TEST_CASE("a breaker around a retry counts one outcome for all its attempts", "[policy][pipeline][CO-03]") {
    simulation sim;
    service s("F");
    circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 3}};
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(breaker, retry(3, {.backoff = constant(1ms)}));
        (void)co_await as_outcome(guarded(s.fetch()));
        CHECK(s.calls == 3);
        CHECK(breaker.stats().consecutive_failures == 1);
        CHECK(breaker.state() == breaker_state::closed);
    });
}

TEST_CASE("a timeout inside a breaker counts as a failure", "[policy][pipeline][CO-06]") {
    simulation sim;
    service s("S", 1h);
    circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 2}};
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(breaker, timeout(10ms));
        (void)co_await as_outcome(guarded(s.fetch()));
        CHECK(breaker.state() == breaker_state::closed);
        (void)co_await as_outcome(guarded(s.fetch()));
        CHECK(breaker.state() == breaker_state::open);
    });
}

TEST_CASE("a timeout outside a breaker stops what is inside, which counts as nothing", "[policy][pipeline]") {
    simulation sim;
    service s("S", 1h);
    circuit_breaker breaker{{.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1}};
    sim.run([&]() -> task<> {
        const auto ended = co_await as_outcome(pipeline(timeout(10ms), breaker)(s.fetch()));
        CHECK(timed_out_line(ended) != 0);
        CHECK(breaker.stats().calls == 0);
        CHECK(breaker.state() == breaker_state::closed);
    });
}

TEST_CASE("nested breakers that look at different errors count independently, in either order",
          "[policy][pipeline][CO-07]") {
    simulation sim;
    const auto one = [](std::string_view name) {
        return co::circuit_breaker_options{.name = name, .failure_rate = std::nullopt, .consecutive_failures = 5};
    };
    const auto is_range = [](const std::exception& e) { return dynamic_cast<const std::range_error*>(&e) != nullptr; };
    const auto is_overflow = [](const std::exception& e) {
        return dynamic_cast<const std::overflow_error*>(&e) != nullptr;
    };
    circuit_breaker ranges{one("ranges")}, overflows{one("overflows")};
    const bool swapped = GENERATE(false, true);
    int calls = 0;
    const auto call = [&]() -> task<int> {
        if (++calls % 3 == 0) throw std::range_error("r");
        throw std::overflow_error("o");
        co_return 0;
    };
    sim.run([&]() -> task<> {
        const auto r = pipeline(ranges).failing_when(is_range);
        const auto o = pipeline(overflows).failing_when(is_overflow);
        for (int i = 0; i < 6; ++i) {
            if (swapped) (void)co_await as_outcome(pipeline(o, r)(call));
            else (void)co_await as_outcome(pipeline(r, o)(call));
        }
    });
    CHECK(ranges.stats().ignored == 4);
    CHECK(ranges.stats().consecutive_failures == 2);
    CHECK(overflows.stats().ignored == 2);
    CHECK(overflows.stats().consecutive_failures == 4);
}

TEST_CASE("of a call with one timeout and then a success everything is told once, in its order",
          "[policy][pipeline][CO-16]") {
    simulation sim;
    std::vector<std::string> log;
    circuit_breaker breaker{
        {.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1, .open_for = 10ms, .half_open_calls = 1}};
    const auto listens =
        breaker.on_event([&](const co::breaker_event& e) { log.push_back(std::string("breaker ") + to_string(e.to)); });
    const auto note = [](const co::retry_event& e, void* to) noexcept {
        static_cast<std::vector<std::string>*>(to)->push_back("retry " + std::to_string(e.number));
    };
    int calls = 0;
    const auto call = [&]() -> task<int> {
        log.push_back("attempt");
        if (++calls == 1) co_await co::sleep_for(1h);
        co_return calls;
    };
    sim.run([&]() -> task<> {
        const auto guarded =
            pipeline(retry(2, {.backoff = constant(20ms), .on_retry = note, .argument = &log}), breaker, timeout(5ms));
        const int got = co_await guarded(call);
        CHECK(got == 2);
    });
    CHECK(log == std::vector<std::string>{"attempt", "breaker open", "retry 0", "breaker half open", "attempt",
                                          "breaker closed"});
}

TEST_CASE("a call whose callable throws is settled with every policy, once", "[policy][pipeline][CO-14]") {
    simulation sim;
    circuit_breaker breaker{{.name = "b"}};
    retry_budget budget{co::in_flight_budget_options{}};
    waiting_guard guard(1);
    int retries = 0;
    const auto note = [](const co::retry_event&, void* n) noexcept { ++*static_cast<int*>(n); };
    const auto throws = []() -> task<int> { throw std::runtime_error("thrown"); };
    const auto at_once = [&]() -> task<int> {
        if (retries >= 0) throw std::runtime_error("at once");
        return throws();
    };
    sim.run([&]() -> task<> {
        const auto guarded =
            pipeline(retry(2, {.backoff = constant(1ms), .budget = &budget, .on_retry = note, .argument = &retries}),
                     breaker, guard);
        const auto first = co_await as_outcome(guarded(throws));
        CHECK(error_text(first) == "thrown");
        const auto second = co_await as_outcome(guarded(at_once));
        CHECK(error_text(second) == "at once");
    });
    CHECK(retries == 2);
    CHECK(breaker.stats().failed == 4);
    CHECK(guard.stats().available == 1);
    CHECK(guard.settled == "FFFF");
    CHECK(budget.stats().calls_in_flight == 0);
    CHECK(budget.stats().retries_in_flight == 0);
}

TEST_CASE("what counts as a failure is said once for retries and breakers", "[policy][pipeline]") {
    simulation sim;
    circuit_breaker breaker{{.name = "b"}};
    service s("S");
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(retry(5, {.backoff = constant(1ms)}), breaker)
                                 .failing_when([](int n) { return n < 3; })
                                 .ignoring([](int n) { return n > 3; });
        const int got = co_await guarded(s.fetch());
        CHECK(got == 3);
        CHECK(breaker.stats().failed == 2);
        const int ignored = co_await guarded(s.fetch());
        CHECK(ignored == 4);
        CHECK(breaker.stats().ignored == 1);
    });
}

TEST_CASE("predicates may have a state, and need not be made without arguments", "[policy][pipeline]") {
    struct below {
        explicit below(int) {}
        bool operator()(int n) const { return n < 2; }
    };
    simulation sim;
    sim.run([&]() -> task<> {
        service s("S"), t("S");
        const auto stateless = pipeline(retry(5, {.backoff = constant(1ms)})).failing_when(below(2));
        const int got = co_await stateless(s.fetch());
        CHECK(got == 2);
        const auto limit = std::make_shared<int>(4);
        auto stateful =
            pipeline(retry(5, {.backoff = constant(1ms)})).failing_when([limit](int n) { return n < *limit; });
        const auto moved = std::move(stateful);
        const int second = co_await moved(t.fetch());
        CHECK(second == 4);

        // two of one type do not share what they know
        const auto until = [](int most) {
            return pipeline(retry(9, {.backoff = constant(1ms)})).failing_when([most](int n) { return n < most; });
        };
        const auto until_three = until(3), until_five = until(5);
        service u("S"), v("S");
        auto both = co_await co::when_all(until_three(u.fetch()), until_five(v.fetch()));
        CHECK(std::get<0>(both) == 3);
        CHECK(std::get<1>(both) == 5);
    });
}

TEST_CASE("a probe that is stopped gives its place back, wherever in the pipeline it was", "[policy][pipeline]") {
    simulation sim;
    sim.run([&]() -> task<> {
        circuit_breaker breaker{
            {.name = "b", .failure_rate = std::nullopt, .consecutive_failures = 1, .half_open_calls = 1}};
        breaker.open_until(co::clock::now());
        waiting_guard guard(0);
        service slow("S", 1h), never("S"), works("S");
        auto in_call = co_await stopped_after(5ms, pipeline(timeout(1h), retry(2), breaker, timeout(1h))(slow.fetch()));
        CHECK(in_call.first.is_stopped());
        auto in_guard = co_await stopped_after(5ms, pipeline(retry(2), breaker, guard)(never.fetch()));
        CHECK(in_guard.first.is_stopped());
        const auto late = co_await as_outcome(pipeline(timeout(5ms), breaker)(slow.fetch()));
        CHECK(timed_out_line(late) != 0);
        CHECK(breaker.state() == breaker_state::half_open);
        CHECK(breaker.stats().probes == 0);
        const int got = co_await pipeline(breaker)(works.fetch());
        CHECK(got == 1);
        CHECK(breaker.state() == breaker_state::closed);
    });
}

// --- a guard that waits ---------------------------------------------------------------------------------------------

TEST_CASE("a guard may wait: the call begins when it is admitted, and is not made if it never is",
          "[policy][pipeline]") {
    simulation sim;
    waiting_guard guard(1);
    sim.run([&]() -> task<> {
        service s("S", 100ms);
        const auto guarded = pipeline(timeout(250ms), guard);
        auto all = co_await co::when_all(as_outcome(guarded(s.fetch())), as_outcome(guarded(s.fetch())),
                                         as_outcome(guarded(s.fetch())), as_outcome(guarded(s.fetch())));
        int values = 0, timeouts = 0;
        const auto count = [&](const auto& o) { ++(o.has_value() ? values : timeouts); };
        count(std::get<0>(all)), count(std::get<1>(all)), count(std::get<2>(all)), count(std::get<3>(all));
        CHECK(values == 2);
        CHECK(timeouts == 2);
        CHECK(s.calls == 3);  // the third was stopped at 250 ms, the fourth never called
        CHECK(s.finished == 2);
        CHECK(guard.settled == "SSX");
    });
    CHECK(guard.stats().available == 1);
    CHECK(guard.stats().waiting == 0);
}

TEST_CASE("stopped while it waits to be admitted a call takes nothing", "[policy][pipeline]") {
    simulation sim;
    waiting_guard guard(0);
    service s("S");
    circuit_breaker breaker{{.name = "b"}};
    sim.run([&]() -> task<> {
        auto ended = co_await stopped_after(10ms, pipeline(retry(3), breaker, guard)(s.fetch()));
        CHECK(ended.first.is_stopped());
        CHECK(ended.second == 10ms);
    });
    CHECK(s.calls == 0);
    CHECK(guard.settled.empty());
    CHECK(guard.stats().waiting == 0);
    CHECK(breaker.stats().calls == 0);
}

TEST_CASE("of guards that follow each other a later one may wait, refuse or be stopped, and the earlier are told",
          "[policy][pipeline]") {
    simulation sim;
    circuit_breaker breaker{{.name = "b"}};
    co::token_bucket tokens{co::every(1s), 1};
    co::bulkhead slots{1, {.max_waiting = 1}};
    service s("S", 100ms);
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(breaker, tokens, slots);
        const auto counted =
            pipeline(breaker, tokens, slots).failing_when([](const co::rejection& r) {
                return r.reason == co::reject_reason::full;
            });
        auto held = std::optional(slots.try_acquire());
        const auto stopped = co_await stopped_after(10ms, guarded(s.fetch()));  // while it waits for a place
        CHECK(stopped.first.is_stopped());
        CHECK(tokens.stats().available == 1);  // has come back
        CHECK(breaker.stats().calls == 0);
        CHECK(s.calls == 0);

        const auto waits = [&]() -> task<int> { co_return co_await guarded(s.fetch()); };
        const auto comes_later = [&]() -> task<> {
            co_await co::sleep_for(1s);
            const auto full = co_await as_outcome(guarded(s.fetch()));
            CHECK(full.is_rejected());
            CHECK(full.rejection().reason == co::reject_reason::full);
            CHECK(breaker.stats().calls == 0);  // a refusal further in counts as nothing
            CHECK(breaker.stats().ignored == 0);
            CHECK(tokens.stats().available == 1);  // and costs nothing
            co_await co::sleep_for(1s);
            const auto told = co_await as_outcome(counted(s.fetch()));
            CHECK(told.is_rejected());
            CHECK(breaker.stats().failed == 1);  // unless the pipeline says otherwise
            CHECK(s.calls == 0);
            held.reset();
        };
        auto both = co_await co::when_all(waits(), comes_later());
        CHECK(std::get<0>(both) == 1);
        CHECK(breaker.stats().calls == 2);
        CHECK(tokens.stats().available == 0);
    });
    CHECK(slots.stats().in_use == 0);
    CHECK(s.calls == 1);
}

TEST_CASE("a million calls that are ready at once need no stack", "[policy][pipeline]") {
    simulation sim(0, {.max_steps = 1'000});
    circuit_breaker breaker{{.name = "b"}};
    std::int64_t sum = 0;
    sim.run([&]() -> task<> {
        const auto guarded =
            pipeline(fallback([](const failure&) { return 0; }), timeout(1s), retry(2), breaker, timeout(1s));
        const auto one = []() -> task<int> { co_return 1; };
        for (int i = 0; i < 1'000'000; ++i) sum += co_await guarded(one);
    });
    CHECK(sum == 1'000'000);
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("policies are seen in a registry by their names, and written for Prometheus",
          "[policy][pipeline][observable]") {
    co::registry metrics;
    const auto limit = timeout(10ms, {.name = "stock"});
    const auto unknown = fallback([](const failure&) { return -1; }, {.name = "stock"});
    auto guarded = pipeline(unknown, retry(2, {.name = "stock", .backoff = constant(1ms)}), limit);
    const auto seen = metrics.add(limit), answers = metrics.add(unknown), retries = metrics.add(guarded.get<1>());
    simulation sim;
    service s("S", 1h);
    sim.run([&]() -> task<> {
        const int got = co_await guarded(s.fetch());
        CHECK(got == -1);
    });
    std::ostringstream text;
    co::write_prometheus(text, metrics);
    INFO(text.str());
    for (const char* line : {"timeout_timed_out_total{name=\"stock\"} 2", "fallback_answered_total{name=\"stock\"} 1",
                             "retry_retries_total{name=\"stock\"} 1", "retry_gave_up_total{name=\"stock\"} 1",
                             "retry_listener_errors_total{name=\"stock\"} 0"})
        CHECK(text.str().find("\ncordon_" + std::string(line) + '\n') != std::string::npos);
}
