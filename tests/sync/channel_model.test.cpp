// SPDX-License-Identifier: MIT
// The lock, the waiters and the close of <cordon/sync/channel.hpp> (C1 to C5) as a model: two that send, two that
// receive, of whom the second may drop what it got, one that is stopped, and a close, in every order. What happens
// under the lock is small steps as well, since a stop needs no lock. Memory orders are not part of it: for those there
// are stress tests.
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
    trusts_its_look,       // who begins to wait does not look again whether the channel was closed meanwhile
    receiver_first,        // a rendezvous completes the receiver before the sender
    moves_before_it_wins,  // the item leaves for the receiver, and then that turns out to be stopped
    goes_on_unlocked,      // a waiter that was completed goes on without having had the lock
    forgets_the_dropped,   // what a receiver got and did not take is gone
};

/// Who takes part.
struct scene {
    std::int8_t capacity = 0, senders = 1, receivers = 1;
    std::int8_t victim = -1;  // who is stopped: 0 and 1 send, 2 and 3 receive
    bool closes = true;
    bool drops = false;  // the last receiver does not take what it got

    auto operator<=>(const scene&) const = default;
};

struct channel_model {
    static constexpr int actors = 6, stopper = 4, closer = 5, nobody = -1;
    enum fate : std::int8_t { undecided, done, stopped };
    enum place : std::int8_t { with_sender, in_channel, in_slot, taken, nowhere };
    enum { poll_lock, poll, poll_move, queue_lock, queue, settling, arm, wait, land_lock, land, end, drop_lock,
           dropping, drop_move, leave_lock, leave, gone };
    enum { choosing, moving_to_receiver, moving_from_sender, dismissing };

    protocol variant = protocol::as_built;
    scene cast;

    std::int8_t lock = nobody;
    bool closed = false;
    std::array<std::int8_t, 2> sender_queue{nobody, nobody}, receiver_queue{nobody, nobody};
    std::array<std::int8_t, 3> buffer{nobody, nobody, nobody};
    std::array<std::int8_t, 2> places{};          // of the items
    std::array<bool, 2> sent{};                   // what the senders are told
    std::array<std::int8_t, 2> slots{nobody, nobody};  // of the receivers
    std::array<fate, 4> fates{};
    std::array<bool, 4> armed{};
    std::int8_t sub = choosing, partner = nobody;  // of whoever settles
    bool leaving = false, has_left = false;
    bool told_closed_too_early = false;
    std::array<std::int8_t, actors> pc{};

    auto operator<=>(const channel_model&) const = default;

