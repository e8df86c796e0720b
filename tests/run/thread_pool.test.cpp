// SPDX-License-Identifier: MIT
#include <cordon/run/thread_pool.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "counted_new.hpp"
#include "last_words.hpp"
#include "run/jobs.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <new>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#endif

namespace co = cordon;
using namespace std::chrono_literals;
using co::thread_pool;

namespace {

static_assert(co::executor<thread_pool>);
static_assert(co::observable<thread_pool>);
static_assert(!std::is_copy_constructible_v<thread_pool> && !std::is_move_constructible_v<thread_pool>);
static_assert(alignof(thread_pool) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__, "a pool may be a local of a coroutine");

/// Counts down from what it is given; `wait` returns at zero.
class countdown {
public:
    explicit countdown(int n) : left_(n) {}
    void operator()() noexcept {
        const std::lock_guard lock(mutex_);
        if (--left_ == 0) zero_.notify_all();
    }
    void wait() {
        std::unique_lock lock(mutex_);
        zero_.wait(lock, [this] { return left_ == 0; });
    }

private:
    std::mutex mutex_;
    std::condition_variable zero_;
    int left_;
};

std::string name_of_this_thread() {
#if defined(__linux__)
    char text[16] = {};
    pthread_getname_np(pthread_self(), text, sizeof text);
    return text;
#else
    return {};
#endif
}

void until_all_sleep(const thread_pool& pool) {
    while (pool.stats().sleeping != pool.stats().threads) std::this_thread::yield();
}

co::task<std::thread::id> where() { co_return std::this_thread::get_id(); }

}  // namespace

TEST_CASE("a pool runs each item once, on its own threads", "[run][thread_pool]") {
    for (const std::size_t threads : {1u, 2u, 4u}) {
        constexpr int n = 3'000;  // more than a worker's own queue holds
        std::vector<std::atomic<int>> ran(n);
        std::atomic<int> elsewhere{0};
        countdown all(n);
        thread_pool pool(threads);
        std::deque<job> jobs;
        for (int i = 0; i < n; ++i)
            jobs.emplace_back([&, i] {
                ++ran[static_cast<std::size_t>(i)];
                if (!pool.is_current()) ++elsewhere;
                all();
            });
        CHECK_FALSE(pool.is_current());
        for (job& j : jobs) pool.submit(j);
        all.wait();
        CHECK(std::all_of(ran.begin(), ran.end(), [](const auto& times) { return times == 1; }));
        CHECK(elsewhere == 0);
    }
}

TEST_CASE("a worker that submits more than its queue holds loses nothing", "[run][thread_pool]") {
    for (const std::size_t threads : {1u, 3u}) {
        constexpr int n = 5'000;
        std::atomic<int> ran{0};
        countdown all(n + 1);
        thread_pool pool(threads);
        std::deque<job> jobs;
        for (int i = 0; i < n; ++i)
            jobs.emplace_back([&] {
                ++ran;
                all();
            });
        job first([&] {
            for (job& j : jobs) pool.submit(j);
            all();
        });
        pool.submit(first);
        all.wait();
        CHECK(ran == n);
    }
}

TEST_CASE("one worker runs what is submitted in order", "[run][thread_pool]") {
    std::vector<int> order;
    countdown all(300);
    thread_pool pool(1);
    std::deque<job> inner, outer;
    for (int i = 0; i < 100; ++i)
        inner.emplace_back([&, i] {
            order.push_back(i);
            all();
        });
    for (int i = 100; i < 300; ++i)
        outer.emplace_back([&, i] {
            order.push_back(i);
            all();
        });
    job from_inside([&] {
        for (job& j : inner) pool.submit(j);
    });
    pool.submit(from_inside);
    for (job& j : outer) pool.submit(j);
    all.wait();
    std::vector<int> from_within, from_without;
    for (const int i : order) (i < 100 ? from_within : from_without).push_back(i);
    CHECK(std::is_sorted(from_within.begin(), from_within.end()));
    CHECK(std::is_sorted(from_without.begin(), from_without.end()));
    CHECK(order.size() == 300);
}

