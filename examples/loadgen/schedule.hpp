// SPDX-License-Identifier: MIT
#pragma once

// Which request is due when, and the loop that sends each when it is.
//
// Open loop: request n is due at start + n / rate, whatever became of those before. One that finds every connection
// busy goes out later, but its latency counts from when it was due: otherwise a server that stalls would be measured by
// the few requests which were sent while it did (Gil Tene's "coordinated omission"). Closed loop: the next request of a
// client is due when its last one has ended.

#include <cordon/cordon.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <optional>

namespace loadgen {

namespace co = cordon;

class schedule {
public:
    using time_point = co::clock::time_point;
    using duration = co::clock::duration;

    struct request {
        std::uint64_t number = 0;  // from 0 on
        time_point due;
    };

    /// `rate` is in requests per second; without one the loop is closed.
    schedule(time_point start, duration warm_up, duration lasts, std::optional<double> rate)
        : start_(start), counts_from_(start + warm_up), ends_at_(start + warm_up + lasts), rate_(rate) {}

    /// Returns:       the next request, which may be due later, or long since; none if it would be due after the end,
    ///                or the end has come
    [[nodiscard]] std::optional<request> take() {
        const time_point now = co::clock::now();
        if (now >= ends_at_) return std::nullopt;
        const request next{taken_, rate_ ? due(taken_) : now};
        if (next.due >= ends_at_) return std::nullopt;
        ++taken_;
        return next;
    }

    /// Nothing is due any more from now on.
    void end() {
        ends_at_ = std::min(ends_at_, co::clock::now());
        ending_.request_stop();
    }

    /// Whether a request counts: it was due after the warm-up.
    [[nodiscard]] bool counts(const request& r) const noexcept { return r.due >= counts_from_; }
    /// How many requests that count have become due by now, or by the end. Zero in a closed loop: there nothing is due
    /// but what is sent.
    [[nodiscard]] std::uint64_t due_so_far() const {
        const time_point until = std::min(co::clock::now(), ends_at_);
        return rate_ && until > counts_from_ ? due_before(until) - due_before(counts_from_) : 0;
    }
    /// How long it has counted so far.
    [[nodiscard]] duration counted() const {
        return std::max(duration::zero(), std::min(co::clock::now(), ends_at_) - counts_from_);
    }
    [[nodiscard]] time_point ends_at() const noexcept { return ends_at_; }
    [[nodiscard]] std::optional<double> rate() const noexcept { return rate_; }
    [[nodiscard]] co::inplace_stop_token ending() const noexcept { return ending_.get_token(); }

    /// The longest time by which this program woke up too late, after the warm-up: if it is not small, the program was
    /// too slow itself, and some latencies are too long by so much.
    [[nodiscard]] duration own_delay() const noexcept { return own_delay_; }
    void note_wake_up(time_point planned) {
        if (planned >= counts_from_) own_delay_ = std::max(own_delay_, co::clock::now() - planned);
    }

private:
    [[nodiscard]] time_point due(std::uint64_t n) const {
        return start_ + duration(std::llround(static_cast<double>(n) * 1e9 / *rate_));
    }
    /// How many requests are due before `t`.
    [[nodiscard]] std::uint64_t due_before(time_point t) const {
        auto n = static_cast<std::uint64_t>(std::chrono::duration<double>(t - start_).count() * *rate_);
        while (n > 0 && due(n - 1) >= t) --n;  // what rounding may have got wrong by one
        while (due(n) < t) ++n;
        return n;
    }

    const time_point start_, counts_from_;
    time_point ends_at_;
    const std::optional<double> rate_;
    std::uint64_t taken_ = 0;
    duration own_delay_{};
    co::inplace_stop_source ending_;
};

/// Sends one request after the other, by `send(request) -> task<>`, each when it is due or as soon after as the last
/// one has ended, until the schedule ends. Several of these share a schedule: as each takes the next request as soon as
/// it is free, none is late while one of them has nothing to do.
template <class Send>
co::task<> keep_sending(schedule& plan, Send& send) {
    while (const std::optional<schedule::request> next = plan.take()) {
        if (next->due > co::clock::now()) {
            const co::outcome<void> slept =
                co_await co::as_outcome(co::with(co::sleep_until(next->due), co::stop_on(plan.ending())));
            if (!slept.has_value()) co_return;
            plan.note_wake_up(next->due);
        }
        co_await send(*next);
    }
}

/// Looks every few milliseconds whether this program can keep up with its own timers, even while all who send are busy.
inline co::task<> watch_own_delay(schedule& plan) {
    constexpr std::chrono::milliseconds tick(5);
    for (;;) {
        const schedule::time_point planned = co::clock::now() + tick;
        co_await co::sleep_until(planned);
        plan.note_wake_up(planned);
    }
}

}  // namespace loadgen
