// SPDX-License-Identifier: MIT
#include <cordon/core/blocking_scope.hpp>

#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/task.hpp>
#include <cordon/run/run_blocking.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <atomic>
#include <chrono>
#include <concepts>
#include <exception>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>

namespace co = cordon;
using namespace std::chrono_literals;
using co::async_event;
using co::async_semaphore;
using co::blocking_scope;
using co::cancel_scope;
using co::deadline;
using co::outcome;

namespace {

static_assert(std::convertible_to<std::stop_token, blocking_scope>);
static_assert(std::convertible_to<deadline, blocking_scope>);
static_assert(std::convertible_to<const co::context&, blocking_scope>);
static_assert(std::convertible_to<cancel_scope&, blocking_scope>);
static_assert(std::convertible_to<co::task_group&, blocking_scope>);
static_assert(!std::convertible_to<int, blocking_scope>);

/// A thread that does something while this one waits: not before `until()`.
template <class Until, class F>
std::thread once(Until until, F f) {
    return std::thread([=] {
        while (!until()) std::this_thread::yield();
        f();
    });
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

}  // namespace

TEST_CASE("a thread waits for a semaphore, an event and a completion", "[core][blocking_scope]") {
    async_semaphore semaphore(0);
    async_event event;
    co::completion<int> number;
    std::thread other = once([&] { return semaphore.stats().waiting == 1; }, [&] { semaphore.release(); });
    CHECK(semaphore.acquire_blocking().has_value());
    other.join();
    CHECK(semaphore.stats().available == 0);
    other = once([&] { return event.waiting() == 1; }, [&] { event.set(); });
    CHECK(event.wait_blocking().has_value());
    other.join();
    other = std::thread([&] { number.set_value(5); });
    CHECK(number.wait_blocking().value() == 5);
    other.join();
}

TEST_CASE("what is there at once is taken without a wait", "[core][blocking_scope]") {
    async_semaphore semaphore(3);
    async_event event({.set = true});
    co::completion<int> number;
    number.set_value(7);
    CHECK(semaphore.acquire_blocking({}, 2).has_value());
    CHECK(semaphore.stats().available == 1);
    CHECK(event.wait_blocking().has_value());
    CHECK(number.wait_blocking().value() == 7);
}

TEST_CASE("the outcome of a completion comes as it is", "[core][blocking_scope]") {
    co::completion<int> failed, refused, stopped;
    failed.set_error(std::make_exception_ptr(std::out_of_range("there")));
    refused.set(outcome<int>(co::rejection(co::reject_reason::full, "disk")));
    stopped.set_stopped();
    CHECK(failed.wait_blocking().is_error());
    CHECK(refused.wait_blocking().is_rejected());
    CHECK(stopped.wait_blocking().is_stopped());
}

TEST_CASE("the token of a thread ends its waits, with nothing taken", "[core][blocking_scope]") {
    async_semaphore semaphore(0);
    async_event event;
    co::completion<int> number;
    bool taken = false, passed = false, came = false;
    std::jthread waits([&](std::stop_token stop) {
        taken = semaphore.acquire_blocking(stop).has_value();
        passed = event.wait_blocking(stop).has_value();
        came = number.wait_blocking(stop).has_value();
    });
    while (semaphore.stats().waiting == 0) std::this_thread::yield();
    waits.request_stop();
    waits.join();
    CHECK_FALSE(taken);
    CHECK_FALSE(passed);
    CHECK_FALSE(came);
    semaphore.release();
    CHECK(semaphore.stats().available == 1);
    CHECK(event.waiting() == 0);
    number.set_value(1);
    CHECK(number.wait_blocking().value() == 1);
}

TEST_CASE("a deadline ends a wait, even without any executor, and not before its time", "[core][blocking_scope]") {
    async_semaphore semaphore(0);
    const deadline soon = deadline::after(2ms);  // real time: this thread's own sleep is what is tested
    CHECK(semaphore.acquire_blocking(soon).is_stopped());
    CHECK(co::clock::now() >= soon.time());
    CHECK(semaphore.stats().waiting == 0);
    CHECK(semaphore.acquire_blocking(deadline::after(0s)).is_stopped());
    CHECK(semaphore.acquire_blocking(0s).is_stopped());
    CHECK(semaphore.acquire_blocking(50us).is_stopped());
    CHECK(semaphore.stats().waiting == 0);
    semaphore.release();
    CHECK(semaphore.acquire_blocking(deadline::after(1h)).has_value());
    CHECK(semaphore.stats().available == 0);
    std::thread other = once([&] { return semaphore.stats().waiting == 1; }, [&] { semaphore.release(); });
    CHECK(semaphore.acquire_blocking(1h).has_value());
    other.join();
}

TEST_CASE("a cancel_scope ends a wait by its stop or its deadline, and has noticed its deadline then",
          "[core][blocking_scope]") {
    async_event never;
    cancel_scope asked;
    std::thread other = once([&] { return never.waiting() == 1; }, [&] { asked.request_stop(); });
    CHECK(never.wait_blocking(asked).is_stopped());
    other.join();
    CHECK(asked.reason().kind == co::stop_kind::requested);

    cancel_scope late(deadline::after(1ms));  // without an executor: nobody fires a timer
    CHECK(never.wait_blocking(late).is_stopped());
    CHECK(late.token().stop_requested());
    CHECK(late.reason().kind == co::stop_kind::deadline);

    cancel_scope outer(deadline::after(1ms)), inner(outer, deadline::after(1h));
    CHECK(never.wait_blocking(inner).is_stopped());
    CHECK(inner.reason().kind == co::stop_kind::deadline);
    CHECK(outer.token().stop_requested());

    co::thread_pool timers(1);
    cancel_scope timed(timers, deadline::after(1ms));
    CHECK(never.wait_blocking(timed).is_stopped());
    CHECK(timed.reason().kind == co::stop_kind::deadline);
}

TEST_CASE("a context ends a wait, and so does what it was derived from", "[core][blocking_scope]") {
    async_event never;
    CHECK(never.waiting() == 0);
    cancel_scope scope;
    std::thread other = once([&] { return never.waiting() == 1; }, [&] { scope.request_stop(); });
    CHECK(never.wait_blocking(scope.ctx()).is_stopped());
    other.join();
    co::run_loop loop;
    co::task_group group(loop);
    group.request_stop();
    CHECK(never.wait_blocking(group).is_stopped());
    const co::context plain;
    async_event set({.set = true});
    CHECK(set.wait_blocking(plain).has_value());
}

TEST_CASE("what is there is taken although a stop was asked, but no wait begins after it", "[core][blocking_scope]") {
    async_semaphore semaphore(1);
    co::completion<int> number;
    number.set_value(3);
    cancel_scope stopped;
    stopped.request_stop();
    std::stop_source source;
    source.request_stop();
    CHECK(semaphore.acquire_blocking(stopped).has_value());
    CHECK(semaphore.acquire_blocking(stopped).is_stopped());
    CHECK(semaphore.acquire_blocking(source.get_token()).is_stopped());
    CHECK(semaphore.stats().waiting == 0);
    CHECK(semaphore.stats().available == 0);
    CHECK(number.wait_blocking(source.get_token()).value() == 3);
    semaphore.release(2);
    CHECK(semaphore.acquire_blocking(source.get_token()).has_value());
    CHECK(semaphore.acquire_blocking(deadline::after(-1s)).has_value());
}

TEST_CASE("a thread that gives up lets those behind it pass", "[core][blocking_scope]") {
    async_semaphore semaphore(1);
    std::atomic<bool> second_has_it{false};
    std::jthread first([&](std::stop_token stop) {
        if (semaphore.acquire_blocking(stop, 2)) semaphore.release(2);
    });
    while (semaphore.stats().waiting != 1) std::this_thread::yield();
    std::thread second([&] { second_has_it = semaphore.acquire_blocking().has_value(); });
    while (semaphore.stats().waiting != 2) std::this_thread::yield();
    CHECK_FALSE(second_has_it);
    first.request_stop();
    second.join();
    CHECK(second_has_it);
}

TEST_CASE("a thread that runs an executor must not block, nor a simulation", "[core][blocking_scope]") {
    async_semaphore semaphore(1);
    const auto blocks = [&] { (void)semaphore.acquire_blocking(); };
    const auto task = [&]() -> co::task<std::string> { co_return logic_error_of(blocks); };
    const std::string in_a_loop = co::sync_wait(task());
    CHECK(in_a_loop.find("co_await instead") != std::string::npos);
    co::thread_pool pool(1);
    const std::string in_a_pool = co::sync_wait(co::on(pool, task));
    CHECK(in_a_pool.find("run_blocking") != std::string::npos);
    co::testing::simulation sim;
    const std::string simulated = sim.run(task());
    CHECK_FALSE(simulated.empty());
    CHECK(semaphore.stats().available == 1);
}

TEST_CASE("inside run_blocking a thread may block, under the stop of the task that waits", "[core][blocking_scope]") {
    co::thread_pool pool(1);
    async_semaphore semaphore(1);
    const auto takes = [&](std::stop_token stop) { return semaphore.acquire_blocking(stop).has_value(); };
    CHECK(co::sync_wait(co::run_blocking(pool, takes)));
    const auto waits = [&](std::stop_token stop) {
        if (!semaphore.acquire_blocking(stop)) throw co::canceled();
    };
    CHECK_THROWS_AS(co::sync_wait(co::with_timeout(1ms, co::run_blocking(pool, waits))), co::timeout_error);
    CHECK(semaphore.stats().waiting == 0);
}

TEST_CASE("what a thread heeds can be asked whether to stop", "[core][blocking_scope]") {
    CHECK_FALSE(blocking_scope().stop_requested());
    CHECK_FALSE(blocking_scope(deadline::after(1h)).stop_requested());
    CHECK(blocking_scope(deadline::after(0s)).stop_requested());
    std::stop_source source;
    const std::stop_token token = source.get_token();
    const blocking_scope of_token(token);
    CHECK_FALSE(of_token.stop_requested());
    source.request_stop();
    CHECK(of_token.stop_requested());
    co::run_loop loop;
    cancel_scope scope{co::executor_ref(loop)};
    const blocking_scope of_scope(scope);
    CHECK_FALSE(of_scope.stop_requested());
    scope.request_stop();
    CHECK(of_scope.stop_requested());
}

TEST_CASE("a thread fires the timer of the operation that it waits for", "[core][blocking_scope]") {
    // Sleeping is a leaf with a timer, which no public call blocks on.
    const auto from = co::clock::now();
    CHECK(co::detail::block_on(co::sleep_for(2ms), {}).has_value());
    CHECK(co::clock::now() - from >= 2ms);  // real time: a thread has no other
    CHECK(co::detail::block_on(co::sleep_for(1h), deadline::after(1ms)).is_stopped());
    std::stop_source source;
    const std::stop_token token = source.get_token();
    std::thread other([&] { source.request_stop(); });
    CHECK(co::detail::block_on(co::sleep_for(1h), token).is_stopped());
    other.join();
}
