// SPDX-License-Identifier: MIT
#pragma once

// An executor of one thread: `run()` gives it a thread of its own; a host that has a loop already polls it instead.
//
//     run_loop loop;
//     start_on(loop, serve(), [&](outcome<void>) { loop.stop(); });
//     loop.run();

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/item_queue.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/run/detail/clock_pace.hpp>
#include <cordon/time/timer_queue.hpp>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string_view>

namespace cordon::inline CORDON_ABI {

/// Runs items in the order in which they were submitted, one at a time. Satisfies `executor`.
/// Threads:       `submit`, `stop`, `stats` and the timers from any; `run` and `poll` on one thread at a time
/// Lifetime:      outlives everything that runs on it; destroyed with something left to run it says so and terminates
/// Cost:          a submission from its own thread takes no atomic, from elsewhere one exchange, and a wake-up only
///                if the loop sleeps
class run_loop {
public:
    using wake_hook = void (*)(void*) noexcept;

    static constexpr std::string_view kind = "run_loop";

    struct snapshot {
        std::size_t timers = 0;
    };

    run_loop() noexcept : run_loop(nullptr, nullptr) {}

    /// For a loop that is polled: `on_wake(argument)` is called from the thread that gives the sleeping loop something
    /// to do, once until the next `poll`. It may be called under a lock of what wakes a task or arms a timer: it tells
    /// the host, by writing to a file descriptor or posting to its queue, and calls nothing of this library.
    /// Lifetime:      the argument outlives the threads that submit; the loop need not, once all has run
    run_loop(wake_hook on_wake, void* argument) noexcept
        : on_wake_(on_wake), argument_(argument), timers_(&run_loop::earlier_timer, this) {}
    run_loop(const run_loop&) = delete;
    run_loop& operator=(const run_loop&) = delete;
    ~run_loop() {
        collect();
        if (!ready_.empty()) [[unlikely]]
            detail::fail("a run_loop was destroyed with something submitted that has not run");
    }

