// SPDX-License-Identifier: MIT
#pragma once

// How often which duration occurred: log-linear, so that a minute and a microsecond are both known to within 1/128, in
// 58 KiB whatever the range. After Gil Tene's HdrHistogram.

#include <algorithm>
#include <array>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>

namespace loadgen {

class histogram {
public:
    using duration = std::chrono::nanoseconds;

    /// Counts a duration; a negative one as zero.
    void record(duration d) noexcept {
        const auto value = static_cast<std::uint64_t>(std::max<duration::rep>(d.count(), 0));
        ++buckets_[index_of(value)];
        ++count_;
        max_ = std::max(max_, value);
    }

    /// Adds all that another one has counted.
    void merge(const histogram& other) noexcept {
        for (std::size_t i = 0; i < buckets_.size(); ++i) buckets_[i] += other.buckets_[i];
        count_ += other.count_;
        max_ = std::max(max_, other.max_);
    }

    /// The smallest duration that at least `percent` of what was counted does not exceed.
    /// Returns:       never less than the true one, and more by less than 1/128 of it; zero if nothing was counted
    [[nodiscard]] duration percentile(double percent) const noexcept {
        const double share = std::clamp(percent, 0.0, 100.0) / 100 * static_cast<double>(count_);
        // 99.9% of 1000 is 999, not the 1000 to which binary fractions would round it up.
        const auto rank = std::max<std::uint64_t>(1, static_cast<std::uint64_t>(std::ceil(share - 1e-6)));
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < buckets_.size(); ++i)
            if ((seen += buckets_[i]) >= rank) return as_duration(std::min(highest_in(i), max_));
        return duration::zero();
    }

    [[nodiscard]] duration max() const noexcept { return as_duration(max_); }
    [[nodiscard]] std::uint64_t count() const noexcept { return count_; }

private:
    // Values below 256 have a bucket each; above, each power of two has 128 buckets. A value is shifted right until
    // eight bits are left; the bucket is 128 for each shift, and those bits.
    static constexpr int exact_bits = 8;
    static constexpr std::size_t per_power = 128;

    static std::size_t index_of(std::uint64_t value) noexcept {
        const int shift = std::max(0, static_cast<int>(std::bit_width(value)) - exact_bits);
        return static_cast<std::size_t>(shift) * per_power + static_cast<std::size_t>(value >> shift);
    }
    static std::uint64_t highest_in(std::size_t index) noexcept {
        const std::size_t shift = index < 2 * per_power ? 0 : index / per_power - 1;
        return ((std::uint64_t{index - shift * per_power} + 1) << shift) - 1;
    }
    static duration as_duration(std::uint64_t value) noexcept { return duration(static_cast<duration::rep>(value)); }

    std::array<std::uint64_t, per_power * (63 - exact_bits + 2)> buckets_{};  // durations have 63 bits
    std::uint64_t count_ = 0;
    std::uint64_t max_ = 0;
};

}  // namespace loadgen
