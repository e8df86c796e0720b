// SPDX-License-Identifier: MIT
// Threads wait here for real: what takes long ends by a stop, or by a deadline that is a few milliseconds away.
#include <cordon/run/call_blocking.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/token_bucket.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_blocking.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::blocking_scope;
using co::call_blocking;
using co::outcome;
using co::pipeline;

namespace {

/// Blocks, and looks again and again whether to stop.
int until_stopped(const blocking_scope& scope) {
    while (!scope.stop_requested()) std::this_thread::yield();
    throw co::canceled();
}
int until_told(std::stop_token stop) {
    while (!stop.stop_requested()) std::this_thread::yield();
    throw co::canceled();
}

template <class E, class T>
bool failed_as(const outcome<T>& o) {
    if (!o.is_error()) return false;
    try {
        std::rethrow_exception(o.error());
    } catch (const E&) {
        return true;
    } catch (...) {
        return false;
    }
}

template <class F>
std::string logic_error_of(F f) {
    try {
        f();
    } catch (const std::logic_error& e) {
        return e.what();
    }
    return {};
}

/// A policy of somebody's own, which goes elsewhere with the call.
class elsewhere {
public:
    explicit elsewhere(co::thread_pool& pool) : pool_(&pool) {}
    template <class Call>
    auto operator()(Call call) const -> co::task<co::await_result_t<std::invoke_result_t<Call&>>> {
        co_return co_await co::on(*pool_, call());
    }

private:
    co::thread_pool* pool_;
};

}  // namespace

TEST_CASE("a function is called on this thread, behind a pipeline, a guard or any policy", "[run][call_blocking]") {
    co::circuit_breaker breaker{{.name = "db"}};
    co::bulkhead slots{1, {.max_waiting = 8}};
    const auto guarded = pipeline(co::retry(2), breaker, slots);
    const co::any_pipeline<int> stored = pipeline(breaker);
    const auto mine = std::this_thread::get_id();
    const auto here = [&] { return std::this_thread::get_id() == mine ? 1 : 0; };
    CHECK(call_blocking(guarded, here).value() == 1);
    CHECK(call_blocking(breaker, here).value() == 1);
    CHECK(call_blocking(slots, here).value() == 1);
    CHECK(call_blocking(stored, here).value() == 1);
    CHECK(call_blocking(pipeline(), here).value() == 1);
    CHECK(breaker.stats().calls == 3);
    CHECK(slots.stats().in_use == 0);
    co::thread_pool pool(1);
    CHECK(call_blocking(pipeline(elsewhere(pool)), here).value() == 0);
    CHECK_FALSE(call_blocking(breaker, [&] { return pool.is_current(); }).value());
}

TEST_CASE("it gives a value, a reference, something that only moves, or nothing", "[run][call_blocking]") {
    const auto guarded = pipeline(co::retry(2));
    int there = 1;
    int& same = call_blocking(guarded, [&]() -> int& { return there; }).value();
    CHECK(&same == &there);
    CHECK(*call_blocking(guarded, [] { return std::make_unique<int>(7); }).value() == 7);
    static_assert(std::is_same_v<decltype(call_blocking(guarded, [] {})), outcome<void>>);
    CHECK(call_blocking(guarded, [&] { there = 2; }).has_value());
    CHECK(there == 2);
    struct counts {
        int n = 0;
        int operator()() { return ++n; }
    } named;
    CHECK(call_blocking(guarded, named).value() == 1);
    CHECK(named.n == 1);
}

TEST_CASE("it is called again after a failure, on the same thread, after the wait", "[run][call_blocking]") {
    const auto guarded = pipeline(co::retry(3, {.backoff = co::constant(1ms)}));
    int calls = 0;
    const auto begin = co::clock::now();
    const auto third = [&] {
        if (++calls < 3) throw std::runtime_error("not yet");
        return calls;
    };
    CHECK(call_blocking(guarded, third).value() == 3);
    CHECK(co::clock::now() - begin >= 2ms);
    const auto wrong = [&]() -> int {
        ++calls;
        throw std::logic_error("never");
    };
    calls = 0;
    CHECK(failed_as<std::logic_error>(call_blocking(guarded, wrong)));
    CHECK(calls == 1);
}

