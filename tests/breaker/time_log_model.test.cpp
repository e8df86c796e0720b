// SPDX-License-Identifier: MIT
// The words of <cordon/breaker/detail/time_log.hpp> as models: a bucket that a late call of an old generation and calls
// of the present one write to (T1, T2, T5), and one that fills up while its callers look (T3, T4); and the breaker's
// count of failures in a row. In every order. Memory orders are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

using small_steps::fault_of;
using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

template <class Model, class Protocol>
bool says(Protocol variant, const char* what) {
    const std::string fault = fault_of<Model>(variant);
    UNSCOPED_INFO(fault);
    return fault.find(what) != std::string::npos;
}

// --- a bucket ---------------------------------------------------------------------------------------------------

enum class writing : std::int8_t {
    as_built,
    overwrites_newer,     // a late call begins its bucket anew, although another has begun since (T1)
    adds_to_newer,        // a late call is added to the count that is there (T1)
    clears_and_adds,      // begins a bucket by a store, and counts by an addition (T1)
    without_generation,   // the tag is the time alone (T2)
    counts_all_failures,  // also of calls that found the bucket full (T5)
};

/// Three calls of generation 1 in one bucket with room for two, of which two fail, and a late one of generation 0.
struct bucket_model {
    static constexpr int actors = 4, late = 0, succeeding = 3;
    static constexpr std::int8_t full = 2, time = 1, ring = 2;  // a window is a whole ring
    enum : std::int8_t { look, exchange, add, gone };
    struct word {
        std::int8_t tag = 0, count = 0, foreign = 0;  // foreign: those of the count that belong elsewhere
        auto operator<=>(const word&) const = default;
    };

    writing variant = writing::as_built;
    std::array<word, 2> words{};  // calls, failed
    std::array<std::int8_t, actors> pc{}, which{};
    std::array<word, actors> seen{};
    std::int8_t counted = 0, counted_failed = 0;  // calls of generation 1 that were told so

    auto operator<=>(const bucket_model&) const = default;

    const char* broken() const {
        for (const word& w : words)
            if (w.tag == tag_of(1) && w.foreign != 0) return "a call is in the window of another generation (T2)";
        if (words[1].tag == tag_of(1) && words[1].count > counted_failed) return "one that was not counted failed (T5)";
        return nullptr;
    }
    const char* unfinished() const {
        if (words[0].tag != tag_of(1) || words[0].count != std::min(counted, full)) return "a call is lost (T1)";
        return words[1].tag == tag_of(1) && words[1].count == counted_failed ? nullptr : "a failure is lost (T1)";
    }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        if (pc[me] == gone) return step::ended;
        word& w = words[static_cast<std::size_t>(which[me])];
        const std::int8_t mine = tag_of(who != late);
        const auto foreign = static_cast<std::int8_t>(who == late);
        switch (pc[me]) {
            case look: {
                seen[me] = w;
                const bool same = is_same(w, mine), newer = w.tag > mine && w.count != 0;
                if (same && w.count == full) return not_counted(me);
                if (!same && newer && variant != writing::overwrites_newer) return not_counted(me);
                if (!same && variant == writing::clears_and_adds) {
                    w = {mine, 0, 0};
                    return go(pc[me], add);
                }
                return go(pc[me], variant == writing::clears_and_adds ? add : exchange);
            }
            case exchange: {
                if (w != seen[me]) return go(pc[me], look);
                if (!is_same(w, mine)) w = {mine, 0, 0};
                return count(me, w, foreign);
            }
            default: return count(me, w, foreign);
        }
    }

private:
    std::int8_t tag_of(int generation) const {
        return static_cast<std::int8_t>(variant == writing::without_generation ? time : time + generation * ring);
    }
    bool is_same(const word& w, std::int8_t mine) const {
        return w.tag == mine || (variant == writing::adds_to_newer && w.tag > mine && w.count != 0);
    }
    step count(std::size_t me, word& w, std::int8_t foreign) {
        ++w.count;
        w.foreign = static_cast<std::int8_t>(w.foreign + foreign);
        if (which[me]++ != 0) return go(pc[me], gone);
        if (me != late) ++counted;
        if (me != late && me != succeeding) ++counted_failed;
        return go(pc[me], me == succeeding ? gone : look);
    }
    step not_counted(std::size_t me) {
        if (which[me] != 0 || variant != writing::counts_all_failures || me == late || me == succeeding)
            return go(pc[me], gone);
        which[me] = 1;
        return go(pc[me], look);
    }
};

// --- a look -----------------------------------------------------------------------------------------------------

enum class looking : std::int8_t {
    as_built,
    successes_never_look,    // (T4)
    says_few_late,           // sets few after it has looked (T4)
    always_clears_few,       // whatever it has seen (T4)
    hints_late,              // marks the bucket as one with a failure after it has looked
    looks_before_it_counts,  // a failure is counted after the look (T3)
};

/// Two calls that fail and one that succeeds in one bucket; the rate is a half, and the minimum three calls.
struct look_model {
    static constexpr int actors = 3, failing = 2, min_calls = 3;
    enum : std::int8_t { count, fail, hint, say_few, read_calls, read_failed, end, late, ask_hint, ask_few, gone };

    looking variant = looking::as_built;
    std::int8_t calls = 0, failed = 0;
    bool bad = false, few = false, reached = false;
    std::array<std::int8_t, actors> pc{}, mine{}, seen_calls{}, seen_failed{};

