// SPDX-License-Identifier: MIT
#include <cordon/policy/hedge.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <coroutine>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::hedge;
using co::idempotent;
using co::percentile;
using co::pipeline;
using co::retry;
using co::retry_budget;
using co::timeout;

static_assert(co::reportable<co::hedge_policy>);
static_assert(std::is_trivially_copyable_v<co::hedge_options>);
static_assert(!std::is_copy_constructible_v<co::hedge_policy>);
static_assert(std::is_nothrow_move_constructible_v<co::hedge_policy>);

constexpr co::clock::duration on_failure = co::clock::duration::max();

co::clock::duration since(co::clock::time_point begin) { return co::clock::now() - begin; }

/// What a copy does: how long it takes, and what it ends with, as the letters of `service`. The last one is that of all
/// later copies.
struct script {
    co::clock::duration takes;
    char how = 'S';
};

/// Copies that follow scripts, and what became of them.
struct remote {
    explicit remote(std::vector<script> s) : scripts(std::move(s)) {}
    remote(const remote&) = delete;

    task<int> call() {
        const int mine = ++sent;
        return run(mine, scripts[std::min(static_cast<std::size_t>(mine), scripts.size()) - 1]);
    }
    auto fetch() {
        return [this] { return call(); };
    }

    std::vector<script> scripts;
    int sent = 0;
    int began = 0, ended = 0, stopped = 0;
    std::vector<int> stop_codes;

private:
    task<int> run(int number, script s) {
        struct inside {
            explicit inside(remote& r) : all(r) { ++all.began; }
            ~inside() { ++(done ? all.ended : all.stopped); }
            remote& all;
            bool done = false;
        } here(*this);
        co_await co::sleep_for(s.takes);
        here.done = true;
        switch (s.how) {
            case 'F': throw std::runtime_error(std::to_string(number));
            case 'L': throw std::logic_error(std::to_string(number));
            case 'R': throw co::rejected(co::rejection(co::reject_reason::full, "remote"));
            case 'C': throw co::canceled();
            default: co_return number;
        }
    }
};

struct run_result {
    int value = 0;  // 0: none
    std::string error;
    bool rejected = false, stopped = false;
    co::clock::duration took{0};
};

/// One call of `guarded` in a simulation of its own.
template <class Pipeline>
run_result run(const Pipeline& guarded, remote& r, std::uint64_t seed = 0) {
    simulation sim(seed);
    run_result got;
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto fetch = r.fetch();
        const auto ended = co_await as_outcome(guarded(fetch));
        got.took = since(begin);
        if (ended.has_value()) got.value = *ended;
        got.error = error_text(ended);
        got.rejected = ended.is_rejected();
        got.stopped = ended.is_stopped();
    });
    CHECK(sim.armed_timers() == 0);
    CHECK(r.began == r.ended + r.stopped);
    return got;
}

}  // namespace

TEST_CASE("a call that waits for an awaitable of another library is hedged as any other", "[policy][hedge]") {
    struct other_library {
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> h) { *waits = h; }
        void await_resume() const noexcept {}
        std::coroutine_handle<>* waits;
    };
    simulation sim;
    sim.run([&]() -> task<> {
        const auto policy = hedge({.after = 10ms});
        std::coroutine_handle<> waits;
        int sent = 0;
        const auto call = [&]() -> task<int> {
            const int mine = ++sent;
            other_library first{&waits};
            if (mine == 1) co_await first;
            co_return mine;
        };
        int won = 0;
        const auto asks = [&]() -> task<> {
            const auto hedged = pipeline(policy);
            won = co_await hedged(call);
        };
        const auto answers = [&]() -> task<> {
            co_await co::sleep_for(10ms - 1ns);
            CHECK(sent == 1);
            co_await co::sleep_for(10ms);
            CHECK(sent == 2);
            CHECK(won == 0);  // the call cannot be stopped, and is waited for
            waits.resume();
        };
        (void)co_await co::when_all(asks(), answers());
        CHECK(won == 2);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("a call that is fast enough has no copy, whether it succeeds or fails", "[policy][hedge][HG-01][HG-23]") {
    for (const char how : {'S', 'F'}) {
        remote r({{500ms, how}});
        const auto guarded = pipeline(hedge({.after = 1s, .max_extra = 2}));
        const auto got = run(guarded, r);
        CHECK(got.value == (how == 'S' ? 1 : 0));
        CHECK(got.error == (how == 'S' ? "" : "1"));
        CHECK(r.sent == 1);
        CHECK(got.took == 500ms);
    }
}

TEST_CASE("a slow call has copies, one delay after the other, and the first success is the result",
          "[policy][hedge][HG-02][HG-15][B5]") {
    remote r({{100ms}, {100ms}, {0ms}});
    const auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 2}));
    const auto got = run(guarded, r);
    CHECK(got.value == 3);
    CHECK(got.took == 20ms);
    CHECK(r.sent == 3);
    CHECK(r.stopped == 2);
}

