// SPDX-License-Identifier: MIT
#pragma once

// A limit on how often something happens: so many per time, and a burst of so many at once.
//
//     token_bucket api{per_second(1000), 50, {.name = "api"}};
//     if (!api.try_acquire()) return busy();              // never waits
//     co_await api.acquire(5);                            // waits its turn, or is refused if the deadline is near
//
// For a limit per client see keyed_limiter.hpp; for one on how many run at the same time, bulkhead.hpp. Longer than
// most headers, since what waits, what was promised and a rate that changes meet in one word; bodies are in detail/.

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
#include <cordon/core/detail/split_counts.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/limit/detail/gcra.hpp>
#include <cordon/limit/rate.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {
template <class Key>
class keyed_limiter;

struct token_bucket_options {
    std::string_view name = {};
};

/// What becomes of the tokens that are there when a rate and a burst change. Who waits keeps its place.
enum class inherit : std::uint8_t {
    as_is,         ///< as many as there are, up to the new burst
    proportional,  ///< the same share of the burst
    additive,      ///< and as many more as the burst has grown by
    reset,         ///< a full bucket, and what was reserved is forgotten
};

/// Tokens that come back at a rate, up to a burst. Full at first. A burst of 0 refuses all; an unlimited rate admits
/// all; a rate of 0 admits one burst and no more until it is changed.
/// Threads:       all members from any
/// Order:         first come, first served: neither `try_acquire` nor a smaller `acquire` passes one that waits
/// Lifetime:      outlives its permits and reservations; destroyed with waiters it prints its name and terminates
/// Cost:          one clock reading and one exchange to acquire, one clock reading to refuse; no allocation. What is
///                refused is counted, by each of the first four threads on a cache line of its own, by others with an
///                atomic addition; what is admitted is not. Threads that take at the same time make way for each other
///                for a third of a microsecond or more
class token_bucket {
    class waiter;
    class acquire_operation;
    class admission_operation;

public:
    class permit;
    class reservation;

    static constexpr std::string_view kind = "rate_limiter";
    using only_admits = void;  ///< as a policy: see detail/admitted_call.hpp
    static constexpr std::uint64_t max_burst = detail::gcra::largest_window;

    struct snapshot {
        std::int64_t available = 0;  ///< whole tokens; below zero: promised to those who wait or have reserved
        std::size_t waiting = 0;
        std::uint64_t rejected = 0;  ///< refusals of all kinds since it was made
    };

    /// Errors:        `std::invalid_argument` if `burst` is more than `max_burst`
    token_bucket(rate limit, std::uint64_t burst, token_bucket_options options = {});
    token_bucket(const token_bucket&) = delete;
    token_bucket& operator=(const token_bucket&) = delete;
    ~token_bucket();

    /// Takes `n` tokens if they are there and nobody waits. More than the burst never are; none always are.
    [[nodiscard]] bool try_acquire(std::uint64_t n = 1) noexcept;

    /// Takes `n` tokens, waiting for them.
    /// Errors:        refused at once, with nothing taken: `too_large` if `n` is more than the burst; `rate_limited`,
    ///                with the time after which to come back, if the tokens would not be there before the deadline, or
    ///                never
    /// Cancellation:  a cancel point while it waits; stopped, it has taken nothing, and those behind it move up. Tokens
    ///                that are there are taken even by a task that is to stop
    /// Threads:       the timer is one of the executor in effect, which resumes the task
    [[nodiscard]] acquire_operation acquire(std::uint64_t n = 1) noexcept;

    /// The same on a thread, which takes nothing if it is to stop already: so `while (b.acquire_blocking(stop))` ends.
    [[nodiscard]] outcome<void> acquire_blocking(const blocking_scope& heeds = {}, std::uint64_t n = 1);

    /// `acquire` for a guarded call: its tokens go back if the call is stopped.
    [[nodiscard]] admission_operation admission(std::uint64_t n = 1) noexcept;

