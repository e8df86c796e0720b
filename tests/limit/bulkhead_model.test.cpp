// SPDX-License-Identifier: MIT
// The word of <cordon/limit/bulkhead.hpp> (H1, H2 and H4) as a model: one call that runs, two that come, of which one
// may be stopped while it waits, and somebody who changes the limit or closes it; in every order. Memory orders (H3)
// are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    reads_uncontended,     // who has the lock reads what is free without setting the bit (H2)
    adds_while_contended,  // gives back by an exchange on the word, whatever the bit says (H2)
    takes_contended,       // takes a free permit, whatever the bit says (H2)
    takes_blindly,         // takes by a subtraction after a look (H1)
    trusts_its_look,       // begins to wait without looking again under the lock
    clears_early,          // clears the bit although somebody waits (H2)
    serves_the_stopped,    // counts a permit as given to one whose stop was faster
    sets_the_limit,        // a new limit is what is free, whoever is out (H4)
};
enum class change : std::int8_t { grows, shrinks, closes };

struct bulkhead_model {
    static constexpr int actors = 5, callers = 3, nobody = -1;
    static constexpr int waiter = 2, stopper = 3;  // the stopper stops the waiter
    enum : std::int8_t { look, exchange, lock_in, contend, act, store, unlock, waits, has, give_back, gone };
    enum : std::int8_t { enqueues, gives_back, leaves, changes };   // under the lock
    enum : std::int8_t { not_yet, waiting, served, stopped, refused };

    protocol variant = protocol::as_built;
    change does = change::grows;

    std::int8_t free = 0, limit = 1;
    bool contended = false, closed = false;
    std::int8_t lock = nobody;
    std::array<std::int8_t, callers> queue{nobody, nobody, nobody};
    std::int8_t queued = 0;
    std::array<std::int8_t, actors> pc{has, look, look, lock_in, lock_in}, job{0, 0, 0, leaves, changes}, mine{};
    std::array<std::int8_t, callers> seen_free{}, fate{};
    std::int8_t out = 1, wrong = 0;

    auto operator<=>(const bulkhead_model&) const = default;

    const char* broken() const {
        switch (wrong) {
            case 1: return "one that came later passed one that waits (H2)";
            case 2: return "a permit was given after the end";
            case 3: return "a permit was taken that was not there (H1)";
            default: break;
        }
        if (lock != nobody) return nullptr;
        if (free + out != limit) return "those that are free and out are not the limit (H4)";
        if (queued != 0 && !contended) return "somebody waits, and the bit is not set (H2)";
        return nullptr;
    }
    const char* unfinished() const {
        if (out != 0 || free != limit) return "a permit is lost";
        return contended == closed ? nullptr : "the bit stays";
    }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        if (who == stopper && pc[me] == lock_in && fate[waiter] != waiting) {
            if (fate[waiter] == stopped) return lock_for(me);
            return fate[waiter] == not_yet && pc[waiter] != gone && pc[waiter] < waits ? step::blocked : step::ended;
        }
        switch (pc[me]) {
            case look:
                seen_free[me] = free;
                return go(pc[me], (contended && variant != protocol::takes_contended) || free < 1 ? lock_in : exchange);
            case exchange:
                if (free != seen_free[me] && variant != protocol::takes_blindly) return go(pc[me], look);
                if (contended && variant != protocol::takes_contended) return go(pc[me], look);
                if (queued != 0 && lock == nobody) wrong = 1;
                if (closed && lock == nobody) wrong = 2;
                if (free < 1) wrong = 3;
                --free;
                ++out;
                return go(pc[me], has);
            case lock_in:
                if (who == stopper) {  // it won the race for the waiter, which is still in the queue
                    fate[waiter] = stopped;
                    return step::moved;
                }
                return lock_for(me);
            case contend:
                mine[me] = free;
                if (variant != protocol::reads_uncontended) contended = true;
                return go(pc[me], act);
            case act:
                do_job(me);
                serve(me);
                return go(pc[me], store);
            case store:
                free = mine[me];
                contended = closed || (queued != 0 && variant != protocol::clears_early);
                return go(pc[me], unlock);
            case unlock: lock = nobody; return go(pc[me], job[me] == enqueues ? waits : gone);
            case waits:
                if (fate[me] == waiting) return step::blocked;
                if (fate[me] == stopped && pc[stopper] != gone) return step::blocked;  // goes on when it is out of it
                return go(pc[me], fate[me] == served ? has : gone);
            case has:
                seen_free[me] = free;
                if (contended && variant != protocol::adds_while_contended) {
                    job[me] = gives_back;
                    return go(pc[me], lock_in);
                }
                return go(pc[me], give_back);
            case give_back:
                if (free != seen_free[me] || (contended && variant != protocol::adds_while_contended))
                    return go(pc[me], has);
                ++free;
                --out;
                return go(pc[me], gone);
            default: return step::ended;
        }
    }

