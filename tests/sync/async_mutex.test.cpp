// SPDX-License-Identifier: MIT
#include <cordon/sync/async_mutex.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
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
#include "last_words.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::async_mutex;
using co::task;
using co::testing::explore;
using co::testing::explore_all;
using co::testing::simulation;

/// Locks, says so, and unlocks after a while.
task<> visit(async_mutex& m, std::string& order, char name, co::clock::duration stay = 0s) {
    const async_mutex::guard mine = co_await m.lock();
    order.push_back(name);
    co_await co::sleep_for(stay);
    order.push_back(name);
}

/// Ends once `count` tasks wait for the mutex.
task<> until_waiting(async_mutex& m, std::size_t count) {
    while (m.stats().waiting < count) co_await co::this_task::yield();
}

static_assert(co::observable<async_mutex>);

}  // namespace

TEST_CASE("a free mutex is locked at once, and its guard unlocks it", "[sync][async_mutex]") {
    const auto root = []() -> task<> {
        async_mutex m({.name = "books"});
        CHECK(m.name() == "books");
        CHECK_FALSE(m.stats().locked);
        {
            const async_mutex::guard mine = co_await m.lock();
            CHECK(mine);
            CHECK(m.stats().locked);
            CHECK_FALSE(m.try_lock());
        }
        CHECK_FALSE(m.stats().locked);
        async_mutex::guard early = m.try_lock();
        CHECK(early);
        early.unlock();
        CHECK_FALSE(early);
        CHECK_FALSE(m.stats().locked);
        early.unlock();
        CHECK_FALSE(m.stats().locked);
        (void)co_await m.lock();  // dropped at once
        CHECK_FALSE(m.stats().locked);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("a guard can be moved, and a guard that is assigned to gives up its lock first", "[sync][async_mutex]") {
    async_mutex a, b;
    async_mutex::guard one = a.try_lock();
    async_mutex::guard two = std::move(one);
    CHECK_FALSE(one);
    CHECK(two);
    CHECK(a.stats().locked);
    two = b.try_lock();
    CHECK_FALSE(a.stats().locked);
    CHECK(b.stats().locked);
    async_mutex::guard& same = two;
    two = std::move(same);
    CHECK(two);
    one = std::move(two);
    CHECK(one);
    CHECK_FALSE(two);
    one = async_mutex::guard();
    CHECK_FALSE(b.stats().locked);
}

TEST_CASE("one at a time is inside, whatever it awaits there", "[sync][async_mutex]") {
    const auto root = []() -> task<std::string> {
        async_mutex m;
        std::string order;
        co_await co::when_all(visit(m, order, 'a', 3ms), visit(m, order, 'b', 1ms), visit(m, order, 'c'));
        CHECK_FALSE(m.stats().locked);
        co_return order;
    };
    const auto paired = [](const std::string& order) {
        return order.size() == 6 && order[0] == order[1] && order[2] == order[3] && order[4] == order[5];
    };
    CHECK_FALSE(explore({.schedules = 100}, root, paired));
}

TEST_CASE("a mutex is handed over first come, first served, and nobody who tries passes one that waits",
          "[sync][async_mutex]") {
    const auto root = []() -> task<std::string> {
        async_mutex m;
        std::string order;
        async_mutex::guard mine = m.try_lock();
        const auto body = [&](co::task_group& group) -> task<> {
            for (std::size_t i = 0; i < 4; ++i) {
                group.spawn(visit(m, order, static_cast<char>('a' + i)));
                co_await until_waiting(m, i + 1);
            }
            mine.unlock();
            CHECK(order == "");  // nobody is resumed inside the call
            CHECK_FALSE(m.try_lock());
            CHECK(m.stats().locked);
            CHECK(m.stats().waiting == 3);
            co_await group.join();
        };
        co_await co::with_group(body);
        co_return order;
    };
    CHECK_FALSE(explore({.schedules = 50}, root, [](const std::string& order) { return order == "aabbccdd"; }));
}

TEST_CASE("a lock and a stop that come together: the lock is got, or is free", "[sync][async_mutex]") {
    enum { stopped = 1, got = 2 };
    int seen = 0;
    const auto root = [&seen]() -> task<bool> {
        async_mutex m;
        async_mutex::guard mine = m.try_lock();
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(m.lock().with(scope.ctx()));
            seen |= ended.has_value() ? got : stopped;
            CHECK(m.stats().locked == (ended.has_value() || mine));
        };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        const auto unlocks = [&]() -> task<> {
            mine.unlock();
            co_return;
        };
        co_await co::when_all(waits(), stops(), unlocks());
        co_return !m.stats().locked && m.stats().waiting == 0;
    };
    const auto all = explore_all(100'000, root, [](bool free) { return free; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(seen == (stopped | got));
}

TEST_CASE("a passed deadline ends the wait for a lock", "[sync][async_mutex]") {
    const auto root = []() -> task<> {
        async_mutex m;
        const async_mutex::guard mine = co_await m.lock();
        const auto begin = co::clock::now();
        auto late = co_await co::as_outcome(co::with_timeout(5ms, m.lock()));
        CHECK_THROWS_AS(std::move(late).value(), co::timeout_error);
        CHECK(co::clock::now() - begin == 5ms);
        CHECK(m.stats().waiting == 0);
    };
    simulation().run(root());
}

TEST_CASE("a section under a mutex can be stopped at any point and leaves it free", "[sync][async_mutex]") {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        std::shared_ptr<async_mutex> m;
        const auto make = [&] {
            m = std::make_shared<async_mutex>();
            const auto both = [](std::shared_ptr<async_mutex> mine) -> task<> {
                std::string order;
                co_await co::when_all(visit(*mine, order, 'a', 1ms), visit(*mine, order, 'b', 1ms));
            };
            return both(m);
        };
        const auto check = [&](const co::outcome<void>&, const co::testing::sweep_point&) {
            return !m->stats().locked && m->stats().waiting == 0;
        };
        const auto swept = co::testing::cancel_sweep({.seed = seed, .fail_awaits = true}, make, check);
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 4);
    }
}

