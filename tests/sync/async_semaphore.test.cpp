// SPDX-License-Identifier: MIT
#include <cordon/sync/async_semaphore.hpp>

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
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstdint>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>

using small_steps::step;

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::async_semaphore;
using co::task;
using co::testing::explore;
using co::testing::explore_all;
using co::testing::simulation;

/// Acquires `n` and says so; keeps them.
task<> take(async_semaphore& s, std::size_t n, std::string& order, char name) {
    co_await s.acquire(n);
    order.push_back(name);
}

/// Ends once `count` tasks wait for the semaphore.
task<> until_waiting(async_semaphore& s, std::size_t count) {
    while (s.stats().waiting < count) co_await co::this_task::yield();
}

static_assert(co::observable<async_semaphore>);

}  // namespace

TEST_CASE("a free permit is there at once", "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(2, {.name = "two"});
        CHECK(s.name() == "two");
        co_await s.acquire();
        CHECK(s.stats().available == 1);
        CHECK(s.try_acquire());
        CHECK_FALSE(s.try_acquire());
        s.release(2);
        co_await s.acquire(2);
        CHECK(s.stats().available == 0);
        co_await s.acquire(0);
        CHECK(s.try_acquire(0));
        s.release(3);  // adds one
        CHECK(s.stats().available == 3);
        s.release(0);
        CHECK(s.stats().available == 3);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("whoever waits for a permit gets it from the release", "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(0);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(take(s, 1, order, 'a'));
            co_await until_waiting(s, 1);
            CHECK(s.stats().available == 0);
            s.release();
            CHECK(order == "");  // nobody is resumed inside the call
            CHECK(s.stats().waiting == 0);
            co_await group.join();
            CHECK(order == "a");
            CHECK(s.stats().available == 0);
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("a permit goes back when who holds it ends, however that is", "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(2, {.name = "db"});
        const auto works = [&](std::size_t n, bool fails) -> task<> {
            const async_semaphore::permit mine = co_await s.hold(n);
            CHECK(s.stats().available == 2 - n);
            if (fails) throw std::runtime_error("failed");
            co_await co::sleep_for(10s);
        };
        SECTION("it returns") { co_await works(1, false); }
        SECTION("it times out") {
            const auto ended = co_await co::as_outcome(co::with_timeout(10ms, works(1, false)));
            CHECK(ended.is_error());
        }
        SECTION("it throws") {
            const auto ended = co_await co::as_outcome(works(2, true));
            CHECK(ended.is_error());
        }
        CHECK(s.stats().available == 2);
    };
    simulation().run(root());
}

TEST_CASE("a permit is waited for as acquire waits, and comes with as many as were asked for",
          "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(1);
        async_semaphore::permit first = s.try_hold();
        CHECK(first);
        CHECK_FALSE(s.try_hold());
        const auto late = co_await co::as_outcome(co::with_timeout(1ms, s.hold()));
        CHECK(late.is_error());
        const auto gives = [&]() -> task<> {
            co_await until_waiting(s, 1);
            s.release(2);  // adds two
            first.release();
            CHECK_FALSE(first);
        };
        const auto waits = [&]() -> task<> {
            const async_semaphore::permit three = co_await s.hold(3);
            CHECK(three);
            CHECK(s.stats().available == 0);
        };
        co_await co::when_all(waits(), gives());
        CHECK(s.stats().available == 3);
        const async_semaphore::permit none = co_await s.hold(0);
        CHECK(none);
        CHECK_THROWS_AS((void)s.hold(async_semaphore::max_permits + 1), std::invalid_argument);
        CHECK_FALSE(s.try_hold(async_semaphore::max_permits + 1));
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) simulation(seed).run(root());
}

