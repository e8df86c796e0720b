// SPDX-License-Identifier: MIT
#include <cordon/breaker/circuit_breaker.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"
#include "play.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace breaker_test;
namespace co = cordon;
using co::breaker_cause;
using co::breaker_event;
using co::breaker_state;
using co::last;
using co::last_calls;
using co::verdict;

static_assert(co::observable<circuit_breaker>);
static_assert(!std::is_copy_constructible_v<circuit_breaker::permit>);
static_assert(std::is_nothrow_move_constructible_v<circuit_breaker::permit>);

std::string invalid(const circuit_breaker_options& o) {
    try {
        circuit_breaker b(o);
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "valid";
}

}  // namespace

// --- open ----------------------------------------------------------------------------------------------------------

TEST_CASE("it stays open for its time to the nanosecond, and then lets probes through",
          "[breaker][circuit_breaker][CB-26][CB-27]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    play(b, "FFFFF");
    clock += 3s;
    CHECK(play(b, "SS") == 0);
    CHECK(b.stats().rejected == 2);
    clock += 2s - 1ns;
    CHECK(b.state() == breaker_state::open);
    CHECK(b.stats().retry_after == 1ns);
    const auto why = refusal(b);
    REQUIRE(why);
    CHECK(why->retry_after == 1ns);
    clock += 1ns;
    auto probe = b.try_acquire();
    CHECK(probe);
    CHECK(b.state() == breaker_state::half_open);
    check_counts(b, 0, 0);
    CHECK(b.stats().probes == 1);
    CHECK(b.stats().retry_after == 0s);
}

TEST_CASE("a refusal says who, why and for how long", "[breaker][circuit_breaker][CB-86]") {
    hand_clock clock;
    circuit_breaker b({.name = "inventory", .window = last_calls(1), .open_for = 5s});
    play(b, "F");
    clock += 2s;
    const auto why = refusal(b);
    REQUIRE(why);
    CHECK(why->reason == co::reject_reason::circuit_open);
    CHECK(why->who() == "inventory");
    CHECK(why->retry_after == 3s);
    CHECK(b.stats().retry_after == 3s);
}

TEST_CASE("refusals of one breaker are values of their own, also when they are thrown",
          "[breaker][circuit_breaker][CB-92]") {
    static_assert(std::is_trivially_copyable_v<co::rejection>);
    hand_clock clock;
    circuit_breaker b({.name = "stock", .window = last_calls(1), .open_for = 5s});
    play(b, "F");
    const auto first = refusal(b);
    const std::string said = co::rejected(*first).what();
    for (int i = 0; i < 10; ++i) {
        clock += 100ms;
        CHECK(co::rejected(*refusal(b)).what() == said);
    }
    CHECK(first->retry_after == 5s);
    CHECK(refusal(b)->retry_after == 4s);
}

TEST_CASE("forced open refuses whatever the time, and says it apart from open",
          "[breaker][circuit_breaker][CB-40][CB-87]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    auto early = b.try_acquire(), earlier = b.try_acquire();
    b.force_open();
    clock += 6s;
    const auto why = refusal(b);
    REQUIRE(why);
    CHECK(why->reason == co::reject_reason::circuit_open);
    CHECK(why->retry_after == 0s);
    clock += 24h;
    CHECK(play(b, "S") == 0);
    CHECK(b.stats().rejected == 2);
    CHECK(b.stats().rejected_forced == 2);
    CHECK(b.state() == breaker_state::forced_open);
    early.succeeded();
    earlier.failed();
    CHECK(b.state() == breaker_state::forced_open);
    CHECK(b.stats().stale == 2);
    b.close();
    CHECK(b.state() == breaker_state::closed);
    CHECK(play(b, "S") == 1);
}

