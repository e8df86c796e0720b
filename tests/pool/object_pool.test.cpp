// SPDX-License-Identifier: MIT
#include <cordon/pool/object_pool.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::object_pool;
using co::testing::simulation;

static_assert(co::reportable<object_pool<int>>);
static_assert(!std::is_copy_constructible_v<object_pool<int>::lease>);
static_assert(std::is_nothrow_move_constructible_v<object_pool<int>::lease>);

/// Counts those of its kind, in an atomic since some die on other threads.
struct counted {
    explicit counted(std::atomic<int>& n) : alive(&n) { ++n; }
    counted(const counted&) = delete;
    counted& operator=(const counted&) = delete;
    ~counted() { --*alive; }
    std::atomic<int>* alive;
    int uses = 0;
};

template <class Pool>
std::vector<typename Pool::lease> take(Pool& pool, std::size_t n) {
    std::vector<typename Pool::lease> taken;
    while (taken.size() < n) taken.push_back(pool.acquire());
    return taken;
}

/// A thread that does one thing after the other, and lives meanwhile.
class helper {
public:
    helper() = default;
    helper(const helper&) = delete;
    helper& operator=(const helper&) = delete;
    ~helper() {
        runs(nullptr);
        thread_.join();
    }
    void runs(std::function<void()> f) {
        next_ = std::move(f);
        turn_ = 1;
        turn_.notify_one();
        turn_.wait(1);
    }

private:
    void loop() {
        for (bool more = true; more; turn_.notify_one()) {
            turn_.wait(0);
            more = next_ != nullptr;
            if (more) next_();
            turn_ = 0;
        }
    }
    std::function<void()> next_;
    std::atomic<int> turn_{0};
    std::thread thread_{[this] { loop(); }};
};

/// Where threads keep what they do not use.
bool no_heavy_barrier() {
    if (co::detail::heavy_barrier()) return false;
    WARN("SKIPPED: membarrier(2) is missing, or refused");
    return true;
}

template <class F>
void on_a_thread(F f) {
    std::thread(std::move(f)).join();
}

}  // namespace

TEST_CASE("an object comes back cleared, and is had again with the memory it has", "[pool][object_pool]") {
    object_pool<std::string> buffers{{
        .name = "buffers",
        .make = [] { std::string s; s.reserve(4096); return s; },
        .reset = [](std::string& s) { s.clear(); },
    }};
    CHECK(buffers.name() == "buffers");
    const char* where = nullptr;
    {
        auto b = buffers.acquire();
        b->append("hello");
        where = b->data();
        CHECK(buffers.stats().in_use == 1);
    }
    const auto again = buffers.acquire();
    CHECK(again->empty());
    CHECK(again->data() == where);
    CHECK(buffers.stats().made == 1);
}

TEST_CASE("the object that came back last is had first", "[pool][object_pool][P-001]") {
    object_pool<int> pool;
    CHECK(pool.stats().spare == 0);
    auto a = pool.acquire(), b = pool.acquire();
    int* const first = &*a;
    int* const last = &*b;
    a.release();
    b.release();
    a = pool.acquire();
    b = pool.acquire();
    CHECK(&*a == last);
    CHECK(&*b == first);
    CHECK(pool.stats().spare == 0);
}

TEST_CASE("a lease moves, is given back once, and can throw its object away", "[pool][object_pool][PO-25]") {
    std::atomic<int> alive{0};
    object_pool<counted> pool{{.make = [&] { return counted(alive); }}};
    auto a = pool.acquire();
    auto b = std::move(a);
    CHECK_FALSE(a);  // NOLINT
    CHECK(b);
    a.release();
    b.release();
    b.release();
    CHECK(pool.stats().spare == 1);
    CHECK(pool.stats().in_use == 0);
    a = pool.acquire();
    a.discard();
    a.discard();
    CHECK_FALSE(a);
    CHECK(alive == 0);
    CHECK(pool.stats().spare == 0);
    CHECK(pool.stats().destroyed == 1);
    b = pool.acquire();
    b = pool.acquire();  // what it had goes back
    CHECK(pool.stats().in_use == 1);
    CHECK(alive == 2);
}