TEST_CASE("items that keep a worker busy do not keep those from outside out", "[run][thread_pool]") {
    std::atomic<bool> busy{false}, heard{false};
    countdown all(1);
    thread_pool pool(1);
    job self([] {});
    self.run_it = [&] {
        busy = true;
        if (heard) all();
        else pool.submit(self);
    };
    job from_outside([&] { heard = true; });
    pool.submit(self);
    while (!busy) std::this_thread::yield();
    pool.submit(from_outside);
    all.wait();
    CHECK(heard);
}

TEST_CASE("what a worker has queued is taken by another while it is busy", "[run][thread_pool]") {
    countdown both(2), last(1);
    thread_pool pool(2);
    until_all_sleep(pool);
    std::thread::id first_on, second_on;
    job second([&] {
        second_on = std::this_thread::get_id();
        both();
    });
    job first([&] {
        first_on = std::this_thread::get_id();
        while (pool.stats().sleeping == 0) std::this_thread::yield();
        pool.submit(second);
        both();
        both.wait();  // until the other has run it
        last();
    });
    pool.submit(first);
    last.wait();
    CHECK(first_on != second_on);
}

TEST_CASE("what a worker has queued is taken by one that always has work of its own, too", "[run][thread_pool]") {
    countdown done(2);
    std::atomic<bool> ran{false}, held{false};
    thread_pool pool(2);
    job queued([&] { ran = true; });
    job holds([&] {
        pool.submit(queued);
        held = true;
        while (!ran) std::this_thread::yield();
        done();
    });
    job* again = nullptr;
    job busy([&] {
        if (!held) return pool.submit(*again);
        if (!ran) return pool.submit(*again);
        done();
    });
    again = &busy;
    pool.submit(busy);
    pool.submit(holds);
    done.wait();
    CHECK(ran);
}

TEST_CASE("a pool that is being destroyed runs what its last item submits and waits for", "[run][thread_pool]") {
    std::atomic<bool> ran{false}, destroying{false};
    job last([&] { ran = true; });
    auto pool = std::make_unique<thread_pool>(2);
    thread_pool* const there = pool.get();
    job waits([&] {
        while (!destroying) std::this_thread::yield();
        std::this_thread::sleep_for(5ms);  // for the destructor to begin: real, since that tells nobody
        there->submit(last);
        while (!ran) std::this_thread::yield();
    });
    pool->submit(waits);
    destroying = true;
    pool.reset();
    CHECK(ran);
}

TEST_CASE("a pool and its threads have names", "[run][thread_pool]") {
    thread_pool pool(3, {.name = "workers"});
    CHECK(pool.name() == "workers");
    CHECK(thread_pool(1).name() == "pool");
#if defined(__linux__)
    std::set<std::string> names;
    std::mutex mutex;
    countdown all(3), gone(3);
    std::deque<job> jobs;
    for (int i = 0; i < 3; ++i)
        jobs.emplace_back([&] {
            {
                const std::lock_guard lock(mutex);
                names.insert(name_of_this_thread());
            }
            all();
            all.wait();  // so that each thread runs one
            gone();
        });
    for (job& j : jobs) pool.submit(j);
    gone.wait();
    CHECK(names == std::set<std::string>{"workers/0", "workers/1", "workers/2"});
    thread_pool of_long_name(1, {.name = "a name of more than 15 bytes"});
    const auto named = []() -> co::task<std::string> { co_return name_of_this_thread(); };
    const std::string cut = co::sync_wait(co::on(of_long_name, named));
    CHECK(cut == "a name of mor/0");
#endif
}

TEST_CASE("stats tell how many threads there are, sleep, and wait to be run", "[run][thread_pool]") {
    countdown begun(2), release(1), done(2), rest(5);
    thread_pool pool(2);
    CHECK(pool.stats().threads == 2);
    until_all_sleep(pool);
    CHECK(pool.stats().queued == 0);
    std::deque<job> holds, waits;
    for (int i = 0; i < 2; ++i)
        holds.emplace_back([&] {
            begun();
            release.wait();
            done();
        });
    for (int i = 0; i < 5; ++i) waits.emplace_back([&] { rest(); });
    for (job& j : holds) pool.submit(j);
    begun.wait();
    for (job& j : waits) pool.submit(j);
    CHECK(pool.stats().sleeping == 0);
    CHECK(pool.stats().queued == 5);
    release();
    done.wait();
    rest.wait();
    until_all_sleep(pool);
    CHECK(pool.stats().queued == 0);
}

