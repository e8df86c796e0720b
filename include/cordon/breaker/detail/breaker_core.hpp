// SPDX-License-Identifier: MIT
#pragma once

// The state of a circuit breaker and its transitions. Included at the end of circuit_breaker.hpp.

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/breaker/detail/count_log.hpp>
#include <cordon/breaker/detail/event_hub.hpp>
#include <cordon/breaker/detail/time_log.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <cmath>
#include <stdexcept>
#include <string>

namespace cordon::inline CORDON_ABI {

/// word_: what a call has to know to pass, or to be refused.
///   bits 0-2    the state
///   bits 3-15   places of probes that are taken: calls that are out, and those that ended and count
///   bits 16-63  the generation: one more with each transition
/// until_: while the state is open, or half-open with all places taken, nothing changes before that time.
// B1 word_ is written only under the lock, and read by everybody else. While it is closed nobody writes it, so that
//    threads that pass share its cache line.
// B2 An outcome counts only if the generation is that of its permit; the logs check that again in the exchange that
//    counts (K3, T2). So whoever makes a transition excludes all calls from before it.
// B3 The logs begin anew, and until_ is written, before word_ (release): whoever reads the word (acquire) and belongs to
//    the new generation finds both.
// B4 Whoever makes a call's outcome count looks at the window afterwards (K2, T3), and trips under the lock if the
//    generation is still his: so a window that reached a rate is seen by somebody, and one transition comes of it.
// B5 No more places are taken than half_open_calls_; a place is freed only when its call did not count, or its lease is
//    over. The pair of place and time of admission tells one holder from the next.
class alignas(64) circuit_breaker::core {
public:
    explicit core(const circuit_breaker_options& o);
    ~core();

    // --- calls, inline while closed ---
    [[nodiscard]] permit admit(rejection* why) noexcept {
        const std::uint64_t seen = word_.load(std::memory_order_acquire);  // B3
        if (state_of(seen) == breaker_state::closed) [[likely]] return permit(this, seen, begin());
        return admit_slowly(why);
    }
    void settle(std::uint64_t admitted, clock::time_point since, verdict v) noexcept {
        const std::uint64_t seen = word_.load(std::memory_order_acquire);
        if (state_of(admitted) == breaker_state::half_open) [[unlikely]] return settle_probe(admitted, since, v);
        if (v > verdict::failure) return uncounted(v);
        if (state_of(admitted) == breaker_state::disabled) return;
        if (((seen ^ admitted) >> generation_shift) != 0) [[unlikely]] return stale();  // B2
        record(admitted, since, v == verdict::failure);
    }

    // --- everything else ---
    breaker_state look() noexcept;
    snapshot stats() noexcept;
    saved_state save() noexcept;
    void by_hand(breaker_state to, clock::time_point until = {}, bool again = false) noexcept;
    void restore(const saved_state& saved, clock::duration ago) noexcept;

    const std::string& name() const noexcept { return name_; }
    detail::event_hub& hub() noexcept { return hub_; }

private:
    static constexpr int probes_shift = 3, generation_shift = 16;
    static constexpr std::uint64_t state_mask = 7, one_probe = 1 << probes_shift, probes_mask = 0xfff8;

    /// What has to be done for an opening after the lock: ask the user's function how long.
    struct opening {
        std::uint64_t generation = 0;  // 0: nothing
        breaker_trip trip;
    };
    struct probe {
        clock::time_point since{};
        bool out = false;
    };

