// SPDX-License-Identifier: MIT
// The word of <cordon/scope/task_group.hpp> (T1, T2) and its bound, as models: children that end, one that joins and
// destroys the group afterwards, one that waits for room, and stops, in every order. Memory orders are not part of
// them: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

/// The word of a leaf, see leaf_model.test.cpp.
enum word : std::int8_t { arming, armed, done, stopped };

/// What the actors of both models do alike.
template <int Actors>
struct machine {
    static constexpr int actors = Actors;
    std::int8_t pc[Actors] = {};
    std::int8_t lock = -1;  // the group's: who holds it

    auto operator<=>(const machine&) const = default;

protected:
    step next(int who) { return go(pc[who], pc[who] + 1); }
    step end(int who) { return go(pc[who], 99); }
    step take_lock(int who) {
        if (lock != -1) return step::blocked;
        lock = static_cast<std::int8_t>(who);
        return next(who);
    }
};

// --- the end of a group --------------------------------------------------------------------------------------------

enum class ending : std::int8_t {
    as_built,
    stops_before_it_tells,  // the closing stop comes first, and ends the join of a body, which runs under it
    asks_and_forgets,       // a join that gives up leaves its mark in the word
    goes_on_at_once,        // who joins does not wait for the one who closes
};

/// Two children, and one that joins: `inside` as the body of the group, whose stop is the group's, else stopped by
/// somebody else. Afterwards, or once nobody is left in the group, it destroys the group.
struct end_model : machine<4> {
    enum { first_child, second_child, joiner, stopper };
    static constexpr std::int8_t joining = 1, closed = 2, one_child = 4;

    ending variant = ending::as_built;
    bool inside = false;

    std::int8_t state = 2 * one_child;
    bool ended = false, told = false, listed = false;
    std::int8_t leaf = arming;
    bool attached = false, submitted = false;
    bool alive = true, touched_dead = false, mark_left = false, ended_stopped = false;
    std::int8_t seen[actors] = {};

    auto operator<=>(const end_model&) const = default;

    step take(int who) {
        switch (who) {
            case joiner: return join();
            case stopper: return stop();
            default: return leave(who);
        }
    }
    const char* broken() const {
        if (touched_dead) return "the group was touched after it was destroyed (T1, T2)";
        if (ended_stopped) return "the body's join was stopped by the end of the group itself";
        return nullptr;
    }
    const char* unfinished() const {
        if (alive) return "nobody destroyed the group";
        if (mark_left) return "a join that gave up has left its mark";
        return nullptr;
    }

private:
    void touch() { touched_dead = touched_dead || !alive; }
    void complete() { settle(done); }
    bool settle(std::int8_t how) {
        if (leaf > armed) return false;
        submitted = submitted || leaf == armed;
        leaf = how;
        return true;
    }

    /// A child: count down; the last one closes if it was asked to.
    step leave(int who) {
        switch (pc[who]) {
            case 0: touch(); seen[who] = state; return next(who);
            case 1: {
                touch();
                if (state != seen[who]) return go(pc[who], 0);
                state = static_cast<std::int8_t>(state - one_child);
                if (state != joining) return end(who);
                state = closed;
                return go(pc[who], 10);
            }
            default: return close(who, 10, 99);
        }
    }

    /// closed(), in six steps.
    step close(int who, int base, int then) {
        const bool late = variant == ending::stops_before_it_tells;
        switch (pc[who] - base) {
            case 0: touch(); return late ? go(pc[who], base + 3) : take_lock(who);
            case 1:
                ended = true;
                if (listed) complete();
                listed = false;
                return next(who);
            case 2: touch(); lock = -1; return late ? go(pc[who], then) : next(who);
            case 3:  // the group's stop, and those who run under it
                touch();
                if (inside && attached && settle(stopped)) ended_stopped = true;
                return late ? go(pc[who], base + 6) : next(who);
            case 4: return take_lock(who);
            case 5: touch(); told = true; lock = -1; return go(pc[who], then);
            case 6: return take_lock_late(who, base);
            default: return step::ended;
        }
    }
    step take_lock_late(int who, int base) {
        if (lock != -1) return step::blocked;
        lock = static_cast<std::int8_t>(who);
        told = true;
        return go(pc[who], base + 1);
    }

