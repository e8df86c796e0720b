// SPDX-License-Identifier: MIT
#pragma once

// At most so many events in any span of so much time, wherever it begins: the limit of somebody else's that must not be
// exceeded, as "100 in a minute" of a public API.
//
//     sliding_window_limiter api{100, 1min, {.name = "api"}};
//     co_await api.acquire();
//
// A token_bucket needs no memory for each event, but lets its burst and what comes back meanwhile pass within a period.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/core/verdict.hpp>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct sliding_window_options {
    std::string_view name = {};
    std::size_t max_waiting = (std::numeric_limits<std::size_t>::max)();  ///< beyond these one is refused at once
};

/// The times of the last `limit` events, in a ring: the next one may come when the oldest of them has left the window.
/// Threads:       all members from any
/// Order:         first come, first served: `try_acquire` does not pass one that waits
/// Lifetime:      destroyed with waiters it prints its name and terminates. Belongs to one simulation, or to real time
/// Cost:          8 bytes for each event of a window, allocated when it is made; a reading of the clock and a lock of a
///                few instructions; a timer for the first of those who wait
class sliding_window_limiter {
    class acquire_operation;
    class admission_operation;
    class waiter;

public:
    class permit;

    static constexpr std::string_view kind = "sliding_window_limiter";
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp
    static constexpr std::size_t max_limit = 16'777'216;
    static constexpr clock::duration max_window = std::chrono::hours(24 * 365);

    struct snapshot {
        std::size_t limit = 0;
        std::size_t used = 0;        ///< events that are within the window
        std::size_t waiting = 0;
        std::uint64_t admitted = 0;  ///< since it was made; those that came back are taken off again
        std::uint64_t rejected = 0;  ///< since it was made
    };

    /// At most `limit` events in any half-open span of `window`: at its very end the first may come again.
    /// Errors:        `std::invalid_argument` if `limit` is not 1 to `max_limit`, or `window` not above 0 and at most
    ///                `max_window`
    sliding_window_limiter(std::size_t limit, clock::duration window, const sliding_window_options& options = {});
    sliding_window_limiter(const sliding_window_limiter&) = delete;
    sliding_window_limiter& operator=(const sliding_window_limiter&) = delete;
    ~sliding_window_limiter() {
        if (const std::size_t present = present_.load(std::memory_order_acquire); present != 0) [[unlikely]]
            detail::fail_in_use("sliding_window_limiter", name_, waiters_.size(), present);
    }

    /// One event now; false if the window is full, or somebody waits.
    [[nodiscard]] bool try_acquire() noexcept;

    /// One event, waiting for it.
    /// Errors:        refused as `rate_limited`, with `retry_after`, at once if `max_waiting` wait, or if its turn
    ///                would come behind the deadline in effect
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing and those behind it move up
    [[nodiscard]] acquire_operation acquire() noexcept;
    /// The same on a thread.
    [[nodiscard]] outcome<void> acquire_blocking(const blocking_scope& heeds = {});
    /// `acquire`, for a guarded call. One that was stopped counts for nothing: its event comes back, unless others have
    /// been admitted after it.
    [[nodiscard]] admission_operation admission() noexcept;

    /// `call()` when it is its turn; an operation that gives what the call gives.
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// How long until an event could pass if nobody else came: zero now; behind those who wait.
    [[nodiscard]] clock::duration time_until() const noexcept;

    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("admitted", now.admitted, "Events that were let through.");
        sink.counter("rejected", now.rejected, "Events that were refused.");
        sink.gauge("available", now.limit - now.used, "Events that may come now.");
        sink.gauge("waiting", now.waiting, "Events that wait.");
    }

private:
    /// When the event behind the next `ahead` may come. Under the lock.
    [[nodiscard]] clock::time_point turn(std::size_t ahead) const noexcept;
    /// An event now; an empty permit, and nothing counted, if the window is full or somebody waits.
    [[nodiscard]] permit take_at_once() noexcept;
    [[nodiscard]] permit take(clock::time_point now) noexcept;
    void take_back_last() noexcept;
    void give_back(std::uint64_t number) noexcept;
    bool refused_early(waiter& w) noexcept;
    bool refuses(waiter& w) noexcept;
    void enqueue(waiter& w) noexcept;
    void dequeue(waiter& w) noexcept;
    void time_passed(waiter& w) noexcept;
    void serve() noexcept;

    static constexpr clock::time_point long_ago{(clock::duration::min)() / 2};  // and can be counted with

    // E1 times_[n % limit_] is when event n came, of the last limit_; event n may come when n - limit_ is out of the
    //    window. Times never go back, even if the clock does.
    // E2 Only the first who waits has a timer armed, under the lock; a timer that fires late or for nobody serves
    //    whoever is due.
    const std::size_t limit_;
    const clock::duration window_;
    const std::size_t max_waiting_;
    std::unique_ptr<clock::time_point[]> times_;
    mutable detail::spin_lock lock_;
    std::uint64_t next_ = 0;                  // under lock_: the number of the next event
    detail::counted_list<waiter> waiters_;    // under lock_
    std::atomic<std::size_t> present_{0};     // those who wait, or were served and have not gone on yet
    std::atomic<std::uint64_t> rejected_{0};
    std::string name_;
    detail::named_wait_label label_;
};

/// An event that was let through. Settled as stopped, or dropped unsettled, it comes back if it was the last.
class [[nodiscard]] sliding_window_limiter::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept : of_(std::exchange(other.of_, nullptr)), number_(other.number_) {}
    permit& operator=(permit&& other) noexcept {
        if (this != &other) {
            settle(verdict::stopped);
            of_ = std::exchange(other.of_, nullptr);
            number_ = other.number_;
        }
        return *this;
    }
    ~permit() { settle(verdict::stopped); }

    [[nodiscard]] explicit operator bool() const noexcept { return of_ != nullptr; }
    void settle(verdict v) noexcept {
        sliding_window_limiter* const of = std::exchange(of_, nullptr);
        if (v == verdict::stopped && of != nullptr) of->give_back(number_);
    }

private:
    friend class sliding_window_limiter;
    permit(sliding_window_limiter* of, std::uint64_t number) noexcept : of_(of), number_(number) {}

    sliding_window_limiter* of_ = nullptr;
    std::uint64_t number_ = 0;
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/limit/detail/sliding_window_bodies.hpp>
