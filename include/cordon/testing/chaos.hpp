// SPDX-License-Identifier: MIT
#pragma once

// A policy that makes calls slow, fail, stop or be refused, now and then: to see what the other policies, and the
// service, make of it.
//
//     testing::chaos trouble{{.error_rate = 0.1, .latency_rate = 0.05, .latency = 200ms, .seed = 7}};
//     auto guarded = pipeline(retry(3), breaker, trouble);       // the innermost: in the place of the call
//
// It is meant for tests, and for a drill in a service: it does nothing until it is told, and can be switched off.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/time/sleep.hpp>

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// Shares of the calls, each 0 to 1; those of errors, refusals and stops together at most 1. A delay comes before, and
/// by chance of its own.
struct chaos_options {
    std::string_view name = {};
    double error_rate = 0;
    std::errc error = std::errc::io_error;          ///< of the `std::system_error`
    double rejection_rate = 0;
    reject_reason reason = reject_reason::full;
    double stop_rate = 0;                           ///< ends as if the call had stopped by itself
    double latency_rate = 0;
    clock::duration latency{0};                     ///< 0 is none; not negative
    std::uint64_t seed = 0;                         ///< 0: the clock chooses; in a simulation, the schedule does
};

/// What happens to a call, instead of it or before it.
/// Errors:        those that it was told to make, in the place of the call
/// Cancellation:  a delay ends at once; a call that is to stop already is stopped, and nothing is drawn
/// Threads:       all members from any
/// Lifetime:      outlives its calls
/// Cost:          switched off, a load, else a lock of a few instructions; no frame, no allocation but that of an error
class chaos {
    template <operation O>
    class chaotic_operation;

public:
    static constexpr std::string_view kind = "chaos";

    struct snapshot {
        bool on = true;
        // Since it was made:
        std::uint64_t delayed = 0;
        std::uint64_t errors = 0;
        std::uint64_t rejected = 0;
        std::uint64_t stopped = 0;
    };

    /// Errors:        `std::invalid_argument` if a member is outside its range
    explicit chaos(const chaos_options& options)
        : terms_(checked(options)), random_(options.seed), name_(options.name) {}
    chaos(const chaos&) = delete;
    chaos& operator=(const chaos&) = delete;

    /// For the calls that begin from now on; name and seed stay.
    /// Errors:        as the constructor
    void set(const chaos_options& options) {
        const terms changed = checked(options);
        const cordon::detail::spin_guard guard(lock_);
        terms_ = changed;
    }
    void switch_on(bool on = true) noexcept { on_.store(on, std::memory_order_relaxed); }
    void switch_off() noexcept { switch_on(false); }

    /// `call()`, or what happens instead.
    template <cordon::detail::makes_awaitable F>
    [[nodiscard]] auto operator()(F&& call) {
        using op = decltype(cordon::detail::call_of(std::forward<F>(call)));
        return chaotic_operation<op>(*this, cordon::detail::call_of(std::forward<F>(call)));
    }

    [[nodiscard]] snapshot stats() const noexcept {
        return {on_.load(std::memory_order_relaxed), delayed_.load(std::memory_order_relaxed),
                errors_.load(std::memory_order_relaxed), rejected_.load(std::memory_order_relaxed),
                stopped_.load(std::memory_order_relaxed)};
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("delayed", now.delayed, "Calls that were delayed.");
        sink.counter("errors", now.errors, "Calls that failed instead of being made.");
        sink.counter("rejected", now.rejected, "Calls that were refused instead of being made.");
        sink.counter("stopped", now.stopped, "Calls that stopped instead of being made.");
        sink.gauge("on", now.on ? 1 : 0, "Whether it is switched on.");
    }

private:
    /// Limits of one random number: below the first an error, below the second a refusal, below the third a stop.
    struct terms {
        double error = 0, rejection = 0, stop = 0;
        double delay = 0;
        clock::duration latency{0};
        std::errc code{};
        reject_reason reason{};
    };
    enum class happening : std::uint8_t { nothing, error, rejection, stop };
    struct fate {
        clock::duration delay{0};
        happening then = happening::nothing;
    };

