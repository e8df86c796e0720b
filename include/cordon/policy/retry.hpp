// SPDX-License-Identifier: MIT
#pragma once

// Makes a call that failed again, a few times, waiting in between.
//
//     pipeline(retry(4, {.backoff = exponential(10ms, 1s, full_jitter), .budget = &budget}), breaker)
//
// Only for what may be done twice. What fails is said by the pipeline's `failing_when` and `ignoring`.

#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/backoff.hpp>
#include <cordon/policy/detail/live_value.hpp>
#include <cordon/policy/failure.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/time/sleep.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <limits>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// A retry that has been decided, before the wait for it.
struct retry_event {
    std::uint32_t number;     ///< 0 is the first retry
    clock::duration delay;    ///< until it is made
    const failure& why;
};

struct retry_options {
    std::string_view name = {};
    cordon::backoff backoff = constant(std::chrono::milliseconds(500));
    retry_budget* budget = nullptr;                        ///< shared by all that call the same service; outlives them
    clock::duration max_duration = clock::duration::max();  ///< no retry begins later than this after the first attempt
    /// Called for each retry, on the thread of the call; must not block. What it throws is counted, no more.
    void (*on_retry)(const retry_event&, void* argument) = nullptr;
    void* argument = nullptr;
    std::uint64_t seed = 0;  ///< of the jitter; 0: one of its own, or the simulation's
};

/// For `retry`: as often as it takes.
inline constexpr int unlimited_attempts = std::numeric_limits<int>::max();

namespace detail {

struct no_hint {};

/// Whether to ask once more after such a refusal.
[[nodiscard]] constexpr bool is_temporary(reject_reason reason) noexcept {
    using enum reject_reason;
    return reason == rate_limited || reason == circuit_open || reason == full;
}

/// What a call keeps from its beginning.
struct fixed_retry_terms {
    retry_budget* budget = nullptr;
    clock::duration max_duration = clock::duration::max();
};
struct retry_terms {
    fixed_retry_terms fixed;
    int attempts = 3;
    cordon::backoff backoff;
    void (*on_retry)(const retry_event&, void*) = nullptr;
    void* argument = nullptr;
};

template <operation O, class Judge, class Policy>
class retry_operation;

}  // namespace detail

/// Made by `retry(attempts)`. Calls until there is a success or what counts as nothing, or it gives up: then the
/// outcome is that of the last attempt. It gives up when all attempts are made, when the wait would end behind the
/// deadline in effect or behind `max_duration`, and when the budget is used up; always at once, without the wait.
///
/// Waits are what `backoff` says, or longer: as long as a refusal says, or the hint of `honoring`. A refusal further in
/// is a reason to retry if it is a matter of time (rate_limited, circuit_open, full), unless the pipeline says
/// otherwise of refusals. A stop and a `std::logic_error` never are.
/// Cancellation:  stopped before the first attempt it makes none; during a wait it ends at once; during an attempt it
///                is what that ends with, and there is no other
/// Order:         an outcome that is not the last is destroyed before the next attempt begins, after the wait. Between
///                two attempts what else is ready on the executor runs, even if there is nothing to wait for
/// Threads:       all members from any; moved while nobody uses it. Its jitter begins anew then
/// Lifetime:      outlives its calls
/// Cost:          no frame and no allocation of its own
template <class Hint = detail::no_hint>
class retry_policy {
public:
    static constexpr std::string_view kind = "retry";

    /// Since it was made.
    struct snapshot {
        std::uint64_t retries = 0;          ///< attempts that were made after a first one
        std::uint64_t recovered = 0;        ///< calls that were a success after that
        std::uint64_t gave_up = 0;          ///< calls that failed in the end with what is worth a retry
        std::uint64_t listener_errors = 0;  ///< exceptions of `on_retry`
    };

    retry_policy(int attempts, const retry_options& options, Hint hint = {})
        : terms_(checked(attempts, options)), seed_(options.seed), random_(seed_), hint_(std::move(hint)),
          name_(options.name) {}
    retry_policy(retry_policy&& other) noexcept(std::is_nothrow_move_constructible_v<Hint>)
        : terms_(other.terms_.load()), seed_(other.seed_), random_(seed_), hint_(std::move(other.hint_)),
          counts_(other.stats()), name_(std::move(other.name_)) {}

    /// For the calls that have not failed yet; the budget and `max_duration` for those that begin from now on. Name and
    /// seed stay.
    /// Errors:        as `retry`
    void set(int attempts, const retry_options& options = {}) { terms_.store(checked(attempts, options)); }

    /// The same policy, which waits at least as long as `hint(value)` says, or `hint(exception)`, whichever it takes:
    /// for a Retry-After. Zero says nothing. One that throws terminates.
    template <class F>
    [[nodiscard]] retry_policy<F> honoring(F hint) && {
        const detail::retry_terms t = terms_.load();
        return retry_policy<F>(
            t.attempts, {name_, t.backoff, t.fixed.budget, t.fixed.max_duration, t.on_retry, t.argument, seed_},
            std::move(hint));
    }

