// SPDX-License-Identifier: MIT
#pragma once

// Two barriers for two threads of which one writes A and reads B, often, and the other writes B and reads A, seldom.
// With the light one between the former's write and read, and the heavy one between the latter's, at least one of the
// two sees what the other wrote, as if both had fences of sequential consistency; but the light one is no instruction.
//
// Source: McKenney and others' sys_membarrier of Linux, 2010 and 2015, for user-space RCU; Goldblatt, "Asymmetric
// Fences", WG21 P1202.

#include <cordon/core/detail/config.hpp>

#include <atomic>

#if defined(__linux__)
#include <cerrno>

#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Keeps the compiler from moving the write after the read.
inline void light_barrier() noexcept { std::atomic_signal_fence(std::memory_order_seq_cst); }

/// Makes each thread of the process execute a full fence at some moment between the call and the return.
/// Returns:       whether it did: only Linux 4.14 and later can, and what filters system calls may refuse it
/// Threads:       not under a spin lock: it waits for the other processors, the first one in a process for milliseconds
[[nodiscard]] inline bool heavy_barrier() noexcept {
#if defined(__linux__) && defined(SYS_membarrier)
    constexpr int private_expedited = 8, register_private_expedited = 16;  // of <linux/membarrier.h>, which is younger
    const auto succeeds = [](int command) noexcept { return ::syscall(SYS_membarrier, command, 0, 0) == 0; };
    const int before = errno;
    const bool done = succeeds(private_expedited) ||
                      (succeeds(register_private_expedited) && succeeds(private_expedited));
    errno = before;
    return done;
#else
    return false;
#endif
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
