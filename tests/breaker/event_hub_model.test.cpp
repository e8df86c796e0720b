// SPDX-License-Identifier: MIT
// Who tells the events of a breaker, <cordon/breaker/detail/event_hub.hpp>, as a model: two that post an event and tell
// what there is to tell, and one that takes the listener away; in every order. A step is what is done under the lock,
// or without it.
#include "catch.hpp"
#include "small_steps.hpp"

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
    clears_unlocked,  // clears pending after it has given the lock up
    ends_unlocked,    // gives the lock up between its last look and the end of its telling
    tells_at_once,    // tells although another thread is at that
    removes_at_once,  // takes a listener away that is told just now
};

struct hub_model {
    static constexpr int actors = 3, remover = 2, nobody = -1;
    enum : std::int8_t { post, deliver, begin, next, tell, end_telling, clear, gone };

    protocol variant = protocol::as_built;
    bool pending = false, telling = false, listens = true;
    std::int8_t posted = 0, told_up_to = 0, told_now = nobody;
    std::array<std::int8_t, actors> pc{post, post, begin}, number{};
    std::int8_t heard = 0;  // the events that the listener was told of
    const char* fault = nullptr;

    auto operator<=>(const hub_model&) const = default;

    const char* broken() const { return fault; }
    const char* unfinished() const {
        if (told_up_to != posted) return "an event is not told";
        return pending || telling ? "somebody seems to tell for ever" : nullptr;
    }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        if (who == remover) return remove();
        switch (pc[me]) {
            case post:
                if (!listens) return go(pc[me], deliver);
                ++posted;
                pending = true;
                return go(pc[me], deliver);
            case deliver: return go(pc[me], pending ? begin : gone);
            case begin:
                if (telling && variant != protocol::tells_at_once) return go(pc[me], gone);
                telling = true;
                return look_on(me);
            case next:
                told_now = nobody;
                return look_on(me);
            case tell:
                if (!listens) fault = "a listener is told that is gone";
                if (number[me] != heard) fault = "events are told out of order";
                ++heard;
                return go(pc[me], next);
            case end_telling:
                telling = pending = false;
                return go(pc[me], gone);
            case clear:
                pending = false;
                return go(pc[me], gone);
            default: return step::ended;
        }
    }

private:
    /// Under the lock.
    step look_on(std::size_t me) {
        if (told_up_to != posted) {
            number[me] = told_up_to++;
            if (!listens) return go(pc[me], next);
            told_now = static_cast<std::int8_t>(me);
            return go(pc[me], tell);
        }
        if (variant == protocol::ends_unlocked) return go(pc[me], end_telling);
        telling = false;
        if (variant == protocol::clears_unlocked) return go(pc[me], clear);
        pending = false;
        return go(pc[me], gone);
    }
    step remove() {
        if (pc[remover] == gone) return step::ended;
        if (told_now != nobody && variant != protocol::removes_at_once) return step::blocked;
        listens = false;
        return go(pc[remover], gone);
    }
};

std::string fault_of(protocol variant, bool removes) {
    hub_model m;
    m.variant = variant;
    if (!removes) m.pc[hub_model::remover] = hub_model::gone;
    return walk(m).fault;
}

}  // namespace

TEST_CASE("in every order of steps each event is told once, in order, to a listener that is there",
          "[breaker][breaker_event][model]") {
    const auto walked = walk(hub_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 100);
    CHECK(walked.endings > 3);
}

TEST_CASE("without any one of its rules the model of the hub finds a fault", "[breaker][breaker_event][model]") {
    CHECK(fault_of(protocol::clears_unlocked, false).find("not told") != std::string::npos);
    CHECK(fault_of(protocol::ends_unlocked, false).find("not told") != std::string::npos);
    CHECK(fault_of(protocol::tells_at_once, false).find("out of order") != std::string::npos);
    CHECK(fault_of(protocol::removes_at_once, true).find("that is gone") != std::string::npos);
}
