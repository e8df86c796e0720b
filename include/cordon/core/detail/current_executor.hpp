// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// The executor whose items this thread runs now, and the time when it last looked at the clock.
struct executor_frame {
    const void* executor = nullptr;
    std::uint32_t now_ms = 0;
};
inline constinit thread_local executor_frame this_executor;

CORDON_NOINLINE inline bool runs_here(const void* executor) noexcept { return this_executor.executor == executor; }
CORDON_NOINLINE inline bool runs_any_here() noexcept { return this_executor.executor != nullptr; }

[[nodiscard]] inline std::uint32_t milliseconds_of(clock::time_point t) noexcept {
    return static_cast<std::uint32_t>(
        std::chrono::duration_cast<std::chrono::milliseconds>(t.time_since_epoch()).count());
}

/// A time in milliseconds that is good enough for "since when": inside an executor the time of its present batch.
CORDON_NOINLINE inline std::uint32_t coarse_now_ms() noexcept {
    return this_executor.executor != nullptr ? this_executor.now_ms : milliseconds_of(clock::now());
}
/// Makes `executor` the one that runs on this thread, until the end of the block.
class executor_entry {
public:
    CORDON_NOINLINE executor_entry(const void* executor, clock::time_point now) noexcept : outer_(this_executor) {
        this_executor.executor = executor;
        this_executor.now_ms = milliseconds_of(now);
    }
    CORDON_NOINLINE ~executor_entry() { this_executor = outer_; }
    executor_entry(const executor_entry&) = delete;
    executor_entry& operator=(const executor_entry&) = delete;

private:
    executor_frame outer_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