    step take(int who) {
        if (who == stopper) return cast.victim == nobody ? step::ended : stop();
        if (who == closer) return cast.closes ? close() : step::ended;
        if (who < 2) return who < cast.senders ? take_part(who) : step::ended;
        return who - 2 < cast.receivers ? take_part(who) : step::ended;
    }
    const char* broken() const {
        if (told_closed_too_early) return "a receiver was told that it is closed, and it is not (C5)";
        if (places[0] == nowhere || places[1] == nowhere) return "an item is lost";
        if (lock != nobody) return nullptr;
        bool sender_waits = false, receiver_waits = false;
        for (const std::int8_t w : sender_queue)
            sender_waits = sender_waits || (w != nobody && fates[at(w)] == undecided);
        for (const std::int8_t w : receiver_queue)
            receiver_waits = receiver_waits || (w != nobody && fates[at(w)] == undecided);
        if (receiver_waits && (sender_waits || size() != 0)) return "a receiver waits for what is there (C1)";
        if (sender_waits && size() < cast.capacity) return "a sender waits although there is room (C2)";
        if (closed && (sender_waits || receiver_waits)) return "somebody waits although it is closed (C4)";
        return nullptr;
    }
    const char* unfinished() const {
        for (std::size_t i = 0; i < 2; ++i) {
            if (static_cast<int>(i) >= cast.senders) continue;
            if (places[i] == in_slot) return "an item is where nobody will look";
            if (sent[i] != (places[i] != with_sender)) return "a sender was told what is not so";
        }
        return nullptr;
    }

private:
    static std::size_t at(int who) { return static_cast<std::size_t>(who); }
    bool is_sender(int who) const { return who < 2; }
    std::int8_t& slot(int who) { return slots[at(who - 2)]; }
    step go(int who, int to) {
        pc[at(who)] = static_cast<std::int8_t>(to);
        return step::moved;
    }
    /// Together with the first step under it: a lock that was taken and not used changes nothing for a stop.
    step take_lock(int who, int then) {
        if (lock != nobody) return step::blocked;
        lock = static_cast<std::int8_t>(who);
        (void)go(who, then);
        return take(who);
    }
    step unlock(int who, int then) {
        lock = partner = nobody;
        sub = choosing;
        return go(who, then);
    }
    template <std::size_t n>
    static void push(std::array<std::int8_t, n>& list, int what) {
        for (std::int8_t& place : list)
            if (place == nobody) {
                place = static_cast<std::int8_t>(what);
                return;
            }
    }
    template <std::size_t n>
    static void remove(std::array<std::int8_t, n>& list, int what) {
        std::array<std::int8_t, n> rest;
        rest.fill(nobody);
        std::size_t kept = 0;
        for (const std::int8_t other : list)
            if (other != what && other != nobody) rest[kept++] = other;
        list = rest;
    }
    std::int8_t size() const {
        std::int8_t n = 0;
        for (const std::int8_t item : buffer) n = static_cast<std::int8_t>(n + (item != nobody));
        return n;
    }
    std::int8_t pop_item() {
        const std::int8_t item = buffer[0];
        remove(buffer, item);
        return item;
    }
    void keep(int item) {
        push(buffer, item);
        places[at(item)] = in_channel;
    }
    /// Lets the receiver have it: the item is lost with one that goes on before.
    void fill(int who, int item) {
        if (variant == protocol::goes_on_unlocked && pc[at(who)] >= end) {
            places[at(item)] = nowhere;
            return;
        }
        slot(who) = static_cast<std::int8_t>(item);
        places[at(item)] = in_slot;
    }
    /// complete(): whether it was the first.
    bool complete(int who) {
        if (fates[at(who)] != undecided) return false;
        fates[at(who)] = done;
        return true;
    }

