// SPDX-License-Identifier: MIT
#include <cordon/core/context.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace {

using namespace std::chrono_literals;
using cordon::cancel_scope;
using cordon::clock;
using cordon::context;
using cordon::context_key;
using cordon::deadline;
using cordon::stop_kind;
using cordon::task;
using cordon::with;
using cordon::within;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

constexpr context_key<std::string> request_id{"request_id"};
constexpr context_key<std::string> user_id{"user_id"};
constexpr context_key<int> shard{"shard"};
constexpr context_key<std::unique_ptr<int>> owned{"owned"};

static_assert(std::is_trivially_copyable_v<context>, "contexts refer to what they inherit from and do not own it");
static_assert(!std::is_copy_constructible_v<context_key<int>>, "the address of a key is its identity");
static_assert(std::string_view(request_id.name()) == "request_id");

/// What a task sees of one key: the text, or "-" where nobody bound one.
task<std::string> see(const context_key<std::string>& key) {
    const std::string* value = co_await this_task::get(key);
    if (value == nullptr) co_return "-";
    co_return *value;
}

task<std::string> see_both() {
    const std::string first = co_await see(request_id);
    co_return first + " " + co_await see(user_id);
}

}  // namespace

TEST_CASE("an empty context has no stop, no deadline, no value and no executor", "[core][context]") {
    const context none;
    CHECK_FALSE(none.stop_token().stop_possible());
    CHECK_FALSE(none.stop_requested());
    CHECK(none.reason().kind == stop_kind::none);
    CHECK(none.deadline().is_never());
    CHECK(none.get(request_id) == nullptr);
    CHECK_FALSE(none.executor());
}

TEST_CASE("a root context has its executor and nothing else", "[core][context]") {
    cordon::run_loop loop;
    const context root{cordon::executor_ref(loop)};
    CHECK(root.executor() == cordon::executor_ref(loop));
    CHECK_FALSE(root.stop_token().stop_possible());
    CHECK(root.deadline().is_never());
}

TEST_CASE("each key finds its own binding, two keys of one type are two keys", "[core][context][C-020][X8]") {
    simulation sim;
    CHECK(sim.run(with(see_both(), request_id("r-1"))) == "r-1 -");
    CHECK(sim.run(with(see_both(), user_id("u-1"))) == "- u-1");
    CHECK(sim.run(with(see_both(), request_id("r-1"), user_id("u-1"))) == "r-1 u-1");
    CHECK(sim.run(see_both()) == "- -");
}

TEST_CASE("the nearest binding of a key is found, and the outer one again after it", "[core][context][C-020][X8]") {
    struct program {
        static task<std::string> inner() { co_return co_await with(see(request_id), request_id("inner")); }
        static task<std::string> outer() {
            std::string all = co_await see(request_id);
            all += " " + co_await inner();
            all += " " + co_await with(see(request_id), request_id("first"), request_id("later is nearer"));
            all += " " + co_await see(request_id);
            co_return all;
        }
    };
    simulation sim;
    CHECK(sim.run(with(program::outer(), request_id("outer"))) == "outer inner later is nearer outer");
}

TEST_CASE("an unset binding hides an outer one, below it only", "[core][context][X8]") {
    struct program {
        static task<std::string> hidden() {
            std::string all = co_await see_both();
            all += " " + co_await with(see(request_id), request_id("again"));
            co_return all;
        }
        static task<std::string> outer() {
            const std::string below = co_await with(hidden(), request_id.unset());
            co_return below + " " + co_await see(request_id);
        }
    };
    simulation sim;
    CHECK(sim.run(with(program::outer(), request_id("r"), user_id("u"))) == "- u again r");
}

TEST_CASE("a value is built in place, lives while the operation runs and is destroyed with it", "[core][context][X8]") {
    struct tracked {
        tracked(int a, int b, int& alive) : sum(a + b), count(&alive) { ++*count; }
        tracked(tracked&& other) noexcept : sum(other.sum), count(std::exchange(other.count, nullptr)) {}
        ~tracked() {
            if (count != nullptr) --*count;
        }
        int sum;
        int* count;
    };
    static constexpr context_key<tracked> key{"tracked"};
    struct program {
        static task<int> use(int& alive, int& during) {
            co_await cordon::sleep_for(1ms);
            during = alive;
            co_return (co_await this_task::get(key))->sum;
        }
        static task<int> own() { co_return **co_await this_task::get(owned); }
    };
    int alive = 0, during = 0;
    simulation sim;
    CHECK(sim.run(with(program::use(alive, during), key(2, 3, alive))) == 5);
    CHECK(during == 1);
    CHECK(alive == 0);
    CHECK(sim.run(with(program::own(), owned(std::make_unique<int>(9)))) == 9);
}

