// SPDX-License-Identifier: MIT
#pragma once

// An executor of several threads.
//
//     thread_pool pool{4, {.name = "workers"}};
//     task_group group{pool};
//     int n = sync_wait(on(pool, count()));
//
// Long, because P1 to P5, the rules by which workers sleep and are woken, bind every function below the class: they are
// read as one. Users need the class.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/item_queue.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/run/detail/clock_pace.hpp>
#include <cordon/run/detail/thread_name.hpp>
#include <cordon/run/detail/work_ring.hpp>
#include <cordon/time/timer_queue.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct thread_pool_options {
    std::string_view name = "pool";  ///< of the pool; its threads are called "pool/0", "pool/1", ...
};

/// Runs items on its threads, each item once. Satisfies `executor`.
/// Threads:       all members from any
/// Order:         none is promised; mostly that of the submissions. Nobody is passed over for ever, and no worker
///                sleeps while an item waits
/// Lifetime:      outlives everything that runs on it. The destructor runs what was submitted, and waits for it. Armed
///                timers then terminate, with a message, and so does a destruction by one of its own threads
/// Cost:          submit and run are one exchange each on the submitting worker, a lock from other threads, and a
///                wake-up only if a worker sleeps and none is looking for work already; no allocation. A worker that
///                has nothing to do looks for work for some microseconds before it sleeps
class thread_pool {
public:
    static constexpr std::string_view kind = "thread_pool";

    struct snapshot {
        std::size_t threads = 0;
        std::size_t sleeping = 0;
        std::size_t queued = 0;  ///< approximate while they run
        std::size_t timers = 0;
    };

    /// Starts the threads.
    /// Errors:        `std::invalid_argument` if `threads` is not 1 to `max_threads`; `std::system_error` if one cannot
    ///                be started
    explicit thread_pool(std::size_t threads, thread_pool_options options = {});
    thread_pool(const thread_pool&) = delete;
    thread_pool& operator=(const thread_pool&) = delete;
    ~thread_pool();

    void submit(work_item& item) noexcept;
    [[nodiscard]] bool is_current() const noexcept { return detail::runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("threads", now.threads, "Threads that the pool has.");
        sink.gauge("sleeping", now.sleeping, "Threads that have nothing to do.");
        sink.gauge("queued", now.queued, "Items that wait to be run.");
        sink.gauge("timers", now.timers, "Timers that are armed.");
    }

    static constexpr std::size_t max_threads = 1024;

private:
    struct worker {
        detail::work_ring ready;
        bool searching = false;   ///< its own: it is counted in state_
        int turns = 0;            ///< since the last look at the clock and the shared queue; its own
        detail::clock_pace pace;  ///< its own
        detail::held_ends ends;   ///< its own
        std::size_t poached = 0;  ///< its own: at whom it looked last
        bool woken = false;       ///< under mutex_
        worker* below = nullptr;  ///< under mutex_: the one that has slept longer
        std::condition_variable bell;
        std::thread thread;
    };
    struct unstarted {};

    thread_pool(unstarted, std::size_t threads, std::string_view name);
    void work(worker& self) noexcept;
    work_item* next(worker& self) noexcept;
    work_item* search(worker& self) noexcept;
    work_item* take_shared(worker& self, bool one_now) noexcept;
    work_item* steal(worker& self) noexcept;
    work_item* poach(worker& self) noexcept;
    clock::time_point look_at_clock() noexcept;
    static void pause() noexcept;
    void stop_searching(worker& self) noexcept;
    void sleep(worker& self) noexcept;
    void see_to_time() noexcept;
    void submit_here(worker& self, work_item& item) noexcept;
    bool submit_from_outside(work_item& item) noexcept;
    void push_shared(work_item& first, work_item& last, std::size_t n) noexcept;
    [[nodiscard]] bool nobody_will_look() const noexcept;
    void wake_one() noexcept;
    void wake(worker& w) noexcept;
    [[nodiscard]] bool anything_queued() const noexcept;
    [[nodiscard]] bool nobody_runs() const noexcept;
    static void earlier_timer(void* self) noexcept;
    [[nodiscard]] bool is_own_thread() const noexcept;

    // Items that a worker takes from the shared queue at most. There lies what its own queue had no room for, the older
    // half: taking much of it back at once makes trees of tasks grow in breadth (fib and skynet take up to twice as
    // long with 128), taking little costs a lock more often (a million tasks on two threads: a third more with 4).
    static constexpr std::size_t shared_batch = 16;
    // A worker that finds nothing looks again, first every fraction of a microsecond, for about as long as it takes
    // another thread that is awake to answer; then it gives up the rest of its time slice each time, since on a busy
    // machine the other one may need this processor; then it sleeps. Measured with hops from pool to pool: without the
    // pauses they take twice as long on idle processors, with five times as many four times as long on busy ones.
    static constexpr int rounds_of_pauses = 16, rounds_of_search = 64;

