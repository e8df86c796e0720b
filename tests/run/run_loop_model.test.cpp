// SPDX-License-Identifier: MIT
// The inbox of <cordon/run/run_loop.hpp>, its sleep and its stop (R1 to R4), as a model: a loop that runs until it is
// stopped and is destroyed as soon as run() has returned, two that post, one that arms an earlier timer, one that stops
// it from elsewhere, in every order. Memory orders are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    looks_before_it_marks,    // the loop looks at timers and stop before it puts asleep into the inbox
    leaves_on_a_timeout,      // and does not ask whether somebody is about to signal
    signals_on_every_post,    // whether or not the loop sleeps
    signals_after_unlocking,  // the signaller has something left to do on the loop after it has given the mutex back
    stops_without_the_mutex,  // a stop from elsewhere stores, then wakes, and nobody waits for it
    wakes_without_the_mark,   // who arms an earlier timer signals without having taken asleep out
};

/// How a scene ends: by an item that stops the loop, which is the last of `posts`, or from elsewhere.
struct scene {
    std::int8_t posts = 0;
    bool timer = false;  // a third actor arms one; its fire counts as one more item
    bool stopper = false;
};

struct loop_model {
    static constexpr int actors = 6;
    enum { loop, poster, other_poster, armer, stopper, clock };
    enum inbox : std::int8_t { null, one, two, both, both_reversed, asleep };  // who posted; newest first
    enum look : std::int8_t { for_ever, until_a_time, not_at_all };

    protocol variant = protocol::as_built;
    std::int8_t posts = 0;
    bool has_timer = false, has_stopper = false;

    std::int8_t inbox_ = null;
    std::int8_t mutex = -1;  // who holds it
    bool signal_ = false;
    std::int8_t stopping_ = 0;  // 1: from here, 2: from elsewhere
    bool timer_armed = false, due = false;
    std::int8_t until = for_ever;
    bool alive = true, touched_dead = false;
    std::int8_t ran = 0, fired = 0, first = 0, owed = 0;
    bool out_of_order = false;
    std::int8_t pc[actors] = {};
    std::int8_t seen[actors] = {};

    auto operator<=>(const loop_model&) const = default;

    step take(int who) {
        switch (who) {
            case loop: return run();
            case poster: return posts > 0 ? post(poster, one) : step::ended;
            case other_poster: return posts > 1 ? post(other_poster, two) : step::ended;
            case armer: return has_timer ? arm() : step::ended;
            case stopper: return has_stopper ? stop() : step::ended;
            default: return tick();
        }
    }
    const char* broken() const {
        if (touched_dead) return "the loop was touched after it was destroyed (R2, R4)";
        if (owed > 1) return "two signals for one sleep (R1)";
        if (out_of_order) return "what was posted first ran later";
        return nullptr;
    }
    const char* unfinished() const {
        if (alive) return "run() has not returned";
        if (!has_stopper && (ran != posts || fired != (has_timer ? 1 : 0))) return "something never ran";
        return nullptr;
    }

private:
    step next(int who) { return go(pc[who], pc[who] + 1); }
    step end(int who) { return go(pc[who], 99); }
    step lock(int who) {
        touch(who);
        if (mutex != -1) return step::blocked;
        mutex = static_cast<std::int8_t>(who);
        return next(who);
    }
    void touch(int who) { touched_dead = touched_dead || (who != loop && !alive); }

    /// An item or a timer has run: the last of all that are expected stops the loop from here.
    void note_end() {
        if (!has_stopper && ran == posts && fired == (has_timer ? 1 : 0) && stopping_ == 0) stopping_ = 1;
    }
    void run_item(std::int8_t which) {
        if (ran++ == 0 && first != 0 && first != which) out_of_order = true;
        note_end();
    }

    step run() {
        const bool early = variant == protocol::looks_before_it_marks;
        switch (pc[loop]) {
            case 0:  // run(): stopped?
                seen[loop] = stopping_;
                stopping_ = 0;
                if (seen[loop] == 0) return next(loop);
                return go(pc[loop], seen[loop] == 2 && variant != protocol::stops_without_the_mutex ? 20 : 22);
            case 1:  // turn(): what is due
                if (timer_armed && due) {
                    timer_armed = false;
                    ++fired;
                    note_end();
                }
                return next(loop);
            case 2:  // collect(), and run what came
                switch (inbox_) {
                    case one: inbox_ = null; run_item(1); return go(pc[loop], 0);
                    case two: inbox_ = null; run_item(2); return go(pc[loop], 0);
                    case both: case both_reversed: {
                        const bool reversed = inbox_ == both_reversed;
                        inbox_ = null;
                        run_item(reversed ? 2 : 1);
                        run_item(reversed ? 1 : 2);
                        return go(pc[loop], 0);
                    }
                    case asleep: inbox_ = null; return go(pc[loop], 0);
                    default: return go(pc[loop], early ? 4 : 3);
                }
            case 3:  // sleep(): the mark
                if (inbox_ != null) return go(pc[loop], 0);
                inbox_ = asleep;
                return go(pc[loop], early ? 6 : 4);
            case 4:  // the last look, first at the timers
                until = timer_armed ? until_a_time : for_ever;
                return next(loop);
            case 5:  // then at the stop
                if (stopping_ != 0) until = not_at_all;
                return go(pc[loop], early ? 3 : 6);
            case 6: return lock(loop);
            case 7:  // waiting, which gives the mutex back
                if (signal_) return go(pc[loop], 12);
                if (until == not_at_all || (until == until_a_time && due)) return go(pc[loop], 10);
                mutex = -1;
                return next(loop);
            case 8:
                if (signal_ || (until == until_a_time && due)) return mutex == -1 ? lock_again(7) : step::blocked;
                return step::blocked;
            case 10:  // the time has passed; under the mutex
                if (inbox_ == asleep) {
                    inbox_ = null;
                    mutex = -1;
                    return go(pc[loop], 0);
                }
                if (variant == protocol::leaves_on_a_timeout) {
                    mutex = -1;
                    return go(pc[loop], 0);
                }
                if (signal_) return go(pc[loop], 12);
                mutex = -1;
                return next(loop);
            case 11: return signal_ && mutex == -1 ? lock_again(12) : step::blocked;
            case 12:
                signal_ = false;
                --owed;
                mutex = -1;
                return go(pc[loop], 0);
            case 20:  // run() returns
                if (mutex != -1) return step::blocked;
                return go(pc[loop], 22);
            case 22:
                // the owner destroys the loop once nobody is to begin with it any more: an armer that has not ended is
                // still using it, but a poster is done as soon as its item runs
                if (has_timer && pc[armer] != 99) return step::blocked;
                alive = false;
                return end(loop);
            default: return step::ended;
        }
    }
    step lock_again(int then) {
        mutex = loop;
        return go(pc[loop], then);
    }

