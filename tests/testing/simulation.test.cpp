// SPDX-License-Identifier: MIT
#include <cordon/testing/simulation.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::simulation;
using nanoseconds = std::chrono::nanoseconds;

const co::clock::time_point epoch = co::testing::simulation_options().start;

nanoseconds since(co::clock::time_point begin) { return co::clock::now() - begin; }

task<> sleep_and_note(co::clock::duration d, std::vector<nanoseconds>& woke) {
    const auto begin = co::clock::now();
    co_await co::sleep_for(d);
    woke.push_back(since(begin));
}

task<> wait_for(co::async_event& e) { co_await e.wait(); }
task<> nothing() { co_return; }

/// What `f()` throws as an E, as a text.
template <class E, class F>
std::string thrown(F f) {
    try {
        f();
    } catch (const E& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("time starts at the epoch and a sleep takes exactly as long as it says", "[testing][simulation][V-001][T1]") {
    const auto root = []() -> task<> {
        CHECK(co::clock::now() == epoch);
        const auto child = []() -> task<co::clock::time_point> { co_return co::clock::now(); };
        const auto before = co_await child();
        CHECK(before == epoch);
        co_await co::sleep_for(1s);
        CHECK(co::clock::now() == epoch + 1s);
        const auto after = co_await child();
        CHECK(after == epoch + 1s);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.now() == epoch + 1s);
    CHECK(co::clock::now() != epoch + 1s);  // outside, the clock is the real one
}

TEST_CASE("sleeps of one and of two nanoseconds end in that order and at these times",
          "[testing][simulation][V-002][T2]") {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        std::vector<nanoseconds> woke;
        simulation sim(seed);
        sim.run(co::when_all(sleep_and_note(2ns, woke), sleep_and_note(1ns, woke)));
        CHECK(woke == std::vector<nanoseconds>{1ns, 2ns});
    }
}

TEST_CASE("trivial simulations end, with children and without", "[testing][simulation][V-003]") {
    simulation sim;
    sim.run(nothing());
    sim.run(co::when_all(nothing(), nothing()));
    sim.run([] { return simulation::settle(); });
    const auto with_child = [](co::task_group& group) -> task<> {
        group.spawn(nothing());
        co_await simulation::settle();
    };
    sim.run(co::with_group(with_child));
    CHECK(sim.now() == epoch);
    const auto answer = []() -> task<int> { co_return 42; };
    CHECK(sim.run(answer()) == 42);
}

TEST_CASE("after settle a chain of a hundred hand-overs is done and no time has passed",
          "[testing][simulation][V-004][T2]") {
    const auto pass_on = [](co::async_event& from, co::async_event& to, int& passed) -> task<> {
        co_await from.wait();
        ++passed;
        to.set();
    };
    const auto root = [&pass_on](int& passed, int& seen) -> task<> {
        std::vector<std::unique_ptr<co::async_event>> doors;
        for (int i = 0; i <= 100; ++i) doors.push_back(std::make_unique<co::async_event>());
        const auto body = [&](co::task_group& group) -> task<> {
            for (std::size_t i = 100; i-- > 0;) group.spawn(pass_on(*doors[i], *doors[i + 1], passed));
            co_await simulation::settle();
            CHECK(passed == 0);
            doors[0]->set();
            co_await simulation::settle();
            seen = passed;
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        int passed = 0, seen = 0;
        simulation sim(seed);
        sim.run(root(passed, seen));
        CHECK(seen == 100);
        CHECK(sim.now() == epoch);
    }
}

TEST_CASE("a timer beyond the end of the root never fires and is no progress", "[testing][simulation][V-007][T9]") {
    SECTION("of a scope that outlives the run") {
        simulation sim;
        std::optional<co::cancel_scope> scope;
        const auto root = [&]() -> task<> {
            scope.emplace(co::executor_ref(sim), co::deadline::after(10s));
            co_await co::sleep_for(1s);
        };
        sim.run(root());
        CHECK(sim.now() == epoch + 1s);
        CHECK(sim.armed_timers() == 1);
        CHECK_FALSE(scope->token().stop_requested());
        scope.reset();
        CHECK(sim.armed_timers() == 0);
    }
    SECTION("of a task that nobody waits for: what is left is named when the simulation dies") {
        const std::string words = last_words([] {
            simulation sim;
            const auto late = []() -> task<> { co_await co::sleep_for(10s); };
            const auto root = [&]() -> task<> {
                co::start_on(sim, late, {.name = "straggler"});
                co_await co::sleep_for(1s);
            };
            sim.run(root());
        });
        CHECK(says(words, "destroyed while something still waits", "\"straggler\"", "simulation.test.cpp", "sleep"));
    }
    SECTION("what is ready when the root ends still runs") {
        simulation sim;
        int ran = 0;
        const auto child = [&]() -> task<> {
            co_await co::this_task::yield();
            ++ran;
        };
        const auto root = [&]() -> task<> {
            co::start_on(sim, child);
            co_return;
        };
        sim.run(root());
        CHECK(ran == 1);
    }
}

TEST_CASE("what belongs to a simulation and is used outside it terminates and names both",
          "[testing][simulation][V-010][T10]") {
    SECTION("a waiter that is woken outside") {
        const std::string words = last_words([] {
            simulation sim;
            co::async_event door;
            co::start_on(sim, wait_for(door));
        });
        CHECK(says(words, "simulation", "a task is to go on outside its run, in no simulation"));
    }
    SECTION("a waiter that is woken by another simulation") {
        const std::string words = last_words([] {
            simulation first, second;
            co::async_event door;
            const auto park = [&]() -> task<> {
                co::start_on(first, wait_for(door));
                co_await simulation::settle();
            };
            first.run(park());
            const auto wake = [&]() -> task<> {
                door.set();
                co_return;
            };
            second.run(wake());
        });
        const std::string marks[] = {"cordon: simulation ", "outside its run, in simulation "};
        REQUIRE(says(words, marks[0], marks[1]));
        const auto number_after = [&](const std::string& mark) {
            return std::stoul(words.substr(words.find(mark) + mark.size()));
        };
        CHECK(number_after(marks[0]) + 1 == number_after(marks[1]));
    }
    SECTION("a waiter that is woken by another thread") {
        const std::string words = last_words([] {
            simulation sim;
            co::completion<void> done;
            const auto root = [&]() -> task<> {
                const auto shoot = [&] { done.set_value(); };
                const auto body = [&](co::task_group& group) -> task<> {
                    const auto waits = [&]() -> task<> { co_await done.wait(); };
                    group.spawn(waits);
                    co_await simulation::settle();
                    std::thread(shoot).join();
                };
                co_await co::with_group(body);
            };
            sim.run(root());
        });
        CHECK(says(words, "a task is to go on outside its run, in no simulation"));
    }
    SECTION("a timer that is armed outside, where the clock shows another time") {
        const std::string words = last_words([] {
            simulation sim;
            const co::cancel_scope scope(co::executor_ref(sim), co::deadline::after(1s));
        });
        CHECK(says(words, "a timer is armed outside its run, in no simulation"));
    }
}

TEST_CASE("a root that waits for ever is a deadlock whose report says who waits where for what",
          "[testing][simulation][V-011][T9]") {
    co::async_semaphore connections(0, {.name = "connections"});
    co::async_event door({.name = "door"});
    bool unwound = false;
    struct on_exit {
        ~on_exit() { *flag = true; }
        bool* flag;
    };
    const unsigned first_line = __LINE__ + 2;
    const auto worker = [&]() -> task<> {
        co_await connections.acquire();
    };
    const unsigned second_line = __LINE__ + 5;
    const auto root = [&]() -> task<> {
        const on_exit guard{&unwound};
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(worker, {.name = "worker"});
            co_await door.wait();
        };
        co_await co::with_group(body);
    };
    simulation sim(17);
    const std::string what = thrown<co::testing::deadlock>([&] {
        const auto later = [&]() -> task<> {
            co_await co::sleep_for(3ms);
            co_await root();
        };
        sim.run(later());
    });
    INFO(what);
    CHECK(says(what, "deadlock at step", "after 3 ms", "seed 17", "\"worker\""));
    CHECK(says(what, "simulation.test.cpp:" + std::to_string(first_line), "semaphore connections"));
    CHECK(says(what, "simulation.test.cpp:" + std::to_string(second_line), "event door"));
    CHECK(unwound);  // everything was stopped before it was thrown
    CHECK(connections.stats().waiting == 0);
    CHECK(door.waiting() == 0);

    SECTION("a root without a frame says what it waits for") {
        CHECK(says(thrown<co::testing::deadlock>([&] { sim.run(door.wait()); }), "waits for event door"));
    }
    SECTION("the tasks of an earlier run are part of the report") {
        const auto park = [&]() -> task<> {
            co::start_on(sim, wait_for(door), {.name = "parked"});
            co_return;
        };
        sim.run(park());
        CHECK(says(sim.who_waits(), "\"parked\""));
        const std::string later = thrown<co::testing::deadlock>([&] { sim.run(connections.acquire()); });
        CHECK(says(later, "\"parked\"", "connections"));
        const auto open = [&]() -> task<> {
            door.set();
            co_return;
        };
        sim.run(open());
        CHECK(sim.who_waits() == "");
    }
}

TEST_CASE("tasks that keep each other busy without end are a livelock", "[testing][simulation][T9]") {
    const auto busy = []() -> task<> {
        for (;;) co_await co::this_task::yield();
    };
    simulation sim(3, {.max_steps = 1000});
    const std::string what =
        thrown<co::testing::livelock>([&] { sim.run(co::when_all(busy(), busy())); });
    CHECK(says(what, "livelock at step 1000", "seed 3", "yield"));
    CHECK(sim.who_waits() == "");
    simulation follows(co::testing::schedule::from_string("3/2:1"), {.max_steps = 1000});
    const auto again = [&] { follows.run(co::when_all(busy(), busy())); };
    CHECK(says(thrown<co::testing::livelock>(again), "livelock at step 1000", "schedule 3/2:1\n"));
}

TEST_CASE("a retry without a delay that fails for ever hangs no simulation: it lets others run, and is a livelock",
          "[testing][simulation][policy][retry][T9]") {
    int calls = 0;
    const auto fails = [&]() -> task<int> {
        ++calls;
        throw std::runtime_error("always");
        co_return 0;
    };
    const auto at_once = co::retry(co::unlimited_attempts, {.backoff = co::constant(0ms)});
    simulation sim(3, {.max_steps = 1000});
    SECTION("it alone") {
        const std::string what = thrown<co::testing::livelock>([&] { sim.run(at_once(fails)); });
        CHECK(says(what, "livelock at step 1000", "seed 3", "\"simulation\"", "waits for sleep"));
        CHECK(calls > 100);
        CHECK(sim.now() == co::testing::simulation_options().start);
        CHECK(sim.who_waits() == "");
    }
    SECTION("beside others, which end it") {
        const auto other = []() -> task<int> {
            for (int i = 0; i < 20; ++i) co_await co::this_task::yield();
            co_return 7;
        };
        CHECK(sim.run(co::when_any(at_once(fails), other())).index() == 1);
    }
    SECTION("under a deadline, which does not come: no time passes while something is ready") {
        const auto until_then = [&] { return co::with_timeout(10ms, at_once(fails)); };
        CHECK(says(thrown<co::testing::livelock>([&] { sim.run(until_then); }), "livelock at step 1000, after 0 s"));
    }
    CHECK(calls > 0);
}

TEST_CASE("what a stop does not end either terminates with a report", "[testing][simulation][T9]") {
    const std::string words = last_words([] {
        simulation sim;
        const auto root = []() -> task<> {
            co::completion<int> answer;
            (void)co_await answer.wait([] {});  // asks nobody
        };
        sim.run(root());
    });
    CHECK(says(words, "deadlock", "after a stop these still do not end", "completion"));
}

TEST_CASE("of waiters one is woken by a signal and the rest by a broadcast, at one and at two units of time",
          "[testing][simulation][V-013]") {
    const auto waiter = [](co::async_semaphore& s, std::vector<nanoseconds>& woke) -> task<> {
        const auto begin = co::clock::now();
        co_await s.acquire();
        woke.push_back(since(begin));
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        co::async_semaphore condition(0);
        std::vector<nanoseconds> woke;
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 5; ++i) group.spawn(waiter(condition, woke));
            co_await co::sleep_for(1s);
            condition.release(1);
            co_await co::sleep_for(1s);
            condition.release(condition.stats().waiting);
        };
        simulation sim(seed);
        sim.run([&] { return co::with_group(body); });
        CHECK(woke == std::vector<nanoseconds>{1s, 2s, 2s, 2s, 2s});
    }
}

