// SPDX-License-Identifier: MIT
#pragma once

// The one clock that this library knows: the steady clock, or the virtual clock of a simulation that runs on this
// thread. Every deadline, timer and age is measured with it, so that a test in virtual time tests all of them. Where a
// microsecond does not matter it is read for less: detail/tick_clock.hpp.

#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// How many simulations run in this process: zero in a service, which keeps `clock::now()` from looking further.
inline std::atomic<std::uint32_t> simulations{0};

/// The virtual time of the simulation that runs on this thread; null outside one.
inline constinit thread_local const std::chrono::steady_clock::time_point* virtual_now = nullptr;

CORDON_NOINLINE inline std::chrono::steady_clock::time_point simulated_now() noexcept {
    return virtual_now != nullptr ? *virtual_now : std::chrono::steady_clock::now();
}

/// Whether a simulation runs on this thread.
CORDON_NOINLINE inline bool simulated_here() noexcept { return virtual_now != nullptr; }

}  // namespace detail

/// A Clock in the sense of the standard: `std::chrono::steady_clock`, or virtual time inside a simulation. Like
/// CLOCK_MONOTONIC, which it reads, it does not advance while the machine is suspended.
/// Threads:       from any; virtual time exists only on the thread that runs the simulation
/// Cost:          one reading of the steady clock and one relaxed load
struct clock {
    using duration = std::chrono::steady_clock::duration;
    using rep = duration::rep;
    using period = duration::period;
    using time_point = std::chrono::steady_clock::time_point;
    static constexpr bool is_steady = true;

    [[nodiscard]] static time_point now() noexcept {
        if (detail::simulations.load(std::memory_order_relaxed) != 0) [[unlikely]] return detail::simulated_now();
        return std::chrono::steady_clock::now();
    }
};

}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