TEST_CASE("an object that has grown too large, or cannot be reset, is not kept",
          "[pool][object_pool][P-006][P-008]") {
    object_pool<std::string> pool{{
        .reset = [](std::string& s) {
            if (s == "bad") throw std::runtime_error("cannot");
            s.clear();
        },
        .keep = [](const std::string& s) { return s.capacity() <= 1000; },
    }};
    pool.acquire()->assign(900, 'x');
    CHECK(pool.stats().spare == 1);
    pool.acquire()->reserve(64 << 20);
    CHECK(pool.acquire()->capacity() <= 1000);
    CHECK(pool.stats().spare == 1);
    CHECK(pool.stats().destroyed == 1);
    pool.acquire()->assign(5000, 'x');
    CHECK(pool.stats().spare == 0);
    CHECK(pool.stats().destroyed == 2);
    pool.acquire()->assign("bad");
    CHECK(pool.stats().spare == 0);
    CHECK(pool.stats().destroyed == 3);
}

TEST_CASE("what cannot be made is an error of its acquisition alone", "[pool][object_pool]") {
    bool broken = true;
    object_pool<int> pool{{.make = [&] { return broken ? throw std::runtime_error("no") : 7; }}};
    CHECK_THROWS_AS(pool.acquire(), std::runtime_error);
    CHECK(pool.stats().made == 0);
    broken = false;
    CHECK(*pool.acquire() == 7);
}

TEST_CASE("a thread keeps so many, the surplus is shared in halves, and what is too much goes", "[pool][object_pool]") {
    std::atomic<int> alive{0};
    object_pool<counted> pool{
        {.make = [&] { return counted(alive); }, .max_spare_per_thread = 8, .max_spare_shared = 10}};
    auto taken = take(pool, 30);
    CHECK(pool.stats().in_use == 30);
    for (int i = 0; i < 8; ++i) taken.pop_back();
    CHECK(pool.stats().spare == 8);
    CHECK(pool.stats().spare_shared == 0);
    taken.pop_back();
    CHECK(pool.stats().spare == 9);
    CHECK(pool.stats().spare_shared == 4);
    taken.clear();
    const auto s = pool.stats();
    CHECK(s.spare_shared == 8);  // two magazines of four: a third would be more than ten
    CHECK(s.spare <= 16);
    CHECK(s.in_use == 0);
    CHECK(static_cast<std::size_t>(alive) == s.spare);
    CHECK(s.made == 30);
    CHECK(s.destroyed == 30 - s.spare);
}

TEST_CASE("every spare object is had again before one is made", "[pool][object_pool][P-002]") {
    object_pool<int> pool{{.max_spare_per_thread = 8}};
    take(pool, 100).clear();
    const auto again = take(pool, 100);
    CHECK(pool.stats().made == 100);
    CHECK(pool.stats().spare == 0);
}

TEST_CASE("what one thread gives back another one gets", "[pool][object_pool][P-008]") {
    object_pool<int> pool{{.max_spare_per_thread = 8}};
    auto taken = take(pool, 40);
    on_a_thread([&] { taken.clear(); });  // as it ends it leaves the rest, too
    CHECK(pool.stats().spare_shared == 40);
    const auto again = take(pool, 40);
    CHECK(pool.stats().made == 40);
}

TEST_CASE("a thread that ends leaves its objects to the others, and what is too much is destroyed",
          "[pool][object_pool][PO-43]") {
    std::atomic<int> alive{0};
    object_pool<counted> pool{
        {.make = [&] { return counted(alive); }, .max_spare_per_thread = 8, .max_spare_shared = 20}};
    for (int i = 0; i < 50; ++i) {
        auto held = take(pool, 7);  // by this thread, so that the others have to make theirs
        on_a_thread([&] { take(pool, 7).clear(); });
    }
    const auto s = pool.stats();
    CHECK(s.spare_shared <= 20);
    CHECK(s.spare <= 28);
    CHECK(static_cast<std::size_t>(alive) == s.spare);
}

