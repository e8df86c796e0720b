// SPDX-License-Identifier: MIT
#include <cordon/scope/cancel_scope.hpp>

#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <source_location>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::cancel_scope;
using cordon::clock;
using cordon::context;
using cordon::deadline;
using cordon::executor_ref;
using cordon::inplace_stop_callback;
using cordon::run_loop;
using cordon::sleep_for;
using cordon::stop_kind;
using cordon::stop_reason;
using cordon::task;
using cordon::testing::simulation;

static_assert(!std::is_copy_constructible_v<cancel_scope> && !std::is_move_constructible_v<cancel_scope>);
static_assert(!std::is_convertible_v<deadline, cancel_scope> && !std::is_convertible_v<clock::duration, cancel_scope>);

std::size_t children_of(const cancel_scope& scope) {
    return cordon::detail::attached(cordon::detail::context_access::scope_of(scope.ctx())->source());
}

/// The executor of the simulation that runs.
executor_ref here() { return executor_ref(*simulation::current()); }

/// Runs `body(sim)`, which is a coroutine, in virtual time.
template <class F>
void simulate(F body) {
    simulation sim;
    sim.run(body(sim));
    CHECK(sim.armed_timers() == 0);
}

#if defined(__linux__)
int threads_of_this_process() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("Threads:")) return std::stoi(line.substr(8));
    return -1;
}
#endif

}  // namespace

TEST_CASE("a scope is stopped once, for the first reason", "[scope][cancel_scope][C-032][X1][X2]") {
    cancel_scope scope;
    CHECK_FALSE(scope.stop_requested());
    CHECK(scope.reason().kind == stop_kind::none);
    CHECK(scope.deadline().is_never());
    CHECK(scope.token().stop_possible());

    const auto line = std::source_location::current().line() + 1;
    CHECK(scope.request_stop(42));
    CHECK(scope.stop_requested());
    CHECK(scope.token().stop_requested());
    CHECK(scope.reason().kind == stop_kind::requested);
    CHECK(scope.reason().code == 42);
    CHECK(scope.reason().where.line() == line);
    CHECK(std::string_view(scope.reason().where.file_name()).ends_with("cancel_scope.test.cpp"));

    CHECK_FALSE(scope.request_stop(43));
    CHECK_FALSE(scope.request_stop(stop_reason{stop_kind::failure, 44, {}}));
    CHECK(scope.reason().code == 42);
}

TEST_CASE("a stop has reached the whole subtree, foreign wrappers included, when the request returns",
          "[scope][cancel_scope][C-002][X3]") {
    cancel_scope root;
    cancel_scope c1(root);
    cancel_scope foreign(c1.std_stop_token());  // only a std::stop_token is known of the parent
    cancel_scope c2(foreign);
    const std::stop_token outside = c2.std_stop_token();
    CHECK_FALSE(root.stop_requested());
    CHECK_FALSE(c1.stop_requested());
    CHECK_FALSE(foreign.stop_requested());
    CHECK_FALSE(c2.stop_requested());
    CHECK_FALSE(outside.stop_requested());
    c1.request_stop();
    CHECK_FALSE(root.stop_requested());
    CHECK(c1.stop_requested());
    CHECK(foreign.stop_requested());
    CHECK(c2.stop_requested());
    CHECK(outside.stop_requested());
}

TEST_CASE("a child that has ended, stopped, timed out or neither, is no longer registered with its parent",
          "[scope][cancel_scope][C-006][X12]") {
    simulate([](simulation& sim) -> task<> {
        cancel_scope parent(here());
        CHECK(children_of(parent) == 0);
        {
            cancel_scope child(parent);
            CHECK(children_of(parent) == 1);
            child.request_stop();
        }
        CHECK(children_of(parent) == 0);
        {
            cancel_scope child(parent, deadline::after(1s));
            CHECK(children_of(parent) == 1);
            CHECK(sim.armed_timers() == 1);
            child.request_stop();
        }
        CHECK(children_of(parent) == 0);
        CHECK(sim.armed_timers() == 0);
        {
            cancel_scope child(parent, deadline::after(1ms));
            CHECK(children_of(parent) == 1);
            co_await sleep_for(2ms);
            CHECK(child.stop_requested());
        }
        CHECK(children_of(parent) == 0);
        {
            const cancel_scope child(parent);
        }
        CHECK(children_of(parent) == 0);
        CHECK_FALSE(parent.stop_requested());
    });
}

