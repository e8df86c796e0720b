// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/limit/rate.hpp>
#include <cordon/limit/token_bucket.hpp>

#include <algorithm>
#include <cstdint>

/// So many tokens: `level_` divided by the period of the rate, which is exact. Falls below zero by promises, and by a
/// clock that goes back: what came with the time goes with it, first what overflowed, which is why that is kept.
class exact_bucket {
    using int128 = cordon::detail::int128;

public:
    exact_bucket(cordon::rate r, std::uint64_t burst, std::int64_t now) : base_(now), last_(now) {
        terms(r, burst);
        level_ = full();
    }

    /// Where the clock stands for the bucket: not before the terms were given, whose time is its zero.
    std::int64_t time_at(std::int64_t now) const { return std::max(now, base_); }
    /// While somebody waits nothing overflows: it would have been served within the nanosecond.
    void come_to(std::int64_t now, bool awaited = false) {
        level_ += int128{time_at(now) - last_} * events_ + (awaited ? 0 : overflow_);
        last_ = time_at(now);
        overflow_ = 0;
        if (awaited || level_ <= full()) return;
        overflow_ = level_ - full();
        level_ = full();
    }
    bool take(std::uint64_t n) {
        if (n > burst_ || level_ < n * period_) return n == 0;
        promise(n);
        return true;
    }
    /// Until `n` more are there: -1 if never.
    std::int64_t wait(std::uint64_t n) const {
        if (n == 0) return 0;
        if (n > burst_) return -1;
        const int128 missing = n * period_ - level_;
        if (missing <= 0) return 0;
        return events_ == 0 ? -1 : static_cast<std::int64_t>((missing + events_ - 1) / events_);
    }
    void promise(std::uint64_t n) {
        if (n == 0) return;
        level_ -= n * period_;
        overflow_ = 0;
    }
    void drain() {
        level_ = std::min<int128>(level_, 0);
        overflow_ = 0;
    }
    /// Begins anew at `now`. `slack`: what is added for one that counts in other units.
    void set(cordon::rate r, std::uint64_t burst, cordon::inherit how, std::int64_t now, int128 slack = 0) {
        const int128 before = level_, old_period = period_, old_burst = burst_;
        terms(r, burst);
        const bool share = how == cordon::inherit::proportional && before > 0;
        level_ = share ? before * period_ * burst_ / (old_period * old_burst) : floor_of(before * period_, old_period);
        if (how == cordon::inherit::additive && burst_ > old_burst) level_ += (burst_ - old_burst) * period_;
        if (how == cordon::inherit::reset) level_ = full();
        level_ = std::min(level_ + slack, full());
        overflow_ = 0;
        base_ = last_ = now;
    }
    std::int64_t available() const { return static_cast<std::int64_t>(floor_of(level_, period_)); }
    /// Whether `tokens` since the terms were given are no more than a burst and what came until `latest`.
    bool allows(std::uint64_t tokens, std::int64_t latest) const {
        return tokens * period_ <= full() + int128{latest - base_} * events_;
    }
    /// Whether the bucket has counted from one zero until `latest` (G2 of gcra.hpp).
    bool within_reach(std::int64_t latest) const { return int128{latest - base_} * events_ <= int128{1} << 57; }

private:
    static int128 floor_of(int128 a, int128 b) { return a / b - (a < 0 && a % b != 0); }
    void terms(cordon::rate r, std::uint64_t burst) {
        events_ = r.events();
        period_ = r.period().count();
        burst_ = burst;
    }
    int128 full() const { return burst_ * period_; }

    int128 events_ = 0, period_ = 1, burst_ = 0, level_ = 0, overflow_ = 0;
    std::int64_t base_ = 0, last_ = 0;
};
