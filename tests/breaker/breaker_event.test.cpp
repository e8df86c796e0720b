// SPDX-License-Identifier: MIT
#include <cordon/breaker/breaker_event.hpp>

#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "play.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace breaker_test;
namespace co = cordon;
using co::breaker_cause;
using co::breaker_event;
using co::breaker_state;
using co::last_calls;

const circuit_breaker_options one_call{.window = last_calls(1), .open_for = 5s, .half_open_calls = 1};

}  // namespace

TEST_CASE("every state and every cause has a name of its own", "[breaker][breaker_event]") {
    std::set<std::string> names;
    for (std::uint8_t i = 0; i < co::breaker_states; ++i) names.insert(to_string(static_cast<breaker_state>(i)));
    CHECK(names.size() == co::breaker_states);
    CHECK(names.count("unknown") == 0);
    CHECK(to_string(static_cast<breaker_state>(co::breaker_states)) == std::string("unknown"));
    std::set<std::string> causes;
    for (std::uint8_t i = 0; i <= static_cast<std::uint8_t>(breaker_cause::stale); ++i)
        causes.insert(to_string(static_cast<breaker_cause>(i)));
    CHECK(causes.size() == 9);
    CHECK(causes.count("unknown") == 0);
}

TEST_CASE("generations grow with what is told, and with resets, of which nobody is told", "[breaker][breaker_event]") {
    circuit_breaker b(one_call);
    std::vector<std::uint64_t> told;
    const auto listens = b.on_event([&](const breaker_event& e) { told.push_back(e.generation); });
    b.disable();
    b.close();
    b.reset();
    b.reset();
    b.disable();
    CHECK(told == std::vector<std::uint64_t>{2, 3, 6});
    CHECK(b.stats().generation == 6);
    CHECK(b.stats().events_lost == 0);
}

TEST_CASE("a whole cycle is told in its order, with causes and times", "[breaker][breaker_event]") {
    hand_clock clock;
    circuit_breaker b(one_call);
    std::vector<breaker_event> told;
    const auto listens = b.on_event([&](const breaker_event& e) { told.push_back(e); });
    CHECK(listens);
    const auto begin = clock.now();
    play(b, "F");
    clock += 6s;
    play(b, "F");
    clock += 5s;
    play(b, "S");
    REQUIRE(told.size() == 5);
    using enum breaker_state;
    const auto is = [&](std::size_t i, breaker_state from, breaker_state to, breaker_cause why,
                        co::clock::duration at) {
        CAPTURE(i);
        CHECK(told[i].from == from);
        CHECK(told[i].to == to);
        CHECK(told[i].cause == why);
        CHECK(told[i].at == begin + at);
        CHECK(told[i].generation == i + 2);  // it began with the first
    };
    is(0, closed, open, breaker_cause::failure_rate, 0s);
    is(1, open, half_open, breaker_cause::waited, 6s);
    is(2, half_open, open, breaker_cause::probes_failed, 6s);
    is(3, open, half_open, breaker_cause::waited, 11s);
    is(4, half_open, closed, breaker_cause::probes_passed, 11s);
    CHECK(told[0].calls == 1);
    CHECK(told[0].failed == 1);
    CHECK(told[1].calls == 0);
    CHECK(told[4].calls == 1);
    CHECK(told[4].failed == 0);
}

TEST_CASE("a listener may use the breaker, and what it causes is told after what it was told",
          "[breaker][breaker_event][CB-17]") {
    hand_clock clock;
    circuit_breaker b(one_call);
    std::vector<breaker_state> first, second;
    const auto meddles = b.on_event([&](const breaker_event& e) {
        first.push_back(e.to);
        CHECK(b.stats().listener_errors == 0);
        if (e.to == breaker_state::open) b.disable();
        if (e.to == breaker_state::disabled) CHECK(play(b, "SF") == 2);
    });
    const auto watches = b.on_event([&](const breaker_event& e) { second.push_back(e.to); });
    play(b, "F");
    CHECK(first == std::vector{breaker_state::open, breaker_state::disabled});
    CHECK(second == first);
}