    static terms checked(const chaos_options& o) {
        using cordon::detail::check_option;
        const auto share = [](double value, const char* field) {
            check_option(value >= 0 && value <= 1, "chaos", field, value, "are 0 to 1");
            return value;
        };
        const double error = share(o.error_rate, "error_rate");
        const double rejection = error + share(o.rejection_rate, "rejection_rate");
        const double stop = rejection + share(o.stop_rate, "stop_rate");
        share(stop <= 1 + 1e-9 ? 1 : stop, "error_rate, rejection_rate and stop_rate together");
        check_option(o.latency >= clock::duration::zero(), "chaos", "latency", o.latency, "are 0 and more");
        return {error, rejection, stop, share(o.latency_rate, "latency_rate"), o.latency, o.error, o.reason};
    }
    [[nodiscard]] terms present() noexcept {
        const cordon::detail::spin_guard guard(lock_);
        return terms_;
    }
    /// Two numbers for each call, whatever the rates: so a seed makes the same calls fail when another rate changes.
    [[nodiscard]] fate draw(const terms& t) noexcept {
        fate f;
        double what = 0;
        bool slow = false;
        if (cordon::detail::chance* const simulated = random_.decided_by()) {
            slow = t.latency > clock::duration::zero() && simulated->decide(t.delay);
            what = !simulated->decide(t.stop) ? 1 : t.stop * cordon::detail::unit_interval(simulated->bits());
        } else {
            slow = random_.next() < t.delay && t.latency > clock::duration::zero();
            what = random_.next();
        }
        if (slow) {
            f.delay = t.latency;
            count(delayed_);
        }
        if (what < t.error) f.then = happening::error;
        else if (what < t.rejection) f.then = happening::rejection;
        else if (what < t.stop) f.then = happening::stop;
        return f;
    }
    static void count(std::atomic<std::uint64_t>& n) noexcept { n.fetch_add(1, std::memory_order_relaxed); }

    cordon::detail::spin_lock lock_;
    terms terms_;  // under lock_
    cordon::detail::random_source random_;
    std::atomic<bool> on_{true};
    std::atomic<std::uint64_t> delayed_{0}, errors_{0}, rejected_{0}, stopped_{0};
    std::string name_;
};

template <operation O>
class chaos::chaotic_operation : public cordon::detail::operation_base<chaotic_operation<O>> {
public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = true;

    chaotic_operation(chaos& c, O&& op) : chaos_(&c), op_(std::move(op)) {}

    class state : public cordon::detail::policy_state<O> {
    public:
        explicit state(chaotic_operation&& c)
            : cordon::detail::policy_state<O>(std::move(c.op_), &state::ended), chaos_(c.chaos_) {}

        bool ready() noexcept {
            on_ = chaos_->on_.load(std::memory_order_relaxed);
            return !on_ && this->call_.ready();
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            if (!on_) return this->call_.start(this->here());
            if (r.ctx().stop_requested()) return r.stop_later();
            const terms t = chaos_->present();
            const fate f = chaos_->draw(t);
            then_ = f.then;
            code_ = t.code;
            reason_ = t.reason;
            if (f.delay == clock::duration::zero()) return go_on();
            sleep_.emplace(sleep_for(f.delay));
            return sleep_->start(this->here());
        }

    private:
        std::coroutine_handle<> go_on() noexcept {
            switch (then_) {
                case happening::nothing:
                    return this->call_.ready() ? this->up.complete() : this->call_.start(this->here());
                case happening::stop: count(chaos_->stopped_); return this->up.stop_later();
                case happening::rejection:
                    count(chaos_->rejected_);
                    this->call_.end_with(outcome<value_type>(rejection(reason_, chaos_->name())));
                    break;
                case happening::error:
                    count(chaos_->errors_);
                    this->call_.end_with(outcome<value_type>(
                        std::make_exception_ptr(std::system_error(std::make_error_code(code_), "chaos"))));
                    break;
            }
            return this->up.complete();
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] {
                cordon::detail::discard(child);
                return s.up.stop();
            }
            if (!s.sleep_) return s.up.complete();
            s.sleep_.reset();
            return s.go_on();
        }

        chaos* chaos_;
        std::errc code_{};
        reject_reason reason_{};
        happening then_ = happening::nothing;
        bool on_ = true;
        std::optional<cordon::detail::sleep_operation::state> sleep_;
    };

private:
    chaos* chaos_;
    O op_;
};

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
