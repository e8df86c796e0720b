// SPDX-License-Identifier: MIT
#include <cordon/scope/with.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <fstream>
#include <memory>
#include <optional>
#include <random>
#include <source_location>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::cancel_scope;
using cordon::canceled;
using cordon::clock;
using cordon::context_key;
using cordon::deadline;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::sleep_for;
using cordon::stop_kind;
using cordon::stop_on;
using cordon::stop_reason;
using cordon::task;
using cordon::timeout_error;
using cordon::until;
using cordon::with;
using cordon::with_timeout;
using cordon::within;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

constexpr auto longest = (std::chrono::nanoseconds::max)();

std::size_t armed_timers() { return simulation::current()->armed_timers(); }

/// Runs `body()`, which is a coroutine, in virtual time.
template <class F>
void simulate(F body, std::uint64_t seed = 0) {
    simulation sim(seed);
    sim.run(body());
    CHECK(sim.armed_timers() == 0);
}

task<int> give(int n) { co_return n; }
task<int> give_after(std::chrono::nanoseconds d, int n) {
    co_await sleep_for(d);
    co_return n;
}
task<> request_stop_after(std::chrono::nanoseconds d, inplace_stop_source& source, int code = 0) {
    co_await sleep_for(d);
    source.request_stop(code);
}

/// Tells, when it dies, what stopped the task that it is a local of.
class last_look {
public:
    last_look(const cordon::context* ctx, stop_reason& seen) noexcept : ctx_(ctx), seen_(&seen) {}
    last_look(const last_look&) = delete;
    last_look& operator=(const last_look&) = delete;
    ~last_look() { *seen_ = ctx_->reason(); }

private:
    const cordon::context* ctx_;
    stop_reason* seen_;
};
task<int> waits_and_looks(std::chrono::nanoseconds d, stop_reason& seen) {
    const last_look look(co_await this_task::context(), seen);
    co_await sleep_for(d);
    co_return 1;
}

/// Does something in a timer of its own, at a given time.
class at_time : private cordon::timer {
public:
    at_time(clock::time_point t, async_semaphore& s) noexcept : timer(&at_time::fired), semaphore_(&s) {
        when = t;
        simulation::current()->timers().arm(*this);
    }
    ~at_time() { simulation::current()->timers().cancel(*this); }

private:
    static void fired(cordon::timer& t) noexcept { static_cast<at_time&>(t).semaphore_->release(); }
    async_semaphore* semaphore_;
};

}  // namespace

// Deadlines.

TEST_CASE("an operation that is ready needs no timer and keeps its value, whatever deadline lies ahead",
          "[scope][with][TO-02][X5]") {
    simulate([]() -> task<> {
        for (const std::chrono::nanoseconds d : {std::chrono::nanoseconds(1h), 1ns, longest}) {
            const int n = co_await with_timeout(d, give(4));
            CHECK(n == 4);
            CHECK(armed_timers() == 0);
            async_semaphore s(1);
            co_await with(s.acquire(), within(d));
            CHECK(s.stats().available == 0);
            CHECK(armed_timers() == 0);
        }
    });
}

TEST_CASE("an operation that ends before its deadline gives its value and leaves no timer", "[scope][with]") {
    simulate([]() -> task<> {
        const auto begin = clock::now();
        const int five = co_await with_timeout(2s, give_after(1s, 5));
        CHECK(five == 5);
        CHECK(clock::now() - begin == 1s);
        CHECK(armed_timers() == 0);
        const int six = co_await with(give_after(1s, 6), until(deadline::after(2s)));
        CHECK(six == 6);
        CHECK(armed_timers() == 0);
    });
}

TEST_CASE("a deadline that passes first stops the operation, waits for it, and is an error",
          "[scope][with][C-007][C-008][C-015]") {
    simulate([]() -> task<> {
        const auto begin = clock::now();
        stop_reason why;
        std::string said;
        std::error_code code;
        const auto line = std::source_location::current().line() + 2;
        try {
            co_await with_timeout(10ms, waits_and_looks(1h, why));
        } catch (const timeout_error& e) {
            said = e.what();
            code = e.code();
        }
        CHECK(clock::now() - begin == 10ms);
        CHECK(code == std::errc::timed_out);
        CHECK(code != std::errc::operation_canceled);
        const std::string place = std::string(std::source_location::current().file_name()) + ":" + std::to_string(line);
        CHECK(said.find(place) != std::string::npos);
        CHECK(why.kind == stop_kind::deadline);
        CHECK(why.where.line() == line);
    });
}

