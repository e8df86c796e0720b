// SPDX-License-Identifier: MIT
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/with.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

std::atomic<int> alive{0};

/// Says if two have it at the same time: its members are not atomic.
struct thing {
    thing() { ++alive; }
    thing(thing&& other) noexcept : uses(other.uses), free(other.free) { ++alive; }
    thing& operator=(thing&&) = delete;
    ~thing() { --alive; }
    int uses = 0;
    bool free = true;
};
using pool = co::resource_pool<thing>;

task<thing> make() {
    co_await co::this_task::yield();
    static std::atomic<int> n{0};
    if (n.fetch_add(1, std::memory_order_relaxed) % 8 == 7) throw 1;
    co_return thing();
}
task<bool> check(thing& t) {
    co_await co::this_task::yield();
    co_return t.uses % 16 != 15;
}

task<> customer(pool& p, std::atomic<int>& wrong, std::uint64_t seed, int rounds) {
    std::mt19937_64 random(seed);
    for (int i = 0; i < rounds; ++i) {
        const auto patience = std::chrono::microseconds(random() % 200);
        auto got = co_await co::as_outcome(co::with_timeout(patience, p.acquire()));
        if (!got.has_value()) continue;
        if (!std::exchange((*got)->free, false)) ++wrong;
        ++(*got)->uses;
        if (random() % 2 == 0) co_await co::this_task::yield();
        (*got)->free = true;
        switch (random() % 16) {
            case 0: got->discard(); break;
            case 1: static_cast<void>(got->take()); break;
            case 2: p.invalidate(); break;
            case 3: p.retain([&](thing& t) { return t.uses % 3 != 0; }); break;
            case 4: p.resize(1 + random() % 4); break;
            case 5: static_cast<void>(p.holders()); break;
            case 6: p.reap(); break;
            case 7:
                if (auto more = p.try_acquire()) more->free = true;
                break;
            default: break;
        }
    }
}

void meet(bool own_executor) {
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> wrong{0};
    {
        stress::crew<3> crew;
        co::resource_pool_options<thing> options{
            .max_idle_time = 300us, .held_too_long = 50us, .usable = check, .trusted_for = 20us,
            .on_held_too_long = [](const co::pool_holder&) {}};
        if (own_executor) options.runs_on = co::executor_ref(crew.loop(0));
        if (own_executor) options.min_idle = 1;
        pool p{3, make, std::move(options)};
        for (std::uint64_t i = 0; i < 6; ++i) crew.start(i, customer(p, wrong, seed + i, 300));
        crew.wait();
        CHECK(p.stats().in_use == 0);
        CHECK(p.stats().waiting == 0);
        const auto closes = [](pool& of) -> task<> { co_await of.close(); };
        crew.start(1, closes(p));
        crew.wait();
        CHECK(p.stats().size == 0);
        CHECK(p.stats().acquired > 0);
    }
    CHECK(wrong == 0);
    CHECK(alive == 0);
}

}  // namespace

TEST_CASE("threads that borrow, stop, discard, evict and resize share a pool without harm",
          "[stress][pool][resource_pool][PO-30][PO-06]") {
    meet(false);
}
TEST_CASE("so they do if it has an executor of its own", "[stress][pool][resource_pool][PO-30]") { meet(true); }

TEST_CASE("a close meets borrowers on other threads, and is the end of the pool",
          "[stress][pool][resource_pool][PO-28]") {
    stress::dice dice;
    stress::crew<3> crew;
    for (int round = 0; round < 150; ++round) {
        std::optional<pool> p(std::in_place, 2u, make,
                              co::resource_pool_options<thing>{
                                  .runs_on = round % 2 == 0 ? co::executor_ref(crew.loop(2)) : co::executor_ref()});
        const auto borrows = [](pool& of) -> task<> {
            for (bool closed = false; !closed;) {
                auto got = co_await co::as_outcome(of.acquire());
                closed = got.is_rejected();
                if (got.has_value()) co_await co::this_task::yield();
            }
        };
        const auto closes = [](pool& of, std::uint32_t pause) -> task<> {
            stress::dawdle(pause);
            co_await of.close();
        };
        for (std::size_t i = 0; i < 3; ++i) crew.start(i, borrows(*p));
        crew.start(2, closes(*p, dice.below(20'000)));
        crew.wait();
        p.reset();
        REQUIRE(alive == 0);
    }
}

TEST_CASE("who has closed a pool may destroy it, whoever it has refused on other threads",
          "[stress][pool][resource_pool][PO-28]") {
    stress::dice dice;
    stress::crew<3> crew;
    const auto make_one = []() -> task<thing> { co_return thing(); };
    for (int round = 0; round < stress::rounds(1200); ++round) {
        co::resource_pool_options<thing> options{.usable = [](thing& t) { return t.uses++ % 3 != 1; }};
        if (round % 3 == 0) options.runs_on = co::executor_ref(crew.loop(2));
        auto p = std::make_unique<pool>(1u, make_one, std::move(options));
        const auto waits = [](pool& of) -> task<> {
            auto got = co_await co::as_outcome(of.acquire());
            if (!got.has_value()) co_return;
            (*got)->free = false;
            got->release();
        };
        const auto ends = [](std::unique_ptr<pool>& owned, std::uint32_t pause) -> task<> {
            stress::dawdle(pause);
            co_await owned->close();
            owned.reset();
        };
        const auto gives = [](pool::lease held, std::uint32_t pause) -> task<> {
            stress::dawdle(pause);
            held.release();
            co_return;
        };
        std::optional<pool::lease> held;
        const auto takes = [](pool& of, std::optional<pool::lease>& to) -> task<> { to = co_await of.acquire(); };
        crew.start(2, takes(*p, held));
        crew.wait();
        for (std::size_t i = 0; i < 4; ++i) crew.start(i % 2, waits(*p));
        while (p->stats().waiting != 4) std::this_thread::yield();  // nobody comes any more
        crew.start(2, gives(*std::move(held), dice.below(2'000)));
        crew.start(round % 2 == 0 ? 1 : 0, ends(p, dice.below(2'000)));
        crew.wait();
        REQUIRE(alive == 0);
    }
}
