// SPDX-License-Identifier: MIT
// The token bucket beside a slow one in exact rationals, which counts tokens and not positions, over random sequences:
// every answer, every wait and every wake-up must agree to the nanosecond.
#include <cordon/limit/token_bucket.hpp>

#include <cordon/testing/simulation.hpp>

#include "catch.hpp"
#include "exact_bucket.hpp"
#include "fake_clock.hpp"
#include "visits.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <random>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::inherit;
using co::rate;
using co::task;
using co::token_bucket;
using co::detail::int128;
using co::testing::simulation;
using limit_test::come_and_go;
using limit_test::fresh_seed;

/// One that is counted without rounding, with times from nanoseconds to months.
rate some_rate(std::mt19937_64& random) {
    static constexpr std::int64_t periods[]{1, 7, 1'000, 999'983, 1'000'000'000, 60'000'000'000, 3'600'000'000'000};
    if (random() % 12 == 0) return rate::zero();
    return rate(1 + random() % (1u << random() % 20), std::chrono::nanoseconds(periods[random() % 7]));
}

}  // namespace

TEST_CASE("random tries, promises, drains, new terms and jumps of the clock agree with exact rationals",
          "[limit][token_bucket][RL-04][RL-41]") {
    const std::uint64_t first = fresh_seed("exact rationals");
    for (std::uint64_t seed = first; seed < first + 400; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const auto now = [&] { return time.now().time_since_epoch().count(); };
        rate r = some_rate(random);
        std::uint64_t burst = random() % 40;
        token_bucket b(r, burst);
        exact_bucket o(r, burst, now());
        std::int64_t latest = now(), begun = now(), last_promise = 0;
        std::uint64_t taken = 0;  // since the terms were given
        for (int i = 0; i < 400; ++i) {
            INFO("step " << i);
            const std::uint64_t n = random() % (burst + 2);
            // About as long as a few tokens take; sometimes ages, sometimes back, also to before it was made.
            const auto period = static_cast<std::uint64_t>(r.period().count());
            const std::uint64_t typical = period / std::max<std::uint64_t>(r.events(), 1) + 2;
            const auto some = [&](std::uint64_t most) { return std::chrono::nanoseconds(random() % most); };
            switch (random() % 12) {
                case 0:
                case 1: time.advance(some(3 * typical)); break;
                case 2:
                    if (random() % 4 == 0) time.set(std::max(time.now(), co::clock::time_point(1ns * latest)));
                    break;
                case 3: time.advance(some(typical * (burst + 1))); break;
                case 4:
                    if (random() % 8 == 0) time.advance(some(1ull << (random() % 57)));
                    break;
                case 5:
                    if (random() % 4 == 0) time.advance(-some(typical * (random() % 4 == 0 ? burst + 1 : 1)));
                    if (random() % 16 == 0) time.advance(-some(2 * static_cast<std::uint64_t>(latest - begun) + 1));
                    break;
                case 6: {
                    if (n == 0 || n > burst) break;
                    const std::int64_t wait = o.wait(n);
                    auto made = b.reserve(n, 1h);
                    REQUIRE(made.has_value() == (wait >= 0 && wait <= std::chrono::nanoseconds(1h).count()));
                    if (!made) break;
                    REQUIRE((made->time() - time.now()).count() == wait);
                    const std::int64_t act = o.time_at(now()) + wait;
                    if (random() % 2 == 0 && wait > 0 && act > last_promise) {
                        made->cancel();  // no promise is behind it: all of it comes back
                    } else {
                        last_promise = std::max(last_promise, act);
                        made->commit();
                        o.promise(n);
                        taken += n;
                    }
                    break;
                }
                case 7:
                    if (random() % 6 != 0) break;
                    b.drain();
                    o.drain();
                    break;
                case 8: {
                    if (random() % 10 != 0) break;
                    if (o.available() < -1'000) break;  // a debt of ages is cut where counting ends
                    const auto how = static_cast<inherit>(random() % 4);
                    r = some_rate(random);
                    burst = random() % 40;
                    last_promise = how == inherit::reset ? 0 : last_promise - (o.time_at(now()) - now());
                    b.set_rate(r, burst, how);
                    o.set(r, burst, how, now());
                    latest = begun = now();
                    taken = 0;
                    break;
                }
                default:
                    if (!b.try_acquire(n)) {
                        REQUIRE_FALSE(o.take(n));
                        break;
                    }
                    REQUIRE(o.take(n));
                    taken += n;
                    REQUIRE((n == 0 || o.allows(taken, latest)));  // time that passes twice brings nothing twice
                    break;
            }
            latest = std::max<std::int64_t>(latest, now());
            if (now() < latest && !o.within_reach(latest)) time.set(co::clock::time_point(1ns * latest));
            o.come_to(now());
            REQUIRE(b.stats().available == o.available());
            const std::int64_t wait = o.wait(n);
            REQUIRE(b.time_until(n).count() == (wait < 0 ? co::clock::duration::max().count() : wait));
        }
    }
}

namespace {

constexpr std::uint64_t exact_events = 1u << 20;
/// One that may be counted in other units than its own: more events than are exact, or few.
rate some_rounded_rate(std::mt19937_64& random) {
    static constexpr std::int64_t periods[]{1'000'003, 1'000'000'000, 60'000'000'000, 3'600'000'000'000};
    if (random() % 4 == 0) return rate(1 + random() % 5'000, std::chrono::nanoseconds(periods[random() % 2]));
    const std::uint64_t more = 1 + 2 * (random() % (1u << random() % 27));
    return rate(exact_events + more, std::chrono::nanoseconds(periods[random() % 4]));
}
/// The slowest that a rate may be counted as (G3 of gcra.hpp): a token costs 1/1024 ns more.
rate slowest(rate r) {
    if (r.events() <= exact_events) return r;
    return rate(1'024 * r.events(), r.period() * 1'024 + std::chrono::nanoseconds(r.events()));
}
/// The most that a change of terms may cut off a level, in the units of `slowest(r)`: one unit of the bucket, which is
/// 1/1024 ns, or exact.
int128 one_unit(rate r) { return r.events() <= exact_events ? 1 : int128{slowest(r).events()} / 1'024 + 1; }

}  // namespace

TEST_CASE("rates that are rounded admit no more than asked for, and less by a thousandth of a nanosecond a token",
          "[limit][token_bucket][RL-41]") {
    const std::uint64_t first = fresh_seed("rounded rates");
    for (std::uint64_t seed = first; seed < first + 300; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const auto now = [&] { return time.now().time_since_epoch().count(); };
        rate r = some_rounded_rate(random);
        std::uint64_t burst = 1 + random() % 5'000;
        token_bucket b(r, burst);
        // With the same requests granted its level is always between that of these.
        exact_bucket most(r, burst, now()), least(slowest(r), burst, now());
        for (int i = 0; i < 300; ++i) {
            INFO("step " << i);
            const std::uint64_t n = 1 + random() % burst;
            const std::uint64_t to_fill = static_cast<std::uint64_t>(r.period().count()) / r.events() * burst + burst;
            switch (random() % 8) {
                case 0: time.advance(std::chrono::nanoseconds(random() % (2 * to_fill))); break;
                case 1:
                case 2: time.advance(std::chrono::nanoseconds(random() % (to_fill / burst + 2))); break;
                case 3: {
                    if (random() % 4 != 0) break;
                    const auto how = static_cast<inherit>(random() % 4);
                    r = some_rounded_rate(random);
                    burst = 1 + random() % 5'000;
                    b.set_rate(r, burst, how);
                    most.set(r, burst, how, now(), 1);
                    least.set(slowest(r), burst, how, now(), -one_unit(r));
                    break;
                }
                case 4: {
                    auto made = b.reserve(n, 1h);
                    if (!made) break;
                    made->commit();
                    most.promise(n);
                    least.promise(n);
                    break;
                }
                default:
                    if (b.try_acquire(n)) {
                        REQUIRE(most.take(n));
                        least.promise(n);
                    } else {
                        REQUIRE_FALSE(least.take(n));
                    }
            }
            most.come_to(now());
            least.come_to(now());
            const std::int64_t available = b.stats().available, wait = b.time_until(n).count();
            REQUIRE(available <= most.available());
            REQUIRE(available >= least.available());
            if (n > burst) continue;
            REQUIRE(wait >= most.wait(n));
            REQUIRE(wait <= least.wait(n));
        }
    }
}

namespace {

struct visit : limit_test::visit {
    std::uint64_t n = 0;  ///< what it waits for
};

task<> one(token_bucket& b, visit& v, std::int64_t t0) {
    co_await b.acquire(v.n);
    v.served = co::clock::now().time_since_epoch().count() - t0;
}

/// When everybody is served: by a queue in front of a bucket of exact rationals, event by event.
std::vector<std::int64_t> expected_times(rate r, std::uint64_t burst, const std::vector<visit>& visits) {
    exact_bucket o(r, burst, 0);
    o.drain();
    std::vector<std::int64_t> served(visits.size(), -1);
    std::deque<std::size_t> queue;
    std::map<std::int64_t, std::vector<std::size_t>> leaving;
    for (std::size_t i = 0; i < visits.size(); ++i)
        if (visits[i].leaves) leaving[*visits[i].leaves].push_back(i);
    std::int64_t now = 0;
    const auto serve_until = [&](std::int64_t until) {
        while (!queue.empty()) {
            const std::int64_t wait = o.wait(visits[queue.front()].n);
            if (now + wait > until) break;
            now += wait;
            o.come_to(now, true);
            REQUIRE(o.take(visits[queue.front()].n));
            served[queue.front()] = now;
            queue.pop_front();
        }
        now = until;
        o.come_to(now, !queue.empty());
    };
    std::size_t next = 0;
    while (next < visits.size() || !leaving.empty() || !queue.empty()) {
        const bool comes = next < visits.size();
        if (!comes && leaving.empty()) {
            serve_until(std::numeric_limits<std::int64_t>::max() / 4);
            break;
        }
        if (comes && (leaving.empty() || visits[next].comes <= leaving.begin()->first)) {
            serve_until(visits[next].comes);
            queue.push_back(next++);
        } else {
            serve_until(leaving.begin()->first);
            for (const std::size_t i : leaving.begin()->second) std::erase(queue, i);
            leaving.erase(leaving.begin());
        }
    }
    return served;
}

}  // namespace

TEST_CASE("those who wait are served when a queue before an exact bucket would serve them",
          "[limit][token_bucket][RL-74]") {
    const std::uint64_t first = fresh_seed("exact queue");
    for (std::uint64_t seed = first; seed < first + 150; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        const rate r(1 + random() % 50, std::chrono::nanoseconds(1'000 + random() % 5'000));
        const std::uint64_t burst = 1 + random() % 8;
        std::vector<visit> visits(3 + random() % 12);
        std::int64_t at = 0;
        for (visit& v : visits) {
            at += 1 + static_cast<std::int64_t>(random() % 400);
            v.comes = 2 * at;  // even: nobody comes, leaves and is served at one time
            v.n = 1 + random() % burst;
            if (random() % 3 == 0) v.leaves = v.comes + 1 + 2 * static_cast<std::int64_t>(random() % 1'000);
        }
        const std::vector<std::int64_t> expected = expected_times(r, burst, visits);
        const auto root = [&]() -> task<> {
            token_bucket b(r, burst);
            b.drain();
            co_await come_and_go(b, visits, &one);
        };
        simulation(seed).run(root());
        for (std::size_t i = 0; i < visits.size(); ++i) {
            INFO("visit " << i << " comes " << visits[i].comes << " wants " << visits[i].n);
            if (visits[i].leaves && expected[i] == *visits[i].leaves) continue;  // a tie: either may win
            REQUIRE(visits[i].served == expected[i]);
        }
    }
}
