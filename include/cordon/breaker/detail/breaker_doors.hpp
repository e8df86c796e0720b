// SPDX-License-Identifier: MIT
#pragma once

// The members of circuit_breaker.hpp, and what its options may be. Included at the end of breaker_bodies.hpp.

#include <cordon/breaker/detail/breaker_bodies.hpp>
#include <cordon/core/detail/check_option.hpp>

#include <cstddef>
#include <cstdint>
#include <string>

namespace cordon::inline CORDON_ABI {

namespace detail {

template <class T>
void check_breaker(bool good, const char* option, const T& value, const char* allowed) {
    check_option(good, "circuit_breaker", option, value, allowed);
}
inline std::string in_text(clock::duration d) { return std::to_string(d.count()) + "ns"; }

/// The options, if they are all right.
inline const circuit_breaker_options& checked(const circuit_breaker_options& o) {
    const auto is_rate = [](double r) { return r > 0 && r <= 1; };
    const std::uint32_t n = o.window.calls(), buckets = o.window.buckets();
    if (!o.window.is_of_time()) {
        check_breaker(n >= 1 && n <= call_window::max_calls, "window", "last_calls(" + std::to_string(n) + ")",
                      "are 1 to 65536 calls");
    } else {
        const std::string text = "last(" + in_text(o.window.span()) + ", " + std::to_string(buckets) + ")";
        check_breaker(buckets >= 1 && buckets <= call_window::max_buckets, "window", text, "are 1 to 1024 buckets");
        check_breaker(o.window.span() / buckets >= call_window::min_bucket, "window", text,
                      "are buckets of 1ms or more");
    }
    check_breaker(o.min_calls >= 1, "min_calls", o.min_calls, "are 1 or more");
    if (o.failure_rate)
        check_breaker(is_rate(*o.failure_rate), "failure_rate", *o.failure_rate, "are more than 0 to 1");
    if (o.consecutive_failures)
        check_breaker(*o.consecutive_failures >= 1, "consecutive_failures", *o.consecutive_failures, "are 1 or more");
    if (o.slow_call)
        check_breaker(*o.slow_call >= clock::duration::zero() && *o.slow_call < (clock::duration::max)(), "slow_call",
                      in_text(*o.slow_call), "are 0 or more, and less than for ever");
    check_breaker(o.failure_rate || o.consecutive_failures || o.slow_call, "failure_rate", "nullopt",
                  "is that only beside consecutive_failures or slow_call: it would never open");
    check_breaker(is_rate(o.slow_rate), "slow_rate", o.slow_rate, "are more than 0 to 1");
    if (const char* const allowed = o.open_for.fault())
        refuse_option("circuit_breaker", "open_for", o.open_for.text(), std::string("are ") + allowed);
    check_breaker(o.half_open_calls >= 1 && o.half_open_calls <= circuit_breaker::max_half_open_calls,
                  "half_open_calls", o.half_open_calls, "are 1 to 1024");
    if (o.half_open_failure_rate)
        check_breaker(is_rate(*o.half_open_failure_rate), "half_open_failure_rate", *o.half_open_failure_rate,
                      "are more than 0 to 1");
    check_breaker(o.probe_lease > clock::duration::zero(), "probe_lease", in_text(o.probe_lease), "are more than 0");
    if (o.half_open_for)
        check_breaker(*o.half_open_for > clock::duration::zero(), "half_open_for", in_text(*o.half_open_for),
                      "are more than 0");
    check_breaker(static_cast<std::uint8_t>(o.initial) < breaker_states && o.initial != breaker_state::half_open,
                  "initial", to_string(o.initial), "are all states but half open");
    return o;
}

}  // namespace detail

inline void circuit_breaker::permit::settle(verdict v) noexcept {
    if (core* const c = std::exchange(core_, nullptr)) c->settle(word_, since_, v);
}
inline circuit_breaker::permit& circuit_breaker::permit::operator=(permit&& other) noexcept {
    if (this == &other) return *this;
    settle(verdict::stopped);
    core_ = std::exchange(other.core_, nullptr);
    word_ = other.word_;
    since_ = other.since_;
    return *this;
}

inline circuit_breaker::subscription::~subscription() {
    if (listener_ != nullptr) core_->hub().remove(static_cast<detail::event_hub::listener*>(listener_));
}
template <std::invocable<const breaker_event&> F>
circuit_breaker::subscription circuit_breaker::on_event(F f) {
    detail::event_hub::listener* const l = new detail::event_hub::listener_of<F>(std::move(f));
    core_->hub().add(*l);
    return subscription(core_.get(), l);
}

/// What `admission()` is: over before it begins.
class circuit_breaker::admission_operation : public detail::operation_base<admission_operation> {
public:
    using value_type = permit;
    static constexpr bool needs_executor = false;

