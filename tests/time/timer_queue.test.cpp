// SPDX-License-Identifier: MIT
#include <cordon/time/timer_queue.hpp>

#include "catch.hpp"

#include <algorithm>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <random>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::locked_timer_queue;
using cordon::timer_queue;
using time_point = cordon::timer::time_point;

time_point at(std::chrono::nanoseconds t) { return time_point(t); }

// A timer that runs a test's callable.
struct hooked : cordon::timer {
    explicit hooked(std::function<void(hooked&)> f = {}) : timer(&call), body(std::move(f)) {}
    hooked(time_point t, std::function<void(hooked&)> f) : hooked(std::move(f)) { when = t; }

    static void call(cordon::timer& t) noexcept {
        auto& self = static_cast<hooked&>(t);
        ++self.fired;
        if (self.body) self.body(self);
    }

    std::function<void(hooked&)> body;
    int fired = 0;
};

std::vector<cordon::timer*> pop_all(timer_queue& queue, time_point now) {
    std::vector<cordon::timer*> result;
    while (cordon::timer* const t = queue.pop_due(now)) result.push_back(t);
    return result;
}

// The queue beside a multimap, which keeps equal keys in order of insertion.
class model {
public:
    explicit model(std::uint64_t seed) : random_(seed) {}

    void insert(time_point when) {
        std::unique_ptr<hooked> t;
        if (unused_.empty()) {
            t = std::make_unique<hooked>();
        } else {
            t = std::move(unused_.back());
            unused_.pop_back();
        }
        t->when = when;
        queue_.insert(*t);
        expected_.emplace(when, std::move(t));
    }

    void erase_random() {
        if (expected_.empty()) return;
        auto i = expected_.begin();
        // Mostly near the front, where the queue keeps its cached earliest.
        const std::size_t reach = below(4) == 0 ? expected_.size() : std::min<std::size_t>(expected_.size(), 4);
        std::advance(i, static_cast<std::ptrdiff_t>(below(reach)));
        queue_.erase(*i->second);
        retire(i);
    }

    void erase_all() {
        while (!expected_.empty()) {
            queue_.erase(*expected_.begin()->second);
            retire(expected_.begin());
        }
    }

    // Takes out at most `most` of what is due; true if everything agreed.
    bool pop(time_point now, std::size_t most) {
        for (std::size_t n = 0; n < most; ++n) {
            cordon::timer* const got = queue_.pop_due(now);
            const auto first = expected_.begin();
            const bool due = first != expected_.end() && first->first <= now;
            if (!due) return got == nullptr;
            if (got != first->second.get() || timer_queue::armed(*got)) return false;
            retire(first);
        }
        return true;
    }

    bool agrees(std::optional<time_point> drained) {
        if (queue_.size() != expected_.size() || queue_.empty() != expected_.empty()) return false;
        const auto wake = queue_.next_wake();
        if (expected_.empty()) return !wake && !queue_.next();
        const time_point first = expected_.begin()->first;
        if (!wake || *wake > first) return false;
        if (drained && first > *drained && *wake <= *drained) return false;  // a loop would spin
        return below(2) == 0 || queue_.next() == first;
    }

    std::uint64_t below(std::uint64_t n) { return random_() % n; }
    std::size_t size() const { return expected_.size(); }

private:
    using map = std::multimap<time_point, std::unique_ptr<hooked>>;
    void retire(map::iterator i) {
        unused_.push_back(std::move(i->second));
        expected_.erase(i);
    }

    std::mt19937_64 random_;
    timer_queue queue_;
    map expected_;
    std::vector<std::unique_ptr<hooked>> unused_;
};

}  // namespace

