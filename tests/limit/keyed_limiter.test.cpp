// SPDX-License-Identifier: MIT
#include <cordon/limit/keyed_limiter.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "exact_bucket.hpp"
#include "fake_clock.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <limits>
#include <map>
#include <new>
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

/// A key that cannot be hashed, or not be compared.
struct stubborn {
    int value;
    bool comparable = true;
    friend bool operator==(const stubborn& a, const stubborn& b) {
        if (!a.comparable || !b.comparable) throw std::runtime_error("compared");
        return a.value == b.value;
    }
};
template <>
struct std::hash<stubborn> {
    std::size_t operator()(const stubborn& k) const {
        if (k.value < 0) throw std::runtime_error("hashed");
        return 7;
    }
};

/// A key without moves, one of whose copies fails: the one after `good` others.
struct brittle {
    explicit brittle(std::string v) : value(std::move(v)) {}
    brittle(const brittle& other) : value((use(), other.value)) {}
    brittle& operator=(const brittle& other) {
        use();
        value = other.value;
        return *this;
    }
    static void use() {
        if (good-- == 0) throw std::bad_alloc();
    }
    static inline int good = -1;
    std::string value;
    friend bool operator==(const brittle&, const brittle&) = default;
};
template <>
struct std::hash<brittle> {
    std::size_t operator()(const brittle& k) const noexcept { return std::hash<std::string>()(k.value); }
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

TEST_CASE("what hashing or comparing a key throws is an error of the call, and takes nothing", "[limit][keyed_limiter]") {
    simulation sim;
    keyed_limiter<stubborn> b(per_second(1), 1);
    CHECK_THROWS_WITH(b.try_acquire(stubborn{-1}), "hashed");
    CHECK(b.try_acquire(stubborn{1}));
    CHECK_THROWS_WITH(b.try_acquire(stubborn{2, false}), "compared");
    sim.run([&]() -> task<> {
        for (const stubborn key : {stubborn{-1}, stubborn{2, false}}) {
            const auto guarded = co::pipeline(b.for_key(key));
            const auto told = co_await co::as_outcome(guarded([]() -> task<> { co_return; }));
            CHECK(told.is_error());
        }
    });
    CHECK(b.stats().keys == 1);
    CHECK(b.stats().rejected == 0);
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

TEST_CASE("a key that cannot take the place of another changes nothing", "[limit][keyed_limiter]") {
    simulation sim;
    sim.run([]() -> task<> {
        for (int good = 0; good < 3; ++good) {
            INFO(good);
            keyed_limiter<brittle> keys(per_second(1'000), 1, {.max_keys = 1});
            const brittle a("a"), b("b");
            CHECK(keys.try_acquire(a));
            co_await co::sleep_for(1s);
            brittle::good = good;
            bool taken = false;
            try {
                taken = keys.try_acquire(b);
            } catch (const std::bad_alloc&) {
            }
            brittle::good = -1;
            CHECK(taken == (good == 2));  // if neither the copy throws nor its assignment
            CHECK(keys.stats().keys == 1);
            co_await co::sleep_for(1s);
            CHECK(keys.try_acquire(a));
            co_await co::sleep_for(1s);
            CHECK(keys.try_acquire(b));
            co_await co::sleep_for(1s);
            CHECK(keys.purge() == 1);
            CHECK(keys.stats().keys == 0);
        }
    });
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

TEST_CASE("random requests for random keys are answered as by a bucket of exact rationals for each",
          "[limit][keyed_limiter]") {
    const std::uint64_t first = std::random_device{}();
    std::printf("buckets for each key: seed %llu\n", static_cast<unsigned long long>(first));
    for (std::uint64_t seed = first; seed < first + 45; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const auto now = [&] { return time.now().time_since_epoch().count(); };
        const std::int64_t made = now();
        const rate r(1 + random() % 1'000, std::chrono::nanoseconds(1 + random() % 10'000'000));
        const std::uint64_t burst = 1 + random() % 10;
        // Keys come and go, but those that go are full; or all stay. To a clock that went back one that has gone would
        // be full as well, so there all stay.
        const bool small = seed % 3 == 0, jumps = seed % 3 == 1;
        keyed_limiter<std::string> b(r, burst, {.max_keys = small ? 64u : 4'096u, .seed = seed | 1});
        std::map<std::string, exact_bucket> each;
        exact_bucket shared(r, burst, made);  // of those who find no place
        const auto typical = static_cast<std::uint64_t>(r.period().count()) / r.events() + 1;
        const auto some = [&](std::uint64_t most) { return std::chrono::nanoseconds(random() % most); };
        for (int i = 0; i < 2'000; ++i) {
            if (random() % 3 == 0) time.advance(some(4 * typical));
            if (small && random() % 30 == 0) time.advance(std::chrono::nanoseconds(typical * burst + 2));
            if (jumps) {
                if (random() % 20 == 0) time.advance(-some(4 * typical * (burst + 1)));
                const auto age = static_cast<std::uint64_t>(std::abs(now() - made));
                if (random() % 500 == 0) time.advance(-some(2 * age + 1));
            } else {
                if (random() % 500 == 0) time.advance(std::chrono::hours(random() % 200'000));
                if (random() % 200 == 0) b.purge();
            }
            const std::string key = "client " + std::to_string(random() % 200);
            exact_bucket& bucket = each.try_emplace(key, r, burst, made).first->second;
            const std::uint64_t n = random() % (burst + 2);
            const auto before = b.stats().overflowed;
            const std::int64_t wait = b.time_until(key, n).count();
            const bool admitted = b.try_acquire(key, n);
            exact_bucket& asked = b.stats().overflowed == before ? bucket : shared;
            asked.come_to(now());
            REQUIRE(wait == (n > burst ? co::clock::duration::max().count() : asked.wait(n)));
            REQUIRE(admitted == asked.take(n));
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

namespace {

/// Different strings of sixteen bytes to which the std::hash of libstdc++, MurmurHash64A, gives one value: each step of
/// it can be undone, so the second half is chosen for the first. Whoever sends keys can do this.
std::vector<std::string> colliding_strings(std::size_t n) {
    constexpr std::uint64_t m = 0xc6a4a7935bd1e995u;
    std::uint64_t inverse = m;  // five correct bits, twice as many in each round
    for (int i = 0; i < 5; ++i) inverse *= 2 - m * inverse;
    const auto shifted = [](std::uint64_t v) { return v ^ (v >> 47); };  // undoes itself
    std::vector<std::string> all;
    for (std::uint64_t first = 0; first < n; ++first) {
        const std::uint64_t after_first = (0xc70f6907u ^ (16 * m) ^ (shifted(first * m) * m)) * m;
        const std::uint64_t second = shifted(after_first * inverse) * inverse;  // makes all of it zero
        std::string s(16, '\0');
        std::memcpy(s.data(), &first, 8);
        std::memcpy(s.data() + 8, &second, 8);
        all.push_back(std::move(s));
    }
    return all;
}

}  // namespace

TEST_CASE("strings that were made to collide in std::hash find places as others do", "[limit][keyed_limiter]") {
    const std::vector<std::string> keys = colliding_strings(1'000);
#if defined(__GLIBCXX__)
    const std::hash<std::string> std_hash;
    for (const std::string& key : keys) REQUIRE(std_hash(key) == std_hash(keys.front()));
#endif
    fake_clock time;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        keyed_limiter<std::string> b(every(1h), 1, {.max_keys = 8'192, .seed = seed});  // 32 shards of 256
        for (const std::string& key : keys) CHECK(b.try_acquire(key));
        CHECK(b.stats().overflowed == 0);
        CHECK(b.stats().keys == keys.size());
    }
    // Nor do two of them share a shard, but by chance: one time in 32.
    int together = 0;
    for (std::uint64_t seed = 1; seed <= 1'000; ++seed) {
        const co::detail::seeded_hash hash(seed, ~seed);
        together += hash(keys[0].data(), 16) >> 59 == hash(keys[1].data(), 16) >> 59;
    }
    CHECK(together < 80);
}

TEST_CASE("the hash of strings is SipHash-1-3", "[limit][keyed_limiter]") {
    // As Rust's and the authors' implementations have it: of the bytes 0, 1, ... n - 1 with the key 0, 1, ... 15.
    const std::map<std::size_t, std::uint64_t> expected{
        {0, 0xabac0158050fc4dcu},  {1, 0xc9f49bf37d57ca93u},  {2, 0x82cb9b024dc7d44du},  {3, 0x8bf80ab8e7ddf7fbu},
        {4, 0xcf75576088d38328u},  {5, 0xdef9d52f49533b67u},  {6, 0xc50d2b50c59f22a7u},  {7, 0xd3927d989bb11140u},
        {8, 0x369095118d299a8eu},  {9, 0x25a48eb36c063de4u},  {15, 0xd320d86d2a519956u}, {16, 0xcc4fdd1a7d908b66u},
        {17, 0x9cf2689063dbd80cu}, {63, 0x9d199062b7bbb3a8u}};
    unsigned char bytes[80];
    for (std::size_t i = 0; i < sizeof bytes; ++i) bytes[i] = static_cast<unsigned char>(i);
    const co::detail::seeded_hash hash(0x0706050403020100u, 0x0f0e0d0c0b0a0908u);
    for (const auto& [size, value] : expected) {
        INFO("of " << size << " bytes");
        CHECK(hash(bytes, size) == value);
    }
    for (std::size_t from = 1; from < 9; ++from) {  // wherever the bytes lie
        unsigned char moved[80];
        std::copy_n(bytes, 63, moved + from);
        CHECK(hash(moved + from, 63) == expected.at(63));
    }
    CHECK(co::detail::seeded_hash(1, 2)(bytes, 8) != co::detail::seeded_hash(1, 3)(bytes, 8));
    CHECK(co::detail::seeded_hash(1, 2)(bytes, 8) != co::detail::seeded_hash(3, 2)(bytes, 8));
}

TEST_CASE("equal strings are one key, whatever they are and however they are seeded", "[limit][keyed_limiter]") {
    fake_clock time;
    for (std::uint64_t seed = 0; seed < 50; ++seed) {
        keyed_limiter<std::string> b(every(1h), 2, {.seed = seed});
        keyed_limiter<std::wstring> wide(every(1h), 1, {.seed = seed});
        for (std::size_t size = 0; size < 40; ++size) {
            const std::string text(size, 'x'), longer = "y" + text;
            CHECK(b.try_acquire(text));
            CHECK(b.try_acquire(std::string_view(longer).substr(1)));
            CHECK_FALSE(b.try_acquire(text.c_str()));
            CHECK(wide.try_acquire(std::wstring(size, L'x')));
            CHECK_FALSE(wide.try_acquire(std::wstring(size, L'x')));
        }
        CHECK(b.stats().keys == 40);
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

TEST_CASE("a call behind the limit of a key can be stopped at any point, and its token comes back",
          "[limit][keyed_limiter][cancel_sweep][T7]") {
    struct world {
        keyed_limiter<std::string> clients{every(1h), 5, {.max_keys = 1}};  // nothing comes back by itself
        int ended[2] = {};
    };
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return [](std::shared_ptr<world> in) -> task<> {
            const auto one = [&](const char* key, int& ended, bool fails) -> task<> {
                const auto call = [&]() -> task<> {
                    bool broken = fails;
                    try {
                        co_await co::sleep_for(1ms);
                    } catch (const co::testing::injected_error&) {
                        broken = true;
                    }
                    ++ended;
                    if (broken) throw std::runtime_error("failed");
                };
                for (int i = 0; i < 2; ++i) (void)co_await co::as_outcome(in->clients.for_key(key)(call));
            };
            // the key that comes second finds no place, and shares a bucket with others
            co_await co::when_all(one("a", in->ended[0], true), one("a", in->ended[0], false),
                                  one("b", in->ended[1], false));
        }(w);
    };
    const auto there = [&](std::string_view key) {
        std::uint64_t n = 5;
        while (w->clients.time_until(key, n) > 0ms) --n;
        return static_cast<int>(n);
    };
    for (std::uint64_t seed = 0; seed < 4; ++seed) {
        const auto check = [&](const auto&, const co::testing::sweep_point&) {
            return there("a") == 5 - w->ended[0] && there("b") == 5 - w->ended[1] && w->clients.stats().rejected == 0;
        };
        const auto swept = co::testing::cancel_sweep({.seed = seed, .fail_awaits = true}, make, check);
        INFO("seed " << seed << ": " << describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 5);
    }
}
