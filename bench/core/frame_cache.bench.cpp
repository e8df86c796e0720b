// SPDX-License-Identifier: MIT
// Memory for a frame of 112 bytes: taken and given back at once, a thousand at a time, and by another thread.
#include "../ring.hpp"
#include "../rows.hpp"

#include <array>
#include <memory_resource>

namespace {

using namespace bench;

constexpr std::size_t frame_bytes = 112;

/// The standard library's pool, without locks.
struct pmr_frames {
    static std::pmr::unsynchronized_pool_resource& pool() {
        static std::pmr::unsynchronized_pool_resource one;
        return one;
    }
    static void* take(std::size_t size) { return pool().allocate(size); }
    static void give(void* frame, std::size_t size) noexcept { pool().deallocate(frame, size); }
};

template <class Frames>
void pair(benchmark::State& state) {
    for (auto _ : state) {
        void* const frame = Frames::take(frame_bytes);
        keep(frame);
        Frames::give(frame, frame_bytes);
    }
}
BENCHMARK(pair<listed_frames>)->Name("frame_pair/floor");
BENCHMARK(pair<cached_frames>)->Name("frame_pair/cordon");
BENCHMARK(pair<new_frames>)->Name("frame_pair/new");
BENCHMARK(pair<pmr_frames>)->Name("frame_pair/pmr_unsynchronized");

template <class Frames>
void thousand(benchmark::State& state) {
    std::array<void*, 1000> frames;
    for (auto _ : state) {
        for (void*& frame : frames) frame = Frames::take(frame_bytes);
        keep(frames.data());
        for (void* const frame : frames) Frames::give(frame, frame_bytes);
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(frames.size()));
}
BENCHMARK(thousand<listed_frames>)->Name("frame_1000/floor");
BENCHMARK(thousand<cached_frames>)->Name("frame_1000/cordon");
BENCHMARK(thousand<new_frames>)->Name("frame_1000/new");
BENCHMARK(thousand<pmr_frames>)->Name("frame_1000/pmr_unsynchronized");

/// Nothing is taken or given: the ring alone.
struct no_frames {
    static void* take(std::size_t) noexcept { return &somewhere; }
    static void give(void* frame, std::size_t) noexcept { keep(frame); }
    static inline int somewhere = 0;
};

template <class Frames>
void across(benchmark::State& state) {
    static ring<void*> frames;
    if (state.thread_index() == 0) {
        benchmark::IterationCount left = state.max_iterations;
        for (auto _ : state) frames.send(Frames::take(frame_bytes), --left == 0);
        state.SetItemsProcessed(state.iterations());
    } else {
        for (auto _ : state) Frames::give(frames.receive(), frame_bytes);
    }
}
BENCHMARK(across<no_frames>)->Name("frame_across_threads/floor")->Threads(2)->UseRealTime();
BENCHMARK(across<cached_frames>)->Name("frame_across_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(across<new_frames>)->Name("frame_across_threads/new")->Threads(2)->UseRealTime();

}  // namespace
