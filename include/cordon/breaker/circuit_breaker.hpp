// SPDX-License-Identifier: MIT
#pragma once

// Stops calling what fails: when too many of the last calls failed or were slow it refuses all calls for a while, then
// lets a few through, and those decide.
//
//     circuit_breaker breaker{{.name = "inventory", .window = last_calls(100), .failure_rate = 0.5, .open_for = 30s}};
//     const int left = co_await breaker([&] { return fetch(); });
//     if (auto permit = breaker.try_acquire()) fetch_now() ? permit.succeeded() : permit.failed();

#include <cordon/breaker/breaker_event.hpp>
#include <cordon/breaker/open_time.hpp>
#include <cordon/breaker/window.hpp>
#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>

#include <chrono>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// What is `std::nullopt` is not looked at; one of `failure_rate`, `consecutive_failures` and `slow_call` is needed. A
/// breaker opens at a rate that is reached, not only exceeded.
struct circuit_breaker_options {
    std::string_view name = {};
    call_window window = last_calls(100);      ///< or `last(10s)`, or `last(10s, 20)`
    std::uint32_t min_calls = 20;              ///< no rate is known below; of a window of calls at most all
    std::optional<double> failure_rate = 0.5;  ///< above 0, up to 1
    std::optional<std::uint32_t> consecutive_failures = std::nullopt;  ///< so many in a row open it as well; 1 or more
    std::optional<clock::duration> slow_call = std::nullopt;  ///< what takes longer is slow; costs two clock readings
    double slow_rate = 1.0;                                   ///< above 0, up to 1; only looked at with `slow_call`
    open_time open_for = open_time::growing(std::chrono::seconds(5), std::chrono::seconds(60));
    std::uint32_t half_open_calls = 3;  ///< how many calls decide; 1 to 1,024
    /// The part of them that opens it again if it fails. Not given: `failure_rate`, or a single failure without that.
    std::optional<double> half_open_failure_rate = std::nullopt;
    clock::duration probe_lease = std::chrono::seconds(60);       ///< after that another call may take a probe's place
    std::optional<clock::duration> half_open_for = std::nullopt;  ///< without a verdict by then it opens again
    breaker_state initial = breaker_state::closed;                ///< any but `half_open`
};

/// A circuit breaker. Calls that it lets through hold a permit, and tell it how they ended.
/// Threads:       all members from any
/// Order:         transitions are made one at a time, and told in that order. An outcome counts only for the state, and
///                the generation of that state, that admitted the call; later it is stale: counted as such and told
/// Lifetime:      outlives its permits and subscriptions. Destroyed while somebody listens, or while a call that it let
///                through in half-open is out, whatever its state is since, it prints its name and terminates; of other
///                permits it keeps no account
/// Cost:          closed: a load to admit; a compare-and-swap to record a success, more for a failure; allocates only
///                when made. Time passes only when somebody asks: a breaker needs no timer and no thread
class circuit_breaker {
    class core;
    class admission_operation;

public:
    static constexpr std::string_view kind = "circuit_breaker";
    static constexpr std::uint32_t max_half_open_calls = 1'024;
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp
    class permit;
    class subscription;

    /// The counts are of the calls that the present state counts: the window when closed, the probes in half-open.
    struct snapshot {
        breaker_state state = breaker_state::closed;
        std::uint64_t calls = 0, failed = 0, slow = 0;
        std::optional<double> failure_rate, slow_rate;  ///< nothing below the minimum of calls
        std::uint32_t consecutive_failures = 0;         ///< counted with that option only
        std::uint32_t probes = 0;                       ///< calls that half-open has let through and waits for
        std::uint32_t attempt = 0;                      ///< how often it opened by itself since it was closed last
        clock::duration retry_after{0};                 ///< how long it stays open yet; zero: it is not, or not known
        std::uint64_t generation = 0;                   ///< one more with each transition, `reset()` and `restore()`
        // Since it was made:
        std::uint64_t rejected = 0;            ///< calls refused, for all reasons
        std::uint64_t rejected_half_open = 0;  ///< of them: enough probes were out
        std::uint64_t rejected_forced = 0;     ///< of them: it was forced open
        std::uint64_t opened = 0;              ///< how often it opened by itself
        std::uint64_t stale = 0;               ///< outcomes too late to count, except in a row behind a fixed window
        std::uint64_t ignored = 0;             ///< outcomes that were not to count
        std::uint64_t listener_errors = 0;     ///< exceptions of listeners, and of `open_for`
        std::uint64_t events_lost = 0;         ///< because a listener was too slow
    };

    /// What outlives a process. What is half-open is saved as open with no time left.
    struct saved_state {
        breaker_state state = breaker_state::closed;
        std::uint32_t attempt = 0;
        clock::duration open_left{0};
        clock::duration last_open{0};
    };