TEST_CASE("a permit can be moved, and one that is assigned to gives its own back first", "[sync][async_semaphore]") {
    async_semaphore a(3), b(1);
    async_semaphore::permit one = a.try_hold(2);
    async_semaphore::permit two = std::move(one);
    CHECK_FALSE(one);
    CHECK(a.stats().available == 1);
    two = b.try_hold();
    CHECK(a.stats().available == 3);
    async_semaphore::permit& same = two;
    two = std::move(same);
    CHECK(two);
    one = std::move(two);
    CHECK(b.stats().available == 0);
    one.release();
    one.release();
    CHECK(b.stats().available == 1);
}

TEST_CASE("a permit that its task never sees goes back", "[sync][async_semaphore]") {
    const auto root = []() -> task<bool> {
        async_semaphore a(0), b(0);
        bool right = true;
        const auto races = [&]() -> task<> {
            auto won = co_await co::when_any(a.hold(), b.hold(2));
            right = (won.index() == 0 ? a : b).stats().available == 0 && a.stats().waiting + b.stats().waiting == 0;
        };
        const auto adds = [](async_semaphore& s, std::size_t n) -> task<> {
            s.release(n);
            co_return;
        };
        co_await co::when_all(races(), adds(a, 1), adds(b, 2));
        co_return right && a.stats().available == 1 && b.stats().available == 2;
    };
    CHECK_FALSE(explore_all(20'000, root, [](bool right) { return right; }).failing);
    CHECK_FALSE(explore({.schedules = 500}, root, [](bool right) { return right; }));
}

TEST_CASE("a thread holds a permit and gives it back", "[sync][async_semaphore]") {
    async_semaphore s(2);
    {
        const co::outcome<async_semaphore::permit> mine = s.hold_blocking({}, 2);
        CHECK(mine.has_value());
        CHECK(s.stats().available == 0);
        const auto refused = s.hold_blocking(co::deadline::after(1ms));  // a real millisecond: no simulation here
        CHECK(refused.is_stopped());
    }
    CHECK(s.stats().available == 2);
}

TEST_CASE("a semaphore with weights is fair to large requests and forgets stopped ones",
          "[sync][async_semaphore][G-037]") {
    SECTION("try takes all or nothing") {
        async_semaphore s(2);
        CHECK(s.try_acquire(1));
        CHECK_FALSE(s.try_acquire(2));
        CHECK(s.try_acquire(1));
        CHECK_FALSE(s.try_acquire(1));
        s.release(2);
        CHECK(s.try_acquire(2));
    }
    SECTION("more than there is waits, and ends with its deadline or when there is more") {
        const auto root = []() -> task<> {
            async_semaphore s(2);
            auto ended = co_await co::as_outcome(co::with_timeout(1s, s.acquire(3)));
            CHECK(ended.is_error());
            CHECK(s.stats().available == 2);
            const auto adds = [&]() -> task<> {
                co_await co::sleep_for(1s);
                s.release();
            };
            co_await co::when_all(s.acquire(3), adds());
            CHECK(s.stats().available == 0);
        };
        simulation().run(root());
    }
    SECTION("more than can ever be is refused") {
        async_semaphore s(2);
        const std::size_t most = async_semaphore::max_permits;
        CHECK_THROWS_AS((void)s.acquire(most + 1), std::invalid_argument);
        CHECK_THROWS_AS(async_semaphore(most + 1), std::invalid_argument);
        for (const std::size_t n : {most + 1, std::size_t{1} << 63, std::numeric_limits<std::size_t>::max()})
            CHECK_FALSE(s.try_acquire(n));
        CHECK(s.stats().available == 2);
        CHECK(async_semaphore(most).try_acquire(most));
    }
    SECTION("a large request is not starved by small ones that come later") {
        const auto root = []() -> task<> {
            async_semaphore s(2);
            std::string order;
            CHECK(s.try_acquire(1));
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(take(s, 2, order, 'L'));
                co_await until_waiting(s, 1);
                for (std::size_t i = 0; i < 3; ++i) {
                    group.spawn(take(s, 1, order, 's'));
                    co_await until_waiting(s, 2 + i);
                    CHECK_FALSE(s.try_acquire(1));  // one is free, and it is not for who comes now
                }
                s.release(1);
                co_await simulation::settle();
                CHECK(order == "L");
                s.release(5);
            };
            co_await co::with_group(body);
            CHECK(order == "Lsss");
        };
        for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
    }
    SECTION("nobody starves behind a large request that is stopped") {
        const auto root = []() -> task<> {
            async_semaphore s(1);
            std::string order;
            const auto body = [&](co::task_group& group) -> task<> {
                co::cancel_scope scope(group.ctx());
                co::task_group doomed(scope.ctx());
                doomed.spawn(take(s, 2, order, 'L'));
                co_await until_waiting(s, 1);
                group.spawn(take(s, 1, order, 'a'));
                co_await until_waiting(s, 2);
                scope.request_stop();
                co_await simulation::settle();
                CHECK(order == "a");
                CHECK(s.stats().waiting == 0);
                CHECK(s.stats().available == 0);
                co_await doomed.join();
            };
            co_await co::with_group(body);
        };
        for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
    }
    SECTION("who is already stopped takes no permit that it would have to wait for") {
        const auto root = []() -> task<> {
            async_semaphore s(0);
            co::cancel_scope scope(*co_await co::this_task::context());
            scope.request_stop();
            auto ended = co_await co::as_outcome(s.acquire().with(scope.ctx()));
            CHECK(ended.is_stopped());
            CHECK(s.stats().waiting == 0);
            s.release();
            // A free one it takes: a value that is there wins. So it can give it back on its way out.
            auto taken = co_await co::as_outcome(s.acquire().with(scope.ctx()));
            CHECK(taken.has_value());
            CHECK(s.stats().available == 0);
        };
        simulation().run(root());
    }
}

TEST_CASE("waiters are served first come, first served", "[sync][async_semaphore]") {
    const auto root = []() -> task<std::string> {
        async_semaphore s(0);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            for (std::size_t i = 0; i < 5; ++i) {
                group.spawn(take(s, 1, order, static_cast<char>('a' + i)));
                co_await until_waiting(s, i + 1);
            }
            for (int i = 0; i < 5; ++i) {
                s.release();
                co_await simulation::settle();
            }
        };
        co_await co::with_group(body);
        co_return order;
    };
    CHECK_FALSE(explore({.schedules = 50}, root, [](const std::string& order) { return order == "abcde"; }));
}

