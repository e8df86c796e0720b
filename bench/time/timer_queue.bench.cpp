// SPDX-License-Identifier: MIT
// Timers: one that is armed and cancelled at once while others are pending, all of a million armed and all cancelled,
// and all fired. Peers that read a clock for each timer are compared with rows that do.
#include "../rows.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#endif
#if __has_include(<uv.h>)
#include <uv.h>
#endif

#include <algorithm>
#include <deque>
#include <map>
#include <mutex>
#include <random>
#include <vector>

namespace {

using namespace bench;
using time_point = co::clock::time_point;

std::int64_t fired;  // timers, in all rows that fire some

/// The same pseudo-random durations up to `longest` in each row.
class durations {
public:
    explicit durations(std::chrono::nanoseconds longest) noexcept
        : longest_(static_cast<std::uint64_t>(longest.count())) {}
    std::chrono::nanoseconds operator()() {
        return std::chrono::nanoseconds(1 + static_cast<std::int64_t>(random_() % longest_));
    }

private:
    std::uint64_t longest_;
    std::mt19937_64 random_{1};
};

// Each kind of timers: `add(n)` makes n that are not armed; `arm(i, duration)`, `cancel(i)`, and `fire()` for all that
// are due by now.

/// `Now` is where the time comes from when one is armed.
template <class Now>
class cordon_timers {
public:
    ~cordon_timers() {
        for (co::timer& t : timers_) queue_.cancel(t);
    }
    void add(std::size_t n) {
        while (n-- != 0) timers_.emplace_back([](co::timer&) noexcept { ++fired; });
    }
    void arm(std::size_t i, std::chrono::nanoseconds d) {
        timers_[i].when = now_() + d;
        queue_.arm(timers_[i]);
    }
    void cancel(std::size_t i) { queue_.cancel(timers_[i]); }
    void fire() { queue_.fire_due(co::clock::now()); }
    void begin_round() { now_.look(); }

private:
    Now now_;
    co::locked_timer_queue queue_;
    std::deque<co::timer> timers_;
};
struct reads_clock {
    time_point operator()() const { return co::clock::now(); }
    void look() {}
};
struct given_time {
    time_point now = co::clock::now();
    time_point operator()() const { return now; }
    void look() { now = co::clock::now(); }
};
using cordon_with_clock = cordon_timers<reads_clock>;
using cordon_given_time = cordon_timers<given_time>;

/// What many write themselves. Reads the clock.
class multimap_timers {
public:
    void add(std::size_t n) { places_.resize(places_.size() + n); }
    void arm(std::size_t i, std::chrono::nanoseconds d) {
        const time_point when = co::clock::now() + d;
        const std::lock_guard lock(mutex_);
        places_[i] = map_.emplace(when, [] { ++fired; });
    }
    void cancel(std::size_t i) {
        const std::lock_guard lock(mutex_);
        map_.erase(places_[i]);
    }
    void fire() {
        const time_point now = co::clock::now();
        std::unique_lock lock(mutex_);
        while (!map_.empty() && map_.begin()->first <= now) {
            const auto call = map_.begin()->second;
            map_.erase(map_.begin());
            lock.unlock();
            call();
            lock.lock();
        }
    }
    void begin_round() {}

private:
    using map = std::multimap<time_point, void (*)()>;
    std::mutex mutex_;
    map map_;
    std::vector<map::iterator> places_;
};

#if __has_include(<uv.h>)
/// Whole milliseconds, from the time that the loop has in its cache.
class uv_timers {
public:
    uv_timers() { uv_loop_init(&loop_); }
    uv_timers(const uv_timers&) = delete;
    uv_timers& operator=(const uv_timers&) = delete;
    ~uv_timers() {
        for (uv_timer_t& t : timers_) uv_close(reinterpret_cast<uv_handle_t*>(&t), nullptr);
        uv_run(&loop_, UV_RUN_DEFAULT);
        uv_loop_close(&loop_);
    }
    void add(std::size_t n) {
        while (n-- != 0) uv_timer_init(&loop_, &timers_.emplace_back());
    }
    void arm(std::size_t i, std::chrono::nanoseconds d) {
        const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(d).count();
        uv_timer_start(&timers_[i], [](uv_timer_t*) { ++fired; }, static_cast<std::uint64_t>(ms), 0);
    }
    void cancel(std::size_t i) { uv_timer_stop(&timers_[i]); }
    void fire() { uv_run(&loop_, UV_RUN_NOWAIT); }
    void begin_round() { uv_update_time(&loop_); }

private:
    uv_loop_t loop_;
    std::deque<uv_timer_t> timers_;
};
#endif

#if __has_include(<asio.hpp>)
/// Reads the clock. A cancelled wait ends through the queue of the context, which has to be run.
class asio_timers {
public:
    void add(std::size_t n) {
        while (n-- != 0) timers_.emplace_back(io_);
    }
    void arm(std::size_t i, std::chrono::nanoseconds d) {
        timers_[i].expires_after(d);
        timers_[i].async_wait([](const asio::error_code& error) { fired += error ? 0 : 1; });
    }
    void cancel(std::size_t i) {
        timers_[i].cancel();
        if (++cancelled_ % 64 == 0) io_.poll();
    }
    void fire() {
        io_.restart();
        io_.poll();
    }
    void begin_round() {}

private:
    asio::io_context io_{1};
    std::deque<asio::steady_timer> timers_;
    std::size_t cancelled_ = 0;
};
#endif

/// One timer at fifty seconds, armed and cancelled, while `live` others are pending, of which three in a hundred are
/// earlier. None of them is due before the end.
template <class Timers, std::size_t live>
void at_once(benchmark::State& state) {
    // Kept for the repetitions: to arm them takes longer than to measure.
    static Timers& timers = *[] {
        auto* const all = new Timers;
        all->begin_round();
        all->add(live + 1);
        durations random(1000s);
        for (std::size_t i = 0; i < live; ++i) all->arm(i, random() + 20s);
        return all;
    }();
    timers.begin_round();
    for (auto _ : state) {
        timers.arm(live, 50s);
        timers.cancel(live);
    }
}

void clock_alone(benchmark::State& state) {
    for (auto _ : state) keep(co::clock::now());
}

/// A million armed, then all cancelled, in the same order.
template <class Timers>
void arm_all_cancel_all(benchmark::State& state) {
    constexpr std::size_t n = 1'000'000;
    Timers timers;
    timers.add(n);
    for (auto _ : state) {
        timers.begin_round();
        durations random(60s);
        for (std::size_t i = 0; i < n; ++i) timers.arm(i, random() + 1s);
        for (std::size_t i = 0; i < n; ++i) timers.cancel(i);
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(n));
}

/// A hundred thousand armed for the next ten milliseconds, and fired when these are over; the wait is not counted.
template <class Timers>
void arm_all_fire_all(benchmark::State& state) {
    constexpr std::size_t n = 100'000;
    fired = 0;
    Timers timers;
    timers.add(n);
    for (auto _ : state) {
        timers.begin_round();
        durations random(10ms);
        const double from = thread_time();
        for (std::size_t i = 0; i < n; ++i) timers.arm(i, random() + 20ms);
        const double armed = thread_time();
        std::this_thread::sleep_for(32ms);
        const double woken = thread_time();
        timers.fire();
        state.SetIterationTime(armed - from + (thread_time() - woken));
    }
    expect(state, fired, state.iterations() * static_cast<std::int64_t>(n));
}

#define ROWS(Timers, row)                                                                   \
    BENCHMARK(at_once<Timers, 10'000>)->Name("timer_at_once_10k_live/" row);                \
    BENCHMARK(at_once<Timers, 1'000'000>)->Name("timer_at_once_1m/" row);                   \
    BENCHMARK(arm_all_cancel_all<Timers>)->Name("timer_cancel_all_1m/" row)->Iterations(1); \
    BENCHMARK(arm_all_fire_all<Timers>)->Name("timer_fire_all/" row)->UseManualTime()->Iterations(3)

BENCHMARK(clock_alone)->Name("timer_at_once_10k_live/floor_clock_alone");
BENCHMARK(clock_alone)->Name("timer_at_once_1m/floor_clock_alone");
ROWS(cordon_with_clock, "cordon");
ROWS(cordon_given_time, "cordon_given_time");
ROWS(multimap_timers, "std_multimap");
#if __has_include(<uv.h>)
ROWS(uv_timers, "uv");
#endif
#if __has_include(<asio.hpp>)
ROWS(asio_timers, "asio");
#endif

}  // namespace
