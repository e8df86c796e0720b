// SPDX-License-Identifier: MIT
#pragma once

// What a circuit breaker consists of. Included at the end of circuit_breaker.hpp.

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/breaker/detail/count_log.hpp>
#include <cordon/breaker/detail/event_hub.hpp>
#include <cordon/breaker/detail/time_log.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/detail/split_counts.hpp>
#include <cordon/core/detail/tick_clock.hpp>

#include <atomic>
#include <cstdint>
#include <memory>
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
// B3 The logs begin anew, and until_ is written, before word_ (release): whoever reads the word (acquire) and belongs
//    to the new generation finds both.
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
        if (state_of(seen) == breaker_state::closed) [[likely]]
            return permit(this, seen, begin());
        return admit_slowly(why);
    }
    [[nodiscard]] permit admit_if_closed() noexcept {
        const std::uint64_t seen = word_.load(std::memory_order_acquire);  // B3
        return state_of(seen) == breaker_state::closed ? permit(this, seen, begin()) : permit();
    }
    void settle(std::uint64_t admitted, clock::time_point since, verdict v) noexcept {
        if (!only_counts_ || v != verdict::success || state_of(admitted) != breaker_state::closed)
            return settle_fully(admitted, since, v);
        const std::uint64_t seen = word_.load(std::memory_order_acquire);
        if (((seen ^ admitted) >> generation_shift) != 0) [[unlikely]]
            return stale();  // B2
        const std::uint64_t n = counts_.record(generation_of(admitted), false, false);
        if (n == detail::count_log::refused) [[unlikely]]
            return stale();
        if (n == min_calls_) [[unlikely]]
            judge(admitted, {}, false);
    }
    CORDON_NOINLINE void settle_fully(std::uint64_t admitted, clock::time_point since, verdict v) noexcept {
        const std::uint64_t seen = word_.load(std::memory_order_acquire);
        if (state_of(admitted) == breaker_state::half_open) [[unlikely]]
            return settle_probe(admitted, since, v);
        if (!counts(v)) return uncounted(v);
        if (state_of(admitted) == breaker_state::disabled) return;
        if (((seen ^ admitted) >> generation_shift) != 0) [[unlikely]]
            return stale();  // B2
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
    static constexpr clock::time_point never = (clock::time_point::max)();  // how long it is open is not decided
    static constexpr clock::time_point last_moment = never - clock::duration(1);
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
        return d >= never - t ? last_moment : t + d;
    }
    static bool reached(std::uint64_t part, std::uint64_t of, double rate) noexcept {
        return static_cast<double>(part) >= (rate - 1e-9) * static_cast<double>(of);  // 0.55 of 100 is 55
    }
    std::uint32_t places_for(double rate) const noexcept {
        std::uint32_t n = 1;
        while (n < half_open_calls_ && !reached(n, half_open_calls_, rate)) ++n;
        return n;
    }

    clock::time_point begin() const noexcept { return times_calls_ ? detail::quick_now() : clock::time_point{}; }
    void uncounted(verdict v) noexcept {
        if (v == verdict::ignored) ignored_.fetch_add(1, std::memory_order_relaxed);
    }
    bool full(std::uint64_t word) const noexcept { return places_of(word) == half_open_calls_; }

    void record(std::uint64_t admitted, clock::time_point since, bool failed) noexcept {
        const clock::time_point now = reads_clock_ ? detail::quick_now() : clock::time_point{};
        const bool slow = now - since > slow_call_;  // never without that option, when it is the longest duration
        if (streak_limit_ != 0) count_in_a_row(admitted, failed);
        if (!of_time_) {
            const std::uint64_t n = counts_.record(generation_of(admitted), failed, slow);
            if (n == detail::count_log::refused) [[unlikely]]
                return stale();
            if (failed || slow || n == min_calls_) [[unlikely]]
                judge(admitted, now, failed);
        } else {
            const std::uint64_t tag = times_.tag_at(generation_of(admitted), now);
            if (fixed_ && tag != times_.tag_at(generation_of(admitted), since)) [[unlikely]] {
                if (failed && streak_limit_ != 0) judge(admitted, now, true);  // that is counted without the window
                return stale();
            }
            if (times_.record(tag, failed, slow)) [[unlikely]]
                judge(admitted, now, failed);
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
    const std::uint32_t streak_limit_;  // 0: none
    const std::uint32_t half_open_calls_;
    const std::uint64_t min_calls_;
    const bool of_time_, fixed_;             // the window: of time; of one bucket
    const bool times_calls_, reads_clock_;   // at the beginning of a call; at its end
    const bool only_counts_;                 // neither time nor failures in a row matter to a call that succeeds
    const double failure_rate_, slow_rate_;  // infinite: not looked at
    std::atomic<clock::time_point> until_{};

    detail::count_log counts_;
    detail::time_log times_;

    enum refusal_kind : std::size_t { while_open, half_open, forced, refusal_kinds };
    alignas(64) detail::split_counts<refusal_kinds> refused_;
    alignas(64) std::atomic<std::uint64_t> stale_{0}, ignored_{0};

    // Calls that failed in a row (lower 32 bits), and in which generation.
    alignas(64) std::atomic<std::uint64_t> streak_{0};

    alignas(64) detail::spin_lock lock_;  // everything from here on is under it
    const std::uint32_t bad_to_open_, slow_to_open_;
    const clock::duration lease_, half_open_for_;
    const std::unique_ptr<probe[]> probes_;
    std::uint64_t outstanding_ = 0;  // permits of half-open that are not settled, from before transitions as well
    std::uint32_t good_ = 0, bad_ = 0, slow_ = 0, fast_ = 0;  // outcomes in half-open
    std::uint32_t attempt_ = 0;
    std::uint64_t opened_ = 0;
    unsigned told_ = 0;                   // causes told in metrics_only, a bit each
    std::atomic<unsigned> told_hint_{0};  // the same, to look at without it
    clock::duration last_open_{0};
    clock::time_point closed_at_ = never;
    clock::time_point half_open_until_ = never;
    open_time open_for_;
    detail::event_hub hub_;
    std::string name_;
    rejection refusal_;
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/breaker/detail/breaker_bodies.hpp>