TEST_CASE("a deadline stops its scope at its time, below a foreign wrapper and above a longer child too",
          "[scope][cancel_scope][C-007][C-008][X5]") {
    simulate([](simulation&) -> task<> {
        cancel_scope root(here());
        cancel_scope plain(root, deadline::after(1ms));
        cancel_scope wrapped(root.std_stop_token(), here(), deadline::after(1ms));
        cancel_scope longer_child(plain, deadline::after(1h));
        const auto all = {&plain, &wrapped, &longer_child};
        co_await sleep_for(1ms - 1ns);
        for (const cancel_scope* s : all) CHECK_FALSE(s->token().stop_requested());
        co_await sleep_for(1ns);
        for (const cancel_scope* s : all) {
            CHECK(s->token().stop_requested());  // the token does not look at the clock: a timer has fired
            CHECK(s->reason().kind == stop_kind::deadline);
            CHECK(std::string_view(s->reason().where.file_name()).ends_with("cancel_scope.test.cpp"));
        }
        CHECK_FALSE(root.stop_requested());
    });
}

TEST_CASE("a deadline that has passed, or passes now, has stopped its scope from the start, without a timer",
          "[scope][cancel_scope][C-007][C-008][X5]") {
    simulate([](simulation& sim) -> task<> {
        for (const deadline d : {deadline::after(0s), deadline::after(-1h), deadline::at(clock::now()),
                                 deadline::at((clock::time_point::min)())}) {
            const auto line = std::source_location::current().line() + 1;
            cancel_scope scope(here(), d);
            CHECK(scope.token().stop_requested());
            CHECK(scope.reason().kind == stop_kind::deadline);
            CHECK(scope.reason().where.line() == line);
            bool ran = false;
            const auto f = [&ran]() noexcept { ran = true; };
            const inplace_stop_callback callback(scope.token(), f);
            CHECK(ran);
        }
        CHECK(sim.armed_timers() == 0);
        co_return;
    });
    const cancel_scope without_executor(deadline::after(0s));
    CHECK(without_executor.token().stop_requested());
}

TEST_CASE("a deadline later than the inherited one changes nothing, and makes no timer",
          "[scope][cancel_scope][C-010][TO-17][X5]") {
    simulate([](simulation& sim) -> task<> {
        cancel_scope parent(here(), deadline::after(1s));
        CHECK(sim.armed_timers() == 1);
        const cancel_scope later(parent, deadline::after(2s)), equal(parent, parent.deadline()), never(parent);
        CHECK(sim.armed_timers() == 1);
        CHECK(later.deadline() == parent.deadline());
        CHECK(equal.deadline() == parent.deadline());
        CHECK(never.deadline() == parent.deadline());
        co_await sleep_for(1s);
        CHECK(later.reason().where.line() == parent.reason().where.line());
    });
}

TEST_CASE("a deadline earlier than the inherited one is the child's alone, and the parent lives on",
          "[scope][cancel_scope][C-011][X5]") {
    simulate([](simulation& sim) -> task<> {
        cancel_scope parent(here(), deadline::after(1s));
        const cancel_scope child(parent, deadline::after(10ms));
        CHECK(sim.armed_timers() == 2);
        CHECK(child.deadline() < parent.deadline());
        co_await sleep_for(10ms);
        CHECK(child.stop_requested());
        CHECK_FALSE(parent.stop_requested());
        CHECK(parent.deadline().remaining() == 990ms);
        co_await sleep_for(990ms);
        CHECK(parent.stop_requested());
        CHECK(child.reason().where.line() != parent.reason().where.line());
    });
}

TEST_CASE("below a stopped parent a child whose deadline has passed is stopped for the parent's reason",
          "[scope][cancel_scope][C-012][X5]") {
    SECTION("below a scope") {
        cancel_scope parent;
        parent.request_stop(5);
        const cancel_scope child(parent, deadline::after(-1s));
        CHECK(child.reason().kind == stop_kind::requested);
        CHECK(child.reason().code == 5);
    }
    SECTION("below a foreign token") {
        std::stop_source host;
        host.request_stop();
        const cancel_scope child(host.get_token(), deadline::after(-1s));
        CHECK(child.reason().kind == stop_kind::requested);
    }
    SECTION("below a foreign token, with an executor") {
        run_loop loop;
        std::stop_source host;
        host.request_stop();
        const cancel_scope child(host.get_token(), executor_ref(loop), deadline::after(-1s));
        CHECK(child.reason().kind == stop_kind::requested);
    }
}

