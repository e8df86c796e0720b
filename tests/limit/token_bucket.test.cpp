// SPDX-License-Identifier: MIT
#include <cordon/limit/token_bucket.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::every;
using co::inherit;
using co::outcome;
using co::per_minute;
using co::per_second;
using co::rate;
using co::reject_reason;
using co::task;
using co::token_bucket;
using co::verdict;
using co::testing::simulation;
using reservation = token_bucket::reservation;

constexpr auto d = 100ms;
constexpr std::uint64_t largest = std::numeric_limits<std::uint64_t>::max();

static_assert(co::observable<token_bucket>);
static_assert(!std::is_copy_constructible_v<token_bucket::permit>);
static_assert(!std::is_copy_constructible_v<reservation>);

/// Reserves, and says how many `d` after `t0` the time is; -1 if it was refused.
class table {
public:
    table(token_bucket& b, fake_clock& c) : bucket_(b), clock_(c), t0_(c.now()) {}
    void at(int t) { clock_.set(t0_ + t * d); }
    reservation reserve(std::uint64_t n, int expected) {
        outcome<reservation> r = bucket_.reserve(n);
        REQUIRE(r.has_value());
        CHECK((r->time() - t0_) / d == expected);
        CHECK((r->time() - t0_) % d == 0ns);
        return *std::move(r);
    }
    /// The same, used.
    void use(std::uint64_t n, int expected) { reserve(n, expected).commit(); }

private:
    token_bucket& bucket_;
    fake_clock& clock_;
    co::clock::time_point t0_;
};

/// Waits for `n`, and writes down its name and when that was, in `d` from `t0`.
task<> take(token_bucket& b, std::uint64_t n, std::string& log, char name, co::clock::time_point t0) {
    co_await b.acquire(n);
    log += name + std::to_string((co::clock::now() - t0) / d) + ' ';
}

task<> until_waiting(token_bucket& b, std::size_t count) {
    while (b.stats().waiting < count) co_await co::this_task::yield();
}

/// How long a wait for `n` took, or that it was refused, in milliseconds: -1.
task<long> waits_ms(token_bucket& b, std::uint64_t n) {
    const auto from = co::clock::now();
    auto ended = co_await co::as_outcome(b.acquire(n));
    if (ended.is_rejected()) co_return -1;
    co_return static_cast<long>((co::clock::now() - from) / 1ms);
}

}  // namespace

