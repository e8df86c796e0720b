// SPDX-License-Identifier: MIT
#include <cordon/limit/keyed_limiter.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/testing/simulation.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <map>
#include <memory>
#include <random>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

/// A key whose hashes all collide, which copies by counting.
struct colliding {
    explicit colliding(int v) : value(v) {}
    int value;
    friend bool operator==(const colliding&, const colliding&) = default;
};
template <>
struct std::hash<colliding> {
    std::size_t operator()(const colliding&) const noexcept { return 7; }
};

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::every;
using co::keyed_limiter;
using co::per_second;
using co::rate;
using co::reject_reason;
using co::task;
using co::token_bucket;
using co::verdict;
using co::testing::simulation;

static_assert(co::observable<keyed_limiter<std::string>>);
static_assert(co::observable<keyed_limiter<int>::bound>);
static_assert(!std::is_copy_constructible_v<keyed_limiter<int>::permit>);

}  // namespace

TEST_CASE("each key has a bucket of its own", "[limit][keyed_limiter]") {
    fake_clock time;
    keyed_limiter<std::string> b(per_second(10), 2, {.name = "clients"});
    CHECK(b.name() == "clients");
    CHECK(b.try_acquire("a"));
    CHECK(b.try_acquire(std::string("a")));
    CHECK_FALSE(b.try_acquire(std::string_view("a")));
    CHECK(b.time_until("a") == 100ms);
    CHECK(b.time_until("b") == 0ms);
    CHECK(b.try_acquire("b", 2));
    CHECK_FALSE(b.try_acquire("c", 3));
    CHECK(b.time_until("c", 3) == co::clock::duration::max());
    CHECK(b.try_acquire("c", 0));
    CHECK(b.stats().keys == 2);  // who asks for too much or nothing is not kept
    CHECK(b.stats().rejected == 2);
    time.advance(100ms);
    CHECK(b.try_acquire("a"));
    CHECK_FALSE(b.try_acquire("a"));
    CHECK(b.stats().evicted == 0);
}

TEST_CASE("keys are compared in full, whatever their hash", "[limit][keyed_limiter]") {
    fake_clock time;
    keyed_limiter<colliding> b(per_second(1), 1);
    for (int i = 0; i < 50; ++i) CHECK(b.try_acquire(colliding(i)));
    for (int i = 0; i < 50; ++i) CHECK_FALSE(b.try_acquire(colliding(i)));
    CHECK(b.stats().keys == 50);
    time.advance(1s);
    CHECK(b.purge() == 50);
    CHECK(b.stats().keys == 0);
    for (int i = 0; i < 50; ++i) CHECK(b.try_acquire(colliding(i)));
}

TEST_CASE("keys whose buckets are full are forgotten, others kept, and nobody gains by it",
          "[limit][keyed_limiter][RL-42]") {
    fake_clock time;
    keyed_limiter<int> b(per_second(1), 3);
    CHECK(b.try_acquire(1));
    CHECK(b.try_acquire(2, 3));
    time.advance(1s);
    CHECK(b.purge() == 1);
    CHECK(b.stats().keys == 1);
    CHECK(b.try_acquire(2));
    CHECK_FALSE(b.try_acquire(2));
    CHECK(b.try_acquire(1, 3));
    CHECK_FALSE(b.try_acquire(1));
    CHECK(b.purge() == 0);
}

TEST_CASE("a new key takes the place of one whose bucket is full, and of no other", "[limit][keyed_limiter]") {
    fake_clock time;
    keyed_limiter<int> b(per_second(1), 2, {.max_keys = 3});
    CHECK(b.try_acquire(1, 2));
    CHECK(b.try_acquire(2, 1));
    CHECK(b.try_acquire(3, 2));
    time.advance(1s);  // 2 is full again
    CHECK(b.try_acquire(4, 2));
    CHECK(b.stats().evicted == 1);
    CHECK(b.stats().keys == 3);
    for (const int kept : {1, 3}) {
        CHECK(b.try_acquire(kept));
        CHECK_FALSE(b.try_acquire(kept));
    }
    CHECK_FALSE(b.try_acquire(4));
    SECTION("if there is none, those without a place share one bucket") {
        CHECK(b.try_acquire(5));
        CHECK(b.try_acquire(6));
        CHECK_FALSE(b.try_acquire(7));
        CHECK_FALSE(b.try_acquire(5));
        CHECK(b.stats().overflowed == 4);
        CHECK(b.stats().keys == 3);
        time.advance(1s);
        CHECK(b.try_acquire(8));  // of the shared one: all places are taken still
        CHECK_FALSE(b.try_acquire(5));
        CHECK(b.stats().evicted == 1);
        time.advance(1s);
        CHECK(b.try_acquire(9, 2));  // now there are places
        CHECK(b.stats().evicted == 2);
    }
    SECTION("what a stopped call gives back makes a place") {
        time.advance(10s);
        keyed_limiter<int> one(per_second(1), 2, {.max_keys = 1});
        auto view = one.for_key(1);
        const auto admits = [&]() -> task<> {
            keyed_limiter<int>::permit p = co_await view.admission(2);
            CHECK_FALSE(one.try_acquire(2, 3));
            CHECK(one.try_acquire(2, 2));  // shared
            CHECK_FALSE(one.try_acquire(3));
            CHECK(one.stats().evicted == 0);
            p.settle(verdict::stopped);
            CHECK(one.try_acquire(3, 2));
            CHECK(one.stats().evicted == 1);
        };
        simulation().run(admits());
    }
}

