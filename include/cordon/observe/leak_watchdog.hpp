// SPDX-License-Identifier: MIT
#pragma once

// Tells of tasks that are older than they should be, each once, while the service runs on:
//
//     leak_watchdog watchdog{pool, 10min, [](const task_info& task) { log(describe(task)); }};

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/timer.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What the watchdog and the executor share: a timer that submits an item, which looks at all tasks and arms the timer.
/// Made with two references: the watchdog's, given up by `close`, and that of the work, given up by `retire`.
class leak_watch : private timer, private work_item {
public:
    leak_watch(executor_ref on, clock::duration age)
        : timer(&leak_watch::fire), work_item(&leak_watch::run), on_(on),
          age_(std::chrono::ceil<std::chrono::milliseconds>(age)),
          pause_(std::max<clock::duration>(age / 2, std::chrono::milliseconds(1))) {}

    void start() noexcept { on_.submit(*this); }

    /// Returns when nothing is called any more, or is about to be, but by this thread.
    void close() noexcept {
        const std::uint32_t seen = word_.fetch_or(closed, std::memory_order_acq_rel);
        if (seen == waiting) {
            on_.timers().cancel(*this);  // W3
            retire();
        } else if (seen != queued && !(seen == busy && runner_ == std::this_thread::get_id())) {
            for (std::uint32_t now; (now = word_.load(std::memory_order_acquire)) != (ended | closed);)
                word_.wait(now, std::memory_order_acquire);
        }
        release();
    }

protected:
    virtual ~leak_watch() = default;
    virtual void call(const task_info& task) = 0;

private:
    // word_: who acts next, and a bit.
    //   queued    the item is submitted, or about to be: its run
    //   busy      the run looks and calls: itself
    //   arming    the run arms the timer: itself, or `fire` if that is faster
    //   fired     `fire` was faster: the run submits the item again
    //   waiting   the timer is armed: `fire`
    //   ended     nobody, for ever
    //   closed    a bit: the watchdog is gone. Once set, nobody changes the rest but to ended
    // W1 Every change but that to closed and to ended is a compare-and-swap from a value without closed: it fails as
    //    soon as the watchdog is gone. Whoever fails has nothing left to do but to retire, if W2 says so.
    // W2 Exactly one retires: the run, if close() found queued, busy, arming or fired; close(), if it found waiting.
    // W3 After a close() that found waiting, a `fire` on another thread finds closed and goes; cancel waits for it.
    // W4 runner_ is written by a run before it sets busy (release), and read only by who has seen busy (acquire).
    static constexpr std::uint32_t queued = 0, busy = 1, arming = 2, fired = 3, waiting = 4, ended = 5, closed = 8;

    bool go(std::uint32_t from, std::uint32_t to) noexcept {
        return word_.compare_exchange_strong(from, to, std::memory_order_acq_rel, std::memory_order_acquire);  // W1
    }
    bool is_closed() const noexcept { return (word_.load(std::memory_order_acquire) & closed) != 0; }

    static void run(work_item& item) noexcept {
        auto& self = static_cast<leak_watch&>(item);
        self.runner_ = std::this_thread::get_id();  // W4
        if (!self.go(queued, busy)) return self.retire();
        self.look();
        if (!self.go(busy, arming)) return self.retire();
        self.timer::when = clock::now() + self.pause_;
        self.on_.timers().arm(self);
        if (self.go(arming, waiting)) return;
        if (self.go(fired, queued)) return self.on_.submit(self);
        self.on_.timers().cancel(self);
        self.retire();
    }

    static void fire(timer& t) noexcept {
        auto& self = static_cast<leak_watch&>(t);
        for (std::uint32_t seen = self.word_.load(std::memory_order_acquire); (seen & closed) == 0;
             seen = self.word_.load(std::memory_order_acquire)) {
            if (seen == arming && self.go(arming, fired)) return;
            if (seen == waiting && self.go(waiting, queued)) return self.on_.submit(self);
        }
    }

    void look() {
        record_reader reader(to_record_ms(clock::now()));
        std::vector<std::uint64_t> old;
        reader.each_glimpse([&](const record_reader::glimpse& g) {
            if (!g.is_group && g.age >= age_) old.push_back(g.id);
        });
        std::sort(old.begin(), old.end());
        task_info info;
        std::erase_if(old, [&](std::uint64_t id) {  // keeps those that were reported
            if (std::binary_search(reported_.begin(), reported_.end(), id)) return false;
            if (is_closed() || !reader.find(id, info)) return true;
            call(info);
            return false;
        });
        reported_ = std::move(old);
    }

    void retire() noexcept {
        word_.store(ended | closed, std::memory_order_release);
        word_.notify_all();
        release();
    }
    void release() noexcept {
        if (references_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

    const executor_ref on_;
    const std::chrono::milliseconds age_;
    const clock::duration pause_;
    std::vector<std::uint64_t> reported_;  // the run's: sorted
    std::thread::id runner_;               // W4
    std::atomic<std::uint32_t> word_{queued};
    std::atomic<int> references_{2};
};

}  // namespace detail

/// Calls a handler once for each task, not for groups, that has reached an age. Looks every half of that age, at least
/// a millisecond apart. In a simulation it keeps time going, so that what waits for ever is no `deadlock`; and ages of
/// tasks outside mean nothing there.
/// Threads:       the handler is called on the executor, one call at a time; it must not throw. Made and destroyed on
///                any thread, on the executor's own, and inside the handler too. Once destroyed, it calls no more;
///                the destructor waits for a call that goes on elsewhere
/// Lifetime:      the executor outlives it, and runs what was submitted to it before it dies
/// Cost:          a look costs a few nanoseconds for each record that was ever alive at once; between two looks nothing
class leak_watchdog {
public:
    /// Errors:        `std::invalid_argument` if `age` is not positive or `on` refers to no executor
    template <class Handler>
        requires std::invocable<std::decay_t<Handler>&, const task_info&>
    leak_watchdog(executor_ref on, clock::duration age, Handler&& handler)
        : watch_(new watch<std::decay_t<Handler>>(checked(on, age), age, std::forward<Handler>(handler))) {
        watch_->start();
    }
    leak_watchdog(const leak_watchdog&) = delete;
    leak_watchdog& operator=(const leak_watchdog&) = delete;
    ~leak_watchdog() { watch_->close(); }

private:
    template <class Handler>
    class watch final : public detail::leak_watch {
    public:
        template <class H>
        watch(executor_ref on, clock::duration age, H&& handler)
            : leak_watch(on, age), handler_(std::forward<H>(handler)) {}

    private:
        void call(const task_info& task) override { handler_(task); }
        Handler handler_;
    };

    static executor_ref checked(executor_ref on, clock::duration age) {
        detail::check_option(age > clock::duration::zero(), "leak_watchdog", "age", age, "is what is positive");
        if (!on) detail::raise(std::invalid_argument("leak_watchdog: no executor"), "leak_watchdog: no executor");
        return on;
    }

    detail::leak_watch* watch_;
};

}  // namespace cordon::inline CORDON_ABI