TEST_CASE("joins take exact time inside a simulation and are refused across two", "[testing][simulation][V-014]") {
    SECTION("inside") {
        const auto root = []() -> task<nanoseconds> {
            const auto begin = co::clock::now();
            std::vector<nanoseconds> woke;
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(sleep_and_note(2s, woke));
                group.spawn(sleep_and_note(5s, woke));
                co_await group.join();
                CHECK(since(begin) == 5s);
            };
            co_await co::with_group(body);
            co_return since(begin);
        };
        simulation sim;
        CHECK(sim.run(root()) == 5s);
    }
    simulation first, second;
    SECTION("of an empty group anywhere") {
        co::task_group group(first);
        second.run(group.join());
        CHECK(group.size() == 0);
    }
    SECTION("across: nothing of the first runs in the second, which is a deadlock by name") {
        co::task_group group(first, {.name = "theirs"});
        std::vector<nanoseconds> woke;
        const auto fill = [&]() -> task<> {
            group.spawn(sleep_and_note(1s, woke));
            co_return;
        };
        first.run(fill());
        CHECK(says(thrown<co::testing::deadlock>([&] { second.run(group.join()); }), "the join of a group"));
        first.run(group.join());
        CHECK(woke == std::vector<nanoseconds>{1s});
        CHECK(group.size() == 0);
    }
    SECTION("across: a join that is parked in the second and woken by the first names both") {
        const std::string words = last_words([] {
            simulation one, other;
            co::task_group group(one);
            std::vector<nanoseconds> woke;
            const auto fill = [&]() -> task<> {
                group.spawn(sleep_and_note(1s, woke));
                co_return;
            };
            one.run(fill());
            const auto join = [&]() -> task<> { co_await group.join(); };
            const auto park = [&]() -> task<> {
                co::start_on(other, join);
                co_await simulation::settle();
            };
            other.run(park());
            one.run([] { return co::sleep_for(2s); });
        });
        CHECK(says(words, "a task is to go on outside its run, in simulation"));
    }
}