    /// `call()`, as often as it takes.
    template <detail::makes_awaitable F, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(F&& call, const Classifier& classify = detail::shared_classifier) const {
        using op = decltype(detail::call_of(std::forward<F>(call)));
        return detail::retry_operation<op, detail::judge<Classifier>, retry_policy>(
            *this, detail::call_of(std::forward<F>(call)), detail::judge<Classifier>(classify));
    }

    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] snapshot stats() const noexcept {
        return {counts_.retries.load(std::memory_order_relaxed), counts_.recovered.load(std::memory_order_relaxed),
                counts_.gave_up.load(std::memory_order_relaxed),
                counts_.listener_errors.load(std::memory_order_relaxed)};
    }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("retries", now.retries, "Attempts that were made after a first one.");
        sink.counter("recovered", now.recovered, "Calls that were a success after that.");
        sink.counter("gave_up", now.gave_up, "Calls that failed in the end.");
        sink.counter("listener_errors", now.listener_errors, "Exceptions of on_retry.");
    }

private:
    template <operation O, class Judge, class Policy>
    friend class detail::retry_operation;

    struct counters {
        counters() = default;
        explicit counters(const snapshot& s) noexcept
            : retries(s.retries), recovered(s.recovered), gave_up(s.gave_up), listener_errors(s.listener_errors) {}
        std::atomic<std::uint64_t> retries{0}, recovered{0}, gave_up{0}, listener_errors{0};
    };
    static void add_to(std::atomic<std::uint64_t>& n) noexcept { n.fetch_add(1, std::memory_order_relaxed); }
    static detail::retry_terms checked(int attempts, const retry_options& o) {
        detail::check_option(attempts >= 1, "retry", "attempts", attempts,
                             "are 1, which is no retry, to unlimited_attempts");
        detail::check_option(o.max_duration >= clock::duration::zero(), "retry", "max_duration", o.max_duration,
                             "is what is not negative");
        return {{o.budget, o.max_duration}, attempts, o.backoff, o.on_retry, o.argument};
    }
    void tell(const detail::retry_terms& t, const retry_event& decided) const noexcept {
#if defined(__cpp_exceptions)
        try {
            t.on_retry(decided, t.argument);
        } catch (...) {
            add_to(counts_.listener_errors);
        }
#else
        t.on_retry(decided, t.argument);
#endif
    }
    template <class T>
    [[nodiscard]] clock::duration hint_in(const T* value, const std::exception_ptr& error) const noexcept {
        static_assert(std::is_same_v<Hint, detail::no_hint> || std::is_invocable_v<const Hint&, const T&> ||
                          std::is_invocable_v<const Hint&, const std::exception&>,
                      "retry: the hint of `honoring` takes neither what the call gives nor `const std::exception&`, "
                      "and would never be asked; it looks for the class that it means with a dynamic_cast");
        clock::duration said{0};
        if constexpr (std::is_invocable_v<const Hint&, const T&>) {
            if (value != nullptr) said = hint_(*value);
        }
        if constexpr (std::is_invocable_v<const Hint&, const std::exception&>) {
            if (error != nullptr) detail::look_at(error, [&](const std::exception& e) { said = hint_(e); });
        }
        return said;
    }

    detail::live_value<detail::retry_terms> terms_;
    std::uint64_t seed_;
    mutable detail::random_source random_;
    [[no_unique_address]] Hint hint_;
    mutable counters counts_;
    std::string name_;
};

/// At most `attempts` calls in all, the first included.
/// Errors:        `std::invalid_argument` if `attempts` is less than 1, or `max_duration` negative
[[nodiscard]] inline retry_policy<> retry(int attempts = 3, const retry_options& options = {}) {
    return retry_policy<>(attempts, options);
}

namespace detail {

static_assert(std::is_trivially_destructible_v<retry_terms>);

template <operation O, class Judge, class Policy>
class retry_operation : public operation_base<retry_operation<O, Judge, Policy>> {
public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = true;

    retry_operation(const Policy& p, O&& op, const Judge& judge) : policy_(&p), op_(std::move(op)), judge_(judge) {}

    class state : public policy_state<O> {
    public:
        explicit state(retry_operation&& r)
            : policy_state<O>(std::move(r.op_), &state::ended), policy_(r.policy_), judge_(r.judge_) {}

        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            if (context_access::stop_arrived(r.ctx())) return r.stop_later();
            std::construct_at(&fixed_, policy_->terms_.template load_first<fixed_retry_terms>());
            if (fixed_.max_duration != clock::duration::max()) std::construct_at(&began_, quick_now());
            if (fixed_.budget != nullptr) fixed_.budget->called();
            ++made_;
            if (!this->call_.ready()) return this->call_.start(this->here());
            return after_attempt();
        }

