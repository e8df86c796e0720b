// SPDX-License-Identifier: MIT
#include <cordon/core/task.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__unix__)
#include "last_words.hpp"
#endif

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::canceled;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::rejected;
using cordon::rejection;
using cordon::reject_reason;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::sync_wait;
using cordon::task;
using cordon::with;
using cordon::with_timeout;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

using lines = std::vector<std::string>;

static_assert(!std::is_copy_constructible_v<task<>> && std::is_nothrow_move_constructible_v<task<>> &&
              std::is_nothrow_move_assignable_v<task<>> && !std::is_default_constructible_v<task<>>);
static_assert(sizeof(task<std::string>) == sizeof(void*));
static_assert(std::is_same_v<task<>, task<void>>);
static_assert(cordon::operation<task<int>> && cordon::operation<task<>> && cordon::operation<task<int&>>);
static_assert(std::is_same_v<cordon::await_result_t<task<int&>>, int&>);

#ifdef SANITIZED
constexpr bool sanitized = true;  // several times slower
#else
constexpr bool sanitized = false;
#endif

/// Says when it dies.
class note {
public:
    note(lines& to, std::string text) : log_(&to), text_(std::move(text)) {}
    note(const note&) = delete;
    note& operator=(const note&) = delete;
    ~note() { log_->push_back("~" + text_); }

private:
    lines* log_;
    std::string text_;
};

task<> request_stop_after(std::chrono::nanoseconds d, inplace_stop_source& source) {
    co_await sleep_for(d);
    source.request_stop();
}

/// Runs `op` under a stop that comes at `when`, in virtual time.
template <class T>
task<outcome<T>> stopped_at(std::chrono::nanoseconds when, task<T> op) {
    inplace_stop_source source;
    auto both = co_await cordon::when_all(as_outcome(with(std::move(op), stop_on(source.get_token()))),
                                          request_stop_after(when, source));
    co_return std::get<0>(std::move(both));
}

[[gnu::noinline]] std::uintptr_t stack_position() {
    return reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
}

/// The lowest and the highest place that the stack had.
struct stack_range {
    void look() {
        const std::uintptr_t here = stack_position();
        low = here < low ? here : low;
        high = here > high ? here : high;
    }
    [[nodiscard]] std::uintptr_t used() const { return high - low; }
    std::uintptr_t low = UINTPTR_MAX;
    std::uintptr_t high = 0;
};
constexpr std::uintptr_t little = 64 * 1024;

}  // namespace

TEST_CASE("a task that never waits gives its value at once", "[core][task]") {
    struct program {
        static task<int> number() { co_return 42; }
        static task<std::string> text() { co_return "text"; }
        static task<std::unique_ptr<int>> owned() { co_return std::make_unique<int>(7); }
        static task<int&> reference(int& n) { co_return n; }
        static task<> nothing() { co_return; }
        static task<bool> all() {
            int n = 1;
            int& same = co_await reference(n);
            const auto seven = co_await owned();
            co_await nothing();
            const int answer = co_await number();
            const std::string words = co_await text();
            co_return &same == &n && *seven == 7 && answer == 42 && words == "text";
        }
    };
    CHECK(sync_wait(program::all()));
    CHECK(sync_wait(program::number()) == 42);
}

TEST_CASE("a task does nothing until it is awaited, and one that never is destroys its arguments", "[core][task]") {
    struct program {
        static task<> run(std::shared_ptr<int> argument, bool& ran) {
            ran = true;
            *argument = 1;
            co_return;
        }
    };
    const auto shared = std::make_shared<int>(0);
    bool ran = false;
    {
        const auto never = program::run(shared, ran);
        CHECK(shared.use_count() == 2);
    }
    CHECK(shared.use_count() == 1);
    CHECK_FALSE(ran);
    sync_wait(program::run(shared, ran));
    CHECK(ran);
    CHECK(*shared == 1);
    CHECK(shared.use_count() == 1);
}

TEST_CASE("a task that was moved from is not valid, and assignment destroys what was there", "[core][task]") {
    struct program {
        static task<int> give(std::shared_ptr<int> p) { co_return *p; }
    };
    const auto one = std::make_shared<int>(1), two = std::make_shared<int>(2);
    task<int> a = program::give(one);
    CHECK(a.valid());
    task<int> b = std::move(a);
    CHECK_FALSE(a.valid());
    CHECK(b.valid());
    b = program::give(two);
    CHECK(one.use_count() == 1);
    CHECK(sync_wait(std::move(b)) == 2);
    CHECK_FALSE(b.valid());
}