TEST_CASE("what a function throws is an error, a refusal or a stop, as of a task", "[run][call_blocking]") {
    const auto guarded = pipeline(co::retry(1));
    CHECK(failed_as<std::out_of_range>(call_blocking(guarded, []() -> int { throw std::out_of_range("x"); })));
    CHECK(call_blocking(guarded, []() -> int { throw co::canceled(); }).is_stopped());
    const auto refused = call_blocking(
        guarded, []() -> int { throw co::rejected(co::rejection(co::reject_reason::draining, "db")); });
    CHECK(refused.is_rejected());
    const auto answered = pipeline(co::fallback([](const co::failure&) { return -1; }));
    CHECK(call_blocking(answered, []() -> int { throw std::runtime_error("x"); }).value() == -1);
}

TEST_CASE("a refusal calls nothing", "[run][call_blocking]") {
    co::circuit_breaker breaker{{.name = "db"}};
    breaker.force_open();
    int calls = 0;
    const auto refused = call_blocking(breaker, [&] { return ++calls; });
    REQUIRE(refused.is_rejected());
    CHECK(refused.rejection().reason == co::reject_reason::circuit_open);
    CHECK(calls == 0);
    co::token_bucket slow{co::every(1h), 1};
    slow.drain();
    CHECK(call_blocking(slow, [&] { return ++calls; }, 1ms).is_rejected());  // at once: it would come too late
    CHECK(calls == 0);
}

TEST_CASE("the thread waits to be admitted, until somebody makes room or it is stopped", "[run][call_blocking]") {
    co::bulkhead slots{1, {.max_waiting = 8}};
    std::atomic<bool> go{false};
    std::thread holder([&] {
        const auto held = slots.try_acquire();
        while (!go) std::this_thread::yield();
    });
    while (slots.stats().in_use == 0) std::this_thread::yield();
    outcome<int> stopped = 0;
    std::jthread gives_up([&](std::stop_token stop) { stopped = call_blocking(slots, [] { return 1; }, stop); });
    while (slots.stats().waiting == 0) std::this_thread::yield();
    gives_up.request_stop();
    gives_up.join();
    CHECK(stopped.is_stopped());
    CHECK(call_blocking(slots, [] { return 1; }, 1ms).is_stopped());
    co::cancel_scope scope;
    std::thread stops([&] {
        while (slots.stats().waiting == 0) std::this_thread::yield();
        scope.request_stop();
    });
    CHECK(call_blocking(slots, [] { return 1; }, scope).is_stopped());
    stops.join();
    CHECK(slots.stats().waiting == 0);
    CHECK(slots.stats().in_use == 1);
    std::thread frees([&] {
        while (slots.stats().waiting == 0) std::this_thread::yield();
        go = true;
    });
    CHECK(call_blocking(slots, [] { return 1; }).value() == 1);
    frees.join();
    holder.join();
    CHECK(slots.stats().in_use == 0);
}

TEST_CASE("a stop that is there already, or a deadline that has passed, calls nothing", "[run][call_blocking]") {
    co::bulkhead slots{1, {.max_waiting = 8}};
    co::token_bucket tokens{co::every(1h), 1};
    const auto guarded = pipeline(co::retry(2), tokens, slots);
    co::cancel_scope scope;
    scope.request_stop();
    int calls = 0;
    const auto counts = [&] { return ++calls; };
    CHECK(call_blocking(guarded, counts, scope).is_stopped());
    CHECK(call_blocking(guarded, counts, 0s).is_stopped());
    CHECK(calls == 0);
    CHECK(tokens.stats().available == 1);
    CHECK(slots.stats().in_use == 0);
}