    private:
        std::coroutine_handle<> after_attempt() noexcept { return fails_on() ? pause() : this->up.complete(); }
        /// Even without a delay it goes once around the executor: what else runs there is not kept out by attempts that
        /// fail at once, the stack does not grow with them, and the frame of an attempt is not destroyed inside its own
        /// end.
        CORDON_NOINLINE std::coroutine_handle<> pause() noexcept {
            const bool waits = delay_ > clock::duration::zero();
            sleep_.emplace(waits ? sleep_for(delay_) : sleep_operation(deadline::at(clock::now())));
            return sleep_->start(this->here());
        }
        CORDON_NOINLINE std::coroutine_handle<> once_more() noexcept {
            // The wait was over, but a stop came before this had its turn on the executor.
            if (context_access::stop_arrived(*this->ctx)) [[unlikely]] return ended_stopped(nullptr);
            sleep_.reset();
            this->call_.again();
            ++made_;
            Policy::add_to(policy_->counts_.retries);
            if (!this->call_.ready()) return this->call_.start(this->here());
            return after_attempt();
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] return s.ended_stopped(child);
            return s.sleep_ ? s.once_more() : s.after_attempt();
        }
        CORDON_NOINLINE std::coroutine_handle<> ended_stopped(promise_base* child) noexcept {
            discard(child);
            if (fixed_.budget != nullptr) {
                if (sleep_) fixed_.budget->refund();
                else if (made_ > 1) fixed_.budget->retry_ended();
                fixed_.budget->uncounted();
            }
            return this->up.stop();
        }

        /// Of an attempt that has ended: whether there is another, after delay_.
        bool fails_on() noexcept {
            const verdict v = this->call_.judged_by(judge_);
            if (made_ > 1) [[unlikely]] retry_ended(v);
            const bool again = v != verdict::success && try_again(v);
            if (!again && fixed_.budget != nullptr) {
                if (v == verdict::success || v == verdict::failure) fixed_.budget->ended(v == verdict::failure);
                else fixed_.budget->uncounted();
            }
            return again;
        }
        CORDON_NOINLINE void retry_ended(verdict v) noexcept {
            if (fixed_.budget != nullptr) fixed_.budget->retry_ended();
            if (v == verdict::success) Policy::add_to(policy_->counts_.recovered);
        }
        CORDON_NOINLINE bool try_again(verdict v) noexcept {
            const outcome<value_type>* const failed = this->call_.failure();
            const bool refused = failed != nullptr && failed->is_rejected();
            const bool asks_again = v == verdict::failure || (v == verdict::ignored && refused &&
                                                              !Judge::judges_rejections &&
                                                              is_temporary(failed->rejection().reason));
            if (!asks_again) return false;
            if (decides_to(failed, refused)) return true;
            Policy::add_to(policy_->counts_.gave_up);
            return false;
        }
        /// Whether a call that has failed is tried again, after delay_.
        bool decides_to(const outcome<value_type>* failed, bool refused) noexcept {
            if (made_ == 1) std::construct_at(&terms_, policy_->terms_.load());
            if (made_ == terms_.attempts || this->ctx->stop_requested()) return false;
            const auto number = static_cast<std::uint32_t>(made_ - 1);
            if (number == 0) memory_ = 0;
            std::construct_at(&delay_, terms_.backoff.delay(number, policy_->random_.next(), memory_));
            if (refused) delay_ = std::max<clock::duration>(delay_, failed->rejection().retry_after);
            delay_ = std::max(delay_, hint(failed));
            if (this->ctx->deadline().remaining() <= delay_) return false;
            if (fixed_.max_duration != clock::duration::max() && quick_now() - began_ > fixed_.max_duration - delay_)
                return false;
            if (fixed_.budget != nullptr && !fixed_.budget->try_retry()) return false;
            if (terms_.on_retry != nullptr) {
                const failure why(failed);
                policy_->tell(terms_, {number, delay_, why});
            }
            return true;
        }
        clock::duration hint(const outcome<value_type>* failed) const noexcept {
            const std::exception_ptr error = failed != nullptr ? failed->error() : nullptr;
            if constexpr (std::is_void_v<value_type>) return policy_->template hint_in<no_hint>(nullptr, error);
            else return policy_->hint_in(this->call_.value(), error);
        }

        const Policy* policy_;
        [[no_unique_address]] Judge judge_;
        // Most calls end with their first attempt: what only a failure needs is not written before there is one.
        union {
            fixed_retry_terms fixed_;  ///< from start() on
        };
        union {
            retry_terms terms_;  ///< from the first failure on
        };
        union {
            clock::time_point began_;  ///< if there is a max_duration
        };
        union {
            clock::duration delay_;  ///< of the retry that was decided last
        };
        double memory_;  ///< the backoff's, from the first failure on
        int made_ = 0;
        std::optional<sleep_operation::state> sleep_;
    };

private:
    const Policy* policy_;
    O op_;
    [[no_unique_address]] Judge judge_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