    auto operator<=>(const look_model&) const = default;

    const char* broken() const { return nullptr; }
    const char* unfinished() const { return reached ? nullptr : "the rate was reached, and nobody saw it"; }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        const bool fails = who < failing;
        switch (pc[me]) {
            case count:
                mine[me] = ++calls;
                if (!fails) return go(pc[me], ask_hint);
                return go(pc[me], variant == looking::looks_before_it_counts ? hint : fail);
            case fail:
                ++failed;
                if (variant == looking::looks_before_it_counts) return go(pc[me], gone);
                return go(pc[me], variant == looking::hints_late ? say_few : hint);
            case hint: bad = true; return go(pc[me], say_few);
            case say_few:
                if (variant != looking::says_few_late) few = true;
                return go(pc[me], read_calls);
            case read_calls: seen_calls[me] = calls; return go(pc[me], read_failed);
            case read_failed: seen_failed[me] = failed; return go(pc[me], end);
            case end: {
                const bool enough = seen_calls[me] >= min_calls;
                if (enough || variant == looking::always_clears_few) few = false;
                else few = true;  // for says_few_late: as built it is
                reached = reached || (enough && 2 * seen_failed[me] >= seen_calls[me]);
                return go(pc[me], fails ? late : gone);
            }
            case late:
                if (variant == looking::hints_late) bad = true;
                return go(pc[me], variant == looking::looks_before_it_counts ? fail : gone);
            case ask_hint:
                if (!bad || variant == looking::successes_never_look) return go(pc[me], gone);
                return go(pc[me], mine[me] == 1 ? say_few : ask_few);
            case ask_few: return go(pc[me], few ? say_few : gone);
            default: return step::ended;
        }
    }

private:
};

// --- failures in a row ------------------------------------------------------------------------------------------

enum class streak : std::int8_t {
    as_built,
    stores,           // writes what it made of what it read, without an exchange
    late_ones_count,  // a call of an old generation begins a row of its own
    any_generation,   // adds to the row that is there
};

/// Two calls of generation 1 that fail and one that succeeds, and one of generation 0 that fails late.
struct streak_model {
    static constexpr int actors = 4, late = 0, succeeding = 3;
    enum : std::int8_t { look, exchange, gone };
    struct word {
        std::int8_t generation = 0, row = 0;
        auto operator<=>(const word&) const = default;
    };

    streak variant = streak::as_built;
    word now{}, truth{1, 0};  // truth: the row of generation 1, by the order of the changes
    std::array<word, actors> seen{}, next{};
    std::array<std::int8_t, actors> pc{};

    auto operator<=>(const streak_model&) const = default;

    const char* broken() const {
        const std::int8_t row = now.generation == 1 ? now.row : std::int8_t{0};
        return row == truth.row ? nullptr : "the row is not that of its generation";
    }
    const char* unfinished() const { return nullptr; }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        const std::int8_t mine = who == late ? 0 : 1;
        switch (pc[me]) {
            case look: {
                seen[me] = now;
                const bool same = now.generation == mine || variant == streak::any_generation;
                if (!same && now.generation > mine && variant != streak::late_ones_count) return go(pc[me], gone);
                if (who == succeeding && (!same || now.row == 0)) return go(pc[me], gone);
                const std::int8_t generation = same ? now.generation : mine;
                next[me] = who == succeeding ? word{generation, 0}
                                             : word{generation, static_cast<std::int8_t>(same ? now.row + 1 : 1)};
                return go(pc[me], exchange);
            }
            case exchange:
                if (now != seen[me] && variant != streak::stores) return go(pc[me], look);
                now = next[me];
                if (who == succeeding) truth.row = 0;
                else if (who != late) ++truth.row;
                return go(pc[me], gone);
            default: return step::ended;
        }
    }

private:
};

}  // namespace

TEST_CASE("in every order of steps a bucket holds the calls of its time and generation, and no others",
          "[breaker][circuit_breaker][model]") {
    const auto walked = walk(bucket_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 500);
    CHECK(says<bucket_model>(writing::overwrites_newer, "is lost"));
    CHECK(says<bucket_model>(writing::adds_to_newer, "another generation"));
    CHECK(says<bucket_model>(writing::clears_and_adds, "is lost"));
    CHECK(says<bucket_model>(writing::without_generation, "another generation"));
    CHECK(says<bucket_model>(writing::counts_all_failures, "not counted"));
}

TEST_CASE("in every order of steps somebody sees that the rate was reached, although most successes do not look",
          "[breaker][circuit_breaker][model]") {
    const auto walked = walk(look_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 1'000);
    for (const looking p : {looking::successes_never_look, looking::says_few_late, looking::always_clears_few,
                            looking::hints_late, looking::looks_before_it_counts}) {
        CAPTURE(static_cast<int>(p));
        CHECK(says<look_model>(p, "nobody saw it"));
    }
}

TEST_CASE("in every order of steps failures in a row are those of one generation",
          "[breaker][circuit_breaker][model]") {
    const auto walked = walk(streak_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 100);
    for (const streak p : {streak::stores, streak::late_ones_count, streak::any_generation}) {
        CAPTURE(static_cast<int>(p));
        CHECK(says<streak_model>(p, "not that of its generation"));
    }
}
