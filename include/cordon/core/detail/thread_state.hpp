// SPDX-License-Identifier: MIT
#pragma once

// What a thread that resumes coroutines has to know, below whatever needs to hold that up.

#include <cordon/core/detail/config.hpp>

#include <coroutine>
#include <utility>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {

class promise_base;
struct work_item;

namespace detail {

/// A foreign coroutine's `await_suspend` that is still on the stack: who awaits there, and whether that ended
/// meanwhile.
struct foreign_start {
    const void* awaiter;
    foreign_start* outer;
    bool ended = false;
};

/// Constant-initialized and trivially destructible, so that reaching it takes no call.
struct thread_state {
    int budget = 0;                     ///< transfers left before the next bounce; 0 outside any loop
    bool looping = false;
    bool has_leftovers = false;         ///< set with each of `next`, `stop_receiver`, `finished` and `inline_head`, so
                                        ///< that the loop looks at one member for all; cleared when none is left
    std::coroutine_handle<> next;       ///< set by a bounce
    char* stop_receiver = nullptr;      ///< a receiver_ref, set by stop_later, with the child below
    promise_base* stop_child = nullptr;
    promise_base* finished = nullptr;   ///< a root that has ended and waits to be destroyed
    void (*reap)(promise_base&) noexcept = nullptr;
    work_item* inline_head = nullptr;   ///< items of operations that were awaited without an executor
    work_item* inline_tail = nullptr;
    void (*run_inline)() noexcept = nullptr;   ///< runs those; set with the first
    foreign_start* starting = nullptr;  ///< the innermost one
    int interrupted_frames = 0;         ///< that are being destroyed on this thread, and did not end with a value
};
inline constinit thread_local thread_state this_thread_state;

/// Destroys a frame that a stop or an exception has ended, of which parameters and captures are left: what it owns can
/// ask, by `interruptions_here`, whether that is why it dies.
CORDON_NOINLINE inline void destroy_interrupted(std::coroutine_handle<> frame) noexcept {
    thread_state& t = this_thread_state;
    ++t.interrupted_frames;
    frame.destroy();
    --t.interrupted_frames;
}

/// Until the end of the block nothing that waits without an executor goes on here; then it does. For whoever asks
/// somebody to stop and looks at its own members afterwards: they may be a part of what the stop has go on, and ends.
class deferred_wakes {
public:
    CORDON_NOINLINE deferred_wakes() noexcept : outer_(std::exchange(this_thread_state.looping, true)) {}
    deferred_wakes(const deferred_wakes&) = delete;
    deferred_wakes& operator=(const deferred_wakes&) = delete;
    CORDON_NOINLINE ~deferred_wakes() {
        thread_state& t = this_thread_state;
        t.looping = outer_;
        if (!outer_ && t.inline_head != nullptr) [[unlikely]] t.run_inline();
    }

private:
    const bool outer_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