TEST_CASE("a permit on its way to a waiter is not for who comes in between", "[sync][async_semaphore]") {
    const auto root = []() -> task<std::string> {
        async_semaphore s(0);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(take(s, 1, order, 'w'));
            co_await simulation::settle();
            const auto passer = [&]() -> task<> {
                if (s.try_acquire()) order.push_back('x');
                co_return;
            };
            const auto releaser = [&]() -> task<> {
                s.release();
                co_return;
            };
            co_await co::when_all(releaser(), passer(), take(s, 1, order, 'l'), passer());
        };
        auto ended = co_await co::as_outcome(co::with_timeout(1s, co::with_group(body)));
        CHECK(ended.is_error());  // the late one gets none
        co_return order;
    };
    const auto all = explore_all(5'000, root, [](const std::string& order) { return order == "w"; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(all.schedules > 20);
}

TEST_CASE("a stopped waiter leaves the queue at once, takes nothing, and those behind it move up",
          "[sync][async_semaphore]") {
    const auto root = [](std::size_t free, std::size_t stopped_wants) -> task<> {
        async_semaphore s(free);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            co::cancel_scope scope(group.ctx());
            co::task_group doomed(scope.ctx());
            doomed.spawn(take(s, stopped_wants, order, '!'));
            co_await until_waiting(s, 1);
            group.spawn(take(s, 1, order, 'a'));
            group.spawn(take(s, 1, order, 'b'));
            co_await until_waiting(s, 3);
            scope.request_stop();
            s.release(1);  // before the stopped one has even noticed
            co_await simulation::settle();
            CHECK(s.stats().waiting == 2 - (free + 1));
            CHECK(order.size() == free + 1);
            s.release(2 - (free + 1));
            co_await group.join();
            co_await doomed.join();
        };
        co_await co::with_group(body);
        CHECK(order.size() == 2);
        CHECK(order.find('!') == std::string::npos);
        CHECK(s.stats().available == 0);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        simulation(seed).run(root(0, 1));
        simulation(seed).run(root(0, 7));
        simulation(seed).run(root(1, 2));
    }
}