TEST_CASE("a failure that arrives when it is open changes nothing and is told as stale",
          "[breaker][circuit_breaker][CB-88]") {
    hand_clock clock;
    circuit_breaker b({.window = last_calls(1), .open_for = 5s});
    std::vector<breaker_event> events;
    const auto listens = b.on_event([&](const breaker_event& e) { events.push_back(e); });
    auto first = b.try_acquire(), second = b.try_acquire();
    first.failed();
    clock += 1s;
    second.failed();
    CHECK(b.stats().retry_after == 4s);
    CHECK(b.stats().opened == 1);
    CHECK(b.stats().stale == 1);
    REQUIRE(events.size() == 2);
    CHECK(events[0].to == breaker_state::open);
    CHECK(events[1].cause == breaker_cause::stale);
    CHECK(events[1].from == breaker_state::open);
}

TEST_CASE("open_until opens from any state, and only moves the time of what is open already",
          "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.open_for = 5s});
    int told = 0;
    const auto listens = b.on_event([&](const breaker_event&) { ++told; });
    b.open_until(clock.now() + 10s);
    CHECK(b.stats().retry_after == 10s);
    CHECK(told == 1);
    b.open_until(clock.now() + 3s);
    CHECK(b.stats().retry_after == 3s);
    CHECK(told == 1);
    b.open_until(clock.now());
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().opened == 0);  // not by itself
    b.open_until((co::clock::time_point::min)());
    CHECK(bool(b.try_acquire()));
}

TEST_CASE("a clock that steps back while it is open neither wraps nor makes it open for longer than the step",
          "[breaker][circuit_breaker][CB-102]") {
    hand_clock clock;
    circuit_breaker b({.window = last_calls(1), .open_for = 30s});
    clock += 100s;
    play(b, "F");
    clock += 5s;
    CHECK(refusal(b)->retry_after == 25s);
    clock += -10s;
    CHECK(refusal(b)->retry_after == 35s);
    clock += 35s - 1ns;
    CHECK(b.state() == breaker_state::open);
    clock += 1ns;
    CHECK(b.state() == breaker_state::half_open);
    clock += -1h;
    CHECK(play(b, "SS") == 2);
    CHECK(b.state() == breaker_state::closed);
}

TEST_CASE("an opening without end does not overflow", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.window = last_calls(1), .open_for = std::chrono::hours::max()});
    play(b, "F");
    clock += 100'000h;
    CHECK(b.state() == breaker_state::open);
    CHECK(refusal(b)->retry_after > 100'000h);
    const auto saved = b.export_state();
    CHECK(saved.open_left > 100'000h);
    b.open_until(co::clock::time_point::max());
    CHECK(b.stats().retry_after > 100'000h);
    b.close();
    b.restore(saved, -1h);
    CHECK(b.stats().retry_after == saved.open_left);
}

// --- half-open -----------------------------------------------------------------------------------------------------

TEST_CASE("half-open decides as soon as the verdict is certain", "[breaker][circuit_breaker][CB-76][CB-78][CB-79]") {
    struct row {
        std::uint32_t calls;
        double rate;
        std::string_view outcomes;
        breaker_state ends;
    };
    constexpr auto open = breaker_state::open, closed = breaker_state::closed, half_open = breaker_state::half_open;
    for (const row& r : {
             row{3, 1.0, "FF", half_open},
             row{3, 1.0, "FFF", open},
             row{3, 1.0, "S", closed},
             row{3, 1.0, "FS", closed},
             row{3, 0.1, "S", half_open},
             row{3, 0.1, "SF", open},
             row{3, 0.1, "SSF", open},
             row{3, 0.1, "SSS", closed},
             row{3, 0.5, "FS", half_open},
             row{3, 0.5, "FSF", open},
             row{3, 0.5, "FSS", closed},
             row{4, 0.5, "SFS", half_open},
             row{4, 0.5, "SFSF", open},
             row{4, 0.5, "SFSS", closed},
             row{4, 0.75, "SFF", half_open},
             row{4, 0.75, "SFFF", open},
             row{1, 0.5, "F", open},
             row{1, 1.0, "S", closed},
         }) {
        CAPTURE(r.calls, r.rate, r.outcomes);
        hand_clock clock;
        circuit_breaker b({.open_for = 1s, .half_open_calls = r.calls, .half_open_failure_rate = r.rate});
        b.open_until(clock.now());
        play(b, r.outcomes);
        CHECK(b.state() == r.ends);
    }
}

TEST_CASE("without a failure rate a single failure opens it again, and all probes have to pass",
          "[breaker][circuit_breaker]") {
    hand_clock clock;
    auto options = in_a_row(5);
    options.half_open_calls = 3;
    circuit_breaker b(options);
    b.open_until(clock.now());
    play(b, "SS");
    CHECK(b.state() == breaker_state::half_open);
    play(b, "F");
    CHECK(b.state() == breaker_state::open);
}

TEST_CASE("probes that are slow decide as well", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.failure_rate = 0.5, .slow_call = 1s, .slow_rate = 0.5, .open_for = 5s, .half_open_calls = 4});
    b.open_until(clock.now());
    call(b, clock, 2s, verdict::success);
    call(b, clock, 100ms, verdict::success);
    call(b, clock, 100ms, verdict::success);
    CHECK(b.state() == breaker_state::half_open);  // one more slow one would be half of them
    call(b, clock, 2s, verdict::success);
    CHECK(b.state() == breaker_state::open);
}

