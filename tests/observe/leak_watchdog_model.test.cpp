// SPDX-License-Identifier: MIT
// The word of <cordon/observe/leak_watchdog.hpp> as a model: the run of the item, the fire of the timer and the
// destructor of the watchdog, in every order. `release`, `acquire` and the like are not part of it: for those there are
// stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum word : std::int8_t { queued, busy, arming, fired, waiting, ended };
enum class protocol : std::int8_t {
    as_built,
    arms_after_waiting,   // the run sets waiting before it arms the timer
    closes_without_wait,  // close() does not wait for a run
    fire_ignores_closed,  // fire submits although the watchdog is gone
};

struct watch_model {
    static constexpr int actors = 4;
    enum { runner, other_runner, firer, closer };  // two threads may run the item, one after the other

    protocol variant = protocol::as_built;
    bool from_handler = false;  // the watchdog is destroyed by its own handler
    std::int8_t looks = 3;      // that the run makes at most, so that there is an end

    std::int8_t word_ = queued;
    bool closed = false;
    bool submitted = true, armed = false, firing = false;
    bool alive = true, watchdog_gone = false, late_call = false, touched_dead = false, twice = false;
    std::int8_t references = 2, inside = 0;
    std::int8_t pc[actors] = {};

    auto operator<=>(const watch_model&) const = default;

    step take(int who) {
        switch (who) {
            case firer: return fire();
            case closer: return from_handler ? step::ended : close(closer);
            default: return run(who);
        }
    }
    const char* broken() const {
        if (touched_dead) return "what has been destroyed was touched";
        if (late_call) return "the handler was called after the destructor";
        if (twice) return "submitted or armed twice";
        return nullptr;
    }
    const char* unfinished() const {
        if (alive) return "never destroyed";
        if (armed || submitted) return "something is still to come";
        return nullptr;
    }

private:
    void touch() { touched_dead = touched_dead || !alive; }
    bool swap(std::int8_t from, std::int8_t to) {
        touch();
        if (closed || word_ != from) return false;
        word_ = to;
        return true;
    }
    void submit() {
        touch();
        twice = twice || submitted;
        submitted = true;
    }
    void release() {
        touch();
        if (--references == 0) alive = false;
    }

    step run(int who) {
        switch (pc[who]) {
            case 0:
                if (!submitted) return !alive || word_ == ended ? step::ended : step::blocked;
                submitted = false;
                return go(pc[who], 1);
            case 1: return go(pc[who], swap(queued, busy) ? 2 : 20);
            case 2:  // looks; each handler call is after a look at closed, and the destructor may come between the two
                touch();
                return go(pc[who], closed ? 4 : 3);
            case 3:
                touch();
                late_call = late_call || watchdog_gone;
                if (from_handler && !closed) {
                    closed = true;  // close() finds busy and itself: only its reference goes
                    watchdog_gone = true;
                    release();
                }
                return go(pc[who], 4);
            case 4:
                if (looks > 0) --looks;
                return go(pc[who], swap(busy, arming) ? (variant == protocol::arms_after_waiting ? 12 : 5) : 20);
            case 5:
                touch();
                twice = twice || armed;
                armed = true;
                return go(pc[who], 6);
            case 6: return go(pc[who], swap(arming, waiting) ? 0 : 7);
            case 7:
                if (!swap(fired, queued)) return go(pc[who], 8);
                submit();
                return go(pc[who], 0);
            case 8:  // cancel: unlinks, or waits for a fire
                touch();
                armed = false;
                if (firing) return step::blocked;
                return go(pc[who], 20);
            case 12: return go(pc[who], swap(arming, waiting) ? 13 : 20);
            case 13:
                touch();
                armed = true;
                return go(pc[who], 0);
            case 20:  // retire
                touch();
                word_ = ended;
                return go(pc[who], 21);
            case 21: release(); return go(pc[who], 99);
            default: return step::ended;
        }
    }

    step fire() {
        switch (pc[firer]) {
            case 0:
                if (!armed) return !alive || word_ == ended ? step::ended : step::blocked;
                if (looks == 0 && !closed && pc[closer] == 0 && !from_handler) return step::blocked;  // time stands
                armed = false;
                firing = true;
                return go(pc[firer], 1);
            case 1:
                touch();
                if (closed && variant != protocol::fire_ignores_closed) return go(pc[firer], 3);
                if (word_ == arming) {
                    word_ = fired;
                    return go(pc[firer], 3);
                }
                word_ = queued;
                return go(pc[firer], 2);
            case 2: submit(); return go(pc[firer], 3);
            default: firing = false; return go(pc[firer], 0);
        }
    }

    step close(int who) {
        switch (pc[who]) {
            case 0:
                touch();
                closed = true;
                if (word_ == waiting) return go(pc[who], 1);
                return go(pc[who], word_ == queued || variant == protocol::closes_without_wait ? 4 : 3);
            case 1:
                touch();
                armed = false;
                if (firing) return step::blocked;
                word_ = ended;
                return go(pc[who], 2);
            case 2: release(); return go(pc[who], 4);
            case 3:
                if (word_ != ended) return step::blocked;
                return go(pc[who], 4);
            case 4: watchdog_gone = true; release(); return go(pc[who], 99);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(protocol variant, bool from_handler) {
    watch_model m;
    m.variant = variant;
    m.from_handler = from_handler;
    return walk(m);
}

}  // namespace

TEST_CASE("in every order of run, fire and destructor one of them retires, and nothing is called or touched later",
          "[observe][leak_watchdog]") {
    for (const bool from_handler : {false, true}) {
        const auto walked = walk_through(protocol::as_built, from_handler);
        INFO(walked.fault);
        CHECK(walked.fault.empty());
        CHECK(walked.endings > 0);
        CHECK(walked.states > (from_handler ? 5U : 100U));
    }
}

TEST_CASE("the model finds what goes wrong if the word is used otherwise", "[observe][leak_watchdog]") {
    for (const protocol wrong :
         {protocol::arms_after_waiting, protocol::closes_without_wait, protocol::fire_ignores_closed}) {
        CHECK_FALSE(walk_through(wrong, false).fault.empty());
    }
}