    /// Errors:        `std::invalid_argument` that names the option, its value and what is allowed
    explicit circuit_breaker(circuit_breaker_options options);
    circuit_breaker(const circuit_breaker&) = delete;
    circuit_breaker& operator=(const circuit_breaker&) = delete;
    ~circuit_breaker();

    /// Lets a call through, or refuses: then the permit is empty.
    /// Cost:          a refusal reads the system's ticks, or in the last 50 ms the clock, and counts: the first four
    ///                threads that are refused on a cache line of their own, others by an atomic addition
    [[nodiscard]] permit try_acquire() noexcept;

    /// The same for a policy: an operation that never waits. Its outcome is the permit, or a rejection with the time
    /// for which it stays open; zero if that is not known.
    [[nodiscard]] admission_operation admission() noexcept;

    /// `call()`, if it lets that through, and counts what comes of it; an operation that gives what the call gives.
    /// Errors:        `rejected`, with `circuit_open`; nothing was called then
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// The state as it is now; looking makes the transition that is due.
    [[nodiscard]] breaker_state state() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept;
    /// Figures of one moment, exact unless calls end at the same time. Looking makes the transition that is due.
    [[nodiscard]] snapshot stats() const noexcept;
    template <class Sink>
    void report(Sink& sink) const;

    /// By hand. To the state that it is in already they do nothing, and say nothing.
    void force_open() noexcept;
    void disable() noexcept;
    void metrics_only() noexcept;
    void close() noexcept;
    /// As `close()`, but what was counted is forgotten if it is closed already.
    void reset() noexcept;
    /// Open until `t`, from whatever state: what somebody else said, a `Retry-After` for one. If it is open already
    /// only the time changes.
    void open_until(clock::time_point t) noexcept;

    [[nodiscard]] saved_state export_state() const noexcept;
    /// Goes on where a breaker was when it was saved, `ago` before now. Less than zero, as of a clock that was set
    /// back, is now.
    /// Errors:        `std::invalid_argument` if the state is none of the enumeration, or a duration of it negative
    void restore(const saved_state& saved, clock::duration ago = clock::duration::zero());

    /// Calls `f(const breaker_event&)` with each event from now on, until the handle goes.
    /// Threads:       `f` runs on the thread whose call caused the event, or on one that is telling others; one event
    ///                at a time, under no lock. It may use the breaker, and let the handle go
    /// Errors:        what `f` throws is dropped and counted
    template <std::invocable<const breaker_event&> F>
    [[nodiscard]] subscription on_event(F f);

private:
    std::unique_ptr<core> core_;
};

/// The leave to make one call. Let go without a verdict, it is given back and counts for nothing.
class circuit_breaker::permit {
public:
    permit() = default;
    permit(permit&& other) noexcept
        : core_(std::exchange(other.core_, nullptr)), word_(other.word_), since_(other.since_) {}
    permit& operator=(permit&& other) noexcept;
    ~permit() { settle(verdict::stopped); }

    /// Whether the call may be made, and its end has not been told.
    [[nodiscard]] explicit operator bool() const noexcept { return core_ != nullptr; }

    /// How the call ended. Afterwards the permit is empty; of an empty one nothing is told.
    void succeeded() noexcept { settle(verdict::success); }
    void failed() noexcept { settle(verdict::failure); }
    void ignored() noexcept { settle(verdict::ignored); }
    void settle(verdict v) noexcept;

private:
    friend class circuit_breaker;
    permit(core* c, std::uint64_t word, clock::time_point since) noexcept : core_(c), word_(word), since_(since) {}

    core* core_ = nullptr;
    std::uint64_t word_ = 0;     ///< of the core when it admitted; a probe's place instead of the number of probes
    clock::time_point since_{};  ///< when, if that is needed
};

/// Listens until it goes. Afterwards the listener is not running: gone on another thread, it waits for that.
class circuit_breaker::subscription {
public:
    subscription() = default;
    subscription(subscription&& other) noexcept
        : core_(std::exchange(other.core_, nullptr)), listener_(std::exchange(other.listener_, nullptr)) {}
    subscription& operator=(subscription&& other) noexcept {
        subscription mine(std::move(other));
        std::swap(core_, mine.core_);
        std::swap(listener_, mine.listener_);
        return *this;
    }
    ~subscription();

    [[nodiscard]] explicit operator bool() const noexcept { return listener_ != nullptr; }

private:
    friend class circuit_breaker;
    subscription(core* c, void* listener) noexcept : core_(c), listener_(listener) {}

    core* core_ = nullptr;
    void* listener_ = nullptr;
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/breaker/detail/breaker_core.hpp>  // what it consists of, and the bodies of all this