TEST_CASE("made-up keys use no more memory than is allowed, and get no more than one client does",
          "[limit][keyed_limiter]") {
    fake_clock time;
    constexpr std::size_t most = 5'000;
    keyed_limiter<std::uint64_t> b(per_second(1), 5, {.max_keys = most, .seed = 42});
    std::size_t admitted = 0;
    for (std::uint64_t key = 0; key < 50'000; ++key) admitted += b.try_acquire(key);
    const auto s = b.stats();
    CHECK(s.keys <= most);
    CHECK(s.keys > most - most / 10);
    CHECK(admitted == s.keys + 5);
    CHECK(s.overflowed == 50'000 - s.keys);
    CHECK(s.rejected == 50'000 - admitted);
    for (std::uint64_t key = 0; key < 100; ++key) CHECK(b.try_acquire(key, 4));  // the first ones lost nothing
}

TEST_CASE("random requests for random keys are answered as by a bucket for each", "[limit][keyed_limiter]") {
    const std::uint64_t first = std::random_device{}();
    std::printf("buckets for each key: seed %llu\n", static_cast<unsigned long long>(first));
    for (std::uint64_t seed = first; seed < first + 30; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const rate r(1 + random() % 1'000, std::chrono::nanoseconds(1 + random() % 10'000'000));
        const std::uint64_t burst = 1 + random() % 10;
        const bool small = random() % 2 == 0;  // keys come and go, but those that go are full
        keyed_limiter<std::string> b(r, burst, {.max_keys = small ? 64u : 4'096u, .seed = seed | 1});
        std::map<std::string, std::unique_ptr<token_bucket>> each;
        token_bucket shared(r, burst);  // of those who find no place
        const auto typical = static_cast<std::uint64_t>(r.period().count()) / r.events() + 1;
        for (int i = 0; i < 3'000; ++i) {
            if (random() % 3 == 0) time.advance(std::chrono::nanoseconds(random() % (4 * typical)));
            if (random() % 500 == 0) time.advance(std::chrono::hours(random() % 200'000));
            if (small && random() % 30 == 0) time.advance(std::chrono::nanoseconds(typical * burst + 2));
            if (random() % 200 == 0) b.purge();
            const std::string key = "client " + std::to_string(random() % 200);
            auto& bucket = each[key];
            if (bucket == nullptr) bucket = std::make_unique<token_bucket>(r, burst);
            const std::uint64_t n = random() % (burst + 2);
            const auto before = b.stats().overflowed;
            const auto wait = b.time_until(key, n);
            const bool admitted = b.try_acquire(key, n);
            token_bucket& asked = b.stats().overflowed == before ? *bucket : shared;
            REQUIRE(wait == asked.time_until(n));
            REQUIRE(admitted == asked.try_acquire(n));
        }
        CHECK(b.stats().keys <= (small ? 64u : 4'096u));
        if (small) CHECK(b.stats().evicted > 0);
        else CHECK(b.stats().overflowed == 0);
    }
}

TEST_CASE("a key that finds no place is told when the bucket that it shares has a token", "[limit][keyed_limiter]") {
    fake_clock time;
    keyed_limiter<std::string> b(every(1h), 1, {.max_keys = 1});
    CHECK(b.try_acquire("a"));
    CHECK(b.time_until("b") == 0ns);  // the bucket that is shared is full
    CHECK(b.try_acquire("b"));
    CHECK(b.time_until("b") == 1h);
    CHECK(b.time_until("c") == 1h);
    CHECK(b.time_until("c", 2) == co::clock::duration::max());
    time.advance(1h);
    CHECK(b.time_until("b") == 0ns);  // takes the place of a, whose bucket is full again
    CHECK(b.stats().evicted == 0);
    CHECK(b.try_acquire("b"));
    CHECK(b.time_until("b") == 1h);
}

TEST_CASE("a call of a key is admitted at once or refused with the time to come back", "[limit][keyed_limiter]") {
    const auto root = []() -> task<> {
        keyed_limiter<std::string> b(per_second(10), 2, {.name = "clients"});
        auto client = b.for_key("a");
        {
            keyed_limiter<std::string>::permit p = co_await client.admission(2);
            CHECK(p);
            auto refused = co_await co::as_outcome(client.admission());
            CHECK(refused.rejection().reason == reject_reason::rate_limited);
            CHECK(refused.rejection().retry_after == 100ms);
            CHECK(refused.rejection().who() == "clients");
            keyed_limiter<std::string>::permit moved = std::move(p);
            CHECK_FALSE(p);  // NOLINT
            moved.settle(verdict::stopped);
            CHECK_FALSE(moved);
            moved.settle(verdict::stopped);
            CHECK(b.time_until("a", 2) == 0ms);
        }
        {
            keyed_limiter<std::string>::permit p = co_await client.admission();
            p.settle(verdict::success);
            p = co_await client.admission();
            CHECK(b.time_until("a") == 100ms);
        }  // dropped: back
        CHECK(b.time_until("a") == 0ms);
        auto large = co_await co::as_outcome(client.admission(3));
        CHECK(large.rejection().reason == reject_reason::too_large);
        CHECK(client.try_acquire());
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("a permit of a key that has given its place away gives nothing to the next", "[limit][keyed_limiter]") {
    const auto root = []() -> task<> {
        keyed_limiter<int> b(per_second(10), 2, {.max_keys = 1});
        auto first = b.for_key(1);
        keyed_limiter<int>::permit old = co_await first.admission(2);
        co_await simulation::advance(1s);
        CHECK(b.try_acquire(2, 2));
        CHECK(b.stats().evicted == 1);
        old.settle(verdict::stopped);
        CHECK_FALSE(b.try_acquire(2));
        auto third = b.for_key(3);
        keyed_limiter<int>::permit shared = co_await third.admission(2);
        CHECK_FALSE(b.try_acquire(4));
        shared.settle(verdict::stopped);
        CHECK(b.try_acquire(4, 2));
        auto refused = co_await co::as_outcome(third.admission());
        CHECK(refused.rejection().reason == reject_reason::rate_limited);
        CHECK(refused.rejection().retry_after == 100ms);
    };
    simulation().run(root());
}

TEST_CASE("an unlimited rate keeps no key, and one of zero admits a burst of each", "[limit][keyed_limiter]") {
    fake_clock time;
    keyed_limiter<int> unlimited(rate::unlimited(), 0);
    for (int i = 0; i < 100; ++i) CHECK(unlimited.try_acquire(i, 1'000));
    CHECK(unlimited.stats().keys == 0);
    keyed_limiter<int> zero(rate::zero(), 2);
    CHECK(zero.try_acquire(1, 2));
    time.advance(std::chrono::hours(24 * 365));
    CHECK_FALSE(zero.try_acquire(1));
    CHECK(zero.try_acquire(2, 2));
    CHECK(zero.time_until(2) == co::clock::duration::max());
}

TEST_CASE("after years of counting a bucket is still what it was", "[limit][keyed_limiter][RL-76]") {
    fake_clock time;
    keyed_limiter<int> b(rate(999'983, 1s), 3);  // counts in 999983rds of a nanosecond
    for (int year = 0; year < 60; ++year) {
        CHECK(b.try_acquire(1, 3));
        CHECK_FALSE(b.try_acquire(1));
        CHECK(b.try_acquire(year + 10));
        time.advance(std::chrono::hours(24 * 365));
    }
    token_bucket single(rate(999'983, 1s), 3);
    for (int year = 0; year < 60; ++year) {
        CHECK(single.try_acquire(3));
        CHECK_FALSE(single.try_acquire());
        time.advance(std::chrono::hours(24 * 365));
    }
}

TEST_CASE("options of a keyed limiter out of range are refused", "[limit][keyed_limiter]") {
    using limiter = keyed_limiter<int>;
    CHECK_THROWS_WITH(limiter(per_second(1), 1, {.max_keys = 0}),
                      "keyed_limiter: max_keys is 0, allowed are 1 to 2147483648");
    CHECK_THROWS_WITH(limiter(per_second(1), std::numeric_limits<std::uint64_t>::max()),
                      "keyed_limiter: burst is 18446744073709551615, allowed are 0 to 72057594037927936");
}

TEST_CASE("a keyed limiter reports what metrics ask for", "[limit][keyed_limiter]") {
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
    keyed_limiter<int> b(per_second(10), 1, {.max_keys = 2});
    for (int i = 0; i < 5; ++i) (void)b.try_acquire(i);
    sink s;
    b.report(s);
    CHECK(s.text == "rejected=2 overflowed=3 evicted=0 keys=2 ");
    CHECK(keyed_limiter<int>::kind == "keyed_limiter");
}
