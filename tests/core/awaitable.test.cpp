// SPDX-License-Identifier: MIT
#include <cordon/core/awaitable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::async_semaphore;
using cordon::cancel_scope;
using cordon::canceled;
using cordon::context;
using cordon::context_carrier;
using cordon::context_key;
using cordon::executor_ref;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::run_loop;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::sync_wait;
using cordon::task;
using cordon::with;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

constexpr context_key<int> number{"number"};

// A coroutine type of somebody else's, which knows nothing of this library, or only what `Base` adds.

struct knows_nothing {};

/// Says that it was stopped, and goes on with whoever awaited it.
struct takes_stops {
    bool was_stopped = false;
    std::coroutine_handle<> continuation = std::noop_coroutine();
    std::coroutine_handle<> unhandled_stopped() noexcept {
        was_stopped = true;
        return continuation;
    }
};
struct carries_and_takes_stops : context_carrier, takes_stops {};

template <class T, class Base = knows_nothing>
class host_task {
public:
    struct promise_type : Base {
        host_task get_return_object() { return host_task(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_always initial_suspend() const noexcept { return {}; }
        struct at_the_end {
            bool await_ready() const noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
                return h.promise().awaiting;
            }
            void await_resume() const noexcept {}
        };
        at_the_end final_suspend() const noexcept { return {}; }
        void return_value(T value) { result = std::move(value); }
        void unhandled_exception() { error = std::current_exception(); }

        std::optional<T> result;
        std::exception_ptr error;
        std::coroutine_handle<> awaiting = std::noop_coroutine();
    };

    host_task(host_task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
    ~host_task() {
        if (handle_) handle_.destroy();
    }

    [[nodiscard]] promise_type& promise() const { return handle_.promise(); }
    void start() const { handle_.resume(); }
    [[nodiscard]] bool done() const { return handle_.done(); }
    T get() const {
        if (promise().error) std::rethrow_exception(promise().error);
        return *promise().result;
    }

    bool await_ready() const noexcept { return false; }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h) {
        promise().awaiting = h;
        if constexpr (requires { promise().inherit_context(h.promise()); }) promise().inherit_context(h.promise());
        return handle_;
    }
    T await_resume() { return get(); }

private:
    explicit host_task(std::coroutine_handle<promise_type> h) : handle_(h) {}
    std::coroutine_handle<promise_type> handle_;
};

// Awaitables of somebody else's.

/// Resumes who awaits it when the host says so, wherever that is.
class host_event {
public:
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) noexcept { waiting_.store(h.address(), std::memory_order_release); }
    int await_resume() const {
        if (error_) std::rethrow_exception(error_);
        return 11;
    }
    [[nodiscard]] bool awaited() const noexcept { return waiting_.load(std::memory_order_acquire) != nullptr; }
    void fire(std::exception_ptr e = nullptr) {
        while (!awaited()) std::this_thread::yield();
        error_ = std::move(e);
        std::coroutine_handle<>::from_address(waiting_.exchange(nullptr)).resume();
    }

private:
    std::atomic<void*> waiting_{nullptr};
    std::exception_ptr error_;
};

/// Goes on with another thread at once.
struct on_a_new_thread {
    std::thread& runs;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) const {
        runs = std::thread([h] { h.resume(); });
    }
    void await_resume() const noexcept {}
};

struct by_member {
    int n;
    struct awaiter {
        int n;
        bool await_ready() const noexcept { return true; }
        void await_suspend(std::coroutine_handle<>) const noexcept {}
        int await_resume() const noexcept { return n; }
    };
    awaiter operator co_await() const noexcept { return {n}; }
};
struct by_function {
    std::string text;
};
struct text_awaiter {
    std::string* text;
    bool await_ready() const noexcept { return false; }
    bool await_suspend(std::coroutine_handle<>) const noexcept { return false; }
    std::string& await_resume() const noexcept { return *text; }
};
text_awaiter operator co_await(by_function& f) { return {&f.text}; }

struct move_only_result {
    bool await_ready() const noexcept { return true; }
    void await_suspend(std::coroutine_handle<>) const noexcept {}
    std::unique_ptr<int>&& await_resume() noexcept { return std::move(p); }
    std::unique_ptr<int> p = std::make_unique<int>(6);
};

struct throws_in_suspend {
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<>) const { throw std::runtime_error("cannot wait"); }
    void await_resume() const noexcept {}
};