TEST_CASE("a wait between attempts ends with the stop, and none is begun that the deadline leaves no time for",
          "[run][call_blocking]") {
    std::atomic<bool> waits_soon = false;
    const auto decided = [](const co::retry_event&, void* flag) noexcept {
        *static_cast<std::atomic<bool>*>(flag) = true;
    };
    const auto guarded =
        pipeline(co::retry(3, {.backoff = co::constant(1h), .on_retry = decided, .argument = &waits_soon}));
    std::atomic<int> calls = 0;
    const auto fails = [&]() -> int {
        ++calls;
        throw std::runtime_error("x");
    };
    CHECK(failed_as<std::runtime_error>(call_blocking(guarded, fails, 1min)));
    CHECK(calls == 1);
    CHECK_FALSE(waits_soon);
    outcome<int> ended = 0;
    std::jthread waits([&](std::stop_token stop) { ended = call_blocking(guarded, fails, stop); });
    while (!waits_soon) std::this_thread::yield();
    waits.request_stop();
    waits.join();
    CHECK(ended.is_stopped());
    CHECK(calls == 2);
}

TEST_CASE("a timeout reaches the function by the scope that it is given, without any executor",
          "[run][call_blocking]") {
    const auto guarded = pipeline(co::retry(2, {.backoff = co::constant(0ms)}), co::timeout(1ms));
    int calls = 0;
    const auto waits = [&](const blocking_scope& scope) {
        ++calls;
        return until_stopped(scope);
    };
    CHECK(failed_as<co::timeout_error>(call_blocking(guarded, waits)));
    CHECK(calls == 2);
    co::async_semaphore nothing(0);
    const auto blocks = [&](const blocking_scope& scope) { return nothing.acquire_blocking(scope).has_value(); };
    CHECK_FALSE(call_blocking(pipeline(co::timeout(1ms)), blocks).value());  // a value, and a value wins
    CHECK(call_blocking(pipeline(), until_stopped, 1ms).is_stopped());
}

TEST_CASE("a timeout reaches the function by its token, by the timers of the scope's executor",
          "[run][call_blocking]") {
    co::thread_pool timers(1);
    co::cancel_scope scope{timers};
    CHECK(failed_as<co::timeout_error>(call_blocking(pipeline(co::timeout(1ms)), until_told, scope)));
    co::cancel_scope short_one{timers, 2ms};
    CHECK(call_blocking(pipeline(co::timeout(1h)), until_told, short_one).is_stopped());
    CHECK(short_one.reason().kind == co::stop_kind::deadline);
}

TEST_CASE("a token under a deadline that nobody watches is a mistake, and is told", "[run][call_blocking]") {
    const auto bounded = pipeline(co::retry(3), co::timeout(1h));
    CHECK(failed_as<std::logic_error>(call_blocking(bounded, [](std::stop_token) { return 1; })));
    CHECK(failed_as<std::logic_error>(call_blocking(pipeline(), [](std::stop_token) { return 1; }, 1h)));
    CHECK(call_blocking(pipeline(), [](std::stop_token) { return 1; }).value() == 1);
    CHECK(call_blocking(bounded, [] { return 1; }).value() == 1);
    co::thread_pool pool(1);
    const auto goes = pipeline(co::timeout(1ms), elsewhere(pool));
    CHECK(failed_as<co::timeout_error>(call_blocking(goes, until_told)));  // there the timers of this thread fire
}