TEST_CASE("no more calls are out in half-open than decide", "[breaker][circuit_breaker][CB-15][CB-82]") {
    hand_clock clock;
    circuit_breaker b({.open_for = 5s, .half_open_calls = 3, .half_open_failure_rate = 0.1});
    b.open_until(clock.now());
    auto one = b.try_acquire(), two = b.try_acquire(), three = b.try_acquire();
    CHECK(three);
    CHECK(b.stats().probes == 3);
    const auto why = refusal(b);
    REQUIRE(why);
    CHECK(why->reason == co::reject_reason::circuit_open);
    CHECK(why->retry_after == 0s);
    CHECK(b.stats().rejected_half_open == 1);
    one.ignored();
    CHECK(b.stats().probes == 2);
    auto again = b.try_acquire();
    CHECK(again);
    two.ignored();
    three.ignored();
    again.ignored();
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().probes == 0);
    CHECK(play(b, "SSS") == 3);
    CHECK(b.state() == breaker_state::closed);
}

TEST_CASE("an ignored probe gives its place back and has no say", "[breaker][circuit_breaker][CB-34][CB-35]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    b.open_until(clock.now());
    play(b, "XXXX");
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().ignored == 4);
    play(b, "SS");
    CHECK(b.state() == breaker_state::half_open);
    play(b, "X");
    play(b, "F");
    CHECK(b.state() == breaker_state::half_open);
    play(b, "S");  // one of four failed
    CHECK(b.state() == breaker_state::closed);
}

TEST_CASE("a stopped probe gives its place back, and a stopped call leaves no trace",
          "[breaker][circuit_breaker][CB-49][CB-94]") {
    hand_clock clock;
    circuit_breaker b({.window = last_calls(4), .open_for = 5s, .half_open_calls = 1});
    play(b, "FCCCC");
    check_counts(b, 1, 1);
    auto before = b.try_acquire();
    b.open_until(clock.now());
    play(b, "C");
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().probes == 0);
    before.succeeded();  // of a call from before it opened
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().stale == 1);
    CHECK(b.stats().ignored == 0);
    {
        auto dropped = b.try_acquire();
        CHECK(dropped);
        CHECK_FALSE(b.try_acquire());
    }
    CHECK(play(b, "S") == 1);
    CHECK(b.state() == breaker_state::closed);
    CHECK(b.try_acquire());  // and dropped
    CHECK(b.stats().ignored == 0);
    CHECK(b.stats().stale == 1);
    check_counts(b, 0, 0);
}

