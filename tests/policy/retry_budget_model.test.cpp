// SPDX-License-Identifier: MIT
// The balance of <cordon/policy/detail/windowed_balance.hpp> (W1 to W3) as a model with a window of two slots: one who
// pays in, two who take out, and the time, in every order. Memory orders are not part of it: for those there is a
// stress test.
#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    sums_first,       // the sum of a slot is taken from one reading of the balance, what is old is removed after it
    publishes_first,  // the new end of the slot is there before the exchange
    trusts_its_look,  // who has the lock does not look again whether the slot was ended meanwhile
    takes_blindly,    // takes by a subtraction after a look
};

struct balance_model {
    static constexpr int actors = 4, payer = 0, clock = 3, nobody = -1;
    static constexpr std::int8_t slots = 2, ticks = 4;
    enum { look, take_lock, read, exchange, publish, act, look_again, subtract, done };

    protocol variant = protocol::as_built;
    std::int8_t floor = 0;
    std::int8_t balance = 0, slot_end = 1, open = 0, at_begin = 0;
    std::array<std::int8_t, slots> sums{};
    std::int8_t lock = nobody;
    std::int8_t time = 0;
    std::array<std::int8_t, 3> pc{}, now{}, seen{}, rounds{2, 1, 1};
    // What is true: each change belongs to the slot that was open when it was made.
    std::int8_t true_open = 0;
    std::array<std::int8_t, ticks + 1> truth{};
    const char* fault = nullptr;

    auto operator<=>(const balance_model&) const = default;

    step take(int who) {
        if (who != clock) return go_on(who);
        if (time == ticks) return step::ended;
        ++time;
        return step::moved;
    }
    const char* broken() const {
        if (fault != nullptr) return fault;
        if (balance != true_sum(true_open)) return "the balance is not what the window holds (W2)";
        if (lock != nobody) return nullptr;
        int ended = floor;
        for (int slot = true_open - 1; slot >= 0 && slot > true_open - slots; --slot) ended += sums[at(slot % slots)];
        if (at_begin != ended || balance - at_begin != truth[at(true_open)])
            return "a change is in two slots, or in none (W2)";
        return nullptr;
    }
    const char* unfinished() const { return lock == nobody ? nullptr : "the lock is held"; }

private:
    static std::size_t at(int i) { return static_cast<std::size_t>(i); }
    std::int8_t true_sum(int last) const {
        int sum = floor;
        for (int slot = last; slot >= 0 && slot > last - slots; --slot) sum += truth[at(slot)];
        return static_cast<std::int8_t>(sum);
    }
    step go(int who, int to) {
        pc[at(who)] = static_cast<std::int8_t>(to);
        return step::moved;
    }
    void change(int by) {
        balance = static_cast<std::int8_t>(balance + by);
        truth[at(true_open)] = static_cast<std::int8_t>(truth[at(true_open)] + by);
    }
    step end_round(int who) {
        return go(who, --rounds[at(who)] == 0 ? done : look);
    }
    std::int8_t moved(int who) const { return static_cast<std::int8_t>(now[at(who)] - slot_end + 1); }
    int old_of(int who) const {
        int old = 0;
        for (int i = 1; i <= moved(who) && i <= slots; ++i) old += sums[at((open + i) % slots)];
        return old;
    }
    /// The exchange, or what stands for it: removes what is old and begins the slot.
    void roll(int who, int sum) {
        const int old = old_of(who), to = open + moved(who);
        at_begin = moved(who) >= slots ? floor : static_cast<std::int8_t>(balance - old);
        balance = at_begin;
        sums[at(open % slots)] = static_cast<std::int8_t>(sum);
        for (int i = 1; i <= moved(who) && i <= slots; ++i) sums[at((open + i) % slots)] = 0;
        open = true_open = static_cast<std::int8_t>(to);
    }

    step go_on(int who) {
        std::int8_t& mine = seen[at(who)];
        switch (pc[at(who)]) {
            case look:
                now[at(who)] = time;
                return go(who, now[at(who)] < slot_end ? act : take_lock);
            case take_lock:
                if (lock != nobody) return step::blocked;
                if (now[at(who)] < slot_end && variant != protocol::trusts_its_look) return go(who, act);
                lock = static_cast<std::int8_t>(who);
                return go(who, variant == protocol::publishes_first ? publish : read);
            case read:
                mine = balance;
                return go(who, exchange);
            case exchange:
                if (variant == protocol::sums_first) {
                    roll(who, mine - at_begin);
                } else if (variant == protocol::publishes_first) {
                    slot_end = static_cast<std::int8_t>(open + 1);  // to calculate with; it is ahead already
                    roll(who, balance - at_begin);
                    slot_end = static_cast<std::int8_t>(now[at(who)] + 1);
                    lock = nobody;
                    return go(who, act);
                } else {
                    if (balance != mine) {
                        mine = balance;
                        return step::moved;
                    }
                    roll(who, mine - at_begin);
                }
                return go(who, publish);
            case publish:
                slot_end = static_cast<std::int8_t>(now[at(who)] + 1);
                if (variant == protocol::publishes_first) return go(who, exchange);
                lock = nobody;
                return go(who, act);
            case act:
                if (now[at(who)] > true_open) fault = "somebody sees what is too old at its time (W3)";
                if (who == payer) {
                    change(1);
                    return end_round(who);
                }
                mine = balance;
                return mine < 1 ? end_round(who) : go(who, subtract);
            case subtract:
                if (variant != protocol::takes_blindly && balance != mine) return go(who, look_again);
                if (balance < 1) fault = "what is not there was taken (W1)";
                change(-1);
                return end_round(who);
            case look_again:
                mine = balance;
                return mine < 1 ? end_round(who) : go(who, subtract);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(std::int8_t floor, protocol variant = protocol::as_built) {
    balance_model m;
    m.variant = variant;
    m.floor = m.balance = m.at_begin = floor;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of payments, retries and time keeps each change in one slot of the window",
          "[policy][retry_budget]") {
    for (std::int8_t floor = 0; floor <= 1; ++floor) {
        const auto all = walk_through(floor);
        CAPTURE(int{floor}, all.states);
        CHECK(all.fault == "");
        CHECK(all.endings > 0);
        CHECK(all.states > 1'000);
    }
}

TEST_CASE("the walk over the balance's states sees what its invariants are for", "[policy][retry_budget]") {
    const auto finds = [](protocol variant, const char* what) {
        const auto all = walk_through(1, variant);
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds(protocol::sums_first, "(W2)");
    finds(protocol::publishes_first, "(W3)");
    finds(protocol::trusts_its_look, "(W2)");
    finds(protocol::takes_blindly, "(W1)");
}
