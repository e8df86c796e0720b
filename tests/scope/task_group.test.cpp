// SPDX-License-Identifier: MIT
#include <cordon/scope/task_group.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"
#include "scope/works.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <semaphore>
#include <source_location>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

namespace {

co::task<> note(std::vector<int>& order, int i, co::clock::duration d = 1ms) {
    order.push_back(i);
    co_await co::sleep_for(d);
}
/// Fails, and says so just before; what follows until the group knows happens in the same step.
co::task<> fail_noted(co::clock::duration d, std::string what, std::vector<std::string>& failed) {
    co_await co::sleep_for(d);
    failed.push_back(what);
    throw std::runtime_error(what);
}
co::task<> spawn_one(co::task_group& group, co::task<> child, std::optional<bool>& started) {
    started = co_await group.spawn_when_ready(std::move(child));
}

std::vector<std::string> texts_of(const co::task_group& group) {
    std::vector<std::string> texts;
    for (const co::task_error& e : group.errors()) texts.push_back(text_of(e.error));
    return texts;
}

// A group is neither copied nor moved nor reset, and has no member that changes an option.
static_assert(co::observable<co::task_group>);
static_assert(!std::is_copy_constructible_v<co::task_group> && !std::is_move_constructible_v<co::task_group>);
static_assert(!std::is_copy_assignable_v<co::task_group> && !std::is_move_assignable_v<co::task_group>);

}  // namespace

TEST_CASE("a hundred spawned tasks have all run after the join", "[scope][task_group][G-009][G1]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int done = 0;
        for (int i = 0; i < 100; ++i) {
            const bool started = group.spawn(add(done, std::chrono::milliseconds(i % 7)));
            CHECK(started);
        }
        CHECK(group.size() == 100);
        CHECK(done == 0);  // spawn runs nothing itself
        co_await group.join();
        CHECK(done == 100);
        CHECK(group.size() == 0);
        CHECK(group.refused() == 0);
        CHECK(group.errors().empty());
    });
}

TEST_CASE("a child that ends without waiting is joined too", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int done = 0;
        for (int i = 0; i < 10; ++i) group.spawn(add(done, 0ms));
        co_await group.join();
        CHECK(done == 10);
    });
}

TEST_CASE("children spawn siblings, and the join waits for those as well", "[scope][task_group]") {
    struct chain {
        static co::task<> link(co::task_group& group, int left, int& ran) {
            ++ran;
            co_await co::sleep_for(1ms);
            if (left > 0) group.spawn(link(group, left - 1, ran));
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int ran = 0;
        group.spawn(chain::link(group, 20, ran));
        co_await group.join();
        CHECK(ran == 21);
    });
}

TEST_CASE("a group takes no task after its join, and has to be made anew", "[scope][task_group][G-024][G9][G10][LK-05]") {
    simulate([](simulation& sim) -> co::task<> {
        for (int round = 0; round < 2; ++round) {
            co::task_group group{co::executor_ref(sim), {.name = "batch"}};
            int done = 0;
            CHECK(group.spawn(add(done, 1ms)));
            co_await group.join();
            CHECK_FALSE(group.spawn(add(done, 1ms)));
            const bool late = co_await group.spawn_when_ready(add(done, 1ms));
            CHECK_FALSE(late);
            auto refused = group.spawn_future(pause(1ms));
            const auto said = co_await co::as_outcome(refused);
            CHECK(said.is_rejected());
            CHECK(said.rejection().reason == co::reject_reason::closed);
            CHECK(said.rejection().who() == "batch");
            co_await group.join();  // a second join finds it closed
            CHECK(done == 1);
            CHECK(group.refused() == 3);
            CHECK(group.size() == 0);
        }
    });
}

TEST_CASE("after the join the context of the group is stopped, however it went", "[scope][task_group][G-002][G6]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group empty{co::executor_ref(sim)};
        co::task_group success{co::executor_ref(sim)};
        co::task_group failure{co::executor_ref(sim)};
        co::task_group first_failure{co::executor_ref(sim), {.errors = co::on_error::stop_group}};
        co::task_group stopped{co::executor_ref(sim)};
        success.spawn(pause(1ms));
        failure.spawn(fail_after<void>(1ms, "no"));
        first_failure.spawn(fail_after<void>(1ms, "no"));
        stopped.spawn(pause(1h));
        stopped.request_stop(7);
        for (co::task_group* g : {&empty, &success, &failure}) {
            CHECK_FALSE(g->stop_requested());
            co_await g->join();
            CHECK(g->stop_requested());
            CHECK(g->ctx().stop_token().stop_requested());
            CHECK(g->reason().kind == co::stop_kind::closed);
        }
        co_await first_failure.join();
        CHECK(first_failure.reason().kind == co::stop_kind::failure);
        co_await stopped.join();
        CHECK(stopped.reason().kind == co::stop_kind::requested);
        CHECK(stopped.reason().code == 7);
    });
}

TEST_CASE("several tasks may join, and all go on when the last child has ended", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        group.spawn(pause(5ms));
        const auto before = co::clock::now();
        co_await co::when_all(group.join(), group.join(), group.join());
        CHECK(co::clock::now() - before == 5ms);
    });
}

TEST_CASE("a join that is stopped leaves the group as it was", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int done = 0;
        group.spawn(add(done, 10ms));
        const auto gave_up = co_await co::as_outcome(co::with_timeout(1ms, group.join()));
        CHECK(gave_up.is_error());
        CHECK_FALSE(group.stop_requested());
        CHECK(group.size() == 1);
        co_await co::sleep_for(20ms);
        CHECK(done == 1);
        CHECK(group.size() == 0);
        CHECK_FALSE(group.stop_requested());
        CHECK(group.spawn(add(done, 1ms)));
        co_await group.join();
        CHECK(done == 2);
    });
}