TEST_CASE("tokens that are there are taken at once, all or none", "[limit][token_bucket][RL-70]") {
    fake_clock time;
    SECTION("a burst of none never admits") {
        token_bucket b(per_second(1), 0);
        CHECK_FALSE(b.try_acquire());
        time.advance(100'500s);
        CHECK_FALSE(b.try_acquire());
        CHECK(b.time_until() == co::clock::duration::max());
        CHECK(b.try_acquire(0));
    }
    SECTION("takes and refills") {
        token_bucket b(per_second(1), 10, {.name = "ten"});
        const auto available = [&] { return b.stats().available; };
        CHECK(b.name() == "ten");
        CHECK(b.try_acquire(3));
        CHECK(available() == 7);
        CHECK(b.try_acquire(1));
        CHECK(available() == 6);
        CHECK_FALSE(b.try_acquire(9));
        CHECK(available() == 6);
        CHECK(b.try_acquire(1));
        CHECK(b.try_acquire(0));
        CHECK(available() == 5);
        time.advance(4s);
        CHECK(available() == 9);
        CHECK(b.try_acquire(1));
        CHECK(b.try_acquire(8));
        CHECK(available() == 0);
        CHECK_FALSE(b.try_acquire(42));
        CHECK_FALSE(b.try_acquire(1));
        CHECK(b.try_acquire(0));
        CHECK(b.stats().rejected == 3);
    }
    SECTION("half a token is kept") {
        token_bucket b(every(2s), 10);
        CHECK(b.try_acquire(10));
        time.advance(1s);
        CHECK(b.stats().available == 0);
        time.advance(1s);
        CHECK(b.stats().available == 1);
    }
    SECTION("a long sleep fills it, and no more") {
        token_bucket b(per_second(1), 10);
        CHECK(b.try_acquire(10));
        time.advance(std::chrono::hours(24 * 365 * 100));
        CHECK(b.stats().available == 10);
        CHECK(b.try_acquire(10));
        CHECK_FALSE(b.try_acquire(1));
        time.advance(1s);
        CHECK(b.try_acquire(1));
    }
}

TEST_CASE("GCRA admits, refuses and tells the wait exactly", "[limit][token_bucket][RL-31][RL-33]") {
    fake_clock time;
    token_bucket b(per_second(2), 2);
    const auto t0 = time.now();
    const auto at = [&](std::chrono::nanoseconds t) { time.set(t0 + t); };
    CHECK(b.try_acquire(1));
    at(1ms);
    CHECK(b.try_acquire());
    at(2ms);
    CHECK_FALSE(b.try_acquire(1));
    CHECK(b.time_until() == 498ms);
    at(1002ms);
    CHECK(b.try_acquire());
    at(1003ms);
    CHECK(b.try_acquire(1));
    at(1004ms);
    CHECK_FALSE(b.try_acquire());
}

TEST_CASE("no extra token comes after a longer pause", "[limit][token_bucket][RL-32]") {
    fake_clock time;
    token_bucket b(per_second(5), 5);
    for (int round = 0; round < 2; ++round) {
        for (int i = 0; i < 5; ++i) CHECK(b.try_acquire());
        CHECK_FALSE(b.try_acquire());
        time.advance(2s);
    }
}

TEST_CASE("weights are admitted as so many ones", "[limit][token_bucket][RL-34][RL-64]") {
    fake_clock time;
    token_bucket b(per_second(4), 4);
    const auto t0 = time.now();
    const std::array<std::pair<std::chrono::milliseconds, bool>, 6> rows{
        {{0ms, true}, {0ms, true}, {1ms, false}, {1001ms, true}, {1002ms, true}, {1003ms, false}}};
    for (const auto& [when, admitted] : rows) {
        time.set(t0 + when);
        CHECK(b.try_acquire(2) == admitted);
    }
    token_bucket at_once(per_second(4), 4), one_by_one(per_second(4), 4);
    CHECK(at_once.try_acquire(4));
    for (int i = 0; i < 4; ++i) CHECK(one_by_one.try_acquire());
    CHECK(at_once.time_until(3) == one_by_one.time_until(3));
}

TEST_CASE("a try every two milliseconds for five seconds is admitted as often as the rate says",
          "[limit][token_bucket][RL-07]") {
    fake_clock time;
    token_bucket b(per_second(100), 100);
    int admitted = 0;
    for (int i = 0; i < 2'500; ++i, time.advance(2ms)) admitted += b.try_acquire();
    CHECK(admitted == 599);
    CHECK(b.try_acquire());
    CHECK_FALSE(b.try_acquire());
}

TEST_CASE("a clock that goes back neither makes tokens nor breaks anything", "[limit][token_bucket][RL-04][RL-17]") {
    fake_clock time;
    token_bucket b(per_second(10), 3);
    const auto t0 = time.now();
    const auto t1 = t0 + d, t2 = t0 + 2 * d;
    int admitted = 0;
    time.set(t1);
    CHECK(b.try_acquire());
    time.set(t0);  // before the bucket was made, as far as it knows
    for (int i = 0; i < 5; ++i) admitted += b.try_acquire();
    CHECK(admitted <= 2);
    time.set(t1);
    for (int i = 0; i < 5; ++i) admitted += b.try_acquire();
    CHECK(admitted <= 3);
    time.set(t2);
    for (int i = 0; i < 5; ++i) admitted += b.try_acquire();
    CHECK(admitted <= 4);
    CHECK(admitted >= 3);

    token_bucket promised(per_second(10), 2);
    table row(promised, time);
    row.at(1);
    row.use(2, 1);
    auto first = promised.reserve(1);
    row.at(0);
    auto second = promised.reserve(1);
    CHECK(second->time() >= first->time());
    CHECK(promised.reserve(3).rejection().reason == reject_reason::too_large);
    const auto before = promised.stats().available;
    CHECK(promised.reserve(2, 1ms).rejection().reason == reject_reason::rate_limited);
    CHECK(promised.stats().available == before);
    CHECK(promised.time_until(1) > 0s);
}

TEST_CASE("reservations tell when to act", "[limit][token_bucket][RL-08][RL-09]") {
    fake_clock time;
    token_bucket b(per_second(10), 2);
    table row(b, time);
    SECTION("one behind the other") {
        row.use(2, 0);
        row.use(2, 2);
        row.at(3);
        row.use(2, 4);
    }
    SECTION("mixed with tries") {
        CHECK(b.reserve(3).rejection().reason == reject_reason::too_large);
        row.use(2, 0);
        row.at(1);
        CHECK_FALSE(b.try_acquire(2));
        row.use(2, 2);
        CHECK(b.stats().available == -1);
        CHECK_FALSE(b.try_acquire(1));
        row.at(3);
        CHECK(b.try_acquire(1));
    }
}

TEST_CASE("a cancelled reservation gives back what no later one counts on",
          "[limit][token_bucket][RL-12][RL-13][RL-14][RL-15][RL-16][RL-18]") {
    fake_clock time;
    SECTION("after its time nothing") {
        token_bucket b(per_second(10), 2);
        table row(b, time);
        row.use(2, 0);
        reservation r = row.reserve(2, 2);
        row.at(3);
        r.cancel();
        CHECK_FALSE(r);
        row.use(2, 4);
    }
    SECTION("a later promise stays, so its tokens do not come back") {
        token_bucket b(per_second(10), 2);
        table row(b, time);
        row.use(2, 0);
        reservation r = row.reserve(1, 1);
        row.use(1, 2);
        r.cancel();
        row.use(1, 3);
    }
    SECTION("exactly at its time, but for what is promised") {
        token_bucket b(per_second(10), 2);
        table row(b, time);
        row.use(2, 0);
        reservation r = row.reserve(2, 2);
        row.use(1, 3);
        row.at(2);
        r.cancel();
        row.use(2, 4);
    }
    SECTION("several") {
        token_bucket b(per_second(10), 4);
        table row(b, time);
        row.use(4, 0);
        reservation a = row.reserve(3, 3);
        row.use(1, 4);
        reservation c = row.reserve(1, 5);
        row.at(1);
        c.cancel();
        a.cancel();
        row.use(3, 5);
    }
    SECTION("after the clock went back") {
        token_bucket b(per_second(10), 2);
        table row(b, time);
        row.at(1);
        row.use(2, 1);
        reservation r = row.reserve(2, 3);
        row.use(1, 4);
        row.at(0);
        r.cancel();
        CHECK(b.time_until(2) <= 5 * d);
        CHECK(b.time_until(2) >= 4 * d);
    }
    SECTION("once, however often it is asked, moved and destroyed") {
        token_bucket b(per_second(10), 4);
        table row(b, time);
        row.use(4, 0);
        {
            reservation r = row.reserve(2, 2);
            reservation moved = std::move(r);
            CHECK_FALSE(r);  // NOLINT
            CHECK(moved);
            moved.cancel();
            moved.cancel();
        }
        CHECK(b.stats().available == 0);
        { const reservation dropped = row.reserve(4, 4); }
        CHECK(b.stats().available == 0);
        reservation used = row.reserve(3, 3);
        used.commit();
        used.cancel();
        CHECK(b.stats().available == -3);
    }
    SECTION("never more than a burst") {
        token_bucket b(per_second(10), 2);
        table row(b, time);
        reservation r = row.reserve(2, 0);
        r.cancel();
        CHECK(b.stats().available == 2);
        row.at(5);
        CHECK(b.stats().available == 2);
    }
}

TEST_CASE("many reservations cancelled in any order never admit more than the rate",
          "[limit][token_bucket][RL-16]") {
    for (std::uint64_t seed = 0; seed < 200; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const std::uint64_t burst = 1 + random() % 6;
        token_bucket b(per_second(10), burst);
        struct use {
            reservation r;
            std::uint64_t n;
        };
        std::vector<use> open;
        for (int i = 0; i < 120; ++i) {
            switch (random() % 4) {
                case 0: time.advance(std::chrono::milliseconds(random() % 150)); break;
                case 1:
                    if (!open.empty()) {
                        const auto victim = open.begin() + static_cast<std::ptrdiff_t>(random() % open.size());
                        if (victim->r.time() > time.now()) open.erase(victim);  // nobody has acted upon it
                    }
                    break;
                default: {
                    const std::uint64_t n = 1 + random() % burst;
                    auto r = b.reserve(n, 3s);
                    if (r) open.push_back({*std::move(r), n});
                }
            }
        }
        // Whatever the two that it lies between, a window holds at most a burst and what its length brings.
        std::sort(open.begin(), open.end(), [](const use& x, const use& y) { return x.r.time() < y.r.time(); });
        for (std::size_t i = 0; i < open.size(); ++i) {
            std::uint64_t sum = 0;
            for (std::size_t j = i; j < open.size(); ++j) {
                sum += open[j].n;
                const auto length = static_cast<std::uint64_t>((open[j].r.time() - open[i].r.time()) / 1ns);
                REQUIRE(sum * 100'000'000 <= burst * 100'000'000 + length);
            }
        }
        for (use& u : open) u.r.commit();
    }
}

TEST_CASE("new terms settle at the old rate, and a promise stays", "[limit][token_bucket][RL-19][RL-20][RL-59]") {
    fake_clock time;
    SECTION("a rate") {
        token_bucket b(per_second(5), 2);
        table row(b, time);
        row.use(2, 0);
        reservation promised = row.reserve(2, 4);
        row.at(2);
        b.set_rate(per_second(10), 2);
        row.use(1, 4);
        CHECK(promised.time() == time.now() + 2 * d);
    }
    SECTION("a burst: four more tokens are nine intervals away, as in x/time, counted from the change") {
        token_bucket b(per_second(5), 2);
        table row(b, time);
        row.use(2, 0);
        row.use(2, 4);
        row.at(3);
        b.set_rate(per_second(5), 4);
        row.use(4, 3 + 9);
    }
    SECTION("what was taken before goes back no more") {
        token_bucket b(per_second(5), 2);
        reservation now = *b.reserve(2);
        reservation later = *b.reserve(2);
        b.set_rate(per_second(5), 2);
        const auto wait = b.time_until(1);
        later.cancel();
        now.cancel();
        CHECK(b.time_until(1) == wait);
    }
}

TEST_CASE("tokens are inherited as asked for", "[limit][token_bucket][RL-71]") {
    fake_clock time;
    const auto left = [](std::uint64_t burst, inherit how) {
        token_bucket b(per_second(1), 100);
        CHECK(b.try_acquire(60));
        b.set_rate(per_second(1), burst, how);
        return b.stats().available;
    };
    CHECK(left(200, inherit::proportional) == 80);
    CHECK(left(200, inherit::as_is) == 40);
    CHECK(left(200, inherit::additive) == 140);
    CHECK(left(200, inherit::reset) == 200);
    CHECK(left(20, inherit::proportional) == 8);
    CHECK(left(20, inherit::as_is) == 20);
    CHECK(left(20, inherit::additive) == 20);
    CHECK(left(0, inherit::as_is) == 0);
}

TEST_CASE("a reservation that a reset has forgotten keeps no tokens of later ones", "[limit][token_bucket]") {
    fake_clock time;
    token_bucket b(per_second(1), 1);
    for (int i = 0; i < 5; ++i) b.reserve()->commit();  // the last of them in four seconds
    b.set_rate(per_second(1), 1, inherit::reset);
    CHECK(b.try_acquire());
    b.reserve()->cancel();
    CHECK(b.stats().available == 0);
    CHECK(b.time_until() == 1s);
}

TEST_CASE("a rate of zero admits one burst, and none until it is changed", "[limit][token_bucket][RL-27][RL-28]") {
    const auto root = []() -> task<> {
        token_bucket b(rate::zero(), 1);
        CHECK(b.try_acquire());
        co_await co::sleep_for(1h);
        CHECK_FALSE(b.try_acquire());
        CHECK(b.time_until() == co::clock::duration::max());
        const auto from = co::clock::now();
        auto never = co_await co::as_outcome(b.acquire());
        CHECK(never.is_rejected());
        CHECK(never.rejection().reason == reject_reason::rate_limited);
        CHECK(never.rejection().retry_after == std::chrono::nanoseconds::max());
        CHECK(co::clock::now() == from);
        b.set_rate(per_second(10), 1);
        co_await b.acquire();
        CHECK(co::clock::now() - from == d);
        b.set_rate(per_second(10), 0);
        auto impossible = co_await co::as_outcome(b.acquire());
        CHECK(impossible.rejection().reason == reject_reason::too_large);
        CHECK(co::clock::now() - from == d);
    };
    simulation().run(root());
}

TEST_CASE("a tiny rate does not overflow", "[limit][token_bucket][RL-29]") {
    fake_clock time;
    token_bucket b(every(std::chrono::hours(24 * 365 * 317)), 1);
    CHECK(b.try_acquire());
    CHECK_FALSE(b.try_acquire());
    CHECK(b.time_until() > std::chrono::hours(24 * 365 * 200));
    CHECK(b.reserve(1, 1h).is_rejected());
    token_bucket five(every(std::chrono::hours(24 * 365 * 317)), 5);
    for (int i = 0; i < 5; ++i) CHECK(five.try_acquire());
    CHECK_FALSE(five.try_acquire());
}

TEST_CASE("after a long time that nobody asked, figures are what they are once somebody has", "[limit][token_bucket]") {
    fake_clock time;
    token_bucket b(per_second(999'983), 70'000'000);  // whose times are out of reach after 144 s
    std::vector<reservation> ahead;
    for (int i = 0; i < 4; ++i) ahead.push_back(*b.reserve(70'000'000));
    time.advance(200s);
    const auto seen = b.stats().available;
    const auto wait = b.time_until(1);
    CHECK(seen == -10'003'400);
    CHECK(wait > 10s);
    CHECK(wait < 11s);
    CHECK_FALSE(b.try_acquire());  // moves the base
    CHECK(b.stats().available == seen);
    CHECK(b.time_until(1) == wait);
    time.advance(std::chrono::hours(24 * 365 * 100));
    CHECK(b.stats().available == 70'000'000);
    CHECK(b.time_until(70'000'000) == 0ns);
    for (reservation& r : ahead) r.commit();
}

TEST_CASE("weights, bursts and rates near the ends of their types saturate", "[limit][token_bucket][RL-76]") {
    fake_clock time;
    const std::uint64_t most = token_bucket::max_burst;
    for (const std::uint64_t events : {std::uint64_t{1}, std::uint64_t{1'000'003}, largest / 2, largest}) {
        for (const std::uint64_t burst : {std::uint64_t{0}, std::uint64_t{1}, most - 1, most}) {
            token_bucket b(rate(events, 1s), burst);
            for (const std::uint64_t n : {largest, largest - 1, largest / 2, most + 1})
                CHECK_FALSE(b.try_acquire(n));
            CHECK(b.try_acquire(burst));
            CHECK(b.stats().available <= 0);
            const auto promise = b.reserve(burst);  // refused only if it were centuries away
            CHECK((promise.has_value() || promise.rejection().retry_after > std::chrono::hours(24 * 365 * 100)));
            time.advance(1ns);
            (void)b.try_acquire(1);
            (void)b.time_until(burst);
            b.set_rate(rate(largest, 1ns), most);
            b.set_rate(per_second(1), 1);
            CHECK(b.stats().available <= 1);
        }
    }
    CHECK_THROWS_AS(token_bucket(per_second(1), most + 1), std::invalid_argument);
    token_bucket b(per_second(1), 1);
    CHECK_THROWS_WITH(b.set_rate(per_second(1), largest),
                      "token_bucket::set_rate: burst is 18446744073709551615, allowed are 0 to 72057594037927936");
}

TEST_CASE("an unlimited bucket never waits", "[limit][token_bucket][RL-49]") {
    const auto root = []() -> task<> {
        token_bucket b(rate::unlimited(), 0);
        const auto from = co::clock::now();
        for (int i = 0; i < 100; ++i) {
            CHECK(b.try_acquire(1'000'000));
            co_await b.acquire(5);
            CHECK(b.reserve(7)->time() == from);
        }
        CHECK(b.time_until(largest) == 0s);
        CHECK(co::clock::now() == from);
        b.set_rate(per_second(10), 2);
        CHECK(b.try_acquire(2));
        CHECK_FALSE(b.try_acquire());
        b.set_rate(rate::unlimited(), 2);
        CHECK(b.try_acquire(3));
    };
    simulation().run(root());
}

TEST_CASE("who waits as long as it was told is admitted, and not a nanosecond before", "[limit][token_bucket][RL-41]") {
    std::mt19937_64 random(41);
    fake_clock time;
    for (int round = 0; round < 300; ++round) {
        const rate r(1 + random() % 2'000'000, std::chrono::nanoseconds(1 + random() % 3'600'000'000'000));
        const std::uint64_t burst = 1 + random() % 50;
        token_bucket b(r, burst);
        for (int i = 0; i < 30; ++i) {
            const auto refills_in = burst * static_cast<std::uint64_t>(r.period().count()) / r.events();
            time.advance(std::chrono::nanoseconds(random() % (2 * refills_in + 2)));
            const std::uint64_t n = 1 + random() % burst;
            if (b.try_acquire(n)) continue;
            const auto wait = b.time_until(n);
            REQUIRE(wait > 0ns);
            time.advance(wait - 1ns);
            REQUIRE_FALSE(b.try_acquire(n));
            time.advance(1ns);
            REQUIRE(b.try_acquire(n));
        }
    }
}

TEST_CASE("waits take as long as they must, and a burst too large none", "[limit][token_bucket][RL-23][RL-39]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 3);
        const auto too_many = co_await waits_ms(b, 4);
        CHECK(too_many == -1);
        const auto taken = co_await waits_ms(b, 2);
        CHECK(taken == 0);
        const auto waited = co_await waits_ms(b, 3);
        CHECK(waited == 200);
        token_bucket ten(per_second(10), 10);
        CHECK(ten.try_acquire(6));
        const auto five = co_await waits_ms(ten, 5);
        CHECK(five == 100);
        const auto next = co_await waits_ms(ten, 1);
        CHECK(next == 100);
    };
    simulation().run(root());
    const auto many = []() -> task<> {
        token_bucket b(per_second(10), 1);
        CHECK(b.try_acquire());
        const auto from = co::clock::now();
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 20; ++i)
                group.spawn([](token_bucket& bucket) -> task<> { co_await bucket.acquire(); }(b));
            co_return;
        };
        co_await co::with_group(body);
        CHECK(co::clock::now() - from == 2s);
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) simulation(seed).run(many());
}

TEST_CASE("a thread that is to stop takes nothing", "[limit][token_bucket][RL-23]") {
    token_bucket b(per_second(10), 3);
    std::stop_source stop;
    stop.request_stop();
    CHECK(b.acquire_blocking(stop.get_token()).is_stopped());
    CHECK(b.acquire_blocking(co::deadline::at(co::clock::now())).is_stopped());
    CHECK(b.stats().available == 3);
    const outcome<void> large = b.acquire_blocking({}, 4);
    CHECK(large.rejection().reason == reject_reason::too_large);
    CHECK(b.acquire_blocking({}, 3).has_value());
}

TEST_CASE("a thread waits for its tokens by itself, and not beyond its deadline", "[limit][token_bucket]") {
    token_bucket b(per_second(1'000), 1);
    const auto from = co::clock::now();
    for (int i = 0; i < 4; ++i) CHECK(b.acquire_blocking().has_value());
    CHECK(co::clock::now() - from >= 3ms);  // real time: a thread has no other
    CHECK(b.stats().waiting == 0);
    b.set_rate(every(1h), 1);
    b.drain();  // on a busy machine a token may have come back meanwhile
    const outcome<void> late = b.acquire_blocking(co::deadline::after(30s));
    REQUIRE(late.is_rejected());
    CHECK(late.rejection().reason == reject_reason::rate_limited);
    CHECK(late.rejection().retry_after > 1min);

    std::jthread worker([&](std::stop_token stop) { CHECK(b.acquire_blocking(stop).is_stopped()); });
    while (b.stats().waiting == 0) std::this_thread::yield();
    worker.request_stop();
    worker.join();
    CHECK(b.stats().waiting == 0);
    CHECK(b.stats().available >= -1);

    std::jthread hurried([&] { CHECK(b.acquire_blocking().has_value()); });
    while (b.stats().waiting == 0) std::this_thread::yield();
    b.set_rate(per_second(1'000'000), 1);
}

TEST_CASE("a thread of an executor is told to await instead", "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 3);
        CHECK_THROWS_AS(b.acquire_blocking(), std::logic_error);
        co_return;
    };
    simulation().run(root());
}

TEST_CASE("a stopped waiter gives back all it had claimed", "[limit][token_bucket][RL-24][RL-53][RL-66]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 3);
        co_await b.acquire(2);
        const auto from = co::clock::now();
        int executions = 0;
        const auto body = [&](co::task_group& group) -> task<> {
            co::cancel_scope scope(group.ctx());
            co::task_group doomed(scope.ctx());
            doomed.spawn([](token_bucket& bucket, int& n) -> task<> {
                co_await bucket.acquire(3);
                ++n;
            }(b, executions));
            co_await co::sleep_for(d);
            CHECK(b.stats().available == -1);
            scope.request_stop();
            CHECK(b.stats().available == 2);
            CHECK(b.stats().waiting == 0);
            co_await doomed.join();
        };
        co_await co::with_group(body);
        CHECK(executions == 0);
        co_await b.acquire(2);
        CHECK(co::clock::now() - from == d);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a wait that cannot end before the deadline is refused at once and takes nothing",
          "[limit][token_bucket][RL-25][RL-59][RL-66]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 3, {.name = "api"});
        co_await b.acquire(2);
        const auto from = co::clock::now();
        auto late = co_await co::as_outcome(co::with_timeout(d, b.acquire(3)));
        CHECK(late.is_rejected());
        CHECK(late.rejection().reason == reject_reason::rate_limited);
        CHECK(late.rejection().retry_after == 2 * d);
        CHECK(late.rejection().who() == "api");
        auto on_the_dot = co_await co::as_outcome(co::with_timeout(2 * d, b.acquire(3)));
        CHECK(on_the_dot.is_rejected());  // the deadline would come first
        CHECK(co::clock::now() == from);
        CHECK(b.try_acquire());
        auto in_time = co_await co::as_outcome(co::with_timeout(3 * d + 1ns, b.acquire(3)));
        CHECK(in_time.has_value());
        CHECK(co::clock::now() - from == 3 * d);
        CHECK(b.stats().rejected == 2);

        token_bucket slow(every(30s), 1);
        slow.drain();
        int executions = 0;
        auto never = co_await co::as_outcome(co::with_timeout(100ms, [](token_bucket& s, int& n) -> task<> {
            co_await s.acquire();
            ++n;
        }(slow, executions)));
        CHECK(never.is_rejected());
        CHECK(executions == 0);
    };
    simulation().run(root());
}

TEST_CASE("waiters are served in the order in which they came, whatever they want", "[limit][token_bucket][RL-74]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 5);
        b.drain();
        const auto t0 = co::clock::now();
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(take(b, 5, log, 'L', t0));
            co_await until_waiting(b, 1);
            for (std::size_t i = 0; i < 10; ++i) {
                group.spawn(take(b, 1, log, static_cast<char>('a' + i), t0));
                co_await until_waiting(b, 2 + i);
            }
            co_await co::sleep_for(4 * d);
            CHECK(b.stats().available == -11);
            CHECK_FALSE(b.try_acquire());  // four are there, and they are the first one's
        };
        co_await co::with_group(body);
        CHECK(log == "L5 a6 b7 c8 d9 e10 f11 g12 h13 i14 j15 ");
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("those behind one that is stopped move up", "[limit][token_bucket][RL-13][RL-74]") {
    // Stops the waiter `victim` of four that want 5, 1, 2 and 1, at 2 d.
    const auto root = [](int victim) -> task<std::string> {
        token_bucket b(per_second(10), 5);
        b.drain();
        const auto t0 = co::clock::now();
        std::string log;
        const std::array<std::uint64_t, 4> wants{5, 1, 2, 1};
        const auto body = [&](co::task_group& group) -> task<> {
            co::cancel_scope scope(group.ctx());
            co::task_group doomed(scope.ctx());
            for (std::size_t i = 0; i < 4; ++i) {
                co::task_group& g = static_cast<int>(i) == victim ? doomed : group;
                g.spawn(take(b, wants[i], log, static_cast<char>('a' + i), t0));
                co_await until_waiting(b, i + 1);
            }
            co_await co::sleep_for(2 * d);
            scope.request_stop();
            co_await doomed.join();
        };
        co_await co::with_group(body);
        CHECK(b.stats().waiting == 0);
        CHECK(b.stats().available == 0);
        co_return log;
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        CHECK(simulation(seed).run(root(-1)) == "a5 b6 c8 d9 ");
        CHECK(simulation(seed).run(root(0)) == "b2 c3 d4 ");
        CHECK(simulation(seed).run(root(1)) == "a5 c7 d8 ");
        CHECK(simulation(seed).run(root(2)) == "a5 b6 d7 ");
        CHECK(simulation(seed).run(root(3)) == "a5 b6 c8 ");
    }
}

TEST_CASE("a cancelled reservation lets those who wait behind it come sooner", "[limit][token_bucket][RL-13]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 2);
        const auto t0 = co::clock::now();
        CHECK(b.try_acquire(2));
        auto r = b.reserve(1);
        CHECK(r->time() == t0 + d);
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(take(b, 1, log, 'w', t0));
            co_await until_waiting(b, 1);
            r->cancel();
            auto next = b.reserve(1);
            CHECK(next->time() == t0 + 2 * d);
            next->commit();
        };
        co_await co::with_group(body);
        CHECK(log == "w1 ");
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("one that waits before a reservation moves none of it when it is stopped", "[limit][token_bucket][RL-13]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 2);
        const auto t0 = co::clock::now();
        CHECK(b.try_acquire(2));
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            co::cancel_scope scope(group.ctx());
            co::task_group doomed(scope.ctx());
            doomed.spawn(take(b, 2, log, '!', t0));  // at 2 d
            co_await until_waiting(b, 1);
            auto r = b.reserve(1);
            CHECK(r->time() == t0 + 3 * d);
            r->commit();
            group.spawn(take(b, 1, log, 'w', t0));  // at 4 d
            co_await until_waiting(b, 2);
            scope.request_stop();  // one of two comes back: the other is the reservation's
            co_await doomed.join();
        };
        co_await co::with_group(body);
        CHECK(log == "w3 ");
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("new terms give those who wait new times", "[limit][token_bucket][RL-28]") {
    const auto waiting = [](std::chrono::milliseconds when, auto change) {
        return [=]() -> task<std::string> {
            token_bucket b(per_second(10), 4);
            b.drain();
            const auto t0 = co::clock::now();
            std::string log;
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(take(b, 2, log, 'a', t0));
                co_await until_waiting(b, 1);
                group.spawn(take(b, 4, log, 'b', t0));
                co_await until_waiting(b, 2);
                group.spawn([](token_bucket& bucket, std::string& l, co::clock::time_point from) -> task<> {
                    auto ended = co_await co::as_outcome(co::with_timeout(2s, bucket.acquire(1)));
                    l += ended.has_value() ? "c" + std::to_string((co::clock::now() - from) / d)
                         : ended.is_rejected() ? std::string("refused") : std::string("?");
                    l += ' ';
                }(b, log, t0));
                co_await until_waiting(b, 3);
                co_await co::sleep_for(when);
                change(b);
            };
            co_await co::with_group(body);
            co_return log;
        };
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        const auto same = waiting(d, [](token_bucket& b) { b.set_rate(per_second(10), 4); });
        CHECK(simulation(seed).run(same()) == "a2 b6 c7 ");
        const auto faster = waiting(d, [](token_bucket& b) { b.set_rate(per_second(100), 4); });
        CHECK(simulation(seed).run(faster()) == "a1 b1 c1 ");
        const auto slower = waiting(d, [](token_bucket& b) { b.set_rate(per_second(5), 4); });
        CHECK(simulation(seed).run(slower()) == "a3 b11 c13 ");
        const auto too_slow = waiting(d, [](token_bucket& b) { b.set_rate(per_second(3), 4); });
        CHECK(simulation(seed).run(too_slow()).starts_with("refused "));
        const auto unlimited = waiting(d, [](token_bucket& b) { b.set_rate(rate::unlimited(), 4); });
        CHECK(simulation(seed).run(unlimited()).size() == std::string("a1 b1 c1 ").size());
        const auto stood_still = waiting(d, [](token_bucket& b) {
            b.set_rate(rate::zero(), 4);
            b.set_rate(per_second(10), 4);
        });
        CHECK(simulation(seed).run(stood_still()) == "a2 b6 c7 ");
        const auto reset = waiting(d, [](token_bucket& b) { b.set_rate(per_second(10), 4, inherit::reset); });
        CHECK(simulation(seed).run(reset()) == "a1 b3 c4 ");
    }
    const auto too_large = []() -> task<> {
        token_bucket b(per_second(10), 4);
        b.drain();
        const auto shrinks = [&]() -> task<> {
            co_await until_waiting(b, 1);
            b.set_rate(per_second(10), 3);
        };
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(b.acquire(4));
            CHECK(ended.rejection().reason == reject_reason::too_large);
        };
        co_await co::when_all(waits(), shrinks());
        CHECK(b.stats().available == 0);
    };
    simulation().run(too_large());
}