TEST_CASE("no threads, or too many, are refused with the figures", "[run][thread_pool]") {
    const auto refused = [](std::size_t threads) {
        try {
            thread_pool pool(threads);
        } catch (const std::invalid_argument& e) {
            return std::string(e.what());
        }
        return std::string();
    };
    CHECK(refused(0) == "thread_pool: threads is 0, allowed are 1 to 1024");
    CHECK(refused(1025) == "thread_pool: threads is 1025, allowed are 1 to 1024");
}

TEST_CASE("a timer fires, not before its time, while all workers sleep", "[run][thread_pool]") {
    for (const std::size_t threads : {1u, 3u}) {
        countdown fired(3);
        std::atomic<bool> early{false}, elsewhere{false};
        thread_pool pool(threads);
        until_all_sleep(pool);
        const auto now = co::clock::now();
        std::deque<fuse> fuses;
        for (const auto wait : {3ms, 1ms, 2ms})  // real time: the workers' own sleep is what is tested
            fuses.emplace_back(now + wait, [&, wait] {
                if (co::clock::now() < now + wait) early = true;
                if (!pool.is_current()) elsewhere = true;
                fired();
            });
        fuse far(now + 1h, [] {});
        pool.timers().arm(far);
        for (fuse& f : fuses) pool.timers().arm(f);
        fired.wait();
        CHECK_FALSE(early);
        CHECK_FALSE(elsewhere);
        pool.timers().cancel(far);
        for (fuse& f : fuses) pool.timers().cancel(f);
    }
}

TEST_CASE("a timer fires while one worker is held up and the others sleep", "[run][thread_pool]") {
    countdown held(1), fired(1), done(1);
    thread_pool pool(3);
    until_all_sleep(pool);
    fuse f(co::clock::now() + 1ms, [&] { fired(); });
    job holds([&] {
        held();
        fired.wait();
        done();
    });
    pool.submit(holds);
    held.wait();
    pool.timers().arm(f);
    done.wait();
    pool.timers().cancel(f);
    CHECK(co::clock::now() >= f.when);
}

TEST_CASE("a timer fires while one sleeper was woken by a timer before it and is held up", "[run][thread_pool]") {
    countdown fired(1), done(1);
    thread_pool pool(3);
    const auto now = co::clock::now();
    job holds([&] {
        fired.wait();
        done();
    });
    fuse first(now + 1ms, [&] { pool.submit(holds); }), second(now + 3ms, [&] { fired(); });
    until_all_sleep(pool);
    pool.timers().arm(second);
    pool.timers().arm(first);
    done.wait();
    for (fuse* f : {&first, &second}) pool.timers().cancel(*f);
}

TEST_CASE("a timer fires while the only worker is busy", "[run][thread_pool]") {
    std::atomic<bool> fired{false};
    countdown done(1);
    thread_pool pool(1);
    job busy([] {});
    busy.run_it = [&] {
        if (fired) done();
        else pool.submit(busy);
    };
    fuse f({}, [&] { fired = true; });
    job arms([&] {
        pool.submit(busy);  // from here on there is always one
        f.when = co::clock::now() + 1ms;
        pool.timers().arm(f);
    });
    pool.submit(arms);
    done.wait();
    pool.timers().cancel(f);
}

TEST_CASE("a timer fires while all workers are busy", "[run][thread_pool]") {
    std::atomic<bool> fired{false};
    countdown done(4);
    thread_pool pool(2);
    std::deque<job> busy;
    for (std::size_t i = 0; i < 4; ++i)
        busy.emplace_back([&, i] {
            if (fired) done();
            else pool.submit(busy[i]);
        });
    fuse f(co::clock::now() + 1ms, [&] { fired = true; });
    pool.timers().arm(f);
    for (job& j : busy) pool.submit(j);
    done.wait();
    pool.timers().cancel(f);
}