TEST_CASE("a join that gives up does not keep another from ending", "[scope][task_group]") {
    const auto make = []() -> co::task<bool> {
        simulation& sim = *simulation::current();
        co::task_group group{co::executor_ref(sim)};
        group.spawn(pause(1ms));
        auto both = co::when_all(co::as_outcome(co::with_timeout(1ms, group.join())), group.join());
        co_await std::move(both);
        co_return group.size() == 0 && group.stop_requested();
    };
    const auto seen = co::testing::explore_all(20'000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("a thread joins a group that runs elsewhere, and so may a task beside it", "[scope][task_group]") {
    co::thread_pool pool(2);
    std::atomic<int> ended{0};
    const auto child = [&]() -> co::task<> {
        co_await co::sleep_for(1ms);
        ++ended;
    };
    co::task_group group(pool, {.name = "jobs"});
    for (int i = 0; i < 20; ++i) group.spawn(child);
    co::completion<void> joined_there;
    co::start_on(pool, group.join(), [&](co::outcome<void> o) { joined_there.set(std::move(o)); });
    CHECK(group.join_blocking().has_value());
    CHECK(ended == 20);
    CHECK_FALSE(group.spawn(child));
    CHECK(group.join_blocking().has_value());  // it has ended
    CHECK(joined_there.wait_blocking().has_value());
    co::task_group empty(pool);
    CHECK(empty.join_blocking().has_value());
}

TEST_CASE("a thread that gives up its join leaves the group as it was", "[scope][task_group]") {
    co::thread_pool pool(1);
    co::async_event may_end;
    const auto child = [&]() -> co::task<> { co_await may_end.wait(); };
    co::task_group group(pool);
    group.spawn(child);
    CHECK(group.join_blocking(co::deadline::after(1ms)).is_stopped());
    std::jthread asked([&](std::stop_token stop) { CHECK(group.join_blocking(stop).is_stopped()); });
    asked.request_stop();
    asked.join();
    CHECK(group.spawn(child));
    CHECK(group.size() == 2);
    may_end.set();
    CHECK(group.join_blocking().has_value());
    CHECK(group.size() == 0);
    co::task_group of_no_use(pool);
    const auto joins = [&]() -> co::task<bool> {
        bool refused = false;
        try {
            (void)of_no_use.join_blocking();
        } catch (const std::logic_error&) {
            refused = true;
        }
        co_return refused;
    };
    CHECK(co::sync_wait(co::on(pool, joins)));
}

TEST_CASE("a spawned callable and its captures live in the child's frame", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int alive = 0;
        std::string seen;
        {
            const std::string text = "a text that is too long for the small string optimisation";
            const counted one(alive);
            group.spawn([text, one, &seen]() -> co::task<> {
                co_await co::sleep_for(1ms);
                seen = text;
            });
            const auto named = [text, one, &seen]() -> co::task<> {
                co_await co::sleep_for(2ms);
                seen += text.substr(0, 6);
            };
            group.spawn(named);
        }
        CHECK(alive == 2);
        co_await co::sleep_for(1500us);
        CHECK(alive == 1);
        co_await group.join();
        CHECK(alive == 0);
        CHECK(seen == "a text that is too long for the small string optimisationa text");
    });
}

TEST_CASE("whatever can be awaited can be spawned", "[scope][task_group]") {
    struct numbers {
        static co::task<int> one() { co_return 1; }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        const auto before = co::clock::now();
        CHECK(group.spawn(co::sleep_for(3ms)));
        CHECK(group.spawn(numbers::one()));
        CHECK(group.spawn([] { return co::with(co::sleep_for(1h), co::within(5ms)); }));
        co_await group.join();
        CHECK(co::clock::now() - before == 5ms);
        CHECK(group.error_count() == 1);
    });
}

TEST_CASE("the frame of a child, arguments included, is gone before it is counted down", "[scope][task_group]") {
    struct witness {
        witness(co::task_group& g, std::vector<std::size_t>& s) : group(&g), sizes(&s) {}
        witness(witness&& other) noexcept : group(std::exchange(other.group, nullptr)), sizes(other.sizes) {}
        ~witness() {
            if (group != nullptr) sizes->push_back(group->size());
        }
        co::task_group* group;
        std::vector<std::size_t>* sizes;
    };
    struct child {
        static co::task<> run(witness, co::clock::duration d, bool fails) {
            co_await co::sleep_for(d);
            if (fails) throw std::runtime_error("failed");
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        std::vector<std::size_t> sizes;
        co::task_group group{co::executor_ref(sim)};
        group.spawn(child::run(witness(group, sizes), 1ms, false));
        group.spawn(child::run(witness(group, sizes), 2ms, true));
        group.spawn(child::run(witness(group, sizes), 1h, false));
        co_await co::sleep_for(3ms);
        CHECK(sizes == std::vector<std::size_t>{3, 2});
        group.request_stop();
        co_await group.join();
        CHECK(sizes == std::vector<std::size_t>{3, 2, 1});
    });
}