    static breaker_state state_of(std::uint64_t word) noexcept { return static_cast<breaker_state>(word & state_mask); }
    static std::uint64_t generation_of(std::uint64_t word) noexcept { return word >> generation_shift; }
    static std::uint32_t places_of(std::uint64_t word) noexcept {
        return static_cast<std::uint32_t>((word & probes_mask) >> probes_shift);
    }
    static std::uint64_t make(breaker_state s, std::uint64_t generation) noexcept {
        return generation << generation_shift | static_cast<std::uint64_t>(s);
    }
    static clock::time_point later(clock::time_point t, clock::duration d) noexcept {
        return d > (clock::time_point::max)() - t ? (clock::time_point::max)() : t + d;
    }
    static bool reached(std::uint64_t part, std::uint64_t of, double rate) noexcept {
        return static_cast<double>(part) >= (rate - 1e-9) * static_cast<double>(of);  // 0.55 of 100 is 55
    }
    std::uint32_t places_for(double rate) const noexcept {
        std::uint32_t n = 1;
        while (n < half_open_calls_ && !reached(n, half_open_calls_, rate)) ++n;
        return n;
    }

    clock::time_point begin() const noexcept { return times_calls_ ? clock::now() : clock::time_point{}; }
    void uncounted(verdict v) noexcept {
        if (v == verdict::ignored) ignored_.fetch_add(1, std::memory_order_relaxed);
    }
    bool full(std::uint64_t word) const noexcept { return places_of(word) == half_open_calls_; }
    bool refuses(std::uint64_t word, clock::time_point now) const noexcept {
        return (state_of(word) == breaker_state::open || full(word)) && now < until_.load(std::memory_order_relaxed);
    }

    void record(std::uint64_t admitted, clock::time_point since, bool failed) noexcept {
        const clock::time_point now = reads_clock_ ? clock::now() : clock::time_point{};
        const bool slow = now - since > slow_call_;  // never without that option, when it is the longest duration
        if (streak_limit_ != 0) count_in_a_row(admitted, failed);
        if (!of_time_) {
            const std::uint64_t n = counts_.record(generation_of(admitted), failed, slow);
            if (n == detail::count_log::refused) [[unlikely]] return stale();
            if (failed || slow || n == min_calls_) [[unlikely]] judge(admitted, now, failed);
        } else {
            const std::uint64_t tag = times_.tag_at(generation_of(admitted), now);
            if (fixed_ && tag != times_.tag_at(generation_of(admitted), since)) [[unlikely]] return stale();
            if (times_.record(tag, failed, slow)) [[unlikely]] judge(admitted, now, failed);
        }
    }
    void count_in_a_row(std::uint64_t admitted, bool failed) noexcept;
    std::uint32_t in_a_row(std::uint64_t word) const noexcept;
    detail::call_tally tally(std::uint64_t word, clock::time_point now) const noexcept;
    void judge(std::uint64_t admitted, clock::time_point now, bool failed) noexcept;
    void stale() noexcept;
    permit admit_slowly(rejection* why) noexcept;
    void settle_probe(std::uint64_t admitted, clock::time_point since, verdict v) noexcept;

    // Under the lock.
    void enter(breaker_state to, breaker_cause cause, clock::time_point now, clock::time_point until,
               const detail::call_tally& led_here) noexcept;
    void open(breaker_cause cause, clock::time_point now, const detail::call_tally& led_here, opening& o) noexcept;
    void pass_time(clock::time_point now, opening& o) noexcept;
    void free_place(std::uint32_t place) noexcept;
    void renew_until() noexcept;
    std::uint32_t probes_out() const noexcept;
    // After it.
    void finish(const opening& o) noexcept;

    // Read by every call. Of all these only word_ changes, in transitions.
    std::atomic<std::uint64_t> word_;
    const clock::duration slow_call_;
    const std::uint32_t streak_limit_;     // 0: none
    const std::uint32_t half_open_calls_;
    const std::uint64_t min_calls_;
    const bool of_time_, fixed_;           // the window: of time; of one bucket
    const bool times_calls_, reads_clock_; // at the beginning of a call; at its end
    const double failure_rate_, slow_rate_;  // infinite: not looked at
    std::atomic<clock::time_point> until_{};

    detail::count_log counts_;
    detail::time_log times_;

    alignas(64) std::atomic<std::uint64_t> refused_{0};
    std::atomic<std::uint64_t> refused_half_open_{0}, refused_forced_{0};
    std::atomic<std::uint64_t> stale_{0}, ignored_{0};
    std::atomic<std::uint64_t> streak_{0};  // calls that failed in a row (lower 32 bits), and in which generation