    step take_part(int who) {
        switch (pc[at(who)]) {
            case poll_lock: return take_lock(who, poll);
            case poll: return is_sender(who) ? offer(who) : ask(who);
            case poll_move: return is_sender(who) ? give(who) : get(who);
            case queue_lock:
                if (fates[at(who)] == stopped) return go(who, end);  // attach() finds it stopped
                return take_lock(who, queue);
            case queue:
                if (is_sender(who)) push(sender_queue, who);
                else push(receiver_queue, who);
                return go(who, settling);
            case settling: return settle(who, arm, variant != protocol::trusts_its_look);
            case arm:
                armed[at(who)] = fates[at(who)] == undecided;
                return go(who, armed[at(who)] ? wait : land_lock);
            case wait:
                if (fates[at(who)] == undecided || (who == cast.victim && leaving)) return step::blocked;
                if (who == cast.victim && has_left) return go(who, end);
                return go(who, variant == protocol::goes_on_unlocked ? end : land_lock);
            case land_lock: return take_lock(who, land);
            case land:
                if (is_sender(who)) remove(sender_queue, who);
                else remove(receiver_queue, who);
                return unlock(who, end);
            case end:
                if (is_sender(who) || (fates[at(who)] == stopped && slot(who) == nobody)) return go(who, gone);
                return finish(who);
            case drop_lock: return take_lock(who, dropping);
            case dropping: {
                if (receiver_queue[0] == nobody) {
                    const std::int8_t item = slot(who);
                    slot(who) = nobody;
                    for (std::size_t i = buffer.size() - 1; i > 0; --i) buffer[i] = buffer[i - 1];
                    buffer[0] = item;
                    places[at(item)] = in_channel;
                    return unlock(who, gone);
                }
                partner = receiver_queue[0];
                remove(receiver_queue, partner);
                return complete(partner) ? go(who, drop_move) : step::moved;
            }
            case drop_move:
                fill(partner, slot(who));
                slot(who) = nobody;
                return unlock(who, gone);
            default: return step::ended;
        }
    }
    /// A receiver has got its item, or none.
    step finish(int who) {
        if (slot(who) == nobody) {
            told_closed_too_early = told_closed_too_early || !closed;
            return go(who, gone);
        }
        if (cast.drops && who == cast.receivers + 1) {
            if (variant != protocol::forgets_the_dropped) return go(who, drop_lock);
            places[at(slot(who))] = nowhere;
            return go(who, gone);
        }
        places[at(slot(who))] = taken;
        return go(who, gone);
    }
    /// A sender that tries.
    step offer(int who) {
        if (closed) return unlock(who, gone);
        if (receiver_queue[0] != nobody) {
            partner = receiver_queue[0];
            remove(receiver_queue, partner);
            if (complete(partner)) return go(who, poll_move);
            if (variant == protocol::moves_before_it_wins) places[at(who)] = nowhere;
            return step::moved;
        }
        if (size() >= cast.capacity) return unlock(who, queue_lock);
        keep(who);
        sent[at(who)] = true;
        return unlock(who, gone);
    }
    step give(int who) {
        fill(partner, who);
        sent[at(who)] = true;
        return unlock(who, gone);
    }
    /// A receiver that tries.
    step ask(int who) {
        if (size() != 0) {
            const std::int8_t item = pop_item();
            slot(who) = item;
            places[at(item)] = in_slot;
            return go(who, poll_move);
        }
        if (sender_queue[0] != nobody) {
            partner = sender_queue[0];
            remove(sender_queue, partner);
            if (!complete(partner)) return step::moved;
            slot(who) = partner;
            places[at(partner)] = in_slot;
            sent[at(partner)] = true;
            return unlock(who, end);
        }
        return unlock(who, closed ? end : queue_lock);
    }
    step get(int who) { return settle(who, end, true); }

    /// A decision, a completion or a move in each step; then unlocks.
    step settle(int who, int then, bool looks_at_close) {
        switch (sub) {
            case choosing: {
                const bool rendezvous = size() == 0 && !closed && receiver_queue[0] != nobody;
                if (size() != 0 && receiver_queue[0] != nobody) {
                    partner = receiver_queue[0];
                    remove(receiver_queue, partner);
                    if (complete(partner)) sub = moving_to_receiver;
                    else if (variant == protocol::moves_before_it_wins) places[at(pop_item())] = nowhere;
                } else if (sender_queue[0] != nobody && ((size() < cast.capacity && !closed) || rendezvous)) {
                    if (variant == protocol::receiver_first && size() >= cast.capacity) return meet(who, then);
                    partner = sender_queue[0];
                    remove(sender_queue, partner);
                    if (complete(partner)) sub = moving_from_sender;
                } else if (closed && looks_at_close) {
                    sub = dismissing;
                } else {
                    return unlock(who, then);
                }
                return step::moved;
            }
            case moving_to_receiver:
                fill(partner, pop_item());
                sub = choosing;
                return step::moved;
            case moving_from_sender:
                keep(partner);
                sent[at(partner)] = true;
                sub = choosing;
                return step::moved;
            default:
                for (auto* list : {&sender_queue, &receiver_queue})
                    if (list->front() != nobody) {
                        partner = list->front();
                        remove(*list, partner);
                        (void)complete(partner);
                        return step::moved;
                    }
                return unlock(who, then);
        }
    }
    /// The wrong way round, in one step.
    step meet(int who, int then) {
        const std::int8_t r = receiver_queue[0], s = sender_queue[0];
        remove(receiver_queue, r);
        remove(sender_queue, s);
        if (complete(r) && complete(s)) {
            fill(r, s);
            sent[at(s)] = true;
        }
        return unlock(who, then);
    }