TEST_CASE("without a verdict in its time half-open opens again", "[breaker][circuit_breaker][CB-36]") {
    hand_clock clock;
    circuit_breaker b({.open_for = 5s, .half_open_calls = 2, .half_open_for = 1s});
    b.open_until(clock.now());
    auto hangs = b.try_acquire();
    std::vector<breaker_event> events;
    const auto listens = b.on_event([&](const breaker_event& e) { events.push_back(e); });
    clock += 1s - 1ns;
    CHECK(b.state() == breaker_state::half_open);
    clock += 1ns;
    CHECK(b.state() == breaker_state::open);
    REQUIRE(events.size() == 1);
    CHECK(events[0].cause == breaker_cause::probes_took_too_long);
    CHECK(b.stats().retry_after == 5s);
    hangs.succeeded();
    CHECK(b.state() == breaker_state::open);
    CHECK(b.stats().stale == 1);
    CHECK(b.stats().attempt == 1);
}

TEST_CASE("a probe that hangs has a lease, after which another takes its place and it is stale",
          "[breaker][circuit_breaker][CB-38]") {
    hand_clock clock;
    circuit_breaker b({.open_for = 5s, .half_open_calls = 2, .half_open_failure_rate = 1.0, .probe_lease = 10s});
    b.open_until(clock.now());
    auto first = b.try_acquire();
    clock += 1s;
    auto second = b.try_acquire();
    clock += 9s - 1ns;
    CHECK_FALSE(b.try_acquire());
    clock += 1ns;
    auto third = b.try_acquire();
    CHECK(third);
    CHECK_FALSE(b.try_acquire());  // the second has a second left
    first.failed();
    CHECK(b.stats().stale == 1);
    CHECK(b.stats().failed == 0);
    clock += 1s;
    second.failed();  // its lease is over, although nobody took the place
    CHECK(b.stats().stale == 2);
    CHECK(b.stats().failed == 0);
    CHECK(b.stats().probes == 1);
    third.succeeded();
    CHECK(b.state() == breaker_state::closed);
}

TEST_CASE("the lease of a probe that has ended frees no place", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.half_open_calls = 3, .half_open_failure_rate = 0.1, .probe_lease = 10s});
    b.open_until(clock.now());
    auto first = b.try_acquire();
    clock += 1s;
    auto second = b.try_acquire(), third = b.try_acquire();
    first.succeeded();
    clock += 9s;
    CHECK_FALSE(b.try_acquire());
    clock += 1s;
    CHECK(b.try_acquire());
}

TEST_CASE("a permit can be moved, and is settled once", "[breaker][circuit_breaker]") {
    circuit_breaker b({.window = last_calls(10)});
    auto permit = b.try_acquire();
    circuit_breaker::permit other(std::move(permit));
    CHECK_FALSE(permit);
    permit.failed();
    CHECK(other);
    circuit_breaker::permit third;
    third.failed();
    third = std::move(other);
    third.failed();
    CHECK_FALSE(third);
    third.failed();
    check_counts(b, 1, 1);
    auto replaced = b.try_acquire();
    replaced = circuit_breaker::permit();
    CHECK_FALSE(replaced);
    check_counts(b, 1, 1);
}

// --- other states --------------------------------------------------------------------------------------------------