    alignas(64) mutable detail::spin_lock lock_;  // everything from here on is under it
    const std::uint32_t bad_to_open_, slow_to_open_;
    const clock::duration lease_, half_open_for_;
    const std::unique_ptr<probe[]> probes_;
    std::uint32_t good_ = 0, bad_ = 0, slow_ = 0, fast_ = 0;  // outcomes in half-open
    std::uint32_t attempt_ = 0;
    std::uint64_t opened_ = 0;
    unsigned told_ = 0;                            // causes told in metrics_only, a bit each
    std::atomic<unsigned> told_hint_{0};           // the same, to look at without it
    clock::duration last_open_{0};
    clock::time_point closed_at_ = (clock::time_point::max)();
    clock::time_point half_open_until_ = (clock::time_point::max)();
    bool planning_ = false;                        // open, and how long is not decided
    open_time open_for_;
    detail::event_hub hub_;
    std::string name_;
    rejection refusal_;
};

// --- made and unmade ---------------------------------------------------------------------------------------------

namespace detail {

inline void check_breaker(bool good, const char* field, const std::string& value, const char* allowed) {
    if (!good) [[unlikely]]
        raise(std::invalid_argument(std::string("circuit_breaker: ") + field + " is " + value + ", allowed are " + allowed),
              "circuit_breaker: an option is out of range");
}
inline std::string in_text(clock::duration d) { return std::to_string(d.count()) + "ns"; }

/// The options, if they are all right.
inline const circuit_breaker_options& checked(const circuit_breaker_options& o) {
    const auto is_rate = [](double r) { return r > 0 && r <= 1; };
    const std::uint32_t n = o.window.calls(), buckets = o.window.buckets();
    if (!o.window.is_of_time()) {
        check_breaker(n >= 1 && n <= call_window::max_calls, "window", "last_calls(" + std::to_string(n) + ")",
                      "1 to 65536 calls");
    } else {
        const std::string text = "last(" + in_text(o.window.span()) + ", " + std::to_string(buckets) + ")";
        check_breaker(buckets >= 1 && buckets <= call_window::max_buckets, "window", text, "1 to 1024 buckets");
        check_breaker(o.window.span() / buckets >= call_window::min_bucket, "window", text, "buckets of 1ms or more");
    }
    check_breaker(o.min_calls >= 1, "min_calls", std::to_string(o.min_calls), "1 or more");
    if (o.failure_rate)
        check_breaker(is_rate(*o.failure_rate), "failure_rate", std::to_string(*o.failure_rate), "more than 0 to 1");
    if (o.consecutive_failures)
        check_breaker(*o.consecutive_failures >= 1, "consecutive_failures", std::to_string(*o.consecutive_failures),
                      "1 or more");
    if (o.slow_call)
        check_breaker(*o.slow_call >= clock::duration::zero() && *o.slow_call < (clock::duration::max)(), "slow_call",
                      in_text(*o.slow_call), "0 or more, and less than for ever");
    check_breaker(is_rate(o.slow_rate), "slow_rate", std::to_string(o.slow_rate), "more than 0 to 1");
    if (const char* const allowed = o.open_for.fault()) check_breaker(false, "open_for", "out of range", allowed);
    check_breaker(o.half_open_calls >= 1 && o.half_open_calls <= 1'024, "half_open_calls",
                  std::to_string(o.half_open_calls), "1 to 1024");
    if (o.half_open_failure_rate)
        check_breaker(is_rate(*o.half_open_failure_rate), "half_open_failure_rate",
                      std::to_string(*o.half_open_failure_rate), "more than 0 to 1");
    check_breaker(o.probe_lease > clock::duration::zero(), "probe_lease", in_text(o.probe_lease), "more than 0");
    if (o.half_open_for)
        check_breaker(*o.half_open_for > clock::duration::zero(), "half_open_for", in_text(*o.half_open_for),
                      "more than 0");
    check_breaker(static_cast<std::uint8_t>(o.initial) < breaker_states && o.initial != breaker_state::half_open,
                  "initial", to_string(o.initial), "all states but half open");
    return o;
}

}  // namespace detail

inline circuit_breaker::core::core(const circuit_breaker_options& o)
    : word_(make(o.initial, 1)), slow_call_(o.slow_call.value_or((clock::duration::max)())),
      streak_limit_(o.consecutive_failures.value_or(0)), half_open_calls_(o.half_open_calls),
      min_calls_(o.window.is_of_time() || o.min_calls < o.window.calls() ? o.min_calls : o.window.calls()),
      of_time_(o.window.is_of_time()), fixed_(o.window.buckets() == 1), times_calls_(o.slow_call || fixed_),
      reads_clock_(o.slow_call || of_time_), failure_rate_(o.failure_rate.value_or(HUGE_VAL)),
      slow_rate_(o.slow_call ? o.slow_rate : HUGE_VAL), counts_(of_time_ ? 1 : o.window.calls()),
      times_(clock::now(), o.window.span(), o.window.buckets()),
      bad_to_open_(places_for(o.half_open_failure_rate.value_or(o.failure_rate.value_or(1.0 / o.half_open_calls)))),
      slow_to_open_(o.slow_call ? places_for(o.slow_rate) : half_open_calls_ + 1), lease_(o.probe_lease),
      half_open_for_(o.half_open_for.value_or((clock::duration::max)())), probes_(new probe[o.half_open_calls]{}),
      open_for_(o.open_for), name_(o.name), refusal_(reject_reason::circuit_open, o.name) {
    counts_.restart(1);
    if (o.initial != breaker_state::open) return;
    opening first{1, {}};
    first.trip.at = clock::now();
    until_.store((clock::time_point::max)(), std::memory_order_relaxed);
    planning_ = true;
    attempt_ = 1;
    finish(first);
}

inline circuit_breaker::core::~core() {
    if (const std::size_t n = hub_.listeners(); n != 0) [[unlikely]]
        detail::fail("circuit_breaker \"" + name_ + "\" destroyed while " + std::to_string(n) + " listen to it");
    if (const std::uint32_t n = probes_out(); n != 0) [[unlikely]]
        detail::fail("circuit_breaker \"" + name_ + "\" destroyed while " + std::to_string(n) +
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
        next = !failed ? tag : mine ? seen + 1 : tag + 1;
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
    if (causes == 0) [[likely]] return;
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
            hub_.post({state_of(seen), state_of(seen), cause, now, t.calls, t.failed, t.slow});
        }
    }
    finish(o);
}