    /// `call()` once it has a token; an operation that gives what the call gives.
    /// Errors:        as `acquire`; nothing was called then
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) {
        return detail::call_through(*this, std::forward<F>(call), classify);
    }

    /// Takes `n` tokens now, for use at a time that it tells, behind all who wait. The time does not change any more.
    /// Errors:        refused, with nothing taken: `too_large`; `rate_limited` if that is more than `max_wait` away
    [[nodiscard]] outcome<reservation> reserve(std::uint64_t n = 1,
                                               clock::duration max_wait = (clock::duration::max)()) noexcept;

    /// How long `acquire(n)` would wait if it came now: `duration::max()` if for ever.
    [[nodiscard]] clock::duration time_until(std::uint64_t n = 1) const noexcept;

    /// Another rate and burst from now on. What was taken until now is settled at the old rate; those who wait are
    /// given new times, and are refused if they want more than the burst, or cannot be served before their deadline;
    /// the time of a reservation stays. Tokens taken before go back no more. At a rate of 0 those who wait stay, for
    /// the next `set_rate`, up to their deadlines; who comes meanwhile, and finds no tokens, is refused at once.
    /// Errors:        `std::invalid_argument` if `burst` is more than `max_burst`
    void set_rate(rate limit, std::uint64_t burst, inherit tokens = inherit::as_is);

    /// Takes all tokens that are there: after an answer that says so, as HTTP's 429 does.
    void drain() noexcept;

    /// All figures at one time.
    [[nodiscard]] snapshot stats() const noexcept;
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("rejected", now.rejected, "Calls that were refused.");
        sink.gauge("available", static_cast<double>(now.available), "Tokens that are there; below zero: promised.");
        sink.gauge("waiting", static_cast<double>(now.waiting), "Calls that wait for tokens.");
    }

private:
    template <class Key>
    friend class keyed_limiter;

    /// Tokens that were taken: enough to give them back.
    struct receipt {
        std::uint64_t tokens = 0;
        std::uint64_t end = 0;  ///< the position behind them, and origin_
        std::uint32_t era = 0;
    };

    // word_: the position (see gcra.hpp) in units since base_, times 32, and five bits.
    //   changing   the holder of the lock changes the terms: nobody else may change the word
    //   version    counts the changes of the terms, modulo 16
    // B1 Every admission, waiter and reservation moves the position by its cost when it comes, so one that finds its
    //    window open has nobody before it who still waits: passing by is impossible, and the fast path does not look
    //    for waiters.
    // B2 Terms change only under the lock, between a fetch_or of changing and a store of the next version. Who read a
    //    new term (acquire, release) cannot exchange the word that it read before, nor find it again, since the
    //    fetch_or came before; who read the word of that store (acquire, release) reads no older term. So what is
    //    decided is decided by terms that belong together, unless sixteen changes end with the same position meanwhile.
    // B3 A position that is behind now means a full bucket, whatever its distance. So it never has to be moved forward,
    //    and a refund that makes it smaller never makes more than a burst.
    //    To a clock that went back the bucket is as full as it was at that time, less what was taken since, and before
    //    the base it is as at the base: time that passes twice brings nothing twice.
    // B4 waiters_ are in the order of their times; only the first has a timer armed (T1 in detail/).
    static constexpr std::uint64_t changing = 1, one_version = 2, one_position = 32;
    static std::uint64_t position_of(std::uint64_t word) noexcept { return word / one_position; }
    /// The same version with another position.
    static std::uint64_t at_position(std::uint64_t word, std::uint64_t position) noexcept {
        return position * one_position | (word & (one_position - 1));
    }
    [[nodiscard]] std::uint64_t position() const noexcept { return position_of(word_.load(std::memory_order_relaxed)); }

    /// What the fast path reads; by B2.
    struct terms {
        std::atomic<std::uint64_t> base, multiplier, cost, window, burst, reach, origin;
        std::atomic<std::uint32_t> shift, era;
    };
    enum class answer : std::uint8_t { granted, refused, too_large };
    /// What there is to see at a time; where a request comes to lie.
    struct sight;
    struct place;

    static std::uint64_t to_ns(clock::time_point t) noexcept {
        return static_cast<std::uint64_t>(t.time_since_epoch().count());
    }
    static std::uint64_t ns_now() noexcept { return to_ns(clock::now()); }
    static std::uint64_t quick_ns_now() noexcept { return to_ns(detail::quick_now()); }
    answer take(std::uint64_t n, receipt& out) noexcept;
    answer take_slowly(std::uint64_t n, receipt& out) noexcept;
    [[nodiscard]] cordon::rejection refuse(reject_reason why, std::uint64_t wait_ns = 0) noexcept;
    void give_back(const receipt& what) noexcept;

    // Under the lock.
    [[nodiscard]] std::uint64_t since_base(std::uint64_t now) const noexcept;
    [[nodiscard]] sight look(std::uint64_t now) const noexcept;
    std::uint64_t come_near(std::uint64_t now) noexcept;
    void store_terms(const detail::gcra& g, std::uint64_t base) noexcept;
    void publish(std::uint64_t position) noexcept;
    [[nodiscard]] place place_of(std::uint64_t position, std::uint64_t n, std::uint64_t ns) const noexcept;
    place claim(std::uint64_t n, std::uint64_t ns, std::uint64_t most_wait) noexcept;
    [[nodiscard]] receipt receipt_for(std::uint64_t n, std::int64_t act) const noexcept;
    std::int64_t take_back(std::uint64_t n, std::int64_t act, std::uint64_t ns) noexcept;
    void refund(const receipt& what, std::uint64_t ns) noexcept;
    void move_up(std::int64_t from, std::int64_t units) noexcept;
    bool refused_early(waiter& w) noexcept;
    void enqueue(waiter& w) noexcept;
    void dequeue(waiter& w) noexcept;
    void leave(waiter& w, std::uint64_t ns) noexcept;
    void serve(std::uint64_t ns) noexcept;
    [[nodiscard]] std::uint64_t settled_position(const detail::gcra& next, std::uint64_t position, std::uint64_t ns,
                                                 inherit how) const noexcept;
    std::uint64_t retime_waiters(std::uint64_t position, std::uint64_t now) noexcept;
    void arm_first() noexcept;
    void hurry_first() noexcept;

    std::atomic<std::uint64_t> word_{0};
    terms terms_;
    mutable detail::spin_lock lock_;
    detail::gcra gcra_;                       // under lock_: the terms, to calculate with
    std::uint64_t version_ = 0;               // under lock_: as in word_
    std::uint64_t base_ = 0;                  // under lock_: as in terms_, and the next two
    std::uint64_t origin_ = 0;
    std::uint32_t era_ = 0;
    std::int64_t promised_ = 0;               // under lock_: the time of the last reservation, in units
    detail::counted_list<waiter> waiters_;    // under lock_
    std::int64_t first_act_ = 0;              // under lock_, if there are waiters: the times of the first and the last
    std::int64_t last_act_ = 0;
    std::atomic<std::size_t> present_{0};     // those who wait, or were served and have not gone on yet
    std::string name_;
    detail::named_wait_label label_;
    detail::split_counts<> rejected_;
};

