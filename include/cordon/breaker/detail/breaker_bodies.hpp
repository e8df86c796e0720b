// SPDX-License-Identifier: MIT
#pragma once

// How a circuit breaker counts, and goes from one state to another. Included at the end of breaker_core.hpp.

#include <cordon/breaker/detail/breaker_core.hpp>
#include <cordon/core/detail/raise.hpp>

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>

namespace cordon::inline CORDON_ABI {

// --- made and unmade ---------------------------------------------------------------------------------------------

inline circuit_breaker::core::core(const circuit_breaker_options& o)
    : word_(make(o.initial, 1)),
      slow_call_(o.slow_call.value_or((clock::duration::max)())),
      streak_limit_(o.consecutive_failures.value_or(0)),
      half_open_calls_(o.half_open_calls),
      min_calls_(o.window.is_of_time() || o.min_calls < o.window.calls() ? o.min_calls : o.window.calls()),
      of_time_(o.window.is_of_time()),
      fixed_(o.window.buckets() == 1),
      times_calls_(o.slow_call || fixed_),
      reads_clock_(o.slow_call || of_time_),
      only_counts_(!reads_clock_ && streak_limit_ == 0),
      failure_rate_(o.failure_rate.value_or(HUGE_VAL)),
      slow_rate_(o.slow_call ? o.slow_rate : HUGE_VAL),
      counts_(of_time_ ? 1 : o.window.calls()),
      times_(clock::now(), o.window.span(), o.window.buckets()),
      bad_to_open_(places_for(o.half_open_failure_rate.value_or(o.failure_rate.value_or(1.0 / o.half_open_calls)))),
      slow_to_open_(o.slow_call ? places_for(o.slow_rate) : half_open_calls_ + 1),
      lease_(o.probe_lease),
      half_open_for_(o.half_open_for.value_or((clock::duration::max)())),
      probes_(new probe[o.half_open_calls]{}),
      open_for_(o.open_for),
      name_(o.name),
      refusal_(reject_reason::circuit_open, o.name) {
    counts_.restart(1);
    if (o.initial != breaker_state::open) return;
    opening first{1, {}};
    first.trip.at = clock::now();
    until_.store(never, std::memory_order_relaxed);
    attempt_ = 1;
    finish(first);
}

inline circuit_breaker::core::~core() {
    if (const std::size_t n = hub_.listeners(); n != 0) [[unlikely]]
        detail::fail("circuit_breaker \"" + name_ + "\" destroyed while " + std::to_string(n) + " listen to it");
    if (outstanding_ != 0) [[unlikely]]
        detail::fail("circuit_breaker \"" + name_ + "\" destroyed while " + std::to_string(outstanding_) +
                     " calls that it let through in half-open are out");
}

// --- counting ----------------------------------------------------------------------------------------------------

inline void circuit_breaker::core::count_in_a_row(std::uint64_t admitted, bool failed) noexcept {
    const std::uint64_t tag = generation_of(admitted) << 32;
    std::uint64_t seen = streak_.load(std::memory_order_relaxed), next;
    do {
        const bool mine = (seen & ~std::uint64_t{0xffffffff}) == tag;
        if (!mine && static_cast<std::int64_t>(seen - tag) > 0) return;  // that of a later generation
        if (!failed && (!mine || seen == tag)) return;
        const bool most = mine && (seen & 0xffffffff) == 0xffffffff;  // one more would be of another generation
        next = !failed ? tag : most ? seen : mine ? seen + 1 : tag + 1;
    } while (!streak_.compare_exchange_weak(seen, next, std::memory_order_relaxed));
}
inline std::uint32_t circuit_breaker::core::in_a_row(std::uint64_t word) const noexcept {
    const std::uint64_t seen = streak_.load(std::memory_order_relaxed);
    return (seen >> 32) == (generation_of(word) & 0xffffffff) ? static_cast<std::uint32_t>(seen) : 0;
}

inline detail::call_tally circuit_breaker::core::tally(std::uint64_t word, clock::time_point now) const noexcept {
    return of_time_ ? times_.tally(times_.tag_at(generation_of(word), now)) : counts_.tally(generation_of(word));
}

/// Opens the breaker if the window says so. In metrics_only says so, once for each cause.
CORDON_NOINLINE inline void circuit_breaker::core::judge(std::uint64_t admitted, clock::time_point now,
                                                         bool failed) noexcept {
    const std::uint64_t tag = of_time_ ? times_.tag_at(generation_of(admitted), now) : 0;
    if (of_time_) times_.begin_look(tag);
    const detail::call_tally t = tally(admitted, now);
    const bool enough = t.calls >= min_calls_;
    if (of_time_) times_.end_look(tag, !enough);
    unsigned causes = 0;
    const auto says = [&](breaker_cause c) { causes |= 1u << static_cast<unsigned>(c); };
    if (enough && t.failed != 0 && reached(t.failed, t.calls, failure_rate_)) says(breaker_cause::failure_rate);
    if (enough && t.slow != 0 && reached(t.slow, t.calls, slow_rate_)) says(breaker_cause::slow_rate);
    if (failed && streak_limit_ != 0 && in_a_row(admitted) >= streak_limit_) says(breaker_cause::consecutive_failures);
    causes &= ~told_hint_.load(std::memory_order_relaxed);
    if (causes == 0) [[likely]]
        return;
    if (!reads_clock_) now = clock::now();
    opening o;
    {
        const detail::spin_guard guard(lock_);
        const std::uint64_t seen = word_.load(std::memory_order_relaxed);
        if (generation_of(seen) != generation_of(admitted)) return;  // B4
        for (unsigned c = 0; c <= static_cast<unsigned>(breaker_cause::consecutive_failures); ++c) {
            if ((causes & ~told_ & (1u << c)) == 0) continue;
            const auto cause = static_cast<breaker_cause>(c);
            if (state_of(seen) == breaker_state::closed) {
                open(cause, now, t, o);
                break;
            }
            told_ |= 1u << c;
            told_hint_.store(told_, std::memory_order_relaxed);
            hub_.post({state_of(seen), state_of(seen), cause, now, t.calls, t.failed, t.slow, generation_of(seen)});
        }
    }
    finish(o);
}

CORDON_NOINLINE inline void circuit_breaker::core::stale() noexcept {
    stale_.fetch_add(1, std::memory_order_relaxed);
    if (hub_.listeners() == 0) return;
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    hub_.post({state_of(seen), state_of(seen), breaker_cause::stale, clock::now(), 0, 0, 0, generation_of(seen)});
    hub_.deliver();
}

// --- transitions -------------------------------------------------------------------------------------------------

inline void circuit_breaker::core::enter(breaker_state to, breaker_cause cause, clock::time_point now,
                                         clock::time_point until, const detail::call_tally& led_here) noexcept {
    const std::uint64_t seen = word_.load(std::memory_order_relaxed);
    const std::uint64_t generation = generation_of(seen) + 1;
    good_ = bad_ = slow_ = fast_ = 0;
    for (std::uint32_t i = 0; i < half_open_calls_; ++i) probes_[i].out = false;
    told_ = 0;
    told_hint_.store(0, std::memory_order_relaxed);
    if (to == breaker_state::closed) {
        attempt_ = 0;
        closed_at_ = now;
    }
    half_open_until_ = to == breaker_state::half_open ? later(now, half_open_for_) : never;
    counts_.restart(generation);
    until_.store(until, std::memory_order_relaxed);
    word_.store(make(to, generation), std::memory_order_release);  // B3
    if (state_of(seen) != to || cause != breaker_cause::by_hand)
        hub_.post({state_of(seen), to, cause, now, led_here.calls, led_here.failed, led_here.slow, generation});
}

/// By itself. For how long is decided by `finish`.
inline void circuit_breaker::core::open(breaker_cause cause, clock::time_point now, const detail::call_tally& led_here,
                                        opening& o) noexcept {
    const bool was_closed = state_of(word_.load(std::memory_order_relaxed)) == breaker_state::closed;
    const auto part = [&](std::uint64_t n) {
        return led_here.calls == 0 ? 0 : static_cast<double>(n) / static_cast<double>(led_here.calls);
    };
    o.trip = {attempt_++, part(led_here.failed), part(led_here.slow), last_open_, (clock::duration::max)(), now};
    if (!was_closed) o.trip.healthy_for = clock::duration::zero();
    else if (closed_at_ != never) o.trip.healthy_for = now - closed_at_;
    ++opened_;
    enter(breaker_state::open, cause, now, never, led_here);
    o.generation = generation_of(word_.load(std::memory_order_relaxed));
}

/// Makes the transition that time has brought.
inline void circuit_breaker::core::pass_time(clock::time_point now, opening& o) noexcept {
    const breaker_state s = state_of(word_.load(std::memory_order_relaxed));
    if (s == breaker_state::open && now >= until_.load(std::memory_order_relaxed))
        enter(breaker_state::half_open, breaker_cause::waited, now, now, {});
    else if (s == breaker_state::half_open && now >= half_open_until_)
        open(breaker_cause::probes_took_too_long, now, {good_ + bad_, bad_, slow_}, o);
}

/// What may be the user's code, under no lock: until it is done the breaker is open, and nobody knows for how long.
inline void circuit_breaker::core::finish(const opening& o) noexcept {
    if (o.generation != 0) [[unlikely]] {
        clock::duration d = std::chrono::seconds(5);
#if defined(__cpp_exceptions)
        try {
            d = open_for_(o.trip);
        } catch (...) {
            hub_.count_error();
        }
#else
        d = open_for_(o.trip);
#endif
        const detail::spin_guard guard(lock_);
        if (generation_of(word_.load(std::memory_order_relaxed)) == o.generation &&
            until_.load(std::memory_order_relaxed) == never) {
            last_open_ = d;
            until_.store(later(o.trip.at, d), std::memory_order_relaxed);
        }
    }
    hub_.deliver();
}

inline void circuit_breaker::core::by_hand(breaker_state to, clock::time_point until, bool again) noexcept {
    until = until < never ? until : last_moment;
    {
        const detail::spin_guard guard(lock_);
        const breaker_state from = state_of(word_.load(std::memory_order_relaxed));
        if (from == to && to == breaker_state::open) {
            until_.store(until, std::memory_order_relaxed);
        } else if (from != to || again) {
            enter(to, breaker_cause::by_hand, clock::now(), until, {});
        }
    }
    hub_.deliver();
}

inline void circuit_breaker::core::restore(const saved_state& saved, clock::duration ago) noexcept {
    const clock::time_point now = clock::now();
    const clock::duration zero = clock::duration::zero();
    const clock::duration left = ago <= zero ? saved.open_left : ago < saved.open_left ? saved.open_left - ago : zero;
    const bool opens = saved.state == breaker_state::open || saved.state == breaker_state::half_open;
    {
        const detail::spin_guard guard(lock_);
        enter(opens ? breaker_state::open : saved.state, breaker_cause::by_hand, now, later(now, left), {});
        attempt_ = saved.attempt;
        last_open_ = saved.last_open;
    }
    hub_.deliver();
}

// --- refusals and probes -----------------------------------------------------------------------------------------

inline std::uint32_t circuit_breaker::core::probes_out() const noexcept {
    std::uint32_t n = 0;
    for (std::uint32_t i = 0; i < half_open_calls_; ++i) n += probes_[i].out;
    return n;
}
inline void circuit_breaker::core::free_place(std::uint32_t place) noexcept {
    probes_[place].out = false;
    word_.store(word_.load(std::memory_order_relaxed) - one_probe, std::memory_order_release);
}
/// The earliest time at which half-open, with all places taken, may let somebody through or give up.
inline void circuit_breaker::core::renew_until() noexcept {
    clock::time_point t = half_open_until_;
    for (std::uint32_t i = 0; i < half_open_calls_; ++i)
        if (probes_[i].out && later(probes_[i].since, lease_) < t) t = later(probes_[i].since, lease_);
    until_.store(t, std::memory_order_relaxed);
}

CORDON_NOINLINE inline circuit_breaker::permit circuit_breaker::core::admit_slowly(rejection* why) noexcept {
    for (;;) {
        const std::uint64_t seen = word_.load(std::memory_order_acquire);  // B3
        const breaker_state s = state_of(seen);
        if (s == breaker_state::forced_open) {
            refused_.add(forced);
            if (why != nullptr) *why = refusal_;
            return permit();
        }
        if (s != breaker_state::open && s != breaker_state::half_open) return permit(this, seen, begin());
        const clock::time_point until = until_.load(std::memory_order_relaxed);
        const bool closed_to_all = s == breaker_state::open || full(seen);
        if (const clock::duration left = closed_to_all ? detail::time_left(until) : clock::duration::zero();
            left > clock::duration::zero()) {
            refused_.add(s == breaker_state::open ? while_open : half_open);
            if (why != nullptr) {
                *why = refusal_;
                if (s == breaker_state::open && until != never) why->retry_after = left;
            }
            return permit();
        }
        const clock::time_point now = clock::now();
        opening o;
        permit got;
        {
            const detail::spin_guard guard(lock_);
            pass_time(now, o);
            const std::uint64_t mine = word_.load(std::memory_order_relaxed);
            if (state_of(mine) == breaker_state::half_open) {
                std::uint32_t place = 0;
                for (std::uint32_t i = 0; i < half_open_calls_; ++i)
                    if (probes_[i].out && now >= later(probes_[i].since, lease_)) free_place(i);
                while (place < half_open_calls_ && probes_[place].out) ++place;
                const std::uint64_t word = word_.load(std::memory_order_relaxed);
                if (!full(word)) {  // B5
                    probes_[place] = {now, true};
                    ++outstanding_;
                    renew_until();
                    word_.store(word + one_probe, std::memory_order_release);  // B3
                    got = permit(this,
                                 make(breaker_state::half_open, generation_of(word)) | static_cast<std::uint64_t>(place)
                                                                                           << probes_shift,
                                 now);
                } else {
                    renew_until();  // a call whose lease it was about has ended meanwhile
                }
            }
        }
        finish(o);
        if (got) return got;
    }
}

CORDON_NOINLINE inline void circuit_breaker::core::settle_probe(std::uint64_t admitted, clock::time_point since,
                                                                verdict v) noexcept {
    const clock::time_point now = clock::now();
    opening o;
    bool late = false;
    {
        const detail::spin_guard guard(lock_);
        --outstanding_;
        pass_time(now, o);
        const std::uint32_t place = places_of(admitted);
        if (generation_of(word_.load(std::memory_order_relaxed)) != generation_of(admitted) || !probes_[place].out ||
            probes_[place].since != since) {
            late = true;  // B2, B5
        } else if (!counts(v) || now >= later(since, lease_)) {
            late = counts(v);
            free_place(place);
        } else {
            probes_[place].out = false;
            const bool slow = now - since > slow_call_;
            ++(v == verdict::failure ? bad_ : good_);
            ++(slow ? slow_ : fast_);
            const detail::call_tally t{good_ + bad_, bad_, slow_};
            if (bad_ >= bad_to_open_ || slow_ >= slow_to_open_) open(breaker_cause::probes_failed, now, t, o);
            else if (good_ + bad_to_open_ > half_open_calls_ && fast_ + slow_to_open_ > half_open_calls_)
                enter(breaker_state::closed, breaker_cause::probes_passed, now, {}, t);
        }
    }
    finish(o);
    if (!counts(v)) uncounted(v);
    else if (late) stale();
}

// --- looking -----------------------------------------------------------------------------------------------------

inline breaker_state circuit_breaker::core::look() noexcept {
    const std::uint64_t seen = word_.load(std::memory_order_acquire);
    if (state_of(seen) != breaker_state::open && state_of(seen) != breaker_state::half_open) return state_of(seen);
    const clock::time_point now = clock::now();
    opening o;
    breaker_state s;
    {
        const detail::spin_guard guard(lock_);
        pass_time(now, o);
        s = state_of(word_.load(std::memory_order_relaxed));
    }
    finish(o);
    return s;
}

inline circuit_breaker::snapshot circuit_breaker::core::stats() noexcept {
    const clock::time_point now = clock::now();
    opening o;
    snapshot s;
    std::uint64_t seen = 0;
    {
        const detail::spin_guard guard(lock_);
        pass_time(now, o);
        seen = word_.load(std::memory_order_relaxed);
        s.attempt = attempt_;
        s.opened = opened_;
        s.probes = probes_out();
        s.calls = good_ + bad_;
        s.failed = bad_;
        s.slow = slow_;
        const clock::time_point until = until_.load(std::memory_order_relaxed);
        if (state_of(seen) == breaker_state::open && until != never && until > now) s.retry_after = until - now;
    }
    finish(o);
    s.state = state_of(seen);
    s.generation = generation_of(seen);
    if (s.state == breaker_state::closed || s.state == breaker_state::metrics_only) {
        const detail::call_tally t = tally(seen, now);
        s.calls = t.calls;
        s.failed = t.failed;
        s.slow = t.slow;
        s.consecutive_failures = in_a_row(seen);
        if (t.calls >= min_calls_) {
            s.failure_rate = static_cast<double>(t.failed) / static_cast<double>(t.calls);
            if (slow_call_ != (clock::duration::max)())
                s.slow_rate = static_cast<double>(t.slow) / static_cast<double>(t.calls);
        }
    }
    s.rejected_half_open = refused_[half_open];
    s.rejected_forced = refused_[forced];
    s.rejected = refused_[while_open] + s.rejected_half_open + s.rejected_forced;
    s.stale = stale_.load(std::memory_order_relaxed);
    s.ignored = ignored_.load(std::memory_order_relaxed);
    s.listener_errors = hub_.errors();
    s.events_lost = hub_.lost();
    return s;
}

inline circuit_breaker::saved_state circuit_breaker::core::save() noexcept {
    const snapshot s = stats();
    const detail::spin_guard guard(lock_);
    return {s.state == breaker_state::half_open ? breaker_state::open : s.state, s.attempt, s.retry_after, last_open_};
}

}  // namespace cordon::inline CORDON_ABI

#include <cordon/breaker/detail/breaker_doors.hpp>