TEST_CASE("a stopped waiter is out of the way before its own executor has run it", "[sync][async_semaphore]") {
    const bool release = GENERATE(true, false);
    co::run_loop slow, quick;
    async_semaphore s(release ? 0 : 1);
    std::string order;
    co::cancel_scope scope{co::executor_ref(slow)};
    co::start_on(scope.ctx(), take(s, 5, order, '!'), [](const co::outcome<void>&) {});
    slow.poll();
    co::start_on(quick, take(s, 1, order, 'a'));
    quick.poll();
    CHECK(s.stats().waiting == 2);
    scope.request_stop();
    CHECK(s.stats().waiting == (release ? 1 : 0));
    if (release) s.release();
    while (quick.poll()) {}
    CHECK(order == "a");
    while (slow.poll()) {}
    CHECK(order == "a");
    CHECK(s.stats().waiting == 0);
    CHECK(s.stats().available == 0);
}

TEST_CASE("nothing of a stopped waiter is left in the semaphore, not even until it has run", "[sync][async_semaphore]") {
    co::run_loop loop;
    std::optional<async_semaphore> s(std::in_place, 0);
    std::string order;
    bool stopped = false;
    co::cancel_scope scope{co::executor_ref(loop)};
    co::start_on(scope.ctx(), take(*s, 1, order, '!'), [&](const co::outcome<void>& o) { stopped = o.is_stopped(); });
    loop.poll();
    scope.request_stop();
    s.reset();
    while (loop.poll()) {}
    CHECK(stopped);
    CHECK(order == "");
}

TEST_CASE("a permit and a stop that come together: the permit wins, or is still there", "[sync][async_semaphore]") {
    enum { stopped = 1, got = 2 };
    int seen = 0;
    // Every schedule of a waiter, a stop and a release. Returns whether the one permit is where it should be.
    const auto root = [&seen]() -> task<bool> {
        async_semaphore s(0);
        co::cancel_scope scope(*co_await co::this_task::context());
        bool has_it = false;
        const auto waits = [&]() -> task<> {
            auto ended = co_await co::as_outcome(s.acquire().with(scope.ctx()));
            has_it = ended.has_value();
        };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        const auto releases = [&]() -> task<> {
            s.release();
            co_return;
        };
        co_await co::when_all(waits(), stops(), releases());
        seen |= has_it ? got : stopped;
        co_return s.stats().available == (has_it ? 0U : 1U) && s.stats().waiting == 0;
    };
    const auto all = explore_all(100'000, root, [](bool kept) { return kept; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(seen == (stopped | got));
}

TEST_CASE("a permit and a deadline that come together lose nothing either", "[sync][async_semaphore]") {
    const auto root = []() -> task<bool> {
        async_semaphore s(0);
        std::size_t held = 0;
        const auto waits = [&](std::size_t n) -> task<> {
            auto ended = co_await co::as_outcome(co::with_timeout(1ms, s.acquire(n)));
            if (ended.has_value()) held += n;
        };
        const auto releases = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            s.release();
            s.release();
        };
        co_await co::when_all(waits(2), waits(1), releases(), waits(1));
        co_return s.stats().available + held == 2 && s.stats().waiting == 0;
    };
    CHECK_FALSE(explore({.schedules = 500}, root, [](bool kept) { return kept; }));
    const auto all = explore_all(5'000, root, [](bool kept) { return kept; });
    CHECK_FALSE(all.failing);
}

TEST_CASE("a passed deadline ends the wait for a permit", "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(0);
        const auto begin = co::clock::now();
        auto ended = co_await co::as_outcome(co::with_timeout(5ms, s.acquire()));
        CHECK(ended.is_error());
        CHECK_THROWS_AS(std::move(ended).value(), co::timeout_error);
        CHECK(co::clock::now() - begin == 5ms);
        CHECK(s.stats().waiting == 0);
        s.release();
        CHECK(s.try_acquire());
    };
    simulation().run(root());
}