TEST_CASE("the token of a thread reaches the function", "[run][call_blocking]") {
    outcome<int> told = 0, asked = 0;
    std::atomic<int> inside = 0;
    const auto by_token = [&](std::stop_token stop) {
        ++inside;
        return until_told(stop);
    };
    const auto by_scope = [&](const blocking_scope& scope) {
        ++inside;
        return until_stopped(scope);
    };
    std::jthread one([&](std::stop_token stop) { told = call_blocking(pipeline(), by_token, stop); });
    std::jthread two([&](std::stop_token stop) { asked = call_blocking(pipeline(), by_scope, stop); });
    while (inside != 2) std::this_thread::yield();
    one.request_stop();
    two.request_stop();
    one.join();
    two.join();
    CHECK(told.is_stopped());
    CHECK(asked.is_stopped());
}

TEST_CASE("calls inside calls are under the same stop, and the same executor watches them", "[run][call_blocking]") {
    co::thread_pool timers(1);
    const auto inner = pipeline(co::timeout(1ms));
    const auto calls = [&](const blocking_scope& scope) { return call_blocking(inner, until_told, scope).value(); };
    co::cancel_scope scope{timers};
    CHECK(failed_as<co::timeout_error>(call_blocking(pipeline(co::timeout(1h)), calls, scope)));
    CHECK(failed_as<std::logic_error>(call_blocking(pipeline(), calls)));
    const auto stops = [&](const blocking_scope& in) { return call_blocking(pipeline(), until_stopped, in).value(); };
    CHECK(failed_as<co::timeout_error>(call_blocking(pipeline(co::timeout(1ms)), stops)));
}

TEST_CASE("on a thread that runs an executor, and in a simulation, it is refused, but not inside run_blocking",
          "[run][call_blocking]") {
    const auto guarded = pipeline(co::retry(2));
    const auto one = [] { return 1; };
    const auto tries = [&]() -> co::task<std::string> {
        co_return logic_error_of([&] { static_cast<void>(call_blocking(guarded, one)); });
    };
    CHECK_THAT(co::sync_wait(tries()), Catch::Matchers::Contains("a thread that runs an executor"));
    co::testing::simulation sim;
    sim.run([&]() -> co::task<> {
        const std::string said = co_await tries();
        CHECK_THAT(said, Catch::Matchers::Contains("a thread that runs an executor"));
    });
    co::thread_pool disk(1);
    const auto inside = [&](const blocking_scope& scope) { return call_blocking(guarded, one, scope).value(); };
    CHECK(co::sync_wait(co::run_blocking(disk, inside)) == 1);
}

TEST_CASE("a dump shows it by its place", "[run][call_blocking]") {
    std::vector<co::task_info> all;
    static_cast<void>(call_blocking(pipeline(), [&] { all = co::live_tasks(); }));
    const auto it = std::find_if(all.begin(), all.end(), [](const auto& t) { return t.name == "call_blocking"; });
    REQUIRE(it != all.end());
    CHECK_THAT(it->spawned_at.file_name(), Catch::Matchers::Contains("call_blocking.test.cpp"));
}

TEST_CASE("threads and tasks share guards", "[run][call_blocking]") {
    constexpr int each = 100;
    co::bulkhead slots{1, {.max_waiting = 8}};
    co::circuit_breaker breaker{{.name = "db", .window = co::last_calls(1000)}};
    const auto guarded = pipeline(co::retry(2), breaker, slots);
    int inside = 0, most = 0, calls = 0;  // the bulkhead keeps them apart
    const auto enters = [&] {
        most = std::max(most, ++inside);
        --inside;
        return ++calls;
    };
    std::vector<std::thread> threads;
    for (int t = 0; t < 2; ++t)
        threads.emplace_back([&] {
            for (int i = 0; i < each; ++i)
                if (!call_blocking(guarded, enters).has_value()) std::abort();
        });
    const auto as_task = [&]() -> co::task<int> { co_return enters(); };
    const auto runs = [&]() -> co::task<> {
        for (int i = 0; i < each; ++i) co_await guarded(as_task);
    };
    co::sync_wait(runs());
    for (std::thread& t : threads) t.join();
    CHECK(most == 1);
    CHECK(calls == 3 * each);
    CHECK(breaker.stats().calls == 3 * each);
}