TEST_CASE("a child that was accepted but has not run when the group stops is destroyed unstarted",
          "[scope][task_group][G9]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int alive = 0;
        bool ran = false;
        const counted one(alive);
        CHECK(group.spawn([one, &ran]() -> co::task<> {
            ran = true;
            co_return;
        }));
        auto result = group.spawn_future([one, &ran]() -> co::task<int> {
            ran = true;
            co_return 1;
        });
        CHECK(alive == 3);
        group.request_stop();
        co_await group.join();
        CHECK(alive == 1);
        CHECK_FALSE(ran);
        CHECK(group.error_count() == 0);
        CHECK(group.refused() == 0);
        const auto ended = co_await co::as_outcome(result);
        CHECK(ended.is_stopped());
    });
}

TEST_CASE("a stopped group starts nothing, destroys what it is given and counts it", "[scope][task_group][G9]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int alive = 0;
        group.request_stop();
        {
            const counted one(alive);
            const auto child = [one]() -> co::task<> { co_return; };
            CHECK_FALSE(group.spawn(child));
            const bool started = co_await group.spawn_when_ready(child);
            CHECK_FALSE(started);
            auto result = group.spawn_future(child);
            CHECK(result.ready());
            CHECK(group.refused() == 3);
        }
        CHECK(alive == 0);
        CHECK(group.size() == 0);
        co_await group.join();
    });
}

TEST_CASE("a stop reaches all children at once, and the first reason stays", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int alive = 0;
        for (int i = 0; i < 10; ++i) group.spawn(wait_here<void>(alive));
        co_await simulation::settle();
        CHECK(alive == 10);
        const auto before = co::clock::now();
        CHECK(group.request_stop(3));
        CHECK_FALSE(group.request_stop(4));
        co_await group.join();
        CHECK(alive == 0);
        CHECK(co::clock::now() == before);
        CHECK(group.reason().code == 3);
        CHECK(group.reason().where.line() != 0);
        CHECK(group.error_count() == 0);  // being stopped by the group is no failure
    });
}

TEST_CASE("a hard stop after a gentle one overrides it, twice is as once, and all frames are destroyed",
          "[scope][task_group][G-029]") {
    struct worker {
        static co::task<> run(co::async_event& drain, int& alive, int& finished) {
            const counted here(alive);
            co_await drain.wait();       // gently: ends its work when asked
            co_await co::sleep_for(1h);  // which takes long
            ++finished;
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::async_event drain;
        co::task_group group{co::executor_ref(sim)};
        int alive = 0, finished = 0;
        for (int i = 0; i < 5; ++i) group.spawn(worker::run(drain, alive, finished));
        co_await simulation::settle();
        drain.set();
        co_await co::sleep_for(1ms);
        CHECK(alive == 5);
        const auto before = co::clock::now();
        CHECK(group.request_stop(1));
        CHECK_FALSE(group.request_stop(2));
        co_await group.join();
        CHECK(co::clock::now() == before);
        CHECK(alive == 0);
        CHECK(finished == 0);
        CHECK(group.reason().code == 1);
    });
}

TEST_CASE("a child that is out of the reach of a stop is not stopped, but it is still listed and waited for",
          "[scope][task_group][G-030]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        const co::context apart = group.ctx().without_stop();
        int done = 0, alive = 0;
        group.spawn(add(done, 10ms).with(apart), {.name = "flush"});
        group.spawn(wait_here<void>(alive));
        co_await simulation::settle();
        group.request_stop();
        co_await co::sleep_for(1ms);
        CHECK(alive == 0);
        CHECK(group.size() == 1);
        const auto left = group.children();
        REQUIRE(left.size() == 1);
        CHECK(left[0].name == "flush");
        CHECK(done == 0);
        co_await group.join();
        CHECK(done == 1);
    });
}

TEST_CASE("the children of a group are listed by name, place and group", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.name = "sessions"}};
        group.spawn(pause(1ms), {.name = "one"});
        const unsigned line = std::source_location::current().line() + 1;
        group.spawn(pause(2ms), {.name = "two"});
        co_await simulation::settle();
        const auto both = group.children();
        REQUIRE(both.size() == 2);
        const auto two = std::find_if(both.begin(), both.end(), [](const auto& t) { return t.name == "two"; });
        REQUIRE(two != both.end());
        CHECK(two->spawned_at.line() == line);
        CHECK(two->waits_for == "sleep");
        const auto all = co::live_tasks();
        const auto parent = std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.id == two->parent_id; });
        REQUIRE(parent != all.end());
        CHECK(parent->is_group);
        CHECK(parent->name == "sessions");
        co_await group.join();
        CHECK(group.children().empty());
    });
}

TEST_CASE("a group without an executor is refused with a message", "[scope][task_group]") {
    const co::context nothing;
    CHECK_THROWS_AS(co::task_group(nothing), std::invalid_argument);
}

namespace {
inline constexpr co::context_key<int> shard{"shard"};
co::task<> look(std::vector<int>& seen) {
    const int* const n = co_await co::this_task::get(shard);
    seen.push_back(n == nullptr ? -1 : *n);
}
co::task<> spawn_with_shard(co::task_group& group, std::vector<int>& seen) {
    group.spawn(look(seen));
    group.spawn(co::with(look(seen), shard(5)));
    co_return;
}
}  // namespace

TEST_CASE("a child inherits from its group, not from its spawner", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        std::vector<int> seen;
        co::task_group group{co::executor_ref(sim)};
        co_await co::with(spawn_with_shard(group, seen), shard(9));
        co_await group.join();
        std::sort(seen.begin(), seen.end());
        CHECK(seen == std::vector<int>{-1, 5});
    });
}