    // state_: how many workers sleep, whether one of those is the timekeeper, and how many search, that is, are awake
    // and have nothing yet.
    // P1 A worker goes to sleep and is woken under mutex_, where sleepers_ and timekeeper_ say what state_ counts.
    // P2 Whoever queues an item looks at state_ afterwards; a worker that enters itself as sleeping, or ends its
    //    search, looks at all queues afterwards; all four are sequentially consistent. So one of the two sees the
    //    other: no item is left while a worker sleeps and none searches.
    // P3 Nobody is woken while a worker searches, which will find the item or look again (P2). The last one to end its
    //    search wakes the next if there is more.
    // P4 While there are timers and sleepers, one sleeper is the timekeeper and sleeps no longer than until the next
    //    timer, or somebody searches. A worker that goes to sleep becomes it if there is none, and it is woken for work
    //    last. Whoever ends the last search and finds sleepers without one appoints one, and so does whoever arms a
    //    timer before the time that was promised last. Only under mutex_ are times promised (`next_wake`) to it.
    // P5 Who submits from outside is done with the pool before its item can be taken, since it looks at state_ before
    //    it gives shared_lock_ back; or, if it has to wake somebody, it is counted in wakers_, for which the destructor
    //    waits. So the pool may be destroyed as soon as what was submitted has run.
    static constexpr std::uint32_t one_sleeping = 1, kept = 1u << 15, one_searching = 1u << 16;
    static constexpr std::uint32_t sleeping_mask = kept - 1;

    // Kept apart, not aligned: a pool may be a local of a coroutine, whose frame is not aligned to a cache line.
    struct gap {
        char bytes[64];
    };
    const std::size_t size_;
    const std::string name_;
    const int rounds_;
    const std::unique_ptr<worker[]> workers_;
    std::atomic<bool> stopping_{false};
    std::atomic<std::size_t> started_{0};  // workers
    [[maybe_unused]] gap before_state_;
    std::atomic<std::uint32_t> state_{0};
    [[maybe_unused]] gap before_shared_;
    detail::prompt_spin_lock shared_lock_;
    std::atomic<std::size_t> shared_size_{0};  // written under shared_lock_
    detail::item_fifo shared_;                 // under shared_lock_
    [[maybe_unused]] gap before_mutex_;
    std::atomic<std::uint32_t> wakers_{0};     // P5
    std::mutex mutex_;
    worker* sleepers_ = nullptr;    // under mutex_: a stack, without the timekeeper
    worker* timekeeper_ = nullptr;  // under mutex_
    locked_timer_queue timers_;
};

inline thread_pool::thread_pool(unstarted, std::size_t threads, std::string_view name)
    : size_(detail::checked_range("thread_pool", "threads", threads, 1, max_threads)), name_(name),
      rounds_(std::thread::hardware_concurrency() > 1 ? rounds_of_search : 1), workers_(new worker[threads]),
      timers_(&thread_pool::earlier_timer, this) {}

inline thread_pool::thread_pool(std::size_t threads, thread_pool_options options)
    : thread_pool(unstarted(), threads, options.name) {
    for (std::size_t i = 0; i < threads; ++i) {
        workers_[i].thread = std::thread([this, i] {
            detail::name_this_thread(name_, '/' + std::to_string(i));
            work(workers_[i]);
        });
        started_.fetch_add(1, std::memory_order_relaxed);
    }
}

inline thread_pool::~thread_pool() {
    if (is_own_thread()) detail::fail("thread_pool \"" + name_ + "\" destroyed by one of its own threads");
    stopping_.store(true, std::memory_order_seq_cst);
    {
        const std::lock_guard lock(mutex_);
        while (sleepers_ != nullptr) wake(*sleepers_);
        if (timekeeper_ != nullptr) wake(*timekeeper_);
    }
    for (std::size_t i = 0; i < size_; ++i)
        if (workers_[i].thread.joinable()) workers_[i].thread.join();
    for (detail::spin_wait wait; wakers_.load(std::memory_order_acquire) != 0;) wait();  // P5
}

inline bool thread_pool::is_own_thread() const noexcept {
    for (std::size_t i = 0; i < size_; ++i)
        if (workers_[i].thread.get_id() == std::this_thread::get_id()) return true;
    return false;
}