TEST_CASE("values that are produced over time carry exact times, a second apart", "[testing][simulation][V-016]") {
    /// A stream of one place: the producer waits until its value was taken.
    struct stream {
        co::async_semaphore full{0}, empty{1};
        nanoseconds value{};
    };
    const auto produce = [](stream& to) -> task<> {
        const auto begin = co::clock::now();
        for (int i = 0; i < 3; ++i) {
            if (i != 0) co_await co::sleep_for(1s);
            co_await to.empty.acquire();
            to.value = since(begin);
            to.full.release();
        }
    };
    const auto consume = [](stream& from, std::vector<nanoseconds>& got, std::vector<nanoseconds>& at) -> task<> {
        const auto begin = co::clock::now();
        for (int i = 0; i < 3; ++i) {
            co_await from.full.acquire();
            got.push_back(from.value);
            at.push_back(since(begin));
            from.empty.release();
        }
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        stream s;
        std::vector<nanoseconds> got, at;
        simulation sim(seed);
        sim.run(co::when_all(produce(s), consume(s, got, at)));
        CHECK(got == std::vector<nanoseconds>{0s, 1s, 2s});
        CHECK(at == got);
    }
}

TEST_CASE("a simulation inside a simulation, settle outside and two at once are refused with a clear error",
          "[testing][simulation][V-018]") {
    SECTION("inside another, or in itself") {
        simulation outer, inner;
        const auto nests = [&](simulation& other) -> task<> {
            CHECK(says(thrown<std::logic_error>([&] { other.run(nothing()); }), "simulation::run inside a run"));
            co_return;
        };
        outer.run(nests(inner));
        outer.run(nests(outer));
    }
    SECTION("on a thread that runs an executor") {
        co::run_loop loop;
        std::string what;
        const auto in_loop = [&]() -> task<> {
            simulation sim;
            what = thrown<std::logic_error>([&] { sim.run(nothing()); });
            co_return;
        };
        co::start_on(loop, in_loop, [&](const co::outcome<void>&) { loop.stop(); });
        loop.run();
        CHECK(says(what, "on a thread that runs an executor"));
    }
    SECTION("settle and advance outside") {
        CHECK(says(thrown<std::logic_error>([] { (void)simulation::settle(); }), "settle outside a simulation"));
        simulation sim;
        CHECK(says(thrown<std::logic_error>([] { co::sync_wait(simulation::advance(1s)); }), "advance outside"));
    }
    SECTION("two that settle at once") {
        const std::string words = last_words([] {
            const auto settles = []() -> task<> { co_await simulation::settle(); };
            simulation sim;
            sim.run(co::when_all(settles(), settles()));
        });
        CHECK(says(words, "two tasks settle at the same time"));
    }
    SECTION("sync_wait and on() inside: a simulation is its own only executor") {
        simulation sim;
        const auto waits = []() -> task<> {
            CHECK(says(thrown<std::logic_error>([] { co::sync_wait(nothing()); }), "sync_wait on a thread that runs"));
            co_return;
        };
        sim.run(waits());
        const auto here = [&]() -> task<> { co_await co::on(sim, nothing()); };
        sim.run(here());
        const std::string words = last_words([&] {
            co::run_loop loop;
            sim.run([&] { return co::on(loop, nothing()); });
        });
        CHECK(says(words, "on(): inside a simulation nothing runs on another executor"));
    }
    SECTION("destroyed inside its own run") {
        const std::string words = last_words([] {
            auto sim = std::make_unique<simulation>();
            const auto root = [&]() -> task<> {
                sim.reset();
                co_return;
            };
            simulation* const s = sim.get();
            s->run(root());
        });
        CHECK(says(words, "destroyed inside its own run"));
    }
}

