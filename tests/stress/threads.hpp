// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/outcome.hpp>
#include <cordon/core/task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <thread>
#include <utility>

#if defined(__linux__)
#include <unistd.h>
#endif

namespace stress {

/// A seed that is printed, before anything can go wrong, in the form in which it can be asked for again. It repeats
/// what the threads do, not when.
inline std::uint64_t fresh_seed() {
    const char* const asked = std::getenv("CORDON_STRESS_SEED");
    const std::uint64_t seed = asked != nullptr ? std::strtoull(asked, nullptr, 10) : std::random_device{}();
    std::printf("CORDON_STRESS_SEED=%llu\n", static_cast<unsigned long long>(seed));
    std::fflush(stdout);
    return seed;
}

#if defined(__SANITIZE_THREAD__)
inline constexpr bool thread_sanitizer = true;
#elif defined(__has_feature)
inline constexpr bool thread_sanitizer = __has_feature(thread_sanitizer);
#else
inline constexpr bool thread_sanitizer = false;
#endif

/// `n`, or a quarter of it under ThreadSanitizer: a round takes twenty times as long there, and races are seen by what
/// threads do, not by whether they do it at the same moment.
inline constexpr int rounds(int n) { return thread_sanitizer ? n / 4 : n; }

/// Resident bytes of this process; 0 where nobody tells.
inline std::size_t resident() {
#if defined(__linux__)
    unsigned long long total = 0, pages = 0;
    if (std::FILE* const f = std::fopen("/proc/self/statm", "r")) {
        if (std::fscanf(f, "%llu %llu", &total, &pages) != 2) pages = 0;
        std::fclose(f);
    }
    return static_cast<std::size_t>(pages) * static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
#else
    return 0;
#endif
}

/// Small random numbers, from a seed that is printed.
class dice {
public:
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(engine_() % n); }

private:
    std::minstd_rand engine_{static_cast<std::uint32_t>(fresh_seed())};
};

/// A while, so that things happen in different orders.
inline void dawdle(std::uint32_t how_long) {
    for (; how_long > 0; --how_long) std::atomic_signal_fence(std::memory_order_seq_cst);
}

/// Counts those of its kind that live.
class counted {
public:
    explicit counted(std::atomic<int>& n) noexcept : n_(&n) { ++n; }
    counted(const counted&) = delete;
    counted& operator=(const counted&) = delete;
    ~counted() { --*n_; }

private:
    std::atomic<int>* n_;
};

/// A loop with a thread of its own, which ends with it.
class looping_thread {
public:
    looping_thread() : thread_([this] { loop_.run(); }) {}
    ~looping_thread() {
        loop_.stop();
        thread_.join();
    }
    cordon::run_loop& loop() noexcept { return loop_; }

private:
    cordon::run_loop loop_;
    std::thread thread_;
};

/// A few of them, and tasks started on them.
template <std::size_t loops>
class crew {
public:
    void start(std::size_t on, cordon::task<> t) {
        left_.fetch_add(1, std::memory_order_relaxed);
        cordon::start_on(threads_[on % loops].loop(), std::move(t),
                         [this](const cordon::outcome<void>&) {
                             if (left_.fetch_sub(1, std::memory_order_acq_rel) == 1) left_.notify_all();
                         });
    }
    cordon::run_loop& loop(std::size_t i) noexcept { return threads_[i % loops].loop(); }
    /// Returns when all that was started has ended.
    void wait() {
        for (int left; (left = left_.load(std::memory_order_acquire)) != 0;) left_.wait(left);
    }

private:
    std::atomic<int> left_{0};
    std::array<looping_thread, loops> threads_;
};

}  // namespace stress