TEST_CASE("what nobody needs for an epoch is destroyed after it, and not later than after two",
          "[pool][object_pool][PO-41][P-003]") {
    const auto root = []() -> co::task<> {
        std::atomic<int> alive{0};
        object_pool<counted> pool{{.make = [&] { return counted(alive); }, .max_spare_per_thread = 2, .epoch = 1s}};
        take(pool, 100).clear();
        CHECK(alive == 100);
        co_await simulation::advance(1s);
        CHECK(pool.age());  // they were there for no whole epoch
        CHECK(alive == 100);
        {
            const auto some = take(pool, 40);
            co_await simulation::advance(999ms);
            CHECK(pool.age());
            CHECK(alive == 100);
        }
        co_await simulation::advance(1ms);
        CHECK(pool.age());  // 40 were needed meanwhile
        const int left = alive;
        CHECK(left >= 40);
        CHECK(left <= 43);
        co_await simulation::advance(1s);
        CHECK(pool.age());
        CHECK(alive <= 2);  // what the thread keeps, which it used meanwhile
        pool.trim();
        CHECK(alive == 0);
    };
    simulation().run(root());
}

TEST_CASE("an epoch that the clock cannot hold never ends", "[pool][object_pool]") {
    simulation sim;
    const auto root = [&]() -> co::task<> {
        for (const auto epoch : {(co::clock::duration::max)(), (co::clock::duration::max)() - 1ns}) {
            object_pool<int> pool{{.max_spare_per_thread = 2, .epoch = epoch, .runs_on = co::executor_ref(sim)}};
            take(pool, 100).clear();
            for (int i = 0; i < 3; ++i) {
                co_await simulation::advance(24h);
                pool.age();
            }
            CHECK(pool.stats().spare == 100);
            CHECK(sim.armed_timers() == 0);
        }
    };
    sim.run(root());
}

TEST_CASE("a thread that goes on giving back lets old objects go by itself, a magazine at a time",
          "[pool][object_pool]") {
    const auto root = []() -> co::task<> {
        object_pool<int> pool{{.max_spare_per_thread = 4, .epoch = 1s}};
        take(pool, 100).clear();
        co_await simulation::advance(1s);
        take(pool, 8).clear();
        co_await simulation::advance(1s);
        const auto before = pool.stats().destroyed;
        CHECK(before == 0);
        for (int i = 0; i < 100; ++i) {
            const auto destroyed = pool.stats().destroyed;
            take(pool, 8).clear();
            CHECK(pool.stats().destroyed - destroyed <= 3 * 2);
        }
        CHECK(pool.stats().spare < 20);
    };
    simulation().run(root());
}

TEST_CASE("with an executor idle objects go without any call, down to the floor", "[pool][object_pool][PO-34]") {
    simulation sim;
    const auto root = [&]() -> co::task<> {
        object_pool<int> pool{
            {.max_spare_per_thread = 2, .min_spare_shared = 10, .epoch = 1s, .runs_on = co::executor_ref(sim)}};
        CHECK(sim.armed_timers() == 0);
        take(pool, 100).clear();
        CHECK(sim.armed_timers() == 1);
        co_await simulation::advance(3s);
        CHECK(pool.stats().spare_shared == 10);
        co_await simulation::advance(1s);
        CHECK(sim.armed_timers() == 0);  // nothing left to look after
        CHECK(pool.stats().spare_shared == 10);
        take(pool, 100).clear();
        CHECK(sim.armed_timers() == 1);
    };
    sim.run(root());
    CHECK(sim.armed_timers() == 0);  // its end leaves none
}