TEST_CASE("just before its deadline a scope is alive and just after it is stopped, a stop callback the same",
          "[testing][simulation][V-019][T2]") {
    const auto root = []() -> task<> {
        const co::executor_ref here = co_await co::this_task::executor();
        const co::cancel_scope scope(here, co::deadline::after(5s));
        int called = 0;
        const auto count = [&]() noexcept { ++called; };
        const co::inplace_stop_callback callback(scope.token(), count);
        co_await co::sleep_for(5s - 1ns);
        co_await simulation::settle();
        CHECK_FALSE(scope.stop_requested());
        CHECK(called == 0);
        co_await co::sleep_for(1ns);
        co_await simulation::settle();
        CHECK(scope.stop_requested());
        CHECK(scope.reason().kind == co::stop_kind::deadline);
        CHECK(called == 1);
    };
    simulation sim;
    sim.run(root());
}

TEST_CASE("advancing by five seconds fires sleeps of one, two and three in order, each at its own time",
          "[testing][simulation][V-021][T2]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        std::vector<nanoseconds> woke, followed;
        const auto sleep_then_react = [&](co::clock::duration d, co::async_event& e) -> task<> {
            co_await sleep_and_note(d, woke);
            e.set();
        };
        const auto react = [&](co::async_event& e) -> task<> {
            const auto begin = co::clock::now();
            co_await e.wait();
            followed.push_back(since(begin));
        };
        const auto body = [&](co::task_group& group) -> task<> {
            co::async_event first, second, third;
            group.spawn(sleep_then_react(3s, third));
            group.spawn(sleep_then_react(1s, first));
            group.spawn(sleep_then_react(2s, second));
            for (co::async_event* e : {&third, &second, &first}) group.spawn(react(*e));
            co_await simulation::settle();
            CHECK(woke.empty());
            co_await simulation::advance(5s);
            CHECK(woke == std::vector<nanoseconds>{1s, 2s, 3s});
            CHECK(followed == woke);  // what a timer wakes runs before the next one fires
            CHECK(co::clock::now() == epoch + 5s);
            co_await group.join();
        };
        simulation sim(seed);
        sim.run([&] { return co::with_group(body); });
    }
}