TEST_CASE("within, until and with_timeout each say where they were written", "[scope][with][C-008]") {
    simulate([]() -> task<> {
        std::vector<unsigned> lines, said;
        const auto note = [&said](const outcome<int>& o) {
            try {
                std::rethrow_exception(o.error());
            } catch (const timeout_error& e) {
                said.push_back(e.where().line());
            }
        };
        lines.push_back(std::source_location::current().line() + 1);
        const outcome<int> a = co_await as_outcome(with_timeout(1ms, give_after(1s, 1)));
        lines.push_back(std::source_location::current().line() + 1);
        const outcome<int> b = co_await as_outcome(with(give_after(1s, 1), within(1ms)));
        lines.push_back(std::source_location::current().line() + 1);
        const outcome<int> c = co_await as_outcome(with(give_after(1s, 1), until(deadline::after(1ms))));
        note(a);
        note(b);
        note(c);
        CHECK(said == lines);
    });
}

TEST_CASE("with a deadline that has passed an operation is not started, ready or not", "[scope][with][C-007][C-008][X5]") {
    simulate([]() -> task<> {
        bool started = false;
        auto notes = [](bool& ran) -> task<> {
            ran = true;
            co_return;
        };
        async_semaphore free_permit(1);
        const auto begin = clock::now();
        for (const std::chrono::nanoseconds d : {0ns, -1ns, -std::chrono::nanoseconds(1h),
                                                 (std::chrono::nanoseconds::min)()}) {
            const outcome<void> o = co_await as_outcome(with_timeout(d, notes(started)));
            CHECK(o.is_error());
            const outcome<void> permit = co_await as_outcome(with_timeout(d, free_permit.acquire()));
            CHECK(permit.is_error());
        }
        const outcome<void> until_now = co_await as_outcome(with(notes(started), until(deadline::at(begin))));
        CHECK(until_now.is_error());
        CHECK_FALSE(started);
        CHECK(free_permit.stats().available == 1);
        CHECK(clock::now() == begin);
        CHECK(armed_timers() == 0);
        co_await with_timeout(1ns, notes(started));
        CHECK(started);
    });
}

namespace {

/// What is in force where it runs: asking for the token connects the scopes above, as a wait would.
struct in_force {
    std::size_t timers = 0;
    deadline until;
};
task<in_force> look() {
    in_force seen;
    seen.until = co_await this_task::deadline();
    const cordon::inplace_stop_token token = co_await this_task::stop_token();
    (void)token;
    seen.timers = armed_timers();
    co_return seen;
}

}  // namespace

TEST_CASE("a timeout that is infinite or absent arms no timer", "[scope][with][TO-02][X5]") {
    simulate([]() -> task<> {
        const in_force absent = co_await look();
        CHECK(absent.timers == 0);
        const in_force infinite = co_await with_timeout(longest, look());
        CHECK(infinite.timers == 0);
        CHECK(infinite.until.is_never());
        const in_force huge = co_await with(look(), within((std::chrono::hours::max)()), until(deadline::never()));
        CHECK(huge.timers == 0);
        CHECK(huge.until.is_never());
        const int three = co_await with_timeout(longest, give_after(1s, 3));
        CHECK(three == 3);
    });
}

TEST_CASE("of nested deadlines the earliest counts, and a later one arms no timer", "[scope][with][TO-17][C-010][X5]") {
    simulate([]() -> task<> {
        const auto in_one_second = clock::now() + 1s;
        const in_force one = co_await with(look(), within(1s));
        CHECK(one.timers == 1);
        CHECK(one.until.time() == in_one_second);
        const in_force inner_later = co_await with(look(), within(1s), within(2s));
        CHECK(inner_later.timers == 1);
        CHECK(inner_later.until.time() == in_one_second);
        const in_force equal = co_await with(look(), within(1s), within(1s));
        CHECK(equal.timers == 1);
        const in_force inner_earlier = co_await with(look(), within(2s), within(1s));
        CHECK(inner_earlier.timers == 2);
        CHECK(inner_earlier.until.time() == in_one_second);
        const in_force many = co_await with(look(), within(3s), within(1s), within(2s), until(deadline::never()));
        CHECK(many.timers == 2);
        CHECK(many.until.time() == in_one_second);
        CHECK(armed_timers() == 0);
    });
}

TEST_CASE("a timer is armed by the first operation that really waits, and is gone when the scope ends",
          "[scope][with]") {
    struct program {
        static task<> run() {
            CHECK(armed_timers() == 0);
            co_await sleep_for(0s);
            CHECK(armed_timers() == 0);
            co_await sleep_for(1ms);
            CHECK(armed_timers() == 1);
        }
    };
    simulate([]() -> task<> {
        co_await with_timeout(1h, program::run());
        CHECK(armed_timers() == 0);
    });
}