TEST_CASE("a task that waits gives its value afterwards", "[core][task]") {
    struct program {
        static task<int> inner() {
            co_await sleep_for(2s);
            co_return 5;
        }
        static task<int> outer() { co_return co_await inner() + co_await inner(); }
    };
    simulation sim;
    const auto begin = sim.now();
    CHECK(sim.run(program::outer()) == 10);
    CHECK(sim.now() - begin == 4s);
}

TEST_CASE("an exception that leaves a body is thrown from the co_await, the object itself", "[core][task]") {
    struct program {
        static task<int> fails(std::exception_ptr e, bool later) {
            if (later) co_await sleep_for(1ms);
            std::rethrow_exception(e);
        }
        static task<bool> catches(std::exception_ptr e, bool later) {
            try {
                co_await fails(e, later);
            } catch (...) {
                co_return std::current_exception() == e;
            }
            co_return false;
        }
    };
    const auto error = std::make_exception_ptr(std::runtime_error("broken"));
    simulation sim;
    CHECK(sim.run(program::catches(error, false)));
    CHECK(sim.run(program::catches(error, true)));
    CHECK_THROWS_WITH(sim.run(program::fails(error, true)), "broken");
}

TEST_CASE("a stop destroys the locals of all frames, innermost first", "[core][task][D1]") {
    struct program {
        static task<> inner(lines& log) {
            const note n(log, "inner");
            co_await sleep_for(1h);
            log.push_back("resumed");
        }
        static task<> middle(lines& log) {
            const note n(log, "middle");
            co_await inner(log);
            log.push_back("resumed");
        }
        static task<int> outer(lines& log) {
            const note first(log, "outer 1"), second(log, "outer 2");
            co_await middle(log);
            log.push_back("resumed");
            co_return 1;
        }
    };
    lines log;
    simulation sim;
    CHECK(sim.run(stopped_at(1s, program::outer(log))).is_stopped());
    CHECK(log == lines{"~inner", "~middle", "~outer 2", "~outer 1"});
}

TEST_CASE("a stop is no exception: no catch block sees it", "[core][task][D1]") {
    struct counts_exceptions {
        explicit counts_exceptions(int& n) : uncaught(&n) {}
        ~counts_exceptions() { *uncaught += std::uncaught_exceptions(); }
        int* uncaught;
    };
    struct program {
        static task<> waits(int& uncaught) {
            const counts_exceptions c(uncaught);
            co_await sleep_for(1h);
        }
        static task<> run(lines& log, int& uncaught) {
            try {
                try {
                    co_await waits(uncaught);
                } catch (const std::exception&) {
                    log.push_back("std::exception");
                    throw;
                } catch (...) {
                    log.push_back("...");
                    throw;
                }
            } catch (const canceled&) {
                log.push_back("canceled");
                throw;
            }
        }
    };
    lines log;
    int uncaught = 0;
    simulation sim;
    CHECK(sim.run(stopped_at(1s, program::run(log, uncaught))).is_stopped());
    CHECK(log.empty());
    CHECK(uncaught == 0);
}

TEST_CASE("a task is stopped where it waits next, not in between", "[core][task]") {
    struct program {
        static task<int> run(inplace_stop_source& own, lines& log) {
            log.push_back("works");
            own.request_stop();
            log.push_back("works on");
            const bool stop = co_await this_task::stop_requested();
            if (stop) log.push_back("may ask");
            co_await with_timeout(1h, inner(log));
            log.push_back("goes on");
            co_return 1;
        }
        static task<> inner(lines& log) {
            log.push_back("starts even so");
            co_await sleep_for(0s);
            log.push_back("ready is no cancel point");
            co_await this_task::yield();
            log.push_back("not here");
        }
    };
    inplace_stop_source source;
    lines log;
    simulation sim;
    CHECK(sim.run(as_outcome(with(program::run(source, log), stop_on(source.get_token())))).is_stopped());
    CHECK(log == lines{"works", "works on", "may ask", "starts even so", "ready is no cancel point"});
}