TEST_CASE("a group under a context has its values, its deadline and its stop", "[scope][task_group]") {
    struct inner {
        static co::task<> run(std::vector<int>& seen, co::stop_kind& why) {
            const co::context* const ctx = co_await co::this_task::context();
            co::task_group group{*ctx};
            CHECK(group.ctx().deadline() == ctx->deadline());
            group.spawn(look(seen));
            group.spawn(co::sleep_for(24h));
            co_await group.join().with(ctx->without_stop());
            why = group.reason().kind;
        }
    };
    simulate([](simulation&) -> co::task<> {
        std::vector<int> seen;
        co::stop_kind why{};
        const auto before = co::clock::now();
        co_await co::with(inner::run(seen, why), shard(3), co::within(10ms));
        CHECK(co::clock::now() - before == 10ms);
        CHECK(seen == std::vector<int>{3});
        CHECK(why == co::stop_kind::deadline);
    });
}

TEST_CASE("no more children than max_running run at the same time, and a full group says no",
          "[scope][task_group][G7]") {
    struct work {
        static co::task<> run(int& running, int& peak) {
            peak = std::max(peak, ++running);
            co_await co::sleep_for(1ms);
            --running;
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.name = "small", .max_running = 3}};
        int running = 0, peak = 0;
        for (int i = 0; i < 3; ++i) CHECK(group.spawn(work::run(running, peak)));
        CHECK_FALSE(group.spawn(work::run(running, peak)));
        auto refused = group.spawn_future(work::run(running, peak));
        const auto said = co_await co::as_outcome(refused);
        CHECK(said.is_rejected());
        CHECK(said.rejection().reason == co::reject_reason::full);
        CHECK(said.rejection().who() == "small");
        CHECK(group.refused() == 2);
        for (int i = 0; i < 20; ++i) {
            const bool started = co_await group.spawn_when_ready(work::run(running, peak));
            CHECK(started);
        }
        co_await group.join();
        CHECK(peak == 3);
        CHECK(running == 0);
        CHECK(group.refused() == 2);
    });
}

TEST_CASE("the bound and the name of a group are those of its construction, for good",
          "[scope][task_group][G-006][G-023]") {
    simulate([](simulation& sim) -> co::task<> {
        std::string name = "first";
        co::group_options options;
        options.name = name;
        options.max_running = 1;
        co::task_group group{co::executor_ref(sim), options};
        name = "other";
        options.max_running = 5;
        CHECK(group.spawn(pause(1ms)));
        CHECK_FALSE(group.spawn(pause(1ms)));  // while it is active
        const auto all = co::live_tasks();
        CHECK(std::any_of(all.begin(), all.end(), [](const auto& t) { return t.is_group && t.name == "first"; }));
        co_await group.join();
        CHECK_FALSE(group.spawn(pause(1ms)));
    });
}

TEST_CASE("a group with room for nobody starts nobody", "[scope][task_group][G7]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.name = "nobody", .max_running = 0}};
        CHECK(group.name() == "nobody");
        CHECK_FALSE(group.spawn(pause(1ms)));
        const auto gave_up = co_await co::as_outcome(co::with_timeout(1s, group.spawn_when_ready(pause(1ms))));
        CHECK(gave_up.is_error());
        co::task_group waiting{co::executor_ref(sim)};
        std::optional<bool> started;
        waiting.spawn(spawn_one(group, pause(1ms), started));
        co_await co::sleep_for(1s);
        CHECK_FALSE(started.has_value());
        const auto now = group.stats();
        CHECK((now.size == 0 && now.waiting_for_room == 1 && now.refused == 1 && now.errors == 0));
        CHECK(waiting.stats().size == 1);
        group.request_stop();
        CHECK(group.stats().waiting_for_room == 0);
        co_await waiting.join();
        CHECK(started == false);
        co_await group.join();
    });
}

TEST_CASE("spawners that wait for room are served in the order in which they came, and spawn does not overtake them",
          "[scope][task_group][G-008][G8]") {
    for (std::uint64_t seed = 1; seed <= 50; ++seed) {
        simulate(
            [](simulation& sim) -> co::task<> {
                co::task_group spawners{co::executor_ref(sim)};
                co::task_group group{co::executor_ref(sim), {.max_running = 1}};
                std::vector<int> order;
                std::array<std::optional<bool>, 6> started;
                CHECK(group.spawn(note(order, 0)));
                for (std::size_t i = 1; i < started.size(); ++i) {
                    spawners.spawn(spawn_one(group, note(order, static_cast<int>(i)), started[i]));
                    co_await simulation::settle();
                }
                CHECK_FALSE(group.spawn(note(order, 99)));
                co_await co::sleep_for(1500us);  // the first has ended, the second runs, others wait
                CHECK_FALSE(group.spawn(note(order, 99)));
                co_await spawners.join();
                CHECK(std::all_of(started.begin() + 1, started.end(), [](auto s) { return s == true; }));
                co_await group.join();
                CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5});
            },
            seed);
    }
}

namespace {

/// One place, taken for 1 ms; two wait for it, and one of those gives up at the very moment when it becomes free.
co::task<bool> tie_of_room_and_stop() {
    co::task_group group{co::executor_ref(*simulation::current()), {.max_running = 1}};
    std::vector<int> order;
    group.spawn(note(order, 0));
    auto first = co::as_outcome(co::with_timeout(1ms, group.spawn_when_ready(note(order, 1))));
    auto both = co::when_all(std::move(first), group.spawn_when_ready(note(order, 2)));
    auto ended = co_await std::move(both);
    auto& [one, two] = ended;
    co_await co::sleep_for(5ms);
    const bool room_again = group.spawn(note(order, 3));
    co_await group.join();
    std::vector<int> expected{0, 2, 3};
    if (one.has_value() && *one) {
        expected = {0, 1, 2, 3};
        // whoever came first is served first; a schedule may let the second come first
        if (order == std::vector<int>{0, 2, 1, 3}) expected = order;
    }
    co_return two && room_again && order == expected && group.refused() == 0;
}

}  // namespace

