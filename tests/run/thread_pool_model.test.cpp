// SPDX-License-Identifier: MIT
// How the workers of <cordon/run/thread_pool.hpp> search, sleep and are woken (P1 to P4), and the ring of
// <cordon/run/detail/work_ring.hpp> (Q1, Q2), as models that are walked through in every order of their steps. Memory
// orders are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>
#include <string>
#include <utility>

using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    looks_before_it_enters,   // a worker looks at the queues before it says that it sleeps
    looks_before_it_queues,   // who submits looks at the state before it queues
    ends_search_blindly,      // the last one to end its search does not look whether there is more
    leaves_nobody_the_time,   // ... nor whether there is a timekeeper
    arms_for_nobody,          // who arms an earlier timer appoints no timekeeper
    keeps_one_time,           // a timekeeper does not look again when it is told of an earlier timer
};

/// What happens: items from outside, the first of which may spawn others, and go on until the timer has fired, or, if
/// there is none, all others have run; a timer for time 2, before which another one, for time 1, may be armed and
/// cancelled.
struct scene {
    std::int8_t items = 0;
    std::int8_t spawns = 0;
    bool holds = false;
    bool timer = false;
    bool cancelled_timer = false;

    auto operator<=>(const scene&) const = default;
};

template <int workers>
struct pool_model {
    static constexpr int actors = workers + 3;
    enum { submitter = workers, armer, clock };
    static constexpr std::int8_t nobody = -1, never = 9;
    // Where a worker is.
    enum : std::int8_t {
        next, looks, takes, publishes, ends_search, looks_for_more, wakes_more, sees_to_time, begins, goes_on, spawned,
        wakes, enters, looks_at_shared, looks_at_rings, promises, waits
    };

    protocol variant = protocol::as_built;
    scene what;

    std::int8_t sleeping = 0, searching = 0;  // state_
    bool kept = false;
    std::int8_t mutex = nobody;
    std::int8_t top = nobody, below[workers] = {}, timekeeper = nobody;
    bool woken[workers] = {}, notified[workers] = {}, is_searching[workers] = {};
    std::int8_t until[workers] = {};
    std::int8_t shared = 0, ring[workers] = {}, hand[workers] = {};
    bool seen[workers + 1] = {}, holds[workers] = {};
    std::int8_t now = 0, wake_at = never, early = never, timer = never;  // the two timers: their time if armed
    std::int8_t taken = 0, ran = 0, fired = 0, spawns_left = 0;
    std::int8_t pc[actors] = {};

    auto operator<=>(const pool_model&) const = default;

    step take(int who) {
        if (who < workers) return work(who);
        if (who == submitter) return submit();
        if (who == armer) return arm();
        if (!what.timer || now == 2) return step::ended;
        ++now;
        return step::moved;
    }
    const char* broken() const {
        std::int8_t counted = timekeeper != nobody;
        for (std::int8_t w = top; w != nobody; w = below[w]) ++counted;
        if (counted != sleeping) return "state_ does not count those who sleep (P1)";
        if (kept != (timekeeper != nobody)) return "state_ does not say whether there is a timekeeper (P1)";
        return nullptr;
    }
    const char* unfinished() const {
        if (ran != what.items + what.spawns) return "an item is left while all sleep (P2, P3)";
        if (fired != (what.timer ? 1 : 0)) return "a timer is left while all sleep (P4)";
        return nullptr;
    }

private:
    step go(int who, std::int8_t to) {
        pc[who] = to;
        return step::moved;
    }
    step forget(int who, std::int8_t to) {
        seen[who] = false;
        return go(who, to);
    }
    bool anything_queued() const {
        if (shared != 0) return true;
        for (const std::int8_t n : ring)
            if (n != 0) return true;
        return false;
    }
    std::int8_t earliest() const { return early < timer ? early : timer; }

