// SPDX-License-Identifier: MIT
#pragma once

// What a circuit breaker tells those who listen: that it went from one state to another, why, and when.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <cstdint>

namespace cordon::inline CORDON_ABI {

enum class breaker_state : std::uint8_t {
    closed,        ///< lets all calls through and counts how they end
    open,          ///< refuses all calls until a time
    half_open,     ///< lets a few calls through, which decide
    forced_open,   ///< refuses all calls until somebody changes that
    disabled,      ///< lets all calls through and counts nothing
    metrics_only,  ///< lets all calls through and counts them, but never opens
};
inline constexpr std::uint8_t breaker_states = 6;

[[nodiscard]] constexpr const char* to_string(breaker_state state) noexcept {
    switch (state) {
        case breaker_state::closed: return "closed";
        case breaker_state::open: return "open";
        case breaker_state::half_open: return "half open";
        case breaker_state::forced_open: return "forced open";
        case breaker_state::disabled: return "disabled";
        case breaker_state::metrics_only: return "metrics only";
    }
    return "unknown";
}

/// Why something happened to a breaker.
enum class breaker_cause : std::uint8_t {
    failure_rate,          ///< too many calls of the window failed
    slow_rate,             ///< too many calls of the window were slow
    consecutive_failures,  ///< too many calls failed in a row
    waited,                ///< it was open for as long as it should be
    probes_failed,         ///< too many of the calls in half-open failed or were slow
    probes_passed,         ///< enough of them went well
    probes_took_too_long,  ///< no verdict within `half_open_for`
    by_hand,               ///< somebody called `force_open()`, `close()`, `restore()` or the like
    stale,                 ///< nothing changed: a call ended whose outcome belongs to a state that is over
};

[[nodiscard]] constexpr const char* to_string(breaker_cause cause) noexcept {
    switch (cause) {
        case breaker_cause::failure_rate: return "failure rate";
        case breaker_cause::slow_rate: return "slow rate";
        case breaker_cause::consecutive_failures: return "consecutive failures";
        case breaker_cause::waited: return "waited";
        case breaker_cause::probes_failed: return "probes failed";
        case breaker_cause::probes_passed: return "probes passed";
        case breaker_cause::probes_took_too_long: return "probes took too long";
        case breaker_cause::by_hand: return "by hand";
        case breaker_cause::stale: return "stale";
    }
    return "unknown";
}

/// One thing that happened. `from` and `to` are equal where no state changed: a `stale` outcome, or a rate that was
/// exceeded in `metrics_only`.
struct breaker_event {
    breaker_state from = breaker_state::closed;
    breaker_state to = breaker_state::closed;
    breaker_cause cause = breaker_cause::by_hand;
    clock::time_point at{};
    std::uint64_t calls = 0;       ///< of the window, or the probes, that led here
    std::uint64_t failed = 0;      ///< of them
    std::uint64_t slow = 0;        ///< of them
    std::uint64_t generation = 0;  ///< that of `to`: larger after each transition; `stats()` counts what was lost
};

}  // namespace cordon::inline CORDON_ABI
