// SPDX-License-Identifier: MIT
#pragma once

// What the benchmarks share. A row is called `figure/row`: the rows of a figure do the same work, and only their ratios
// say something. tools/bench runs each figure in a process of its own, its repetitions interleaved at random; of a
// figure that ends in `_1m` each row has its own process, and the first repetition does not count.

#include "works.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <ctime>
#include <thread>

namespace bench {

/// How much of this process lies in memory. Exact, which what statm says is not.
inline double resident_bytes() {
    double kilobytes = 0;
    if (std::FILE* const file = std::fopen("/proc/self/smaps_rollup", "r")) {
        char line[256];
        while (std::fgets(line, sizeof line, file) != nullptr)
            if (std::sscanf(line, "Rss: %lf", &kilobytes) == 1) break;
        std::fclose(file);
    }
    return kilobytes * 1024;
}

/// The processor time that this thread has used, in seconds.
inline double thread_time() noexcept {
    std::timespec t{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
}

/// Gives a row with manual time the processor time from its construction to `stop()`.
class stopwatch {
public:
    explicit stopwatch(benchmark::State& state) noexcept : state_(state) {}
    void stop() { state_.SetIterationTime(thread_time() - from_); }

private:
    benchmark::State& state_;
    const double from_ = thread_time();
};

/// Fails the row if the work was not done, or says how much of it there was.
inline void expect(benchmark::State& state, std::int64_t done, std::int64_t expected) {
    if (done != expected) state.SkipWithError("the work was not done");
    state.SetItemsProcessed(done);
}

/// From its call on the process counts as one with threads, which some of the standard library asks: as in a service.
inline void begin_threads() {
    static const bool once = (std::thread([] {}).join(), true);
    keep(once);
}

/// A row that runs `body(state)` as a child of a group.
template <co::task<> (*body)(benchmark::State&)>
void in_group(benchmark::State& state) {
    run_as_child(body, state);
    state.SetItemsProcessed(state.iterations());
}

}  // namespace bench