TEST_CASE("stopped and ready at the same time: the value wins", "[core][task]") {
    struct program {
        static task<int> takes(async_semaphore& s) {
            co_await s.acquire();
            co_return 3;
        }
        static task<int> waits_until(std::chrono::nanoseconds d) {
            co_await sleep_for(d);
            co_return 4;
        }
    };
    SECTION("a permit is there although the context is stopped") {
        inplace_stop_source source;
        source.request_stop();
        async_semaphore s(1);
        simulation sim;
        CHECK(sim.run(with(program::takes(s), stop_on(source.get_token()))) == 3);
        CHECK(s.stats().available == 0);
    }
    SECTION("the wait has ended when the stop comes, and the task has not run yet") {
        inplace_stop_source source;
        async_semaphore s(0);
        auto release_then_stop = [](async_semaphore& sem, inplace_stop_source& src) -> task<> {
            co_await sleep_for(1s);
            sem.release();
            src.request_stop();
        };
        auto both = [&]() -> task<outcome<int>> {
            auto r = co_await cordon::when_all(as_outcome(with(program::takes(s), stop_on(source.get_token()))),
                                               release_then_stop(s, source));
            co_return std::get<0>(std::move(r));
        };
        simulation sim;
        CHECK(sim.run(both()).has_value());
        CHECK(s.stats().available == 0);
    }
    SECTION("the stop was first: nothing is taken") {
        inplace_stop_source source;
        async_semaphore s(0);
        auto stop_then_release = [](async_semaphore& sem, inplace_stop_source& src) -> task<> {
            co_await sleep_for(1s);
            src.request_stop();
            sem.release();
        };
        auto both = [&]() -> task<outcome<int>> {
            auto r = co_await cordon::when_all(as_outcome(with(program::takes(s), stop_on(source.get_token()))),
                                               stop_then_release(s, source));
            co_return std::get<0>(std::move(r));
        };
        simulation sim;
        CHECK(sim.run(both()).is_stopped());
        CHECK(s.stats().available == 1);
    }
    SECTION("the body has ended with a value although a stop is pending") {
        simulation sim;
        CHECK(sim.run(stopped_at(2s, program::waits_until(1s))).value() == 4);
    }
}

TEST_CASE("a deadline ends a task like a stop, and its catch blocks do not see it", "[core][task][C-007]") {
    struct program {
        static task<int> run(lines& log) {
            const note n(log, "local");
            try {
                co_await sleep_for(1h);
            } catch (...) {
                log.push_back("caught");
            }
            co_return 1;
        }
    };
    lines log;
    simulation sim;
    const auto begin = sim.now();
    CHECK_THROWS_AS(sim.run(with_timeout(10ms, program::run(log))), cordon::timeout_error);
    CHECK(sim.now() - begin == 10ms);
    CHECK(log == lines{"~local"});
}

TEST_CASE("a canceled that leaves a body is a stop again", "[core][task][D1]") {
    struct derived : canceled {};
    struct program {
        static task<int> throws(bool later) {
            if (later) co_await sleep_for(1ms);
            throw canceled();
        }
        static task<int> throws_derived() {
            throw derived();
            co_return 1;
        }
        static task<int> outer(bool later, lines& log) {
            const note n(log, "outer");
            try {
                co_return co_await throws(later);
            } catch (...) {
                log.push_back("caught outside the body");
            }
            co_return 0;
        }
        static task<int> before_the_edge(lines& log) {
            try {
                throw canceled();
            } catch (...) {
                log.push_back("caught inside the body");
            }
            co_return 1;
        }
    };
    simulation sim;
    for (const bool later : {false, true}) {
        lines log;
        CHECK(sim.run(as_outcome(program::outer(later, log))).is_stopped());
        CHECK(log == lines{"~outer"});
        CHECK_THROWS_AS(sim.run(program::outer(later, log)), canceled);
    }
    CHECK(sim.run(as_outcome(program::throws_derived())).is_stopped());
    lines log;
    CHECK(sim.run(program::before_the_edge(log)) == 1);
    CHECK(log == lines{"caught inside the body"});
}

TEST_CASE("a rejected that leaves a body is a refusal again, unchanged through any number of bodies",
          "[core][task][D2]") {
    struct program {
        static task<int> refuses(int depth, bool later) {
            if (later) co_await sleep_for(1ms);
            if (depth == 0) throw rejected(rejection(reject_reason::rate_limited, "api", 30ms));
            co_return co_await refuses(depth - 1, false);
        }
        static task<std::string> catches() {
            try {
                co_await refuses(2, false);
            } catch (const rejected& r) {
                co_return r.what();
            }
            co_return "";
        }
    };
    simulation sim;
    for (const bool later : {false, true}) {
        const outcome<int> o = sim.run(as_outcome(program::refuses(2, later)));
        REQUIRE(o.is_rejected());
        CHECK(o.rejection().reason == reject_reason::rate_limited);
        CHECK(o.rejection().who() == "api");
        CHECK(o.rejection().retry_after == 30ms);
    }
    CHECK(sim.run(program::catches()) == "api: rejected, rate limited");
    CHECK_THROWS_AS(sim.run(program::refuses(2, true)), rejected);
}