namespace {

/// Drops what an operation ends with, without having taken it: what a combinator does with a loser.
template <class O>
class dropped : co::receiver {
public:
    dropped(O&& op, const co::context& c) : receiver(&c, nullptr, {}, &dropped::ended), state_(std::move(op)) {}
    bool start() {
        if (state_.ready()) return true;
        co::detail::resume(state_.start(co::receiver_ref(static_cast<co::receiver&>(*this))));
        return ended_;
    }
    bool has_ended() const { return ended_; }

private:
    static std::coroutine_handle<> ended(co::receiver& self, co::promise_base*, bool) noexcept {
        static_cast<dropped&>(self).ended_ = true;
        return std::noop_coroutine();
    }
    typename O::state state_;
    bool ended_ = false;
};

}  // namespace

TEST_CASE("a lock whose task never sees the guard is given back", "[sync][async_mutex]") {
    co::run_loop loop;
    const co::context here{co::executor_ref(loop)};
    async_mutex m;
    using lock = decltype(m.lock());
    std::optional<dropped<lock>> loser;
    SECTION("got at once") {
        CHECK(loser.emplace(m.lock(), here).start());
    }
    SECTION("got after a wait") {
        async_mutex::guard mine = m.try_lock();
        CHECK_FALSE(loser.emplace(m.lock(), here).start());
        mine.unlock();
        while (loop.poll()) {}
        CHECK(loser->has_ended());
    }
    CHECK(m.stats().locked);
    loser.reset();
    CHECK_FALSE(m.stats().locked);
}

TEST_CASE("a race for two locks keeps the winner's and gives the loser's back", "[sync][async_mutex]") {
    const auto root = []() -> task<bool> {
        async_mutex a, b;
        std::optional<async_mutex::guard> first = a.try_lock(), second = b.try_lock();
        bool right = true;
        const auto races = [&]() -> task<> {
            auto won = co_await co::when_any(a.lock(), b.lock());
            right = a.stats().waiting + b.stats().waiting == 0 && (won.index() == 0 ? a : b).stats().locked;
        };
        const auto unlocks = [](std::optional<async_mutex::guard>& which) -> task<> {
            which.reset();
            co_return;
        };
        co_await co::when_all(races(), unlocks(first), unlocks(second));
        co_return right && !a.stats().locked && !b.stats().locked;
    };
    const auto all = explore_all(20'000, root, [](bool right) { return right; });
    CHECK_FALSE(all.failing);
    CHECK_FALSE(explore({.schedules = 500}, root, [](bool right) { return right; }));
}

namespace {

template <class Make>
std::string deadlock_of(Make make) {
    try {
        simulation(5).run(make);
    } catch (const co::testing::deadlock& d) {
        return d.what();
    }
    return {};
}
std::string line(unsigned n) { return "async_mutex.test.cpp:" + std::to_string(n); }

}  // namespace

TEST_CASE("two tasks that lock two mutexes crosswise are a deadlock that names both, and both places",
          "[sync][async_mutex][L-019]") {
    async_mutex debit({.name = "debit"}), credit({.name = "credit"});
    unsigned first_line = 0, second_line = 0;
    const auto first = [&]() -> task<> {
        const async_mutex::guard a = co_await debit.lock();
        co_await co::sleep_for(1ms);
        first_line = std::source_location::current().line() + 1;
        const async_mutex::guard b = co_await credit.lock();
    };
    const auto second = [&]() -> task<> {
        const async_mutex::guard a = co_await credit.lock();
        co_await co::sleep_for(1ms);
        second_line = std::source_location::current().line() + 1;
        const async_mutex::guard b = co_await debit.lock();
    };
    const std::string what = deadlock_of([&]() -> task<> {
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(first, {.name = "first"});
            group.spawn(second, {.name = "second"});
            co_return;
        };
        co_await co::with_group(body);
    });
    INFO(what);
    CHECK(says(what, "deadlock", "\"first\"", "\"second\"", "mutex debit", "mutex credit"));
    CHECK(says(what, line(first_line), line(second_line)));
    CHECK_FALSE(says(what, "semaphore"));
    CHECK_FALSE(debit.stats().locked);  // they were stopped, and have unlocked
    CHECK_FALSE(credit.stats().locked);
}

