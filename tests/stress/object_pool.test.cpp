// SPDX-License-Identifier: MIT
#include <cordon/pool/object_pool.hpp>

#include <cordon/core/detail/spin_lock.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
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

#if defined(__OPTIMIZE__)
constexpr bool fast = true;
#else
constexpr bool fast = false;  // all presets with a sanitizer
#endif

/// Leases on their way from one thread to another.
struct table {
    co::detail::spin_lock lock;
    std::vector<pool::lease> there;
};

/// Who looks for what is old, beside those who use the pool.
enum class aging { nobody, timer, thread };

void pass_around(aging how, int users, int operations) {
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> wrong{0};
    {
        stress::looping_thread ages;
        pool objects{{.max_spare_per_thread = 4, .max_spare_shared = 40,
                      .epoch = how == aging::thread ? std::chrono::nanoseconds(1) : std::chrono::microseconds(200),
                      .runs_on = how == aging::timer ? co::executor_ref(ages.loop()) : co::executor_ref()}};
        table passed;
        std::atomic<bool> over{false};
        std::thread looks([&] {
            while (how == aging::thread && !over.load(std::memory_order_relaxed)) objects.age();
        });
        std::vector<std::thread> threads;
        for (int t = 0; t < users; ++t)
            threads.emplace_back([&, t] {
                std::minstd_rand random(static_cast<std::uint32_t>(seed) + static_cast<std::uint32_t>(t));
                std::vector<pool::lease> mine;
                for (int i = 0; i < operations; ++i) {
                    // idle, as it seems to who looks
                    if (how == aging::thread && random() % 8 == 0) stress::dawdle(random() % 8192);
                    if (how == aging::thread && random() % 512 == 0) std::this_thread::yield();
                    if (random() % 2 == 0 && mine.size() < 20) {
                        mine.push_back(objects.acquire());
                        if (!std::exchange(mine.back()->free, false)) ++wrong;
                    } else if (!mine.empty()) {
                        pool::lease last = std::move(mine.back());
                        mine.pop_back();
                        const auto what = random() % 1024;
                        if (what < 128) {
                            const co::detail::spin_guard guard(passed.lock);
                            std::swap(mine, passed.there);  // somebody else's, to give back here
                        }
                        last->free = true;
                        if (what == 1023) last.discard();
                        if (what == 1022) objects.age();
                        if (what == 1021) static_cast<void>(objects.stats());
                        if (what == 1020) objects.trim();
                    }
                }
                for (auto& l : mine) l->free = true;
            });
        for (std::thread& t : threads) t.join();
        over = true;
        looks.join();
        for (auto& l : passed.there) l->free = true;
        passed.there.clear();
        const auto s = objects.stats();
        CHECK(s.spare <= 44);
        if (how != aging::timer) CHECK(s.in_use == 0);  // else they are not of one moment
        if (how != aging::timer) CHECK(static_cast<std::size_t>(alive.load()) == s.spare);
    }
    CHECK(wrong == 0);
    CHECK(alive == 0);
}

}  // namespace

TEST_CASE("each object has one owner at a time, whichever threads get it and give it back",
          "[stress][pool][object_pool][PO-41][P-004]") {
    pass_around(aging::nobody, 8, fast ? 1'000'000 : 250'000);
}
TEST_CASE("so it has while a timer ages what is shared, and what idle threads keep", "[stress][pool][object_pool]") {
    pass_around(aging::timer, 4, 20'000);
}
TEST_CASE("so it has while another thread shares what it finds idle, all the time", "[stress][pool][object_pool]") {
    if (!co::detail::heavy_barrier()) WARN("SKIPPED: membarrier(2) is missing, or refused");  // and slow the first time
    pass_around(aging::thread, 3, 20'000);
}

TEST_CASE("pools and the threads that used them end in any order, also while a timer takes what is idle",
          "[stress][pool][object_pool][PO-43]") {
    stress::dice dice;
    stress::looping_thread ages;
    for (int round = 0; round < 300; ++round) {
        std::optional<pool> objects(std::in_place, co::object_pool_options<owned>{
                                                       .max_spare_per_thread = 4,
                                                       .max_spare_shared = 2,
                                                       .epoch = std::chrono::microseconds(1),
                                                       .runs_on = round % 2 == 0 ? co::executor_ref()
                                                                                 : co::executor_ref(ages.loop())});
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
