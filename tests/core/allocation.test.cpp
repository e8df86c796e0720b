// SPDX-License-Identifier: MIT
// What runs again and again allocates nothing. Not measured under sanitizers, where coroutine frames are not recycled.

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "counted_new.hpp"

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdlib>
#include <exception>
#include <new>
#include <optional>
#include <system_error>
#include <tuple>
#include <utility>

#include <dlfcn.h>
#include <unwind.h>

#ifdef SANITIZED

TEST_CASE("under a sanitizer allocations are not counted", "[core][allocation]") {
    WARN("SKIPPED: coroutine frames are not recycled under a sanitizer");
}

#else

namespace {
std::atomic<std::size_t> throws{0};
}  // namespace

/// In the place of the unwinder's, which everything that throws calls.
extern "C" _Unwind_Reason_Code _Unwind_RaiseException(_Unwind_Exception* e) {
    throws.fetch_add(1, std::memory_order_relaxed);
    using function = _Unwind_Reason_Code (*)(_Unwind_Exception*);
    static const auto raise = reinterpret_cast<function>(dlsym(RTLD_NEXT, "_Unwind_RaiseException"));
    return raise(e);
}

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::cancel_scope;
using cordon::deadline;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::sync_wait;
using cordon::task;
using cordon::task_group;
using cordon::when_all;
using cordon::with;
using cordon::with_group;
using cordon::with_timeout;
namespace this_task = cordon::this_task;

constexpr cordon::context_key<int> number{"number"};

/// How often `once` allocates in 100 runs, after a warm-up. A run loop rather than a simulation, which writes down what
/// it does and allocates for that.
template <class F>
task<std::size_t> count_in(F once) {
    for (int i = 0; i < 200; ++i) co_await once();
    const std::size_t before = allocations.load();
    for (int i = 0; i < 100; ++i) co_await once();
    co_return allocations.load() - before;
}
template <class F>
std::size_t allocations_of(F once) {
    return sync_wait(count_in(once));
}

task<int> give(int n) { co_return n; }
task<int> hop() {
    co_await this_task::yield();
    co_return 1;
}
task<> waits() { co_await sleep_for(1h); }

}  // namespace

TEST_CASE("the counter counts", "[core][allocation]") {
    CHECK(allocations_of([]() -> task<> {
              int* volatile p = new int(1);
              delete p;
              co_return;
          }) == 100);
}

TEST_CASE("awaiting tasks allocates nothing", "[core][allocation][X13]") {
    CHECK(allocations_of([] { return give(1); }) == 0);
    CHECK(allocations_of([]() -> task<> {
              const int a = co_await give(1);
              const int b = co_await give(a);
              const outcome<int> c = co_await as_outcome(give(b));
              (void)c;
              co_await hop();
          }) == 0);
}

TEST_CASE("going to the back of the queue and sleeping allocate nothing", "[core][allocation][X13]") {
    CHECK(allocations_of([] { return this_task::yield(); }) == 0);
    CHECK(allocations_of([] { return sleep_for(0s); }) == 0);
    CHECK(allocations_of([] { return sleep_for(1us); }) == 0);
}

TEST_CASE("a timeout allocates nothing, whether the operation is ready or waits", "[core][allocation][C-024][X13]") {
    CHECK(allocations_of([] { return with_timeout(1h, give(1)); }) == 0);
    CHECK(allocations_of([] { return with_timeout(1h, hop()); }) == 0);
    CHECK(allocations_of([] { return with_timeout(1h, sleep_for(1us)); }) == 0);
    CHECK(allocations_of([] { return with_timeout(1h, with_timeout(2h, with_timeout(1min, sleep_for(1us)))); }) == 0);
    CHECK(allocations_of([] { return cordon::shield(sleep_for(1us), 1h); }) == 0);
}

TEST_CASE("binding a value and looking it up allocates nothing", "[core][allocation][C-024][X13]") {
    CHECK(allocations_of([]() -> task<> {
              auto looks = []() -> task<int> { co_return *co_await this_task::get(number); };
              const int n = co_await with(looks(), number(3));
              if (n != 3) std::abort();
          }) == 0);
}

TEST_CASE("scopes, stopped, expired or neither, allocate nothing", "[core][allocation][C-024][X13]") {
    CHECK(allocations_of([]() -> task<> {
              cancel_scope root;
              cancel_scope child(root), expired(root, deadline::after(0s));
              cancel_scope timed(*co_await this_task::context(), deadline::after(1h));
              root.request_stop();
              timed.request_stop();
              if (!child.stop_requested() || !expired.stop_requested()) std::abort();
          }) == 0);
}