TEST_CASE("a waiting spawner that is stopped takes no room and loses none", "[scope][task_group][G8]") {
    const auto seen =
        co::testing::explore_all(100'000, [] { return tie_of_room_and_stop(); }, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK(seen.schedules > 20);
    CHECK_FALSE(seen.failing.has_value());
}

namespace {

co::task<> impatient(co::task_group& group, co::clock::duration start, co::clock::duration patience, int& running,
                     int& peak, int& started) {
    struct work {
        static co::task<> run(int& here, int& most) {
            most = std::max(most, ++here);
            co_await co::sleep_for(3ms);
            --here;
        }
    };
    co_await co::sleep_for(start);
    const auto got =
        co_await co::as_outcome(co::with_timeout(patience, group.spawn_when_ready(work::run(running, peak))));
    if (got.has_value() && *got) ++started;
}

}  // namespace

TEST_CASE("spawners that lose patience at random cost no room and start nothing", "[scope][task_group][G8]") {
    for (std::uint64_t seed = 1; seed <= 200; ++seed) {
        CAPTURE(seed);
        simulate(
            [](simulation& sim) -> co::task<> {
                std::minstd_rand dice(static_cast<std::uint32_t>(sim.seed()));
                co::task_group group{co::executor_ref(sim), {.max_running = 2}};
                co::task_group spawners{co::executor_ref(sim)};
                int running = 0, peak = 0, started = 0;
                for (int i = 0; i < 30; ++i)
                    spawners.spawn(impatient(group, std::chrono::milliseconds(dice() % 20),
                                             std::chrono::milliseconds(1 + dice() % 12), running, peak, started));
                co_await spawners.join();
                CHECK(started > 0);
                CHECK(peak <= 2);
                co_await co::sleep_for(10ms);
                CHECK(running == 0);
                CHECK(group.size() == 0);
                CHECK(group.spawn(pause(1ms)));  // both places are free again
                CHECK(group.spawn(pause(1ms)));
                CHECK_FALSE(group.spawn(pause(1ms)));
                co_await group.join();
            },
            seed);
    }
}

TEST_CASE("the stop of a group wakes the spawners that wait for room, and starts none of their tasks",
          "[scope][task_group][G9]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group spawners{co::executor_ref(sim)};
        co::task_group group{co::executor_ref(sim), {.max_running = 1}};
        int alive = 0;
        std::array<std::optional<bool>, 3> started;
        group.spawn(wait_here<void>(alive));
        for (auto& s : started) spawners.spawn(spawn_one(group, wait_here<void>(alive), s));
        co_await simulation::settle();
        CHECK(alive == 1);
        group.request_stop();
        co_await spawners.join();
        for (const auto& s : started) CHECK(s == false);
        CHECK(spawners.error_count() == 0);
        CHECK(group.refused() == 3);
        co_await group.join();
        CHECK(alive == 0);
    });
}

TEST_CASE("a group under a stopped parent wakes its spawners as well", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::cancel_scope outer{co::executor_ref(sim)};
        co::task_group spawners{co::executor_ref(sim)};
        co::task_group group{outer.ctx(), {.max_running = 0}};
        std::optional<bool> started;
        spawners.spawn(spawn_one(group, pause(1ms), started));
        co_await simulation::settle();
        outer.request_stop();
        co_await spawners.join();
        CHECK(started == false);
        co::task_group late{outer.ctx(), {.max_running = 1}};
        CHECK_FALSE(late.spawn(pause(1ms)));
        co_await group.join();
        co_await late.join();
    });
}

TEST_CASE("a spawner that is stopped itself ends stopped, having started nothing", "[scope][task_group]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group spawners{co::executor_ref(sim)};
        co::task_group group{co::executor_ref(sim), {.max_running = 1}};
        std::optional<bool> started;
        group.spawn(pause(5ms));
        spawners.spawn(spawn_one(group, pause(1ms), started));
        co_await simulation::settle();
        spawners.request_stop();
        co_await spawners.join();
        CHECK_FALSE(started.has_value());
        CHECK(group.refused() == 0);
        CHECK(group.size() == 1);
        co_await group.join();
    });
}

TEST_CASE("a child that throws gives its room back", "[scope][task_group][G14]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.max_running = 2}};
        for (int i = 0; i < 20; ++i) {
            const bool started = co_await group.spawn_when_ready(fail_after<void>(1ms, "no"));
            CHECK(started);
        }
        co_await group.join();
        CHECK(group.error_count() == 20);
    });
}

TEST_CASE("a group that lives in an object keeps going: the first 8 errors are kept, the rest counted",
          "[scope][task_group][G-016][G2][G4]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        int done = 0;
        for (int i = 0; i < 12; ++i)
            group.spawn(fail_after<void>(std::chrono::milliseconds(12 - i), "failure " + std::to_string(i)),
                        {.name = "child"});
        group.spawn(add(done, 1h));
        co_await co::sleep_for(100ms);
        CHECK(group.error_count() == 12);
        CHECK(group.errors().size() == co::task_group::errors_kept);
        CHECK_FALSE(group.stop_requested());
        CHECK(group.size() == 1);
        co_await group.join();  // does not throw
        CHECK(done == 1);
        CHECK(texts_of(group) == std::vector<std::string>{"failure 11", "failure 10", "failure 9", "failure 8",
                                                          "failure 7", "failure 6", "failure 5", "failure 4"});
    });
}