    step join() {
        switch (pc[joiner]) {
            case 0:  // ready()
                seen[joiner] = state;
                if ((state & closed) != 0) return go(pc[joiner], 20);
                if (state >= one_child) {
                    if (variant == ending::asks_and_forgets) state = static_cast<std::int8_t>(state | joining);
                    return go(pc[joiner], 2);
                }
                return next(joiner);
            case 1:
                if (state != seen[joiner]) return go(pc[joiner], 0);
                state = closed;
                return go(pc[joiner], 30);
            case 2:  // suspend(): attach
                if (leaf == stopped) return give_up();
                attached = true;
                return next(joiner);
            case 3: return take_lock(joiner);  // enqueue()
            case 4:
                if (ended) complete();
                else listed = true;
                return next(joiner);
            case 5: lock = -1; return next(joiner);
            case 6:  // close_if_idle(true)
                seen[joiner] = state;
                if ((state & closed) != 0) return go(pc[joiner], 8);
                return next(joiner);
            case 7:
                if (state != seen[joiner]) return go(pc[joiner], 6);
                if (state < one_child) {
                    state = closed;
                    return go(pc[joiner], 40);
                }
                state = static_cast<std::int8_t>(state | joining);
                return next(joiner);
            case 8:
                if (leaf == arming) {
                    leaf = armed;
                    return next(joiner);
                }
                return go(pc[joiner], 50);
            case 9: return submitted ? go(pc[joiner], 50) : step::blocked;

            case 20: return take_lock(joiner);  // ready(): closed already; told?
            case 21: lock = -1; return told ? go(pc[joiner], 61) : go(pc[joiner], 2);
            case 30: case 31: case 32: case 33: case 34: case 35: case 36: return close(joiner, 30, 61);
            case 40: case 41: case 42: case 43: case 44: case 45: case 46: return close(joiner, 40, 8);

            case 50: return take_lock(joiner);  // dequeue()
            case 51: {
                listed = false;
                const std::int8_t before = state;
                if (variant != ending::asks_and_forgets) state = static_cast<std::int8_t>(state & ~joining);
                const bool waits = (before & closed) != 0 && !told && variant != ending::goes_on_at_once;
                seen[joiner] = waits ? 1 : 0;
                return next(joiner);
            }
            case 52:
                lock = -1;
                if (seen[joiner] == 0) return next(joiner);
                return go(pc[joiner], 55);
            case 53:
                attached = false;
                return leaf == stopped ? give_up() : go(pc[joiner], 61);
            case 55: return told ? go(pc[joiner], 50) : step::blocked;

            case 60: return state / one_child == 0 ? next(joiner) : step::blocked;  // it waits for size() == 0
            case 61: alive = false; return end(joiner);
            default: return step::ended;
        }
    }
    step give_up() {
        mark_left = (state & joining) != 0;
        return go(pc[joiner], 60);
    }
    step stop() {
        if (inside || pc[stopper] != 0) return step::ended;
        if (attached || pc[joiner] < 3) settle(stopped);
        return end(stopper);
    }
};

small_steps::walked walk_through(ending variant, bool inside) {
    end_model m;
    m.variant = variant;
    m.inside = inside;
    return walk(m);
}

// --- room in a group -----------------------------------------------------------------------------------------------

enum class room : std::int8_t {
    as_built,
    counts_before_it_knows,  // a spawner that finds room is counted although a stop was faster
    hands_to_the_stopped,    // whoever ends gives its room to the first in the queue, stopped or not
    leaves_without_passing,  // a spawner that was given room and may not use it keeps it
};

/// Room for one: a child that has it, and one that waits for it, which may be stopped, or find the group stopped.
struct room_model : machine<4> {
    enum { child, spawner, stopper, group_stopper };

    room variant = room::as_built;

    std::int8_t running = 1;
    bool queued = false, has_slot = false, group_stopped = false;
    std::int8_t leaf = arming;
    bool attached = false, submitted = false;
    std::int8_t started = 0;
    bool refused = false;