TEST_CASE("a stop that unwinds waiting tasks allocates nothing, nor does a deadline of a scope",
          "[core][allocation][C-024][X13]") {
    CHECK(allocations_of([]() -> task<> {
              auto outer = []() -> task<> { co_await waits(); };
              auto stops = [](inplace_stop_source& s) -> task<> {
                  co_await this_task::yield();
                  s.request_stop();
              };
              inplace_stop_source source;
              auto both = co_await when_all(as_outcome(with(outer(), stop_on(source.get_token()))), stops(source));
              if (!std::get<0>(both).is_stopped()) std::abort();
          }) == 0);
    CHECK(allocations_of([]() -> task<> {
              cancel_scope scope(*co_await this_task::context(), deadline::after(1us));
              const outcome<void> o = co_await as_outcome(waits().with(scope.ctx()));
              if (!o.is_stopped()) std::abort();
          }) == 0);
}

TEST_CASE("an expired timeout allocates nothing but its error", "[core][allocation][C-024][X13]") {
    const std::size_t error = allocations_of([]() -> task<> {
        const auto e = std::make_exception_ptr(cordon::timeout_error(std::source_location::current()));
        (void)e;
        co_return;
    });
    CHECK(allocations_of([]() -> task<> {
              const outcome<void> o = co_await as_outcome(with_timeout(1us, waits()));
              if (!o.is_error()) std::abort();
          }) <= error);
}

TEST_CASE("waiting for a semaphore or an event allocates nothing", "[core][allocation][X13]") {
    static std::optional<async_semaphore> semaphore;
    semaphore.emplace(0u);
    CHECK(allocations_of([]() -> task<> {
              auto releases = []() -> task<> {
                  semaphore->release();
                  co_return;
              };
              co_await when_all(semaphore->acquire(), releases());
          }) == 0);
    static cordon::async_event event;
    CHECK(allocations_of([]() -> task<> {
              auto sets = []() -> task<> {
                  event.set();
                  co_return;
              };
              co_await when_all(event.wait(), sets());
              event.reset();
          }) == 0);
}

TEST_CASE("running two things at the same time allocates nothing", "[core][allocation][X13]") {
    CHECK(allocations_of([] { return when_all(give(1), give(2)); }) == 0);
    CHECK(allocations_of([] { return when_all(hop(), sleep_for(1us)); }) == 0);
}

TEST_CASE("spawning into a group and joining it allocates nothing", "[core][allocation][X13]") {
    CHECK(allocations_of([]() -> task<> {
              auto body = [](task_group& group) -> task<> {
                  auto child = []() -> task<> { co_await this_task::yield(); };
                  group.spawn(child());
                  group.spawn(child(), {.name = "named"});
                  co_await group.join();
              };
              co_await with_group(body);
          }) == 0);
}

TEST_CASE("awaiting an awaitable of a host allocates nothing", "[core][allocation][X13]") {
    struct at_once {
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<>) const noexcept { return false; }
        int await_resume() const noexcept { return 1; }
    };
    CHECK(allocations_of([]() -> task<> {
              const int n = co_await at_once();
              (void)n;
          }) == 0);
}

TEST_CASE("an awaitable of a host that there is no memory to await is an error", "[core][allocation]") {
    struct awaiter {
        bool await_ready() const noexcept { return false; }
        bool await_suspend(std::coroutine_handle<>) const noexcept { return false; }
        int await_resume() const noexcept { return 7; }
        char much[8192] = {};  // no frame with which is kept for the next
    };
    struct awaitable {
        awaiter operator co_await() const noexcept { return {}; }
    };
    const auto awaits = [](bool fails) -> task<int> {
        memory_is_short = fails;
        co_return co_await awaitable();
    };
    const auto root = [&]() -> task<> {
        auto none = co_await as_outcome(awaits(true));
        memory_is_short = false;
        REQUIRE(none.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(none.error()), std::bad_alloc);
        const int got = co_await awaits(false);
        CHECK(got == 7);
    };
    sync_wait(root());
}

TEST_CASE("deciding on an error_code neither throws nor allocates", "[core][allocation][verdict]") {
    using read = std::tuple<std::error_code, std::size_t>;
    const auto judge = cordon::outcome_classifier<>()
                           .failing_when([](std::error_code e) { return e == std::errc::timed_out; })
                           .ignoring([](std::error_code e) { return e == std::errc::operation_canceled; });
    const outcome<read> late(read(std::make_error_code(std::errc::timed_out), 0)), fine(read(std::error_code(), 3));
    const outcome<read> error(std::make_exception_ptr(std::system_error(std::make_error_code(std::errc::timed_out))));
    const std::size_t allocated = allocations.load(), thrown = throws.load();
    int failures = 0;
    for (int i = 0; i < 100; ++i)
        failures += (judge(late) == cordon::verdict::failure) + (judge(fine) == cordon::verdict::failure);
    CHECK(failures == 100);
    CHECK(allocations.load() == allocated);
    CHECK(throws.load() == thrown);
    CHECK(judge(error) == cordon::verdict::failure);
    CHECK(throws.load() > thrown);  // the counter counts: the type of an exception is only found by throwing it
}

#endif