TEST_CASE("an inner deadline ends the inner operation alone, the outer one is in force again after it",
          "[scope][with][C-011][TO-05][TO-14]") {
    struct program {
        static task<> run(stop_reason& why) {
            const deadline before = co_await this_task::deadline();
            const cordon::context* const ctx = co_await this_task::context();
            const auto begin = clock::now();
            const outcome<int> o = co_await as_outcome(with_timeout(100ms, waits_and_looks(1s, why)));
            CHECK(o.is_error());
            CHECK(clock::now() - begin == 100ms);
            CHECK(clock::now() - begin < 150ms);
            const deadline after = co_await this_task::deadline();
            const bool stop = co_await this_task::stop_requested();
            CHECK(after == before);
            CHECK(after.remaining() == 400ms);
            CHECK_FALSE(stop);
            const cordon::context* const same = co_await this_task::context();
            CHECK(same == ctx);
            co_await sleep_for(399ms);
        }
    };
    simulate([]() -> task<> {
        stop_reason why;
        co_await with_timeout(500ms, program::run(why));
        CHECK(why.kind == stop_kind::deadline);
    });
}

TEST_CASE("an outer deadline goes through an inner timeout, and the error is the outer one's", "[scope][with][TO-14]") {
    struct program {
        static task<int> run(int& executions, bool& resumed) {
            ++executions;
            const outcome<int> o = co_await as_outcome(with_timeout(1s, give_after(2s, 1)));
            resumed = true;
            co_return o.has_value() ? 1 : 2;
        }
    };
    simulate([]() -> task<> {
        int executions = 0;
        bool resumed = false;
        const auto begin = clock::now();
        unsigned set_at = 0;
        const auto line = std::source_location::current().line() + 2;
        try {
            co_await with_timeout(200ms, program::run(executions, resumed));
        } catch (const timeout_error& e) {
            set_at = e.where().line();
        }
        CHECK(clock::now() - begin == 200ms);
        CHECK(set_at == line);
        CHECK(executions == 1);
        CHECK_FALSE(resumed);
        CHECK(armed_timers() == 0);
    });
}

TEST_CASE("the caller's deadline ends a call as exceeded, after exactly one execution", "[scope][with][TO-15]") {
    struct program {
        static task<int> call(int& executions) {
            ++executions;
            co_return co_await give_after(1s, 1);
        }
        static task<int> caller(int& executions) { co_return co_await call(executions); }
    };
    simulate([]() -> task<> {
        int executions = 0;
        const outcome<int> o = co_await as_outcome(with(program::caller(executions), until(deadline::after(100ms))));
        REQUIRE(o.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(o.error()), timeout_error);
        CHECK(executions == 1);
    });
}

TEST_CASE("a timeout counts from when the operation starts, an absolute deadline does not", "[scope][with]") {
    simulate([]() -> task<> {
        auto relative = with_timeout(10ms, give_after(1h, 1));
        auto absolute = with(give_after(1h, 1), until(deadline::after(10ms)));
        co_await sleep_for(1min);
        const auto begin = clock::now();
        const outcome<int> r = co_await as_outcome(std::move(relative));
        CHECK(r.is_error());
        CHECK(clock::now() - begin == 10ms);
        const outcome<int> a = co_await as_outcome(std::move(absolute));
        CHECK(a.is_error());
        CHECK(clock::now() - begin == 10ms);
    });
}

TEST_CASE("a timeout is computed for each call from its context", "[scope][with][TO-06]") {
    static constexpr context_key<std::chrono::milliseconds> limit{"limit"};
    struct program {
        static task<clock::duration> call() {
            const std::chrono::milliseconds* const own = co_await this_task::get(limit);
            std::chrono::milliseconds d = 30ms;  // the default
            if (own != nullptr) d = *own;
            const auto begin = clock::now();
            const outcome<int> o = co_await as_outcome(with_timeout(d, give_after(1h, 1)));
            CHECK(o.is_error());
            co_return clock::now() - begin;
        }
        static task<clock::duration> half_of_what_is_left() {
            const deadline d = co_await this_task::deadline();
            const auto begin = clock::now();
            const outcome<int> o = co_await as_outcome(with(give_after(1h, 1), until(d.less(d.remaining() / 2))));
            CHECK(o.is_error());
            co_return clock::now() - begin;
        }
    };
    simulate([]() -> task<> {
        const auto by_default = co_await program::call();
        CHECK(by_default == 30ms);
        const auto by_value = co_await with(program::call(), limit(70ms));
        CHECK(by_value == 70ms);
        const auto by_deadline = co_await with_timeout(80ms, program::half_of_what_is_left());
        CHECK(by_deadline == 40ms);
    });
}