TEST_CASE("the call itself wins if it is first, although all copies were sent", "[policy][hedge][HG-03]") {
    remote r({{100ms}});
    auto guarded = pipeline(hedge({.name = "stock", .after = 20ms, .max_extra = 2}));
    const auto got = run(guarded, r);
    CHECK(got.value == 1);
    CHECK(got.took == 100ms);
    CHECK(r.sent == 3);
    CHECK(r.ended == 1);
    const auto stats = guarded.get<0>().stats();
    CHECK(stats.sent == 2);
    CHECK(stats.won == 0);
    CHECK(stats.delay == 20ms);
    CHECK(guarded.get<0>().name() == "stock");
}

TEST_CASE("a delay of nothing sends all at once", "[policy][hedge][HG-04][HG-14]") {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        remote r({{30ms}, {20ms}, {10ms}});
        const auto guarded = pipeline(hedge({.after = 0ms, .max_extra = 2})).failing_when([](int n) { return n < 3; });
        simulation sim(seed);
        sim.run([&]() -> task<> {
            std::vector<co::clock::time_point> begins;
            const auto fetch = [&]() -> task<int> {
                begins.push_back(co::clock::now());
                return r.call();
            };
            const int got = co_await guarded(fetch);
            CHECK(got == 3);  // whichever copy it was: the number says so, and the script too
            CHECK(begins.size() == 3);
            for (const auto t : begins) CHECK(t == begins[0]);
        });
        CHECK(r.sent == 3);
        CHECK(r.ended + r.stopped == 3);
    }
}

TEST_CASE("without a delay the next copy is sent when one has failed, and none run beside another",
          "[policy][hedge][HG-14]") {
    remote r({{10ms, 'F'}, {20ms, 'F'}, {30ms}});
    const auto guarded = pipeline(hedge({.after = on_failure, .max_extra = 5}));
    const auto got = run(guarded, r);
    CHECK(got.value == 3);
    CHECK(got.took == 60ms);
    CHECK(r.sent == 3);
    CHECK(r.stopped == 0);
    SECTION("and when all have failed, the call's own failure is the outcome") {
        remote fails({{1ms, 'F'}});
        const auto all = run(pipeline(hedge({.after = on_failure, .max_extra = 3})), fails);
        CHECK(all.error == "1");
        CHECK(all.took == 4ms);
        CHECK(fails.sent == 4);
    }
    SECTION("what counts as nothing, and a stop, are no reason for another") {
        for (const char how : {'L', 'C'}) {
            remote once({{1ms, how}});
            const auto ended = run(pipeline(hedge({.after = on_failure, .max_extra = 3})), once);
            CHECK(once.sent == 1);
            CHECK(ended.stopped == (how == 'C'));
        }
    }
}

TEST_CASE("without copies, what the call ends with is the outcome, whatever it is", "[policy][hedge][HG-05]") {
    remote r({{1h}});
    const auto guarded = pipeline(hedge({.after = 1ms, .max_extra = 0})).failing_when([](int) { return true; });
    const auto got = run(guarded, r);
    CHECK(got.value == 1);
    CHECK(got.took == 1h);
    CHECK(r.sent == 1);
}

TEST_CASE("a hedge that sends no copies shows no time for one", "[policy][hedge]") {
    CHECK(hedge({.after = 5ms, .max_extra = 0}).stats().delay == co::clock::duration::max());
    CHECK(hedge({.after = percentile(0.9), .max_extra = 0}).stats().delay == co::clock::duration::max());
    CHECK(hedge({.after = 5ms}).stats().delay == 5ms);
}