TEST_CASE("advancing by nothing, backwards or for ever moves time by nothing, or to its end", "[testing][simulation]") {
    const auto root = []() -> task<> {
        co_await simulation::advance(0s);
        co_await simulation::advance(-1s);
        CHECK(co::clock::now() == epoch);
        co_await simulation::advance(co::clock::duration::max());
        CHECK(co::clock::now() == co::clock::time_point::max());
    };
    simulation sim;
    sim.run(root());
}

TEST_CASE("settle returns before time moves", "[testing][simulation][V-023][T2]") {
    const auto root = []() -> task<> {
        std::vector<nanoseconds> woke;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(sleep_and_note(1ns, woke));
            for (int i = 0; i < 10; ++i) {
                co_await simulation::settle();
                CHECK(woke.empty());
                CHECK(co::clock::now() == epoch);
            }
        };
        co_await co::with_group(body);
        CHECK(woke == std::vector<nanoseconds>{1ns});
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) simulation(seed).run(root());
}

TEST_CASE("settle is left by a stop and can be used again", "[testing][simulation]") {
    const auto busy = []() -> task<> {
        for (int i = 0; i < 3; ++i) co_await co::this_task::yield();
    };
    const auto root = [&]() -> task<> {
        co::cancel_scope scope(*co_await co::this_task::context());
        const auto settles = []() -> task<> { co_await simulation::settle(); };
        const auto stops = [&]() -> task<> {
            scope.request_stop();
            co_return;
        };
        auto ended = co_await co::as_outcome(co::when_all(settles().with(scope.ctx()), stops(), busy()));
        CHECK(ended.is_stopped());
        co_await simulation::settle();
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed) simulation(seed).run(root());
}