TEST_CASE("an operation that completes at the tick of its deadline wins if it was complete when the timer is processed",
          "[scope][with][TO-18]") {
    struct program {
        static task<int> takes(async_semaphore& s) {
            co_await s.acquire();
            co_return 1;
        }
        /// How it ends if the permit is given at the tick of the deadline, by a timer that was armed before or after.
        static task<outcome<int>> tie(async_semaphore& s, bool permit_first) {
            const auto tick = clock::now() + 10ms;
            if (permit_first) {
                const at_time release(tick, s);
                co_return co_await as_outcome(with(takes(s), until(deadline::at(tick))));
            }
            auto timed = [](async_semaphore& sem, clock::time_point t) -> task<int> {
                const cordon::inplace_stop_token armed = co_await this_task::stop_token();
                (void)armed;
                const at_time release(t, sem);
                co_return co_await takes(sem);
            };
            co_return co_await as_outcome(with(timed(s, tick), until(deadline::at(tick))));
        }
        static task<> run() {
            async_semaphore first(0), second(0);
            const outcome<int> value = co_await tie(first, true);
            CHECK(value.has_value());
            CHECK(first.stats().available == 0);
            const outcome<int> late = co_await tie(second, false);
            CHECK(late.is_error());
            CHECK(second.stats().waiting == 0);
            const outcome<int> own_timer = co_await as_outcome(with_timeout(10ms, give_after(10ms, 1)));
            CHECK(own_timer.is_error());
            const outcome<int> before = co_await as_outcome(with_timeout(10ms, give_after(10ms - 1ns, 1)));
            CHECK(before.has_value());
        }
    };
    for (std::uint64_t seed = 0; seed < 200; ++seed) simulate([]() -> task<> { co_await program::run(); }, seed);
}

TEST_CASE("a value or an error that is there when a timed-out operation ends is kept", "[scope][with][D1]") {
    struct program {
        /// Ignores the stop: what it waits for is shielded.
        static task<int> ignores(bool fails) {
            co_await cordon::shield(sleep_for(50ms), 1h);
            if (fails) throw std::runtime_error("late");
            co_return 8;
        }
    };
    simulate([]() -> task<> {
        const auto begin = clock::now();
        const int eight = co_await with_timeout(10ms, program::ignores(false));
        CHECK(eight == 8);
        CHECK(clock::now() - begin == 50ms);
        const outcome<int> o = co_await as_outcome(with_timeout(10ms, program::ignores(true)));
        REQUIRE(o.is_error());
        CHECK_THROWS_WITH(std::rethrow_exception(o.error()), "late");
    });
}

TEST_CASE("a timed-out operation that ignores the stop for a while is waited for, and then reported as timed out",
          "[scope][with][C-075][TO-07]") {
    struct program {
        static task<> stubborn(bool& ended) {
            co_await cordon::shield(sleep_for(50ms), 1h);
            ended = true;
            co_await sleep_for(1h);
        }
    };
    simulate([]() -> task<> {
        bool ended = false;
        const auto begin = clock::now();
        const outcome<void> o = co_await as_outcome(with_timeout(10ms, program::stubborn(ended)));
        CHECK(clock::now() - begin == 50ms);
        CHECK(ended);
        REQUIRE(o.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(o.error()), timeout_error);
    });
}

TEST_CASE("errors and refusals pass through unchanged", "[scope][with][D2]") {
    struct program {
        static task<int> fails(std::exception_ptr e) {
            co_await sleep_for(1ms);
            std::rethrow_exception(e);
        }
        static task<int> refuses() {
            co_await sleep_for(1ms);
            throw cordon::rejected(cordon::rejection(cordon::reject_reason::full, "queue", 5ms));
        }
    };
    simulate([]() -> task<> {
        const auto error = std::make_exception_ptr(std::runtime_error("broken"));
        const outcome<int> e = co_await as_outcome(with_timeout(1s, program::fails(error)));
        CHECK(e.error() == error);
        const outcome<int> r = co_await as_outcome(with_timeout(1s, program::refuses()));
        REQUIRE(r.is_rejected());
        CHECK(r.rejection().who() == "queue");
        CHECK(r.rejection().retry_after == 5ms);
        CHECK(armed_timers() == 0);
    });
}

// Stops.

