// SPDX-License-Identifier: MIT
#pragma once

// Sends a second copy of a call that is slower than usual, and takes what comes first: against the few replies that are
// slow for no reason of their own.
//
//     pipeline(timeout(1s), hedge({.after = percentile(0.95), .budget = &budget}), timeout(500ms))
//
// Only for what may be done twice: to put it into a pipeline says that of all its calls, unless a call is marked
// otherwise. Against calls that fail see retry.hpp.

#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/detail/latency_quantile.hpp>
#include <cordon/policy/detail/live_value.hpp>
#include <cordon/policy/retry_budget.hpp>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// Marks a call as one that may, or may not, be done twice: `with(guarded(call), idempotent(false))`.
CORDON_ONE_COPY inline constexpr context_key<bool> idempotent{"idempotent"};

/// When the next copy of a call is sent: after a duration, or after the time that a share of the calls take.
///  - a duration of 0: all copies at once
///  - `duration::max()`: when a copy has failed and none is running, not sooner
class hedge_delay {
public:
    template <class Rep, class Period>
    constexpr hedge_delay(std::chrono::duration<Rep, Period> d) noexcept : fixed_(detail::saturated(d)) {}

    [[nodiscard]] constexpr clock::duration fixed() const noexcept { return fixed_; }
    /// 0 for a fixed one.
    [[nodiscard]] constexpr double share() const noexcept { return share_; }

private:
    friend constexpr hedge_delay percentile(double share);

    clock::duration fixed_;
    double share_ = 0;
};

/// The time within which that share of the last 256 calls had their replies; no call is hedged before there were 20. A
/// call whose copy was faster counts as long as it took until then.
/// Errors:        `std::invalid_argument` unless `share` is between 0 and 1
[[nodiscard]] constexpr hedge_delay percentile(double share) {
    detail::check_option(share > 0 && share < 1, "percentile", "share", share, "is what is between 0 and 1");
    hedge_delay d(clock::duration::zero());
    d.share_ = share;
    return d;
}

struct hedge_options {
    std::string_view name = {};
    hedge_delay after = percentile(0.95);  ///< between a copy and the next; not negative
    int max_extra = 1;                     ///< copies beside the call itself, 0 to 100
    retry_budget* budget = nullptr;        ///< each copy takes from it as a retry does; outlives the calls
    bool within_retry = false;             ///< the calls are attempts of a `retry` that counts them in `budget`
    bool only_marked = false;              ///< only calls that are marked `idempotent(true)` have copies
};

namespace detail {

struct hedge_terms {
    clock::duration delay{0};
    double share = 0;
    retry_budget* budget = nullptr;
    int max_extra = 0;
    bool within_retry = false;
    bool only_marked = false;
    char unused[2] = {};
};

template <class F, class Judge, class Policy>
class hedge_operation;

}  // namespace detail

/// Made by `hedge(options)`. The first copy with a success wins, or with what counts as nothing, but a refusal; then
/// the others are stopped and waited for. A copy that fails does not end the call while another runs; if all fail, the
/// outcome is that of the call itself. A budget that is used up sends no copy, and ends nothing.
/// Cancellation:  a stop reaches all copies; a value that is there already wins. If all were stopped, so is the call
/// Threads:       all members from any; moved while nobody uses it. The call runs where it is awaited, the copies on
///                the executor in effect, with contexts and records of their own: on a pool at the same time as the
///                call, and so is the callable
/// Order:         a copy is sent one delay after the one before, while none has won; one that ignores its stop is
///                waited for, however long that takes
/// Lifetime:      the loser's value is destroyed with the operation
/// Cost:          a call that ends without suspending arms no timer; the scopes above are connected. A copy takes a
///                block of the frame cache
/// Source:        Dean and Barroso, "The Tail at Scale", 2013
class hedge_policy {
public:
    static constexpr std::string_view kind = "hedge";

    struct snapshot {
        std::uint64_t sent = 0;      ///< copies, since it was made
        std::uint64_t won = 0;       ///< of them those that were first
        std::uint64_t rejected = 0;  ///< copies for which the budget had nothing left
        clock::duration delay{0};    ///< after which the next copy would be sent; `max()`: never, or not known yet
    };

    explicit hedge_policy(const hedge_options& options) : terms_(checked(options)), name_(options.name) {}
    hedge_policy(hedge_policy&& other) noexcept
        : terms_(other.terms_.load()), latencies_(std::move(other.latencies_)),
          sent_(other.sent_.load(std::memory_order_relaxed)), won_(other.won_.load(std::memory_order_relaxed)),
          rejected_(other.rejected_.load(std::memory_order_relaxed)), name_(std::move(other.name_)) {}

    /// For the calls that begin from now on; the name stays.
    /// Errors:        as `hedge`
    void set(const hedge_options& options) { terms_.store(checked(options)); }

    /// `call()`, and copies of it.
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) const {
        detail::check_callable<F>();
        using kept = detail::kept_call<F>;
        return detail::hedge_operation<kept, detail::judge<Classifier>, hedge_policy>(
            *this, kept(std::forward<F>(call)), detail::judge<Classifier>(classify));
    }

    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] snapshot stats() const noexcept {
        snapshot s{sent_.load(std::memory_order_relaxed), won_.load(std::memory_order_relaxed),
                   rejected_.load(std::memory_order_relaxed), delay_of(terms_.load())};
        if (s.delay < clock::duration::zero()) s.delay = (clock::duration::max)();
        return s;
    }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("sent", now.sent, "Copies of calls that were sent.");
        sink.counter("won", now.won, "Copies that were faster than their calls.");
        sink.counter("rejected", now.rejected, "Copies that were not sent because the budget was used up.");
        sink.gauge("delay_seconds", seconds(delay_of(terms_.load())),
                   "After which the next copy would be sent; not a number while that is not known yet.");
    }

private:
    template <class F, class Judge, class Policy>
    friend class detail::hedge_operation;

    static detail::hedge_terms checked(const hedge_options& o) {
        const int extra = detail::checked_range("hedge", "max_extra", o.max_extra, 0, 100);
        detail::check_option(o.after.fixed() >= clock::duration::zero(), "hedge", "after", o.after.fixed(),
                             "is what is not negative");
        detail::check_option(!o.within_retry || o.budget != nullptr, "hedge", "within_retry", "true",
                             "is that only with the budget of the retry");
        return {o.after.fixed(), o.after.share(), o.budget, extra, o.within_retry, o.only_marked, {}};
    }
    [[nodiscard]] static double seconds(clock::duration delay) noexcept {
        if (delay < clock::duration::zero()) return std::numeric_limits<double>::quiet_NaN();
        if (delay == (clock::duration::max)()) return std::numeric_limits<double>::infinity();
        return std::chrono::duration<double>(delay).count();
    }
    /// Less than zero: not known yet.
    [[nodiscard]] clock::duration delay_of(const detail::hedge_terms& t) const noexcept {
        if (t.max_extra == 0) return (clock::duration::max)();
        return t.share > 0 ? latencies_.value() : t.delay;
    }

    detail::live_value<detail::hedge_terms> terms_;
    mutable detail::latency_quantile latencies_;
    mutable std::atomic<std::uint64_t> sent_{0}, won_{0}, rejected_{0};
    std::string name_;
};

/// Errors:        `std::invalid_argument` if `after` is negative, `max_extra` out of its range, or `within_retry` said
///                without a budget
[[nodiscard]] inline hedge_policy hedge(const hedge_options& options = {}) { return hedge_policy(options); }

}  // namespace cordon::inline CORDON_ABI

#include <cordon/policy/detail/hedge_operation.hpp>