inline thread_pool::snapshot thread_pool::stats() const noexcept {
    snapshot s{size_, state_.load(std::memory_order_acquire) & sleeping_mask,
               shared_size_.load(std::memory_order_acquire), timers_.size()};
    for (std::size_t i = 0; i < size_; ++i) s.queued += workers_[i].ready.size();
    return s;
}

inline void thread_pool::submit(work_item& item) noexcept {
    if (void* const here = detail::worker_here(this)) {
        submit_here(*static_cast<worker*>(here), item);
        if (nobody_will_look()) [[unlikely]] wake_one();
    } else if (submit_from_outside(item)) {
        wake_one();
        wakers_.fetch_sub(1, std::memory_order_release);  // P5
    }
}

inline void thread_pool::submit_here(worker& self, work_item& item) noexcept {
    while (!self.ready.push(item)) {
        work_item *first, *last;
        if (const std::size_t n = self.ready.pop_half(first, last); n != 0) {
            const detail::spin_guard guard(shared_lock_);
            push_shared(*first, *last, n);
        }
    }
}

/// Returns:       whether the caller has to wake somebody, and is counted in wakers_ until it has
inline bool thread_pool::submit_from_outside(work_item& item) noexcept {
    const detail::spin_guard guard(shared_lock_);  // P5
    push_shared(item, item, 1);
    if (!nobody_will_look()) [[likely]] return false;
    wakers_.fetch_add(1, std::memory_order_relaxed);
    return true;
}

/// Under shared_lock_.
inline void thread_pool::push_shared(work_item& first, work_item& last, std::size_t n) noexcept {
    shared_.push_chain(first, last);
    shared_size_.store(shared_size_.load(std::memory_order_relaxed) + n, std::memory_order_seq_cst);
}

/// Whether what was queued before this call is left to those who sleep.
inline bool thread_pool::nobody_will_look() const noexcept {
    const std::uint32_t seen = state_.load(std::memory_order_seq_cst);  // P2
    return (seen & sleeping_mask) != 0 && seen < one_searching;         // P3
}

inline void thread_pool::work(worker& self) noexcept {
    const detail::executor_entry entry(this, clock::now(), &self, &self.ends);
    for (;;) {
        if (work_item* const item = next(self)) {
            self.ends.before(*item);  // H2, see held_ends.hpp
            item->run(*item);
        } else if (!stopping_.load(std::memory_order_seq_cst)) sleep(self);
        else if (nobody_runs() && !anything_queued()) return;
        else std::this_thread::sleep_for(std::chrono::microseconds(100));  // who runs an item may submit another
    }
}

/// While stopping: whether all who have not ended search.
inline bool thread_pool::nobody_runs() const noexcept {
    return state_.load(std::memory_order_seq_cst) / one_searching == started_.load(std::memory_order_relaxed);
}


inline work_item* thread_pool::next(worker& self) noexcept {
    if (!self.searching) {
        if (++self.turns >= self.pace.items()) [[unlikely]] {
            self.turns = 0;
            self.ends.count();  // H3
            self.pace.looked(look_at_clock());
            if (work_item* const item = take_shared(self, self.ready.room() == 0)) return item;
            if (work_item* const item = poach(self)) return item;
        }
        if (work_item* const item = self.ready.pop()) return item;
        self.ends.count();  // H3
        self.searching = true;
        state_.fetch_add(one_searching, std::memory_order_relaxed);
    }
    return search(self);
}

CORDON_NOINLINE inline work_item* thread_pool::search(worker& self) noexcept {
    for (int round = 0; round < rounds_; ++round) {
        if (round % 4 == 0 || round >= rounds_of_pauses) look_at_clock();
        work_item* item = self.ready.pop();
        if (item == nullptr) item = take_shared(self, true);
        if (item == nullptr) item = steal(self);
        if (item != nullptr) {
            stop_searching(self);
            return item;
        }
        if (round >= rounds_of_pauses) std::this_thread::yield();
        else pause();
    }
    return nullptr;
}

inline void thread_pool::pause() noexcept {
    detail::spin_wait wait;
    wait(), wait();  // three pauses of the processor
}

inline clock::time_point thread_pool::look_at_clock() noexcept {
    const clock::time_point now = clock::now();
    detail::set_coarse_now(now);
    timers_.fire_due(now);
    return now;
}

/// Takes a worker's share of the shared queue into its own, so that others can steal from it.
/// Returns:       the oldest of them if the caller wants to run one now: otherwise they queue up behind its own
inline work_item* thread_pool::take_shared(worker& self, bool one_now) noexcept {
    if (shared_size_.load(std::memory_order_relaxed) == 0) return nullptr;
    const detail::spin_guard guard(shared_lock_);
    const std::size_t there = shared_size_.load(std::memory_order_relaxed);
    if (there == 0) return nullptr;
    work_item* const first = one_now ? &shared_.pop() : nullptr;
    const std::size_t left = there - (one_now ? 1 : 0);
    const std::size_t more = std::min({left, there / size_ + (one_now ? 0 : 1), shared_batch, self.ready.room()});
    self.ready.append(shared_, more);
    shared_size_.store(left - more, std::memory_order_seq_cst);
    return first;
}