TEST_CASE("a caller's stop through a timeout is a stop, not a timeout, and carries the caller's reason",
          "[scope][with][TO-03][TO-04][C-032][C-043][X6]") {
    simulate([]() -> task<> {
        inplace_stop_source source;
        stop_reason why;
        const auto begin = clock::now();
        auto call = with(with_timeout(1h, waits_and_looks(2h, why)), stop_on(source.get_token()));
        auto both = co_await cordon::when_all(as_outcome(std::move(call)), request_stop_after(1s, source, 77));
        CHECK(std::get<0>(both).is_stopped());
        CHECK(clock::now() - begin == 1s);
        CHECK(why.kind == stop_kind::requested);
        CHECK(why.code == 77);
        CHECK(armed_timers() == 0);
    });
}

TEST_CASE("a timeout that is exceeded stays so when the scope around is stopped after it", "[scope][with][C-044][X6]") {
    struct stops_when_unwound {
        inplace_stop_source& source;
        ~stops_when_unwound() { source.request_stop(5); }
    };
    struct program {
        static task<> run(inplace_stop_source& source, stop_reason& why) {
            const last_look look(co_await this_task::context(), why);
            const stops_when_unwound parent{source};
            co_await sleep_for(1s);
        }
    };
    simulate([]() -> task<> {
        inplace_stop_source source;
        stop_reason why;
        auto timed = as_outcome(with_timeout(1ns, program::run(source, why)));
        const outcome<outcome<void>> o = co_await as_outcome(with(std::move(timed), stop_on(source.get_token())));
        CHECK(source.reason().code == 5);
        CHECK(why.kind == stop_kind::deadline);
        REQUIRE(o.has_value());
        CHECK(o->is_error());
    });
}

TEST_CASE("below a context that is stopped an operation that waits is stopped at once, one that is ready is not",
          "[scope][with][C-030][C-012]") {
    simulate([]() -> task<> {
        inplace_stop_source source;
        source.request_stop(4);
        stop_reason why;
        const auto begin = clock::now();
        auto waits = with(with_timeout(1h, waits_and_looks(1s, why)), stop_on(source.get_token()));
        const outcome<int> o = co_await as_outcome(std::move(waits));
        CHECK(o.is_stopped());
        CHECK(clock::now() == begin);
        CHECK(why.code == 4);
        auto past = with(with_timeout(-1s, waits_and_looks(1s, why)), stop_on(source.get_token()));
        const outcome<int> p = co_await as_outcome(std::move(past));
        CHECK(p.is_stopped());  // the parent wins over a deadline that has passed
        CHECK(why.kind == stop_kind::requested);
        const outcome<int> v = co_await as_outcome(with(give(2), stop_on(source.get_token())));
        CHECK(v.has_value());
    });
}

TEST_CASE("whichever of several tokens stops first stops the operation, and none keeps a trace", "[scope][with][X12]") {
    simulate([]() -> task<> {
        for (const int first : {1, 2, 3}) {
            inplace_stop_source a, b;
            std::stop_source host;
            stop_reason why;
            auto op = with(waits_and_looks(1h, why), stop_on(a.get_token()), stop_on(host.get_token()),
                           stop_on(b.get_token()));
            auto stops = [&a, &b, &host](int which) -> task<> {
                co_await sleep_for(1s);
                if (which == 1) a.request_stop(1);
                if (which == 2) b.request_stop(2);
                if (which == 3) host.request_stop();
            };
            auto both = co_await cordon::when_all(as_outcome(std::move(op)), stops(first));
            CHECK(std::get<0>(both).is_stopped());
            CHECK(why.kind == stop_kind::requested);
            CHECK(why.code == (first == 3 ? 0 : first));
            CHECK(cordon::detail::attached(a) == 0);
            CHECK(cordon::detail::attached(b) == 0);
        }
    });
}

TEST_CASE("a token that never stops, and one that has stopped, work as well", "[scope][with]") {
    simulate([]() -> task<> {
        const int one = co_await with(give_after(1s, 1), stop_on(cordon::inplace_stop_token()));
        CHECK(one == 1);
        const int two = co_await with(give_after(1s, 2), stop_on(std::stop_token()));
        CHECK(two == 2);
        std::stop_source host;
        host.request_stop();
        const outcome<int> o = co_await as_outcome(with(give_after(1s, 3), stop_on(host.get_token())));
        CHECK(o.is_stopped());
        const outcome<int> v = co_await as_outcome(with(give(4), stop_on(host.get_token())));
        CHECK(v.has_value());
    });
}

