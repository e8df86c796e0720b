// SPDX-License-Identifier: MIT
#pragma once

// The time for less than the steady clock costs. By the processor's counter: for ages, rates, and the begin of what has
// a time limit. By the system's ticks: for what is refused for a long time yet. Whoever waits for a moment asks
// `clock::now()`.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <ctime>

#if defined(__x86_64__) && defined(__GNUC__)
#define CORDON_TICKS 1
#else
#define CORDON_TICKS 0
#endif

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI::detail {

/// What one thread knows of a counter: a time of the steady clock and the count at that time, and how fast it counts.
/// That holds for `span` nanoseconds, and only while the last two rates that were measured agree: of a counter that
/// stops, jumps or changes its speed nothing is believed. Nor of one whose count and time cannot be read together,
/// which is how a steady clock looks that does not come from this counter: it is a call of the system then.
class tick_rate {
public:
    static constexpr std::int64_t span = 2'000'000, shortest = 1'000'000, longest = 1 << 30;
    static constexpr std::uint64_t most_apart = 256;  ///< ticks, for a reading of the steady clock between two counts
    static constexpr int patience = 16;
    /// Rather behind than ahead: nobody should find more time left than the limit that has just been set.
    static constexpr std::int64_t behind = 100;

    /// Whether the time at this count is known.
    [[nodiscard]] bool knows(std::uint64_t ticks) const noexcept { return ticks - ticks_ < reach_; }
    /// In nanoseconds, if it is known.
    [[nodiscard]] std::int64_t at(std::uint64_t ticks) const noexcept {
        return ns_ + static_cast<std::int64_t>((ticks - ticks_) * rate_ >> 32);
    }
    /// Too often no time could be read together with a count: nothing will be known any more.
    [[nodiscard]] bool hopeless() const noexcept { return misses_ == patience; }

    /// The steady clock said `ns` between those two counts.
    void see(std::uint64_t before, std::int64_t ns, std::uint64_t after) noexcept {
        if (after - before > most_apart) {  // the thread was set aside meanwhile
            ++misses_;
            reach_ = 0;
            return;
        }
        misses_ = 0;
        const std::int64_t passed = ns - behind - ns_;
        if (passed < shortest && ticks_ != 0) {  // too short to measure a rate, but not to see that it jumped
            if (!knows(after)) reach_ = 0;
            return;
        }
        const std::uint64_t ticks = after - ticks_;
        reach_ = 0;
        if (passed < longest && ticks >= static_cast<std::uint64_t>(passed) >> 4) {
            const std::uint64_t rate = (static_cast<std::uint64_t>(passed) << 32) / ticks;
            const std::uint64_t differs = rate > rate_ ? rate - rate_ : rate_ - rate;
            if (differs < rate >> 12) reach_ = (static_cast<std::uint64_t>(span) << 32) / rate;
            rate_ = rate;
        }
        ticks_ = after;
        ns_ = ns - behind;
    }

private:
    std::uint64_t ticks_ = 0;
    std::uint64_t reach_ = 0;  ///< in ticks
    std::int64_t ns_ = 0;
    std::uint64_t rate_ = 0;  ///< nanoseconds a tick, times 2 to the 32
    int misses_ = 0;          ///< in a row
};

#if CORDON_TICKS
inline constinit thread_local tick_rate this_thread_ticks;

CORDON_NOINLINE inline clock::time_point read_steady_clock() noexcept {
    tick_rate& known = this_thread_ticks;
    if (known.hopeless()) return std::chrono::steady_clock::now();
    const std::uint64_t before = __builtin_ia32_rdtsc();
    const clock::time_point now = std::chrono::steady_clock::now();
    known.see(before, now.time_since_epoch().count(), __builtin_ia32_rdtsc());
    return now;
}
#endif

/// By how much `quick_now()` is wrong at most. As a rule it is a tenth of that behind.
inline constexpr std::chrono::nanoseconds quick_error{1'000};

/// `clock::now()` but for `quick_error`, by which it may also go back; in a simulation exactly that.
/// Threads:       from any; each measures the counter for itself
/// Cost:          a reading of the counter. Of the steady clock as well, each two milliseconds, and where there is no
///                counter, or none that is to be believed
CORDON_THREAD_LOCAL_ACCESS inline clock::time_point quick_now() noexcept {
#if CORDON_TICKS
    if (simulations.load(std::memory_order_relaxed) != 0) [[unlikely]] return simulated_now();
    const tick_rate& known = this_thread_ticks;
    const std::uint64_t ticks = __builtin_ia32_rdtsc();
    if (known.knows(ticks)) [[likely]] return clock::time_point(clock::duration(known.at(ticks)));
    return read_steady_clock();
#else
    return clock::now();
#endif
}

/// How long it is yet to `t`: zero when `clock::now()` is there, and not before. If that is far away it is only as exact
/// as the system's own ticks, which cost a fifth of a reading of the clock.
inline clock::duration time_left(clock::time_point t) noexcept {
#if defined(CLOCK_MONOTONIC_COARSE)
    constexpr std::chrono::milliseconds far{50};  // a tick is 10 at most
    if (simulations.load(std::memory_order_relaxed) == 0) [[likely]] {
        std::timespec now;
        clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        const clock::time_point tick(std::chrono::seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec));
        if (t > tick + far) return t - tick;
    }
#endif
    const clock::time_point now = clock::now();
    return now < t ? t - now : clock::duration::zero();
}

}  // namespace cordon::inline CORDON_ABI::detail

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif

#undef CORDON_TICKS