TEST_CASE("at a rate of zero those who wait stay, up to their deadlines, and who comes is refused at once",
          "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 1);
        b.drain();
        const auto begin = co::clock::now();
        const auto waits = [&](co::clock::duration limit) -> task<co::clock::duration> {
            (void)co_await co::as_outcome(co::with_timeout(limit, b.acquire()));
            co_return co::clock::now() - begin;
        };
        const auto changes = [&]() -> task<> {
            co_await until_waiting(b, 2);
            b.set_rate(rate::zero(), 1);
            const auto refused = co_await co::as_outcome(b.acquire());
            CHECK(refused.is_rejected());
            CHECK(co::clock::now() == begin);
            co_await co::sleep_for(5s);
            b.set_rate(per_second(10), 1);
        };
        auto ended = co_await co::when_all(waits(1s), waits(1h), changes());
        CHECK(std::get<0>(ended) == 1s);
        CHECK(std::get<1>(ended) == 5s + 100ms);
    };
    simulation().run(root());
}

TEST_CASE("seven a minute are seven in each minute", "[limit][token_bucket][RL-47]") {
    const auto root = []() -> task<> {
        token_bucket b(per_minute(7), 1);
        const auto from = co::clock::now();
        for (int taken = 1; taken <= 15; ++taken) {
            co_await b.acquire();
            const auto at = co::clock::now() - from;
            if (taken == 1) CHECK(at == 0s);
            if (taken == 8) CHECK(at == 1min);
            if (taken == 15) CHECK(at == 2min);
        }
    };
    simulation().run(root());
}