TEST_CASE("a child of a stopped parent is born stopped, with the parent's reason", "[scope][cancel_scope][C-030][X2]") {
    cancel_scope parent;
    parent.request_stop(6);
    const cancel_scope child(parent), grandchild(parent.ctx());
    CHECK(child.reason().code == 6);
    CHECK(grandchild.reason().code == 6);
    CHECK(children_of(parent) == 0);
}

TEST_CASE("a child made while its parent is being stopped ends stopped, with exactly the parent's reason",
          "[scope][cancel_scope][C-031][X2][X4]") {
    for (int i = 1; i <= 200; ++i) {
        cancel_scope parent;
        std::atomic<bool> go{false};
        std::thread other([&] {
            while (!go.load(std::memory_order_acquire)) std::this_thread::yield();
            parent.request_stop(i);
        });
        go.store(true, std::memory_order_release);
        const cancel_scope child(parent), grandchild(parent.ctx(), deadline::after(1h));
        stop_reason seen;
        while ((seen = child.reason()).kind == stop_kind::none) std::this_thread::yield();
        other.join();
        if (seen.code != i || grandchild.reason().code != i || seen.kind != stop_kind::requested)
            FAIL("round " << i << ": " << seen.code << ", " << grandchild.reason().code);
    }
}

TEST_CASE("whoever stops first fixes the reason of the child",
          "[scope][cancel_scope][C-034][C-035][C-036][C-037][C-038][C-039][X2]") {
    cancel_scope parent;
    cancel_scope child(parent);
    SECTION("the parent, then the child") {
        parent.request_stop(1);
        CHECK_FALSE(child.request_stop(2));
        CHECK(child.reason().code == 1);
        CHECK(child.reason().where.line() == parent.reason().where.line());
    }
    SECTION("the child, then the parent") {
        child.request_stop(2);
        CHECK(parent.request_stop(1));
        CHECK(child.reason().code == 2);
        CHECK(parent.reason().code == 1);
    }
    SECTION("the parent with a reason, then the child without") {
        parent.request_stop(1);
        child.request_stop();
        CHECK(child.reason().code == 1);
    }
    SECTION("the child without a reason, then the parent with one") {
        child.request_stop();
        parent.request_stop(1);
        CHECK(child.reason().kind == stop_kind::requested);
        CHECK(child.reason().code == 0);
    }
    SECTION("the parent without a reason, then the child with one") {
        parent.request_stop();
        child.request_stop(2);
        CHECK(child.reason().kind == stop_kind::requested);
        CHECK(child.reason().code == 0);
    }
    SECTION("the child with a reason, then the parent without") {
        child.request_stop(2);
        parent.request_stop();
        CHECK(child.reason().code == 2);
    }
}

TEST_CASE("a deadline that is overtaken by a stop is not used", "[scope][cancel_scope][C-043][X6]") {
    simulate([](simulation&) -> task<> {
        cancel_scope own(here(), deadline::after(1s));
        cancel_scope parent(here());
        const cancel_scope by_parent(parent, deadline::after(1s));
        own.request_stop(3);
        parent.request_stop(4);
        co_await sleep_for(2s);
        CHECK(own.reason().kind == stop_kind::requested);
        CHECK(own.reason().code == 3);
        CHECK(by_parent.reason().kind == stop_kind::requested);
        CHECK(by_parent.reason().code == 4);
    });
}

TEST_CASE("a timeout of zero is exceeded, and stays so when the parent is stopped",
          "[scope][cancel_scope][C-044][X6]") {
    cancel_scope parent;
    const cancel_scope child(parent, deadline::after(0s));
    CHECK(child.reason().kind == stop_kind::deadline);
    parent.request_stop(7);
    CHECK(child.reason().kind == stop_kind::deadline);
    CHECK(parent.reason().code == 7);
}

