// SPDX-License-Identifier: MIT
// A call through a closed breaker that succeeds at once: its permit and its record. Beside it the breaker that one
// would write first, a mutex around a ring, and what a reading of the clock costs. Then refusals.
#include "../rows.hpp"

#include <cordon/breaker/circuit_breaker.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <vector>

namespace {

using namespace bench;
using namespace std::chrono_literals;
using benchmark::State;

const co::circuit_breaker_options of_calls{.window = co::last_calls(100)};
const co::circuit_breaker_options of_calls_slow{.window = co::last_calls(100), .slow_call = 1s};
const co::circuit_breaker_options of_time{.window = co::last(10s)};
const co::circuit_breaker_options of_time_slow{.window = co::last(10s), .slow_call = 1s};
const co::circuit_breaker_options in_a_row{.window = co::last_calls(100), .consecutive_failures = 5};

/// One for all threads of a row.
template <const co::circuit_breaker_options& options>
co::circuit_breaker& shared() {
    static co::circuit_breaker breaker{options};
    return breaker;
}

template <const co::circuit_breaker_options& options>
void succeeds(State& state) {
    co::circuit_breaker& breaker = shared<options>();
    for (auto _ : state) {
        auto permit = breaker.try_acquire();
        if (!permit) state.SkipWithError("refused");
        permit.succeeded();
    }
}
template <const co::circuit_breaker_options& options>
void one_in_ten_fails(State& state) {
    static co::circuit_breaker breaker{options};  // not that of the others, who would look for its failures
    unsigned n = 0;
    for (auto _ : state) {
        auto permit = breaker.try_acquire();
        if (!permit) state.SkipWithError("refused");
        permit.settle(++n % 10 == 0 ? co::verdict::failure : co::verdict::success);
    }
}

/// The peer: all of it under a mutex.
class mutex_and_ring {
public:
    bool try_acquire() {
        const std::lock_guard guard(mutex_);
        refused_ += open_;
        return !open_;
    }
    void open() {
        const std::lock_guard guard(mutex_);
        open_ = true;
    }
    void record(bool failed) {
        const std::lock_guard guard(mutex_);
        failures_ += failed;
        failures_ -= ring_[next_];
        ring_[next_] = failed;
        next_ = next_ + 1 == ring_.size() ? 0 : next_ + 1;
        if (calls_ < ring_.size()) ++calls_;
        if (calls_ >= 20 && failures_ * 2 >= calls_) open_ = true;
    }

private:
    std::mutex mutex_;
    std::vector<unsigned char> ring_ = std::vector<unsigned char>(100);
    std::size_t next_ = 0, calls_ = 0, failures_ = 0, refused_ = 0;
    bool open_ = false;
};
void with_mutex(State& state) {
    begin_threads();
    static mutex_and_ring breaker;
    for (auto _ : state) {
        if (!breaker.try_acquire()) state.SkipWithError("refused");
        breaker.record(false);
    }
}
void clock_once(State& state) {
    for (auto _ : state) keep(co::clock::now());
}
void clock_twice(State& state) {
    for (auto _ : state) {
        keep(co::clock::now());
        keep(co::clock::now());
    }
}
void one_exchange(State& state) {
    static std::atomic<std::uint64_t> word{0};
    for (auto _ : state) {
        std::uint64_t seen = word.load(std::memory_order_relaxed);
        while (!word.compare_exchange_weak(seen, seen + 1, std::memory_order_seq_cst, std::memory_order_relaxed)) {}
    }
}

BENCHMARK(one_exchange)->Name("breaker_last_calls/floor");
BENCHMARK(succeeds<of_calls>)->Name("breaker_last_calls/cordon");
BENCHMARK(one_in_ten_fails<of_calls>)->Name("breaker_last_calls/cordon_1_in_10_fails");
BENCHMARK(succeeds<in_a_row>)->Name("breaker_last_calls/cordon_failures_in_a_row");
BENCHMARK(with_mutex)->Name("breaker_last_calls/mutex_and_ring");

BENCHMARK(clock_twice)->Name("breaker_last_calls_slow/floor_two_clocks");
BENCHMARK(succeeds<of_calls_slow>)->Name("breaker_last_calls_slow/cordon");

BENCHMARK(clock_once)->Name("breaker_last/floor_clock");
BENCHMARK(succeeds<of_time>)->Name("breaker_last/cordon");
BENCHMARK(one_in_ten_fails<of_time>)->Name("breaker_last/cordon_1_in_10_fails");

BENCHMARK(clock_twice)->Name("breaker_last_slow/floor_two_clocks");
BENCHMARK(succeeds<of_time_slow>)->Name("breaker_last_slow/cordon");

BENCHMARK(one_exchange)->Name("breaker_2_threads/floor")->Threads(2)->UseRealTime();
BENCHMARK(succeeds<of_calls>)->Name("breaker_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(one_in_ten_fails<of_calls>)->Name("breaker_2_threads/cordon_1_in_10_fails")->Threads(2)->UseRealTime();
BENCHMARK(succeeds<of_time>)->Name("breaker_2_threads/cordon_last")->Threads(2)->UseRealTime();
BENCHMARK(succeeds<of_time_slow>)->Name("breaker_2_threads/cordon_last_slow")->Threads(2)->UseRealTime();
BENCHMARK(with_mutex)->Name("breaker_2_threads/mutex_and_ring")->Threads(2)->UseRealTime();

// --- refusals ---------------------------------------------------------------------------------------------------

co::circuit_breaker& opened() {
    static co::circuit_breaker breaker{of_calls};
    breaker.open_until(co::clock::now() + 24h);
    return breaker;
}
void refused(State& state) {
    co::circuit_breaker& breaker = opened();
    for (auto _ : state)
        if (breaker.try_acquire()) state.SkipWithError("admitted");
}
void refused_by_mutex(State& state) {
    begin_threads();
    static mutex_and_ring breaker;
    breaker.open();
    for (auto _ : state)
        if (breaker.try_acquire()) state.SkipWithError("admitted");
}
void refused_as_outcome(State& state) {
    co::circuit_breaker& breaker = opened();
    for (auto _ : state) {
        decltype(breaker.admission())::state s(breaker.admission());
        keep(s.ready());
        const auto ended = s.take();
        if (!ended.is_rejected()) state.SkipWithError("admitted");
        keep(ended.rejection().retry_after);
    }
}
BENCHMARK(clock_once)->Name("breaker_refusal/floor_clock");
BENCHMARK(refused)->Name("breaker_refusal/cordon");
BENCHMARK(refused_as_outcome)->Name("breaker_refusal/cordon_admission");
BENCHMARK(refused_by_mutex)->Name("breaker_refusal/mutex_without_a_time");
BENCHMARK(refused)->Name("breaker_refusal_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(refused_by_mutex)->Name("breaker_refusal_2_threads/mutex_without_a_time")->Threads(2)->UseRealTime();
BENCHMARK(clock_once)->Name("breaker_refusal_2_threads/floor_clock")->Threads(2)->UseRealTime();

}  // namespace