TEST_CASE("a stop from a host's thread ends an operation on its own executor", "[scope][with][X16]") {
    struct program {
        static task<bool> waits(std::stop_token token, std::thread::id home) {
            const outcome<int> o = co_await as_outcome(with(give_after(1h, 1), stop_on(std::move(token))));
            co_return o.is_stopped() && std::this_thread::get_id() == home;
        }
    };
    for (int i = 0; i < 20; ++i) {
        std::stop_source host;
        std::thread other([&host, i] {
            if (i % 2 == 0) std::this_thread::sleep_for(std::chrono::microseconds(i * 50));  // lets some begin to wait
            host.request_stop();
        });
        const bool ok = cordon::sync_wait(program::waits(host.get_token(), std::this_thread::get_id()));
        other.join();
        if (!ok) FAIL("round " << i);
    }
}

// What else an operation can run with.

TEST_CASE("a named operation renames its task in dumps", "[scope][with]") {
    struct program {
        static task<std::string> name_of_the_only_task() {
            co_await this_task::yield();
            std::string names;
            for (const cordon::task_info& t : cordon::live_tasks()) names += t.name + ";";
            co_return names;
        }
    };
    simulate([]() -> task<> {
        std::string name = "db query";
        auto op = with(program::name_of_the_only_task(), cordon::named(name));
        name = "not this";  // the description has its own
        const std::string seen = co_await std::move(op);
        CHECK(seen.find("db query;") != std::string::npos);
        const std::string many(62, 'x');
        const std::string cut = co_await with(program::name_of_the_only_task(), cordon::named(many + "\u00e9\u00e9"));
        CHECK(cut.find(many + ";") != std::string::npos);  // between characters
        const std::string fits = co_await with(program::name_of_the_only_task(), cordon::named("y" + many));
        CHECK(fits.find("y" + many + ";") != std::string::npos);
    });
}

TEST_CASE("a whole context takes the place of the present one", "[scope][with][D3]") {
    static constexpr context_key<int> number{"number"};
    struct program {
        static task<int> number_in_force() {
            const int* n = co_await this_task::get(number);
            co_await sleep_for(1ms);
            co_return n == nullptr ? -1 : *n;
        }
        static task<> run() {
            const cordon::context* const ctx = co_await this_task::context();
            const cordon::context free = ctx->without_stop();
            inplace_stop_source source;
            source.request_stop();
            // The later attribute is further in: the stop stays outside.
            const int three = co_await with(number_in_force(), stop_on(source.get_token()), free);
            CHECK(three == 3);
            const outcome<int> o = co_await as_outcome(with(number_in_force(), free, stop_on(source.get_token())));
            CHECK(o.is_stopped());
            const int four = co_await with(number_in_force(), free, number(4));
            CHECK(four == 4);
            const cordon::context bare(ctx->executor());
            const int none = co_await with(number_in_force(), bare);
            CHECK(none == -1);
        }
    };
    simulate([]() -> task<> { co_await with(program::run(), number(3)); });
}

TEST_CASE("attributes may have names and be used again", "[scope][with]") {
    static constexpr context_key<std::string> key{"key"};
    simulate([]() -> task<> {
        auto value = []() -> task<std::string> { co_return *co_await this_task::get(key); };
        auto limit = within(1s);
        auto bound = key("text");
        for (int i = 0; i < 2; ++i) {
            const std::string text = co_await with(value(), limit, bound);
            CHECK(text == "text");
        }
    });
}

// Many layers.

namespace {

constexpr context_key<int> key_0{"0"}, key_1{"1"}, key_2{"2"}, key_3{"3"};
constexpr const context_key<int>* keys[] = {&key_0, &key_1, &key_2, &key_3};

/// Random layers of values, stops and timeouts, and what has to be seen below them.
struct layers {
    explicit layers(std::uint64_t seed, bool short_timeouts) : random(seed), short_ones(short_timeouts) {}
    int below(int n) { return static_cast<int>(random() % static_cast<unsigned>(n)); }

    std::mt19937_64 random;
    bool short_ones;
    std::array<inplace_stop_source, 40> sources;
    int used = 0;
    std::array<std::optional<int>, 4> expected;
    std::array<std::optional<int>, 4> seen;
    clock::duration shortest = clock::duration::max();
    stop_reason why;
    clock::time_point stopped_at;
};

/// Looks at everything as it dies.
struct leaf_look {
    leaf_look(const cordon::context* c, layers& l) noexcept : ctx(c), all(&l) {}
    leaf_look(const leaf_look&) = delete;
    ~leaf_look() {
        all->why = ctx->reason();
        all->stopped_at = clock::now();
        for (std::size_t i = 0; i < 4; ++i)
            if (const int* n = ctx->get(*keys[i])) all->seen[i] = *n;
    }
    const cordon::context* ctx;
    layers* all;
};

task<> layer(int depth, layers& l) {
    if (depth == 0) {
        const leaf_look look(co_await this_task::context(), l);
        co_await sleep_for(24h * 365);
        co_return;
    }
    const int what = l.below(l.short_ones ? 3 : 4);
    if (what == 0) {
        const auto which = static_cast<std::size_t>(l.below(4));
        l.expected[which] = depth;
        co_await with(layer(depth - 1, l), (*keys[which])(depth));
    } else if (what == 1) {
        const std::chrono::milliseconds limit = l.short_ones ? 100ms + l.below(100) * 1ms : 24h;
        l.shortest = (std::min)(l.shortest, clock::duration(limit));
        co_await with_timeout(limit, layer(depth - 1, l));
    } else if (what == 2) {
        const auto which = static_cast<std::size_t>(l.below(4));
        l.expected[which].reset();
        co_await with(layer(depth - 1, l), keys[which]->unset());
    } else {
        co_await with(layer(depth - 1, l), stop_on(l.sources[static_cast<std::size_t>(l.used++)].get_token()));
    }
}

}  // namespace