TEST_CASE("the queue does what a multimap does, whatever comes", "[time][timer_queue]") {
    const std::uint64_t seed = GENERATE(1u, 2u, 3u, 4u, 5u, 6u, 7u, 8u);
    // How far deadlines spread: equal ones all the time, up to a wide mix.
    const std::int64_t spread = GENERATE(std::int64_t{4}, std::int64_t{1000}, std::int64_t{3'600'000'000'000});
    CAPTURE(seed, spread);
    model m(seed);
    time_point now = at(std::chrono::nanoseconds(static_cast<std::int64_t>(m.below(1'000'000'000'000'000))));
    std::optional<time_point> drained;
    int wrong = 0;
    for (int step = 0; step < 8000 && wrong == 0; ++step) {
        const auto far = static_cast<std::int64_t>(m.below(static_cast<std::uint64_t>(spread)));
        switch (m.below(11)) {
        case 0: case 1: case 2: case 9: case 10: m.insert(now + std::chrono::nanoseconds(far)); break;
        case 3: m.insert(now - std::chrono::nanoseconds(far / 2)); break;
        case 4: m.erase_random(); break;
        case 5:
            now += std::chrono::nanoseconds(m.below(3) == 0 ? far / 16 : far % 7);
            if (!m.pop(now, 100'000)) ++wrong;
            drained = now;
            break;
        case 6: if (!m.pop(now, 1 + m.below(3))) ++wrong; break;  // the rest stays due
        case 7: if (!m.pop(now - std::chrono::nanoseconds(far), 5)) ++wrong; break;  // a clock that was read before
        default: m.erase_random(); m.erase_random(); break;
        }
        if (!m.agrees(drained)) ++wrong;
    }
    CHECK(wrong == 0);
    m.erase_all();
}

TEST_CASE("a timer is not due a nanosecond early and is due on time", "[time][timer_queue][T2]") {
    timer_queue queue;
    std::deque<hooked> timers;
    std::mt19937_64 random(42);
    std::vector<time_point> times;
    for (int i = 0; i < 2000; ++i) times.push_back(at(std::chrono::nanoseconds(random() % 100'000'000'000)));
    std::sort(times.begin(), times.end());
    times.erase(std::unique(times.begin(), times.end()), times.end());
    for (const time_point t : times) queue.insert(timers.emplace_back(t, nullptr));
    int wrong = 0;
    for (std::size_t i = 0; i < times.size(); ++i) {
        if (queue.next() != times[i]) ++wrong;
        if ((i == 0 || times[i] - 1ns != times[i - 1]) && queue.pop_due(times[i] - 1ns) != nullptr) ++wrong;
        if (queue.pop_due(times[i]) != &timers[i]) ++wrong;
    }
    CHECK(wrong == 0);
    CHECK(queue.empty());
    CHECK(queue.next() == std::nullopt);
    CHECK(queue.next_wake() == std::nullopt);
}

TEST_CASE("equal deadlines keep their order while time comes nearer", "[time][timer_queue]") {
    timer_queue queue;
    std::deque<hooked> timers;
    std::vector<cordon::timer*> order;
    const time_point deadline = at(1'000'000'007ns);
    // One is added each time the queue has moved on, between others that force buckets to be split.
    for (std::int64_t remaining = 1'000'000'000; remaining > 1; remaining -= remaining / 3 + 1) {
        order.push_back(&timers.emplace_back(deadline, nullptr));
        queue.insert(*order.back());
        for (int i = 1; i <= 24; ++i) {
            queue.insert(timers.emplace_back(deadline + std::chrono::nanoseconds(i), nullptr));
        }
        CHECK(queue.pop_due(deadline - std::chrono::nanoseconds(remaining)) == nullptr);
    }
    CHECK(pop_all(queue, deadline) == order);
    pop_all(queue, deadline + 1s);
    CHECK(queue.empty());
}

TEST_CASE("deadlines that have passed are due at once, in their order", "[time][timer_queue]") {
    timer_queue queue;
    CHECK(queue.pop_due(at(1h)) == nullptr);
    hooked future(at(1h) + 1ns, nullptr), present(at(1h), nullptr), late(at(59min), nullptr), later(at(30min), nullptr),
        also_late(at(59min), nullptr), before_all(at(-5s), nullptr), before_even_that(time_point::min(), nullptr);
    for (hooked* t : {&future, &present, &late, &later, &also_late, &before_all, &before_even_that}) queue.insert(*t);
    CHECK(queue.next() == time_point::min());
    CHECK(pop_all(queue, at(1h)) ==
          std::vector<cordon::timer*>{&before_even_that, &before_all, &later, &late, &also_late, &present});
    CHECK(pop_all(queue, at(1h) + 1ns) == std::vector<cordon::timer*>{&future});
}

TEST_CASE("a sleeping loop wakes at most 64 times for a timer", "[time][timer_queue]") {
    timer_queue queue;
    std::deque<hooked> timers;
    const time_point start = at(123'456'789'012'345ns);
    CHECK(queue.pop_due(start) == nullptr);
    for (int i = 0; i < 100; ++i) {  // too many for the bucket to be looked through
        queue.insert(timers.emplace_back(start + 10min + std::chrono::nanoseconds(i), nullptr));
    }
    int wakes = 0;
    time_point now = start;
    while (now < start + 10min) {
        REQUIRE(queue.next_wake() > now);
        now = *queue.next_wake();
        ++wakes;
        if (now < start + 10min) REQUIRE(queue.pop_due(now) == nullptr);
    }
    CHECK(now == start + 10min);
    CHECK(wakes <= 64);
    CHECK(pop_all(queue, now + 100ns).size() == 100);
}

TEST_CASE("a few timers have an exact wake time", "[time][timer_queue]") {
    timer_queue queue;
    hooked a(at(1000s), nullptr), b(at(700s), nullptr), c(at(900s), nullptr);
    for (hooked* t : {&a, &b, &c}) queue.insert(*t);
    CHECK(queue.next_wake() == at(700s));
    queue.erase(b);
    CHECK(queue.next_wake() == at(900s));
    queue.erase(c);
    CHECK(queue.next_wake() == at(1000s));
    queue.erase(a);
    CHECK_FALSE(timer_queue::armed(a));
}

TEST_CASE("fire_due fires what is due and nothing else", "[time][timer_queue]") {
    locked_timer_queue queue;
    std::vector<int> order;
    hooked a(at(3s), [&](hooked&) { order.push_back(3); });
    hooked b(at(1s), [&](hooked&) { order.push_back(1); });
    hooked c(at(2s), [&](hooked&) { order.push_back(2); });
    for (hooked* t : {&a, &b, &c}) queue.arm(*t);
    CHECK(queue.next() == at(1s));
    CHECK(queue.fire_due(at(1s) - 1ns) == 0);
    CHECK(queue.fire_due(at(2s)) == 2);
    CHECK(order == std::vector<int>{1, 2});
    CHECK(queue.size() == 1);
    CHECK(queue.next_wake() == at(3s));
    CHECK(queue.fire_due(at(1h)) == 1);
    CHECK(queue.fire_due(at(1h)) == 0);
    CHECK(queue.empty());
    CHECK(queue.next_wake() == std::nullopt);
}

TEST_CASE("cancelling an unarmed timer does nothing, twice neither", "[time][timer_queue]") {
    locked_timer_queue queue;
    hooked t(at(1s), nullptr);
    queue.cancel(t);
    queue.arm(t);
    queue.cancel(t);
    queue.cancel(t);
    CHECK(queue.fire_due(at(2s)) == 0);
    CHECK(t.fired == 0);
}

TEST_CASE("a timer can cancel itself inside its own fire", "[time][timer_queue]") {
    locked_timer_queue queue;
    hooked t(at(1s), [&](hooked& self) { queue.cancel(self); });
    queue.arm(t);
    CHECK(queue.fire_due(at(1s)) == 1);
    CHECK(queue.empty());

    hooked twice(at(2s), [&](hooked& self) {
        queue.arm(self);
        queue.cancel(self);
    });
    queue.arm(twice);
    CHECK(queue.fire_due(at(3s)) == 1);
    CHECK(queue.empty());
}

TEST_CASE("a timer can arm itself again inside its own fire", "[time][timer_queue]") {
    locked_timer_queue queue;
    hooked t(at(1s), [&](hooked& self) {
        self.when += 1s;
        queue.arm(self);
    });
    queue.arm(t);
    CHECK(queue.fire_due(at(1s)) == 1);
    CHECK(queue.next() == at(2s));
    CHECK(queue.fire_due(at(2s)) == 1);
    queue.cancel(t);

    hooked eager(at(1s), [&](hooked& self) { queue.arm(self); });  // always in the past
    queue.arm(eager);
    CHECK(queue.fire_due(at(5s)) == 1);
    CHECK(queue.next_wake() <= at(5s));
    CHECK(queue.fire_due(at(5s)) == 1);
    queue.cancel(eager);
}

TEST_CASE("a fire can cancel and destroy other timers, and itself", "[time][timer_queue]") {
    locked_timer_queue queue;
    hooked victim(at(1s), nullptr), later_victim(at(5s), nullptr);
    hooked t(at(1s), [&](hooked&) {
        queue.cancel(victim);
        queue.cancel(later_victim);
    });
    queue.arm(t);
    queue.arm(victim);
    queue.arm(later_victim);
    CHECK(queue.fire_due(at(10s)) == 1);
    CHECK(victim.fired == 0);
    CHECK(later_victim.fired == 0);
    CHECK(queue.empty());

    auto other = std::make_unique<hooked>(at(20s), nullptr);
    std::unique_ptr<hooked> self;
    self = std::make_unique<hooked>(at(20s), [&](hooked&) {
        queue.cancel(*other);
        other.reset();
        auto body = std::move(self->body);  // what runs now outlives the node
        self.reset();
    });
    queue.arm(*self);
    queue.arm(*other);
    CHECK(queue.fire_due(at(20s)) == 1);
    CHECK(queue.empty());
}

TEST_CASE("firing does not nest", "[time][timer_queue]") {
    locked_timer_queue queue;
    std::size_t inner = 99;
    hooked a(at(1s), [&](hooked&) { inner = queue.fire_due(at(2s)); }), b(at(2s), nullptr);
    queue.arm(a);
    queue.arm(b);
    CHECK(queue.fire_due(at(2s)) == 2);
    CHECK(inner == 0);
    CHECK(b.fired == 1);
}

TEST_CASE("whoever arms an earlier timer than the loop waits for wakes it, once", "[time][timer_queue]") {
    int woken = 0;
    locked_timer_queue queue([](void* n) noexcept { ++*static_cast<int*>(n); }, &woken);
    hooked a(at(10s), nullptr), b(at(20s), nullptr), c(at(5s), nullptr), d(at(5s), nullptr), e(at(8s), nullptr);
    queue.arm(a);
    CHECK(woken == 1);
    CHECK(queue.next_wake() == at(10s));
    queue.arm(b);
    CHECK(woken == 1);
    queue.arm(c);
    CHECK(woken == 2);
    queue.arm(d);
    CHECK(woken == 2);
    queue.cancel(c);
    queue.cancel(d);
    queue.arm(e);  // the loop has been woken for 5 s already and asks again
    CHECK(woken == 2);
    queue.cancel(e);
    CHECK(queue.next_wake() == at(10s));
    queue.cancel(a);
    queue.arm(e);
    CHECK(woken == 3);
    // The loop sleeps until 10 s, whose timer is gone by now, and 15 s is later than that: no need to wake it.
    CHECK(queue.fire_due(at(8s)) == 1);
    CHECK(queue.next_wake() == at(20s));
    a.when = at(15s);
    queue.arm(a);
    CHECK(woken == 4);
    queue.cancel(a);
    queue.cancel(b);
}

TEST_CASE("a hundred thousand deadlines in the past do not touch those to come", "[time][timer_queue]") {
    timer_queue queue;
    std::deque<hooked> timers;
    CHECK(queue.pop_due(at(1h)) == nullptr);
    for (int i = 0; i < 1000; ++i) queue.insert(timers.emplace_back(at(2h) + std::chrono::microseconds(i), nullptr));
    for (int i = 0; i < 100'000; ++i) {  // descending: the worst for a sorted list
        queue.insert(timers.emplace_back(at(30min) - std::chrono::microseconds(i), nullptr));
    }
    time_point last = time_point::min();
    int wrong = 0, popped = 0;
    while (const cordon::timer* const t = queue.pop_due(at(1h))) {
        if (t->when < last) ++wrong;
        last = t->when;
        ++popped;
    }
    CHECK(wrong == 0);
    CHECK(popped == 100'000);
    CHECK(queue.next() == at(2h));
    CHECK(pop_all(queue, at(3h)).size() == 1000);
}
