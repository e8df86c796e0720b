// SPDX-License-Identifier: MIT
// The word by which the loop of an io_context tells who looks at its inbox next, {idle, asked, draining}, as a model:
// two who submit and two threads that run the context, in every order.
#include "catch.hpp"
#include "small_steps.hpp"

#include <compare>
#include <cstdint>
#include <string>

using small_steps::fault_of;
using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    begins_with_a_store,  // which can become visible only after the drain's look at the inbox
    idle_while_draining,  // gives the duty up before it has done it
    stores_idle,          // gives it up whatever was asked meanwhile
};

struct duty_model {
    static constexpr int actors = 4;  // 0, 1: submit; 2, 3: run what is posted
    enum : std::int8_t { idle, asked, draining };

    protocol variant = protocol::as_built;

    std::int8_t duty = idle;
    std::int8_t inbox = 0, ready = 0, ran = 0, posted = 0, inside = 0;
    std::int8_t pc[actors] = {};

    auto operator<=>(const duty_model&) const = default;

    step take(int who) { return who < 2 ? submit(pc[who]) : run(pc[who]); }
    const char* broken() const { return inside > 1 ? "two drains run at once (A1)" : nullptr; }
    const char* unfinished() const {
        if (ran != 2) return "an item was never run (A2)";
        return duty == idle ? nullptr : "the duty was not given up";
    }

private:
    static step go(std::int8_t& at, std::int8_t to) {
        at = to;
        return step::moved;
    }
    step submit(std::int8_t& at) {
        switch (at) {
            case 0: return go(at, inbox++ == 0 ? 1 : 9);
            case 1: {
                const bool first = duty == idle;
                duty = asked;
                return go(at, first ? 2 : 9);
            }
            case 2: ++posted; return go(at, 9);
            default: return step::ended;
        }
    }
    step run(std::int8_t& at) {
        switch (at) {
            case 0:
                if (posted == 0) return step::ended;
                --posted;
                return go(at, 1);
            case 1:
                ++inside;
                if (variant != protocol::begins_with_a_store)
                    duty = variant == protocol::idle_while_draining ? idle : draining;
                return go(at, 2);
            case 2:
                ready = static_cast<std::int8_t>(ready + inbox);
                inbox = 0;
                return go(at, 3);
            case 3:
                if (variant == protocol::begins_with_a_store) duty = draining;
                return go(at, 4);
            case 4:
                ran = static_cast<std::int8_t>(ran + ready);
                ready = 0;
                return go(at, 5);
            case 5: {
                --inside;
                if (variant == protocol::idle_while_draining) return go(at, 0);
                const bool nothing_new = duty == draining || variant == protocol::stores_idle;
                if (nothing_new) duty = idle;
                return go(at, nothing_new ? 0 : 6);
            }
            default: ++posted; return go(at, 0);
        }
    }
};

}  // namespace

TEST_CASE("the loop of an io_context runs every item, one drain at a time, in every order", "[interop][asio_loop]") {
    const small_steps::walked w = walk(duty_model{});
    CHECK(w.fault == "");
    CHECK(w.states > 50);
    CHECK(w.endings > 0);
}

TEST_CASE("the model of the loop's duty notices a protocol that is not sound", "[interop][asio_loop]") {
    CHECK(fault_of<duty_model>(protocol::begins_with_a_store).find("never run (A2)") != std::string::npos);
    CHECK(fault_of<duty_model>(protocol::idle_while_draining).find("two drains run at once (A1)") != std::string::npos);
    CHECK(fault_of<duty_model>(protocol::stores_idle).find("never run (A2)") != std::string::npos);
}
