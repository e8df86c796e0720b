// SPDX-License-Identifier: MIT
#pragma once

// A timer is a node that its owner embeds, usually in a coroutine frame, so that arming one never allocates. A timer
// service is whoever fires it: the queue of a run loop, the timers of a host, or the virtual time of a simulation.

#include <cordon/core/detail/config.hpp>

#include <chrono>

namespace cordon::inline CORDON_ABI {

/// Two pointers that belong to the service: both null while the timer is not armed.
struct timer_link {
    timer_link* prev = nullptr;
    timer_link* next = nullptr;
};

/// Calls `fire` once, at `when` or soon after. Neither moves nor changes its fields while it is armed.
/// Requires:      `when` is not `time_point::max()`, which means never; a time that has passed is due at once
/// Threads:       `fire` runs on a thread of the service, outside its locks; it must not block nor resume a coroutine
/// Lifetime:      before the node dies it has fired or was cancelled; `fire` itself may destroy it or arm it again
struct timer : timer_link {
    using time_point = std::chrono::steady_clock::time_point;
    using function = void (*)(timer&) noexcept;

    explicit timer(function f) noexcept : fire(f) {}
    timer(const timer&) = delete;
    timer& operator=(const timer&) = delete;

    time_point when{};
    function fire;
};
static_assert(sizeof(timer) <= 40, "a timer is part of every coroutine frame that may wait with a deadline");

/// What fires timers.
class timer_service {
public:
    timer_service() = default;
    timer_service(const timer_service&) = delete;
    timer_service& operator=(const timer_service&) = delete;

    /// Takes the timer until it fires or is cancelled.
    /// Requires:      it is not armed
    /// Threads:       from any; inside a `fire` too, even that of the same timer
    /// Order:         fires in order of `when`, equal ones in the order in which they were armed
    virtual void arm(timer& t) noexcept = 0;

    /// Returns once the timer is neither armed nor firing: unlinks it, or waits while its `fire` runs on another
    /// thread. Called from inside that `fire` it returns at once; for a timer that is not armed it does nothing.
    /// Requires:      nobody else arms the timer meanwhile, but its own `fire`
    /// Threads:       from any, but never under a lock that `fire` takes
    virtual void cancel(timer& t) noexcept = 0;

protected:
    ~timer_service() = default;
};

}  // namespace cordon::inline CORDON_ABI