TEST_CASE("one in each cycle", "[limit][token_bucket][RL-50][RL-52][RL-53]") {
    fake_clock time;
    constexpr auto cycle = 1s;
    token_bucket b(every(cycle), 1);
    CHECK(b.try_acquire());
    CHECK_FALSE(b.try_acquire());
    CHECK(b.time_until() <= cycle);
    time.advance(cycle);
    CHECK(b.try_acquire());
    for (int i = 1; i <= 3; ++i) {
        auto r = b.reserve();
        CHECK(r->time() == time.now() + i * cycle);
        r->commit();
    }
    CHECK(b.stats().available == -3);
    time.advance(6 * cycle + 10ns);
    CHECK(b.stats().available == 1);
}

TEST_CASE("reservations are promised up to a wait, and then refused", "[limit][token_bucket][RL-56][RL-65]") {
    fake_clock time;
    token_bucket three(rate(3, 10ms), 3);
    std::vector<long> waits;
    for (int i = 1; i <= 9; ++i) {
        time.advance(1ns);
        auto r = three.reserve(1, 12ms);
        waits.push_back(r ? static_cast<long>((r->time() - time.now()).count()) : -1);
        if (r) r->commit();
    }
    CHECK(waits == std::vector<long>{0, 0, 0, 3'333'331, 6'666'663, 9'999'995, -1, -1, -1});

    token_bucket one(every(100ms), 1);
    const auto wait = [&](std::chrono::milliseconds most) {
        auto r = one.reserve(1, most);
        if (!r) return -1L;
        r->commit();
        return static_cast<long>((r->time() - time.now()) / 1ms);
    };
    CHECK(wait(1ms) == 0);
    CHECK(wait(10ms) == -1);
    const auto before = one.time_until();
    CHECK(one.reserve(1, 100ms - 1ns).is_rejected());
    CHECK(one.time_until() == before);
    CHECK(wait(100ms) == 100);
    CHECK(wait(200ms) == 200);
    CHECK(wait(100ms) == -1);
}

