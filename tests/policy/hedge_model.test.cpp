// SPDX-License-Identifier: MIT
// How the attempts of <cordon/policy/detail/hedge_operation.hpp> end (H1 to H4) as a model: a call and its copy, the
// timer that sends another, and a stop, in every order, whatever each attempt ends with. A critical section is one
// step.
#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>

using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    counts_later,        // an attempt looks whether it decides, and counts itself out in another section
    counts_first,        // who decides counts itself out before it has cancelled the timer and stopped the others
    leaves_the_timer,    // who decides does not cancel the timer
    does_not_wait,       // it does, but not until a fire has ended
    lists_in_any_case,   // the timer does not heed over_
    counts_when_it_runs  // a copy is counted when it begins
};
enum class ending : std::int8_t { value, failure, stop };  // an attempt that never ends is stopped

struct hedge_model {
    static constexpr int attempts = 3, timer = 3, stopper = 4, actors = 5;
    enum : std::int8_t { absent, runs, looks, cancels, stops, counts, finishes, ended };      // an attempt
    enum : std::int8_t { waits, lists, submits, arms, returns };                              // the timer

    protocol variant = protocol::as_built;
    std::array<ending, attempts> how{};
    std::array<std::int8_t, attempts> at{runs, runs, absent};  // the call, a copy, and the one that the timer sends
    std::array<bool, attempts> told_to_stop{};
    std::int8_t timer_at = waits;
    bool armed = true, stop_requested = false;
    bool over = false, last_listed = false, won = false;
    std::int8_t running = 2, finished = 0;
    bool touched_afterwards = false, gone_too_early = false, sent_in_vain = false;

    auto operator<=>(const hedge_model&) const = default;

    step take(int actor) {
        if (actor == timer) return take_timer();
        if (actor == stopper) {
            if (stop_requested) return step::ended;
            stop_requested = true;
            return step::moved;
        }
        return take_attempt(static_cast<std::size_t>(actor));
    }
    step take_attempt(std::size_t me) {
        std::int8_t& next = at[me];
        if (next == absent || next == ended) return step::ended;
        if (next == runs) {
            if (how[me] == ending::stop && !stop_requested && !told_to_stop[me]) return step::ended; 
            if (variant == protocol::counts_when_it_runs && me == 2) ++running;
            next = looks;
            return step::moved;
        }
        touched_afterwards = touched_afterwards || finished != 0;
        switch (next) {
            case looks: {
                bool decides = false;
                if (!over) {
                    won = won || how[me] == ending::value;
                    over = decides = won || running == 1;
                }
                next = decides ? cancels : counts;
                if (decides || variant == protocol::counts_later) break;
                count_out(next);
                break;
            }
            case cancels:
                if (variant == protocol::counts_first) {
                    next = counts;
                    break;
                }
                if (variant != protocol::leaves_the_timer && !cancelled()) return step::blocked;
                next = stops;
                break;
            case stops:
                for (std::size_t other = 0; other < attempts; ++other)
                    if (won && other != me && (other != 2 || last_listed)) told_to_stop[other] = true;
                next = counts;
                break;
            case counts: count_out(next); break;
            default:  // finishes
                ++finished;
                gone_too_early = armed || timer_at != waits;
                next = ended;
        }
        return step::moved;
    }
    void count_out(std::int8_t& next) { next = --running == 0 ? finishes : ended; }
    bool cancelled() {
        armed = false;
        return timer_at == waits || variant == protocol::does_not_wait;
    }
    step take_timer() {
        if (timer_at == waits && !armed) return step::ended;
        touched_afterwards = touched_afterwards || finished != 0;
        switch (timer_at) {
            case waits:
                armed = false;
                timer_at = stop_requested || told_to_stop[0] ? returns : lists;
                break;
            case lists:
                if (over && variant != protocol::lists_in_any_case) {
                    timer_at = returns;
                    break;
                }
                last_listed = true;
                sent_in_vain = over;
                if (variant != protocol::counts_when_it_runs) ++running;
                timer_at = submits;
                break;
            case submits:
                at[2] = runs;
                timer_at = returns;  // there is no other copy to send
                break;
            default: timer_at = waits;
        }
        return step::moved;
    }
    const char* broken() const {
        if (touched_afterwards) return "somebody uses what is gone";
        if (gone_too_early) return "it ends while its timer is armed or fires";
        if (sent_in_vain) return "a copy is sent although it is decided";
        return finished > 1 ? "it ends twice" : nullptr;
    }
    const char* unfinished() const { return finished == 1 && running == 0 ? nullptr : "it never ends"; }
};

/// The first fault, with any three endings.
small_steps::walked walk_variant(protocol p) {
    small_steps::walked all;
    for (int n = 0; n < 27 && all.fault.empty(); ++n) {
        hedge_model start;
        start.variant = p;
        start.how = {static_cast<ending>(n % 3), static_cast<ending>(n / 3 % 3), static_cast<ending>(n / 9)};
        const auto walked = walk(start);
        all.states += walked.states;
        all.endings += walked.endings;
        all.fault = walked.fault;
    }
    return all;
}

}  // namespace

TEST_CASE("in every order of steps a hedged call ends once, with its timer at rest", "[policy][hedge][model]") {
    const auto walked = walk_variant(protocol::as_built);
    INFO(walked.fault);
    CHECK(walked.fault.empty());
    CHECK(walked.endings > 27);
    CHECK(walked.states > 1'000);
}

TEST_CASE("without any one of its rules the model of a hedged call finds a fault", "[policy][hedge][model]") {
    for (const auto p : {protocol::counts_later, protocol::counts_first, protocol::leaves_the_timer,
                         protocol::does_not_wait, protocol::lists_in_any_case, protocol::counts_when_it_runs}) {
        INFO(static_cast<int>(p));
        CHECK_FALSE(walk_variant(p).fault.empty());
    }
}