CORDON_NOINLINE inline void circuit_breaker::core::stale() noexcept {
    stale_.fetch_add(1, std::memory_order_relaxed);
    if (hub_.listeners() == 0) return;
    const breaker_state now_in = state_of(word_.load(std::memory_order_relaxed));
    hub_.post({now_in, now_in, breaker_cause::stale, clock::now(), 0, 0, 0});
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
    planning_ = false;
    if (to == breaker_state::closed) {
        attempt_ = 0;
        closed_at_ = now;
    }
    half_open_until_ = to == breaker_state::half_open ? later(now, half_open_for_) : (clock::time_point::max)();
    counts_.restart(generation);
    until_.store(until, std::memory_order_relaxed);
    word_.store(make(to, generation), std::memory_order_release);  // B3
    if (state_of(seen) != to || cause != breaker_cause::by_hand)
        hub_.post({state_of(seen), to, cause, now, led_here.calls, led_here.failed, led_here.slow});
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
    else if (closed_at_ != (clock::time_point::max)()) o.trip.healthy_for = now - closed_at_;
    ++opened_;
    enter(breaker_state::open, cause, now, (clock::time_point::max)(), led_here);
    planning_ = true;
    o.generation = generation_of(word_.load(std::memory_order_relaxed));
}

/// Makes the transition that time has brought.
inline void circuit_breaker::core::pass_time(clock::time_point now, opening& o) noexcept {
    const breaker_state s = state_of(word_.load(std::memory_order_relaxed));
    if (s == breaker_state::open && !planning_ && now >= until_.load(std::memory_order_relaxed))
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
        if (generation_of(word_.load(std::memory_order_relaxed)) == o.generation && planning_) {
            planning_ = false;
            last_open_ = d;
            until_.store(later(o.trip.at, d), std::memory_order_relaxed);
        }
    }
    hub_.deliver();
}