TEST_CASE("a smooth limit keeps its distances", "[limit][token_bucket][RL-60][RL-64]") {
    fake_clock time;
    const auto t0 = time.now();
    token_bucket b(every(500ms), 1);
    // `n` one by one at `at`: when the last may act, from then, and when the next may, from the beginning.
    const auto row = [&](int at, int n) {
        time.set(t0 + std::chrono::milliseconds(at));
        long last = 0;
        for (int i = 0; i < n; ++i) {
            auto r = b.reserve();
            last = static_cast<long>((r->time() - time.now()) / 1ms);
            r->commit();
        }
        return std::pair<long, long>(last, static_cast<long>((time.now() + b.time_until() - t0) / 1ms));
    };
    CHECK(row(0, 7) == std::pair<long, long>(3000, 3500));
    CHECK(row(800, 3) == std::pair<long, long>(3700, 5000));
    CHECK(row(2300, 1) == std::pair<long, long>(2700, 5500));
    CHECK(row(3500, 3) == std::pair<long, long>(3000, 7000));
    // The table of the peer goes on in steps of its own grid; these are counted from the calls.
    CHECK(row(9100, 3) == std::pair<long, long>(1000, 10600));
    CHECK(row(11000, 1) == std::pair<long, long>(0, 11500));
}