TEST_CASE("an error of a stopped task wins over the stop", "[core][task][D1]") {
    struct throws_when_stopped {
        static task<int> run() {
            auto waits = []() -> task<> { co_await sleep_for(1h); };
            const outcome<void> o = co_await cordon::detail::settle(waits());
            if (o.is_stopped()) throw std::runtime_error("while stopping");
            co_return 1;
        }
    };
    simulation sim;
    CHECK_THROWS_WITH(sim.run(stopped_at(1s, throws_when_stopped::run())).value(), "while stopping");
}

TEST_CASE("ten million ready awaits do not grow the stack", "[core][task][D11]") {
    constexpr int rounds = sanitized ? 300'000 : 10'000'000;
    struct program {
        static task<int> leaf(stack_range& stack) {
            stack.look();
            co_return 1;
        }
        static task<int> run(int n, stack_range& stack) {
            int sum = 0;
            for (int i = 0; i < n; ++i) sum += co_await leaf(stack);
            co_return sum;
        }
    };
    stack_range stack;
    CHECK(sync_wait(program::run(rounds, stack)) == rounds);
    CHECK(stack.used() < little);
}

TEST_CASE("no form of await that ends at once grows the stack", "[core][task][D11]") {
    constexpr int rounds = sanitized ? 30'000 : 300'000;
    struct program {
        static task<int> leaf(stack_range& stack, bool refuse) {
            stack.look();
            if (refuse) throw rejected(rejection(reject_reason::full));
            co_return 1;
        }
        static task<int> fails(stack_range& stack) { co_return co_await leaf(stack, true); }
        static task<> run(int n, stack_range& stack) {
            async_semaphore s(1);
            for (int i = 0; i < n; ++i) {
                co_await with_timeout(1h, leaf(stack, false));
                (void)co_await as_outcome(leaf(stack, false));
                (void)co_await with(as_outcome(with_timeout(1h, leaf(stack, false))), cordon::within(2h));
                co_await s.acquire();
                s.release();
                co_await sleep_for(0s);
            }
            for (int i = 0; i < n / 100; ++i) (void)co_await as_outcome(fails(stack));
        }
        static task<> hops(int n, stack_range& stack) {
            for (int i = 0; i < n; ++i) {
                stack.look();
                co_await this_task::yield();
                co_await with_timeout(1h, this_task::yield());
            }
        }
    };
    stack_range stack, hopping;
    sync_wait(program::run(rounds, stack));
    CHECK(stack.used() < little);
    sync_wait(program::hops(rounds / 10, hopping));
    CHECK(hopping.used() < little);
}

