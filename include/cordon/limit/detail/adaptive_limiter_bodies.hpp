// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/limit/adaptive_limiter.hpp>, which includes this, and has its invariants.

#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/limit/adaptive_limiter.hpp>
#include <cordon/limit/bulkhead.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class T>
void check_adaptive(bool good, const char* option, const T& value, const char* allowed) {
    check_option(good, "adaptive_limiter", option, value, allowed);
}
template <class T>
void check_adaptive_range(const char* option, T value, std::type_identity_t<T> least, std::type_identity_t<T> most) {
    (void)checked_range("adaptive_limiter", option, value, least, most);
}
template <class Rule>
void check_sizes(const Rule& r) {
    check_adaptive_range("max", r.max, 1, bulkhead::max_limit);
    if (r.min < 1 || r.min > r.max)
        refuse_option("adaptive_limiter", "min", r.min, "are 1 to max, " + shown(r.max));
    check_adaptive_range("initial", r.initial, r.min, r.max);
}
inline double in_ns(clock::duration d) noexcept {
    return static_cast<double>(std::chrono::nanoseconds(d).count());
}
[[nodiscard]] inline limit_terms checked(const aimd& r) {
    check_sizes(r);
    check_adaptive(r.backoff >= 0.5 && r.backoff < 1, "backoff", r.backoff, "are 0.5 to less than 1");
    check_adaptive(r.timeout > clock::duration::zero(), "timeout", r.timeout, "are more than 0");
    return {false, static_cast<double>(r.initial), static_cast<double>(r.min), static_cast<double>(r.max), r.backoff,
            in_ns(r.timeout), 1, 1, 0, 1};
}
[[nodiscard]] inline limit_terms checked(const gradient2& r) {
    check_sizes(r);
    check_adaptive(r.tolerance >= 1 && r.tolerance <= 1000, "tolerance", r.tolerance, "are 1 to 1000");
    check_adaptive(r.smoothing > 0 && r.smoothing <= 1, "smoothing", r.smoothing, "are more than 0 to 1");
    check_adaptive_range("headroom", r.headroom, 0, bulkhead::max_limit);
    check_adaptive(r.long_window >= 1, "long_window", r.long_window, "are 1 and more");
    return {true, static_cast<double>(r.initial), static_cast<double>(r.min), static_cast<double>(r.max), 0.9, 0,
            r.tolerance, r.smoothing, static_cast<double>(r.headroom), static_cast<double>(r.long_window)};
}

}  // namespace detail

/// A bulkhead's, whose permit becomes one of the limiter's.
class adaptive_limiter::acquire_operation : public detail::operation_base<acquire_operation> {
    using inner = decltype(std::declval<bulkhead&>().acquire());

public:
    using value_type = permit;
    static constexpr bool needs_executor = true;

    explicit acquire_operation(adaptive_limiter& l) noexcept : limiter_(&l) {}
    /// See `admits_at_once`.
    permit at_once() noexcept { return limiter_->permit_for(limiter_->slots_.acquire().at_once()); }
    class state {
    public:
        explicit state(acquire_operation&& a) noexcept : limiter_(a.limiter_), inner_(limiter_->slots_.acquire()) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;

        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return inner_.start(r); }
        outcome<permit> take() noexcept {
            outcome<bulkhead::permit> got = inner_.take();
            if (!got.has_value()) [[unlikely]] return detail::as_failure<permit>(got);
            return outcome<permit>(std::in_place, limiter_->permit_for(*std::move(got)));
        }

    private:
        adaptive_limiter* limiter_;
        typename inner::state inner_;
    };

private:
    adaptive_limiter* limiter_;
};

