// SPDX-License-Identifier: MIT
// The protocols of <cordon/limit/token_bucket.hpp> as two models that walk through every order of small steps: terms
// that change under requests which read them one by one (B2), and one who waits, with its timer, a stop, and a refund
// that makes its time come sooner (T1). Memory orders are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstdint>

using small_steps::step;
using small_steps::walk;

namespace {

// --- terms ------------------------------------------------------------------------------------------------------

enum class terms_protocol : std::int8_t {
    as_built,
    without_bit,      // the word does not say that the terms change
    without_version,  // a word of the same position is the same word again
    hasty_refusal,    // who refuses does not look again
};

/// Two requests of one token, of a bucket of two; and a change of its cost from 1 to 3 units. Time stands still.
struct terms_model {
    static constexpr int actors = 3, setter = 2;
    enum { load, read_cost, read_window, exchange, look_again, ended };
    enum : std::int8_t { open, admitted, refused };

    terms_protocol variant = terms_protocol::as_built;
    std::int8_t at_first = 0;  // the position

    std::int8_t position = at_first, version = 0;
    bool changing = false;
    std::int8_t cost = 1, window = 2;

    struct request {
        std::int8_t at = load, seen = 0, seen_version = 0, cost = 0, window = 0, answer = open;
        auto operator<=>(const request&) const = default;
    };
    std::array<request, 2> requests{};
    std::int8_t setting = 0, settled = 0;
    bool torn = false, wrong_refusal = false;

    auto operator<=>(const terms_model&) const = default;

    bool same(const request& r) const {
        if (position != r.seen || changing) return false;
        return variant == terms_protocol::without_version || version == r.seen_version;
    }
    bool together(const request& r) const { return r.window == 2 * r.cost; }

    step take(int actor) {
        if (actor == setter) return set();
        request& r = requests[static_cast<std::size_t>(actor)];
        switch (r.at) {
            case load:
                if (changing) return step::blocked;  // for the lock
                r.seen = position;
                r.seen_version = version;
                r.at = read_cost;
                return step::moved;
            case read_cost:
                r.cost = cost;
                r.at = read_window;
                return step::moved;
            case read_window:
                r.window = window;
                r.at = r.seen + r.cost > r.window ? look_again : exchange;
                return step::moved;
            case look_again:
                if (same(r) || variant == terms_protocol::hasty_refusal) {
                    r.answer = refused;
                    wrong_refusal = !together(r);
                    r.at = ended;
                } else {
                    r.at = load;
                }
                return step::moved;
            case exchange:
                if (same(r)) {
                    position = static_cast<std::int8_t>(r.seen + r.cost);
                    torn = torn || !together(r) || r.cost != cost;
                    r.answer = admitted;
                    r.at = ended;
                } else {
                    r.at = load;
                }
                return step::moved;
            default: return step::ended;
        }
    }
    step set() {
        switch (setting) {
            case 0:
                settled = position;
                changing = variant != terms_protocol::without_bit;
                break;
            case 1: cost = 3; break;
            case 2: window = 6; break;
            case 3:
                position = static_cast<std::int8_t>(settled * 3);
                changing = false;
                ++version;
                break;
            default: return step::ended;
        }
        ++setting;
        return step::moved;
    }
    const char* broken() const {
        if (torn) return "a request was admitted by terms that do not belong together";
        if (wrong_refusal) return "a request was refused by terms that do not belong together";
        return nullptr;
    }
    const char* unfinished() const {
        int admissions = 0;
        for (const request& r : requests) admissions += r.answer == admitted;
        if (admissions != (at_first == 0 ? 2 : at_first == 1 ? 1 : 0)) return "not as many as there were tokens";
        return position == 6 ? nullptr : "tokens were lost or made";
    }
};

terms_model terms_of(terms_protocol variant, std::int8_t at_first) {
    terms_model m;
    m.variant = variant;
    m.position = m.at_first = at_first;
    return m;
}

// --- one who waits ----------------------------------------------------------------------------------------------

enum class wait_protocol : std::int8_t {
    as_built,
    cancels_locked,      // who hurries holds the lock while it cancels the timer
    does_not_pin,        // a waiter does not wait for who hurries
    does_not_cancel,     // a waiter goes on with its timer armed
    keeps_its_tokens,    // a stopped waiter gives nothing back
};

/// One waiter that has claimed a token for time 2; a refund that makes that time 1; a stop; a clock from 0 to 2.
struct wait_model {
    static constexpr int actors = 6, waiter = 0, timers = 1, stopper = 2, refunder = 3, resumer = 5;
    static constexpr int nobody = -1;
    enum fate : std::int8_t { undecided, done, stopped };