TEST_CASE("a group that gathers errors gives all of them, each with its name and the place of its spawn",
          "[scope][task_group][G-020][G4][G11]") {
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        const unsigned line = std::source_location::current().line();
        group.spawn(fail_after<void>(2ms, "late"), {.name = "writer"});
        group.spawn(fail_after<void>(1ms, "early"), {.name = "reader"});
        auto result = group.spawn_future(fail_after<void>(3ms, "latest"), {.name = "mailer"});
        const auto seen = co_await co::as_outcome(result);
        co_await group.join();
        const auto errors = group.errors();
        REQUIRE(errors.size() == 3);
        CHECK(group.error_count() == 3);
        CHECK(texts_of(group) == std::vector<std::string>{"early", "late", "latest"});
        CHECK(errors[0].name == "reader");
        CHECK(errors[0].spawned_at.line() == line + 2);
        CHECK(errors[1].name == "writer");
        CHECK(errors[1].spawned_at.line() == line + 1);
        CHECK(errors[2].name == "mailer");
        CHECK(errors[2].spawned_at.line() == line + 3);
        CHECK(std::string(errors[2].spawned_at.file_name()).ends_with("task_group.test.cpp"));
        CHECK(errors[2].error == seen.error());  // the very object that was thrown
    });
}

TEST_CASE("a group that stops at the first failure keeps it before it stops, and the others as well",
          "[scope][task_group][G-010][G-018][G2]") {
    struct stubborn {
        static co::task<> run() {
            const co::context* const ctx = co_await co::this_task::context();
            const co::context apart = ctx->without_stop();
            co_await pause(5ms).with(apart);
            throw std::out_of_range("second");
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim), {.errors = co::on_error::stop_group}};
        int alive = 0;
        std::size_t kept_when_stopped = 0;
        const auto look_at_stop = [&]() noexcept { kept_when_stopped = group.errors().size(); };
        const co::inplace_stop_callback callback(group.ctx().stop_token(), look_at_stop);
        group.spawn(wait_here<void>(alive));
        group.spawn(stubborn::run());
        group.spawn(fail_after<void>(1ms, "first"));
        co_await co::sleep_for(2ms);
        CHECK(alive == 0);  // long before the join
        CHECK(kept_when_stopped == 1);
        CHECK(group.reason().kind == co::stop_kind::failure);
        co_await group.join();
        const auto errors = group.errors();
        REQUIRE(errors.size() == 2);
        CHECK_THROWS_AS(std::rethrow_exception(errors[0].error), std::runtime_error);
        CHECK_THROWS_AS(std::rethrow_exception(errors[1].error), std::out_of_range);
        CHECK(texts_of(group) == std::vector<std::string>{"first", "second"});
    });
}

TEST_CASE("a child that stops by itself, while nobody asked the group to, has failed", "[scope][task_group][G3]") {
    struct child {
        static co::task<> gives_up() {
            co_await co::sleep_for(1ms);
            co_await co::this_task::stop();
        }
        static co::task<> throws_canceled() {
            co_await co::sleep_for(2ms);
            throw co::canceled();
        }
    };
    simulate([](simulation& sim) -> co::task<> {
        co::task_group group{co::executor_ref(sim)};
        group.spawn(child::gives_up());
        group.spawn(child::throws_canceled());
        co_await co::sleep_for(5ms);
        CHECK(texts_of(group) == std::vector<std::string>{"canceled", "canceled"});
        group.spawn(child::gives_up());
        group.request_stop();
        co_await group.join();
        CHECK(group.error_count() == 2);
    });
}

TEST_CASE("the stops that follow a failure never hide it, over a thousand schedules",
          "[scope][task_group][G-017][G2][G3]") {
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        simulation sim(seed);
        std::vector<std::string> failed;
        int alive = 0;
        const auto scenario = [&]() -> co::task<std::vector<std::string>> {
            co::task_group group{co::executor_ref(sim), {.errors = co::on_error::stop_group}};
            for (int i = 0; i < 3; ++i) group.spawn(wait_here<void>(alive));
            group.spawn(fail_noted(1ms, "a", failed));
            group.spawn(fail_noted(1ms, "b", failed));
            for (int i = 0; i < 3; ++i) group.spawn(pause(1ms));
            co_await group.join();
            co_return texts_of(group);
        };
        const auto errors = sim.run(scenario());
        CAPTURE(seed);
        REQUIRE(errors == failed);
        REQUIRE(alive == 0);
    }
}

// --- random trees ------------------------------------------------------------------------------------------------

namespace {

struct failure : std::runtime_error {
    using runtime_error::runtime_error;
};

/// What a random tree keeps book of.
struct world {
    explicit world(std::uint64_t seed) : engine(static_cast<std::uint32_t>(seed)) {}
    unsigned below(unsigned n) { return static_cast<unsigned>(engine() % n); }
    co::clock::duration some_time() { return std::chrono::milliseconds(below(20)); }