inline const adaptive_limiter_options& adaptive_limiter::checked(const adaptive_limiter_options& o) {
    using detail::check_adaptive, detail::check_adaptive_range;
    const auto zero = clock::duration::zero();
    check_adaptive(o.max_wait > zero, "max_wait", o.max_wait, "are more than 0");
    check_adaptive(o.window >= zero, "window", o.window, "are 0 and more");
    check_adaptive(o.min_samples >= 1, "min_samples", o.min_samples, "are 1 and more");
    check_adaptive(o.min_latency >= zero, "min_latency", o.min_latency, "are 0 and more");
    check_adaptive(o.probe_every > zero, "probe_every", o.probe_every, "are more than 0");
    check_adaptive_range("probe_concurrency", o.probe_concurrency, 1, bulkhead::max_limit);
    check_adaptive_range("probe_samples", o.probe_samples, 1, 10'000);
    return o;
}
inline adaptive_limiter::adaptive_limiter(const aimd& rule, const adaptive_limiter_options& options)
    : adaptive_limiter(detail::checked(rule), checked(options)) {
    detail::check_adaptive(options.probe_every == (clock::duration::max)(), "probe_every", options.probe_every,
                           "is with aimd only max(), since it measures no usual latency");
}
inline adaptive_limiter::adaptive_limiter(const gradient2& rule, const adaptive_limiter_options& options)
    : adaptive_limiter(detail::checked(rule), checked(options)) {}
inline adaptive_limiter::adaptive_limiter(const detail::limit_terms& terms, const adaptive_limiter_options& options)
    : options_(options),
      slots_(static_cast<std::size_t>(terms.initial),
             {.name = options.name, .max_waiting = options.max_waiting, .max_wait = options.max_wait}),
      estimate_(terms), can_probe_(terms.gradient), random_(options.seed) {
    options_.name = {};
    options_.probe_concurrency = (std::min)(options.probe_concurrency, static_cast<std::size_t>(terms.max));
    if (can_probe_) probed_.reserve(options.probe_samples);
    next_epoch(false, clock::now());
}

inline adaptive_limiter::permit adaptive_limiter::permit_for(bulkhead::permit&& slot) noexcept {
    if (!slot) return permit();
    const started call{detail::quick_now(), in_flight_.fetch_add(1, std::memory_order_relaxed) + 1,  // A1
                       epoch_.load(std::memory_order_relaxed)};                                      // A2
    return permit(std::move(slot), this, call);
}
inline adaptive_limiter::permit adaptive_limiter::try_acquire() noexcept { return permit_for(slots_.try_acquire()); }
inline adaptive_limiter::acquire_operation adaptive_limiter::acquire() noexcept { return acquire_operation(*this); }
inline adaptive_limiter::acquire_operation adaptive_limiter::admission() noexcept { return acquire_operation(*this); }
inline outcome<adaptive_limiter::permit> adaptive_limiter::acquire_blocking(const blocking_scope& heeds) {
    return detail::block_on(acquire(), heeds);
}

inline void adaptive_limiter::sample(const started& call, bool dropped) noexcept {
    const clock::time_point now = detail::quick_now();
    const clock::duration latency = (std::max)(now - call.at, clock::duration::zero());
    if (!dropped && latency < options_.min_latency && !is_probe(call.epoch)) return;
    std::size_t before = 0, after = 0;
    {
        const detail::spin_guard guard(lock_);
        if (call.epoch != epoch_.load(std::memory_order_relaxed)) {  // A2
            ++stale_;
            return;
        }
        ++samples_;
        if (dropped) ++dropped_;
        before = wanted();
        if (!probing_) count_in_window(latency, call, dropped, now);
        else count_in_probe(latency, dropped, now);
        after = wanted();
    }
    if (before != after) resize();
}
/// Under the lock.
inline void adaptive_limiter::count_in_window(clock::duration latency, const started& call, bool dropped,
                                              clock::time_point now) noexcept {
    sum_ += detail::in_ns(latency);
    ++count_;
    most_in_flight_ = (std::max)(most_in_flight_, std::size_t{call.in_flight});
    any_dropped_ = any_dropped_ || dropped;
    if (count_ < options_.min_samples || now < window_end_) return;
    const bool in_use = 2 * most_in_flight_ >= wanted();
    // a latency of nothing would be no divisor
    estimate_.update({(std::max)(sum_ / static_cast<double>(count_), 1.0), most_in_flight_, any_dropped_});
    begin_window(now);
    windows_at_floor_ = in_use && estimate_.at_floor() ? windows_at_floor_ + 1 : 0;
    const bool stuck = options_.probe_at_floor != 0 && windows_at_floor_ >= options_.probe_at_floor;
    if (can_probe_ && (stuck || now >= next_probe_)) next_epoch(true, now);
}
/// Under the lock. What is too fast for a window counts as just slow enough: with few calls at a time all may be that
/// fast, and the usual latency is compared with windows in which none is.
inline void adaptive_limiter::count_in_probe(clock::duration latency, bool dropped, clock::time_point now) noexcept {
    if (dropped) {
        if (++dropped_in_probe_ == options_.probe_samples) next_epoch(false, now);  // it would not end
        return;
    }
    probed_.push_back((std::max)(detail::in_ns((std::max)(latency, options_.min_latency)), 1.0));
    if (probed_.size() < options_.probe_samples) return;
    const auto middle = probed_.begin() + static_cast<std::ptrdiff_t>(probed_.size() / 2);
    std::nth_element(probed_.begin(), middle, probed_.end());
    estimate_.rebase(*middle);
    next_epoch(false, now);
}
inline void adaptive_limiter::begin_window(clock::time_point now) noexcept {
    sum_ = 0;
    count_ = most_in_flight_ = 0;
    any_dropped_ = false;
    const auto never = (clock::time_point::max)();
    window_end_ = options_.window < never - now ? now + options_.window : never;
}
/// Under the lock, or alone.
inline void adaptive_limiter::next_epoch(bool probes, clock::time_point now) noexcept {
    epoch_.fetch_add(1, std::memory_order_relaxed);  // A2
    probing_ = probes;
    windows_at_floor_ = 0;
    probed_.clear();
    dropped_in_probe_ = 0;
    begin_window(now);
    next_probe_ = (clock::time_point::max)();
    const double wait = detail::in_ns(options_.probe_every) * (1 + 0.15 * random_.next());
    if (wait < detail::in_ns(next_probe_ - now))
        next_probe_ = now + std::chrono::nanoseconds(static_cast<std::int64_t>(wait));
}
CORDON_NOINLINE inline void adaptive_limiter::resize() noexcept {
    for (std::size_t made = 0;;) {  // A3; no limit is 0
        std::size_t size = 0;
        {
            const detail::spin_guard guard(lock_);
            size = wanted();
        }
        if (size == made) return;
        slots_.resize(made = size);
    }
}

inline adaptive_limiter::snapshot adaptive_limiter::stats() const noexcept {
    const bulkhead::snapshot slots = slots_.stats();
    snapshot s;
    s.in_use = slots.in_use;
    s.waiting = slots.waiting;
    s.rejected = slots.rejected;
    const detail::spin_guard guard(lock_);
    s.limit = wanted();
    s.usual_latency = std::chrono::nanoseconds(static_cast<std::int64_t>(estimate_.usual()));
    s.probing = probing_;
    s.samples = samples_;
    s.dropped = dropped_;
    s.stale = stale_;
    return s;
}

}  // namespace cordon::inline CORDON_ABI