inline work_item* thread_pool::steal(worker& self) noexcept {
    const auto own = static_cast<std::size_t>(&self - workers_.get());
    for (std::size_t i = 1; i < size_; ++i)
        if (work_item* const item = self.ready.steal(workers_[(own + i) % size_].ready)) return item;
    return nullptr;
}

/// Takes one item from the next of the others, in turn: its own worker may be held up for long.
inline work_item* thread_pool::poach(worker& self) noexcept {
    const auto own = static_cast<std::size_t>(&self - workers_.get());
    if (++self.poached == size_) self.poached = 1;
    return size_ == 1 ? nullptr : workers_[(own + self.poached) % size_].ready.poach();
}

inline void thread_pool::stop_searching(worker& self) noexcept {
    self.searching = false;
    const std::uint32_t left = state_.fetch_sub(one_searching, std::memory_order_seq_cst) - one_searching;  // P2
    if (left >= one_searching || (left & sleeping_mask) == 0) return;
    if (anything_queued()) wake_one();            // P3
    else if ((left & kept) == 0) see_to_time();  // P4
}

inline void thread_pool::sleep(worker& self) noexcept {
    const bool depot_is_aging = detail::age_frame_depot();
    std::unique_lock lock(mutex_);
    const bool keeps_time = timekeeper_ == nullptr;
    if (keeps_time) timekeeper_ = &self;
    else self.below = std::exchange(sleepers_, &self);
    self.searching = self.woken = false;
    state_.fetch_add(one_sleeping + (keeps_time ? kept : 0) - one_searching, std::memory_order_seq_cst);  // P2
    if (anything_queued() || stopping_.load(std::memory_order_relaxed)) wake(self);
    while (!self.woken) {
        std::optional<clock::time_point> until;
        if (timekeeper_ == &self) {
            until = timers_.next_wake();
            if (depot_is_aging && !until) until = clock::now() + std::chrono::seconds(1);  // to give more back
        }
        if (!until) self.bell.wait(lock);
        else if (self.bell.wait_until(lock, *until) == std::cv_status::timeout && !self.woken) wake(self);
    }
}

CORDON_NOINLINE inline void thread_pool::wake_one() noexcept {
    const std::lock_guard lock(mutex_);
    if (state_.load(std::memory_order_seq_cst) >= one_searching) return;  // P3
    if (sleepers_ != nullptr) wake(*sleepers_);
    else if (timekeeper_ != nullptr) wake(*timekeeper_);
}

/// Has the timekeeper look at the timers again, or makes a sleeper it; unless somebody searches, who will see to it.
CORDON_NOINLINE inline void thread_pool::see_to_time() noexcept {
    const std::lock_guard lock(mutex_);
    if (timekeeper_ == nullptr) {
        if (sleepers_ == nullptr || state_.load(std::memory_order_seq_cst) >= one_searching) return;
        if (!timers_.next_wake()) return;
        timekeeper_ = std::exchange(sleepers_, sleepers_->below);
        state_.fetch_add(kept, std::memory_order_relaxed);
    }
    timekeeper_->bell.notify_one();
}

/// Under mutex_: the topmost sleeper or the timekeeper goes on, searching.
inline void thread_pool::wake(worker& w) noexcept {
    const bool kept_time = timekeeper_ == &w;
    if (kept_time) timekeeper_ = nullptr;
    else sleepers_ = w.below;
    w.searching = w.woken = true;
    state_.fetch_add(one_searching - one_sleeping - (kept_time ? kept : 0), std::memory_order_seq_cst);
    w.bell.notify_one();
}

inline bool thread_pool::anything_queued() const noexcept {
    if (shared_size_.load(std::memory_order_seq_cst) != 0) return true;
    for (std::size_t i = 0; i < size_; ++i)
        if (!workers_[i].ready.empty()) return true;
    return false;
}

/// A timer was armed for a time before that which the timekeeper sleeps until.
inline void thread_pool::earlier_timer(void* self) noexcept {
    auto& pool = *static_cast<thread_pool*>(self);
    if ((pool.state_.load(std::memory_order_seq_cst) & sleeping_mask) != 0) pool.see_to_time();  // P4
}

}  // namespace cordon::inline CORDON_ABI