    /// post(): read, exchange if unchanged, and signal if the loop slept.
    step post(int who, std::int8_t mine) {
        switch (pc[who]) {
            case 0: touch(who); seen[who] = inbox_; return next(who);
            case 1: {
                touch(who);
                if (inbox_ != seen[who]) return go(pc[who], 0);
                const std::int8_t before = inbox_;
                if (before == null || before == asleep) {
                    inbox_ = mine;
                    if (ran == 0) first = mine;
                } else {
                    inbox_ = mine == two ? both : both_reversed;
                }
                if (before != asleep && variant != protocol::signals_on_every_post) return end(who);
                ++owed;
                return next(who);
            }
            default: return signal(who, 2);
        }
    }
    step signal(int who, int base) {
        switch (pc[who] - base) {
            case 0: return lock(who);
            case 1: touch(who); signal_ = true; return next(who);
            case 2:
                touch(who);
                mutex = -1;
                return variant == protocol::signals_after_unlocking ? next(who) : end(who);
            case 3: touch(who); return end(who);
            default: return step::ended;
        }
    }

    /// A timer that is earlier than all: armed, then wake().
    step arm() {
        switch (pc[armer]) {
            case 0: timer_armed = true; return next(armer);
            case 1:
                touch(armer);
                if (inbox_ != asleep) return end(armer);
                if (variant != protocol::wakes_without_the_mark) inbox_ = null;
                ++owed;
                return next(armer);
            default: return signal(armer, 2);
        }
    }
    step tick() {
        if (!has_timer || due) return step::ended;
        due = true;
        return step::moved;
    }

    /// stop() from elsewhere.
    step stop() {
        const bool locks = variant != protocol::stops_without_the_mutex;
        switch (pc[stopper]) {
            case 0:
                if (locks) return lock(stopper);
                return next(stopper);
            case 1: touch(stopper); stopping_ = 2; return next(stopper);
            case 2:
                touch(stopper);
                if (inbox_ != asleep) return go(pc[stopper], locks ? 4 : 99);
                inbox_ = null;
                ++owed;
                return go(pc[stopper], locks ? 3 : 5);
            case 3: touch(stopper); signal_ = true; return next(stopper);
            case 4: touch(stopper); mutex = -1; return end(stopper);
            default: return signal(stopper, 5);
        }
    }
};

small_steps::walked walk_through(const scene& s, protocol variant = protocol::as_built) {
    loop_model m;
    m.variant = variant;
    m.posts = s.posts;
    m.has_timer = s.timer;
    m.has_stopper = s.stopper;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of posts, timers, stops and sleep runs all, wakes the loop, and lets it be destroyed",
          "[run][run_loop]") {
    const scene scenes[] = {
        {.posts = 1}, {.posts = 2}, {.timer = true}, {.posts = 1, .timer = true}, {.posts = 2, .timer = true},
        {.stopper = true}, {.posts = 0, .timer = true, .stopper = true},
    };
    for (const scene& s : scenes) {
        CAPTURE(s.posts, s.timer, s.stopper);
        const auto all = walk_through(s);
        CHECK(all.fault == "");
        CHECK(all.endings > 0);
        CHECK(all.states > 10);
    }
}

TEST_CASE("the walk over the loop's states sees what its invariants are for", "[run][run_loop]") {
    const auto finds = [](const scene& s, protocol variant, const char* what) {
        const auto all = walk_through(s, variant);
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds({.timer = true}, protocol::looks_before_it_marks, "waits for ever");
    finds({.stopper = true}, protocol::looks_before_it_marks, "waits for ever");
    finds({.posts = 1, .timer = true}, protocol::leaves_on_a_timeout, "(R");
    finds({.posts = 2}, protocol::signals_on_every_post, "(R");
    finds({.posts = 1}, protocol::signals_after_unlocking, "R2");
    finds({.stopper = true}, protocol::stops_without_the_mutex, "R4");
    finds({.posts = 1, .timer = true}, protocol::wakes_without_the_mark, "R1");
}
