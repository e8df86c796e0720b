// SPDX-License-Identifier: MIT
#pragma once

// A limit on how many calls run at the same time that finds its own size: it measures how long they take, grows while
// that stays as it is, and shrinks when it does not.
//
//     adaptive_limiter stock{gradient2{.initial = 20, .min = 1, .max = 1000}, {.name = "stock"}};
//     if (auto permit = stock.try_acquire()) {
//         ask();
//         permit.succeeded();      // or .failed(), .dropped(); it measures the time itself
//     }
//
// With a size that is known see bulkhead.hpp.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/detail/limit_estimate.hpp>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {

/// Additive increase, multiplicative decrease: one more after a success with at least half of the limit in use, a tenth
/// less after a drop, or a latency beyond `timeout`. Simple; needs calls that are dropped.
/// Source:        AIMDLimit of Netflix's concurrency-limits
struct aimd {
    std::size_t initial = 20, min = 20, max = 200;  ///< 1 <= min <= initial <= max
    double backoff = 0.9;                           ///< 0.5 to less than 1
    clock::duration timeout = std::chrono::seconds(5);
};

/// The limit times the ratio of the usual latency to the present one, and a few calls that may queue. Notices a queue
/// further in before anything is dropped.
/// Source:        Gradient2Limit of Netflix's concurrency-limits. There a drop is not heeded
struct gradient2 {
    std::size_t initial = 20, min = 20, max = 200;  ///< 1 <= min <= initial <= max
    double tolerance = 1.5;                         ///< how much slower than usual is not slow; at least 1
    double smoothing = 0.2;                         ///< the weight of what is new; more than 0 to 1
    std::size_t headroom = 4;                       ///< calls that may queue
    std::uint32_t long_window = 600;                ///< how many windows the usual latency is a mean of; 1 and more
};

struct adaptive_limiter_options {
    std::string_view name = {};
    std::size_t max_waiting = 0;                          ///< beyond these a call is refused at once
    clock::duration max_wait = (clock::duration::max)();  ///< after which one that waits is refused; more than 0
    clock::duration window = std::chrono::seconds(1);     ///< the least time between two changes of the limit
    std::size_t min_samples = 10;                         ///< calls that a change is made of, at least; 1 and more
    clock::duration min_latency = std::chrono::microseconds(100);  ///< what is faster says nothing, or in a probe this
    bool failures_shrink = true;                          ///< behind `settle` a failure is a drop
    // Of gradient2 only: the usual latency is measured anew with few calls at a time, so that a queue which has become
    // usual is seen. Meanwhile the limit is `probe_concurrency`; then it is what it was. After `probe_samples` drops it
    // is given up.
    clock::duration probe_every = (clock::duration::max)();  ///< more than 0, and up to 15 % later; `max()`: never
    std::uint32_t probe_at_floor = 5;                     ///< after so many windows at `min`, half in use; 0: never
    std::size_t probe_concurrency = 3;                    ///< 1 and more; `max` bounds it, `min` does not
    std::size_t probe_samples = 50;                       ///< 1 to 10000; their median is the new usual latency
    std::uint64_t seed = 0;                               ///< of those 15 %; 0: chosen by the clock
};

/// So many calls at a time as measured latency says, and so many that wait.
///
/// A call that was stopped, ignored or failed, and one that began before the present measurement did, is no sample;
/// only windows in which half of the limit was in use make it grow.
/// Threads:       all members from any; a permit may be given back on another thread than it was got on
/// Order:         first come, first served. A limit that shrinks comes about as calls end: nobody is held up
/// Lifetime:      destroyed with permits out or waiters it prints its name and terminates
/// Cost:          a bulkhead's, two readings of the processor's counter, two atomic additions, and for each sample a
///                lock of a few instructions, but at the end of a probe while the median of its `probe_samples` is
///                found: half a microsecond of 50, 70 of 10,000. No allocation after it was made
class adaptive_limiter {
    class acquire_operation;

public:
    class permit;

    static constexpr std::string_view kind = "adaptive_limiter";
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp

    struct snapshot {
        std::size_t limit = 0;
        std::size_t in_use = 0;              ///< more than the limit after it has shrunk, until they have ended
        std::size_t waiting = 0;
        clock::duration usual_latency{0};    ///< gradient2: what it compares with; zero before there is one
        bool probing = false;
        // Since it was made:
        std::uint64_t rejected = 0;  ///< refusals of all kinds
        std::uint64_t samples = 0;   ///< calls that counted
        std::uint64_t dropped = 0;   ///< of them those that were dropped
        std::uint64_t stale = 0;     ///< calls that began before the present measurement
    };

    /// Errors:        `std::invalid_argument` if a member is outside its range
    explicit adaptive_limiter(const aimd& rule, const adaptive_limiter_options& options = {});
    explicit adaptive_limiter(const gradient2& rule, const adaptive_limiter_options& options = {});
    adaptive_limiter(const adaptive_limiter&) = delete;
    adaptive_limiter& operator=(const adaptive_limiter&) = delete;

    /// Takes a permit if one is free and nobody waits; else the permit is empty.
    [[nodiscard]] permit try_acquire() noexcept;

    /// Takes a permit, waiting for it.
    /// Errors:        refused as `full` if `max_waiting` wait already, and after `max_wait`; as `closed`
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing. A free permit is taken even by a
    ///                task that is to stop
    [[nodiscard]] acquire_operation acquire() noexcept;

    /// The same on a thread.
    [[nodiscard]] outcome<permit> acquire_blocking(const blocking_scope& heeds = {});