TEST_CASE("a deadline without an executor is noticed when one asks", "[scope][cancel_scope][D5]") {
    simulate([](simulation& sim) -> task<> {
        const cancel_scope scope(deadline::after(10ms));
        cancel_scope outer(deadline::after(20ms));
        const cancel_scope inner(outer, deadline::after(1h));
        CHECK(sim.armed_timers() == 0);
        co_await sleep_for(10ms - 1ns);
        CHECK_FALSE(scope.stop_requested());
        CHECK(scope.reason().kind == stop_kind::none);
        co_await sleep_for(1ns);
        CHECK_FALSE(scope.token().stop_requested());
        CHECK(scope.stop_requested());
        CHECK(scope.reason().kind == stop_kind::deadline);
        CHECK(scope.token().stop_requested());
        CHECK_FALSE(inner.stop_requested());
        co_await sleep_for(10ms);
        CHECK(inner.stop_requested());  // which notices it for the outer one, too
        CHECK(outer.token().stop_requested());
        CHECK(inner.reason().where.line() == outer.reason().where.line());
    });
}

TEST_CASE("a scope takes a duration from now in the place of a deadline", "[scope][cancel_scope]") {
    simulate([](simulation&) -> task<> {
        cancel_scope outer{10ms};
        const cancel_scope inner{outer, 5ms}, timed{here(), 1s}, under{outer.ctx(), 1h}, past{0s};
        const std::stop_source host;
        const cancel_scope adopted{host.get_token(), 3ms};
        CHECK(outer.deadline() == deadline::after(10ms));
        CHECK(inner.deadline() == deadline::after(5ms));
        CHECK(timed.deadline() == deadline::after(1s));
        CHECK(under.deadline() == outer.deadline());
        CHECK(adopted.deadline() == deadline::after(3ms));
        CHECK(past.stop_requested());
        co_return;
    });
}

// The edge to std::stop_token.

TEST_CASE("a foreign token stops the scope that adopted it, a reason from inside that was first stays",
          "[scope][cancel_scope][C-053][X16]") {
    std::stop_source host;
    cancel_scope adopted(host.get_token());
    const cancel_scope below(adopted);
    cancel_scope earlier(host.get_token());
    earlier.request_stop(8);
    host.request_stop();
    CHECK(adopted.reason().kind == stop_kind::requested);
    CHECK(adopted.reason().code == 0);
    CHECK(below.stop_requested());
    CHECK(earlier.reason().code == 8);
    const cancel_scope late(host.get_token());
    CHECK(late.stop_requested());
}

TEST_CASE("a scope is a std::stop_token to others, always the same one", "[scope][cancel_scope][X11]") {
    cancel_scope scope;
    const std::stop_token token = scope.std_stop_token();
    CHECK(token.stop_possible());
    CHECK_FALSE(token.stop_requested());
    CHECK(scope.std_stop_token() == token);
    bool ran = false;
    const std::stop_callback callback(token, [&ran] { ran = true; });
    scope.request_stop();
    CHECK(token.stop_requested());
    CHECK(ran);

    cancel_scope stopped;
    stopped.request_stop();
    CHECK(stopped.std_stop_token().stop_requested());
}

TEST_CASE("a standard token of a scope with a deadline needs an executor that fires it", "[scope][cancel_scope][D5]") {
    cancel_scope nobody(deadline::after(1h));
    CHECK_THROWS_AS(nobody.std_stop_token(), std::logic_error);
    CHECK_THROWS_WITH(nobody.std_stop_token(), Catch::Contains("executor"));
    cancel_scope below_nobody(nobody);
    CHECK_THROWS_AS(below_nobody.std_stop_token(), std::logic_error);

    simulate([](simulation&) -> task<> {
        cancel_scope somebody(here(), deadline::after(10ms));
        const std::stop_token token = somebody.std_stop_token();
        co_await sleep_for(10ms);
        CHECK(token.stop_requested());
    });
}

TEST_CASE("several threads may ask for the standard token at the same time", "[scope][cancel_scope]") {
    for (int i = 0; i < 100; ++i) {
        cancel_scope scope;
        std::stop_token tokens[2];
        std::atomic<int> ready{0};
        const auto ask = [&](int n) {
            ready.fetch_add(1);
            while (ready.load() != 2) std::this_thread::yield();
            tokens[n] = scope.std_stop_token();
        };
        std::thread other(ask, 1);
        ask(0);
        other.join();
        if (tokens[0] != tokens[1]) FAIL("round " << i << ": two tokens");
    }
}