/// Tokens that a guarded call has taken. Settled as stopped, or dropped unsettled, it gives them back, as far as the
/// bucket would not be full again by now anyway; otherwise they are used.
class [[nodiscard]] token_bucket::permit {
public:
    permit() noexcept = default;
    permit(permit&& other) noexcept : bucket_(std::exchange(other.bucket_, nullptr)), receipt_(other.receipt_) {}
    permit& operator=(permit&& other) noexcept {
        if (this != &other) {
            settle(verdict::stopped);
            bucket_ = std::exchange(other.bucket_, nullptr);
            receipt_ = other.receipt_;
        }
        return *this;
    }
    ~permit() { settle(verdict::stopped); }

    void settle(verdict v) noexcept {
        token_bucket* const b = std::exchange(bucket_, nullptr);
        if (b != nullptr && v == verdict::stopped && receipt_.tokens != 0) b->give_back(receipt_);
    }
    /// Whether it is still to be settled.
    [[nodiscard]] explicit operator bool() const noexcept { return bucket_ != nullptr; }

private:
    friend class token_bucket;
    template <class Key>
    friend class keyed_limiter;
    permit(token_bucket& b, const receipt& t) noexcept : bucket_(&b), receipt_(t) {}

    token_bucket* bucket_ = nullptr;
    receipt receipt_;
};

/// Tokens for use at `time()`. Given back when it dies before that without `commit()`: those who wait move up. What
/// later reservations were promised stays as it is, so tokens before them may not come back.
class [[nodiscard]] token_bucket::reservation {
public:
    reservation() noexcept = default;
    reservation(reservation&& other) noexcept
        : bucket_(std::exchange(other.bucket_, nullptr)), receipt_(other.receipt_), before_(other.before_),
          time_(other.time_) {}
    reservation& operator=(reservation&& other) noexcept {
        if (this != &other) {
            cancel();
            bucket_ = std::exchange(other.bucket_, nullptr);
            receipt_ = other.receipt_;
            before_ = other.before_;
            time_ = other.time_;
        }
        return *this;
    }
    ~reservation() { cancel(); }

    /// When to act; stays readable.
    [[nodiscard]] clock::time_point time() const noexcept { return time_; }
    /// The tokens are used.
    void commit() noexcept { bucket_ = nullptr; }
    /// Gives the tokens back, unless its time has passed, or it has been used or cancelled.
    void cancel() noexcept;
    /// Whether it is neither used nor cancelled.
    [[nodiscard]] explicit operator bool() const noexcept { return bucket_ != nullptr; }

private:
    friend class token_bucket;
    reservation(token_bucket& b, const receipt& t, std::uint64_t before, clock::time_point when) noexcept
        : bucket_(&b), receipt_(t), before_(before), time_(when) {}

    token_bucket* bucket_ = nullptr;
    receipt receipt_;
    std::uint64_t before_ = 0;  ///< the time of the reservation before it, and origin_
    clock::time_point time_{};
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/limit/detail/token_bucket_bodies.hpp>