    /// `acquire`, for a guarded call.
    [[nodiscard]] acquire_operation admission() noexcept;

    /// `call()` once there is room; an operation that gives what the call gives.
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// Refuses all who wait and all who come, as `closed`. Permits that are out stay good.
    void close() noexcept { slots_.close(); }

    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return slots_.name(); }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("rejected", now.rejected, "Calls that were refused.");
        sink.counter("samples", now.samples, "Calls whose latency counted.");
        sink.counter("dropped", now.dropped, "Calls of them that were dropped.");
        sink.counter("stale", now.stale, "Calls that began too early to count.");
        sink.gauge("limit", now.limit, "Calls that may run at a time.");
        sink.gauge("in_use", now.in_use, "Calls that run.");
        sink.gauge("waiting", now.waiting, "Calls that wait for others to end.");
        sink.gauge("usual_latency_seconds", std::chrono::duration<double>(now.usual_latency).count(),
                   "The latency that the present one is compared with.");
    }

private:
    struct started {
        clock::time_point at;
        std::uint32_t in_flight;
        std::uint32_t epoch;
    };

    adaptive_limiter(const detail::limit_terms& terms, const adaptive_limiter_options& options);
    static const adaptive_limiter_options& checked(const adaptive_limiter_options& o);
    /// Empty if `slot` is.
    [[nodiscard]] permit permit_for(bulkhead::permit&& slot) noexcept;
    void sample(const started& call, bool dropped) noexcept;
    void count_in_window(clock::duration latency, const started& call, bool dropped, clock::time_point now) noexcept;
    void count_in_probe(clock::duration latency, bool dropped, clock::time_point now) noexcept;
    void begin_window(clock::time_point now) noexcept;
    void next_epoch(bool probes, clock::time_point now) noexcept;
    void resize() noexcept;
    [[nodiscard]] std::size_t wanted() const noexcept {
        return probing_ ? options_.probe_concurrency : estimate_.size();
    }

    [[nodiscard]] static bool is_probe(std::uint32_t epoch) noexcept { return epoch % 2 == 0; }  // A2

    // A1 in_flight_ is how many have a permit of slots_; a call's own number is what it finds with itself included.
    // A2 epoch_ is written under the lock, with each change between measuring windows and probing. What began in
    //    another epoch is no sample: it ran under another limit. Windows and probes take turns, beginning with
    //    windows in epoch 1. Relaxed, since a call that begins at that moment may
    //    belong to either.
    // A3 Whoever has changed the limit makes it that of slots_ without the lock, which wakes others, and looks again
    //    afterwards: the last one to look has seen the last change.
    adaptive_limiter_options options_;  // of which the name is not used
    bulkhead slots_;
    std::atomic<std::uint32_t> in_flight_{0};
    std::atomic<std::uint32_t> epoch_{0};
    mutable detail::spin_lock lock_;
    detail::limit_estimate estimate_;  // this and the rest under lock_
    const bool can_probe_;
    clock::time_point window_end_, next_probe_;
    double sum_ = 0;                   // of latencies, ns
    std::size_t count_ = 0;
    std::size_t most_in_flight_ = 0;
    bool any_dropped_ = false;
    bool probing_ = false;
    std::uint32_t windows_at_floor_ = 0;
    std::vector<double> probed_;       // latencies; its capacity is made beforehand
    std::size_t dropped_in_probe_ = 0;
    detail::random_source random_;
    std::uint64_t samples_ = 0, dropped_ = 0, stale_ = 0;
};

/// A call that may run. Says how it ended, once; gives its place back when it dies, and is no sample then.
/// Lifetime:      the limiter outlives it
class [[nodiscard]] adaptive_limiter::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept
        : slot_(std::move(other.slot_)), of_(std::exchange(other.of_, nullptr)), call_(other.call_) {}
    permit& operator=(permit&& other) noexcept {
        if (this == &other) return *this;
        release();
        slot_ = std::move(other.slot_);
        of_ = std::exchange(other.of_, nullptr);
        call_ = other.call_;
        return *this;
    }
    ~permit() { release(); }

    [[nodiscard]] explicit operator bool() const noexcept { return of_ != nullptr; }

    /// It took this long, and that is a sample.
    void succeeded() noexcept { end(true, false); }
    /// It ended, and its time says nothing.
    void failed() noexcept { release(); }
    /// Whom it asked was overloaded: refused it, or let it wait too long.
    void dropped() noexcept { end(true, true); }
    /// Gives the place back; no sample.
    void release() noexcept { end(false, false); }
    /// A success is a sample, a failure a drop, unless the options say otherwise; the rest is no sample.
    void settle(verdict v) noexcept {
        if (of_ != nullptr) end(v == verdict::success || (v == verdict::failure && of_->options_.failures_shrink),
                                v == verdict::failure);
    }

private:
    friend class adaptive_limiter;
    permit(bulkhead::permit&& slot, adaptive_limiter* of, const started& call) noexcept
        : slot_(std::move(slot)), of_(of), call_(call) {}
    void end(bool counts, bool dropped) noexcept {
        adaptive_limiter* const of = std::exchange(of_, nullptr);
        if (of == nullptr) return;
        of->in_flight_.fetch_sub(1, std::memory_order_relaxed);  // A1
        if (counts) of->sample(call_, dropped);
        slot_.release();
    }

    bulkhead::permit slot_;
    adaptive_limiter* of_ = nullptr;
    started call_{};
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/limit/detail/adaptive_limiter_bodies.hpp>