static_assert(cordon::carries_context<task<int>::promise_type>);
static_assert(cordon::carries_context<host_task<int, context_carrier>::promise_type>);
static_assert(!cordon::carries_context<host_task<int>::promise_type>);

using acquire = decltype(std::declval<async_semaphore&>().acquire());
static_assert(cordon::awaitable<task<int>> && cordon::awaitable<acquire>);
static_assert(!cordon::awaitable<task<int>&> && !cordon::awaitable<acquire&>, "a named operation needs std::move");
static_assert(cordon::awaitable<host_event&> && cordon::awaitable<by_member> && cordon::awaitable<by_function&> &&
              cordon::awaitable<std::suspend_never> && cordon::awaitable<host_task<int>>);
static_assert(!cordon::awaitable<int> && !cordon::awaitable<std::string&>);
static_assert(std::is_same_v<cordon::await_result_t<task<std::string>>, std::string>);
static_assert(std::is_same_v<cordon::await_result_t<by_function&>, std::string&>);
static_assert(std::is_same_v<cordon::await_result_t<move_only_result>, std::unique_ptr<int>>);
static_assert(std::is_same_v<cordon::await_result_t<std::suspend_never>, void>);
static_assert(std::is_same_v<cordon::await_result_t<decltype(as_outcome(std::declval<task<int>>()))>, outcome<int>>);

task<int> give(int n) { co_return n; }
task<int> give_later(int n) {
    co_await sleep_for(1s);
    co_return n;
}
task<int> read_number() {
    const int* n = co_await this_task::get(number);
    co_return n == nullptr ? 0 : *n;
}

}  // namespace

// A host's coroutine awaits operations and tasks.

TEST_CASE("a host's coroutine without a context awaits what needs no timer", "[core][awaitable][D3]") {
    struct host {
        static host_task<int> run(async_semaphore& s) {
            co_await s.acquire();
            co_await s.acquire();
            co_return 1;
        }
    };
    SECTION("ready at once") {
        async_semaphore s(2);
        auto h = host::run(s);
        h.start();
        CHECK(h.done());
        CHECK(h.get() == 1);
    }
    SECTION("waits, then goes on") {
        async_semaphore s(1);
        auto h = host::run(s);
        h.start();
        CHECK_FALSE(h.done());
        CHECK(s.stats().waiting == 1);
        s.release();
        CHECK(h.done());
        CHECK(s.stats().waiting == 0);
        CHECK(s.stats().available == 0);
    }
}

TEST_CASE("a host's coroutine without a context is stopped by a token, on the thread that asks", "[core][awaitable][D3]") {
    struct host {
        static host_task<int> run(async_semaphore& s, cordon::inplace_stop_token token) {
            try {
                co_await with(s.acquire(), stop_on(token));
            } catch (const canceled&) {
                co_return -1;
            }
            co_return 1;
        }
    };
    async_semaphore s(0);
    inplace_stop_source source;
    auto h = host::run(s, source.get_token());
    h.start();
    CHECK_FALSE(h.done());
    source.request_stop();
    CHECK(h.done());
    CHECK(h.get() == -1);
    CHECK(s.stats().waiting == 0);
    CHECK(cordon::detail::attached(source) == 0);
}

TEST_CASE("a host's coroutine passes a context by hand", "[core][awaitable][D3]") {
    struct host {
        static host_task<int> run(const context& ctx) {
            co_await sleep_for(1s).with(ctx);
            const int a = co_await give_later(2).with(ctx);
            const int b = co_await with(read_number(), number(40)).with(ctx);
            co_return a + b;
        }
    };
    struct program {
        static task<int> run() {
            auto h = host::run(*co_await this_task::context());
            h.start();
            co_await sleep_for(3s);
            co_return h.done() ? h.get() : -1;
        }
    };
    simulation sim;
    CHECK(sim.run(program::run()) == 42);
}

TEST_CASE("context flows through a host's coroutines that carry it", "[core][awaitable][D3]") {
    struct host {
        static host_task<int, context_carrier> inner() {
            co_await sleep_for(1s);
            const int* n = co_await this_task::get(number);
            const int below = co_await read_number();
            co_return *n + below;
        }
        static host_task<int, context_carrier> outer(cordon::deadline& seen) {
            seen = co_await this_task::deadline();
            co_return co_await inner();
        }
    };
    struct program {
        static task<int> run(cordon::deadline& seen) {
            auto h = host::outer(seen);
            h.promise().set_context(*co_await this_task::context());
            h.start();
            co_await sleep_for(2s);
            co_return h.done() ? h.get() : -1;
        }
    };
    simulation sim;
    cordon::deadline seen;
    const cordon::deadline until = cordon::deadline::at(sim.now() + 1h);
    CHECK(sim.run(with(program::run(seen), cordon::until(until), number(21))) == 42);
    CHECK(seen == until);
}