    wait_protocol variant = wait_protocol::as_built;
    bool stops = true, refunds = true;

    std::int8_t lock = nobody, clock = 0;
    std::int8_t claimed = 0;  // tokens that the position is ahead of what was used
    std::int8_t act = 2;
    bool linked = false, armed = false, armed_flag = false, pinned = false, firing = false, gone = false;
    std::int8_t when = 0;
    fate ends = undecided;
    bool leaf_armed = false, touched = false, twice = false;
    std::array<std::int8_t, actors> at{};

    auto operator<=>(const wait_model&) const = default;

    bool locks(int actor) {
        if (lock != nobody) return false;
        lock = static_cast<std::int8_t>(actor);
        return true;
    }
    void arm() {
        if (!linked || armed_flag || pinned) return;
        touched = touched || gone;
        twice = twice || armed;
        armed = armed_flag = true;
        when = act;
    }
    void serve() {
        if (!linked || clock < act) return;
        linked = false;
        if (ends == undecided) ends = done;
        else --claimed;  // a stop has won: back
    }
    /// What leaves the queue: the steps of dequeue(), by the waiter itself or by who stops it.
    step leave(int actor, std::int8_t from) {
        std::int8_t& a = at[static_cast<std::size_t>(actor)];
        switch (a - from) {
            case 0:
                if (!locks(actor)) return step::blocked;
                serve();
                if (linked) {
                    linked = false;
                    if (variant != wait_protocol::keeps_its_tokens) --claimed;
                }
                break;
            case 1:  // T1: gives the lock up and comes again while it is pinned
                lock = nobody;
                if (pinned && variant != wait_protocol::does_not_pin) {
                    a = from;
                    --a;  // taken up below
                }
                break;
            case 2:
                if (firing) return step::blocked;
                if (variant != wait_protocol::does_not_cancel) armed = false;
                gone = true;
                break;
            default: return step::ended;
        }
        ++a;
        return step::moved;
    }

