// SPDX-License-Identifier: MIT
// The word, the log and the lock of <cordon/breaker/detail/breaker_core.hpp> (B1 to B5, K3) as a model: two calls
// that were admitted while it was closed and fail, which is one too many, and two that come later, may find it open or
// half-open, and succeed. In every order. Memory orders are not part of it: for those there are stress tests.
#include "catch.hpp"
#include "small_steps.hpp"

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

enum class protocol : std::int8_t {
    as_built,
    word_before_log,        // a transition shows the new generation before its log begins (B3)
    trusts_its_look,        // trips without looking at the generation under the lock (B4)
    looks_before_it_marks,  // counts the marks before it has set its own (B4)
    counts_any_generation,  // takes a position without looking whose it is (B2, K3)
    trusts_the_free_place,  // takes a place as a probe that it saw free before it had the lock (B5)
};

struct breaker_model {
    static constexpr int actors = 4, failing = 2, nobody = -1, allowed = 1;  // allowed: probes
    enum state : std::int8_t { closed, open, half_open };
    enum {
        arrive,
        check_until,
        lock_in,
        admit,
        probe_lock,
        probe_settle,  // those who come later
        look,
        position,
        mark,
        read_head,
        read_marks,
        judge_lock,
        judge,  // what all do who count
        restart_start,
        restart_head,
        restart_until,
        restart_word,
        restarted,
        plan_lock,
        plan,
        gone
    };

    protocol variant = protocol::as_built;

    // The breaker.
    state now = closed;
    std::int8_t generation = 1, places = 0;
    bool due = true;  // until_: false is never
    std::int8_t head_generation = 1, head = 0, start = 0;
    std::array<bool, 8> marks{};
    std::int8_t lock = nobody;
    // What its callers know.
    std::array<std::int8_t, actors> pc{look, look, arrive, arrive}, mine{1, 1, 0, 0}, at{}, seen_head{}, seen_start{};
    std::array<bool, actors> counted{}, refused{}, saw_free{};
    state next = closed;  // of whoever makes a transition, who has the lock
    std::int8_t transitions = 0, trips = 0;
    std::int8_t wrong = 0;  // what must not happen and did

    auto operator<=>(const breaker_model&) const = default;

