// SPDX-License-Identifier: MIT
#pragma once

// A bound on how many calls are tried again, shared by all that call the same service: when most calls fail, retries
// would only multiply the load that made them fail.
//
//     retry_budget budget{{.ratio = 0.2, .min_per_second = 10}};  // one retry for five calls, and ten per second
//     auto guarded = pipeline(retry(4, {.budget = &budget}), ...);

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/policy/detail/windowed_balance.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace cordon::inline CORDON_ABI {

/// A share of the calls that ended within a window, and a floor for services that are called rarely. The usual choice.
/// Source:        Finagle's RetryBudget and tower's TpsBudget
struct retry_budget_options {
    std::string_view name = {};
    double ratio = 0.2;                             ///< retries per call, in millionths; 0 to 1000
    std::uint32_t min_per_second = 10;              ///< retries that need no calls; at most 1,000,000
    clock::duration window = std::chrono::seconds(10);  ///< 1 s to 60 s
};

/// Tokens of which a failed attempt takes one and a success brings back a part; no retries while half of them or more
/// are gone. Needs no clock, and heeds how many calls fail, not how many there are.
/// Source:        gRPC proposal A6, "Throttling Retry Attempts and Hedged RPCs"
struct token_budget_options {
    std::string_view name = {};
    std::uint32_t max_tokens = 10;  ///< 3 to 1,000,000: with fewer there would never be a retry
    double per_success = 0.1;       ///< in thousandths; 0.001 to `max_tokens`
};

/// A share of the calls that are under way, and a floor. For calls whose duration matters more than their rate.
/// Source:        Envoy's RetryBudget, failsafe-go's budget
struct in_flight_budget_options {
    std::string_view name = {};
    double in_flight_ratio = 0.2;     ///< retries per call, in millionths; 0 to 1
    std::uint32_t min_in_flight = 3;  ///< retries that need no calls; at most 1,000,000
};

/// Says whether a call may be tried again. Of the three kinds, the members that are named choose one; to leave all at
/// their defaults, name the type: `retry_budget b{token_budget_options{}}`. It never waits, and never ends anything: a
/// call whose retry is refused ends with the outcome that it has, and attempts that run are left alone.
///
/// A policy says of each call, in this order: `called`; for each retry, or hedge, `try_retry`, and if that was granted
/// either `refund` or `retry_ended`; at last `ended` or `uncounted`.
/// Threads:       all members from any, also those of one call
/// Lifetime:      outlives the calls that use it; destroyed with calls in flight, a budget of that kind, which knows of
///                them, prints its name and terminates. The windowed kind belongs to one simulation, or to real time
/// Cost:          a call costs one atomic addition, the windowed kind a clock reading as well, the kind for calls in
///                flight another addition. A retry costs about as much, and an addition that counts it, on a cache line
///                apart. No allocation
class retry_budget {
public:
    static constexpr std::string_view kind = "retry_budget";

    struct snapshot {
        std::uint64_t available = 0;        ///< retries that would be granted now, one after the other
        std::uint64_t granted = 0;          ///< since it was made; those that came back count as well
        std::uint64_t rejected = 0;         ///< since it was made
        std::uint32_t calls_in_flight = 0;  ///< these two only for the kind that looks at them
        std::uint32_t retries_in_flight = 0;
    };

    /// Errors:        of all three: `std::invalid_argument` if a member is outside its range
    explicit retry_budget(const retry_budget_options& options);
    explicit retry_budget(const token_budget_options& options);
    explicit retry_budget(const in_flight_budget_options& options);
    retry_budget() : retry_budget(retry_budget_options{}) {}
    retry_budget(const retry_budget&) = delete;
    retry_budget& operator=(const retry_budget&) = delete;
    ~retry_budget();

    /// Other numbers from now on, each at once. Name and kind stay, and so does what was counted: of the tokens those
    /// that are gone, of a window what is in it.
    /// Errors:        as the constructors; also if it is of another kind
    void set(const retry_budget_options& options) { set(checked(options)); }
    void set(const token_budget_options& options) { set(checked(options)); }
    void set(const in_flight_budget_options& options) { set(checked(options)); }

    /// A call begins: its first attempt.
    void called() noexcept;

    /// Takes what a retry costs. Ask when the retry is scheduled, before the wait for its turn.
    /// Returns:       false: no retry, the call ends with the outcome that it has
    [[nodiscard]] bool try_retry() noexcept;

    /// A granted retry was not sent: its call was stopped, or its time was up. What it cost comes back.
    void refund() noexcept;

    /// The attempt of a granted retry has ended, however.
    void retry_ended() noexcept;

    /// A call has ended; `failure` says whether it ended as a failure, after all its retries.
    void ended(bool failure) noexcept;

    /// Instead of `ended`: it was stopped, or its outcome is one that does not count.
    void uncounted() noexcept;

    /// Each figure as of one moment; those of one word together.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("granted", now.granted, "Retries that were granted.");
        sink.counter("rejected", now.rejected, "Retries that were refused.");
        sink.gauge("available", static_cast<double>(now.available), "Retries that would be granted now.");
        if (rule_ != rule::in_flight) return;
        sink.gauge("calls_in_flight", static_cast<double>(now.calls_in_flight), "Calls that are under way.");
        sink.gauge("retries_in_flight", static_cast<double>(now.retries_in_flight), "Retries that are under way.");
    }

private:
    enum class rule : std::uint8_t { windowed, tokens, in_flight };

    // word_, by rule:
    //   windowed    not used: balance_, in millionths of a retry, has its own legend
    //   tokens      those that are there, in thousandths
    //   in_flight   calls under way, in the upper half, and retries under way, in the lower
    // R1 Each member changes the word by one exchange or addition, so no retry is granted on a figure that has changed.
    //    Orders are relaxed: no other data depends on the word.
    // R2 Tokens: from 0 to limit_; more only after that was lowered, and then they count as limit_. Of a call's failed
    //    attempts each is paid for once: by the retry that follows it, or by `ended` for the last.
    // R3 In flight: neither half is ever below 0, since each `ended` and `retry_ended` follows what it ends.
    static constexpr std::int64_t price = 1'000'000;     // of a retry, windowed; also the scale of in_flight
    static constexpr std::uint64_t token = 1'000;
    static constexpr std::uint64_t one_call = std::uint64_t{1} << 32, one_retry = 1, retries = one_call - 1;
    static constexpr std::uint32_t most = 1'000'000;

    /// Options that have been checked.
    struct terms {
        rule kind;
        std::string_view name;
        std::uint64_t share, limit;
        std::int64_t slot_ns;
    };
    explicit retry_budget(const terms& t);
    void set(const terms& t);
    static terms checked(const retry_budget_options& options);
    static terms checked(const token_budget_options& options);
    static terms checked(const in_flight_budget_options& options);
    static std::uint64_t scaled(double value, std::uint64_t by) noexcept {
        return static_cast<std::uint64_t>(value * static_cast<double>(by) + 0.5);
    }
    static std::int64_t ns_now() noexcept {
        return std::chrono::nanoseconds(detail::quick_now().time_since_epoch()).count();
    }

    [[nodiscard]] bool take() noexcept;
    void put_tokens(std::uint64_t thousandths) noexcept;
    void lose_token() noexcept;
    [[nodiscard]] std::uint64_t share() const noexcept { return share_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t limit() const noexcept { return limit_.load(std::memory_order_relaxed); }
    /// How many retries may be under way with the calls of `word`.
    [[nodiscard]] std::uint64_t allowed(std::uint64_t word) const noexcept {
        return std::max(limit(), (word >> 32) * share() / static_cast<std::uint64_t>(price));
    }

    const rule rule_;
    std::atomic<std::uint64_t> share_;  // what a call, or a success, brings; relaxed, as limit_
    std::atomic<std::uint64_t> limit_;  // the most tokens, or the least that may be in flight
    std::atomic<std::uint64_t> word_{0};
    mutable detail::windowed_balance balance_;
    std::string name_;
    [[maybe_unused]] char apart_[64];  // not alignas: frames of coroutines cannot hold what is over-aligned
    std::atomic<std::uint64_t> granted_{0};
    std::atomic<std::uint64_t> rejected_{0};
};

inline retry_budget::terms retry_budget::checked(const retry_budget_options& options) {
    using detail::checked_range;
    constexpr std::int64_t second = 1'000'000'000;
    const double ratio = checked_range("retry_budget", "ratio", options.ratio, 0, 1000);
    const std::uint64_t per_second = checked_range("retry_budget", "min_per_second", options.min_per_second, 0, most);
    const std::chrono::nanoseconds span =
        checked_range("retry_budget", "window", options.window, std::chrono::seconds(1), std::chrono::minutes(1));
    const std::int64_t window = span.count();
    const std::uint64_t floor = per_second * static_cast<std::uint64_t>(window) / (second / price);
    return {rule::windowed, options.name, scaled(ratio, price), floor, window / detail::windowed_balance::slots};
}
inline retry_budget::terms retry_budget::checked(const token_budget_options& options) {
    const std::uint32_t tokens = detail::checked_range("retry_budget", "max_tokens", options.max_tokens, 3, most);
    const double brings = detail::checked_range("retry_budget", "per_success", options.per_success, 0.001, tokens);
    return {rule::tokens, options.name, scaled(brings, token), tokens * token, 1};
}
inline retry_budget::terms retry_budget::checked(const in_flight_budget_options& options) {
    const double ratio = detail::checked_range("retry_budget", "in_flight_ratio", options.in_flight_ratio, 0, 1);
    const std::uint32_t least = detail::checked_range("retry_budget", "min_in_flight", options.min_in_flight, 0, most);
    return {rule::in_flight, options.name, scaled(ratio, price), least, 1};
}

inline retry_budget::retry_budget(const terms& t)
    : rule_(t.kind), share_(t.share), limit_(t.limit), word_(t.kind == rule::tokens ? t.limit : 0),
      balance_(t.kind == rule::windowed ? static_cast<std::int64_t>(t.limit) : 0, t.slot_ns, ns_now()), name_(t.name) {}
inline retry_budget::retry_budget(const retry_budget_options& options) : retry_budget(checked(options)) {}
inline retry_budget::retry_budget(const token_budget_options& options) : retry_budget(checked(options)) {}
inline retry_budget::retry_budget(const in_flight_budget_options& options) : retry_budget(checked(options)) {}

inline retry_budget::~retry_budget() {
    if (rule_ != rule::in_flight) return;
    if (const std::uint64_t calls = word_.load(std::memory_order_relaxed) >> 32; calls != 0) [[unlikely]]
        detail::fail("retry_budget \"" + name_ + "\" destroyed while calls are in flight: " + std::to_string(calls));
}

inline void retry_budget::set(const terms& t) {
    constexpr const char* kinds[] = {"retry_budget_options", "token_budget_options", "in_flight_budget_options"};
    const auto of = [&](rule r) { return std::string(kinds[static_cast<std::size_t>(r)]); };
    if (t.kind != rule_)
        detail::refuse_option("retry_budget", "the kind of the options", of(t.kind),
                              "is that it was made with, " + of(rule_));
    share_.store(t.share, std::memory_order_relaxed);
    const std::uint64_t before = limit_.exchange(t.limit, std::memory_order_relaxed);
    if (rule_ == rule::windowed) return balance_.set(static_cast<std::int64_t>(t.limit), t.slot_ns);
    if (rule_ == rule::in_flight) return;
    std::uint64_t seen = word_.load(std::memory_order_relaxed), next = 0;
    do {
        next = seen + t.limit - std::min(before, seen + t.limit);
    } while (!word_.compare_exchange_weak(seen, next, std::memory_order_relaxed));  // R1
}

inline void retry_budget::called() noexcept {
    if (rule_ == rule::in_flight) word_.fetch_add(one_call, std::memory_order_relaxed);  // R1
}

inline bool retry_budget::try_retry() noexcept {
    const bool granted = take();
    (granted ? granted_ : rejected_).fetch_add(1, std::memory_order_relaxed);
    return granted;
}
inline bool retry_budget::take() noexcept {
    if (rule_ == rule::windowed) return balance_.try_take(price, ns_now());
    std::uint64_t seen = word_.load(std::memory_order_relaxed), next = 0;
    do {
        if (rule_ == rule::tokens) {
            const std::uint64_t most_now = limit(), there = std::min(seen, most_now);
            if (there < token || 2 * (there - token) <= most_now) return false;  // not while half of them are gone
            next = there - token;
        } else {
            if ((seen & retries) >= allowed(seen)) return false;
            next = seen + one_retry;
        }
    } while (!word_.compare_exchange_weak(seen, next, std::memory_order_relaxed));  // R1
    return true;
}

inline void retry_budget::refund() noexcept {
    switch (rule_) {
        case rule::windowed: return balance_.add(price, ns_now());
        case rule::tokens: return put_tokens(token);
        case rule::in_flight: return retry_ended();
    }
}
inline void retry_budget::retry_ended() noexcept {
    if (rule_ == rule::in_flight) word_.fetch_sub(one_retry, std::memory_order_relaxed);  // R3
}

inline void retry_budget::ended(bool failure) noexcept {
    switch (rule_) {
        case rule::windowed: return balance_.add(static_cast<std::int64_t>(share()), ns_now());
        case rule::tokens: return failure ? lose_token() : put_tokens(share());
        case rule::in_flight: return uncounted();
    }
}
inline void retry_budget::uncounted() noexcept {
    if (rule_ == rule::in_flight) word_.fetch_sub(one_call, std::memory_order_relaxed);  // R3
}

inline void retry_budget::put_tokens(std::uint64_t thousandths) noexcept {
    const std::uint64_t most_now = limit();
    std::uint64_t seen = word_.load(std::memory_order_relaxed);
    while (seen < most_now &&  // a full bucket is left alone: many successes share its cache line
           !word_.compare_exchange_weak(seen, std::min(most_now, seen + thousandths), std::memory_order_relaxed)) {}
}
inline void retry_budget::lose_token() noexcept {
    std::uint64_t seen = word_.load(std::memory_order_relaxed);
    while (seen > 0 && !word_.compare_exchange_weak(seen, seen - std::min(seen, token), std::memory_order_relaxed)) {}
}

inline retry_budget::snapshot retry_budget::stats() const noexcept {
    snapshot now;
    now.granted = granted_.load(std::memory_order_relaxed);
    now.rejected = rejected_.load(std::memory_order_relaxed);
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    if (rule_ == rule::windowed) {
        now.available = static_cast<std::uint64_t>(std::max<std::int64_t>(0, balance_.available(ns_now())) / price);
    } else if (rule_ == rule::tokens) {
        const std::uint64_t most_now = limit(), twice = 2 * std::min(seen, most_now);
        if (twice > most_now) now.available = (twice - most_now - 1) / (2 * token);
    } else {
        now.calls_in_flight = static_cast<std::uint32_t>(seen >> 32);
        now.retries_in_flight = static_cast<std::uint32_t>(seen & retries);
        const std::uint64_t most_now = allowed(seen);
        now.available = most_now - std::min<std::uint64_t>(most_now, now.retries_in_flight);
    }
    return now;
}

}  // namespace cordon::inline CORDON_ABI