TEST_CASE("what is shared goes after two epochs at the latest, whoever began them", "[pool][object_pool]") {
    simulation sim;
    const auto root = [&]() -> co::task<> {
        object_pool<int> pool{{.max_spare_per_thread = 2, .epoch = 1s, .runs_on = co::executor_ref(sim)}};
        auto first = take(pool, 8), last = take(pool, 4);
        co_await simulation::advance(990ms);  // the timer begins here
        first.resize(4);
        co_await simulation::advance(10ms);
        first.clear();  // and this begins an epoch
        co_await simulation::advance(10ms);
        last.clear();
        CHECK(pool.stats().spare_shared == 10);
        co_await simulation::advance(2s);
        CHECK(pool.stats().spare_shared == 2);  // of the thread, which has been idle since
        co_await simulation::advance(1s);
        CHECK(pool.stats().spare == 0);
    };
    sim.run(root());
}

TEST_CASE("aging comes down to the floor, also in the middle of a magazine", "[pool][object_pool][PO-41]") {
    simulation sim;
    for (const bool timer : {false, true}) {
        const auto root = [&]() -> co::task<> {
            object_pool<int> pool{{.max_spare_per_thread = 64, .min_spare_shared = 10, .epoch = 1s,
                                   .runs_on = timer ? co::executor_ref(sim) : co::executor_ref()}};
            take(pool, 96).clear();
            CHECK(pool.stats().spare_shared == 32);  // a magazine
            bool more = true;
            for (int i = 0; i < 2; ++i) {
                co_await simulation::advance(1s);
                more = timer || pool.age();
                take(pool, 1).clear();  // so this thread is not idle
            }
            CHECK(more);
            CHECK(pool.stats().spare_shared == 10);
            const auto again = take(pool, 74);
            CHECK(pool.stats().made == 96);
            CHECK(pool.stats().spare == 0);
        };
        sim.run(root());
    }
}

TEST_CASE("what an idle thread keeps goes as well, after three epochs at the latest, and the thread goes on",
          "[pool][object_pool][PO-41]") {
    if (no_heavy_barrier()) return;
    const auto root = []() -> co::task<> {
        std::atomic<int> alive{0};
        object_pool<counted> pool{{.make = [&] { return counted(alive); }, .epoch = 1s}};
        std::optional<helper> other(std::in_place);
        for (int round = 0; round < 2; ++round) {
            other->runs([&] { take(pool, 64).clear(); });
            CHECK(pool.stats().spare == 64);
            CHECK(pool.stats().spare_shared == 0);
            co_await simulation::advance(1s);
            CHECK(pool.age());
            CHECK(pool.stats().spare_shared == 0);  // it was used in this epoch
            co_await simulation::advance(1s);
            CHECK(pool.age());
            CHECK(pool.stats().spare_shared == 64);  // for others, as long again
            CHECK(pool.stats().in_use == 0);
            CHECK(alive == 64);
            co_await simulation::advance(1s);
            CHECK_FALSE(pool.age());
            CHECK(alive == 0);
            CHECK(pool.stats().destroyed == pool.stats().made);
        }
        other->runs([&] { take(pool, 10).clear(); });
        CHECK(pool.stats().spare == 10);
        CHECK(pool.stats().spare_shared == 0);
        other.reset();
        CHECK(pool.stats().spare_shared == 10);
    };
    simulation().run(root());
}

TEST_CASE("with an executor it goes without any call, and then no timer is left", "[pool][object_pool]") {
    if (no_heavy_barrier()) return;
    simulation sim;
    const auto root = [&]() -> co::task<> {
        object_pool<int> pool{{.epoch = 1s, .runs_on = co::executor_ref(sim)}};
        for (int round = 0; round < 2; ++round) {
            CHECK(sim.armed_timers() == 0);
            auto held = take(pool, 64);
            held.resize(10);
            CHECK(sim.armed_timers() == 1);
            co_await simulation::advance(1s);
            CHECK(pool.stats().spare == 54);
            held.clear();  // so the thread was not idle in the second epoch
            co_await simulation::advance(1s);
            CHECK(pool.stats().spare_shared == 0);
            co_await simulation::advance(2s);
            CHECK(pool.stats().spare == 0);
            co_await simulation::advance(1s);
        }
    };
    sim.run(root());
}