TEST_CASE("metrics only never refuses, and tells each rate that is exceeded once",
          "[breaker][circuit_breaker][CB-41]") {
    hand_clock clock;
    auto options = resilience4j();
    options.initial = breaker_state::metrics_only;
    options.consecutive_failures = 4;
    options.min_calls = 3;
    circuit_breaker b(options);
    std::vector<breaker_cause> causes;
    const auto listens = b.on_event([&](const breaker_event& e) {
        if (e.cause == breaker_cause::by_hand) return;
        CHECK(e.from == breaker_state::metrics_only);
        CHECK(e.to == breaker_state::metrics_only);
        causes.push_back(e.cause);
    });
    CHECK(play(b, "FFFFFFFFFFFF") == 12);
    for (int i = 0; i < 12; ++i) call(b, clock, 5s, verdict::success);
    check_counts(b, 4, 0);
    for (int i = 0; i < 5; ++i) call(b, clock, 5s, verdict::failure);
    CHECK(b.state() == breaker_state::metrics_only);
    CHECK(causes ==
          std::vector{breaker_cause::failure_rate, breaker_cause::consecutive_failures, breaker_cause::slow_rate});
    CHECK(b.stats().rejected == 0);
    b.close();
    b.metrics_only();
    CHECK(causes.size() == 3);
}

TEST_CASE("disabled lets everything through and counts nothing", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.window = last_calls(1)});
    b.disable();
    CHECK(play(b, "FFFF") == 4);
    auto late = b.try_acquire();
    check_counts(b, 0, 0);
    CHECK(b.state() == breaker_state::disabled);
    b.close();
    late.failed();
    CHECK(b.state() == breaker_state::closed);
    CHECK(b.stats().stale == 0);
}

TEST_CASE("it begins in the state that it is told", "[breaker][circuit_breaker][CB-44]") {
    hand_clock clock;
    auto options = resilience4j();
    for (const auto s : {breaker_state::closed, breaker_state::open, breaker_state::forced_open,
                         breaker_state::disabled, breaker_state::metrics_only}) {
        options.initial = s;
        CHECK(circuit_breaker(options).state() == s);
    }
    options.initial = breaker_state::open;
    circuit_breaker b(options);
    CHECK(b.stats().retry_after == 5s);
    clock += 5s;
    CHECK(b.state() == breaker_state::half_open);
    CHECK(b.stats().opened == 0);
}

TEST_CASE("the same state again is no transition", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.open_for = 1s});
    std::vector<std::pair<breaker_state, breaker_state>> told;
    const auto listens = b.on_event([&](const breaker_event& e) { told.emplace_back(e.from, e.to); });
    play(b, "SF");
    b.close();
    check_counts(b, 2, 1);
    b.reset();
    check_counts(b, 0, 0);
    CHECK(told.empty());
    using enum breaker_state;
    for (int i = 0; i < 2; ++i) b.force_open();
    for (int i = 0; i < 2; ++i) b.disable();
    for (int i = 0; i < 2; ++i) b.metrics_only();
    for (int i = 0; i < 2; ++i) b.reset();
    CHECK(told ==
          std::vector<std::pair<breaker_state, breaker_state>>{
              {closed, forced_open}, {forced_open, disabled}, {disabled, metrics_only}, {metrics_only, closed}});
}

TEST_CASE("what was saved goes on where it was", "[breaker][circuit_breaker][CB-97]") {
    hand_clock clock;
    const circuit_breaker_options options{.window = last_calls(1), .open_for = 10s};
    circuit_breaker first(options);
    play(first, "F");
    clock += 4s;
    const auto saved = first.export_state();
    static_assert(std::is_trivially_copyable_v<circuit_breaker::saved_state>);
    CHECK(saved.state == breaker_state::open);
    CHECK(saved.open_left == 6s);
    CHECK(saved.attempt == 1);

    circuit_breaker soon(options), late(options);
    soon.restore(saved, 1s);
    CHECK(soon.stats().retry_after == 5s);
    CHECK(soon.stats().attempt == 1);
    late.restore(saved, 6s);
    CHECK(play(late, "C") == 1);
    CHECK(late.state() == breaker_state::half_open);
    const auto half = late.export_state();
    CHECK(half.state == breaker_state::open);
    CHECK(half.open_left == 0s);
    circuit_breaker at_once(options);
    at_once.restore(half);
    CHECK(at_once.state() == breaker_state::half_open);

    first.disable();
    soon.restore(first.export_state());
    CHECK(soon.state() == breaker_state::disabled);
    circuit_breaker::saved_state broken;
    broken.state = static_cast<breaker_state>(17);
    CHECK_THROWS_AS(soon.restore(broken), std::invalid_argument);
    CHECK_THROWS_WITH(soon.restore({.state = breaker_state::open, .open_left = -5s}),
                      "circuit_breaker: saved.open_left is -5000000000 ns, allowed is what is not negative");
    CHECK_THROWS_AS(soon.restore({.last_open = -1s}), std::invalid_argument);
    CHECK(soon.state() == breaker_state::disabled);
}

