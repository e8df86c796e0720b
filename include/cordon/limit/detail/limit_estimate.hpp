// SPDX-License-Identifier: MIT
#pragma once

// The arithmetic of <cordon/limit/adaptive_limiter.hpp>: how a limit follows from what was measured.

#include <cordon/core/detail/config.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What a window of calls has measured.
struct limit_sample {
    double latency;         ///< mean, in ns
    std::size_t in_flight;  ///< the most that ran when one of them began, itself included
    bool dropped;           ///< one of them was told to be
};

/// One rule or the other: `gradient` tells which.
struct limit_terms {
    bool gradient;
    double initial, min, max;
    double backoff;     ///< what is left of a limit after a drop
    double timeout;     ///< aimd: a latency that is as good as a drop, ns
    double tolerance;   ///< gradient2: how much slower than usual is not slow
    double smoothing;   ///< gradient2: the weight of what is new
    double headroom;    ///< gradient2: calls that may queue
    double long_window; ///< gradient2: windows that the usual latency is a mean of
};

class limit_estimate {
public:
    explicit limit_estimate(const limit_terms& t) noexcept : terms_(t), limit_(t.initial) {}

    [[nodiscard]] double limit() const noexcept { return limit_; }
    [[nodiscard]] std::size_t size() const noexcept { return static_cast<std::size_t>(limit_ + 1e-9); }
    [[nodiscard]] bool at_floor() const noexcept { return limit_ <= terms_.min; }
    /// The usual latency in ns; 0 before there is one.
    [[nodiscard]] double usual() const noexcept { return usual_; }

    void update(const limit_sample& s) noexcept {
        limit_ = std::clamp(terms_.gradient ? by_gradient(s) : by_aimd(s), terms_.min, terms_.max);
    }
    /// The usual latency was measured anew.
    void rebase(double latency) noexcept {
        usual_ = latency;
        seen_ = warm_up;
    }

private:
    static constexpr int warm_up = 10;  // windows of which the usual latency is the plain mean

    [[nodiscard]] double by_aimd(const limit_sample& s) const noexcept {
        if (s.dropped || s.latency > terms_.timeout) return std::floor(limit_ * terms_.backoff);
        return 2 * static_cast<double>(s.in_flight) >= limit_ ? limit_ + 1 : limit_;
    }
    [[nodiscard]] double by_gradient(const limit_sample& s) noexcept {
        if (s.dropped) return limit_ * terms_.backoff;
        const double usual = usual_ = usual_with(s.latency);
        if (usual / s.latency > 2) usual_ *= 0.95;
        if (2 * static_cast<double>(s.in_flight) < limit_) return limit_;  // says nothing about the limit
        const double gradient = std::clamp(terms_.tolerance * usual / s.latency, 0.5, 1.0);
        return limit_ * (1 - terms_.smoothing) + (limit_ * gradient + terms_.headroom) * terms_.smoothing;
    }
    [[nodiscard]] double usual_with(double latency) noexcept {
        if (seen_ < warm_up) {
            ++seen_;
            return usual_ + (latency - usual_) / seen_;
        }
        return usual_ + (latency - usual_) * 2 / (terms_.long_window + 1);
    }

    limit_terms terms_;
    double limit_;
    double usual_ = 0;
    int seen_ = 0;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