TEST_CASE("a thread that uses one object in each epoch keeps all that it has, and makes none", "[pool][object_pool]") {
    const auto root = []() -> co::task<> {
        object_pool<int> pool{{.epoch = 1s}};
        take(pool, 64).clear();
        for (int i = 0; i < 20; ++i) {
            co_await simulation::advance(500ms);
            take(pool, 1).clear();
            co_await simulation::advance(500ms);
            CHECK(pool.age());
            CHECK(pool.stats().spare_shared == 0);
        }
        const auto again = take(pool, 64);
        CHECK(pool.stats().made == 64);
    };
    simulation().run(root());
}

TEST_CASE("a thread that is back within an epoch after what it kept was shared gets that again",
          "[pool][object_pool]") {
    const auto root = []() -> co::task<> {
        object_pool<int> pool{{.epoch = 1s}};
        for (int i = 0; i < 5; ++i) {
            take(pool, 64).clear();
            co_await simulation::advance(1s);
            pool.age();
            co_await simulation::advance(1s);
            pool.age();
        }
        CHECK(pool.stats().made == 64);
        CHECK(pool.stats().destroyed == 0);
    };
    simulation().run(root());
}

TEST_CASE("what idle threads keep is destroyed where there is no room to share it", "[pool][object_pool]") {
    if (no_heavy_barrier()) return;
    const auto root = []() -> co::task<> {
        object_pool<int> pool{{.max_spare_per_thread = 8, .max_spare_shared = 4, .epoch = 1s}};
        take(pool, 8).clear();
        co_await simulation::advance(1s);
        pool.age();
        co_await simulation::advance(1s);
        CHECK(pool.age());
        CHECK(pool.stats().spare_shared == 4);
        CHECK(pool.stats().spare == 4);
        CHECK(pool.stats().destroyed == 4);
    };
    simulation().run(root());
}

TEST_CASE("objects of a thread that keeps none age as others do", "[pool][object_pool]") {
    namespace detail = co::detail;
    const auto root = []() -> co::task<> {
        const auto destroy = [](void* one) noexcept { delete static_cast<int*>(one); };
        detail::object_depot depot({.magazine_size = 8, .most = 100, .fewest = 0, .epoch = 1s, .runs_on = {},
                                    .destroy = destroy});
        for (int i = 0; i < 5; ++i) CHECK(depot.put_one(new int));
        co_await simulation::advance(1s);
        depot.age(co::clock::now());
        depot.destroy_one(depot.take_one());
        CHECK(depot.put_one(new int));  // so four lay there all the time
        co_await simulation::advance(1s);
        depot.age(co::clock::now());
        CHECK(depot.spares() == 1);
        depot.destroy_all(depot.take());
    };
    simulation().run(root());
}

TEST_CASE("magazines that nobody fills for an epoch go as objects do", "[pool][object_pool]") {
    namespace detail = co::detail;
    detail::object_depot depot({.magazine_size = 8, .most = 100, .fewest = 0, .epoch = 1s, .runs_on = {},
                                .destroy = [](void*) noexcept {}});
    for (int i = 0; i < 3; ++i) CHECK(depot.put(detail::magazine::make(8)));
    depot.turn();
    CHECK_FALSE(depot.take_unneeded());
    CHECK(depot.put(depot.take_empty()));  // one is needed in this epoch
    depot.turn();
    int gone = 0;
    while (const auto old = depot.take_unneeded()) {
        CHECK(old.all->count == 0);
        depot.destroy(old);
        ++gone;
    }
    CHECK(gone == 2);
}