TEST_CASE("a simulation starts at the configured time, and time can be moved by hand",
          "[testing][simulation][V-024]") {
    const co::clock::time_point start(std::chrono::hours(24 * 365));
    simulation sim(0, {.start = start, .jump_when_idle = false});
    CHECK(sim.now() == start);
    std::vector<nanoseconds> woke;
    const auto body = [&](co::task_group& group) -> task<> {
        CHECK(co::clock::now() == start);
        group.spawn(sleep_and_note(10s, woke));
        co_await simulation::advance(10s - 1ns);
        CHECK(woke.empty());
        CHECK(co::clock::now() == start + 10s - 1ns);
        co_await simulation::advance(1ns);
        CHECK(woke == std::vector<nanoseconds>{10s});
        co_await simulation::advance(5s);
        CHECK(co::clock::now() == start + 15s);
    };
    sim.run([&] { return co::with_group(body); });
    CHECK(sim.now() == start + 15s);

    const std::string what = thrown<co::testing::deadlock>([&] { sim.run([] { return co::sleep_for(1s); }); });
    CHECK(says(what, "time stands still until somebody advances it", "waits for sleep"));
    CHECK(sim.now() == start + 15s);
}

TEST_CASE("an hour of many timers takes little time, and time goes on in the next run", "[testing][simulation][T15]") {
    const auto tick = []() -> task<> {
        for (int i = 0; i < 3600; ++i) co_await co::sleep_for(1s);
    };
    simulation sim;
    sim.run(co::when_all(tick(), tick(), tick()));
    CHECK(sim.now() == epoch + 1h);
    CHECK(sim.steps() >= 3 * 3600);
    sim.run(tick());
    CHECK(sim.now() == epoch + 2h);
}

