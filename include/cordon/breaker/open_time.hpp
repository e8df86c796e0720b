// SPDX-License-Identifier: MIT
#pragma once

// How long a circuit breaker stays open: a duration, one that grows with each attempt that failed, or a function.
//
//     {.open_for = 30s}
//     {.open_for = open_time::growing(5s, 60s)}
//     {.open_for = [](const breaker_trip& t) { return t.failure_rate > 0.9 ? 60s : 10s; }}

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/random.hpp>

#include <chrono>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// What is known when a breaker opens by itself.
struct breaker_trip {
    std::uint32_t attempt = 0;  ///< how often it has opened before since it was closed last
    double failure_rate = 0;    ///< of the window, or the probes, that led here
    double slow_rate = 0;
    clock::duration last_open{0};  ///< how long it was to be open the last time; zero: never yet
    clock::duration healthy_for = clock::duration::max();  ///< since it was closed, or `reset()`; `max()`: since made
    clock::time_point at{};
};

/// For how long to stay open. Converts from a duration, and from a callable that takes a `breaker_trip`.
class open_time {
public:
    struct growth {
        double factor = 2;       ///< 1 or more
        double jitter = 0.1;     ///< up to that part shorter or longer, never above the most; 0 to 1
        std::uint64_t seed = 0;  ///< of the jitter, beside the time at which the breaker opens
    };

    template <class Rep, class Period>
    open_time(std::chrono::duration<Rep, Period> always) noexcept
        : kind_(kind::fixed), first_(detail::saturated(always)), most_(first_) {}

    /// Errors:        if it throws, the breaker is open for 5 s, and counts that among its `listener_errors`
    /// Lifetime:      the callable is copied, and shared by the copies of this object
    /// Threads:       called by the thread whose call opened the breaker, under no lock, by one thread at a time for
    ///                one breaker unless that is opened again while it runs
    template <class F>
        requires(!std::same_as<std::remove_cvref_t<F>, open_time> &&
                 std::is_invocable_r_v<clock::duration, std::remove_cvref_t<F>&, const breaker_trip&>)
    open_time(F&& f)
        : kind_(kind::function), model_(std::make_shared<model_of<std::remove_cvref_t<F>>>(std::forward<F>(f))) {}

    /// `first`, then each time `factor` times as long, up to `most`; from the start again once it was closed.
    template <class Rep1, class Period1, class Rep2, class Period2>
    [[nodiscard]] static open_time growing(std::chrono::duration<Rep1, Period1> first,
                                           std::chrono::duration<Rep2, Period2> most,
                                           growth how = {2, 0.1, 0}) noexcept {
        open_time result(first);
        result.kind_ = kind::growing;
        result.most_ = detail::saturated(most);
        result.how_ = how;
        return result;
    }

    /// How long, never less than zero.
    [[nodiscard]] clock::duration operator()(const breaker_trip& trip) const {
        clock::duration d = first_;
        if (kind_ == kind::function) d = model_->call(trip);
        if (kind_ == kind::growing) d = grown(trip);
        return d < clock::duration::zero() ? clock::duration::zero() : d;
    }

    /// What is wrong with it; null: nothing.
    [[nodiscard]] const char* fault() const noexcept {
        if (kind_ == kind::function) return nullptr;
        if (first_ <= clock::duration::zero()) return "more than 0";
        if (most_ < first_) return "a most that is no less than the first";
        if (!(how_.factor >= 1) || !std::isfinite(how_.factor)) return "a factor of 1 or more";
        if (!(how_.jitter >= 0 && how_.jitter <= 1)) return "a jitter from 0 to 1";
        return nullptr;
    }

    /// How it was written, with its durations in nanoseconds.
    [[nodiscard]] std::string text() const {
        const auto ns = [](clock::duration d) { return std::to_string(d.count()) + "ns"; };
        if (kind_ == kind::function) return "a function";
        if (kind_ == kind::fixed) return ns(first_);
        return "growing(" + ns(first_) + ", " + ns(most_) + ", {.factor = " + std::to_string(how_.factor) +
               ", .jitter = " + std::to_string(how_.jitter) + "})";
    }

private:
    enum class kind : std::uint8_t { fixed, growing, function };
    struct model {
        virtual ~model() = default;
        virtual clock::duration call(const breaker_trip&) = 0;
    };
    template <class F>
    struct model_of final : model {
        template <class G>
        explicit model_of(G&& g) : f(std::forward<G>(g)) {}
        clock::duration call(const breaker_trip& trip) override { return f(trip); }
        F f;
    };

    [[nodiscard]] clock::duration grown(const breaker_trip& trip) const noexcept {
        const auto most = static_cast<double>(most_.count());
        double d = static_cast<double>(first_.count()) * std::pow(how_.factor, static_cast<double>(trip.attempt));
        if (!(d < most)) d = most;  // and where it is infinite
        // From -1 to 1. A hash of seed, attempt and time needs no state, and repeats itself in a simulation.
        const std::uint64_t z = how_.seed ^ static_cast<std::uint64_t>(trip.at.time_since_epoch().count()) ^
                          (static_cast<std::uint64_t>(trip.attempt) << 48);
        d *= 1 + how_.jitter * (2 * detail::unit_interval(detail::mixed(z)) - 1);
        return d < most ? clock::duration(static_cast<clock::rep>(d)) : most_;
    }

    kind kind_;
    clock::duration first_{0}, most_{0};
    growth how_{1, 0, 0};
    std::shared_ptr<model> model_;
};

}  // namespace cordon::inline CORDON_ABI
