// SPDX-License-Identifier: MIT
#pragma once

// Random numbers for what spreads load: jitter, sampling. Not for secrets. Seeded, so that a simulation repeats itself.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <cstdint>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A bijection of 64 bits in which each bit of the argument changes about half of those of the result. 0 gives 0.
/// Source:        the output function of splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
///                generators", 2014, with the constants of Vigna's version)
[[nodiscard]] constexpr std::uint64_t mixed(std::uint64_t z) noexcept {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

/// The number in [0, 1) that the 53 upper bits of `z` are, all equally far apart.
[[nodiscard]] constexpr double unit_interval(std::uint64_t z) noexcept {
    return static_cast<double>(z >> 11) * 0x1p-53;
}

/// What a simulation has in the place of chance, for all that runs in it.
class chance {
public:
    [[nodiscard]] virtual std::uint64_t bits() noexcept = 0;
    /// Whether what happens with this share of the times, 0 to 1, does so now. A choice of the schedule.
    [[nodiscard]] virtual bool decide(double share) noexcept = 0;

protected:
    ~chance() = default;
};

/// That of the simulation that runs on this thread; null outside one.
inline constinit thread_local chance* chance_here = nullptr;

[[nodiscard]] CORDON_THREAD_LOCAL_ACCESS inline chance* simulated_chance() noexcept {
    return simulations.load(std::memory_order_relaxed) == 0 ? nullptr : chance_here;
}

/// A source of numbers that many threads draw from: each draw of splitmix64 is used once, by whichever thread comes.
/// Cost:          one atomic addition
class random_source {
public:
    /// A seed of 0 lets the clock and the address of this object choose one; inside a simulation its numbers are the
    /// simulation's, wherever it was made.
    explicit random_source(std::uint64_t seed = 0) noexcept : seeded_(seed != 0), state_(seed != 0 ? seed : chosen()) {}
    random_source(const random_source&) = delete;
    random_source& operator=(const random_source&) = delete;

    [[nodiscard]] std::uint64_t next_bits() noexcept {
        if (!seeded_)
            if (chance* const simulated = simulated_chance()) [[unlikely]] return simulated->bits();
        return mixed(state_.fetch_add(step, std::memory_order_relaxed) + step);
    }
    /// Uniform in [0, 1).
    [[nodiscard]] double next() noexcept { return unit_interval(next_bits()); }
    /// Who decides in its place: the simulation, unless it has a seed of its own.
    [[nodiscard]] chance* decided_by() const noexcept { return seeded_ ? nullptr : simulated_chance(); }

private:
    static constexpr std::uint64_t step = 0x9e3779b97f4a7c15u;  // odd: 2^64 draws before the first comes again

    [[nodiscard]] std::uint64_t chosen() const noexcept {
        const auto now = static_cast<std::uint64_t>(clock::now().time_since_epoch().count());
        return mixed(now + step) ^ mixed(reinterpret_cast<std::uintptr_t>(this));
    }

    const bool seeded_;
    std::atomic<std::uint64_t> state_;  // the sequence is mixed(seed + step), mixed(seed + 2 step), ...
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