TEST_CASE("a drained bucket is empty, and fills again", "[limit][token_bucket]") {
    fake_clock time;
    token_bucket b(per_second(10), 5);
    b.drain();
    CHECK(b.stats().available == 0);
    CHECK_FALSE(b.try_acquire());
    time.advance(d);
    CHECK(b.try_acquire());
    auto r = b.reserve(5);
    b.drain();
    CHECK(b.stats().available == -5);  // a debt stays as it is
    r->commit();
}

TEST_CASE("a stopped call gives its tokens back, any other has used them", "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 5);
        {
            token_bucket::permit p = co_await b.admission(2);
            CHECK(p);
            CHECK(b.stats().available == 3);
            p.settle(verdict::stopped);
            CHECK_FALSE(p);
            CHECK(b.stats().available == 5);
            p.settle(verdict::stopped);
            CHECK(b.stats().available == 5);
        }
        for (const verdict v : {verdict::success, verdict::failure, verdict::ignored}) {
            token_bucket::permit p = co_await b.admission();
            p.settle(v);
        }
        CHECK(b.stats().available == 2);
        { const token_bucket::permit dropped = co_await b.admission(2); }
        CHECK(b.stats().available == 2);
        {
            token_bucket::permit first = co_await b.admission(2);
            token_bucket::permit second;
            second = std::move(first);
            CHECK_FALSE(first);  // NOLINT
            co_await co::sleep_for(1s);
            CHECK(b.stats().available == 5);
        }  // came back by themselves long ago
        CHECK(b.stats().available == 5);
        auto large = co_await co::as_outcome(b.admission(6));
        CHECK(large.rejection().reason == reject_reason::too_large);
    };
    simulation().run(root());
}

