// SPDX-License-Identifier: MIT
#pragma once

// What the tests of this room share.

#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "hand_clock.hpp"

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>

namespace breaker_test {

using namespace std::chrono_literals;
namespace co = cordon;
using co::circuit_breaker;
using co::circuit_breaker_options;

/// Makes calls that end at once: S succeeds, F fails, X is ignored, C is stopped.
/// Returns:       how many were let through
inline int play(circuit_breaker& breaker, std::string_view calls) {
    int admitted = 0;
    for (const char c : calls) {
        auto permit = breaker.try_acquire();
        if (!permit) continue;
        ++admitted;
        permit.settle(c == 'S'   ? co::verdict::success
                      : c == 'F' ? co::verdict::failure
                      : c == 'X' ? co::verdict::ignored
                                 : co::verdict::stopped);
    }
    return admitted;
}
/// Trips on consecutive failures alone, as gobreaker does by default.
inline circuit_breaker_options in_a_row(std::uint32_t n) {
    return {.failure_rate = std::nullopt, .consecutive_failures = n, .open_for = 60s, .half_open_calls = 1};
}
/// The block of numbers that resilience4j's tests share.
inline circuit_breaker_options resilience4j() {
    return {.window = co::last(20s, 20),
            .min_calls = 5,
            .failure_rate = 0.5,
            .slow_call = 4s,
            .slow_rate = 0.5,
            .open_for = 5s,
            .half_open_calls = 4};
}
/// One call that takes so long.
inline void call(circuit_breaker& b, hand_clock& clock, co::clock::duration takes, co::verdict v) {
    auto permit = b.try_acquire();
    REQUIRE(permit);
    clock += takes;
    permit.settle(v);
}
/// What it says if it refuses the next call.
inline std::optional<co::rejection> refusal(circuit_breaker& b) {
    decltype(b.admission())::state s(b.admission());
    REQUIRE(s.ready());
    auto ended = s.take();
    REQUIRE_FALSE(ended.is_stopped());
    if (ended.has_value()) return std::nullopt;
    return ended.rejection();
}
inline void check_counts(const circuit_breaker& b, std::uint64_t calls, std::uint64_t failed) {
    const auto s = b.stats();
    CHECK(s.calls == calls);
    CHECK(s.failed == failed);
}

}  // namespace breaker_test
