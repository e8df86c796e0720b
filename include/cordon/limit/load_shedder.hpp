// SPDX-License-Identifier: MIT
#pragma once

// Refuses work that has waited too long to begin, while there is more of it than can be done: who is served is served
// soon, and the queue does not fill with requests whose callers have given up.
//
//     load_shedder door{{.name = "door", .target = 5ms, .interval = 100ms}};
//     if (!door.try_acquire(request.arrived)) return send(503);          // since when it has waited
//     auto guarded = pipeline(door, ...);                               // or behind it: waits once around the loop
//
// For a limit on how many run see bulkhead.hpp and adaptive_limiter.hpp: they look at what begins, this at what waits.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/core/verdict.hpp>

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// Since when a request has waited: `with(handle(request), arrived(t))`.
CORDON_ONE_COPY inline constexpr context_key<clock::time_point> arrived{"arrived"};

struct load_shedder_options {
    std::string_view name = {};
    clock::duration target = std::chrono::milliseconds(5);      ///< if nobody waits less, the queue stands; more than 0
    clock::duration interval = std::chrono::milliseconds(100);  ///< for how long; more than `target`, to a day
};

/// A queue that is emptied now and then is good, however long it becomes in between: whoever comes then waits less than
/// `target`. If nobody did for an `interval`, the queue stands, and in the next interval all are refused that have
/// waited for more than twice the target; and so on, until in one of them somebody has waited less.
///
/// Behind `admission()` a request has waited since what `arrived` says in its context; without that it waits once
/// around its executor's loop, and for that long.
/// Errors:        refused as `full`
/// Threads:       all members from any
/// Cost:          a reading of the processor's counter and a lock of a few instructions; no allocation
/// Source:        the controlled delay of Nichols and Jacobson (RFC 8289) as servers use it: Maurer, "Fail at Scale",
///                ACM Queue 2015; Codel of folly and wangle. There the first interval begins at any time, so that a
///                queue is seen to stand after up to two
class load_shedder {
    class admission_operation;

public:
    class permit;

    static constexpr std::string_view kind = "load_shedder";
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp

    struct snapshot {
        bool overloaded = false;        ///< the queue stands, as the last interval that has ended says
        clock::duration least_wait{0};  ///< of that interval
        std::uint64_t admitted = 0;     ///< since it was made
        std::uint64_t rejected = 0;     ///< since it was made
    };

    /// Errors:        `std::invalid_argument` if `target` is not above 0, or `interval` not above `target`
    explicit load_shedder(const load_shedder_options& options = {}) : target_(options.target), name_(options.name) {
        set(options.target, options.interval);
    }
    load_shedder(const load_shedder&) = delete;
    load_shedder& operator=(const load_shedder&) = delete;

    /// Whether to serve what has waited since then: the permit is empty if not. A time to come counts as now.
    [[nodiscard]] permit try_acquire(clock::time_point since) noexcept;

    /// The same for a guarded call, after one trip around the executor's loop, or since `arrived`.
    /// Errors:        refused as `full`
    /// Cancellation:  a cancel point when it is entered without `arrived`
    [[nodiscard]] admission_operation admission() noexcept;

    /// `call()`, unless it has waited too long; an operation that gives what the call gives.
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// From now on; the interval that has begun keeps its length.
    /// Errors:        as the constructor
    void set(clock::duration target, clock::duration interval);

    [[nodiscard]] snapshot stats() const noexcept {
        const detail::spin_guard guard(lock_);
        return {overloaded_, last_least_, admitted_, rejected_};
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("admitted", now.admitted, "Requests that were let through.");
        sink.counter("rejected", now.rejected, "Requests that had waited too long.");
        sink.gauge("overloaded", now.overloaded ? 1 : 0, "Whether the queue stands.");
        sink.gauge("least_wait_seconds", std::chrono::duration<double>(now.least_wait).count(),
                   "The shortest wait of the last interval.");
    }

private:
    [[nodiscard]] bool admits(clock::time_point since) noexcept;
    void end_interval(clock::time_point now) noexcept;

