// SPDX-License-Identifier: MIT
// The limits of this library as guards of pipelines: waited for, refused by, and given back by what is stopped.
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/keyed_limiter.hpp>
#include <cordon/limit/token_bucket.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

namespace {

using namespace policy_test;
using co::bulkhead;
using co::keyed_limiter;
using co::per_second;
using co::pipeline;
using co::reject_reason;
using co::retry;
using co::timeout;
using co::token_bucket;

using limiter = keyed_limiter<std::string>;

/// An operation whose guard, and the stack where that was, are gone.
auto behind_a_temporary(limiter& l, service& s) {
    auto op = l.for_key("a")(s.fetch());
    char over_it[512];
    std::memset(over_it, 0x5a, sizeof over_it);
    asm volatile("" ::"r"(over_it) : "memory");
    return op;
}

/// What the calls of a sweep go through.
struct world {
    co::clock::time_point began = co::clock::now();
    service remote{"FFSFS", 3ms};
    co::circuit_breaker breaker{{.name = "b"}};
    token_bucket bucket{per_second(100), 2, {.name = "l"}};
    limiter clients{per_second(100), 3};
    bulkhead slots{1, {.name = "s", .max_waiting = 4, .max_wait = 50ms}};
};

/// How many tokens of a key are there, at most `burst`.
std::uint64_t tokens(const limiter& l, std::string_view key, std::uint64_t burst) {
    std::uint64_t n = burst;
    while (l.time_until(key, n) > 0ms) --n;
    return n;
}

}  // namespace

TEST_CASE("a token bucket in a pipeline has calls wait, and refuses what has no time for it", "[policy][limits]") {
    simulation sim;
    service s("SSF");
    sim.run([&]() -> task<> {
        token_bucket bucket(per_second(100), 2, {.name = "api"});
        const auto guarded = pipeline(retry(2, {.backoff = co::constant(1ms)}), bucket);
        const auto from = co::clock::now();
        co_await co::when_all(guarded(s.fetch()), guarded(s.fetch()));
        CHECK(co::clock::now() == from);
        const auto failed = co_await as_outcome(guarded(s.fetch()));
        CHECK(error_text(failed) == "4");  // each attempt took a token
        CHECK(co::clock::now() == from + 20ms);
        const auto late = co_await as_outcome(co::with_timeout(1ms, guarded(s.fetch())));
        CHECK(late.rejection().reason == reject_reason::rate_limited);
        CHECK(late.rejection().who() == "api");
        CHECK(s.calls == 4);
    });
}

TEST_CASE("a bulkhead in a pipeline keeps its place for as long as the call runs", "[policy][limits]") {
    simulation sim;
    service s("S", 10ms);
    sim.run([&]() -> task<> {
        bulkhead slots(1, {.name = "slots", .max_waiting = 1});
        const auto guarded = pipeline(slots, timeout(1s));
        const auto from = co::clock::now();
        const auto ended =
            co_await co::when_all(guarded(s.fetch()), guarded(s.fetch()), as_outcome(guarded(s.fetch())));
        CHECK(co::clock::now() == from + 20ms);
        CHECK(std::get<2>(ended).rejection().reason == reject_reason::full);
        CHECK(s.calls == 2);
        const auto ended_early = co_await stopped_after(3ms, guarded(s.fetch()));
        CHECK(ended_early.first.is_stopped());
        CHECK(slots.stats().in_use == 0);
    });
}

TEST_CASE("the limit of a key is a guard of a pipeline, which keeps a copy", "[policy][limits]") {
    simulation sim;
    service s("S", 5ms);
    sim.run([&]() -> task<> {
        limiter clients(per_second(10), 1, {.name = "clients"});
        const auto of_a = pipeline(timeout(1s), clients.for_key("a"));
        const auto b = clients.for_key("b");
        const auto of_b = pipeline(b);
        const auto ended_early = co_await stopped_after(3ms, of_a(s.fetch()));
        CHECK(ended_early.first.is_stopped());
        CHECK(clients.time_until("a") == 0ms);  // it gave the token back
        const int got = co_await of_a(s.fetch());
        CHECK(got == 2);
        const auto refused = co_await as_outcome(of_a(s.fetch()));
        CHECK(refused.rejection().reason == reject_reason::rate_limited);
        CHECK(refused.rejection().retry_after == 95ms);
        const int other = co_await of_b(s.fetch());
        CHECK(other == 3);
        CHECK_FALSE(b.try_acquire());
    });
}

TEST_CASE("a call behind the limit of a key runs when what named the key is gone", "[policy][limits]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        limiter clients(per_second(10), 1);
        auto op = behind_a_temporary(clients, s);
        const int got = co_await std::move(op);
        CHECK(got == 1);
        CHECK_FALSE(clients.try_acquire("a"));
    });
}

TEST_CASE("all limits and a breaker in one pipeline can be stopped at any point: what was stopped cost nothing",
          "[policy][limits][pipeline][any_pipeline][cancel_sweep][T7]") {
    const bool erased = GENERATE(false, true);
    std::shared_ptr<world> w;
    const auto one = [erased](world& in) -> task<> {
        auto guarded = pipeline(co::fallback([](const co::failure&) { return -1; }), timeout(500ms),
                                retry(4, {.backoff = co::constant(1ms)}), in.breaker, in.bucket,
                                in.clients.for_key("a"), in.slots, timeout(100ms));
        if (erased) {
            const co::any_pipeline<int> any(std::move(guarded));
            (void)co_await as_outcome(any(in.remote.fetch()));
        } else {
            (void)co_await as_outcome(guarded(in.remote.fetch()));
        }
    };
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in, auto call) -> task<> {
            co_await co::when_all(call(*in), call(*in), call(*in));
        }(w, one);
    };
    const auto check = [&](const auto&, const co::testing::sweep_point&) {
        const auto slots = w->slots.stats();
        const auto bucket = w->bucket.stats();
        const auto ended = static_cast<std::uint64_t>(w->remote.finished);
        const auto of_a = ended + slots.rejected;  // what cost a token: ended, or was refused further in
        const auto of_all = of_a + w->clients.stats().rejected;
        const auto back = static_cast<std::uint64_t>((co::clock::now() - w->began) / 10ms);
        return w->remote.running == 0 && slots.in_use == 0 && slots.waiting == 0 && bucket.waiting == 0 &&
               bucket.available == std::min<std::int64_t>(2, static_cast<std::int64_t>(2 + back - of_all)) &&
               tokens(w->clients, "a", 3) == std::min<std::uint64_t>(3, 3 + back - of_a) &&
               w->breaker.stats().calls == ended;
    };
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        auto swept = co::testing::cancel_sweep({.seed = seed, .max_findings = 1000, .fail_awaits = true}, make, check);
        std::erase_if(swept.findings, [](const co::testing::sweep_finding& f) {  // a retry looks at the deadline
            return f.variant == co::testing::sweep_variant::deadline && says(f.what, "does not run as the baseline");
        });
        INFO("seed " << seed << ": " << describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 20);
    }
}