// --- tasks, policies, observation ----------------------------------------------------------------------------------

TEST_CASE("an admission is ready at once, and its refusal is an outcome", "[breaker][circuit_breaker]") {
    const auto root = []() -> co::task<> {
        circuit_breaker b({.name = "b", .window = last_calls(1), .open_for = 5s});
        {
            auto permit = co_await b.admission();
            permit.failed();
        }
        auto refused = co_await co::as_outcome(b.admission());
        CHECK(refused.is_rejected());
        CHECK(refused.rejection().retry_after == 5s);
        bool thrown = false;
        try {
            auto never = co_await b.admission();
        } catch (const co::rejected& e) {
            thrown = e.rejection().reason == co::reject_reason::circuit_open;
        }
        CHECK(thrown);
        co_await co::sleep_for(5s);
        auto probe = co_await co::as_outcome(b.admission());
        CHECK(probe.has_value());
        CHECK(b.stats().probes == 1);
    };
    co::testing::simulation sim{1};
    sim.run(root);
}

TEST_CASE("a call that is stopped while it is a probe leaves half-open as it was",
          "[breaker][circuit_breaker][CB-99]") {
    const auto root = []() -> co::task<> {
        circuit_breaker b({.window = last_calls(1), .open_for = 5s, .half_open_calls = 1});
        play(b, "F");
        co_await co::sleep_for(5s);
        const auto hangs = [&]() -> co::task<> {
            auto permit = co_await b.admission();
            co_await co::sleep_for(1h);
            permit.failed();
        };
        const auto ended = co_await co::as_outcome(co::with_timeout(1s, hangs()));
        CHECK(ended.is_error());
        CHECK(b.state() == breaker_state::half_open);
        CHECK(b.stats().probes == 0);
        CHECK(play(b, "S") == 1);
        CHECK(b.state() == breaker_state::closed);
    };
    co::testing::simulation sim{1};
    sim.run(root);
}

TEST_CASE("wherever a guarded task is stopped, its place as a probe is free again",
          "[breaker][circuit_breaker][cancel_sweep][T7]") {
    std::optional<circuit_breaker> b;
    const auto guarded = [&]() -> co::task<> {
        b->open_until(co::clock::now());
        co_await co::sleep_for(1s);
        auto permit = co_await b->admission();
        co_await co::sleep_for(1s);
        permit.succeeded();
        co_await co::sleep_for(1s);
    };
    const auto make = [&] {
        b.emplace(circuit_breaker_options{.half_open_calls = 1});
        return guarded();
    };
    std::size_t closed = 0, half_open = 0;
    const auto check = [&](const co::outcome<void>&, co::testing::sweep_point) {
        ++(b->stats().state == breaker_state::closed ? closed : half_open);
        return b->stats().probes == 0;
    };
    const auto swept = co::testing::cancel_sweep({.fail_awaits = true}, make, check);
    INFO(co::testing::describe(swept));
    CHECK(swept.findings.empty());
    CHECK(closed > 0);
    CHECK(half_open > 0);
}