    // D1 While the queue does not stand, an interval begins with one that has waited for more than the target, and ends
    //    with one that has not.
    mutable detail::spin_lock lock_;
    clock::duration target_, interval_{};            // this and the rest under lock_
    std::optional<clock::time_point> interval_end_;  // none: it begins with the next request, or a later one
    clock::duration least_{}, last_least_{};
    bool alone_ = false;  // the interval has had one request only
    bool overloaded_ = false;
    std::uint64_t admitted_ = 0, rejected_ = 0;
    std::string name_;
};

/// Leave to serve a request. There is nothing to give back.
class [[nodiscard]] load_shedder::permit {
public:
    permit() noexcept = default;
    [[nodiscard]] explicit operator bool() const noexcept { return admitted_; }
    void settle(verdict) noexcept {}

private:
    friend class load_shedder;
    explicit permit(bool admitted) noexcept : admitted_(admitted) {}
    bool admitted_ = false;
};

// --- below: bodies ----------------------------------------------------------------------------------------------

namespace detail {
inline constinit const wait_label shedder_label{"load_shedder"};
}

class load_shedder::admission_operation : public detail::operation_base<admission_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = true;

    explicit admission_operation(load_shedder& s) noexcept : shedder_(&s) {}
    class state : public detail::yield_operation::state {
        using trip = detail::yield_operation::state;

    public:
        explicit state(admission_operation&& a) noexcept : trip(detail::yield_operation()), shedder_(a.shedder_) {}
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            const clock::time_point* const since = r.ctx().get(arrived);
            since_ = since != nullptr ? *since : detail::quick_now();
            return since != nullptr ? r.complete() : trip::start(r, detail::shedder_label);
        }
        outcome<permit> take() noexcept {
            if (!shedder_->admits(since_)) return outcome<permit>(rejection(reject_reason::full, shedder_->name()));
            return outcome<permit>(std::in_place, permit(true));
        }

    private:
        load_shedder* shedder_;
        clock::time_point since_{};
    };

private:
    load_shedder* shedder_;
};

inline load_shedder::permit load_shedder::try_acquire(clock::time_point since) noexcept {
    return permit(admits(since));
}
inline load_shedder::admission_operation load_shedder::admission() noexcept { return admission_operation(*this); }

inline bool load_shedder::admits(clock::time_point since) noexcept {
    const clock::time_point now = detail::quick_now();
    constexpr clock::duration long_ago = std::chrono::hours(24 * 365);  // and can be counted with
    const clock::duration wait = now - std::clamp(since, now - long_ago, now);
    const detail::spin_guard guard(lock_);
    if (interval_end_ && now >= *interval_end_) end_interval(now);
    if (!overloaded_ && wait <= target_) {  // D1
        interval_end_.reset();
        last_least_ = wait;
    } else if (interval_end_) {
        least_ = (std::min)(least_, wait);
        alone_ = false;
    } else {
        interval_end_ = now + interval_;
        least_ = wait;
        alone_ = true;
    }
    const bool admitted = !overloaded_ || wait - target_ <= target_;
    ++(admitted ? admitted_ : rejected_);
    return admitted;
}
/// Under the lock. An interval in which nobody came, or one, or a longer pause, is no queue that stands.
inline void load_shedder::end_interval(clock::time_point now) noexcept {
    const bool follows = !alone_ && now - *interval_end_ < interval_;
    overloaded_ = follows && least_ > target_;
    last_least_ = follows ? least_ : clock::duration::zero();
    interval_end_.reset();
}

inline void load_shedder::set(clock::duration target, clock::duration interval) {
    detail::check_option(target > clock::duration::zero(), "load_shedder", "target", target, "is more than 0");
    if (interval <= target || interval > std::chrono::hours(24))
        detail::refuse_option("load_shedder", "interval", interval,
                              "is more than target, " + detail::shown(target) + ", to a day");
    const detail::spin_guard guard(lock_);
    target_ = target;
    interval_ = interval;
}

}  // namespace cordon::inline CORDON_ABI