TEST_CASE("values stay readable after the stop", "[core][context][C-022][X8]") {
    struct reader {
        const context* ctx;
        std::string& seen;
        ~reader() { seen = *ctx->get(request_id) + (ctx->stop_requested() ? " stopped" : " alive"); }
    };
    struct program {
        static task<> run(std::string& seen) {
            const reader at_the_end{co_await this_task::context(), seen};
            co_await cordon::sleep_for(1h);
        }
    };
    cordon::inplace_stop_source source;
    source.request_stop();
    std::string seen;
    simulation sim;
    CHECK_THROWS_AS(
        sim.run(with(program::run(seen), cordon::stop_on(source.get_token()), request_id("r-7"))), cordon::canceled);
    CHECK(seen == "r-7 stopped");

    cancel_scope scope;
    cordon::detail::value_binding binding{&shard, nullptr, nullptr};
    const int three = 3;
    binding.value = &three;
    const context bound = cordon::detail::context_access::with_value(scope.ctx(), binding);
    scope.request_stop();
    CHECK(bound.stop_requested());
    CHECK(*bound.get(shard) == 3);
}

TEST_CASE("a passed deadline is noticed by whoever asks, although nobody fires timers", "[core][context][X5]") {
    struct program {
        static task<> run(bool& before, bool& after, stop_kind& kind) {
            const context ctx;
            cancel_scope scope(ctx, deadline::after(10ms));
            before = scope.ctx().stop_requested();
            co_await cordon::sleep_for(10ms);
            after = scope.ctx().stop_requested();
            kind = scope.ctx().reason().kind;
        }
    };
    bool before = true, after = false;
    stop_kind kind = stop_kind::none;
    simulation sim;
    sim.run(program::run(before, after, kind));
    CHECK_FALSE(before);
    CHECK(after);
    CHECK(kind == stop_kind::deadline);
}

TEST_CASE("a context without stop keeps values and executor, and nothing stops it",
          "[core][context][C-050][C-051][X9]") {
    cordon::run_loop loop;
    cancel_scope scope{cordon::executor_ref(loop), deadline::after(1h)};
    const std::string text = "r-1";
    cordon::detail::value_binding binding{&request_id, &text, nullptr};
    const context bound = cordon::detail::context_access::with_value(scope.ctx(), binding);
    const context free = bound.without_stop();
    const auto check_free = [&] {
        CHECK(free.get(request_id) == &text);
        CHECK(free.executor() == cordon::executor_ref(loop));
        CHECK(free.deadline().is_never());
        CHECK_FALSE(free.stop_token().stop_possible());
        CHECK_FALSE(free.stop_requested());
        CHECK(free.reason().kind == stop_kind::none);
    };
    check_free();
    scope.request_stop(5);
    CHECK(bound.reason().code == 5);
    check_free();

    cancel_scope expired{deadline::after(0s)};
    CHECK(expired.ctx().stop_requested());
    CHECK_FALSE(expired.ctx().without_stop().stop_requested());
    CHECK(expired.ctx().without_stop().deadline().is_never());
}

TEST_CASE("below a context without stop a deadline works, and a stop further out is ignored",
          "[core][context][C-052][X9]") {
    struct program {
        static task<> run(cancel_scope& ancestor, stop_kind& kind, clock::duration& took) {
            const context free = ancestor.ctx().without_stop();
            ancestor.request_stop();
            const auto begin = clock::now();
            cancel_scope own(free, deadline::after(20ms));
            CHECK_FALSE(own.stop_requested());
            (void)co_await cordon::as_outcome(cordon::sleep_for(1h).with(own.ctx()));
            kind = own.reason().kind;
            took = clock::now() - begin;
        }
        static task<> all(stop_kind& kind, clock::duration& took) {
            cancel_scope ancestor(*co_await this_task::context());
            co_await run(ancestor, kind, took);
        }
    };
    stop_kind kind = stop_kind::none;
    clock::duration took{};
    simulation sim;
    sim.run(program::all(kind, took));
    CHECK(kind == stop_kind::deadline);
    CHECK(took == 20ms);
}

TEST_CASE("a parent that cannot work is refused, and says why", "[core][context][C-023]") {
    const context nowhere;
    CHECK_THROWS_AS(cordon::task_group(nowhere), std::invalid_argument);
    CHECK_THROWS_WITH(cordon::task_group(nowhere), Catch::Contains("executor"));
}

TEST_CASE("asking for the token of a context connects the scopes above it", "[core][context]") {
    struct program {
        static task<std::size_t> run() {
            cancel_scope outer(*co_await this_task::context());
            auto inner = []() -> task<bool> {
                const cordon::inplace_stop_token token = co_await this_task::stop_token();
                co_return token.stop_possible() && !token.stop_requested();
            };
            auto& source = cordon::detail::context_access::scope_of(outer.ctx())->source();
            const std::size_t before = cordon::detail::attached(source);
            const bool asked = co_await with(inner(), within(1h)).with(outer.ctx());
            co_return asked ? before + cordon::detail::attached(source) : 99;
        }
    };
    simulation sim;
    CHECK(sim.run(program::run()) == 0);
    CHECK(sim.armed_timers() == 0);
}