TEST_CASE("a call that is stopped at any point counts in no state", "[breaker][circuit_breaker][cancel_sweep][T7]") {
    struct world {
        circuit_breaker breaker{{.half_open_calls = 3}};
        std::uint64_t ended = 0, failed = 0;  // in the present state
    };
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in) -> co::task<> {
            const auto call = [&]() -> co::task<> {
                bool broken = false;
                try {
                    co_await co::sleep_for(1ms);
                } catch (const co::testing::injected_error&) {
                    broken = true;
                }
                if (++in->ended % 2 == 1 && !broken) co_return;
                ++in->failed;
                throw std::runtime_error("failed");
            };
            const auto both = [&]() -> co::task<> {
                co_await co::when_all(co::as_outcome(in->breaker(call)), co::as_outcome(in->breaker(call)));
            };
            co_await both();
            co_await both();
            in->ended = in->failed = 0;
            in->breaker.open_until(co::clock::now());
            co_await both();
        }(w);
    };
    std::size_t half_open = 0;
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        const auto check = [&](const co::outcome<void>&, const co::testing::sweep_point& at) {
            const auto s = w->breaker.stats();
            half_open += s.state == breaker_state::half_open;
            if (s.state == breaker_state::open)  // two of three probes have failed, one because of the sweep
                return at.variant == co::testing::sweep_variant::error && s.probes == 0;
            return s.calls == w->ended && s.failed == w->failed && s.probes == 0 && s.rejected == 0;
        };
        const auto swept = co::testing::cancel_sweep({.seed = seed, .fail_awaits = true}, make, check);
        INFO("seed " << seed << ": " << co::testing::describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 5);
    }
    CHECK(half_open > 5);
}

TEST_CASE("it needs no timer, and what it would do by itself is gone when it is forced open",
          "[breaker][circuit_breaker][CB-45]") {
    co::testing::simulation sim{1};
    const auto root = [&]() -> co::task<> {
        circuit_breaker b({.window = last_calls(1), .open_for = 2s});
        play(b, "F");
        CHECK(sim.armed_timers() == 0);
        b.force_open();
        co_await co::sleep_for(2s);
        CHECK(b.state() == breaker_state::forced_open);
    };
    sim.run(root);
}

TEST_CASE("exporters find counters, gauges and the state", "[breaker][circuit_breaker]") {
    hand_clock clock;
    circuit_breaker b({.name = "stock", .window = last_calls(1), .open_for = 5s});
    play(b, "FSSS");
    struct {
        std::string text;
        void counter(std::string_view name, std::uint64_t n, std::string_view) {
            text += std::string(name) + "=" + std::to_string(n) + " ";
        }
        void gauge(std::string_view name, std::uint64_t n, std::string_view) {
            text += std::string(name) + "=" + std::to_string(n) + " ";
        }
        void state(std::string_view name, std::size_t index, std::span<const std::string_view> names,
                   std::string_view) {
            text += std::string(name) + "=" + std::string(names[index]);
        }
    } sink;
    b.report(sink);
    CHECK(sink.text == "rejected=3 opened=1 stale=0 ignored=0 calls=0 failed=0 slow=0 state=open");
    CHECK(b.name() == "stock");
    CHECK(circuit_breaker::kind == "circuit_breaker");
}