TEST_CASE("a task that locks twice waits for itself, which a simulation says with the place",
          "[sync][async_mutex][L-019]") {
    async_mutex books({.name = "books"});
    unsigned second_line = 0;
    const std::string what = deadlock_of([&]() -> task<> {
        const async_mutex::guard once = co_await books.lock();
        second_line = std::source_location::current().line() + 1;
        const async_mutex::guard twice = co_await books.lock();
    });
    INFO(what);
    CHECK(says(what, "deadlock", "mutex books", line(second_line)));
    CHECK_FALSE(books.stats().locked);
}

TEST_CASE("a dump says which mutex a task waits for, and no more once it has it", "[sync][async_mutex]") {
    const auto root = []() -> task<> {
        async_mutex m({.name = "books"});
        async_mutex::guard mine = co_await m.lock();
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(visit(m, order, 'a', 1ms), {.name = "visitor"});
            co_await simulation::settle();
            const auto all = [&] {
                std::string text;
                for (const co::task_info& task : group.children()) text += describe(task);
                return text;
            };
            CHECK(says(all(), "mutex books"));
            mine.unlock();
            co_await simulation::settle();
            CHECK_FALSE(says(all(), "mutex books"));
            CHECK(says(all(), "sleep"));
        };
        co_await co::with_group(body);
    };
    simulation().run(root());
}

TEST_CASE("a mutex that dies too early says which, and why that is wrong", "[sync][async_mutex]") {
    const std::string waited_for = last_words([] {
        simulation sim;
        std::string order;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            async_mutex m({.name = "books"});
            const async_mutex::guard mine = co_await m.lock();
            co::start_on(here, visit(m, order, 'a'));
            co::start_on(here, visit(m, order, 'b'));
            co_await until_waiting(m, 2);
            m.~async_mutex();
        };
        sim.run(root());
    });
    CHECK(says(waited_for, "async_mutex \"books\" destroyed while 2 wait for it"));
    const std::string locked = last_words([] {
        async_mutex::guard mine;
        const async_mutex m({.name = "books"});
        mine = const_cast<async_mutex&>(m).try_lock();
    });
    CHECK(says(locked, "async_mutex \"books\" destroyed while it is locked"));
}

TEST_CASE("threads and tasks lock the same mutex, and a thread heeds its stop", "[sync][async_mutex]") {
    async_mutex m;
    int inside = 0;
    {
        const auto work = [&] {
            for (int i = 0; i < 200; ++i) {
                const co::outcome<async_mutex::guard> mine = m.lock_blocking();
                if (mine.has_value()) ++inside;
            }
        };
        const std::jthread one(work), two(work);
        const auto task_too = [&]() -> task<> {
            for (int i = 0; i < 200; ++i) {
                const async_mutex::guard mine = co_await m.lock();
                ++inside;
            }
        };
        co::sync_wait(task_too());
    }
    CHECK(inside == 600);
    const async_mutex::guard mine = m.try_lock();
    bool stopped = false;
    std::jthread waits([&](std::stop_token stop) { stopped = m.lock_blocking(stop).is_stopped(); });
    while (m.stats().waiting == 0) std::this_thread::yield();
    waits.request_stop();
    waits.join();
    CHECK(stopped);
    CHECK(m.lock_blocking(co::deadline::after(1ms)).is_stopped());  // a real millisecond: no simulation here
    CHECK(m.stats().waiting == 0);
}
