// SPDX-License-Identifier: MIT
// How a pool ends while threads end that keep objects of it (N1 and N4 of <cordon/pool/detail/thread_spares.hpp>), as a
// model that is walked through in every order of its steps. Memory orders are not part of it: for those there are
// stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>

using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    walks_unlocked,        // the pool's end looks at the threads' entries before it takes the lock
    leaves_unsaid,         // a thread destroys objects without saying that it is leaving
    says_it_late,          // ... says so only after it has given the lock up
    does_not_wait,         // the pool's end does not wait for who is leaving
    leaves_before_it_ends, // a thread says that it has left before it has destroyed its objects
};

/// Two threads that end, each with one object of a pool whose depot has room for `room`, and the pool's end.
struct pool_end {
    static constexpr int threads = 2, actors = threads + 1;
    static constexpr int pool = threads;
    static constexpr std::int8_t nobody = -1;
    enum : std::int8_t { begins, locked, says, destroys, leaves, waits, frees, ended };

    protocol variant = protocol::as_built;
    std::int8_t room = 0;
    std::int8_t lock = nobody;
    bool open[threads] = {true, true}, seen_open[threads] = {};
    bool depot_lives = true;
    std::int8_t depot = 0, leaving = 0, destroyed = 0, taken = 0;
    std::int8_t pc[actors] = {begins, begins, begins};
    const char* fault = nullptr;

    auto operator<=>(const pool_end&) const = default;

    const char* broken() const {
        if (destroyed > threads) return "an object is destroyed twice";
        return fault;
    }
    const char* unfinished() const {
        if (destroyed != threads) return "an object is lost";
        return depot_lives ? "the pool has not ended" : nullptr;
    }
    step take(int who) { return who == pool ? end_pool() : end_thread(who); }

private:
    step end_thread(int t) {
        std::int8_t& at = pc[t];
        switch (at) {
            case begins:
                if (lock != nobody) return step::blocked;
                lock = static_cast<std::int8_t>(t);
                at = locked;
                return step::moved;
            case locked:  // all of this under the lock
                if (!open[t]) {
                    lock = nobody;
                    at = ended;
                    return step::moved;
                }
                open[t] = false;
                if (!depot_lives) fault = "a thread puts objects into a depot that is gone";
                if (depot < room) {
                    ++depot;
                    lock = nobody;
                    at = ended;
                } else {
                    if (variant != protocol::leaves_unsaid && variant != protocol::says_it_late) ++leaving;
                    lock = nobody;
                    at = variant == protocol::says_it_late ? says : destroys;
                    if (variant == protocol::leaves_before_it_ends) at = leaves;
                }
                return step::moved;
            case says:
                if (!depot_lives) fault = "a thread says to a pool that is gone that it is leaving";
                ++leaving;
                at = destroys;
                return step::moved;
            case destroys:
                if (!depot_lives) fault = "a thread destroys objects of a pool that is gone";
                ++destroyed;
                at = leaves;
                if (variant == protocol::leaves_unsaid || variant == protocol::leaves_before_it_ends) at = ended;
                return step::moved;
            case leaves:
                --leaving;
                at = variant == protocol::leaves_before_it_ends ? destroys : ended;
                return step::moved;
            default: return step::ended;
        }
    }
    step end_pool() {
        std::int8_t& at = pc[pool];
        switch (at) {
            case begins:
                if (variant == protocol::walks_unlocked)
                    for (int t = 0; t < threads; ++t) seen_open[t] = open[t];
                at = locked;
                return step::moved;
            case locked:
                if (lock != nobody) return step::blocked;
                for (int t = 0; t < threads; ++t) {
                    const bool mine = variant == protocol::walks_unlocked ? seen_open[t] : open[t];
                    if (mine) ++taken;
                    open[t] = false;
                }
                at = variant == protocol::does_not_wait ? frees : waits;
                return step::moved;
            case waits:
                if (leaving != 0) return step::blocked;
                at = frees;
                return step::moved;
            case frees:
                destroyed = static_cast<std::int8_t>(destroyed + taken + depot);
                depot = taken = 0;
                depot_lives = false;
                at = ended;
                return step::moved;
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(protocol variant, std::int8_t room) {
    pool_end start;
    start.variant = variant;
    start.room = room;
    return walk(start);
}

}  // namespace

TEST_CASE("whatever the order in which threads and their pool end, each object is destroyed once, by a pool that lives",
          "[pool][object_pool][model][PO-41]") {
    for (std::int8_t room : {std::int8_t{0}, std::int8_t{1}, std::int8_t{2}}) {
        const auto seen = walk_through(protocol::as_built, room);
        INFO(seen.fault);
        CHECK(seen.fault.empty());
        CHECK(seen.endings > 0);
    }
}

TEST_CASE("the model of the pool's end notices what the protocol is there for", "[pool][object_pool][model]") {
    for (const protocol p : {protocol::walks_unlocked, protocol::leaves_unsaid, protocol::says_it_late,
                             protocol::does_not_wait, protocol::leaves_before_it_ends}) {
        CAPTURE(static_cast<int>(p));
        CHECK_FALSE(walk_through(p, 0).fault.empty());
    }
}