TEST_CASE("a dump says which semaphore a task waits for, and how many hold it", "[sync][async_semaphore]") {
    const auto root = []() -> task<> {
        async_semaphore s(3, {.name = "connections"});
        co_await s.acquire(2);
        const auto body = [&](co::task_group& group) -> task<> {
            const auto waits = [&]() -> task<> { co_await s.acquire(3); };
            group.spawn(waits);
            co_await simulation::settle();
            const auto said = [&] {
                std::string text;
                for (const co::task_info& child : group.children()) text += describe(child);
                return text;
            };
            CHECK(says(said(), "semaphore connections, held by 2\n"));
            s.release();
            CHECK(says(said(), "semaphore connections, held by 1\n"));
            s.release();
            s.release();   // one more than there were: the semaphore has four from now on
        };
        co_await co::with_group(body);
        CHECK(s.stats().available == 1);
    };
    simulation().run(root());
}

TEST_CASE("a semaphore that dies while somebody waits for it says which, and how many", "[sync][async_semaphore]") {
    const std::string words = last_words([] {
        simulation sim;
        std::string order;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            async_semaphore s(0, {.name = "connections"});
            co::start_on(here, take(s, 1, order, 'a'));
            co::start_on(here, take(s, 1, order, 'b'));
            co_await until_waiting(s, 2);
        };
        sim.run(root());
    });
    CHECK(says(words, "async_semaphore \"connections\" destroyed while 2 wait for it"));
}

TEST_CASE("a permit may come from another thread", "[sync][async_semaphore]") {
    async_semaphore s(0);
    std::thread releaser;
    const auto root = [&]() -> task<> {
        releaser = std::thread([&] {
            while (s.stats().waiting == 0) std::this_thread::yield();
            s.release();
        });
        co_await s.acquire();
    };
    co::sync_wait(root());
    releaser.join();
    CHECK(s.stats().available == 0);
}

// --- the word, in every order ---------------------------------------------------------------------------------------

namespace {

/// The word of the semaphore. Two tasks acquire and release once; the second is stopped at some time. A donor brings a
/// second permit.
struct word_model {
    static constexpr int actors = 4, customers = 2, doomed = 1, stopper = 2, donor = 3;
    static constexpr std::int8_t total = 2;
    enum fate : std::int8_t { undecided, granted, stopped };
    enum : std::int8_t { releasing = 50, gone = 99 };

    // Variants that must not work.
    bool releaser_marks = true;  // false: under the lock it reads a word that is not marked as contended
    bool leaver_serves = true;   // false: a stopped waiter leaves the queue, and that is all

    std::array<std::int8_t, customers> want{1, 2};

    std::int8_t free = 1;  // the word, in its two parts, which only change together
    bool contended = false;
    std::int8_t lock = -1;  // who holds it
    std::array<std::int8_t, customers> queue{-1, -1};
    std::array<fate, customers> fates{};  // the words of the leaves
    std::int8_t held = 0, in_hand = 0;    // in_hand: what the holder of the lock hands out
    bool leaving = false, has_left = false;  // the doomed one, thanks to the stopper, which submits it then
    std::array<std::int8_t, actors> pc{};
    std::array<std::int8_t, actors> seen_free{};
    std::array<bool, actors> seen_contended{};

