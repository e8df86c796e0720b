// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/held_ends.hpp>
#include <cordon/core/detail/thread_state.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/task_record.hpp>

#include <cstdint>
#include <exception>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What ends badly on a thread just now: exceptions on their way, and frames that are destroyed after one, or a stop.
struct interruptions {
    int exceptions = 0, frames = 0;
    [[nodiscard]] bool any() const noexcept { return (exceptions | frames) != 0; }
};

/// The executor whose items this thread runs now, and the time when it last looked at the clock.
struct executor_frame {
    const void* executor = nullptr;
    void* worker = nullptr;  ///< the executor's own: which of its threads this is
    std::uint32_t now_ms = 0;
    interruptions before;    ///< those below which the executor runs: a host may poll it in a destructor
    held_ends* ends = nullptr;  ///< if it holds any
};
inline constinit thread_local executor_frame this_executor;

CORDON_THREAD_LOCAL_ACCESS inline bool runs_here(const void* executor) noexcept {
    return this_executor.executor == executor;
}
/// What the executor said about this thread; null elsewhere.
CORDON_THREAD_LOCAL_ACCESS inline void* worker_here(const void* executor) noexcept {
    return this_executor.executor == executor ? this_executor.worker : nullptr;
}
/// Where ends are held; null on a thread that does not.
CORDON_THREAD_LOCAL_ACCESS inline held_ends* held_ends_here() noexcept { return this_executor.ends; }
/// Where the end of what runs here can be held: its item, too, has come to its end (H2).
CORDON_THREAD_LOCAL_ACCESS inline held_ends* held_ends_at_last() noexcept {
    return this_thread_state.has_leftovers ? nullptr : this_executor.ends;
}
CORDON_THREAD_LOCAL_ACCESS inline bool runs_any_here() noexcept { return this_executor.executor != nullptr; }

/// A time in milliseconds that is good enough for "since when": inside an executor the time of its present batch.
CORDON_THREAD_LOCAL_ACCESS inline std::uint32_t coarse_now_ms() noexcept {
    return this_executor.executor != nullptr ? this_executor.now_ms : to_record_ms(quick_now());
}
/// For an executor whose batch goes on while its clock does.
CORDON_NOINLINE inline void set_coarse_now(clock::time_point now) noexcept { this_executor.now_ms = to_record_ms(now); }

/// Those of this thread, without those below which its executor runs.
[[nodiscard]] CORDON_NOINLINE inline interruptions interruptions_here() noexcept {
    const interruptions before = this_executor.before;
    return {std::uncaught_exceptions() - before.exceptions, this_thread_state.interrupted_frames - before.frames};
}

/// Makes `executor` the one that runs on this thread, until the end of the block.
class executor_entry {
public:
    CORDON_NOINLINE executor_entry(const void* executor, clock::time_point now, void* worker = nullptr,
                                   held_ends* ends = nullptr) noexcept
        : outer_(this_executor) {
        if (outer_.ends != nullptr) outer_.ends->count();  // H3
        const interruptions before{std::uncaught_exceptions(), this_thread_state.interrupted_frames};
        this_executor = {executor, worker, to_record_ms(now), before, ends};
    }
    CORDON_NOINLINE ~executor_entry() { this_executor = outer_; }
    executor_entry(const executor_entry&) = delete;
    executor_entry& operator=(const executor_entry&) = delete;

private:
    executor_frame outer_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