    step work(int w) {
        switch (pc[w]) {
            case next:
                if (is_searching[w]) return go(w, looks);
                if (ring[w] > 0) {
                    --ring[w], hand[w] = 1;
                    return go(w, begins);
                }
                is_searching[w] = true;
                ++searching;
                return go(w, looks);
            case looks:  // look_at_clock()
                if (now >= wake_at) {
                    if (early <= now) early = never;
                    if (timer <= now) timer = never, ++fired;
                    wake_at = earliest();
                }
                return go(w, takes);
            case takes:
                hand[w] = take_some(w);
                if (hand[w] != 0) return go(w, publishes);
                return go(w, variant == protocol::looks_before_it_enters ? looks_at_shared : enters);
            case publishes:
                ring[w] = static_cast<std::int8_t>(ring[w] + hand[w] - 1);
                return go(w, ends_search);
            case ends_search:
                is_searching[w] = false;
                --searching;
                if (searching > 0 || sleeping == 0 || variant == protocol::ends_search_blindly) return go(w, begins);
                seen[w] = kept;
                return go(w, looks_for_more);
            case looks_for_more:
                if (anything_queued()) return forget(w, wakes_more);
                if (seen[w] || variant == protocol::leaves_nobody_the_time) return forget(w, begins);
                return forget(w, sees_to_time);
            case wakes_more: return wake_one(w, begins);
            case sees_to_time: return see_to_time(w, begins);
            case begins:
                hand[w] = 0;
                if (taken++ == 0) spawns_left = what.spawns, holds[w] = what.holds;
                return go(w, goes_on);
            case goes_on:
                if (spawns_left > 0) {
                    --spawns_left;
                    ++ring[w];
                    return go(w, spawned);
                }
                if (holds[w] && (what.timer ? fired == 0 : ran != what.items + what.spawns - 1)) return step::blocked;
                holds[w] = false;
                ++ran;
                return go(w, next);
            case spawned: return go(w, sleeping != 0 && searching == 0 ? wakes : goes_on);
            case wakes: return wake_one(w, goes_on);
            case enters:
                if (mutex != nobody) return step::blocked;
                mutex = static_cast<std::int8_t>(w);
                if (timekeeper == nobody) {
                    timekeeper = static_cast<std::int8_t>(w);
                    kept = true;
                } else {
                    below[w] = top;
                    top = static_cast<std::int8_t>(w);
                }
                is_searching[w] = woken[w] = false;
                ++sleeping, --searching;
                return go(w, variant == protocol::looks_before_it_enters ? promises : looks_at_shared);
            case looks_at_shared:
                if (shared != 0) return look_again(w);
                return go(w, looks_at_rings);
            case looks_at_rings:
                for (const std::int8_t n : ring)
                    if (n != 0) return look_again(w);
                return go(w, variant == protocol::looks_before_it_enters ? enters : promises);
            case promises:
                until[w] = never;
                if (timekeeper == w) until[w] = wake_at = earliest();
                notified[w] = false;
                mutex = nobody;
                return go(w, waits);
            default:  // waits
                if (!notified[w] && until[w] > now) return step::ended;
                if (mutex != nobody) return step::blocked;
                if (!woken[w] && until[w] <= now) wake(w);
                notified[w] = false;
                if (!woken[w]) {
                    if (variant == protocol::keeps_one_time) return step::moved;
                    mutex = static_cast<std::int8_t>(w);
                    return go(w, promises);
                }
                until[w] = 0;
                return go(w, next);
        }
    }
    step look_again(int w) {
        if (variant == protocol::looks_before_it_enters) return go(w, next);
        wake(w);
        mutex = nobody;
        return go(w, next);
    }
    std::int8_t take_some(int w) {
        std::int8_t got = 0;
        if (ring[w] > 0) {
            --ring[w];
            got = 1;
        } else if (shared > 0) {
            got = shared;
            shared = 0;
        } else {
            for (int i = 1; i < workers && got == 0; ++i) {
                std::int8_t& victim = ring[(w + i) % workers];
                got = static_cast<std::int8_t>(victim - victim / 2);
                victim = static_cast<std::int8_t>(victim - got);
            }
        }
        return got;
    }
    void wake(int w) {
        if (timekeeper == w) timekeeper = nobody, kept = false;
        else top = std::exchange(below[w], std::int8_t{0});
        is_searching[w] = woken[w] = notified[w] = true;
        --sleeping, ++searching;
    }
    step wake_one(int who, std::int8_t then) {
        if (mutex != nobody) return step::blocked;
        if (searching == 0) {
            if (top != nobody) wake(top);
            else if (timekeeper != nobody) wake(timekeeper);
        }
        return go(who, then);
    }
    step see_to_time(int who, std::int8_t then) {
        if (mutex != nobody) return step::blocked;
        pc[who] = then;
        if (timekeeper == nobody) {
            if (top == nobody || searching > 0) return step::moved;
            if (variant == protocol::arms_for_nobody && who == armer) return step::moved;
            wake_at = earliest();
            if (earliest() == never) return step::moved;
            timekeeper = top;
            top = std::exchange(below[top], std::int8_t{0});
            kept = true;
        }
        notified[timekeeper] = true;
        return step::moved;
    }

    /// One item after the other: queued, looked after, woken for.
    step submit() {
        if (pc[submitter] == 3 * what.items) return step::ended;
        const std::int8_t then = static_cast<std::int8_t>(pc[submitter] + 1);
        const bool looks_first = variant == protocol::looks_before_it_queues;
        switch (pc[submitter] % 3) {
            case 0:
                if (looks_first) seen[workers] = sleeping != 0 && searching == 0;
                else ++shared;
                return go(submitter, then);
            case 1:
                if (looks_first) ++shared;
                else seen[workers] = sleeping != 0 && searching == 0;
                return go(submitter, then);
            default: return seen[workers] ? wake_one(submitter, then) : go(submitter, then);
        }
    }