    auto operator<=>(const word_model&) const = default;

    step take(int who) {
        if (who == stopper) return stop();
        if (who == donor) return pc[donor] < releasing ? go(donor, releasing) : release(donor, 1);
        const std::int8_t n = wants(who);
        return pc[at(who)] < releasing ? acquire(who, n) : release(who, n);
    }
    const char* broken() const {
        if (held > total || (lock == -1 && free + held > total)) return "there are more permits than were ever given";
        if (lock == -1 && contended == (queue[0] == -1)) return "contended does not say whether somebody waits (S2)";
        if (lock == -1 && queue[0] != -1 && fates[at(queue[0])] == undecided && wants(queue[0]) <= free)
            return "the first waits although there is enough for it";
        return nullptr;
    }
    const char* unfinished() const { return free == total ? nullptr : "a permit is lost"; }

private:
    static std::size_t at(int who) { return static_cast<std::size_t>(who); }
    std::int8_t wants(int who) const { return want[at(who)]; }
    step go(int who, int to) {
        pc[at(who)] = static_cast<std::int8_t>(to);
        return step::moved;
    }
    step next(int who) { return go(who, pc[at(who)] + 1); }
    step take_lock(int who) {
        if (lock != -1) return step::blocked;
        lock = static_cast<std::int8_t>(who);
        return next(who);
    }
    step unlock(int who, int to) {
        lock = -1;
        return go(who, to);
    }
    step load(int who) {
        seen_free[at(who)] = free;
        seen_contended[at(who)] = contended;
        return next(who);
    }
    bool exchange(int who, int change) {
        if (free != seen_free[at(who)] || contended != seen_contended[at(who)]) return false;
        free = static_cast<std::int8_t>(free + change);
        return true;
    }
    void hold(int n) { held = static_cast<std::int8_t>(held + n); }
    bool queued(int who) const { return queue[0] == who || queue[1] == who; }
    void push(int who) {
        for (std::int8_t& place : queue)
            if (place == -1) {
                place = static_cast<std::int8_t>(who);
                return;
            }
    }
    void remove(int who) {
        std::array<std::int8_t, customers> rest{-1, -1};
        std::size_t n = 0;
        for (const std::int8_t other : queue)
            if (other != who && other != -1) rest[n++] = other;
        queue = rest;
    }

    /// serve(): a waiter in each step, then the store.
    step serve(int who) {
        const int first = queue[0];
        if (first != -1 && wants(first) <= in_hand) {
            remove(first);
            if (fates[at(first)] == undecided) {
                fates[at(first)] = granted;
                in_hand = static_cast<std::int8_t>(in_hand - wants(first));
                hold(wants(first));
            }
            return step::moved;
        }
        free = in_hand;
        contended = first != -1;
        in_hand = 0;
        return next(who);
    }