TEST_CASE("below thirty random layers a stop of any of them is seen at once, and all values are found",
          "[scope][with][C-025][C-020][C-022][X3][X8]") {
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        INFO("seed " << seed);
        layers l(seed, false);
        clock::time_point asked{};
        int code = 0;
        bool stopped = false;
        struct program {
            static task<> stop(layers& all, clock::time_point& when, int& which) {
                co_await sleep_for(1s);
                which = all.used == 0 ? 0 : all.below(all.used) + 1;
                when = clock::now();
                all.sources[static_cast<std::size_t>(which == 0 ? 39 : which - 1)].request_stop(which);
            }
            static task<> run(layers& all, clock::time_point& when, int& which, bool& ended) {
                auto op = with(layer(30, all), stop_on(all.sources[39].get_token()));
                auto both = co_await cordon::when_all(as_outcome(std::move(op)), stop(all, when, which));
                ended = std::get<0>(both).is_stopped();
            }
        };
        simulate([&]() -> task<> { co_await program::run(l, asked, code, stopped); }, seed);
        CHECK(stopped);
        CHECK(l.stopped_at == asked);
        CHECK(l.why.kind == stop_kind::requested);
        CHECK(l.why.code == code);
        CHECK(l.seen == l.expected);
        for (const auto& source : l.sources) CHECK(cordon::detail::attached(source) == 0);
    }
}

TEST_CASE("below thirty random layers with short timeouts the leaf sees its deadline exceeded, values intact",
          "[scope][with][C-026][C-022][X5]") {
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        INFO("seed " << seed);
        layers l(seed, true);
        clock::time_point begin{};
        bool timed_out = false;
        struct program {
            static task<> run(layers& all, clock::time_point& from, bool& error) {
                from = clock::now();
                const outcome<void> o = co_await as_outcome(with_timeout(1s, layer(30, all)));
                error = o.is_error();
            }
        };
        l.shortest = 1s;
        simulate([&]() -> task<> { co_await program::run(l, begin, timed_out); }, seed);
        CHECK(timed_out);
        CHECK(l.stopped_at - begin == l.shortest);
        CHECK(l.why.kind == stop_kind::deadline);
        CHECK(l.seen == l.expected);
    }
}

// Nothing is left behind.

namespace {

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif
#ifdef SANITIZED
constexpr int many = 20'000;  // several times slower
#else
constexpr int many = 1'000'000;
#endif

#if defined(__linux__)
std::size_t resident_kib() {
    std::ifstream statm("/proc/self/statm");
    std::size_t size = 0, resident = 0;
    statm >> size >> resident;
    return resident * 4;
}
#else
std::size_t resident_kib() { return 0; }
#endif

std::size_t attached_here(const cordon::context& ctx) {
    return cordon::detail::attached(cordon::detail::context_access::scope_of(ctx)->source());
}

}  // namespace