TEST_CASE("a pool ends while threads that used it live on, and their numbers serve the next one",
          "[pool][object_pool]") {
    std::atomic<int> alive{0}, step{0};
    std::optional<object_pool<counted>> pool;
    const auto options = [&] { return co::object_pool_options<counted>{.make = [&] { return counted(alive); }}; };
    pool.emplace(options());
    std::thread other([&] {
        pool->acquire()->uses = 1;
        step = 1;
        step.notify_all();
        step.wait(1);
        CHECK(pool->acquire()->uses == 0);  // of the second pool, though it may lie where the first did
        CHECK(pool->stats().made == 1);
    });
    step.wait(0);
    pool->acquire()->uses = 1;
    CHECK(alive == 2);
    pool.reset();
    CHECK(alive == 0);
    pool.emplace(options());
    step = 2;
    step.notify_all();
    other.join();
    CHECK(pool->stats().spare_shared == 1);
    pool.reset();
    CHECK(alive == 0);
}

TEST_CASE("pools of one thread keep their objects apart", "[pool][object_pool]") {
    std::vector<std::unique_ptr<object_pool<std::size_t>>> pools;
    for (std::size_t i = 0; i < 20; ++i)
        pools.push_back(std::make_unique<object_pool<std::size_t>>(
            co::object_pool_options<std::size_t>{.make = [i] { return i; }}));
    for (int round = 0; round < 3; ++round)
        for (std::size_t i = 0; i < pools.size(); ++i) CHECK(*pools[i]->acquire() == i);
    pools.erase(pools.begin() + 5);
    object_pool<std::size_t> in_the_gap{{.make = [] { return std::size_t{99}; }}};
    CHECK(*in_the_gap.acquire() == 99);
    for (const auto& pool : pools) CHECK(pool->stats().made == 1);
}

TEST_CASE("objects may use pools as they are destroyed, also when their thread ends", "[pool][object_pool]") {
    object_pool<int> inner{{.max_spare_per_thread = 2}};
    struct user {
        explicit user(object_pool<int>& p) : pool(&p) {}
        user(const user&) = delete;
        user& operator=(const user&) = delete;
        ~user() { ++*pool->acquire(); }
        object_pool<int>* pool;
    };
    {
        object_pool<user> outer{
            {.make = [&] { return user(inner); }, .max_spare_per_thread = 8, .max_spare_shared = 0}};
        on_a_thread([&] { take(outer, 8).clear(); });
        CHECK(outer.stats().destroyed == 8);
        take(outer, 20).clear();
    }
    CHECK(inner.stats().in_use == 0);
    CHECK(inner.stats().spare == inner.stats().made);
}

TEST_CASE("a thread-local of the user's may use a pool after the thread's own objects have gone",
          "[pool][object_pool]") {
    static object_pool<int>* late = nullptr;
    struct last {
        ~last() {
            for (int i = 0; i < 5; ++i) {
                const auto a = late->acquire(), b = late->acquire();
            }
        }
    };
    object_pool<int> pool{{.max_spare_per_thread = 4, .max_spare_shared = 3}};
    late = &pool;
    on_a_thread([] {
        static thread_local const last dies_after_the_pool_s;
        static_cast<void>(&dies_after_the_pool_s);
        take(*late, 2).clear();
    });
    CHECK(pool.stats().made == 2);
    CHECK(pool.stats().spare_shared == 2);
    CHECK(pool.stats().in_use == 0);
}

TEST_CASE("a thread of a library with a registry of its own shares what is spare, and keeps nothing",
          "[pool][object_pool]") {
    namespace detail = co::detail;
    static int destroyed = 0;
    detail::pool_registry elsewhere;
    detail::object_depot depot({.magazine_size = 2, .most = 3, .fewest = 0, .epoch = 1s, .runs_on = {},
                                .destroy = [](void* one) noexcept { ++destroyed; delete static_cast<int*>(one); }});
    detail::enter_pool(elsewhere, depot);
    for (int i = 0; i < 4; ++i) detail::keep_spare(elsewhere, &depot, depot.id, new int);
    CHECK(depot.spares() == 3);
    CHECK(destroyed == 1);
    CHECK(detail::count_spares(elsewhere, depot).of_threads == 0);
    void* const one = detail::take_spare(elsewhere, &depot, depot.id);
    CHECK(one != nullptr);
    CHECK(depot.spares() == 2);
    detail::keep_spare(elsewhere, &depot, depot.id, one);
    detail::leave_pool(elsewhere, depot);
    while (detail::magazine* const m = depot.take()) depot.destroy_all(m);
    CHECK(destroyed == 4);
}