    /// Arms for time 1 and cancels, then arms for time 2; each time looks whether somebody has to be told.
    step arm() {
        switch (pc[armer]) {
            case 0:
                if (!what.timer) return step::ended;
                if (!what.cancelled_timer) return go(armer, 4);
                early = 1;
                return go(armer, tells(early) ? 1 : 3);
            case 1: return go(armer, sleeping != 0 ? 2 : 3);
            case 2: return see_to_time(armer, 3);
            case 3: early = never; return go(armer, 4);
            case 4:
                timer = 2;
                return go(armer, tells(timer) ? 5 : 7);
            case 5: return go(armer, sleeping != 0 ? 6 : 7);
            case 6: return see_to_time(armer, 7);
            default: return step::ended;
        }
    }
    bool tells(std::int8_t when) {
        if (when >= wake_at) return false;
        wake_at = when;
        return true;
    }
};

template <int workers>
small_steps::walked walk_through(const scene& s, protocol variant = protocol::as_built) {
    pool_model<workers> m;
    m.variant = variant;
    m.what = s;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of submissions, searches, timers and sleep runs all items and fires all timers",
          "[run][thread_pool]") {
    const auto holds = [](const small_steps::walked& all) {
        CHECK(all.fault == "");
        CHECK(all.endings > 0);
        CHECK(all.states > 100);
    };
    const scene scenes[] = {
        {.items = 1},
        {.items = 2},
        {.items = 1, .spawns = 2},
        {.items = 2, .holds = true},
        {.items = 1, .spawns = 2, .holds = true},
        {.items = 2, .spawns = 1},
        {.timer = true},
        {.timer = true, .cancelled_timer = true},
        {.items = 1, .timer = true},
        {.items = 1, .holds = true, .timer = true},
    };
    for (const scene& s : scenes) {
        CAPTURE(s.items, s.spawns, s.holds, s.timer, s.cancelled_timer);
        holds(walk_through<2>(s));
    }
    holds(walk_through<2>({.items = 1, .holds = true, .timer = true, .cancelled_timer = true}));
    holds(walk_through<3>({.items = 1}));
    holds(walk_through<3>({.timer = true}));
}

