// SPDX-License-Identifier: MIT
#include <cordon/pool/object_pool.hpp>

#include <cordon/core/detail/spin_lock.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

namespace {

namespace co = cordon;

std::atomic<int> alive{0};

/// Says if two have it at the same time.
struct owned {
    owned() { ++alive; }
    owned(const owned&) = delete;
    owned& operator=(const owned&) = delete;
    ~owned() { --alive; }
    bool free = true;  // not atomic: a race on it is a race of the pool
};
using pool = co::object_pool<owned>;

/// Leases on their way from one thread to another.
struct table {
    co::detail::spin_lock lock;
    std::vector<pool::lease> there;
};

void pass_around(bool aged_by_timer) {
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> wrong{0};
    {
        stress::looping_thread ages;
        pool objects{{.max_spare_per_thread = 4, .max_spare_shared = 40, .epoch = std::chrono::microseconds(200),
                      .runs_on = aged_by_timer ? co::executor_ref(ages.loop()) : co::executor_ref()}};
        table passed;
        std::vector<std::thread> threads;
        for (std::uint64_t t = 0; t < 4; ++t)
            threads.emplace_back([&, t] {
                std::minstd_rand random(static_cast<std::uint32_t>(seed + t));
                std::vector<pool::lease> mine;
                for (int i = 0; i < 20'000; ++i) {
                    if (random() % 2 == 0 && mine.size() < 20) {
                        mine.push_back(objects.acquire());
                        if (!std::exchange(mine.back()->free, false)) ++wrong;
                    } else if (!mine.empty()) {
                        pool::lease last = std::move(mine.back());
                        mine.pop_back();
                        const auto what = random() % 64;
                        if (what < 8) {
                            const co::detail::spin_guard guard(passed.lock);
                            std::swap(mine, passed.there);  // somebody else's, to give back here
                        }
                        last->free = true;
                        if (what == 63) last.discard();
                        if (what == 62) objects.age();
                        if (what == 61) static_cast<void>(objects.stats());
                        if (what == 60) objects.trim();
                    }
                }
                for (auto& l : mine) l->free = true;
            });
        for (std::thread& t : threads) t.join();
        for (auto& l : passed.there) l->free = true;
        passed.there.clear();
        const auto s = objects.stats();
        CHECK(s.spare <= 44);
        if (!aged_by_timer) CHECK(s.in_use == 0);  // else they are not of one moment
        if (!aged_by_timer) CHECK(static_cast<std::size_t>(alive.load()) == s.spare);
    }
    CHECK(wrong == 0);
    CHECK(alive == 0);
}

}  // namespace

TEST_CASE("each object has one owner at a time, whichever threads get it and give it back",
          "[stress][pool][object_pool][PO-41][P-004]") {
    pass_around(false);
}
TEST_CASE("so it has while a timer ages what is shared", "[stress][pool][object_pool]") { pass_around(true); }

TEST_CASE("pools and the threads that used them end in any order", "[stress][pool][object_pool][PO-43]") {
    stress::dice dice;
    for (int round = 0; round < 300; ++round) {
        std::optional<pool> objects(std::in_place, co::object_pool_options<owned>{.max_spare_per_thread = 4,
                                                                                 .max_spare_shared = 2});
        pool other;
        std::atomic<int> ready{0}, used{0};
        std::vector<std::thread> threads;
        for (int t = 0; t < 3; ++t)
            threads.emplace_back([&] {
                ++ready;
                while (ready.load() != 3) std::this_thread::yield();
                {
                    const auto a = objects->acquire(), b = objects->acquire(), c = other.acquire();
                }
                used.fetch_add(1, std::memory_order_release);
            });
        while (used.load(std::memory_order_acquire) != 3) std::this_thread::yield();
        stress::dawdle(dice.below(20'000));
        objects.reset();  // while they end
        for (std::thread& t : threads) t.join();
        REQUIRE(other.stats().spare == other.stats().made);
    }
    CHECK(alive == 0);
}
