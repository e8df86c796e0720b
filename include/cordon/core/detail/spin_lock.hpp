// SPDX-License-Identifier: MIT
#pragma once

// A lock for a few instructions: one exchange to take, one store to give back, one byte, constant-initialised. Never
// hold it across a call that may block, allocate or run foreign code. And the two ways to wait for a moment: for
// another thread, and for a turn at a word.

#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <cstdint>
#include <thread>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

/// Waits a little more with each call: first on the processor, then by giving up the rest of the time slice, since the
/// thread that is waited for may need this processor.
class spin_wait {
public:
    void operator()() noexcept {
        if (rounds_ == limit) return std::this_thread::yield();
        for (unsigned n = 1u << rounds_; n != 0; --n) spin_pause();
        ++rounds_;
    }

private:
    static constexpr unsigned limit = 4;  // 15 pauses in all: measured better than 100 with two threads on one lock
    unsigned rounds_ = 0;
};

/// For who has lost a compare-and-swap to another thread: stays away for a third of a microsecond, and with each call
/// twice as long, up to one and a half. To get a word's cache line from another processor costs as much as a dozen
/// exchanges where it is: so who stays away lets the others do more than they hold it up. With two threads that do
/// nothing else, a word changed in 8 ns by one alone is changed every 14 ns instead of every 58, and one in 20 ns every
/// 30 instead of every 78; and of a hundred such calls the longest takes 0.7 us instead of 1.6. Waits for nobody: the
/// exchange that comes afterwards may win or lose as the first.
class stand_back {
public:
    void operator()() noexcept {
        stay_away(ticks_);  // not of this object, which then need not be in memory before the first exchange
        if (ticks_ < most) ticks_ *= 2;
    }

private:
    CORDON_NOINLINE static void stay_away(unsigned ticks) noexcept {
#if defined(__x86_64__) || defined(__i386__)
        const std::uint64_t begun = __builtin_ia32_rdtsc();  // a pause takes 10 to 50 ns, as the processor is made
        do spin_pause();
        while (__builtin_ia32_rdtsc() - begun < ticks);
#else
        for (unsigned n = ticks / 16; n != 0; --n) spin_pause();
#endif
    }

    static constexpr unsigned most = 4096;
    unsigned ticks_ = 1024;
};

/// Who finds it held stands back first: two threads that do nothing else than to take an item from a channel, or a
/// resource from a pool, do so two to three times as often as if they tried again at once.
class spin_lock {
public:
    constexpr spin_lock() noexcept = default;
    spin_lock(const spin_lock&) = delete;
    spin_lock& operator=(const spin_lock&) = delete;

    void lock() noexcept {
        if (!try_lock()) [[unlikely]] stand_back_and_lock();
    }
    void unlock() noexcept { locked_.store(false, std::memory_order_release); }

protected:
    bool try_lock() noexcept { return !locked_.exchange(true, std::memory_order_acquire); }
    CORDON_NOINLINE void lock_slow() noexcept {
        spin_wait wait;
        do {
            while (locked_.load(std::memory_order_relaxed)) wait();
        } while (locked_.exchange(true, std::memory_order_acquire));
    }

private:
    CORDON_NOINLINE void stand_back_and_lock() noexcept {
        stand_back lost;
        lost();
        lock_slow();
    }

    std::atomic<bool> locked_{false};
};

/// The same, but takes the lock as soon as it is free: where it matters more how soon something goes from one thread to
/// another than how much is done in all. It makes a hop from one pool to another and back a fifth faster.
class prompt_spin_lock : public spin_lock {
public:
    void lock() noexcept {
        if (!try_lock()) [[unlikely]] lock_slow();
    }
};

/// Holds the lock for a block. (`std::lock_guard` would pull in <mutex>.)
class spin_guard {
public:
    explicit spin_guard(spin_lock& lock) noexcept : lock_(lock) { lock.lock(); }
    explicit spin_guard(prompt_spin_lock& lock) noexcept : lock_(lock) { lock.lock(); }
    spin_guard(const spin_guard&) = delete;
    spin_guard& operator=(const spin_guard&) = delete;
    ~spin_guard() { lock_.unlock(); }

private:
    spin_lock& lock_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