TEST_CASE("a host's coroutine that no context was given to has an empty one", "[core][awaitable]") {
    struct host {
        static host_task<bool, context_carrier> run() {
            const int* n = co_await this_task::get(number);
            const bool stop = co_await this_task::stop_requested();
            const executor_ref e = co_await this_task::executor();
            co_return n == nullptr && !stop && !e;
        }
    };
    auto h = host::run();
    h.start();
    CHECK(h.get());
}

TEST_CASE("errors and refusals are thrown into a host's coroutine", "[core][awaitable][D2]") {
    struct program {
        static task<int> fails() {
            throw std::runtime_error("broken");
            co_return 1;
        }
        static task<int> refuses() {
            throw cordon::rejected(cordon::rejection(cordon::reject_reason::full, "queue"));
            co_return 1;
        }
    };
    struct host {
        static host_task<std::string> run(const context& ctx) {
            std::string said;
            try {
                co_await program::fails().with(ctx);
            } catch (const std::runtime_error& e) {
                said = e.what();
            }
            try {
                co_await program::refuses().with(ctx);
            } catch (const cordon::rejected& r) {
                said += std::string(", ") + r.what();
            }
            const outcome<int> o = co_await as_outcome(program::refuses()).with(ctx);
            said += o.is_rejected() ? ", rejected" : "";
            co_return said;
        }
    };
    const context none;
    auto h = host::run(none);
    h.start();
    CHECK(h.get() == "broken, queue: rejected, full, rejected");
}

TEST_CASE("a refusal that leaves a host's coroutine is a refusal to the task that awaits it", "[core][awaitable][D2]") {
    struct program {
        static host_task<int> refuses() {
            throw cordon::rejected(cordon::rejection(cordon::reject_reason::full, "queue"));
            co_return 1;
        }
        static task<bool> looks() {
            const outcome<int> o = co_await as_outcome(refuses());
            co_return o.is_rejected() && o.rejection().reason == cordon::reject_reason::full;
        }
    };
    CHECK(cordon::sync_wait(program::looks()));
}

TEST_CASE("a stop reaches a host's coroutine as the exception canceled, with its reason", "[core][awaitable][D1]") {
    struct host {
        static host_task<int> run(const context& ctx, cordon::stop_reason& why) {
            try {
                co_await give_later(1).with(ctx);
            } catch (const canceled& c) {
                why = c.reason();
                co_return -1;
            }
            co_return 1;
        }
        static host_task<int, context_carrier> carrying(cordon::stop_reason& why) {
            try {
                co_await give_later(1);
            } catch (const canceled& c) {
                why = c.reason();
                co_return -1;
            }
            co_return 1;
        }
    };
    struct program {
        static task<int> by_hand(cordon::stop_reason& why) {
            cancel_scope scope(*co_await this_task::context());
            auto h = host::run(scope.ctx(), why);
            h.start();
            co_await sleep_for(1ms);
            scope.request_stop(7);
            co_await sleep_for(1ms);
            co_return h.done() ? h.get() : 0;
        }
        static task<int> carried(cordon::stop_reason& why) {
            cancel_scope scope(*co_await this_task::context());
            auto h = host::carrying(why);
            h.promise().set_context(scope.ctx());
            h.start();
            co_await sleep_for(1ms);
            scope.request_stop(8);
            co_await sleep_for(1ms);
            co_return h.done() ? h.get() : 0;
        }
    };
    simulation sim;
    cordon::stop_reason why;
    CHECK(sim.run(program::by_hand(why)) == -1);
    CHECK(why.kind == cordon::stop_kind::requested);
    CHECK(why.code == 7);
    CHECK(sim.run(program::carried(why)) == -1);
    CHECK(why.code == 8);
}

TEST_CASE("a host's promise with unhandled_stopped is told of a stop, and nothing is thrown", "[core][awaitable][D1]") {
    struct host {
        static host_task<int, carries_and_takes_stops> run(bool& caught) {
            try {
                co_await give_later(1);
            } catch (...) {
                caught = true;
            }
            co_return 1;
        }
    };
    struct program {
        static task<bool> run(bool& caught) {
            cancel_scope scope(*co_await this_task::context());
            auto h = host::run(caught);
            h.promise().set_context(scope.ctx());
            h.start();
            co_await sleep_for(1ms);
            const bool before = h.promise().was_stopped;
            scope.request_stop();
            co_await sleep_for(1ms);
            co_return !before && h.promise().was_stopped && !h.done();
        }
    };
    simulation sim;
    bool caught = false;
    CHECK(sim.run(program::run(caught)));
    CHECK_FALSE(caught);
}

