// SPDX-License-Identifier: MIT
// The word of <cordon/core/detail/leaf.hpp>, {arming, armed, done, stopped}, as a model: who starts, who completes, who
// stops and who resumes, in every order. `release`, `acquire` and the like are not part of it: for those there are
// stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum word : std::int8_t { arming, armed, done, stopped };
enum class protocol : std::int8_t {
    as_built,
    looks_then_stores,     // the winner looks at the word and stores in two steps
    touches_after_unlock,  // the completer has something left to do on the leaf when it has given the lock back
    resumes_at_once,       // the leaf goes on without having waited for a stop callback that is running
};

struct leaf_model {
    static constexpr int actors = 4;
    enum { starter, completer, stopper, resumer };

    protocol variant = protocol::as_built;

    std::int8_t word_ = arming;
    std::int8_t lock = -1;  // the primitive's: who holds it
    bool queued = false;    // under the lock
    bool value = true;      // with the primitive; false once it is the leaf's
    bool attached = false, stop_requested = false, callback_runs = false;
    std::int8_t submitted = 0, winners = 0, resumed = 0;
    bool alive = true, touched_dead = false;
    std::int8_t pc[actors] = {};
    std::int8_t seen[actors] = {};

    auto operator<=>(const leaf_model&) const = default;

    step take(int who) {
        switch (who) {
            case starter: return start();
            case completer: return complete();
            case stopper: return stop();
            default: return wake();
        }
    }

    const char* broken() const {
        if (touched_dead) return "the leaf was touched after it had gone on";
        if (winners > 1) return "two parties have won (L1)";
        if (submitted > 1) return "submitted twice (L1)";
        if (resumed > 1) return "resumed twice";
        return nullptr;
    }
    const char* unfinished() const {
        if (resumed != 1) return "never resumed";
        if (queued || attached) return "somebody still refers to it";
        if (word_ == done && value) return "completed without the value";
        if (word_ == stopped && !value) return "stopped, and the value is lost";
        return nullptr;
    }

private:
    step next(int who) {
        ++pc[who];
        return step::moved;
    }
    step end(int who) { return go(pc[who], 99); }
    step take_lock(int who) {
        if (lock != -1) return step::blocked;
        lock = static_cast<std::int8_t>(who);
        return next(who);
    }
    void touch() { touched_dead = touched_dead || !alive; }

    /// leaf::suspend(): attach, enqueue, then arming to armed or, if somebody was faster, disconnect here.
    step start() {
        switch (pc[starter]) {
            case 0:
                if (stop_requested) {
                    ++resumed;
                    alive = false;
                    word_ = stopped;  // as good as: it never was in the queue
                    return end(starter);
                }
                attached = true;
                return next(starter);
            case 1: return take_lock(starter);
            case 2: queued = true; return next(starter);
            case 3: lock = -1; return next(starter);
            case 4:
                if (word_ != arming) return next(starter);
                word_ = armed;  // L2
                return end(starter);
            case 5: case 6: case 7: case 8: return disconnect(starter, 5);
            default: return step::ended;
        }
    }

    /// Somebody with a value, who pops the leaf and completes it under the primitive's lock.
    step complete() {
        switch (pc[completer]) {
            case 0: return take_lock(completer);
            case 1:
                if (!queued) return go(pc[completer], 6);
                queued = false;
                return next(completer);
            case 2: return settle(completer, done, 6);
            case 3: return settle_store(completer, done, 6);
            case 4: submit(); return go(pc[completer], 6);
            case 6: lock = -1; return variant == protocol::touches_after_unlock ? next(completer) : end(completer);
            case 7: touch(); return end(completer);
            default: return step::ended;
        }
    }

    /// A request to stop, and the leaf's callback if that was attached: it leaves the queue before it submits the leaf.
    step stop() {
        switch (pc[stopper]) {
            case 0:
                stop_requested = true;
                if (!attached) return end(stopper);
                attached = false;
                callback_runs = true;
                return go(pc[stopper], 2);
            case 2: return settle(stopper, stopped, 7);
            case 3: return settle_store(stopper, stopped, 7);
            case 4: touch(); return take_lock(stopper);
            case 5: queued = false; lock = -1; return next(stopper);
            case 6: submit(); return next(stopper);
            case 7: callback_runs = false; touch_node(); return end(stopper);
            default: return step::ended;
        }
    }

    /// leaf::wake(), on whatever thread the executor has.
    step wake() {
        if (pc[resumer] == 99) return step::ended;
        if (pc[resumer] == 0) {
            if (submitted != 0) return go(pc[resumer], word_ == stopped ? 3 : 1);  // the stopper has dequeued it
            return resumed != 0 ? step::ended : step::blocked;
        }
        return disconnect(resumer, 1);
    }

    /// dequeue() under the lock, detach(), which waits for a running callback, and on.
    step disconnect(int who, int base) {
        switch (pc[who] - base) {
            case 0: touch(); return take_lock(who);
            case 1: queued = false; lock = -1; return next(who);
            case 2:
                if (callback_runs && variant != protocol::resumes_at_once) return step::blocked;
                attached = false;
                return next(who);
            default:
                ++resumed;
                alive = false;
                return end(who);
        }
    }

    /// The exchange, or its twin in two steps.
    step settle(int who, std::int8_t how, int lost) {
        touch();
        seen[who] = word_;
        if (word_ > armed) return go(pc[who], lost);
        if (variant == protocol::looks_then_stores) return next(who);
        return settle_store(who, how, lost);
    }
    step settle_store(int who, std::int8_t how, int lost) {
        word_ = how;
        ++winners;
        if (how == done) value = false;
        return go(pc[who], seen[who] == armed ? 4 : lost);
    }
    void submit() {
        touch();
        ++submitted;
    }
    /// Ending, the stopping thread still compares the node that it ran.
    void touch_node() {
        if (variant == protocol::resumes_at_once) touch();
    }
};

small_steps::walked walk_through(protocol variant) {
    leaf_model m;
    m.variant = variant;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of start, completion, stop and wake-up resumes a leaf once, for one reason", "[core][leaf]") {
    const auto all = walk_through(protocol::as_built);
    CHECK(all.fault == "");
    CHECK(all.endings > 3);
    CHECK(all.states > 100);
}

TEST_CASE("the walk over the leaf's states sees what its invariants are for", "[core][leaf]") {
    const auto finds = [](protocol variant, const char* what) {
        const auto all = walk_through(variant);
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds(protocol::looks_then_stores, "L1");
    finds(protocol::touches_after_unlock, "after it had gone on");
    finds(protocol::resumes_at_once, "after it had gone on");
}