    std::minstd_rand engine;
    int alive = 0;
    int groups = 0;
    int failures = 0;
    int broken = 0;  ///< promises of the library that did not hold
};

/// What one group keeps book of.
struct ledger {
    std::vector<std::exception_ptr> failed;  ///< in the order in which they happened
    std::size_t running = 0;
};

co::task<> node(world& w, int depth);

/// A child that notes how it failed; from there until the group knows it is the same step.
co::task<> noted(world& w, ledger& l, std::size_t bound, int depth) {
    struct running {
        explicit running(ledger& of) : l(&of) { ++l->running; }
        ~running() { --l->running; }
        ledger* l;
    };
    const running here(l);
    if (l.running > bound) ++w.broken;
    try {
        co_await node(w, depth);
    } catch (...) {
        l.failed.push_back(std::current_exception());
        throw;
    }
}

co::task<> group_body(world& w, ledger& l, co::task_group& group, std::size_t bound, int depth) {
    const unsigned children = w.below(5);
    for (unsigned i = 0; i < children; ++i) {
        switch (w.below(4)) {
            case 0: group.spawn(noted(w, l, bound, depth)); break;
            case 1: (void)co_await group.spawn_when_ready(noted(w, l, bound, depth)); break;
            case 2: (void)group.spawn_future(noted(w, l, bound, depth)); break;
            default: {
                auto result = group.spawn_future(noted(w, l, bound, depth));
                if (w.below(2) == 0) co_await co::sleep_for(w.some_time());
                const auto ended = co_await co::as_outcome(result);
                if (ended.is_error() && group.error_count() == 0) ++w.broken;
            }
        }
    }
    const unsigned then = w.below(6);
    if (then == 0) co_await co::sleep_for(w.some_time());
    if (then == 1) group.request_stop();
    if (then == 2) {
        l.failed.push_back(std::make_exception_ptr(failure("body")));
        std::rethrow_exception(l.failed.back());
    }
    if (then == 3) co_await group.join();
}

co::task<> group_node(world& w, int depth) {
    ++w.groups;
    ledger l;
    const std::size_t bound = w.below(2) == 0 ? co::group_options::unlimited : 1 + w.below(3);
    co::group_options options;
    options.max_running = bound;
    options.errors = w.below(3) == 0 ? co::on_error::keep_going : co::on_error::by_kind;
    std::exception_ptr thrown;
    try {
        const auto body = [&](co::task_group& group) { return group_body(w, l, group, bound, depth); };
        co_await co::with_group(options, body);
    } catch (...) {
        thrown = std::current_exception();
    }
    const std::exception_ptr first = l.failed.empty() ? nullptr : l.failed.front();
    if (thrown != first || l.running != 0) ++w.broken;
    if (thrown != nullptr && w.below(2) == 0) std::rethrow_exception(thrown);
}

co::task<> use(world& w, ledger& l, co::task_group& group, int depth) {
    for (unsigned i = w.below(4); i > 0; --i) group.spawn(noted(w, l, co::group_options::unlimited, depth));
    co_await co::sleep_for(w.some_time());
}
/// A group that lives in an object, stopped and joined whatever happens.
co::task<> object_node(world& w, int depth) {
    ++w.groups;
    ledger l;
    const co::context* const ctx = co_await co::this_task::context();
    co::task_group group{*ctx};
    const auto stop_and_join = [&] {
        group.request_stop();
        return group.join();
    };
    co_await co::finally(use(w, l, group, depth), stop_and_join, 1h);
    if (group.size() != 0 || group.error_count() != l.failed.size()) ++w.broken;
}

co::task<> cleanup(world& w) {
    const counted here(w.alive);
    co_await co::sleep_for(w.some_time());
}

co::task<> node(world& w, int depth) {
    const counted here(w.alive);
    if (w.below(4) == 0) co_await co::this_task::yield();
    switch (depth == 0 ? w.below(3) : w.below(10)) {
        case 0: co_return;
        case 1: co_await co::sleep_for(w.some_time()); co_return;
        case 2:
            co_await co::sleep_for(w.some_time());
            ++w.failures;
            throw failure("a node");
        case 3: {
            auto both = co::when_all(node(w, depth - 1), node(w, depth - 1));
            co_await std::move(both);
            co_return;
        }
        case 4: {
            auto either = co::when_any(node(w, depth - 1), node(w, depth - 1));
            co_await std::move(either);
            co_return;
        }
        case 5: co_await co::with_timeout(w.some_time(), node(w, depth - 1)); co_return;
        case 6: {
            const auto clean = [&w] { return cleanup(w); };
            co_await co::finally(node(w, depth - 1), clean, 5ms);
            co_return;
        }
        case 7: co_await object_node(w, depth - 1); co_return;
        default: co_await group_node(w, depth - 1);
    }
}

/// Stops the run at one of its steps.
struct stop_at_step final : simulation::observer {
    explicit stop_at_step(std::uint64_t s) : step(s) {}
    void before_step(std::uint64_t now, co::cancel_scope& root) override {
        if (now == step) root.request_stop();
    }
    std::uint64_t step;
};

}  // namespace

TEST_CASE(
    "random trees of groups end whole: no child, no count, no timer and no record is left, and the first error wins",
    "[scope][task_group][G1][G2][G5]") {
    const std::size_t before = co::live_tasks().size();
    int groups = 0, failures = 0, stops = 0;
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        CAPTURE(seed);
        world w(seed);
        simulation sim(seed);
        stop_at_step stop(seed % 2 == 0 ? 1 + w.below(80) : 0);
        sim.observe(&stop);
        try {
            sim.run(node(w, 6));
        } catch (const co::canceled&) {
            ++stops;
        } catch (const failure&) {
        } catch (const co::timeout_error&) {
        }
        groups += w.groups;
        failures += w.failures;
        REQUIRE(w.alive == 0);
        REQUIRE(w.broken == 0);
        REQUIRE(sim.armed_timers() == 0);
        REQUIRE(co::live_tasks().size() == before);
    }
    CHECK(groups > 1000);
    CHECK(failures > 300);
    CHECK(stops > 50);
}