    explicit admission_operation(core* c) noexcept : core_(c) {}
    /// See `admits_at_once`.
    permit at_once() noexcept { return core_->admit_if_closed(); }
    class state {
    public:
        explicit state(admission_operation&& a) noexcept : core_(a.core_) {}
        bool ready() noexcept {
            got_ = core_->admit(&why_);
            return true;
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return r.complete(); }
        outcome<permit> take() noexcept {
            if (got_) return outcome<permit>(std::move(got_));
            return outcome<permit>(why_);
        }

    private:
        core* core_;
        permit got_;
        rejection why_;
    };

private:
    core* core_;
};

inline circuit_breaker::circuit_breaker(circuit_breaker_options options)
    : core_(std::make_unique<core>(detail::checked(options))) {}
inline circuit_breaker::~circuit_breaker() = default;
inline circuit_breaker::permit circuit_breaker::try_acquire() noexcept { return core_->admit(nullptr); }
inline circuit_breaker::admission_operation circuit_breaker::admission() noexcept {
    return admission_operation(core_.get());
}
inline breaker_state circuit_breaker::state() const noexcept { return core_->look(); }
inline std::string_view circuit_breaker::name() const noexcept { return core_->name(); }
inline circuit_breaker::snapshot circuit_breaker::stats() const noexcept { return core_->stats(); }
inline void circuit_breaker::force_open() noexcept { core_->by_hand(breaker_state::forced_open); }
inline void circuit_breaker::disable() noexcept { core_->by_hand(breaker_state::disabled); }
inline void circuit_breaker::metrics_only() noexcept { core_->by_hand(breaker_state::metrics_only); }
inline void circuit_breaker::close() noexcept { core_->by_hand(breaker_state::closed); }
inline void circuit_breaker::reset() noexcept { core_->by_hand(breaker_state::closed, {}, true); }
inline void circuit_breaker::open_until(clock::time_point t) noexcept { core_->by_hand(breaker_state::open, t); }
inline circuit_breaker::saved_state circuit_breaker::export_state() const noexcept { return core_->save(); }
inline void circuit_breaker::restore(const saved_state& saved, clock::duration ago) {
    detail::check_breaker(static_cast<std::uint8_t>(saved.state) < breaker_states, "saved.state",
                          static_cast<int>(saved.state), "are the states of breaker_state");
    detail::check_breaker(saved.open_left >= clock::duration::zero(), "saved.open_left", saved.open_left,
                          "is what is not negative");
    detail::check_breaker(saved.last_open >= clock::duration::zero(), "saved.last_open", saved.last_open,
                          "is what is not negative");
    core_->restore(saved, ago);
}

template <class Sink>
void circuit_breaker::report(Sink& sink) const {
    static constexpr std::string_view names[] = {"closed",      "open",     "half_open",
                                                 "forced_open", "disabled", "metrics_only"};
    const snapshot s = stats();
    sink.counter("rejected", s.rejected, "Calls that were refused.");
    sink.counter("opened", s.opened, "How often it opened by itself.");
    sink.counter("stale", s.stale, "Outcomes that came too late to count.");
    sink.counter("ignored", s.ignored, "Outcomes that were not to count.");
    sink.gauge("calls", s.calls, "Calls that the present state counts.");
    sink.gauge("failed", s.failed, "Calls of them that failed.");
    sink.gauge("slow", s.slow, "Calls of them that were slow.");
    sink.state("state", static_cast<std::size_t>(s.state), std::span<const std::string_view>(names),
               "What it does with calls.");
}

}  // namespace cordon::inline CORDON_ABI