    step stop() {
        const int victim = cast.victim;
        switch (pc[stopper]) {
            case 0:
                if (fates[at(victim)] != undecided) return go(stopper, gone);
                fates[at(victim)] = stopped;
                leaving = armed[at(victim)];
                return go(stopper, leaving ? leave_lock : gone);
            case leave_lock: return take_lock(stopper, leave);
            case leave:
                if (victim < 2) remove(sender_queue, victim);
                else remove(receiver_queue, victim);
                leaving = false;
                has_left = true;
                return unlock(stopper, gone);
            default: return step::ended;
        }
    }
    step close() {
        switch (pc[closer]) {
            case 0: return take_lock(closer, 1);
            case 1: closed = true; return go(closer, settling);
            case settling: return settle(closer, gone, true);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(const scene& s, protocol variant = protocol::as_built) {
    channel_model m;
    m.variant = variant;
    m.cast = s;
    return walk(m);
}

}  // namespace

TEST_CASE("every order of sends, receives, a stop and a close loses no item and leaves nobody waiting",
          "[sync][channel]") {
    std::size_t states = 0;
    for (std::int8_t capacity = 0; capacity <= 1; ++capacity)
        for (std::int8_t senders = 0; senders <= 2; ++senders)
            for (std::int8_t receivers = 0; receivers <= 2; ++receivers)
                for (std::int8_t victim = -1; victim <= 3; ++victim)
                    for (const bool drops : {false, true}) {
                        const bool there = victim < 2 ? victim < senders : victim - 2 < receivers;
                        const bool symmetrical = victim == 1 || (victim == 3 && !drops);
                        if (senders + receivers == 0 || (drops && receivers == 0) || (victim >= 0 && !there) ||
                            symmetrical || senders + receivers == 4)  // four are right, too, and take a minute
                            continue;
                        const scene s{capacity, senders, receivers, victim, true, drops};
                        CAPTURE(int{capacity}, int{senders}, int{receivers}, int{victim}, drops);
                        const auto all = walk_through(s);
                        CHECK(all.fault == "");
                        CHECK(all.endings > 0);
                        states += all.states;
                    }
    CHECK(states > 100'000);
}

TEST_CASE("as many receives as sends end without a close, whatever the order", "[sync][channel]") {
    for (std::int8_t capacity = 0; capacity <= 1; ++capacity)
        for (std::int8_t n = 1; n <= 2; ++n) {
            const scene s{capacity, n, n, -1, false, false};
            CAPTURE(int{capacity}, int{n});
            CHECK(walk_through(s).fault == "");
        }
}

TEST_CASE("the walk over the channel's states sees what its invariants are for", "[sync][channel]") {
    const auto finds = [](const scene& s, protocol variant, const char* what) {
        const auto all = walk_through(s, variant);
        INFO(all.fault);
        CHECK(all.fault.find(what) != std::string::npos);
    };
    finds({.senders = 1, .receivers = 0}, protocol::trusts_its_look, "(C4)");
    finds({.senders = 0, .receivers = 1}, protocol::trusts_its_look, "(C4)");
    finds({.senders = 1, .receivers = 1, .victim = 0}, protocol::receiver_first, "(C5)");
    finds({.senders = 1, .receivers = 1, .victim = 2}, protocol::moves_before_it_wins, "an item is lost");
    finds({.capacity = 1, .senders = 1, .receivers = 1}, protocol::goes_on_unlocked, "an item is lost");
    finds({.senders = 1, .receivers = 1, .drops = true}, protocol::forgets_the_dropped, "an item is lost");
}