TEST_CASE("a chain of twenty thousand tasks starts, waits and ends on a small stack", "[core][task][D11]") {
    struct program {
        static task<int> chain(int depth, stack_range& stack, bool waits) {
            stack.look();
            if (depth == 0) {
                if (waits) co_await sleep_for(1ms);
                co_return 0;
            }
            const int below = co_await chain(depth - 1, stack, waits);
            stack.look();
            co_return below + 1;
        }
        static task<int> throwing(int depth, stack_range& stack, lines& log) {
            stack.look();
            if (depth == 0) throw std::runtime_error("bottom");
            const note n(log, "local");
            const int below = co_await throwing(depth - 1, stack, log);
            co_return below + 1;
        }
    };
    for (const bool waits : {false, true}) {
        stack_range stack;
        simulation sim;
        CHECK(sim.run(program::chain(20'000, stack, waits)) == 20'000);
        CHECK(stack.used() < little);
    }
    stack_range stack;
    lines log;
    simulation sim;
    CHECK_THROWS_WITH(sim.run(program::throwing(20'000, stack, log)), "bottom");
    CHECK(log.size() == 20'000);
    CHECK(stack.used() < little);
}

TEST_CASE("a chain of fifty thousand tasks is stopped on a small stack, innermost first", "[core][task][D1][D11]") {
    struct link {
        link(int d, int& n, bool& order, stack_range& s) : depth(d), next(&n), in_order(&order), stack(&s) {}
        ~link() {
            if (depth != (*next)++) *in_order = false;
            stack->look();
        }
        int depth;
        int* next;
        bool* in_order;
        stack_range* stack;
    };
    struct program {
        static task<> chain(int depth, int& next, bool& in_order, stack_range& stack) {
            const link local(depth, next, in_order, stack);
            if (depth == 0) co_await sleep_for(1h);
            else co_await chain(depth - 1, next, in_order, stack);
        }
        static task<> thrower(int depth, int& next, bool& in_order, stack_range& stack) {
            const link local(depth, next, in_order, stack);
            if (depth == 0) throw canceled();
            co_await thrower(depth - 1, next, in_order, stack);
        }
    };
    constexpr int depth = 50'000;
    int next = 0;
    bool in_order = true;
    stack_range stack;
    simulation sim;
    SECTION("by a stop that comes while it waits") {
        CHECK(sim.run(stopped_at(1s, program::chain(depth, next, in_order, stack))).is_stopped());
    }
    SECTION("by a deadline") {
        CHECK_THROWS_AS(sim.run(with_timeout(1s, program::chain(depth, next, in_order, stack))), cordon::timeout_error);
    }
    SECTION("by a stop that was there when it began to wait") {
        inplace_stop_source source;
        source.request_stop();
        const auto o =
            sim.run(as_outcome(with(program::chain(depth, next, in_order, stack), stop_on(source.get_token()))));
        CHECK(o.is_stopped());
    }
    SECTION("by an exception of the innermost body that says so") {
        CHECK(sim.run(as_outcome(program::thrower(depth, next, in_order, stack))).is_stopped());
    }
    CHECK(next == depth + 1);
    CHECK(in_order);
    CHECK(stack.used() < little);
}

TEST_CASE("a stop while one task of many waits leaves the others alone", "[core][task]") {
    struct program {
        static task<int> waits() {
            co_await sleep_for(2s);
            co_return 1;
        }
        static task<bool> run() {
            inplace_stop_source source;
            auto r = co_await cordon::when_all(as_outcome(with(waits(), stop_on(source.get_token()))), waits(),
                                               request_stop_after(1s, source), waits());
            co_return std::get<0>(r).is_stopped() && std::get<1>(r) + std::get<3>(r) == 2;
        }
    };
    simulation sim;
    CHECK(sim.run(program::run()));
}

TEST_CASE("the forms of an await that g++ 12 compiles right destroy each object once", "[core][task]") {
    struct counted {
        explicit counted(int& n) noexcept : alive(&n) { ++*alive; }
        counted(const counted& other) noexcept : alive(other.alive) { ++*alive; }
        counted(counted&& other) noexcept : alive(other.alive) { ++*alive; }
        counted& operator=(const counted&) = delete;
        ~counted() { --*alive; }
        int* alive;
    };
    struct options {  // an aggregate
        counted c;
        int n = 0;
    };
    struct program {
        static task<int> take(options o) {
            co_await this_task::yield();
            co_return *o.c.alive > 0 ? o.n : -1;
        }
        static task<int> take_counted(counted c, std::string text) {
            co_await this_task::yield();
            co_return *c.alive > 0 ? static_cast<int>(text.size()) : -1;
        }
        static task<int> all(int& alive, bool which) {
            options named{counted(alive), 1};
            int sum = co_await take(std::move(named));
            sum += co_await take_counted(counted(alive), std::string(40, 'x'));
            const counted captured(alive);
            const auto lambda = [captured](int n) -> task<int> {
                co_await this_task::yield();
                co_return *captured.alive > 0 ? n : -1;
            };
            sum += co_await lambda(100);
            const bool stop = co_await this_task::stop_requested();
            if (stop) sum = -1;
            if (which) sum += co_await take_counted(captured, "long enough not to be a small string");
            else sum += co_await take_counted(captured, "");
            for (int i = 0; i < 2; ++i) {
                const int more = co_await take_counted(captured, "x");
                sum += more;
            }
            co_return sum;
        }
        static task<int> stopped_inside(int& alive) {
            options named{counted(alive), 1};
            const counted local(alive);
            auto waits = [](options o, counted) -> task<int> {
                co_await sleep_for(1h);
                co_return o.n;
            };
            co_return co_await waits(std::move(named), counted(alive));
        }
    };
    int alive = 0;
    simulation sim;
    CHECK(sim.run(program::all(alive, true)) == 1 + 40 + 100 + 36 + 2);
    CHECK(alive == 0);
    CHECK(sim.run(program::all(alive, false)) == 1 + 40 + 100 + 2);
    CHECK(alive == 0);
    CHECK(sim.run(stopped_at(1s, program::stopped_inside(alive))).is_stopped());
    CHECK(alive == 0);
}

#if defined(__unix__)

TEST_CASE("awaiting a task that was moved from says so and terminates", "[core][task]") {
    struct program {
        static task<int> one() { co_return 1; }
        static task<> run() {
            auto first = one();
            const int n = co_await std::move(first);
            co_await std::move(first);
            (void)n;
        }
    };
    const std::string said = last_words([] { sync_wait(program::run()); });
    CHECK(says(said, "awaiting a task that has been moved from"));
}

TEST_CASE("sleeping without an executor says so and terminates", "[core][task]") {
    struct program {
        static task<> run(const cordon::context& none) { co_await sleep_for(1ms).with(none); }
    };
    const cordon::context none;
    const std::string said = last_words([&] { sync_wait(program::run(none)); });
    CHECK(says(said, "sleeping in a context without an executor"));
}

#endif

// A reference that is returned refers to what stays: not to a temporary that was made of the operand.
template <class T, class U>
concept returns = requires(cordon::detail::task_promise<T>& p, U&& u) { p.return_value(std::forward<U>(u)); };
static_assert(returns<int&, int&> && returns<const int&, int&> && returns<const int&, const int&>);
static_assert(returns<std::exception&, std::runtime_error&>);
static_assert(!returns<const std::string&, const char (&)[2]> && !returns<const int&, long&> && !returns<const int&, int>);
static_assert(!returns<int&, const int&> && returns<std::string, const char (&)[2]>);

namespace {

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wreturn-type"
task<int> forgets_to_return(bool all_is_well) {
    co_await cordon::this_task::yield();
    if (all_is_well) co_return 1;
}
#pragma GCC diagnostic pop

template <class T, class U>
concept can_return = requires(typename task<T>::promise_type& p, U value) { p.return_value(std::move(value)); };

}  // namespace

TEST_CASE("a task that ends without the co_return it owes says where it was last", "[core][task]") {
    simulation sim;
    CHECK(sim.run(forgets_to_return(true)) == 1);
    const std::string words = last_words([] { simulation().run(forgets_to_return(false)); });
    CHECK(words.find("a task ended without a co_return, last seen at task.test.cpp:") != std::string::npos);
    CHECK(words.find("forgets_to_return") != std::string::npos);
}

TEST_CASE("a parameter can tell whether its task ended with a value", "[core][task]") {
    struct asks {
        explicit asks(std::vector<int>& l) : log(&l) {}
        asks(asks&& other) noexcept : log(std::exchange(other.log, nullptr)) {}
        asks& operator=(asks&&) = delete;
        ~asks() {
            if (log != nullptr) log->push_back(cordon::detail::interruptions_here().frames);
        }
        std::vector<int>* log;
    };
    enum class end { value, error, refusal, canceled, stop };
    struct program {
        static task<> run(asks, end how) {
            co_await this_task::yield();
            if (how == end::error) throw std::runtime_error("half way");
            if (how == end::refusal) throw rejected(rejection(reject_reason::full, "below"));
            if (how == end::canceled) throw canceled();
            if (how == end::stop) co_await this_task::stop();
        }
        static task<> all(std::vector<int>& log) {
            for (const end how : {end::value, end::error, end::refusal, end::canceled, end::stop})
                static_cast<void>(co_await as_outcome(run(asks(log), how)));
            static_cast<void>(run(asks(log), end::error));  // never started
        }
    };
    std::vector<int> log;
    sync_wait(program::all(log));
    CHECK(log == std::vector<int>{0, 1, 1, 1, 1, 0});
}

TEST_CASE("a task returns what converts to its type, and nothing that only an explicit constructor takes",
          "[core][task]") {
    static_assert(can_return<std::string, const char*> && can_return<long, int> &&
                  can_return<std::unique_ptr<int>, std::unique_ptr<int>>);
    static_assert(!can_return<std::vector<int>, std::size_t> && !can_return<std::unique_ptr<int>, int*> &&
                  !can_return<std::chrono::seconds, int>);
    SUCCEED();
}

TEST_CASE("a task may give a type that is local to the coroutine around it", "[core][task]") {
    const auto outer = []() -> task<int> {
        struct reply {
            int status;
        };
        int asked = 0;
        auto ask = [&]() -> task<reply> { co_return reply{++asked < 3 ? 503 : 200}; };   // g++ 12 once crashed on this
        const reply first = co_await ask();
        co_return first.status;
    };
    CHECK(simulation().run(outer()) == 503);
}
