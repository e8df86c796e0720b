// SPDX-License-Identifier: MIT
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/tick_clock.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>
#endif

namespace {

namespace co = cordon;
using co::clock;
using co::detail::quick_error;
using co::detail::quick_now;

/// Puts this thread on another processor, where there are several and it may choose.
void move_to(unsigned which) {
#if defined(__linux__)
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(which % std::thread::hardware_concurrency(), &one);
    if (sched_setaffinity(0, sizeof one, &one) != 0) std::this_thread::yield();
#else
    static_cast<void>(which);
    std::this_thread::yield();
#endif
}

}  // namespace

TEST_CASE("what threads read of the quick clock agrees, on whatever processors they run and are moved to",
          "[stress][tick_clock]") {
    std::atomic<std::int64_t> latest{0};  // that any thread has read of the quick clock
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t)
        threads.emplace_back([&, t] {
            const auto expect = [&](bool right) { wrong += right ? 0 : 1; };
            for (unsigned i = 0, moves = 0; i < static_cast<unsigned>(stress::rounds(200'000)); ++i) {
                if (i % 4096 == 0) move_to(t + moves++);
                const clock::duration seen(latest.load(std::memory_order_relaxed));
                const clock::time_point before = clock::now(), quick = quick_now(), after = clock::now();
                expect(quick >= before - quick_error && quick <= after + quick_error);
                expect(quick.time_since_epoch() >= seen - 2 * quick_error);  // another's, who was wrong the other way
                latest.store(quick.time_since_epoch().count(), std::memory_order_relaxed);
            }
        });
    for (std::thread& t : threads) t.join();
    CHECK(wrong == 0);
}