TEST_CASE("a pool may be a member that says its options", "[pool][object_pool]") {
    struct parser {  // which g++ 12 crashes on if a default of an option has a defaulted constructor
        object_pool<std::string> lines{{.reset = [](std::string& s) { s.clear(); }, .epoch = 1ms}};
        object_pool<int> plain;
    } p;
    CHECK(p.lines.acquire()->empty());
    CHECK(*p.plain.acquire() == 0);
}

TEST_CASE("objects need not move, and may be aligned as they like", "[pool][object_pool]") {
    struct alignas(128) wide {
        wide() = default;
        wide(const wide&) = delete;
        wide& operator=(const wide&) = delete;
        char bytes[200] = {};
    };
    object_pool<wide> pool;
    const auto taken = take(pool, 5);
    for (const auto& w : taken) CHECK(reinterpret_cast<std::uintptr_t>(&*w) % 128 == 0);
}

TEST_CASE("options that make no sense are refused with the field, its value and the range", "[pool][object_pool]") {
    const auto refusal = [](co::object_pool_options<int> options) -> std::string {
        try {
            const object_pool<int> pool(std::move(options));
        } catch (const std::invalid_argument& e) {
            return e.what();
        }
        return "accepted";
    };
    CHECK(refusal({}) == "accepted");
    CHECK(refusal({.max_spare_per_thread = 2}) == "accepted");
    CHECK(refusal({.max_spare_per_thread = 1}) == "object_pool: max_spare_per_thread is 1, allowed are 2 to 1000000");
    CHECK(refusal({.max_spare_shared = 50, .min_spare_shared = 51}) ==
          "object_pool: min_spare_shared is 51, allowed are 0 to 50");
    CHECK(refusal({.max_spare_shared = 31}) ==
          "object_pool: max_spare_shared is 31, allowed is 0, or half of max_spare_per_thread and more, since so many "
          "are shared at a time");
    CHECK(refusal({.max_spare_shared = 32}) == "accepted");
    CHECK(refusal({.epoch = 0s}) == "object_pool: epoch is 0 ns, allowed is more than 0");
    CHECK_THROWS_WITH(object_pool<counted>{{}},
                      "object_pool: make is empty, and the objects have no default constructor");
}

#ifdef ASAN_POISON_MEMORY_REGION
TEST_CASE("a use of what was given back ends a program with AddressSanitizer", "[pool][object_pool][P-007]") {
    const std::string text = last_words([] {
        __sanitizer_set_death_callback([] { std::abort(); });  // it would exit
        object_pool<std::uint64_t> pool;
        auto mine = pool.acquire();
        std::uint64_t* const kept = &*mine;
        mine.release();
        *kept = 7;
    });
    CHECK(says(text, "use-after-poison"));
}
#endif

TEST_CASE("a pool that is destroyed while an object is out says so", "[pool][object_pool][P-008]") {
    const std::string text = last_words([] {
        std::optional<object_pool<int>> pool(std::in_place, co::object_pool_options<int>{.name = "buffers"});
        const auto out = pool->acquire();
        pool.reset();
    });
    CHECK(says(text, "object_pool \"buffers\" destroyed while 1 of its objects are in use"));
}

TEST_CASE("its figures are told to metrics", "[pool][object_pool]") {
    object_pool<int> pool{{.max_spare_per_thread = 2}};
    auto held = take(pool, 5);
    held.resize(2);
    std::string seen;
    auto write = [&](const co::metric& m) {
        (seen += m.name) += m.type == co::metric_type::counter ? ' ' + std::to_string(m.total) + '\n'
                                                               : ' ' + std::to_string(static_cast<int>(m.value)) + '\n';
    };
    co::metric_sink sink(write);
    pool.report(sink);
    CHECK(seen == "made 5\ndestroyed 0\nin_use 2\nspare 3\nspare_shared 1\n");
}