TEST_CASE("a hedge says what is wrong with its numbers", "[policy][hedge][HG-05]") {
    CHECK_THROWS_WITH(hedge({.after = -1ns}), "hedge: after is -1 ns, allowed is what is not negative");
    CHECK_THROWS_WITH(hedge({.max_extra = -1}), "hedge: max_extra is -1, allowed are 0 to 100");
    CHECK_THROWS_WITH(hedge({.max_extra = 101}), "hedge: max_extra is 101, allowed are 0 to 100");
    CHECK_THROWS_WITH(hedge({.within_retry = true}),
                      "hedge: within_retry is true, allowed is that only with the budget of the retry");
    CHECK_THROWS_AS(percentile(0), std::invalid_argument);
    CHECK_THROWS_AS(percentile(1), std::invalid_argument);
    auto policy = hedge();
    CHECK_THROWS_AS(policy.set({.max_extra = 1000}), std::invalid_argument);
    CHECK_NOTHROW(policy.set({.after = 0ms, .max_extra = 100}));
    CHECK(policy.stats().delay == 0ms);
}

TEST_CASE("a percentile is not known before twenty calls, and then hedges what is slower",
          "[policy][hedge][HG-06]") {
    simulation sim;
    co::clock::duration takes = 5ms;
    int sent = 0;
    const auto fetch = [&]() -> task<int> {
        ++sent;
        co_await co::sleep_for(takes);
        co_return sent;
    };
    auto guarded = pipeline(hedge({.after = percentile(0.95), .max_extra = 2}));
    const co::hedge_policy& policy = guarded.get<0>();
    sim.run([&]() -> task<> {
        CHECK(policy.stats().delay == co::clock::duration::max());
        for (int i = 0; i < 25; ++i) co_await guarded(fetch);
        CHECK(sent == 25);
        CHECK(policy.stats().delay == 5ms);
        takes = 200ms;
        const auto first_slow = [&]() -> task<int> {
            const int mine = ++sent;
            co_await co::sleep_for(mine == 26 ? 200ms : 5ms);
            co_return mine;
        };
        const auto begin = co::clock::now();
        const int got = co_await guarded(first_slow);
        CHECK(got == 27);
        CHECK(since(begin) == 10ms + 1ns);  // one as slow as the percentile is not slower than it
        CHECK(policy.stats().sent == 1);
        CHECK(policy.stats().won == 1);
    });
}

TEST_CASE("a hedge that has a name counts and learns for all its pipelines, also for those that are made per call",
          "[policy][hedge][CO-11]") {
    simulation sim;
    const auto named = hedge({.name = "h", .after = percentile(0.95)});
    int made = 0;
    bool slow = false;
    const auto fetch = [&]() -> task<int> {
        const int mine = ++made;
        co_await co::sleep_for(slow && mine == 26 ? 1s : 5ms);
        co_return mine;
    };
    sim.run([&]() -> task<> {
        for (int i = 0; i < 25; ++i) {
            const auto guarded = pipeline(named);
            co_await guarded(fetch);
        }
        CHECK(named.stats().delay == 5ms);
        slow = true;
        const co::any_pipeline<int> stored = pipeline(named, timeout(10s));
        const int got = co_await stored(fetch);
        CHECK(got == 27);
    });
    CHECK(named.stats().sent == 1);
    CHECK(named.stats().won == 1);
}

TEST_CASE("a hedge that is moved keeps what it knows", "[policy][hedge]") {
    simulation sim;
    auto first = hedge({.name = "h", .after = percentile(0.9)});
    const auto fetch = []() -> task<> { co_await co::sleep_for(5ms); };
    sim.run([&]() -> task<> {
        for (int i = 0; i < 20; ++i) co_await first(fetch);
    });
    CHECK(first.stats().delay == 5ms);
    const auto moved = std::move(first);
    CHECK(moved.name() == "h");
    CHECK(moved.stats().delay == 5ms);
}