TEST_CASE("a callable is called inside, where the clock is virtual", "[testing][simulation]") {
    simulation sim;
    sim.run([] { return co::sleep_until(co::clock::now() + 3s); });
    CHECK(sim.now() == epoch + 3s);
    const auto value = [n = 5]() { return [](int v) -> task<int> { co_return v; }(n); };
    CHECK(sim.run(value) == 5);
    CHECK_THROWS_AS(sim.run([]() -> task<> { throw std::runtime_error("from the call"); }), std::runtime_error);
}

TEST_CASE("a run throws what its root throws, and can be repeated", "[testing][simulation]") {
    simulation sim;
    const auto fails = []() -> task<> {
        co_await co::sleep_for(1s);
        throw std::invalid_argument("bad");
    };
    const auto stops = []() -> task<> { co_await co::this_task::stop(); };
    const auto refused = []() -> task<> {
        throw co::rejected(co::rejection(co::reject_reason::full));
        co_return;
    };
    CHECK_THROWS_AS(sim.run(fails()), std::invalid_argument);
    CHECK_THROWS_AS(sim.run(stops()), co::canceled);
    CHECK_THROWS_AS(sim.run(refused()), co::rejected);
    sim.run(nothing());
}

TEST_CASE("a seed decides the schedule, and the trace repeats it", "[testing][simulation][T4]") {
    const auto step = [](std::vector<int>& order, int i) -> task<> {
        co_await co::this_task::yield();
        order.push_back(i);
    };
    const auto root = [&](std::vector<int>& order) -> task<> {
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 5; ++i) group.spawn(step(order, i));
            co_return;
        };
        co_await co::with_group(body);
    };
    const auto order_of = [&](simulation& sim) {
        std::vector<int> order;
        sim.run(root(order));
        return order;
    };
    simulation a(7), b(7);
    const auto first = order_of(a);
    CHECK(first == order_of(b));
    CHECK(a.trace() == b.trace());
    CHECK(a.steps() == b.steps());

    simulation again(a.trace());
    CHECK(order_of(again) == first);
    CHECK(again.trace() == a.trace());

    simulation in_order(std::vector<co::testing::choice>{});
    CHECK(order_of(in_order) == std::vector<int>{0, 1, 2, 3, 4});

    bool others = false;
    for (std::uint64_t seed = 0; seed < 20 && !others; ++seed) {
        simulation c(seed);
        others = order_of(c) != first;
    }
    CHECK(others);
}

TEST_CASE("an observer sees every step and may stop the run", "[testing][simulation][T7]") {
    struct stopper : simulation::observer {
        void before_step(std::uint64_t step, co::cancel_scope& root) override {
            if (step == stop_at) root.request_stop(5);
            steps.push_back(step);
        }
        std::uint64_t stop_at = 0;
        std::vector<std::uint64_t> steps;
    };
    const auto root = []() -> task<> {
        for (int i = 0; i < 3; ++i) co_await co::sleep_for(1s);
    };
    stopper watch;
    simulation sim;
    sim.observe(&watch);
    sim.run(root());
    CHECK(watch.steps.size() == sim.steps());
    CHECK(watch.steps.front() == 1);
    CHECK(watch.steps.back() == sim.steps());
    watch.stop_at = 4;
    CHECK_THROWS_AS(sim.run(root()), co::canceled);
    sim.observe(nullptr);
    sim.run(root());
}