    step acquire(int who, std::int8_t n) {
        switch (pc[at(who)]) {
            case 0: return load(who);
            case 1:
                if (seen_contended[at(who)] || seen_free[at(who)] < n) return next(who);
                if (!exchange(who, -n)) return go(who, 0);  // S1
                hold(n);
                return go(who, releasing);
            case 2: return fates[at(who)] == stopped ? go(who, gone) : take_lock(who);
            case 3:
                in_hand = free;
                contended = true;  // S2
                push(who);
                return next(who);
            case 4: return serve(who);
            case 5: return unlock(who, 6);
            case 6:
                if (fates[at(who)] == undecided || (who == doomed && leaving)) return step::blocked;
                return who == doomed && has_left ? go(who, 11) : next(who);
            case 7: case 8: case 9: case 10: return dequeue(who, who, 7);
            case 11: return go(who, fates[at(who)] == granted ? releasing : gone);
            default: return step::ended;
        }
    }
    /// dequeue() of `which`, as the steps `base` to `base + 3` of `who`.
    step dequeue(int who, int which, int base) {
        switch (pc[at(who)] - base) {
            case 0: return take_lock(who);
            case 1:
                if (!queued(which)) return unlock(who, base + 4);
                remove(which);
                in_hand = free;
                if (leaver_serves) return next(who);
                contended = queue[0] != -1;
                return unlock(who, base + 4);
            case 2: return serve(who);
            default: return unlock(who, base + 4);
        }
    }
    step release(int who, std::int8_t n) {
        const int mine = who == donor ? 0 : n;
        switch (pc[at(who)]) {
            case releasing: return load(who);
            case releasing + 1:
                if (seen_contended[at(who)]) return next(who);
                if (!exchange(who, n)) return go(who, releasing);  // S1
                hold(-mine);
                return go(who, gone);
            case releasing + 2: return take_lock(who);
            case releasing + 3:
                in_hand = static_cast<std::int8_t>(free + n);
                hold(-mine);
                if (releaser_marks) contended = true;  // S2
                return next(who);
            case releasing + 4: return serve(who);
            case releasing + 5: return unlock(who, gone);
            default: return step::ended;
        }
    }
    /// The stop of the doomed one. If that waits already, it is taken out of the queue here, before it is submitted.
    step stop() {
        switch (pc[stopper]) {
            case 0:
                if (fates[doomed] != undecided) return go(stopper, gone);
                fates[doomed] = stopped;
                leaving = pc[doomed] == 6;
                return leaving ? next(stopper) : go(stopper, gone);
            case 1: case 2: case 3: case 4: return dequeue(stopper, doomed, 1);
            case 5:
                leaving = false;
                has_left = true;
                return go(stopper, gone);
            default: return step::ended;
        }
    }
};

}  // namespace

TEST_CASE("every order of acquisitions, releases and a stop keeps S1 to S3 of the semaphore's word",
          "[sync][async_semaphore]") {
    const std::array<std::int8_t, 2> wants[] = {{1, 2}, {2, 1}, {1, 1}, {2, 2}};
    for (const auto& want : wants) {
        word_model m;
        m.want = want;
        const auto all = small_steps::walk(m);
        INFO(int{want[0]} << ' ' << int{want[1]});
        CHECK(all.fault == "");
        CHECK(all.endings > 1);
        CHECK(all.states > 1000);
    }
}

TEST_CASE("the walk over the semaphore's word sees what its invariants are for", "[sync][async_semaphore]") {
    word_model unmarked;
    unmarked.releaser_marks = false;
    const auto lost = small_steps::walk(unmarked);
    INFO(lost.fault);
    CHECK(lost.fault != "");
    word_model selfish;
    selfish.leaver_serves = false;
    const auto stuck = small_steps::walk(selfish);
    INFO(stuck.fault);
    CHECK(says(stuck.fault, "the first waits although there is enough for it"));
}

TEST_CASE("a semaphore that dies before those it has served went on says so", "[sync][async_semaphore]") {
    const std::string words = last_words([] {
        simulation sim;
        const auto root = []() -> task<> {
            const auto here = co_await co::this_task::executor();
            async_semaphore s(0, {.name = "connections"});
            co::start_on(here, s.acquire());
            co_await simulation::settle();
            s.release();
        };
        sim.run(root());
    });
    CHECK(says(words, "async_semaphore \"connections\" destroyed while 1 that it has woken have not gone on yet"));
}

TEST_CASE("a when_any that has a winner gives back the permits of its losers, in any order", "[sync][async_semaphore]") {
    const auto root = []() -> task<bool> {
        async_semaphore a(0), b(0);
        const auto races = [&]() -> task<> { (void)co_await co::when_any(a.acquire(), co::with_timeout(1s, b.acquire())); };
        const auto gives = [](async_semaphore& s) -> task<> {
            s.release();
            co_return;
        };
        co_await co::when_all(races(), gives(a), gives(b));
        co_return a.stats().available + b.stats().available == 1;
    };
    const auto all = explore_all(100'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
}