TEST_CASE("a timer that a worker arms before it is held up fires on another", "[run][thread_pool]") {
    countdown fired(1), done(1);
    thread_pool pool(2);
    fuse f({}, [&] { fired(); });
    job holds([&] {
        f.when = co::clock::now() + 1ms;
        pool.timers().arm(f);
        fired.wait();
        done();
    });
    pool.submit(holds);
    done.wait();
    pool.timers().cancel(f);
}

TEST_CASE("tasks sleep, hop and time out on a pool", "[run][thread_pool]") {
    thread_pool pool(2);
    const auto sleeps = []() -> co::task<> {
        const auto from = co::clock::now();
        co_await co::sleep_for(2ms);
        CHECK(co::clock::now() - from >= 2ms);
        const auto within = co_await co::as_outcome(co::with_timeout(1ms, co::sleep_for(1h)));
        CHECK(within.is_error());
        const auto in_time = co_await co::as_outcome(co::with_timeout(1h, co::sleep_for(100us)));
        CHECK(in_time.has_value());
        for (int i = 0; i < 300; ++i) co_await co::this_task::yield();
    };
    co::sync_wait(co::on(pool, sleeps));
}

TEST_CASE("on a pool and back home", "[run][thread_pool]") {
    thread_pool pool(2);
    const auto goes = [&]() -> co::task<> {
        const auto here = std::this_thread::get_id();
        for (int i = 0; i < 1'000; ++i) {
            const auto there = co_await co::on(pool, where());
            if (there == here || std::this_thread::get_id() != here) throw std::logic_error("lost its way");
        }
        const auto both = co_await co::when_all(co::on(pool, where()), co::on(pool, where()));
        CHECK(std::get<0>(both) != here);
        CHECK(std::get<1>(both) != here);
        CHECK(std::this_thread::get_id() == here);
    };
    co::sync_wait(goes());
}

TEST_CASE("a task goes from one pool to another and back", "[run][thread_pool]") {
    thread_pool one(2, {.name = "one"}), two(2, {.name = "two"});
    const auto on_two = [&]() -> co::task<bool> {
        co_await co::this_task::yield();
        co_return two.is_current() && !one.is_current();
    };
    const auto on_one = [&]() -> co::task<int> {
        int right = 0;
        for (int i = 0; i < 500; ++i) {
            const bool there = co_await co::on(two, on_two);
            if (there && one.is_current()) ++right;
        }
        co_return right;
    };
    CHECK(co::sync_wait(co::on(one, on_one)) == 500);
}