inline void circuit_breaker::core::by_hand(breaker_state to, clock::time_point until, bool again) noexcept {
    {
        const detail::spin_guard guard(lock_);
        const breaker_state from = state_of(word_.load(std::memory_order_relaxed));
        if (from == to && to == breaker_state::open) {
            planning_ = false;
            until_.store(until, std::memory_order_relaxed);
        } else if (from != to || again) {
            enter(to, breaker_cause::by_hand, clock::now(), until, {});
        }
    }
    hub_.deliver();
}

inline void circuit_breaker::core::restore(const saved_state& saved, clock::duration ago) noexcept {
    const clock::time_point now = clock::now();
    const clock::duration left = ago < saved.open_left ? saved.open_left - ago : clock::duration::zero();
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
            refused_forced_.fetch_add(1, std::memory_order_relaxed);
            if (why != nullptr) *why = refusal_;
            return permit();
        }
        if (s != breaker_state::open && s != breaker_state::half_open) return permit(this, seen, begin());
        const clock::time_point now = clock::now();
        if (refuses(seen, now)) {
            (s == breaker_state::open ? refused_ : refused_half_open_).fetch_add(1, std::memory_order_relaxed);
            if (why != nullptr) {
                *why = refusal_;
                const clock::time_point until = until_.load(std::memory_order_relaxed);
                if (s == breaker_state::open && until != (clock::time_point::max)()) why->retry_after = until - now;
            }
            return permit();
        }
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
                    renew_until();
                    word_.store(word + one_probe, std::memory_order_release);  // B3
                    got = permit(this, make(breaker_state::half_open, generation_of(word)) |
                                           static_cast<std::uint64_t>(place) << probes_shift, now);
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
        pass_time(now, o);
        const std::uint32_t place = places_of(admitted);
        if (generation_of(word_.load(std::memory_order_relaxed)) != generation_of(admitted) ||
            !probes_[place].out || probes_[place].since != since) {
            late = true;  // B2, B5
        } else if (v > verdict::failure || now >= later(since, lease_)) {
            late = v <= verdict::failure;
            free_place(place);
        } else {
            probes_[place].out = false;
            const bool slow = now - since > slow_call_;
            ++(v == verdict::failure ? bad_ : good_);
            ++(slow ? slow_ : fast_);
            const detail::call_tally t{good_ + bad_, bad_, slow_};
            if (bad_ >= bad_to_open_ || slow_ >= slow_to_open_)
                open(breaker_cause::probes_failed, now, t, o);
            else if (good_ + bad_to_open_ > half_open_calls_ && fast_ + slow_to_open_ > half_open_calls_)
                enter(breaker_state::closed, breaker_cause::probes_passed, now, {}, t);
        }
    }
    finish(o);
    if (v > verdict::failure) uncounted(v);
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
        if (state_of(seen) == breaker_state::open && !planning_ && until > now) s.retry_after = until - now;
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
    s.rejected_half_open = refused_half_open_.load(std::memory_order_relaxed);
    s.rejected_forced = refused_forced_.load(std::memory_order_relaxed);
    s.rejected = refused_.load(std::memory_order_relaxed) + s.rejected_half_open + s.rejected_forced;
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

// --- the doors ---------------------------------------------------------------------------------------------------

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
                          std::to_string(static_cast<int>(saved.state)), "the states of breaker_state");
    core_->restore(saved, ago);
}

template <class Sink>
void circuit_breaker::report(Sink& sink) const {
    static constexpr std::string_view names[] = {"closed", "open", "half_open", "forced_open", "disabled",
                                                 "metrics_only"};
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