TEST_CASE("a listener that throws is counted, and neither the call nor the other listeners notice",
          "[breaker][breaker_event][CB-50]") {
    circuit_breaker b(one_call);
    int told = 0;
    const auto before = b.on_event([&](const breaker_event&) { ++told; });
    const auto throws = b.on_event([](const breaker_event&) { throw std::runtime_error("no"); });
    const auto after = b.on_event([&](const breaker_event&) { ++told; });
    CHECK(play(b, "F") == 1);
    CHECK(told == 2);
    CHECK(b.stats().listener_errors == 1);
    b.disable();
    CHECK(told == 4);
    CHECK(b.stats().listener_errors == 2);
}

TEST_CASE("a subscription that has gone is told nothing more, and one that has moved goes on",
          "[breaker][breaker_event][CB-91]") {
    circuit_breaker b(one_call);
    int told = 0;
    const auto alive = std::make_shared<int>(0);
    {
        auto here = b.on_event([&told, alive](const breaker_event&) { ++told; });
        b.disable();
        auto there = std::move(here);
        CHECK_FALSE(here);
        b.close();
        CHECK(told == 2);
        CHECK(alive.use_count() == 2);
    }
    CHECK(alive.use_count() == 1);
    b.disable();
    CHECK(told == 2);
    auto replaced = b.on_event([&](const breaker_event&) { ++told; });
    replaced = circuit_breaker::subscription();
    b.close();
    CHECK(told == 2);
}

TEST_CASE("a listener may end its own subscription, and others', while it is told", "[breaker][breaker_event]") {
    circuit_breaker b(one_call);
    const auto alive = std::make_shared<int>(0);
    std::string order;
    std::optional<circuit_breaker::subscription> first, second, third;
    first.emplace(b.on_event([&, alive](const breaker_event&) {
        order += '1';
        const auto kept = alive;
        first.reset();
        CHECK(kept.use_count() >= 3);  // its captures live as long as the call
        second.reset();
    }));
    second.emplace(b.on_event([&](const breaker_event&) { order += '2'; }));
    third.emplace(b.on_event([&](const breaker_event&) { order += '3'; }));
    b.disable();
    CHECK(order == "13");
    CHECK(alive.use_count() == 1);
    b.close();
    CHECK(order == "133");
    third.reset();
    b.disable();
    CHECK(order == "133");
}

TEST_CASE("a listener that comes while another is told hears of what comes later", "[breaker][breaker_event]") {
    circuit_breaker b(one_call);
    std::vector<breaker_state> late;
    std::optional<circuit_breaker::subscription> second;
    const auto first = b.on_event([&](const breaker_event&) {
        if (!second) second.emplace(b.on_event([&](const breaker_event& e) { late.push_back(e.to); }));
    });
    b.disable();
    CHECK(late.empty());
    b.close();
    CHECK(late == std::vector{breaker_state::closed});
}

TEST_CASE("events that nobody has time for are lost and counted, stale ones first", "[breaker][breaker_event]") {
    circuit_breaker b(one_call);
    std::size_t stale = 0, others = 0;
    const auto slow = b.on_event([&](const breaker_event& e) {
        ++(e.cause == breaker_cause::stale ? stale : others);
        if (stale + others != 1) return;
        for (int i = 0; i < 40; ++i) {  // more than there is room for, while the first is told
            auto late = b.try_acquire();
            i % 2 == 0 ? b.disable() : b.close();
            late.failed();
        }
    });
    b.metrics_only();
    CHECK(stale + others + b.stats().events_lost == 1 + 40 + b.stats().stale);
    CHECK(stale > 0);
    CHECK(stale <= 16);
    CHECK(others + stale == 1 + 32);
    CHECK(b.stats().events_lost > 0);
}