TEST_CASE("spawned tasks spawn tasks, and their group joins them all", "[run][thread_pool]") {
    struct tree {
        std::atomic<int> nodes{0};
        co::task<> grow(co::task_group& group, int depth) {
            ++nodes;
            if (depth == 0) co_return;
            group.spawn(grow(group, depth - 1));
            group.spawn(grow(group, depth - 1));
        }
        co::task<> grow_nested(int depth) {
            ++nodes;
            if (depth == 0) co_return;
            const auto both = [this, depth](co::task_group& group) -> co::task<> {
                group.spawn(grow_nested(depth - 1));
                group.spawn(grow_nested(depth - 1));
                co_return;
            };
            co_await co::with_group(both);
        }
    };
    thread_pool pool(3);
    tree one_group, many_groups;
    const auto root = [&](co::task_group& group) -> co::task<> {
        group.spawn(one_group.grow(group, 10));
        co_return;
    };
    co::sync_wait(co::on(pool, co::with_group(root)));
    CHECK(one_group.nodes == 2'047);
    co::sync_wait(co::on(pool, many_groups.grow_nested(8)));
    CHECK(many_groups.nodes == 511);
}

TEST_CASE("a group on a pool is stopped from outside", "[run][thread_pool]") {
    thread_pool pool(2);
    co::task_group group(pool);
    for (int i = 0; i < 50; ++i) group.spawn(co::sleep_for(1h));
    group.request_stop();
    co::sync_wait(group.join());
    CHECK(group.size() == 0);
}

TEST_CASE("the deadline of a scope of another thread is fired by a pool", "[run][thread_pool]") {
    thread_pool timers(1, {.name = "timers"});
    co::cancel_scope request(timers, co::deadline::after(1ms));
    while (!request.token().stop_requested()) std::this_thread::yield();
    CHECK(request.reason().kind == co::stop_kind::deadline);
}

TEST_CASE("the destructor runs what is queued", "[run][thread_pool]") {
    for (const std::size_t threads : {1u, 3u}) {
        std::atomic<int> ran{0};
        std::deque<job> late, jobs;
        std::optional<thread_pool> owner(std::in_place, threads);
        thread_pool* const pool = &*owner;
        for (int i = 0; i < 1'000; ++i) late.emplace_back([&] { ++ran; });
        for (int i = 0; i < 1'000; ++i)
            jobs.emplace_back([&, i] {
                ++ran;
                pool->submit(late[static_cast<std::size_t>(i)]);
            });
        for (job& j : jobs) pool->submit(j);
        owner.reset();
        CHECK(ran == 2'000);
    }
}

TEST_CASE("a pool that did nothing can be destroyed at once", "[run][thread_pool]") {
    for (int i = 0; i < 50; ++i) thread_pool pool(static_cast<std::size_t>(1 + i % 4));
    SUCCEED();
}

TEST_CASE("a pool destroyed by one of its own threads says so and terminates", "[run][thread_pool]") {
    const auto text = last_words([] {
        auto* const pool = new thread_pool(2, {.name = "mine"});
        job last([&] { delete pool; });
        pool->submit(last);
        std::this_thread::sleep_for(10s);
    });
    CHECK(says(text, "thread_pool \"mine\" destroyed by one of its own threads"));
}

TEST_CASE("a pool destroyed with timers armed says so and terminates", "[run][thread_pool]") {
    const auto text = last_words([] {
        std::optional<thread_pool> pool(std::in_place, 1u);
        fuse f(co::clock::now() + 1h, [] {});
        pool->timers().arm(f);
        pool.reset();
    });
    CHECK(says(text, "1 timers armed"));
}

TEST_CASE("a pool can be a local of a task", "[run][thread_pool]") {
    const auto has_its_own = []() -> co::task<bool> {
        thread_pool pool(1);
        const auto there = co_await co::on(pool, where());
        co_return there != std::this_thread::get_id();
    };
    CHECK(co::sync_wait(has_its_own()));
}

// --- allocations --------------------------------------------------------------------------------------------------

#ifdef SANITIZED

TEST_CASE("under a sanitizer the allocations of a pool are not counted", "[run][thread_pool]") {
    WARN("SKIPPED: coroutine frames are not recycled under a sanitizer");
}

#else

namespace {

co::task<> spawns_and_waits() {
    const auto body = [](co::task_group& group) -> co::task<> {
        for (int i = 0; i < 20; ++i) {
            const auto child = []() -> co::task<> {
                co_await co::this_task::yield();
                co_await co::sleep_for(1us);
            };
            group.spawn(child());
        }
        co_return;
    };
    co_await co::with_group(body);
    const auto in_time = co_await co::as_outcome(co::with_timeout(1h, co::this_task::yield()));
    if (!in_time.has_value()) std::abort();
}

}  // namespace

TEST_CASE("submitting, stealing, sleeping and waking allocate nothing", "[run][thread_pool]") {
    struct again : co::work_item {
        again(thread_pool& p, countdown& c, int n) noexcept : work_item(&again::call), pool(&p), all(&c), left(n) {}
        static void call(co::work_item& item) noexcept {
            auto& a = static_cast<again&>(item);
            if (--a.left > 0) a.pool->submit(a);
            else (*a.all)();
        }
        thread_pool* pool;
        countdown* all;
        int left;
    };
    constexpr int n = 600;
    countdown all(n);
    thread_pool pool(3);
    std::deque<again> items;
    for (int i = 0; i < n; ++i) items.emplace_back(pool, all, 20);
    until_all_sleep(pool);
    const std::size_t before = allocations.load();
    for (again& a : items) pool.submit(a);
    all.wait();
    until_all_sleep(pool);
    CHECK(allocations.load() - before == 0);
}

TEST_CASE("tasks on a pool allocate nothing once they have run for a while", "[run][thread_pool][X13]") {
    thread_pool one(1);
    const auto counts = []() -> co::task<std::size_t> {
        for (int i = 0; i < 50; ++i) co_await spawns_and_waits();
        const std::size_t before = allocations.load();
        for (int i = 0; i < 50; ++i) co_await spawns_and_waits();
        co_return allocations.load() - before;
    };
    CHECK(co::sync_wait(co::on(one, counts)) == 0);

    thread_pool two(2);  // frames go from one to the other; what the caches of both hold is bounded
    const auto settles = []() -> co::task<bool> {
        for (int i = 0; i < 20'000; ++i) {
            const std::size_t before = allocations.load();
            for (int k = 0; k < 20; ++k) co_await spawns_and_waits();
            if (allocations.load() == before) co_return true;
        }
        co_return false;
    };
    CHECK(co::sync_wait(co::on(two, settles)));
}

#endif

// --- the ring of a worker -----------------------------------------------------------------------------------------

namespace {

using ring = co::detail::work_ring;

struct numbered : co::work_item {
    explicit numbered(int i) : work_item(uninitialized()), n(i) {}
    int n;
};

std::deque<numbered> items(int n) {
    std::deque<numbered> all;
    for (int i = 0; i < n; ++i) all.emplace_back(i);
    return all;
}
int number_of(co::work_item* item) { return item == nullptr ? -1 : static_cast<numbered*>(item)->n; }

}  // namespace

TEST_CASE("a ring gives back what was pushed, in order, and says when it is full", "[run][thread_pool][work_ring]") {
    ring r;
    auto all = items(static_cast<int>(ring::capacity) + 1);
    CHECK(r.empty());
    CHECK(r.pop() == nullptr);
    for (int round = 0; round < 3; ++round) {  // around its end as well
        for (std::size_t i = 0; i < ring::capacity; ++i) CHECK(r.push(all[i]));
        CHECK_FALSE(r.push(all.back()));
        CHECK(r.room() == 0);
        CHECK(r.size() == ring::capacity);
        for (std::size_t i = 0; i < 100; ++i) CHECK(number_of(r.pop()) == static_cast<int>(i));
        CHECK(r.room() == 100);
        for (std::size_t i = 100; i < ring::capacity; ++i) CHECK(number_of(r.pop()) == static_cast<int>(i));
        CHECK(r.empty());
    }
}

TEST_CASE("a thief takes the older half, and gives back the oldest at once", "[run][thread_pool][work_ring]") {
    constexpr int most = static_cast<int>(ring::capacity);
    for (const int n : {1, 2, 3, 10, most - 1, most}) {
        ring victim, thief;
        auto all = items(n);
        for (numbered& i : all) victim.push(i);
        CHECK(number_of(thief.steal(victim)) == 0);
        const int stolen = n - n / 2;
        CHECK(thief.size() == static_cast<std::size_t>(stolen - 1));
        CHECK(victim.size() == static_cast<std::size_t>(n - stolen));
        for (int i = 1; i < stolen; ++i) CHECK(number_of(thief.pop()) == i);
        for (int i = stolen; i < n; ++i) CHECK(number_of(victim.pop()) == i);
        CHECK(thief.steal(victim) == nullptr);
    }
}

TEST_CASE("the older half of a full ring is given away as a chain, and a chain is taken in",
          "[run][thread_pool][work_ring]") {
    ring r;
    auto all = items(static_cast<int>(ring::capacity));
    co::work_item *first = nullptr, *last = nullptr;
    CHECK(r.pop_half(first, last) == 0);
    for (numbered& i : all) r.push(i);
    constexpr std::size_t half = ring::capacity / 2;
    REQUIRE(r.pop_half(first, last) == half);
    CHECK(number_of(first) == 0);
    CHECK(number_of(last) == static_cast<int>(half) - 1);
    co::detail::item_fifo chain;
    chain.push_chain(*first, *last);
    for (std::size_t i = half; i < ring::capacity; ++i) CHECK(number_of(r.pop()) == static_cast<int>(i));
    r.append(chain, 0);
    CHECK(r.empty());
    r.append(chain, 50);
    CHECK(r.size() == 50);
    CHECK(number_of(&chain.pop()) == 50);
    for (int i = 0; i < 50; ++i) CHECK(number_of(r.pop()) == i);
}