TEST_CASE("the walk over the workers' states sees what their invariants are for", "[run][thread_pool]") {
    const auto finds = [](const scene& s, protocol variant, const char* what) {
        const auto all = walk_through<2>(s, variant);
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds({.items = 1}, protocol::looks_before_it_enters, "(P2");
    finds({.items = 1}, protocol::looks_before_it_queues, "(P2");
    finds({.items = 2, .holds = true}, protocol::ends_search_blindly, "waits for ever");
    finds({.items = 1, .holds = true, .timer = true, .cancelled_timer = true}, protocol::leaves_nobody_the_time,
          "waits for ever");
    finds({.items = 1, .holds = true, .timer = true, .cancelled_timer = true}, protocol::arms_for_nobody,
          "waits for ever");
    finds({.timer = true}, protocol::keeps_one_time, "(P4)");
}

// --- the ring -----------------------------------------------------------------------------------------------------

namespace {

enum class ring_protocol : std::int8_t {
    as_built,
    publishes_first,       // tail_ before the slot
    writes_into_full,      // the owner does not look at head_
    reads_afterwards,      // who has moved head_ reads the slot then
    moves_head_blindly,    // a thief stores head_ instead of exchanging it
    positions_come_back,   // head_ is the same again after one round
};

/// An owner that pushes and pops by turns, and thieves that take half.
struct ring_model {
    static constexpr int actors = 3, capacity = 4, half = capacity / 2;
    enum { owner, thief, other_thief };

    ring_protocol variant = ring_protocol::as_built;
    std::int8_t thieves = 1, pushes = 6;

    std::int8_t head = 0, tail = 0, slots[capacity] = {};
    std::int8_t pushed = 0, got[8] = {};  // how often each item was taken
    std::int8_t pc[actors] = {}, seen_head[actors] = {}, seen_tail[actors] = {}, hand[actors][half] = {};

    auto operator<=>(const ring_model&) const = default;

    const char* broken() const {
        if (got[0] != 0) return "what was never pushed was taken (Q3)";
        for (const std::int8_t n : got)
            if (n > 1) return "an item was taken twice (Q2)";
        return nullptr;
    }
    const char* unfinished() const {
        for (int i = 1; i <= pushes; ++i)
            if (got[i] != 1) return "an item was lost (Q1, Q2)";
        return nullptr;
    }
    step take(int who) {
        if (who == owner) return own();
        return who <= thieves ? steal(who) : step::ended;
    }

private:
    step go(int who, std::int8_t to) {
        pc[who] = to;
        return step::moved;
    }
    step begin_again(int who, std::int8_t at) {
        seen_head[who] = seen_tail[who] = hand[who][0] = hand[who][1] = 0;
        return go(who, at);
    }
    std::int8_t& at(int i) { return slots[i % capacity]; }
    void take_in(int who, int n) {
        for (int i = 0; i < n; ++i) ++got[std::exchange(hand[who][i], std::int8_t{0})];
    }
    bool move_head(int who, int n) {
        const bool same = variant == ring_protocol::positions_come_back ? head % capacity == seen_head[who] % capacity
                                                                        : head == seen_head[who];
        if (!same) return false;
        head = static_cast<std::int8_t>(head + n);
        return true;
    }

    step own() {
        const bool first_tail = variant == ring_protocol::publishes_first;
        switch (pc[owner]) {
            case 0:  // push
                if (pushed == pushes) return go(owner, 4);
                seen_head[owner] = head;
                if (tail - head == capacity && variant != ring_protocol::writes_into_full) return go(owner, 4);
                return go(owner, 1);
            case 1:
                if (first_tail) ++tail;
                else at(tail) = static_cast<std::int8_t>(pushed + 1);
                return go(owner, 2);
            case 2:
                if (first_tail) at(tail - 1) = static_cast<std::int8_t>(pushed + 1);
                else ++tail;
                ++pushed;
                return go(owner, pushed % 3 == 0 ? 4 : 0);
            case 4:  // pop
                seen_head[owner] = head;
                if (head == tail) return begin_again(owner, pushed == pushes ? 9 : 0);
                return go(owner, variant == ring_protocol::reads_afterwards ? 6 : 5);
            case 5: hand[owner][0] = at(seen_head[owner]); return go(owner, 6);
            case 6:
                if (!move_head(owner, 1)) return begin_again(owner, 4);
                if (variant == ring_protocol::reads_afterwards) hand[owner][0] = at(seen_head[owner]);
                take_in(owner, 1);
                return begin_again(owner, pushed == pushes ? 4 : 0);
            default: return step::ended;
        }
    }
    step steal(int who) {
        const bool late = variant == ring_protocol::reads_afterwards;
        const int there = seen_tail[who] - seen_head[who], n = there - there / 2;
        switch (pc[who]) {
            case 0: seen_head[who] = head; return go(who, 1);
            case 1:
                seen_tail[who] = tail;
                if (tail == seen_head[who]) return begin_again(who, pc[owner] == 9 ? 9 : 0);
                return go(who, late ? 4 : 2);
            case 2:
                if (n > half) return begin_again(who, 0);  // two values that do not belong together
                hand[who][0] = at(seen_head[who]);
                return go(who, n == 1 ? 4 : 3);
            case 3: hand[who][1] = at(seen_head[who] + 1); return go(who, 4);
            case 4:
                if (variant == ring_protocol::moves_head_blindly) head = static_cast<std::int8_t>(seen_head[who] + n);
                else if (!move_head(who, n)) return begin_again(who, 0);
                if (late) return go(who, 5);
                take_in(who, n);
                return begin_again(who, 0);
            case 5:
                for (int i = 0; i < n; ++i) hand[who][i] = at(seen_head[who] + i);
                take_in(who, n);
                return begin_again(who, 0);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_ring(std::int8_t thieves, std::int8_t pushes,
                              ring_protocol variant = ring_protocol::as_built) {
    ring_model m;
    m.variant = variant;
    m.thieves = thieves;
    m.pushes = pushes;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of pushes, pops and thefts takes each item once", "[run][thread_pool][work_ring]") {
    for (const bool two : {false, true}) {
        const auto all = two ? walk_ring(2, 5) : walk_ring(1, 7);
        CHECK(all.fault == "");
        CHECK(all.endings > 0);
        CHECK(all.states > 100);
    }
}

TEST_CASE("the walk over the ring's states sees what its invariants are for", "[run][thread_pool][work_ring]") {
    for (const auto variant : {ring_protocol::publishes_first, ring_protocol::writes_into_full,
                               ring_protocol::reads_afterwards, ring_protocol::moves_head_blindly,
                               ring_protocol::positions_come_back}) {
        const auto all = walk_ring(1, 7, variant);
        CAPTURE(static_cast<int>(variant));
        INFO(all.fault);
        CHECK(all.fault.find("(Q") != std::string::npos);
    }
}