    auto operator<=>(const room_model&) const = default;

    step take(int who) {
        switch (who) {
            case child: return leave();
            case spawner: return spawn();
            case stopper: return stop();
            default: return stop_group();
        }
    }
    const char* broken() const {
        if (running > 1 || running < 0) return "the bound does not hold";
        return nullptr;
    }
    const char* unfinished() const {
        if (running != started) return "room is lost";
        if (queued) return "the queue refers to one that has gone";
        if (started == 1 && group_stopped && refused) return "started and refused";
        return nullptr;
    }

private:
    bool settle(std::int8_t how) {
        if (leaf > armed) return false;
        submitted = submitted || leaf == armed;
        leaf = how;
        return true;
    }
    bool wake(bool with_slot) {
        has_slot = with_slot;
        if (settle(done)) return true;
        has_slot = variant == room::hands_to_the_stopped && with_slot;
        return has_slot;
    }
    void return_slot() {
        if (queued) {
            queued = false;
            if (wake(true)) return;
        }
        --running;
    }

    step leave() {
        switch (pc[child]) {
            case 0: return take_lock(child);
            case 1: return_slot(); lock = -1; return end(child);
            default: return step::ended;
        }
    }
    step spawn() {
        switch (pc[spawner]) {
            case 0:  // ready()
                if (group_stopped) return go(pc[spawner], 20);
                return next(spawner);
            case 1: return take_lock(spawner);
            case 2: {
                const bool free = running < 1 && !queued;
                if (free) ++running;
                has_slot = free;
                lock = -1;
                return go(pc[spawner], free ? 20 : 3);
            }
            case 3:  // suspend()
                if (leaf == stopped) return end(spawner);
                attached = true;
                return next(spawner);
            case 4: return take_lock(spawner);
            case 5:
                if (group_stopped) {
                    settle(done);
                } else if (!queued && running < 1) {
                    if (variant == room::counts_before_it_knows) {
                        ++running;
                        wake(true);
                    } else if (wake(true)) {
                        ++running;
                    }
                } else {
                    queued = true;
                }
                lock = -1;
                return next(spawner);
            case 6:
                if (leaf == arming) {
                    leaf = armed;
                    return next(spawner);
                }
                return go(pc[spawner], 10);
            case 7: return submitted ? go(pc[spawner], 10) : step::blocked;
            case 10: return take_lock(spawner);  // dequeue()
            case 11:
                queued = false;
                lock = -1;
                attached = false;
                return leaf == stopped ? end(spawner) : go(pc[spawner], 20);
            case 20:  // launch(): may the child start?
                if (!group_stopped && has_slot) {
                    started = 1;
                    return end(spawner);
                }
                refused = true;
                if (!has_slot || variant == room::leaves_without_passing) return end(spawner);
                return next(spawner);
            case 21: return take_lock(spawner);
            case 22: return_slot(); lock = -1; return end(spawner);
            default: return step::ended;
        }
    }
    step stop() {
        if (pc[stopper] != 0) return step::ended;
        if (attached || pc[spawner] < 4) settle(stopped);
        return end(stopper);
    }
    step stop_group() {
        switch (pc[group_stopper]) {
            case 0: group_stopped = true; return next(group_stopper);
            case 1: return take_lock(group_stopper);
            case 2:
                if (queued) {
                    queued = false;
                    wake(false);
                }
                lock = -1;
                return end(group_stopper);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(room variant) {
    room_model m;
    m.variant = variant;
    return walk(m);
}

// --- ends that are held --------------------------------------------------------------------------------------------

enum class holding : std::int8_t {
    as_built,
    counts_after_the_next,  // the thread runs what comes next before it counts
    looks_again,            // it looks at the group once it has counted
};

/// A thread of a pool on which two children of a group end, and that then runs something which blocks it until the
/// group has been joined; a child that ends elsewhere; and one that joins, and destroys the group.
struct holding_model : machine<3> {
    enum { worker, elsewhere, joiner };
    static constexpr std::int8_t joining = 1, closed = 2, one_child = 4;

    holding variant = holding::as_built;

    std::int8_t state = 3 * one_child;
    std::int8_t held = 0;
    bool alive = true, touched_dead = false;
    std::int8_t seen[actors] = {};

    auto operator<=>(const holding_model&) const = default;

    step take(int who) {
        switch (who) {
            case worker: return work();
            case elsewhere: return end_elsewhere();
            default: return join();
        }
    }
    const char* broken() const { return touched_dead ? "the group was touched after it was destroyed (T1)" : nullptr; }
    const char* unfinished() const { return alive ? "nobody destroyed the group" : nullptr; }

private:
    void touch() { touched_dead = touched_dead || !alive; }
    step read(int who, int then) {
        touch();
        seen[who] = state;
        return go(pc[who], then);
    }
    step count(int who, std::int8_t n, int then) {
        touch();
        if (state != seen[who]) return go(pc[who], pc[who] - 1);
        state = static_cast<std::int8_t>(state - n * one_child);
        if (state == joining) state = closed;
        return go(pc[who], then);
    }
    step work() {
        const bool late = variant == holding::counts_after_the_next;
        switch (pc[worker]) {
            case 0: ++held; return next(worker);
            case 1:  // the next item begins a child of the same group, which ends
                ++held;
                return late ? go(pc[worker], 4) : next(worker);
            case 2: return read(worker, 3);
            case 3: return count(worker, held, late ? 99 : 4);
            case 4:  // what comes next blocks
                if (variant == holding::looks_again) touch();
                if (alive) return step::blocked;
                return late ? go(pc[worker], 2) : end(worker);
            default: return step::ended;
        }
    }
    step end_elsewhere() {
        switch (pc[elsewhere]) {
            case 0: return read(elsewhere, 1);
            case 1: return count(elsewhere, 1, 99);
            default: return step::ended;
        }
    }
    step join() {
        switch (pc[joiner]) {
            case 0: return read(joiner, 1);
            case 1:
                if (state != seen[joiner]) return go(pc[joiner], 0);
                state = state < one_child ? closed : static_cast<std::int8_t>(state | joining);
                return next(joiner);
            case 2: return state == closed ? next(joiner) : step::blocked;
            case 3: alive = false; return end(joiner);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(holding variant) {
    holding_model m;
    m.variant = variant;
    return walk(m);
}

}  // namespace

TEST_CASE("in every order ends that a thread holds are counted before it can be held up, and are its last access",
          "[scope][task_group]") {
    const auto all = walk_through(holding::as_built);
    CHECK(all.fault == "");
    CHECK(all.endings > 0);
    CHECK(all.states > 30);
}

TEST_CASE("every order of children that end and a join that waits or gives up lets the group be destroyed",
          "[scope][task_group]") {
    for (const bool inside : {false, true}) {
        CAPTURE(inside);
        const auto all = walk_through(ending::as_built, inside);
        CHECK(all.fault == "");
        CHECK(all.endings > 0);
        CHECK(all.states > 100);
    }
}

TEST_CASE("every order of an end, a spawner and stops keeps the bound and loses no room", "[scope][task_group][G8]") {
    const auto all = walk_through(room::as_built);
    CHECK(all.fault == "");
    CHECK(all.endings > 3);
    CHECK(all.states > 100);
}

TEST_CASE("the walks over a group's states see what its invariants are for", "[scope][task_group]") {
    const auto finds = [](const small_steps::walked& all, const char* what) {
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds(walk_through(ending::stops_before_it_tells, true), "the body's join was stopped");
    finds(walk_through(ending::asks_and_forgets, false), "T2");  // the last child closes what nobody waits for
    finds(walk_through(ending::goes_on_at_once, false), "T2");
    finds(walk_through(room::counts_before_it_knows), "room is lost");
    finds(walk_through(room::hands_to_the_stopped), "room is lost");
    finds(walk_through(room::leaves_without_passing), "room is lost");
    finds(walk_through(holding::counts_after_the_next), "somebody waits for ever");
    finds(walk_through(holding::looks_again), "T1");
}
