// SPDX-License-Identifier: MIT
#pragma once

// What the benchmarks share. A row is called `figure/row`: the rows of a figure do the same work, and only their ratios
// say something. tools/bench.py runs each figure in a process of its own, its repetitions interleaved at random; of a
// figure that ends in `_1m` each row has its own process, and the first repetition does not count.

#include "works.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <thread>

#include <unistd.h>

namespace bench {

/// How much of a process lies in memory.
inline double resident_bytes() {
    long pages = 0;
    if (std::FILE* const file = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(file, "%*d %ld", &pages) != 1) pages = 0;
        std::fclose(file);
    }
    return static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE));
}

/// Adds the time from its construction to `stop()` to a row with manual time.
class stopwatch {
public:
    explicit stopwatch(benchmark::State& state) noexcept : state_(state) {}
    void stop() {
        state_.SetIterationTime(std::chrono::duration<double>(std::chrono::steady_clock::now() - from_).count());
    }

private:
    benchmark::State& state_;
    const std::chrono::steady_clock::time_point from_ = std::chrono::steady_clock::now();
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