    const char* broken() const {
        switch (wrong) {
            case 1: return "an outcome was counted for another generation (B2)";
            case 2: return "a call of the present generation was called stale (B3)";
            case 3: return "it was opened although it was not closed (B4)";
            default: break;
        }
        if (places > allowed) return "more probes than allowed (B5)";
        if (lock == nobody && generation != head_generation) return "the log is not that of the word";
        if (lock == nobody && transitions != generation - 1) return "a transition without a generation, or the reverse";
        return nullptr;
    }
    const char* unfinished() const {
        if (counted[0] && counted[1] && trips == 0) return "the window reached its rate, and nobody saw it (B4)";
        if (now == open && !due) return "it is open for ever";
        return nullptr;
    }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        switch (pc[me]) {
            case arrive:
                if (now == closed) return mine[me] = generation, go(pc[me], look);
                saw_free[me] = now != half_open || places < allowed;
                if (!saw_free[me]) return refused[me] = true, go(pc[me], gone);
                return go(pc[me], now == open ? check_until : lock_in);
            case check_until:
                if (!due) return refused[me] = true, go(pc[me], gone);
                return go(pc[me], lock_in);
            case lock_in: return take_lock(me, admit);
            case admit:
                if (now == closed) return unlock(me, arrive);
                if (now == open && !due) return unlock(me, arrive);
                if (now == open) return begin(me, half_open);
                if (places == allowed && !(variant == protocol::trusts_the_free_place && saw_free[me]))
                    return unlock(me, arrive);
                ++places;
                mine[me] = generation;
                return unlock(me, probe_lock);
            case probe_lock: return take_lock(me, probe_settle);
            case probe_settle:
                if (generation != mine[me]) return unlock(me, gone);  // stale
                counted[me] = true;
                return begin(me, closed);

            case look: return go(pc[me], generation == mine[me] ? position : gone);
            case position:
                if (head_generation != mine[me] && variant != protocol::counts_any_generation) {
                    if (head_generation < mine[me]) wrong = 2;
                    return go(pc[me], gone);
                }
                if (head_generation != mine[me]) wrong = 1;
                at[me] = head++;
                counted[me] = true;
                if (who >= failing) return go(pc[me], gone);  // a success neither marks nor looks
                return go(pc[me], variant == protocol::looks_before_it_marks ? read_head : mark);
            case mark:
                marks[static_cast<std::size_t>(at[me])] = true;
                return go(pc[me], variant == protocol::looks_before_it_marks ? gone : read_head);
            case read_head:
                if (head_generation != mine[me])
                    return go(pc[me], variant == protocol::looks_before_it_marks ? mark : gone);
                seen_head[me] = head;
                seen_start[me] = start;
                return go(pc[me], read_marks);
            case read_marks: {
                int n = 0;
                for (int i = seen_start[me]; i < seen_head[me]; ++i) n += marks[static_cast<std::size_t>(i)];
                const bool reached = n >= failing;
                return go(pc[me], reached ? judge_lock : variant == protocol::looks_before_it_marks ? mark : gone);
            }
            case judge_lock: return take_lock(me, judge);
            case judge:
                if (generation != mine[me] && variant != protocol::trusts_its_look) return unlock(me, gone);
                if (now != closed) wrong = 3;
                ++trips;
                return begin(me, open);

            case restart_start: start = head; return go(pc[me], restart_head);
            case restart_head:
                head_generation =
                    static_cast<std::int8_t>(variant == protocol::word_before_log ? generation : generation + 1);
                return go(pc[me], variant == protocol::word_before_log ? restarted : restart_until);
            case restart_until:
                due = next != open;  // for how long it is open is decided later
                return go(pc[me], restart_word);
            case restart_word:
                now = next;
                ++generation;
                ++transitions;
                places = 0;
                return go(pc[me], variant == protocol::word_before_log ? restart_start : restarted);
            case restarted:
                if (next == open) return unlock(me, plan_lock);
                if (next == half_open) return go(pc[me], admit);
                return unlock(me, gone);
            case plan_lock: return take_lock(me, plan);
            case plan:
                if (generation == mine[me] + 1) due = true;
                return unlock(me, gone);
            default: return step::ended;
        }
    }

private:
    step take_lock(std::size_t me, int then) {
        if (lock != nobody) return step::blocked;
        lock = static_cast<std::int8_t>(me);
        return go(pc[me], then);
    }
    step unlock(std::size_t me, int then) {
        lock = nobody;
        return go(pc[me], then);
    }
    step begin(std::size_t me, state to) {
        next = to;
        return go(pc[me], variant == protocol::word_before_log ? restart_until : restart_start);
    }
};

}  // namespace

TEST_CASE("in every order of steps a window that is full of failures opens the breaker once, and one probe decides",
          "[breaker][circuit_breaker][model]") {
    const auto walked = walk(breaker_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 1'000);
    CHECK(walked.endings > 10);
}

TEST_CASE("without any one of its rules the model of the breaker finds a fault", "[breaker][circuit_breaker][model]") {
    const auto says = [](protocol p, const char* what) {
        const std::string fault = fault_of<breaker_model>(p);
        INFO(fault);
        return fault.find(what) != std::string::npos;
    };
    CHECK(says(protocol::word_before_log, "was called stale"));
    CHECK(says(protocol::trusts_its_look, "was not closed"));
    CHECK(says(protocol::looks_before_it_marks, "nobody saw it"));
    CHECK(says(protocol::counts_any_generation, "another generation"));
    CHECK(says(protocol::trusts_the_free_place, "more probes"));
}