TEST_CASE("a beaten call counts as long as it took, so that the percentile follows a service that becomes slower",
          "[policy][hedge][B5]") {
    simulation sim;
    co::clock::duration takes = 10ms;
    const auto fetch = [&]() -> task<> { co_await co::sleep_for(takes); };
    auto guarded = pipeline(hedge({.after = percentile(0.9)}));
    const co::hedge_policy& policy = guarded.get<0>();
    sim.run([&]() -> task<> {
        for (int i = 0; i < 100; ++i) co_await guarded(fetch);
        CHECK(policy.stats().delay == 10ms);
        CHECK(policy.stats().sent == 0);
        takes = 30ms;
        for (int i = 0; i < 300; ++i) co_await guarded(fetch);
        CHECK(policy.stats().delay == 30ms);
        CHECK(policy.stats().sent < 120);
    });
    SECTION("failures and stops tell nothing of the latency") {
        auto fresh = pipeline(hedge({.after = percentile(0.9)}));
        sim.run([&]() -> task<> {
            const auto fails = []() -> task<> {
                co_await co::sleep_for(1ms);
                throw std::runtime_error("no");
            };
            for (int i = 0; i < 50; ++i) (void)co_await as_outcome(fresh(fails));
            for (int i = 0; i < 50; ++i) (void)co_await stopped_after(1ms, fresh(fetch));
            CHECK(fresh.get<0>().stats().delay == co::clock::duration::max());
        });
    }
}

TEST_CASE("a stop reaches all copies, and is the caller's", "[policy][hedge][HG-09][HG-22]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        simulation sim(seed);
        remote r({{1h}});
        const auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 2}));
        sim.run([&]() -> task<> {
            const auto fetch = r.fetch();
            const auto ended = co_await stopped_after(100ms, guarded(fetch));
            CHECK(ended.first.is_stopped());
            CHECK(ended.second == 100ms);
        });
        CHECK(r.sent == 3);
        CHECK(r.stopped == 3);
    }
    SECTION("with the caller's reason") {
        simulation sim;
        co::inplace_stop_source source;
        std::vector<int> codes;
        const auto call = [&]() -> task<> {
            const co::context* const here = co_await co::this_task::context();
            struct at_end {
                const co::context* ctx;
                std::vector<int>* codes;
                ~at_end() { codes->push_back(ctx->reason().code); }
            } const looks{here, &codes};
            co_await co::sleep_for(1h);
        };
        sim.run([&]() -> task<> {
            const auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 1}));
            auto stoppable = co::with(guarded(call), co::stop_on(source.get_token()));
            const auto both = [&]() -> task<bool> {
                const auto ended = co_await as_outcome(std::move(stoppable));
                co_return ended.is_stopped();
            };
            auto all = co_await co::when_all(both(), stop_after(source, 50ms));
            CHECK(std::get<0>(all));
        });
        CHECK(codes == std::vector<int>{7, 7});
    }
}

TEST_CASE("each copy inside a timeout of its own may time out, and the error is a timeout", "[policy][hedge][HG-11]") {
    simulation sim;
    remote r({{1h}});
    const unsigned here = __LINE__ + 1;
    const auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 2}), timeout(100ms));
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto fetch = r.fetch();
        const auto ended = co_await as_outcome(guarded(fetch));
        CHECK(timed_out_line(ended) == here);
        CHECK(since(begin) == 120ms);
    });
    CHECK(r.sent == 3);
    CHECK(r.stopped == 3);
}

TEST_CASE("a timeout around a hedge stops all copies, once", "[policy][hedge][timeout][TO-12]") {
    simulation sim;
    remote r({{1s}});
    const auto guarded = pipeline(timeout(100ms), hedge({.after = 10ms, .max_extra = 2}));
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto fetch = r.fetch();
        const auto ended = co_await as_outcome(guarded(fetch));
        CHECK(timed_out_line(ended) != 0);
        CHECK(since(begin) == 100ms);
    });
    CHECK(r.sent == 3);
    CHECK(r.stopped == 3);
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("the loser's value is destroyed, and nobody is left behind", "[policy][hedge][HG-16]") {
    simulation sim;
    const auto token = std::make_shared<int>(1);
    int sent = 0;
    // Both ignore their stop until they have a value.
    const auto call = [&]() -> task<std::shared_ptr<int>> {
        const int mine = ++sent;
        co_await co::shield(co::sleep_for(mine == 1 ? 50ms : 20ms), 1min);
        co_return token;
    };
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(hedge({.after = 10ms}));
        {
            const std::shared_ptr<int> got = co_await guarded(call);
            CHECK(got == token);
            CHECK(token.use_count() <= 3);
        }
        co_await co::sleep_for(1ms);
        CHECK(token.use_count() == 1);
    });
}