TEST_CASE("tokens of a stopped call serve who waits at once", "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 2);
        const auto t0 = co::clock::now();
        token_bucket::permit held = co_await b.admission(2);
        std::string log;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(take(b, 2, log, 'a', t0));
            group.spawn(take(b, 1, log, 'b', t0));
            co_await until_waiting(b, 2);
            held.settle(verdict::stopped);
            co_return;
        };
        co_await co::with_group(body);
        CHECK((log == "a0 b1 " || log == "b0 a1 "));
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("tokens that came for one that lost a race go to the next", "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 2);
        b.drain();
        auto won = co_await co::when_any(b.acquire(2), b.acquire(1));
        (void)won;
        co_await co::sleep_for(1s);
        CHECK(b.stats().available == 2);
        CHECK(b.stats().waiting == 0);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("tokens that are there are taken even by a task that is to stop", "[limit][token_bucket]") {
    const auto root = []() -> task<> {
        token_bucket b(per_second(10), 1);
        co::cancel_scope scope(*co_await co::this_task::context());
        scope.request_stop();
        auto there = co_await co::as_outcome(b.acquire().with(scope.ctx()));
        CHECK(there.has_value());
        auto waits = co_await co::as_outcome(b.acquire().with(scope.ctx()));
        CHECK(waits.is_stopped());
        CHECK(b.stats().available == 0);
    };
    simulation().run(root());
}

TEST_CASE("wherever those who wait and their calls are stopped, no token is lost or made",
          "[limit][token_bucket][cancel_sweep][T7]") {
    struct world {
        co::clock::time_point began = co::clock::now();
        token_bucket bucket{per_second(10), 100};  // never full while it lasts
        int used = 0;
    };
    const bool guarded = GENERATE(false, true);
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        w->bucket.drain();
        return [](std::shared_ptr<world> in, bool calls) -> task<> {
            const auto takes = [&](int want) -> task<> {
                co_await in->bucket.acquire(static_cast<std::uint64_t>(want));
                in->used += want;
            };
            const auto call = [&]() -> task<> {
                bool broken = false;
                try {
                    co_await co::sleep_for(250ms);
                } catch (const co::testing::injected_error&) {
                    broken = true;
                }
                ++in->used;
                if (broken) throw std::runtime_error("failed");
            };
            if (calls) co_await co::when_all(in->bucket(call), in->bucket(call), takes(2), in->bucket(call));
            else co_await co::when_all(takes(2), takes(3), takes(1));
        }(w, guarded);
    };
    const auto check = [&](const outcome<void>&, const co::testing::sweep_point&) {
        const auto s = w->bucket.stats();
        return s.waiting == 0 && s.available == (co::clock::now() - w->began) / d - w->used;
    };
    auto swept = co::testing::cancel_sweep({.seed = 3, .max_findings = 1'000, .fail_awaits = true}, make, check);
    // A deadline that is too near refuses at the beginning, which a sweep takes for another behaviour.
    std::erase_if(swept.findings, [](const co::testing::sweep_finding& f) {
        return f.variant == co::testing::sweep_variant::deadline &&
               (f.what == "rejected, rate limited" || says(f.what, "does not run as the baseline did"));
    });
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(swept.points > 10);
}

TEST_CASE("one that is stopped when its tokens are there, but before its timer has fired, gives them back",
          "[limit][token_bucket]") {
    fake_clock time;
    co::run_loop loop;
    token_bucket b(per_second(10), 1);
    CHECK(b.try_acquire());
    co::cancel_scope scope{co::executor_ref(loop)};
    const auto waits = [](token_bucket& bucket, const co::context& ctx, bool& stopped) -> task<> {
        const auto ended = co_await co::as_outcome(bucket.acquire().with(ctx));
        stopped = ended.is_stopped();
    };
    bool stopped = false;
    co::start_on(loop, waits(b, scope.ctx(), stopped));
    loop.poll();
    CHECK(b.stats().waiting == 1);
    time.advance(100ms);
    scope.request_stop();
    loop.poll();
    CHECK(stopped);
    CHECK(b.stats().waiting == 0);
    CHECK(b.stats().available == 1);
}

TEST_CASE("a token bucket that is destroyed while it is waited for says so", "[limit][token_bucket]") {
    const std::string text = last_words([] {
        co::run_loop loop;
        auto b = std::make_unique<token_bucket>(every(1h), 1, co::token_bucket_options{.name = "hourly"});
        b->drain();
        const auto waits = [](token_bucket& bucket) -> task<> { co_await bucket.acquire(); };
        co::start_on(loop, waits(*b));
        loop.poll();
        b.reset();
    });
    CHECK(says(text, "token_bucket \"hourly\" destroyed while 1 wait for it"));
}

TEST_CASE("a token bucket reports what metrics ask for", "[limit][token_bucket]") {
    struct sink {
        std::string text;
        void counter(std::string_view name, std::uint64_t value, std::string_view) {
            text += std::string(name) + "=" + std::to_string(value) + " ";
        }
        void gauge(std::string_view name, double value, std::string_view) {
            text += std::string(name) + "=" + std::to_string(static_cast<long>(value)) + " ";
        }
    };
    fake_clock time;
    token_bucket b(per_second(10), 3);
    CHECK(b.try_acquire());
    CHECK_FALSE(b.try_acquire(3));
    sink s;
    b.report(s);
    CHECK(s.text == "rejected=1 available=2 waiting=0 ");
    CHECK(token_bucket::kind == "rate_limiter");
}