TEST_CASE("a million timeouts under one parent leave no child registered and no memory behind",
          "[scope][with][C-068][C-006][TO-07][X12]") {
    struct program {
        static task<> some(int n) {
            for (int i = 0; i < n; ++i) {
                co_await with_timeout(1h, this_task::yield());
                co_await with_timeout(1h, hop());
            }
        }
        static task<> hop() {
            const cordon::inplace_stop_token connected = co_await this_task::stop_token();
            (void)connected;
            co_await this_task::yield();
        }
        static task<> run(std::size_t& registered, std::size_t& timers, std::size_t& grown) {
            const cordon::context& ctx = *co_await this_task::context();
            co_await some(many / 100);
            const std::size_t before = resident_kib();
            co_await some(many / 2);
            grown = resident_kib() - before;
            registered = attached_here(ctx);
            timers = armed_timers();
        }
    };
    std::size_t registered = 1, timers = 1, grown = 0;
    simulation sim;
    const auto grows = [&] { sim.run(program::run(registered, timers, grown)); };
    grows();
    CHECK(registered == 0);
    CHECK(timers == 0);
    if (many == 1'000'000) CHECK(grown < 2'000);
}

TEST_CASE("a thousand timed-out calls leave nothing registered with one parent, whose stop reaches the next",
          "[scope][with][TO-07][C-006][X12]") {
    struct program {
        static task<> run(inplace_stop_source& source, int& timeouts, std::size_t& registered) {
            const cordon::context& ctx = *co_await this_task::context();
            for (int i = 0; i < 1'000; ++i) {
                const outcome<int> o = co_await as_outcome(with_timeout(1ms, give_after(1s, 1)));
                timeouts += o.is_error() ? 1 : 0;
            }
            registered = attached_here(ctx);
            auto both = co_await cordon::when_all(with_timeout(1h, give_after(2h, 1)), request_stop_after(1s, source));
            (void)both;
        }
    };
    simulate([]() -> task<> {
        inplace_stop_source source;
        int timeouts = 0;
        std::size_t registered = 1;
        const auto begin = clock::now();
        const outcome<void> o =
            co_await as_outcome(with(program::run(source, timeouts, registered), stop_on(source.get_token())));
        CHECK(o.is_stopped());
        CHECK(timeouts == 1'000);
        CHECK(registered == 0);
        CHECK(clock::now() - begin == 2s);
        CHECK(cordon::detail::attached(source) == 0);
    });
}

// Races.

TEST_CASE("a timeout that races a completion from another thread gives one of both, and loses no permit",
          "[scope][with][D4]") {
    const auto seed = std::random_device()();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    struct program {
        static task<bool> takes(async_semaphore& s, std::chrono::nanoseconds limit) {
            const outcome<void> o = co_await as_outcome(with_timeout(limit, s.acquire()));
            co_return o.has_value();
        }
    };
    for (int i = 0; i < 300; ++i) {
        // Real time, since the race is between real threads.
        async_semaphore s(0);
        const std::chrono::microseconds limit(random() % 60), wait(random() % 60);
        std::thread other([&s, wait] {
            const auto until_then = std::chrono::steady_clock::now() + wait;
            while (std::chrono::steady_clock::now() < until_then) std::this_thread::yield();
            s.release();
        });
        const bool taken = cordon::sync_wait(program::takes(s, limit));
        other.join();
        const auto stats = s.stats();
        if (stats.waiting != 0 || stats.available != (taken ? 0u : 1u)) FAIL("round " << i);
    }
}

TEST_CASE("a deadline noticed on one thread while its timer fires on another is one timeout", "[scope][with][D4]") {
    struct program {
        static task<bool> polls() {
            for (;;) {
                const bool stop = co_await this_task::stop_requested();
                if (stop) break;
            }
            co_await this_task::stop();
            co_return true;
        }
        static task<bool> run(cordon::executor_ref there) {
            const outcome<bool> o = co_await as_outcome(with_timeout(200us, cordon::on(there, polls())));
            co_return o.is_error();
        }
    };
    cordon::run_loop other;
    std::thread runs([&other] { other.run(); });
    // Real time, since the race is between real threads.
    for (int i = 0; i < 50; ++i)
        if (!cordon::sync_wait(program::run(cordon::executor_ref(other)))) FAIL("round " << i);
    other.stop();
    runs.join();
}

TEST_CASE("a description with a deadline can be assigned", "[scope][with]") {
    auto first = with_timeout(1ms, cordon::sleep_for(1h));
    first = with_timeout(2ms, cordon::sleep_for(1h));
    simulation sim;
    const auto before = sim.now();
    sim.run([](decltype(first) op) -> task<> { (void)co_await as_outcome(std::move(op)); }(std::move(first)));
    CHECK(sim.now() - before == 2ms);
}

TEST_CASE("a context is copied into what runs with it", "[scope][with]") {
    simulate([]() -> task<> {
        const auto apart = []() -> task<cordon::deadline> {
            const cordon::deadline d = co_await this_task::deadline();
            co_return d;
        };
        const auto describes = [&](const cordon::context& ctx) { return with(apart(), ctx.without_stop()); };
        const auto inner = [&]() -> task<cordon::deadline> {
            const cordon::context* const ctx = co_await this_task::context();
            auto op = describes(*ctx);
            const cordon::deadline d = co_await std::move(op);
            co_return d;
        };
        const cordon::deadline seen = co_await with_timeout(1s, inner());
        CHECK(seen.is_never());
    });
}