TEST_CASE("a loser that ignores its stop is waited for", "[policy][hedge][HG-24]") {
    simulation sim;
    int sent = 0;
    bool slow_ended = false;
    const auto call = [&]() -> task<int> {
        const int mine = ++sent;
        if (mine == 1) {
            co_await co::shield(co::sleep_for(1s), 1min);
            slow_ended = true;
        }
        co_return mine;
    };
    sim.run([&]() -> task<> {
        const auto begin = co::clock::now();
        const auto guarded = pipeline(hedge({.after = 10ms}));
        const int got = co_await guarded(call);
        CHECK(got == 2);
        CHECK(slow_ended);
        CHECK(since(begin) == 1s);
    });
}

TEST_CASE("the winner is not stopped", "[policy][hedge][HG-17]") {
    simulation sim;
    int sent = 0;
    std::vector<co::stop_kind> kinds;
    const auto call = [&]() -> task<int> {
        const int mine = ++sent;
        const co::context* const here = co_await co::this_task::context();
        struct at_end {  // as late as the winner can look
            const co::context* ctx;
            std::vector<co::stop_kind>* kinds;
            ~at_end() { kinds->push_back(ctx->reason().kind); }
        } const looks{here, &kinds};
        co_await co::sleep_for(mine == 1 ? 1h : 5ms);
        co_return mine;
    };
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(hedge({.after = 10ms}));
        const int got = co_await guarded(call);
        CHECK(got == 2);
    });
    CHECK(kinds == std::vector{co::stop_kind::none, co::stop_kind::closed});
}

TEST_CASE("each copy has a context of its own, below that of the caller", "[policy][hedge][HG-19]") {
    static constexpr co::context_key<int> depth{"depth"};
    simulation sim;
    std::vector<const co::context*> contexts;
    std::vector<int> seen;
    const auto inner = [&]() -> task<> {
        seen.push_back(*(co_await co::this_task::get(depth)));
        co_await co::sleep_for(1s);
    };
    const auto call = [&]() -> task<> {
        contexts.push_back(co_await co::this_task::context());
        seen.push_back(*(co_await co::this_task::get(depth)));
        co_await co::with(inner(), depth(static_cast<int>(seen.size())));
    };
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(hedge({.after = 10ms}));
        co_await co::with(guarded(call), depth(0));
    });
    REQUIRE(contexts.size() == 2);
    CHECK(contexts[0] != contexts[1]);
    CHECK(seen == std::vector{0, 1, 0, 3});  // none sees what the other has bound
}

TEST_CASE("a failure does not beat a copy that runs", "[policy][hedge][HG-23]") {
    remote slow_success({{100ms}, {10ms, 'F'}});
    auto got = run(pipeline(hedge({.after = 20ms})), slow_success);
    CHECK(got.value == 1);
    CHECK(got.took == 100ms);

    remote late_copy({{30ms, 'F'}, {100ms}});
    got = run(pipeline(hedge({.after = 20ms})), late_copy);
    CHECK(got.value == 2);
    CHECK(got.took == 120ms);

    remote refused({{100ms}, {10ms, 'R'}});
    got = run(pipeline(hedge({.after = 20ms})), refused);
    CHECK(got.value == 1);

    remote both({{100ms, 'F'}, {10ms, 'F'}});
    got = run(pipeline(hedge({.after = 20ms})), both);
    CHECK(got.error == "1");
    CHECK(got.took == 100ms);

    remote stops_itself({{100ms, 'C'}, {200ms}});
    got = run(pipeline(hedge({.after = 20ms})), stops_itself);
    CHECK(got.value == 2);
    remote all_stop({{100ms, 'C'}});
    got = run(pipeline(hedge({.after = 20ms})), all_stop);
    CHECK(got.stopped);
    remote other_fails({{100ms, 'C'}, {200ms, 'F'}});
    got = run(pipeline(hedge({.after = 20ms})), other_fails);
    CHECK(got.error == "2");
    SECTION("what counts as nothing is an answer") {
        remote wrong({{100ms}, {10ms, 'L'}});
        got = run(pipeline(hedge({.after = 20ms})), wrong);
        CHECK(got.error == "2");
        CHECK(got.took == 30ms);
    }
}