    void submit(work_item& item) noexcept {
        if (is_current()) ready_.push(item);
        else post(item);
    }
    [[nodiscard]] bool is_current() const noexcept { return detail::runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

    /// Threads:       any; what is queued is not counted, since the loop's own submissions take no atomic
    [[nodiscard]] snapshot stats() const noexcept { return {timers_.size()}; }
    /// It has none: metrics are told one.
    [[nodiscard]] std::string_view name() const noexcept { return {}; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("timers", now.timers, "Timers that are armed.");
    }

    /// Runs until `stop()`, sleeping while there is nothing to do.
    void run() noexcept {
        stop_state seen;
        while ((seen = stopping_.exchange(stop_state::no, std::memory_order_acq_rel)) == stop_state::no)
            if (!turn(true)) sleep();
        if (seen == stop_state::from_elsewhere) const std::lock_guard lock(mutex_);  // R4
    }

    /// Has `run()` return after the item that runs now; what is still queued stays. If it does not run, its next call
    /// returns at once. A loop that is polled needs none.
    /// Lifetime:      once `run()` has returned, the one who stopped it touches the loop no more
    void stop() noexcept;

    /// Runs what is ready and fires what is due, without waiting.
    /// Returns:       whether something is ready now: poll again soon
    bool poll() noexcept { return turn(false); }

    /// When a host should poll again at the latest; nothing if only a submission can give it work. Until then
    /// `on_wake` tells.
    [[nodiscard]] std::optional<clock::time_point> next_wake() noexcept {
        if (!ready_.empty()) return clock::now();
        const bool idle = on_wake_ == nullptr ? inbox_.load(std::memory_order_relaxed) == nullptr : mark_asleep();
        return idle ? timers_.next_wake() : clock::now();
    }

private:
    /// Marks the inbox of a loop that sleeps, or that waits to be polled: the next to post wakes it.
    work_item* asleep() noexcept { return reinterpret_cast<work_item*>(this); }

    enum class stop_state : std::uint8_t { no, from_here, from_elsewhere };

    /// Returns:       false if something was posted
    bool mark_asleep() noexcept {
        work_item* expected = nullptr;
        return inbox_.compare_exchange_strong(expected, asleep(), std::memory_order_seq_cst) || expected == asleep();
    }
    bool turn(bool until_stopped) noexcept;
    void post(work_item& item) noexcept;
    void collect() noexcept;
    void sleep() noexcept;
    void wake() noexcept;
    void signal() noexcept;
    static void earlier_timer(void* self) noexcept { static_cast<run_loop*>(self)->wake(); }

    static constexpr int items_per_turn = 64;   // a host gets its thread back

    // inbox_: null, a stack of posted items (newest first), or asleep().
    // R1 Only the loop writes asleep(), and only over null; whoever replaces it owes the loop exactly one signal().
    // R2 The loop leaves its sleep only with that signal, or after it has put null back itself: so nobody can still be
    //    about to signal when a loop that has nothing left to do is destroyed.
    // R3 A poster's writes before its exchange (release) are seen after the loop's (acquire). The exchange to asleep()
    //    is sequentially consistent and comes before the loop's last look at its timers, so whoever arms an earlier
    //    timer afterwards sees asleep().
    // R4 Who stops the loop from elsewhere does all of it under the mutex, and run() takes the mutex before it returns.
    // R5 A polled loop may be destroyed as soon as what was posted has run: behind the exchange a poster touches its
    //    copy of the hook only. One without a hook is not marked, since nobody would be woken.
    std::atomic<work_item*> inbox_{nullptr};
    detail::item_fifo ready_;
    detail::clock_pace pace_;
    wake_hook on_wake_;
    void* argument_;
    std::mutex mutex_;
    std::condition_variable signalled_;
    bool signal_ = false;  // under mutex_
    std::atomic<stop_state> stopping_{stop_state::no};  // here, since it is read for each item and posters write inbox_
    locked_timer_queue timers_;
};

inline bool run_loop::turn(bool until_stopped) noexcept {
    clock::time_point now = clock::now();
    const detail::executor_entry entry(this, now);
    const auto look_again = [&now] {  // no timer fires before its time: it fires by the clock itself then, a turn later
        now = detail::quick_now() - detail::quick_error;
        detail::set_coarse_now(now);
    };
    for (int left = items_per_turn; left != 0; look_again()) {
        timers_.fire_due(now);
        collect();
        pace_.looked(now);
        int batch = std::min(left, pace_.items());
        for (left -= batch; batch != 0; --batch) {
            if (ready_.empty()) return false;
            work_item& item = ready_.pop();
            item.run(item);
            if (until_stopped && stopping_.load(std::memory_order_relaxed) != stop_state::no) return true;
        }
    }
    return !ready_.empty();
}

inline void run_loop::post(work_item& item) noexcept {
    const wake_hook on_wake = on_wake_;
    void* const argument = argument_;
    work_item* head = inbox_.load(std::memory_order_relaxed);
    do {
        item.next = head == asleep() ? nullptr : head;
    } while (!inbox_.compare_exchange_weak(head, &item, std::memory_order_seq_cst, std::memory_order_relaxed));  // R3
    if (head != asleep()) return;
    if (on_wake != nullptr) on_wake(argument);  // R1, R5
    else signal();
}

/// Moves what was posted into the loop's own queue, oldest first.
inline void run_loop::collect() noexcept {
    if (inbox_.load(std::memory_order_relaxed) == nullptr) return;
    work_item* const newest = inbox_.exchange(nullptr, std::memory_order_acquire);  // R3
    if (newest != asleep()) ready_.push_stack(newest);
}

inline void run_loop::sleep() noexcept {
    const bool depot_is_aging = detail::age_frame_depot();
    work_item* expected = nullptr;
    if (!inbox_.compare_exchange_strong(expected, asleep(), std::memory_order_seq_cst)) return;
    std::optional<clock::time_point> until = timers_.next_wake();  // R3
    if (stopping_.load(std::memory_order_seq_cst) != stop_state::no) until = clock::time_point::min();
    else if (depot_is_aging && !until) until = clock::now() + std::chrono::seconds(1);  // to give more back
    std::unique_lock lock(mutex_);
    const auto woken = [this] { return signal_; };
    if (!until) {
        signalled_.wait(lock, woken);
    } else if (!signalled_.wait_until(lock, *until, woken)) {
        expected = asleep();
        if (inbox_.compare_exchange_strong(expected, nullptr, std::memory_order_acq_rel)) return;  // R2
        signalled_.wait(lock, woken);
    }
    signal_ = false;
}

inline void run_loop::stop() noexcept {
    if (is_current()) {
        stop_state expected = stop_state::no;
        stopping_.compare_exchange_strong(expected, stop_state::from_here, std::memory_order_relaxed);
        return;
    }
    const std::lock_guard lock(mutex_);  // R4
    stopping_.store(stop_state::from_elsewhere, std::memory_order_seq_cst);
    work_item* expected = asleep();
    if (on_wake_ != nullptr || !inbox_.compare_exchange_strong(expected, nullptr, std::memory_order_seq_cst)) return;
    signal_ = true;  // R1
    signalled_.notify_one();
}

inline void run_loop::wake() noexcept {
    work_item* expected = asleep();
    if (inbox_.compare_exchange_strong(expected, nullptr, std::memory_order_seq_cst)) signal();  // R1
}

inline void run_loop::signal() noexcept {
    if (on_wake_ != nullptr) return on_wake_(argument_);
    const std::lock_guard lock(mutex_);
    signal_ = true;
    signalled_.notify_one();
}

}  // namespace cordon::inline CORDON_ABI