TEST_CASE("a group destroyed with a live child prints it by name and place, and terminates",
          "[scope][task_group][G-035][G1][LK-05]") {
    const auto text = last_words([] {
        co::run_loop loop;
        auto group = std::make_unique<co::task_group>(co::executor_ref(loop), co::group_options{.name = "sessions"});
        group->spawn(pause(1h), {.name = "crawler"});
        group->spawn(pause(1h), {.name = "indexer"});
        loop.poll();
        group->spawn(pause(1h), {.name = "newcomer"});
        group.reset();
    });
    CAPTURE(text);
    CHECK(says(text, "\"sessions\"", "3 live tasks", "task_group.test.cpp:", "sleep"));
    CHECK(says(text, "\"crawler\"", "\"indexer\"", "\"newcomer\""));
}

namespace {

/// A host's coroutine that runs at once and carries no context.
struct fire_and_forget {
    struct promise_type {
        fire_and_forget get_return_object() noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        [[noreturn]] void unhandled_exception() const noexcept { std::terminate(); }
    };
};

}  // namespace

TEST_CASE("a host's coroutine without a context joins a group whose child is stopped before it runs",
          "[scope][task_group]") {
    co::run_loop loop;
    bool joined = false;
    co::task_group group{loop};
    const auto joins = [](co::task_group& g, bool& done) -> fire_and_forget {
        co_await g.join();
        done = true;
    };
    group.spawn(pause(1h));
    joins(group, joined);
    group.request_stop();
    for (int i = 0; i < 3; ++i) loop.poll();
    CHECK(joined);
}

TEST_CASE("what a pool's thread runs next does not hold up the join of children that have ended there",
          "[scope][task_group]") {
    co::thread_pool pool(1);
    co::task_group group(pool), others(pool);
    std::binary_semaphore spawned(0), joined(0);
    bool in_time = false;
    const auto blocks = [&] { in_time = joined.try_acquire_for(5s); };
    const auto ends = []() -> co::task<> { co_return; };
    co::async_event event;
    SECTION("a child of another group") {
        const auto blocking = [&]() -> co::task<> {
            blocks();
            co_return;
        };
        const auto spawns = [&]() -> co::task<> {
            for (int i = 0; i < 3; ++i) group.spawn(ends);
            others.spawn(blocking);
            spawned.release();
            co_return;
        };
        others.spawn(spawns);
        spawned.acquire();
    }
    SECTION("a task that goes on") {
        const auto spawns = [&]() -> co::task<> {
            for (int i = 0; i < 3; ++i) group.spawn(ends);
            spawned.release();
            co_await co::this_task::yield();
            blocks();
        };
        others.spawn(spawns);
        spawned.acquire();
    }
    SECTION("a host's coroutine that the last of them has woken") {
        const auto host = [](co::async_event& e, const auto& then) -> fire_and_forget {
            co_await e.wait();
            then();
        };
        host(event, blocks);
        const auto wakes = [&]() -> co::task<> {
            event.set();
            co_return;
        };
        group.spawn(wakes);
    }
    CHECK(group.join_blocking().has_value());
    joined.release();
    CHECK(others.join_blocking().has_value());
    co::task_group last(pool);  // what blocks may be no child
    last.spawn(ends);
    CHECK(last.join_blocking().has_value());
    CHECK(in_time);
}

TEST_CASE("a child on a thread of a pool counts only those that have not ended", "[scope][task_group]") {
    co::thread_pool pool(1);
    co::task_group group(pool);
    std::size_t seen = 0, seen_inside = 0;
    const auto ends = []() -> co::task<> { co_return; };
    const auto looks = [&]() -> co::task<> {
        seen = group.size();
        co_return;
    };
    const auto looks_from_there = [&]() -> co::task<> {
        seen_inside = group.size();
        co_return;
    };
    const auto looks_inside = [&]() -> co::task<> {
        co::run_loop own;  // another executor, on which the pool's thread may stay for long
        co::start_on(own, looks_from_there());
        own.poll();
        co_return;
    };
    const auto spawns = [&]() -> co::task<> {
        for (int i = 0; i < 100; ++i) group.spawn(ends);
        group.spawn(looks);
        for (int i = 0; i < 10; ++i) group.spawn(ends);
        group.spawn(looks_inside);
        co_return;
    };
    group.spawn(spawns);
    CHECK(group.join_blocking().has_value());
    CHECK(seen == 12);
    CHECK(seen_inside == 1);
}

TEST_CASE("a group that dies while others wait for its room says so", "[scope][task_group]") {
    const std::string words = last_words([] {
        simulation sim;
        sim.run([]() -> co::task<> {
            const auto here = co_await co::this_task::executor();
            std::optional<bool> started;
            auto group = std::make_unique<co::task_group>(here, co::group_options{.name = "jobs", .max_running = 0});
            co::start_on(here, spawn_one(*group, pause(1ms), started));
            co_await simulation::settle();
            co_await group->join();
            group.reset();
        }());
    });
    CHECK(says(words, "task_group \"jobs\" destroyed while 1 tasks are in its spawn_when_ready"));
}