TEST_CASE("a call may be marked as one that must not be done twice, or a hedge may want a mark",
          "[policy][hedge][HG-25]") {
    simulation sim;
    remote r({{100ms}});
    const auto all = pipeline(hedge({.after = 10ms}));
    const auto marked = pipeline(hedge({.after = 10ms, .only_marked = true}));
    sim.run([&]() -> task<> {
        const auto fetch = r.fetch();
        co_await co::with(all(fetch), idempotent(false));
        CHECK(r.sent == 1);
        co_await all(fetch);
        CHECK(r.sent == 3);
        co_await marked(fetch);
        CHECK(r.sent == 4);
        co_await co::with(marked(fetch), idempotent(true));
        CHECK(r.sent == 6);
    });
}

TEST_CASE("a used-up budget sends no copy, and the call succeeds", "[policy][hedge][retry_budget][RT-49]") {
    remote r({{100ms}});
    retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 0, .min_in_flight = 0}};
    auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 3, .budget = &budget}));
    const auto got = run(guarded, r);
    CHECK(got.value == 1);
    CHECK(r.sent == 1);
    CHECK(guarded.get<0>().stats().rejected == 1);
    CHECK(guarded.get<0>().stats().sent == 0);
    CHECK(budget.stats().rejected == 1);
    CHECK(budget.stats().calls_in_flight == 0);
}

TEST_CASE("a hedge pays for its copies as a retry does, and both may share a budget", "[policy][hedge][retry_budget]") {
    SECTION("in flight") {
        retry_budget budget{co::in_flight_budget_options{.in_flight_ratio = 0, .min_in_flight = 1}};
        remote r({{100ms}});
        const auto guarded = pipeline(hedge({.after = 10ms, .max_extra = 3, .budget = &budget}));
        const auto got = run(guarded, r);
        CHECK(got.value == 1);
        CHECK(r.sent == 2);  // one at a time
        CHECK(budget.stats().retries_in_flight == 0);
        CHECK(budget.stats().calls_in_flight == 0);
    }
    SECTION("with a retry around that counts the calls") {
        retry_budget budget{co::token_budget_options{.max_tokens = 10, .per_success = 1}};
        remote r({{100ms, 'F'}, {100ms, 'F'}, {1ms}});
        const auto guarded = pipeline(retry(3, {.backoff = co::constant(1ms), .budget = &budget}),
                                      hedge({.after = 10ms, .budget = &budget, .within_retry = true}));
        const auto got = run(guarded, r);
        CHECK(got.value == 3);
        CHECK(r.sent == 3);
        CHECK(budget.stats().granted == 2);    // a copy, a retry
        CHECK(budget.stats().available == 3);  // 10 - 2 + 1 tokens, of which more than half stay
    }
    SECTION("a copy that is stopped before it begins costs nothing") {
        for (std::uint64_t seed = 0; seed < 20; ++seed) {
            retry_budget budget{co::token_budget_options{.max_tokens = 11, .per_success = 0.001}};
            simulation sim(seed);
            int sent = 0;
            const auto call = [&]() -> task<int> {  // has a value at the very moment when the copy is sent
                ++sent;
                co_await co::sleep_for(10ms);
                co_return sent;
            };
            const auto guarded = pipeline(hedge({.after = 10ms, .budget = &budget}));
            sim.run([&]() -> task<> { co_await guarded(call); });
            CHECK(budget.stats().available == static_cast<std::uint64_t>(sent == 1 ? 5 : 4));
        }
    }
}