TEST_CASE("a stop that is pending when a host's coroutine begins to wait reaches it at once", "[core][awaitable][D1]") {
    struct host {
        static host_task<int, takes_stops> told(const context& ctx) {
            co_await give_later(1).with(ctx);
            co_return 1;
        }
        static host_task<int> thrown(const context& ctx) {
            co_await give_later(1).with(ctx);
            co_return 1;
        }
    };
    run_loop loop;
    cancel_scope scope{executor_ref(loop)};
    scope.request_stop(3);
    auto told = host::told(scope.ctx());
    told.start();
    loop.poll();
    CHECK(told.promise().was_stopped);
    auto thrown = host::thrown(scope.ctx());
    thrown.start();
    loop.poll();
    CHECK(thrown.done());
    CHECK_THROWS_AS(thrown.get(), canceled);
}

TEST_CASE("a host's coroutine awaits a million ready tasks without growing the stack", "[core][awaitable][D11]") {
    struct stack {
        [[gnu::noinline]] void look() {
            const auto here = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
            low = here < low ? here : low;
            high = here > high ? here : high;
        }
        std::uintptr_t low = UINTPTR_MAX, high = 0;
    };
    struct program {
        static task<int> leaf(stack& s) {
            s.look();
            co_return 1;
        }
    };
    struct host {
        static host_task<int> run(const context& ctx, stack& s, int n) {
            int sum = 0;
            for (int i = 0; i < n; ++i) sum += co_await program::leaf(s).with(ctx);
            co_return sum;
        }
    };
    const context none;
    stack s;
    auto h = host::run(none, s, 5'000);
    h.start();
    REQUIRE(h.done());
    REQUIRE(s.high - s.low < 64 * 1024);
    stack again;
    auto long_one = host::run(none, again, 1'000'000);
    long_one.start();
    CHECK(long_one.get() == 1'000'000);
    CHECK(again.high - again.low < 64 * 1024);
}

// A task awaits what a host has.

TEST_CASE("a task awaits any awaitable of a host, in each of its forms", "[core][awaitable]") {
    struct program {
        static task<int> run() {
            const int a = co_await by_member{1};  // gcc12-ok: trivially copyable
            by_function f{"text"};
            std::string& same = co_await f;
            if (&same != &f.text) co_return -1;
            const std::unique_ptr<int> p = co_await move_only_result();
            co_await std::suspend_never();
            co_return a + *p;
        }
    };
    CHECK(sync_wait(program::run()) == 7);
}

TEST_CASE("an exception of a host's awaitable is thrown into the task", "[core][awaitable]") {
    struct program {
        static task<std::string> run(host_event& e) {
            std::string said;
            try {
                co_await throws_in_suspend();
            } catch (const std::runtime_error& error) {
                said = error.what();
            }
            try {
                co_await e;
            } catch (const std::runtime_error& error) {
                said += std::string(", ") + error.what();
            }
            co_return said;
        }
        static task<> fire(host_event& e) {
            e.fire(std::make_exception_ptr(std::runtime_error("event failed")));
            co_return;
        }
        static task<std::string> both() {
            host_event e;
            std::string said;
            cordon::start_on(co_await this_task::executor(), run(e),
                             [&](outcome<std::string> o) { said = std::move(o).value(); });
            co_await sleep_for(1ms);
            co_await fire(e);
            co_await sleep_for(1ms);
            co_return said;
        }
    };
    simulation sim;
    CHECK(sim.run(program::both()) == "cannot wait, event failed");
}

TEST_CASE("a task awaits a host's coroutine, which awaits a task", "[core][awaitable][D11]") {
    struct host {
        static host_task<int> plain(int depth);
        static task<int> ours(int depth) {
            if (depth == 0) co_return 0;
            const int below = co_await host_task_of(depth - 1);
            co_return below + 1;
        }
        static host_task<int> host_task_of(int depth) {
            const context none;
            const int below = co_await ours(depth).with(none);
            co_return below + 1;
        }
    };
    CHECK(sync_wait(host::ours(100)) == 200);
}

TEST_CASE("a stop goes through a host's coroutines as canceled, and on up from them as a stop",
          "[core][awaitable][D1][D3]") {
    struct host {
        static host_task<int, context_carrier> reads() {
            const int* n = co_await this_task::get(number);
            co_await sleep_for(1s);
            co_return *n;
        }
        static host_task<int, context_carrier> fails() {
            co_await sleep_for(1s);
            throw std::runtime_error("broken");
        }
        static host_task<int, context_carrier> outer(bool& caught) {
            try {
                co_return co_await reads();
            } catch (const canceled&) {
                caught = true;
                throw;
            }
        }
    };
    struct program {
        static task<int> reads() { co_return co_await host::reads(); }
        static task<int> fails() { co_return co_await host::fails(); }
        static task<int> stopped(bool& caught, bool& resumed) {
            const outcome<int> o = co_await as_outcome(host::outer(caught));
            resumed = true;
            co_return o.has_value() ? 1 : 2;
        }
    };
    simulation sim;
    CHECK(sim.run(with(program::reads(), number(17))) == 17);
    CHECK_THROWS_WITH(sim.run(program::fails()), "broken");
    bool caught = false, resumed = false;
    const auto begin = sim.now();
    CHECK_THROWS_AS(sim.run(cordon::with_timeout(10ms, program::stopped(caught, resumed))), cordon::timeout_error);
    CHECK(sim.now() - begin == 10ms);
    CHECK(caught);
    CHECK_FALSE(resumed);
}

TEST_CASE("a task whose awaitable is resumed on another thread comes back to its own executor",
          "[core][awaitable][D5]") {
    struct program {
        static task<bool> run(host_event& e, std::thread::id home, executor_ref loop) {
            const int n = co_await e;
            co_return n == 11 && std::this_thread::get_id() == home && loop.is_current();
        }
        static task<bool> all(host_event& e, std::thread::id home) {
            const executor_ref loop = co_await this_task::executor();
            bool ok = true;
            for (int i = 0; i < 100; ++i) ok = co_await run(e, home, loop) && ok;
            co_return ok;
        }
    };
    host_event e;
    std::thread other([&e] {
        for (int i = 0; i < 100; ++i) e.fire();
    });
    CHECK(sync_wait(program::all(e, std::this_thread::get_id())));
    other.join();
}

TEST_CASE("an awaitable that goes on at once with another thread is no race", "[core][awaitable][D5]") {
    struct program {
        static task<int> run(std::thread::id home) {
            int at_home = 0;
            for (int i = 0; i < 100; ++i) {
                std::thread runs;
                co_await on_a_new_thread{runs};  // gcc12-ok: trivially copyable
                at_home += std::this_thread::get_id() == home ? 1 : 0;
                runs.join();
            }
            co_return at_home;
        }
    };
    CHECK(sync_wait(program::run(std::this_thread::get_id())) == 100);
}

TEST_CASE("a host's awaitable is no cancel point: its value is kept, and the stop comes after it",
          "[core][awaitable][D1]") {
    struct program {
        static task<> run(host_event& e, std::vector<int>& log) {
            log.push_back(co_await e);
            co_await sleep_for(1h);
            log.push_back(-1);
        }
        static task<bool> all(std::vector<int>& log) {
            inplace_stop_source source;
            host_event e;
            bool stopped = false;
            cordon::start_on(co_await this_task::executor(), with(run(e, log), stop_on(source.get_token())),
                             [&](const outcome<void>& o) { stopped = o.is_stopped(); });
            co_await sleep_for(1s);
            source.request_stop();
            co_await sleep_for(1s);
            const bool waited = !stopped && log.empty();
            e.fire();
            co_await sleep_for(1s);
            co_return waited && stopped;
        }
    };
    simulation sim;
    std::vector<int> log;
    CHECK(sim.run(program::all(log)));
    CHECK(log == std::vector<int>{11});
}

// A context by hand.

TEST_CASE("an operation that is given a context runs with that one alone", "[core][awaitable][D3]") {
    struct program {
        static task<int> run(const context& other) {
            const int theirs = co_await read_number().with(other);
            const int ours = co_await read_number();
            co_return ours * 10 + theirs;
        }
        static task<bool> not_stopped(const context& other) {
            co_await sleep_for(1s).with(other);
            co_return true;
        }
    };
    simulation sim;
    const context other{executor_ref(sim)};
    CHECK(sim.run(with(program::run(other), number(4))) == 40);

    struct under_a_stop {
        static task<outcome<bool>> run() {
            inplace_stop_source source;
            source.request_stop();
            const context free = (co_await this_task::context())->without_stop();
            co_return co_await as_outcome(with(program::not_stopped(free), stop_on(source.get_token())));
        }
    };
    CHECK(sim.run(under_a_stop::run()).has_value());
}

TEST_CASE("an operation with a context of another executor brings the task back to its own", "[core][awaitable][D5]") {
    struct program {
        static task<bool> run(const context& there, std::thread::id home) {
            co_await sleep_for(1ms).with(there);  // long enough to be waiting before the other thread ends it
            const bool first = std::this_thread::get_id() == home;
            co_await with(sleep_for(1ms), there);
            co_return first && std::this_thread::get_id() == home;
        }
    };
    run_loop other;
    std::thread runs([&other] { other.run(); });
    const context there{executor_ref(other)};
    CHECK(sync_wait(program::run(there, std::this_thread::get_id())));
    other.stop();
    runs.join();
}

TEST_CASE("a future or a similar source of an operation is awaited as often as one likes", "[core][awaitable]") {
    struct source {
        [[nodiscard]] task<int> as_operation() const { return give(3); }
    };
    static_assert(cordon::awaitable<source&> && cordon::awaitable<const source&> && cordon::awaitable<source>);
    struct program {
        static task<int> run() {
            const source s;
            const int once = co_await s;
            const int twice = co_await with(s, cordon::within(1s));
            co_return once + twice;
        }
    };
    CHECK(sync_wait(program::run()) == 6);
}

TEST_CASE("a task's context flows into a host's coroutine that carries one, and its stop comes back as a stop",
          "[core][awaitable][D1][D3]") {
    struct program {
        static host_task<int, context_carrier> inside() {
            co_await sleep_for(5ms);
            const int* const n = co_await this_task::get(number);
            const cordon::deadline until = co_await this_task::deadline();
            CHECK(until.remaining() == 5ms);
            co_return n != nullptr ? *n : 0;
        }
        static host_task<int, context_carrier> sleeper() {
            co_await sleep_for(1h);
            co_return 0;
        }
    };
    simulation sim(3);
    sim.run([]() -> task<> {
        auto through = []() -> task<int> {
            const int n = co_await program::inside();
            co_return n;
        };
        const int seven = co_await with(through(), cordon::within(10ms), number(7));
        CHECK(seven == 7);

        auto sleeps = []() -> task<> { co_await program::sleeper(); };
        const outcome<void> late = co_await as_outcome(cordon::with_timeout(1s, sleeps()));
        CHECK(late.is_error());
        inplace_stop_source source;
        source.request_stop();
        const outcome<void> stopped = co_await as_outcome(with(sleeps(), stop_on(source.get_token())));
        CHECK(stopped.is_stopped());
    }());
}

TEST_CASE("a host's coroutine that is destroyed while it waits says so", "[core][awaitable]") {
    struct program {
        static host_task<int> run(async_semaphore& s) {
            co_await s.acquire();
            co_return 1;
        }
    };
    const std::string words = last_words([] {
        async_semaphore s(0);
        {
            auto waits = program::run(s);
            waits.start();
        }
    });
    CHECK(says(words, "a coroutine was destroyed while it waits"));
}

TEST_CASE("an operation with a context begins on the executor of that context", "[core][awaitable][A5]") {
    struct program {
        static task<bool> here(const run_loop& loop) { co_return loop.is_current(); }
        static host_task<bool> run(const context& ctx, const run_loop& loop) {
            const bool there = co_await here(loop).with(ctx);
            co_return there;
        }
    };
    run_loop loop;
    const context ctx{executor_ref(loop)};
    auto asks = program::run(ctx, loop);
    asks.start();
    CHECK_FALSE(asks.done());
    loop.poll();
    CHECK(asks.done());
    CHECK(asks.get());
}

TEST_CASE("a hook may end its own wait", "[core][awaitable]") {
    struct program {
        static host_task<int, context_carrier> run(cordon::completion<int>& c, int& stops) {
            const int n = 42;
            auto hook = [&c, &stops, n] {
                c.set_value(n);
                stops = n;
            };
            const int given = co_await c.wait(std::move(hook));
            co_return given;
        }
    };
    cordon::completion<int> c;
    cancel_scope scope;
    int stops = 0;
    auto waits = program::run(c, stops);
    waits.promise().set_context(scope.ctx());
    waits.start();
    scope.request_stop();
    CHECK(waits.done());
    CHECK(waits.get() == stops);
}