    step take(int actor) {
        std::int8_t& a = at[static_cast<std::size_t>(actor)];
        switch (actor) {
            case waiter:
                switch (a) {
                    case 0:
                        if (!locks(waiter)) return step::blocked;
                        ++claimed;
                        linked = true;
                        serve();
                        arm();
                        break;
                    case 1: lock = nobody; break;
                    case 2:
                        leaf_armed = ends == undecided;
                        if (!leaf_armed) {  // ended while it began: start() goes on with it
                            at[resumer] = 1;
                            ++a;
                            return step::moved;
                        }
                        break;
                    default: return step::ended;
                }
                ++a;
                return step::moved;
            case resumer:  // the waiter's executor, or start()
                if (a == 0) {
                    if (!leaf_armed || ends == undecided) return step::ended;
                    if (ends == stopped) return step::ended;  // who stops it takes it out
                    a = 1;
                }
                if (a == 1 && pinned && lock == nobody && variant != wait_protocol::does_not_pin && !linked)
                    return step::blocked;
                return leave(resumer, 1);
            case timers:
                switch (a) {
                    case 0:
                        if (!armed) return step::ended;
                        if (clock < when) return step::blocked;
                        touched = touched || gone;
                        armed = false;
                        firing = true;
                        break;
                    case 1:
                        if (!locks(timers)) return step::blocked;
                        touched = touched || gone;
                        armed_flag = false;
                        serve();
                        arm();
                        break;
                    case 2: lock = nobody; break;
                    default:
                        firing = false;
                        a = -1;
                }
                ++a;
                return step::moved;
            case stopper:
                if (!stops) return step::ended;
                if (a == 0) {
                    if (at[waiter] == 0) return step::blocked;  // nobody to stop yet
                    if (ends != undecided) {
                        a = 9;
                        return step::moved;
                    }
                    ends = stopped;
                    a = leaf_armed ? std::int8_t{1} : std::int8_t{9};
                    return step::moved;
                }
                if (a == 9) return step::ended;
                if (a == 1 && pinned && lock == nobody && variant != wait_protocol::does_not_pin && !linked)
                    return step::blocked;
                return leave(stopper, 1);
            case refunder:
                if (!refunds) return step::ended;
                switch (a) {
                    case 0:
                        if (at[waiter] == 0) return step::blocked;
                        if (!locks(refunder)) return step::blocked;
                        act = 1;
                        if (linked && armed_flag && !pinned && when > act) {
                            pinned = true;
                            if (variant != wait_protocol::cancels_locked) lock = nobody;
                            break;
                        }
                        arm();
                        a = 2;
                        break;
                    case 1:
                        if (firing) return step::blocked;
                        touched = touched || gone;
                        armed = false;
                        break;
                    case 2:
                        if (variant != wait_protocol::cancels_locked && !locks(refunder)) return step::blocked;
                        touched = touched || gone;
                        pinned = armed_flag = false;
                        arm();
                        break;
                    case 3: lock = nobody; break;
                    default: return step::ended;
                }
                ++a;
                return step::moved;
            default:  // time
                if (clock == 2) return step::ended;
                ++clock;
                return step::moved;
        }
    }
    const char* broken() const {
        if (touched) return "a waiter that has gone on was touched";
        if (twice) return "a timer was armed twice";
        if (gone && armed) return "a waiter has gone on with its timer armed";
        return nullptr;
    }
    const char* unfinished() const {
        if (at[waiter] != 0 && ends == undecided) return "the waiter sleeps on";
        if (at[waiter] != 0 && !gone) return "the waiter has not gone on";
        if (lock != nobody) return "the lock was not given back";
        return claimed == (ends == done ? 1 : 0) ? nullptr : "a token was lost or made";
    }
};

wait_model wait_of(wait_protocol variant, bool stops = true, bool refunds = true) {
    wait_model m;
    m.variant = variant;
    m.stops = stops;
    m.refunds = refunds;
    return m;
}

}  // namespace

TEST_CASE("in every order of small steps a request is decided by terms that belong together",
          "[limit][token_bucket][model]") {
    for (std::int8_t at_first = 0; at_first <= 2; ++at_first) {
        INFO("position " << int{at_first});
        const auto walked = walk(terms_of(terms_protocol::as_built, at_first));
        INFO(walked.fault);
        CHECK(walked.fault.empty());
        CHECK(walked.endings > 0);
        CHECK(walked.states > 100);
    }
}

TEST_CASE("each part of the protocol of the terms is needed", "[limit][token_bucket][model]") {
    CHECK_FALSE(walk(terms_of(terms_protocol::without_bit, 1)).fault.empty());
    CHECK_FALSE(walk(terms_of(terms_protocol::without_version, 0)).fault.empty());
    CHECK_FALSE(walk(terms_of(terms_protocol::hasty_refusal, 1)).fault.empty());
}

TEST_CASE("in every order of small steps a waiter is served or stopped, and its timer is left by nobody",
          "[limit][token_bucket][model]") {
    for (const bool stops : {false, true}) {
        for (const bool refunds : {false, true}) {
            const auto walked = walk(wait_of(wait_protocol::as_built, stops, refunds));
            INFO("stops " << stops << ", refunds " << refunds << ": " << walked.fault);
            CHECK(walked.fault.empty());
            CHECK(walked.endings > 0);
            CHECK(walked.states > 20);
        }
    }
}

TEST_CASE("each part of the protocol of the timer is needed", "[limit][token_bucket][model]") {
    for (const wait_protocol broken :
         {wait_protocol::cancels_locked, wait_protocol::does_not_pin, wait_protocol::does_not_cancel,
          wait_protocol::keeps_its_tokens}) {
        INFO("variant " << static_cast<int>(broken));
        CHECK_FALSE(walk(wait_of(broken)).fault.empty());
    }
}