TEST_CASE("a call that ends without suspending arms no timer and makes no copy", "[policy][hedge]") {
    simulation sim;
    int calls = 0;
    const auto now = [&]() -> task<int> { co_return ++calls; };
    const auto yields = [&]() -> task<int> {
        co_await co::this_task::yield();
        co_return ++calls;
    };
    const auto ready = [&] {
        ++calls;
        return co::sleep_for(0s);
    };
    const auto throws = [&]() -> task<int> { throw std::runtime_error("before"); };
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(hedge({.after = 1h}));
        for (int i = 0; i < 10; ++i) co_await guarded(now);
        CHECK(sim.steps() == 1);
        co_await guarded(ready);
        CHECK(sim.steps() == 1);
        const auto ended = co_await as_outcome(guarded(throws));
        CHECK(error_text(ended) == "before");
        CHECK(sim.steps() == 1);
        co_await guarded(yields);
        CHECK(calls == 12);
    });
    CHECK(sim.armed_timers() == 0);
}

TEST_CASE("hedged calls work in a stored pipeline, without a pipeline, and for references",
          "[policy][hedge][any_pipeline]") {
    simulation sim;
    remote r({{100ms}, {1ms}});
    const co::any_pipeline<int> stored = pipeline(hedge({.after = 10ms}));
    int sent = 0, there = 5;
    const auto by_reference = [&]() -> task<int&> {
        const int mine = ++sent;
        co_await co::sleep_for(mine == 1 ? 1h : 1ms);
        co_return there;
    };
    sim.run([&]() -> task<> {
        const auto fetch = r.fetch();
        const int got = co_await stored(fetch);
        CHECK(got == 2);
        const auto alone = hedge({.after = 10ms});
        int& same = co_await alone(by_reference);
        CHECK(&same == &there);
    });
    CHECK(sent == 2);
}

TEST_CASE("a hedge can be changed while calls are in flight", "[policy][hedge]") {
    simulation sim;
    remote r({{100ms}});
    auto guarded = pipeline(hedge({.name = "h", .after = 10ms, .max_extra = 3}));
    sim.run([&]() -> task<> {
        const auto fetch = r.fetch();
        const auto changes = [&]() -> task<> {
            co_await co::sleep_for(5ms);
            guarded.get<0>().set({.after = 1ms, .max_extra = 0});
        };
        (void)co_await co::when_all(guarded(fetch), changes());
        CHECK(r.sent == 4);
        co_await guarded(fetch);
        CHECK(r.sent == 5);
        CHECK(guarded.get<0>().name() == "h");
    });
}

TEST_CASE("a hedged call can be stopped at any point: every figure is what it has to be",
          "[policy][hedge][cancel_sweep][T7]") {
    struct world {
        retry_budget in_flight{co::in_flight_budget_options{}};
        retry_budget windowed{co::retry_budget_options{.ratio = 1, .min_per_second = 10, .window = 10s}};
        retry_budget one{co::in_flight_budget_options{.in_flight_ratio = 0, .min_in_flight = 1}};
        std::unique_ptr<remote> r;
        std::optional<co::hedge_policy> copies;
        int over = 0;  // calls that ended, and were not stopped
        std::uint64_t by_copies = 0;  // of those with a value, those that were not the first to be sent
    };
    const auto kind = GENERATE(0, 1, 2);  // a copy is faster; the last of three works; one is sent after a failure
    const auto which = GENERATE(&world::in_flight, &world::windowed, &world::one);
    for (std::uint64_t seed = 0; seed < 6; ++seed) {
        std::shared_ptr<world> w;
        const auto make = [&] {
            w = std::make_shared<world>();
            w->r = std::make_unique<remote>(kind == 1   ? std::vector<script>{{9ms, 'F'}, {9ms, 'F'}, {9ms}}
                                            : kind == 2 ? std::vector<script>{{5ms, 'F'}, {5ms}}
                                                        : std::vector<script>{{9ms}, {9ms}, {2ms}});
            w->copies.emplace(co::hedge_options{
                .after = kind == 2 ? on_failure : 3ms, .max_extra = 2, .budget = &((*w).*which)});
            return [](std::shared_ptr<world> in) -> task<> {
                const auto guarded = pipeline(*in->copies);
                const auto fetch = in->r->fetch();
                const auto ended = co_await as_outcome(guarded(fetch));
                ++in->over;
                if (ended.has_value() && *ended != 1) ++in->by_copies;
            }(w);
        };
        const auto check = [&](const auto&, co::testing::sweep_point at) {
            const auto b = ((*w).*which).stats();
            const auto now = w->copies->stats();
            const auto called = static_cast<std::uint64_t>(std::max(w->r->sent - 1, 0));
            if (at.variant == co::testing::sweep_variant::baseline) {
                const std::uint64_t sent = kind == 2 || which == &world::one ? 1 : 2;
                if (w->over != 1 || now.sent != sent || now.sent != called || now.rejected != (kind != 2 && sent == 1))
                    return false;
            }
            const std::uint64_t paid = which == &world::windowed ? called - static_cast<std::uint64_t>(w->over) : 0;
            // every copy that the budget granted was sent; one that was stopped before it began called nothing
            return w->r->began == w->r->ended + w->r->stopped && b.calls_in_flight == 0 && b.retries_in_flight == 0 &&
                   w->windowed.stats().available == 100 - paid && now.sent == b.granted && now.rejected == b.rejected &&
                   now.sent >= called && now.sent <= called + 1 && now.won == w->by_copies;
        };
        const auto swept = co::testing::cancel_sweep({.seed = seed, .fail_awaits = true}, make, check);
        INFO("kind " << kind << " seed " << seed << ": " << describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 5);
    }
}