private:
    step lock_for(std::size_t me) {
        if (lock != nobody) return step::blocked;
        lock = static_cast<std::int8_t>(me);
        return go(pc[me], contend);
    }
    void do_job(std::size_t me) {
        switch (job[me]) {
            case enqueues:
                fate[me] = closed ? refused : waiting;
                if (!closed) queue[static_cast<std::size_t>(queued++)] = static_cast<std::int8_t>(me);
                return;
            case gives_back:
                ++mine[me];
                --out;
                return;
            case leaves: {
                const auto end = queue.begin() + queued;
                const auto at = std::find(queue.begin(), end, std::int8_t{waiter});
                if (at != end) pop(at);
                return;
            }
            default: {
                if (does == change::closes) {
                    closed = true;
                    while (queued != 0) {
                        const auto first = static_cast<std::size_t>(queue[0]);
                        if (fate[first] == waiting) fate[first] = refused;
                        pop(queue.begin());
                    }
                    return;
                }
                const auto to = static_cast<std::int8_t>(does == change::grows ? limit + 1 : limit - 1);
                mine[me] = static_cast<std::int8_t>(variant == protocol::sets_the_limit ? to : mine[me] + to - limit);
                limit = to;
            }
        }
    }
    void serve(std::size_t me) {
        if (variant == protocol::trusts_its_look && job[me] == enqueues) return;
        while (mine[me] > 0 && queued != 0) {
            const auto first = static_cast<std::size_t>(queue[0]);
            pop(queue.begin());
            if (fate[first] == waiting) {
                fate[first] = served;
                ++out;
                --mine[me];
            } else if (variant == protocol::serves_the_stopped) {
                --mine[me];
            }
        }
    }
    void pop(std::array<std::int8_t, callers>::iterator at) {
        std::move(at + 1, queue.end(), at);
        queue.back() = nobody;
        --queued;
    }
};

small_steps::walked walk_through(protocol variant, change does) {
    bulkhead_model m;
    m.variant = variant;
    m.does = does;
    if (does == change::shrinks) m.limit = 2, m.free = 1;
    return walk(m);
}
std::string fault_of(protocol variant) {
    for (const change does : {change::grows, change::shrinks, change::closes})
        if (const auto walked = walk_through(variant, does); !walked.fault.empty()) return walked.fault;
    return "";
}

}  // namespace

TEST_CASE("in every order of steps each permit of a bulkhead is with one call, or free, and nobody is passed",
          "[limit][bulkhead][model]") {
    for (const change does : {change::grows, change::shrinks, change::closes}) {
        const auto walked = walk_through(protocol::as_built, does);
        INFO(walked.states << " states");
        CHECK(walked.fault == "");
        CHECK(walked.states > 1'000);
        CHECK(walked.endings > 3);
    }
}

TEST_CASE("without any one of its rules the model of the bulkhead finds a fault", "[limit][bulkhead][model]") {
    const auto says = [](protocol p, const char* what) {
        const std::string fault = fault_of(p);
        INFO(fault);
        return fault.find(what) != std::string::npos;
    };
    CHECK(says(protocol::reads_uncontended, "not the limit"));
    CHECK(says(protocol::adds_while_contended, "not the limit"));
    CHECK(says(protocol::takes_contended, "not the limit"));
    CHECK(says(protocol::takes_blindly, "not there"));
    CHECK(says(protocol::trusts_its_look, "for ever"));
    CHECK(says(protocol::clears_early, "the bit is not set"));
    CHECK(says(protocol::serves_the_stopped, "not the limit"));
    CHECK(says(protocol::sets_the_limit, "not the limit"));
}
