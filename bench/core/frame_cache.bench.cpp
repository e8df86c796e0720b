// SPDX-License-Identifier: MIT
// Memory for a frame of 112 bytes: taken and given back at once, a thousand at a time, and by another thread.
#include "../rows.hpp"

#include <array>
#include <atomic>
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

/// Pointers on their way from one thread to another, sixteen at a time.
class ring {
public:
    void send(void* pointer, bool last) noexcept {
        slots_[tail_ % slots] = pointer;
        if (++tail_ % batch == 0 || last) sent_.store(tail_, std::memory_order_release);
        constexpr std::size_t most = slots - batch;
        for (co::detail::spin_wait wait; tail_ - taken_.load(std::memory_order_acquire) > most;) wait();
    }
    void* receive() noexcept {
        for (co::detail::spin_wait wait; head_ == sent_.load(std::memory_order_acquire);) wait();
        void* const pointer = slots_[head_ % slots];
        if (++head_ % batch == 0) taken_.store(head_, std::memory_order_release);
        return pointer;
    }

private:
    static constexpr std::size_t batch = 16, slots = 1024;
    std::array<void*, slots> slots_{};
    alignas(64) std::atomic<std::size_t> sent_{0};
    std::size_t tail_ = 0;
    alignas(64) std::atomic<std::size_t> taken_{0};
    std::size_t head_ = 0;
};

/// Nothing is taken or given: the ring alone.
struct no_frames {
    static void* take(std::size_t) noexcept { return &somewhere; }
    static void give(void* frame, std::size_t) noexcept { keep(frame); }
    static inline int somewhere = 0;
};

template <class Frames>
void across(benchmark::State& state) {
    static ring frames;
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