TEST_CASE("a call, its copy, their delay and a stop at the same moment: every order ends well",
          "[policy][hedge][T4]") {
    std::string seen;
    const auto root = [&]() -> task<bool> {
        retry_budget budget{co::in_flight_budget_options{}};
        remote r({{10ms}, {0ms}});
        const auto guarded = pipeline(hedge({.after = 10ms, .budget = &budget}));
        const auto fetch = [&]() -> task<int> {
            const int got = co_await r.call();
            co_await co::this_task::yield();  // where a stop may still come
            co_return got;
        };
        co::inplace_stop_source source;
        const auto one = [&]() -> task<> {
            const auto ended = co_await as_outcome(co::with(guarded(fetch), co::stop_on(source.get_token())));
            if (ended.has_value()) seen += std::to_string(*ended);
            else seen += ended.is_stopped() ? 's' : '?';
        };
        co_await co::when_all(one(), stop_after(source, 10ms));
        const auto b = budget.stats();
        co_return r.began == r.ended + r.stopped && b.calls_in_flight == 0 && b.retries_in_flight == 0;
    };
    const auto all = co::testing::explore_all(20'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(all.schedules > 10);
    for (const char how : {'1', 's'}) CHECK(seen.find(how) != std::string::npos);
    CHECK(seen.find('?') == std::string::npos);
}

TEST_CASE("copies are seen in dumps, by a record of their own", "[policy][hedge][D7]") {
    simulation sim;
    std::string seen;
    sim.run([&]() -> task<> {
        const auto slow = []() -> task<> { co_await co::sleep_for(1s); };
        const auto guarded = pipeline(hedge({.after = 10ms}));
        const auto looks = [&]() -> task<> {
            co_await co::sleep_for(20ms);
            for (const co::task_info& t : co::live_tasks())
                if (t.name == "hedge") seen += t.waits_for;
        };
        (void)co_await co::when_all(guarded(slow), looks());
    });
#if CORDON_TASK_RECORDS
    CHECK(seen == "sleep");
#endif
}

TEST_CASE("the figures of a hedge are reported", "[policy][hedge][observable]") {
    const auto policy = hedge({.name = "h", .after = 10ms});
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    policy.report(sink);
    CHECK(names == "sent won rejected delay_seconds ");
}

TEST_CASE("the delay of a hedge is reported in seconds, as not a number before it is known, as infinite for one that "
          "waits for failures",
          "[policy][hedge][observable]") {
    const auto reported = [](const co::hedge_policy& policy) {
        double value = -1;
        auto take = [&](const co::metric& m) {
            if (m.name == "delay_seconds") value = m.value;
        };
        co::metric_sink sink(take);
        policy.report(sink);
        return value;
    };
    CHECK(reported(hedge({.after = 10ms})) == 0.01);
    CHECK(std::isnan(reported(hedge({.after = percentile(0.9)}))));
    CHECK(reported(hedge({.after = on_failure})) == std::numeric_limits<double>::infinity());
}