TEST_CASE("a breaker says what is wrong with an option", "[breaker][circuit_breaker]") {
    CHECK(invalid({}) == "valid");
    CHECK(invalid({.window = last_calls(0)}) ==
          "circuit_breaker: window is last_calls(0), allowed are 1 to 65536 calls");
    CHECK(invalid({.window = last_calls(65'537)}).find("65537") != std::string::npos);
    CHECK(invalid({.window = last(0s)}).find("window is last(0ns, 1), allowed are buckets of 1ms or more") !=
          std::string::npos);
    CHECK(invalid({.failure_rate = std::nullopt}) ==
          "circuit_breaker: failure_rate is nullopt, allowed is that only beside consecutive_failures or slow_call: it "
          "would never open");
    CHECK(invalid({.failure_rate = std::nullopt, .slow_call = 1s}) == "valid");
    CHECK(invalid({.failure_rate = std::nullopt, .consecutive_failures = 1}) == "valid");
    CHECK(invalid({.window = last(-1s)}).find("buckets of 1ms") != std::string::npos);
    CHECK(invalid({.window = last(1s, 0)}).find("1 to 1024 buckets") != std::string::npos);
    CHECK(invalid({.window = last(10ms, 11)}).find("buckets of 1ms") != std::string::npos);
    CHECK(invalid({.min_calls = 0}) == "circuit_breaker: min_calls is 0, allowed are 1 or more");
    CHECK(invalid({.failure_rate = 0.0}).find("failure_rate is 0.0") != std::string::npos);
    CHECK(invalid({.failure_rate = 1.5}).find("more than 0 to 1") != std::string::npos);
    CHECK(invalid({.failure_rate = std::numeric_limits<double>::quiet_NaN()}).find("nan") != std::string::npos);
    CHECK(invalid({.consecutive_failures = 0}).find("consecutive_failures is 0") != std::string::npos);
    CHECK(invalid({.slow_call = -1ns}).find("slow_call is -1ns") != std::string::npos);
    CHECK(invalid({.slow_rate = 0}).find("slow_rate") != std::string::npos);
    CHECK(invalid({.open_for = -3s}) == "circuit_breaker: open_for is -3000000000ns, allowed are more than 0");
    CHECK(invalid({.open_for = co::open_time::growing(5s, 1s)}) ==
          "circuit_breaker: open_for is growing(5000000000ns, 1000000000ns, {.factor = 2.000000, .jitter = 0.100000}), "
          "allowed are a most that is no less than the first");
    CHECK(invalid({.half_open_calls = 0}).find("half_open_calls is 0, allowed are 1 to 1024") != std::string::npos);
    CHECK(invalid({.half_open_calls = 1'025}).find("half_open_calls") != std::string::npos);
    CHECK(invalid({.half_open_failure_rate = -1.0}).find("half_open_failure_rate") != std::string::npos);
    CHECK(invalid({.probe_lease = 0s}).find("probe_lease is 0ns") != std::string::npos);
    CHECK(invalid({.half_open_for = 0s}).find("half_open_for") != std::string::npos);
    CHECK(invalid({.initial = breaker_state::half_open}).find("initial is half open") != std::string::npos);
}

TEST_CASE("a breaker that is destroyed while its probes are out, or somebody listens, says so",
          "[breaker][circuit_breaker]") {
    // Who is left behind is leaked, for it must not touch what is gone.
    const auto probe_out = last_words([] {
        auto b = std::make_unique<circuit_breaker>(circuit_breaker_options{.name = "stock"});
        b->open_until(co::clock::now());
        (void)new circuit_breaker::permit(b->try_acquire());
    });
    CHECK(probe_out.find("circuit_breaker \"stock\" destroyed while 1 calls") != std::string::npos);
    const auto left_over = last_words([] {
        auto b = std::make_unique<circuit_breaker>(circuit_breaker_options{.name = "stock", .half_open_calls = 3});
        b->open_until(co::clock::now());
        auto first = b->try_acquire(), second = b->try_acquire();
        (void)new circuit_breaker::permit(b->try_acquire());
        first.succeeded();
        second.succeeded();
        if (b->state() != breaker_state::closed) std::abort();
    });
    CHECK(left_over.find("circuit_breaker \"stock\" destroyed while 1 calls") != std::string::npos);
    const auto listened = last_words([] {
        auto b = std::make_unique<circuit_breaker>(circuit_breaker_options{.name = "stock"});
        (void)new circuit_breaker::subscription(b->on_event([](const breaker_event&) {}));
    });
    CHECK(listened.find("circuit_breaker \"stock\" destroyed while 1 listen") != std::string::npos);
}