TEST_CASE("a deadline wakes a thread that waits on a condition_variable_any", "[scope][cancel_scope][X11]") {
    run_loop loop;
    std::thread timers([&loop] { loop.run(); });
    {
        // Real time: the standard library's wait has no other.
        cancel_scope request(executor_ref(loop), deadline::after(5ms));
        cancel_scope step(request, deadline::after(1h));
        std::mutex mutex;
        std::condition_variable_any changed;
        std::unique_lock lock(mutex);
        CHECK_FALSE(changed.wait(lock, step.std_stop_token(), [] { return false; }));
        CHECK(step.reason().kind == stop_kind::deadline);
    }
    loop.stop();
    timers.join();
}

TEST_CASE("a thousand adopted std::stop_tokens start no thread and no task", "[scope][cancel_scope][C-055][X16]") {
    const std::size_t tasks = cordon::live_tasks().size();
#if defined(__linux__)
    const int threads = threads_of_this_process();
#endif
    std::stop_source host;
    std::deque<cancel_scope> adopted;
    for (int i = 0; i < 1'000; ++i) adopted.emplace_back(host.get_token());
    CHECK(cordon::live_tasks().size() == tasks);
#if defined(__linux__)
    CHECK(threads_of_this_process() == threads);
#endif
    host.request_stop();
    CHECK(std::all_of(adopted.begin(), adopted.end(), [](const cancel_scope& s) { return s.stop_requested(); }));
    CHECK(cordon::live_tasks().size() == tasks);
}

// Callbacks.

TEST_CASE("a callback of the parent may stop the child while the parent's stop is on its way",
          "[scope][cancel_scope][C-028][X3]") {
    cancel_scope parent;
    cancel_scope child(parent);
    bool ran = false;
    const auto f = [&]() noexcept {
        child.request_stop(2);
        ran = child.stop_requested();
    };
    const inplace_stop_callback callback(parent.token(), f);
    parent.request_stop(1);
    CHECK(ran);
    CHECK(child.reason().code == 1);
}

TEST_CASE("a callback on a stopped scope runs at once, a removed one never, one in a context without stop never",
          "[scope][cancel_scope][C-062][C-063][C-067][X10]") {
    cancel_scope scope;
    int removed = 0, detached = 0, late = 0;
    const auto count_removed = [&removed]() noexcept { ++removed; };
    const auto count_detached = [&detached]() noexcept { ++detached; };
    const auto count_late = [&late]() noexcept { ++late; };
    std::optional<inplace_stop_callback<decltype(count_removed)>> callback(std::in_place, scope.token(), count_removed);
    const context free = scope.ctx().without_stop();
    const inplace_stop_callback inside(free.stop_token(), count_detached);
    callback.reset();
    callback.reset();
    scope.request_stop();
    CHECK(removed == 0);
    CHECK(detached == 0);
    const inplace_stop_callback at_once(scope.token(), count_late);
    CHECK(late == 1);
}

// Trees.

TEST_CASE("a 4-ary tree of a hundred scopes, all stopped at once by many threads, ends stopped",
          "[scope][cancel_scope][C-027][X2][X3]") {
    const auto seed = std::random_device()();
    INFO("seed " << seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 10; ++round) {
        std::deque<cancel_scope> tree;
        tree.emplace_back();
        for (std::size_t i = 1; i < 100; ++i) tree.emplace_back(tree[(i - 1) / 4]);
        std::vector<std::size_t> order(tree.size());
        for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
        std::shuffle(order.begin(), order.end(), random);
        std::vector<std::thread> threads;
        std::atomic<int> ready{0};
        constexpr int n = 8;
        for (int t = 0; t < n; ++t)
            threads.emplace_back([&, t] {
                ready.fetch_add(1);
                while (ready.load() != n) std::this_thread::yield();
                for (std::size_t i = static_cast<std::size_t>(t); i < order.size(); i += n)
                    tree[order[i]].request_stop(static_cast<int>(order[i]) + 1);
            });
        for (std::thread& t : threads) t.join();
        for (std::size_t i = 0; i < tree.size(); ++i) {
            // The reason is its own or that of one further up.
            std::size_t by = static_cast<std::size_t>(tree[i].reason().code);
            bool above = false;
            for (std::size_t j = i + 1; j != 0; j = j == 1 ? 0 : (j - 2) / 4 + 1) above = above || j == by;
            if (!tree[i].stop_requested() || !above) FAIL("scope " << i << " stopped by " << by);
        }
        while (!tree.empty()) tree.pop_back();
    }
}

TEST_CASE("a chain of a hundred thousand scopes stops without recursion", "[scope][cancel_scope][X3]") {
    std::deque<cancel_scope> chain;
    chain.emplace_back();
    for (int i = 1; i < 100'000; ++i) chain.emplace_back(chain.back());
    chain.front().request_stop(3);
    CHECK(chain.back().reason().code == 3);
    while (!chain.empty()) chain.pop_back();
}

TEST_CASE("a task spawned into a stopped scope never starts, and its arguments are destroyed",
          "[scope][cancel_scope][C-071]") {
    struct program {
        static task<> child(std::shared_ptr<int> runs) {
            ++*runs;
            co_return;
        }
    };
    const auto runs = std::make_shared<int>(0);
    simulate([&runs](simulation&) -> task<> {
        cancel_scope scope(here());
        cordon::task_group early(scope.ctx());
        const bool accepted = early.spawn(program::child(runs));
        CHECK(accepted);
        scope.request_stop();  // before it has run
        cordon::task_group late(scope.ctx());
        const bool refused = !late.spawn(program::child(runs)) && !early.spawn(program::child(runs));
        CHECK(refused);
        co_await early.join();
        co_await late.join();
        CHECK(runs.use_count() == 1);
    });
    CHECK(*runs == 0);
}

TEST_CASE("a scope drives an operation that is given its context", "[scope][cancel_scope][D3]") {
    simulate([](simulation&) -> task<> {
        cancel_scope scope(here(), deadline::after(1s));
        const auto begin = clock::now();
        const cordon::outcome<void> o = co_await cordon::as_outcome(sleep_for(1h).with(scope.ctx()));
        CHECK(o.is_stopped());
        CHECK(clock::now() - begin == 1s);
        CHECK(scope.reason().kind == stop_kind::deadline);
        CHECK(children_of(scope) == 0);
    });
}

TEST_CASE("a scope's deadline may be noticed by a thread that polls while its timer fires on another",
          "[scope][cancel_scope][X2]") {
    run_loop loop;
    std::thread timers([&loop] { loop.run(); });
    for (int i = 0; i < 50; ++i) {
        // Real time, since the race is between real threads.
        cancel_scope scope(executor_ref(loop), deadline::after(200us));
        const cancel_scope child(scope, deadline::after(1h));
        while (!child.stop_requested()) std::this_thread::yield();
        if (child.reason().kind != stop_kind::deadline || scope.reason().kind != stop_kind::deadline)
            FAIL("round " << i);
    }
    loop.stop();
    timers.join();
}

namespace {

/// A host's coroutine without an executor: it goes on inside whatever wakes it.
struct plain_coroutine {
    struct promise_type {
        plain_coroutine get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept { std::terminate(); }
    };
};

/// Waits below a scope in its own frame, which is gone when it has been stopped.
plain_coroutine waits_in(cancel_scope* outer, run_loop* loop, cordon::async_event& never, bool& ended) {
    std::optional<cancel_scope> limit;
    if (loop != nullptr) limit.emplace(executor_ref(*loop), deadline::after(1ms));
    else limit.emplace(*outer, deadline::after(std::chrono::hours(1)));
    try {
        co_await cordon::with(never.wait(), cordon::stop_on(limit->token()));
    } catch (const cordon::canceled&) {
        ended = true;
    }
    if (loop != nullptr) loop->stop();
}

}  // namespace

TEST_CASE("a scope may end in what its own deadline wakes, on a timer or where somebody asks", "[scope][cancel_scope]") {
    cordon::async_event never;
    bool ended = false;
    {
        run_loop loop;
        (void)waits_in(nullptr, &loop, never, ended);
        loop.run();
        CHECK(ended);
    }
    ended = false;
    cancel_scope outer{deadline::after(1ms)};
    (void)waits_in(&outer, nullptr, never, ended);
    while (!outer.stop_requested()) std::this_thread::yield();
    CHECK(ended);
    CHECK(outer.reason().kind == stop_kind::deadline);
}
