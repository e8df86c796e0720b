// SPDX-License-Identifier: MIT
#include <cordon/scope/with_group.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "scope/works.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;
using namespace works;

TEST_CASE("with_group gives what its body returned, after all children have ended", "[scope][with_group][G1]") {
    simulate([]() -> co::task<> {
        int done = 0;
        const auto before = co::clock::now();
        const int n = co_await co::with_group([&](co::task_group& group) -> co::task<int> {
            for (int i = 1; i <= 10; ++i) group.spawn(add(done, std::chrono::milliseconds(i)));
            co_return 42;
        });
        CHECK(n == 42);
        CHECK(done == 10);
        CHECK(co::clock::now() - before == 10ms);
    });
}

TEST_CASE("with_group passes on nothing, what can only be moved, and references", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        co_await co::with_group([](co::task_group&) -> co::task<> { co_return; });
        const auto owned = co_await co::with_group(
            [](co::task_group&) -> co::task<std::unique_ptr<int>> { co_return std::make_unique<int>(7); });
        CHECK(*owned == 7);
        int there = 1;
        int& same = co_await co::with_group([&](co::task_group&) -> co::task<int&> { co_return there; });
        CHECK(&same == &there);
    });
}

TEST_CASE("locals of the body die when the body ends, before the join", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        int alive = 0, seen_by_child = -1;
        const auto look = [&]() -> co::task<> {
            co_await co::sleep_for(1ms);
            seen_by_child = alive;
        };
        co_await co::with_group([&](co::task_group& group) -> co::task<> {
            const counted local(alive);
            group.spawn(look);
            co_return;
        });
        CHECK(seen_by_child == 0);
    });
}

TEST_CASE("a body that ends with a join may lend its locals to its children, and does not wait for itself",
          "[scope][with_group]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulate(
            []() -> co::task<> {
                const int sum = co_await co::with_group([](co::task_group& group) -> co::task<int> {
                    int local = 0;
                    for (int i = 0; i < 5; ++i) group.spawn(add(local, 1ms));
                    co_await group.join();
                    CHECK(group.stop_requested());
                    CHECK(group.reason().kind == co::stop_kind::closed);
                    CHECK_FALSE(group.spawn(pause(1ms)));
                    co_return local;
                });
                CHECK(sum == 5);
                int done = 0;
                co_await co::with_group([&](co::task_group& group) -> co::task<> {
                    group.spawn(add(done, 1ms));
                    co_await group.join();
                });
                CHECK(done == 1);
                co_await co::with_group([&](co::task_group& group) -> co::task<> { co_await group.join(); });
            },
            seed);
    }
}

TEST_CASE("after the join the context of a with_group is stopped, on success too", "[scope][with_group][G-002][G6]") {
    simulate([]() -> co::task<> {
        co::stop_kind after_success{}, after_failure{};
        co_await co::with_group([&](co::task_group& group) -> co::task<> {
            group.spawn(pause(1ms));
            co_await group.join();
            after_success = group.reason().kind;
        });
        CHECK(after_success == co::stop_kind::closed);
        const auto keep_going = [&](co::task_group& group) -> co::task<> {
            group.spawn(fail_after<void>(1ms, "no"));
            co_await group.join();
            after_failure = group.reason().kind;
        };
        const co::group_options options{.errors = co::on_error::keep_going};
        const auto ended = co_await co::as_outcome(co::with_group(options, keep_going));
        CHECK(text_of(ended) == "no");
        CHECK(after_failure == co::stop_kind::closed);
    });
}

TEST_CASE("the first failure of a child stops siblings and body, and is thrown in its original type",
          "[scope][with_group][G-010][G-015][G-018][G2][LK-06]") {
    struct special : std::logic_error {
        special() : logic_error("special"), code(17) {}
        int code;
    };
    struct child {
        static co::task<> fails() {
            co_await co::sleep_for(5ms);
            throw special();
        }
    };
    simulate([]() -> co::task<> {
        int alive = 0;
        bool body_went_on = false;
        const auto before = co::clock::now();
        std::optional<int> code;
        try {
            co_await co::with_group([&](co::task_group& group) -> co::task<> {
                for (int i = 0; i < 3; ++i) group.spawn(wait_here<void>(alive));
                group.spawn(child::fails());
                const counted here(alive);
                co_await co::sleep_for(1h);
                body_went_on = true;
            });
        } catch (const special& e) {
            code = e.code;
        }
        CHECK(code == 17);
        CHECK(alive == 0);
        CHECK_FALSE(body_went_on);
        CHECK(co::clock::now() - before == 5ms);  // not when the join would have been reached
    });
}

TEST_CASE("an error of the body stops the children and is thrown", "[scope][with_group][G2]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto body = [&](co::task_group& group) -> co::task<int> {
            group.spawn(wait_here<void>(alive));
            co_await co::sleep_for(1ms);
            throw std::runtime_error("the body");
        };
        const auto before = co::clock::now();
        const auto ended = co_await co::as_outcome(co::with_group(body));
        CHECK(text_of(ended) == "the body");
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 1ms);
    });
}

TEST_CASE("children that succeed, in any order, do not hide one that failed, and complete",
          "[scope][with_group][G-011]") {
    int alive = 0;
    const auto make = [&]() -> co::task<bool> {
        int done = 0;
        const auto body = [&](co::task_group& group) -> co::task<> {
            group.spawn(add(done, 1ms));
            group.spawn(fail_after<void>(1ms, "one failed"));
            group.spawn(add(done, 1ms));
            co_return;
        };
        const co::group_options options{.errors = co::on_error::keep_going};
        const auto ended = co_await co::as_outcome(co::with_group(options, body));
        co_return text_of(ended) == "one failed" && done == 2;
    };
    const auto seen = co::testing::explore_all(100'000, make, [&](bool held) { return held && alive == 0; });
    CHECK(seen.complete);
    CHECK(seen.schedules > 10);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("the error of a group can be had as a value", "[scope][with_group][G-012]") {
    simulate([]() -> co::task<> {
        const auto failing = [](co::task_group& group) -> co::task<int> {
            group.spawn(fail_after<void>(1ms, "as a value"));
            co_return 3;
        };
        const co::outcome<int> ended = co_await co::as_outcome(co::with_group(failing));
        CHECK(ended.is_error());
        CHECK(text_of(ended) == "as a value");
        const auto fine = [](co::task_group& group) -> co::task<int> {
            group.spawn(pause(1ms));
            co_return 3;
        };
        const co::outcome<int> good = co_await co::as_outcome(co::with_group(fine));
        CHECK(good.has_value());
        CHECK(*good == 3);
    });
}

TEST_CASE("the stops that follow a failure never hide it from who awaits the group", "[scope][with_group][G-017][G3]") {
    for (std::uint64_t seed = 1; seed <= 1000; ++seed) {
        simulation sim(seed);
        std::vector<std::string> failed;
        int alive = 0;
        const auto fails = [&](std::string what) -> co::task<> {
            co_await co::sleep_for(1ms);
            failed.push_back(what);
            throw std::runtime_error(what);
        };
        const auto body = [&](co::task_group& group) -> co::task<> {
            group.spawn(wait_here<void>(alive));
            group.spawn(fails("a"));
            group.spawn(wait_here<void>(alive));
            group.spawn(fails("b"));
            group.spawn(pause(1ms));
            co_await co::sleep_for(1h);
        };
        const auto ended = sim.run(co::as_outcome(co::with_group(body)));
        CAPTURE(seed);
        REQUIRE_FALSE(failed.empty());
        REQUIRE(text_of(ended) == failed.front());
        REQUIRE(alive == 0);
    }
}

TEST_CASE("a failure of a grandchild goes up to the nearest group that fails fast", "[scope][with_group][G-027]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto innermost = [&](co::task_group& group) -> co::task<> {
            group.spawn(fail_after<void>(2ms, "grandchild"));
            group.spawn(wait_here<void>(alive));
            co_return;
        };
        const auto inner = [&]() -> co::task<> {
            const counted here(alive);
            co_await co::with_group(innermost);
        };
        const auto middle = [&](co::task_group& group) -> co::task<> {
            group.spawn(inner);
            group.spawn(wait_here<void>(alive));
            co_return;
        };
        const auto ended = co_await co::as_outcome(co::with_group(middle));
        CHECK(text_of(ended) == "grandchild");
        CHECK(alive == 0);

        // one that keeps going in between keeps it to itself until all have ended
        int done = 0;
        std::size_t noted = 0;
        const auto patient = [&](co::task_group& group) -> co::task<> {
            group.spawn(inner);
            group.spawn(add(done, 5ms));
            co_await group.join();
            noted = group.error_count();
        };
        const co::group_options options{.errors = co::on_error::keep_going};
        const auto before = co::clock::now();
        const auto later = co_await co::as_outcome(co::with_group(options, patient));
        CHECK(text_of(later) == "grandchild");
        CHECK(noted == 1);
        CHECK(done == 1);
        CHECK(co::clock::now() - before == 5ms);
    });
}

TEST_CASE("children see that the parent was stopped or timed out, and the join says which, else neither",
          "[scope][with_group][G-014]") {
    struct child {
        static co::task<> watches(co::stop_kind& why, int& alive) {
            const co::context* const ctx = co_await co::this_task::context();
            const co::context apart = ctx->without_stop();
            const counted here(alive);
            co_await pause(10ms).with(apart);  // deaf, and looks afterwards
            why = ctx->reason().kind;
        }
    };
    simulate([]() -> co::task<> {
        co::stop_kind why{};
        int alive = 0;
        const auto body = [&](co::task_group& group) -> co::task<> {
            group.spawn(child::watches(why, alive));
            group.spawn(wait_here<void>(alive));
            co_return;
        };
        const auto timed_out = co_await co::as_outcome(co::with_timeout(5ms, co::with_group(body)));
        REQUIRE(timed_out.is_error());
        CHECK_THROWS_AS(std::rethrow_exception(timed_out.error()), co::timeout_error);
        CHECK(why == co::stop_kind::deadline);
        CHECK(alive == 0);

        co::inplace_stop_source source;
        const auto stop_it = [&]() -> co::task<> {
            co_await co::sleep_for(5ms);
            source.request_stop();
        };
        why = {};
        auto stoppable = co::as_outcome(co::with(co::with_group(body), co::stop_on(source.get_token())));
        auto both = co::when_all(std::move(stoppable), stop_it());
        const auto ended = co_await std::move(both);
        CHECK(std::get<0>(ended).is_stopped());
        CHECK(why == co::stop_kind::requested);
        CHECK(alive == 0);

        const auto quick = [&](co::task_group& group) -> co::task<> {
            group.spawn(child::watches(why, alive));
            co_return;
        };
        const auto fine = co_await co::as_outcome(co::with_timeout(1h, co::with_group(quick)));
        CHECK(fine.has_value());
        CHECK(why == co::stop_kind::none);
    });
}

TEST_CASE("the outcome of a group is the first that applies: an error, a stop from outside, the value",
          "[scope][with_group][G2][G3]") {
    // What happens at 1 ms, by child and body, while the stop from outside arrives at 1 ms as well or not at all.
    struct scene {
        bool child_fails, body_waits, child_waits, stop;
        const char* expected;
    };
    const scene scenes[] = {
        {false, false, false, false, "value"}, {false, false, false, true, "value"},
        {true, false, false, false, "child"},  {true, false, false, true, "child"},
        {true, true, true, false, "child"},    {true, true, true, true, "child"},
        {false, true, false, true, "stopped"}, {false, false, true, true, "stopped"},
    };
    for (const scene& s : scenes) {
        CAPTURE(s.child_fails, s.body_waits, s.child_waits, s.stop);
        simulate([&]() -> co::task<> {
            co::inplace_stop_source outside;
            const auto deaf_child = [&]() -> co::task<> {
                const co::context* const ctx = co_await co::this_task::context();
                const co::context apart = ctx->without_stop();
                co_await pause(1ms).with(apart);
                if (s.child_fails) throw std::runtime_error("child");
            };
            const auto body = [&](co::task_group& group) -> co::task<int> {
                group.spawn(deaf_child);
                if (s.child_waits) group.spawn(pause(1h));
                if (s.body_waits) co_await co::sleep_for(1h);
                co_return 5;
            };
            const auto stop_it = [&]() -> co::task<> {
                co_await co::sleep_for(500us);
                if (s.stop) outside.request_stop();
            };
            auto grouped = co::as_outcome(co::with(co::with_group(body), co::stop_on(outside.get_token())));
            auto both = co::when_all(std::move(grouped), stop_it());
            auto ended = co_await std::move(both);
            CHECK(text_of(std::get<0>(ended)) == s.expected);
        });
    }
}

TEST_CASE("a stop that the body itself asks for is no failure", "[scope][with_group]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulate(
            []() -> co::task<> {
                int alive = 0;
                const int n = co_await co::with_group([&](co::task_group& group) -> co::task<int> {
                    for (int i = 0; i < 3; ++i) group.spawn(wait_here<void>(alive));
                    co_await co::sleep_for(1ms);
                    group.request_stop();
                    CHECK_FALSE(group.spawn(pause(1ms)));
                    co_return 6;
                });
                CHECK(n == 6);
                CHECK(alive == 0);
                bool went_on = false;
                co_await co::with_group([&](co::task_group& group) -> co::task<> {
                    group.spawn(wait_here<void>(alive));
                    group.request_stop();
                    co_await co::sleep_for(1h);  // ends here, since the body runs under the group's stop
                    went_on = true;
                });
                CHECK_FALSE(went_on);
                // and by a child
                const auto asks = [](co::task_group& group) -> co::task<> {
                    co_await co::sleep_for(1ms);
                    group.request_stop();
                };
                co_await co::with_group([&](co::task_group& group) -> co::task<> {
                    group.spawn(wait_here<void>(alive));
                    group.spawn(asks(group));
                    co_await group.join();
                });
                CHECK(alive == 0);
            },
            seed);
    }
}

TEST_CASE("a body that wanted to return a value and was stopped from inside has none: it ends stopped",
          "[scope][with_group]") {
    simulate([]() -> co::task<> {
        const auto body = [](co::task_group& group) -> co::task<int> {
            group.request_stop();
            co_await co::sleep_for(1h);
            co_return 1;
        };
        const auto ended = co_await co::as_outcome(co::with_group(body));
        CHECK(ended.is_stopped());
    });
}

TEST_CASE("a child's error is recorded, then its future completes, then the group is stopped",
          "[scope][with_group][G2]") {
    // In every schedule: who is called by the stop finds the future complete and the error kept, and the body, which
    // awaits the future, gets the error and not the stop.
    const auto make = []() -> co::task<bool> {
        bool ready = false, got_error = false, kept = false;
        const auto body = [&](co::task_group& group) -> co::task<> {
            auto result = group.spawn_future(fail_after(1ms, "the future's"));
            group.spawn(pause(1ms));
            const auto look = [&]() noexcept {
                ready = result.ready();
                kept = group.error_count() == 1;
            };
            const co::inplace_stop_callback at_stop(group.ctx().stop_token(), look);
            const auto ended = co_await co::as_outcome(result);
            got_error = text_of(ended) == "the future's";
        };
        const auto ended = co_await co::as_outcome(co::with_group(body));
        co_return ready && kept && got_error && text_of(ended) == "the future's";
    };
    const auto seen = co::testing::explore_all(10'000, make, [](bool held) { return held; });
    CHECK(seen.complete);
    CHECK_FALSE(seen.failing.has_value());
}

TEST_CASE("an error that the body has caught from a future is still the group's", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        bool caught = false;
        const auto body = [&](co::task_group& group) -> co::task<int> {
            auto result = group.spawn_future(fail_after(1ms, "known"));
            try {
                co_await result;
            } catch (const std::runtime_error&) {
                caught = true;
            }
            co_return 1;
        };
        const auto ended = co_await co::as_outcome(co::with_group(body));
        CHECK(caught);
        CHECK(text_of(ended) == "known");
    });
}

TEST_CASE("a with_group that keeps going runs all to their end, then throws the first error",
          "[scope][with_group][G-016][LK-06]") {
    simulate([]() -> co::task<> {
        int done = 0;
        std::size_t errors = 0;
        const auto body = [&](co::task_group& group) -> co::task<> {
            group.spawn(fail_after<void>(2ms, "second"));
            group.spawn(fail_after<void>(1ms, "first"));
            for (int i = 0; i < 5; ++i) group.spawn(add(done, 10ms));
            co_await group.join();
            errors = group.errors().size();
        };
        co::group_options options;
        options.errors = co::on_error::keep_going;
        const auto ended = co_await co::as_outcome(co::with_group(options, body));
        CHECK(text_of(ended) == "first");
        CHECK(done == 5);
        CHECK(errors == 2);
    });
}

TEST_CASE("a body that throws before it has given something to await is joined as well", "[scope][with_group][G1]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto not_a_coroutine = [&](co::task_group& group) -> co::task<> {
            group.spawn(wait_here<void>(alive));
            throw std::runtime_error("at once");
        };
        const auto ended = co_await co::as_outcome(co::with_group(not_a_coroutine));
        CHECK(text_of(ended) == "at once");
        CHECK(alive == 0);
    });
}

TEST_CASE("a temporary body is kept in the frame, a named one is referred to", "[scope][with_group]") {
    struct body {
        explicit body(int& c) : copies(&c) {}
        body(const body& other) : copies(other.copies) { ++*copies; }
        body(body&& other) noexcept : copies(other.copies) {}
        co::task<int> operator()(co::task_group& group) const {
            group.spawn(pause(1ms));
            return reply(calls);
        }
        static co::task<int> reply(int n) {
            co_await co::sleep_for(1ms);
            co_return n;
        }
        int* copies;
        int calls = 11;
    };
    simulate([]() -> co::task<> {
        int copies = 0;
        const body named(copies);
        const int a = co_await co::with_group(named);
        CHECK(a == 11);
        CHECK(copies == 0);
        const std::function<co::task<int>(co::task_group&)> erased = named;
        const int before = copies;
        const int b = co_await co::with_group(erased);
        CHECK(b == 11);
        CHECK(copies == before);
        int captured = 3;
        auto made = co::with_group([captured](co::task_group&) { return body::reply(captured); });
        captured = 4;
        const int c = co_await std::move(made);
        CHECK(c == 3);
    });
}

TEST_CASE("under a context that is stopped already nothing is started", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        co::inplace_stop_source source;
        source.request_stop();
        bool accepted = true, began = false;
        const auto body = [&](co::task_group& group) -> co::task<> {
            began = true;
            accepted = group.spawn(pause(1ms));
            co_await co::sleep_for(1ms);
        };
        const auto ended = co_await co::as_outcome(co::with(co::with_group(body), co::stop_on(source.get_token())));
        CHECK(ended.is_stopped());
        CHECK(began);
        CHECK_FALSE(accepted);
    });
}

TEST_CASE("groups in groups in groups end with the outermost stop", "[scope][with_group]") {
    struct nest {
        static co::task<> level(int depth, int& alive) {
            const counted here(alive);
            const auto body = [&](co::task_group& group) -> co::task<> {
                group.spawn(wait_here<void>(alive));
                if (depth > 0) group.spawn(level(depth - 1, alive));
                co_await co::sleep_for(1h);
            };
            co_await co::with_group(body);
        }
    };
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto ended = co_await co::as_outcome(co::with_timeout(1ms, nest::level(300, alive)));
        CHECK(ended.is_error());
        CHECK(alive == 0);
    });
}

TEST_CASE("the body has a record of its own below the group's", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        co_await co::with_group({.name = "import"}, [](co::task_group& group) -> co::task<> {
            group.spawn(pause(2ms), {.name = "child"});
            const auto watch = []() -> co::task<> {
                co_await co::sleep_for(1ms);
                const auto all = co::live_tasks();
                const auto named = [&](std::string_view name) {
                    return std::find_if(all.begin(), all.end(), [&](const auto& t) { return t.name == name; });
                };
                const auto parent = named("import"), body = named("body"), child = named("child");
                REQUIRE((parent != all.end() && body != all.end() && child != all.end()));
                CHECK(parent->is_group);
                CHECK(body->parent_id == parent->id);
                CHECK(child->parent_id == parent->id);
                CHECK(body->waits_for == "sleep");
            };
            group.spawn(watch);
            co_await co::sleep_for(5ms);
        });
    });
}

// --- for_each ----------------------------------------------------------------------------------------------------

namespace {

co::task<> work(int& running, int& peak, int& done) {
    peak = std::max(peak, ++running);
    co_await co::sleep_for(1ms);
    --running;
    ++done;
}

/// Counts from 0 to `end`; its elements are temporaries.
struct counting {
    explicit counting(int n) : last(n) {}
    struct iterator {
        int at;
        int operator*() const { return at; }
        iterator& operator++() {
            ++at;
            return *this;
        }
        bool operator!=(const iterator& other) const { return at != other.at; }
    };
    iterator begin() const { return {0}; }
    iterator end() const { return {last}; }
    int last;
};

}  // namespace

TEST_CASE("for_each runs over all elements, never more at a time than its bound", "[scope][for_each][G7]") {
    for (const std::size_t bound : {std::size_t{1}, std::size_t{3}, std::size_t{8}, co::group_options::unlimited}) {
        CAPTURE(bound);
        simulate([&]() -> co::task<> {
            std::vector<int> items(50);
            int running = 0, peak = 0, done = 0;
            const auto before = co::clock::now();
            const co::group_options options{.max_running = bound};
            co_await co::for_each(items, options, [&](int) { return work(running, peak, done); });
            CHECK(done == 50);
            CHECK(running == 0);
            CHECK(peak == static_cast<int>(std::min<std::size_t>(bound, 50)));
            CHECK(co::clock::now() - before == std::chrono::milliseconds((50 + peak - 1) / peak));
        });
    }
}

TEST_CASE("for_each makes the next task only when there is room for it", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::vector<int> items(20);
        int running = 0, peak = 0, done = 0, made = 0, most_ahead = 0;
        co_await co::for_each(items, {.max_running = 2}, [&](int) {
            ++made;
            most_ahead = std::max(most_ahead, made - done);
            return work(running, peak, done);
        });
        CHECK(made == 20);
        CHECK(most_ahead <= 3);
    });
}

TEST_CASE("for_each starts in the order of the range", "[scope][for_each]") {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        simulate(
            []() -> co::task<> {
                std::vector<int> items{0, 1, 2, 3, 4, 5, 6, 7};
                std::vector<int> order;
                co_await co::for_each(items, {.max_running = 1}, [&](int i) -> co::task<> {
                    order.push_back(i);
                    co_await co::sleep_for(1ms);
                });
                CHECK(order == items);
            },
            seed);
    }
}

TEST_CASE("for_each refers to the elements of a named range, and keeps a temporary range", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::vector<std::string> named{"a", "b", "c"};
        const auto append = [](std::string& s) -> co::task<> {
            co_await co::sleep_for(1ms);
            s += '!';
        };
        co_await co::for_each(named, {}, append);
        CHECK(named == std::vector<std::string>{"a!", "b!", "c!"});

        std::vector<std::string> seen;
        const auto note = [&](std::string& s) -> co::task<> {
            co_await co::sleep_for(1ms);
            seen.push_back(s);
        };
        auto made = co::for_each(std::vector<std::string>(named), {.max_running = 1}, note);
        named.clear();
        co_await std::move(made);
        CHECK(seen == std::vector<std::string>{"a!", "b!", "c!"});

        const std::vector<int> constant{1, 2, 3};
        int sum = 0;
        co_await co::for_each(constant, {}, [&](const int& i) -> co::task<> {
            co_await co::sleep_for(1ms);
            sum += i;
        });
        CHECK(sum == 6);
    });
}

TEST_CASE("for_each keeps elements that are temporaries in the frame of their task", "[scope][for_each]") {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        simulate(
            []() -> co::task<> {
                std::vector<int> seen;
                co_await co::for_each(counting(20), {}, [&](const int& i) -> co::task<> {
                    co_await co::sleep_for(1ms);
                    seen.push_back(i);
                });
                std::sort(seen.begin(), seen.end());
                std::vector<int> expected;
                for (int i = 0; i < 20; ++i) expected.push_back(i);
                CHECK(seen == expected);

                std::vector<bool> bits{true, false, true, true};
                int set = 0;
                co_await co::for_each(bits, {}, [&](bool bit) -> co::task<> {
                    co_await co::sleep_for(1ms);
                    set += bit ? 1 : 0;
                });
                CHECK(set == 3);
            },
            seed);
    }
}

TEST_CASE("for_each over nothing ends at once", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::vector<int> none;
        int calls = 0;
        const auto before = co::clock::now();
        co_await co::for_each(none, {.max_running = 2}, [&](int) {
            ++calls;
            return pause(1ms);
        });
        CHECK(calls == 0);
        CHECK(co::clock::now() == before);
    });
}

TEST_CASE("the first error of a for_each stops the others and is thrown, or waits for them", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::vector<int> items{5, 4, 3, 2, 1, 0, 0, 0};
        int alive = 0, done = 0;
        const auto fn = [&](int i) -> co::task<> {
            const counted here(alive);
            co_await co::sleep_for(std::chrono::milliseconds(i));
            if (i == 3) throw std::runtime_error("three");
            ++done;
        };
        const auto ended = co_await co::as_outcome(co::for_each(items, {.max_running = 4}, fn));
        CHECK(text_of(ended) == "three");
        CHECK(alive == 0);
        CHECK(done < 6);

        done = 0;
        co::group_options options;
        options.errors = co::on_error::keep_going;
        const auto later = co_await co::as_outcome(co::for_each(items, options, fn));
        CHECK(text_of(later) == "three");
        CHECK(done == 7);

        const auto throws_at_once = [&](int i) -> co::task<> {
            if (i == 4) throw std::runtime_error("four");
            return wait_here<void>(alive);
        };
        const auto early = co_await co::as_outcome(co::for_each(items, {}, throws_at_once));
        CHECK(text_of(early) == "four");
        CHECK(alive == 0);
    });
}

TEST_CASE("a stop ends a for_each that waits for room, and what it has started", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::vector<int> items(10);
        int alive = 0, made = 0;
        const auto fn = [&](int) {
            ++made;
            return wait_here<void>(alive);
        };
        const co::group_options two{.max_running = 2};
        const auto ended = co_await co::as_outcome(co::with_timeout(5ms, co::for_each(items, two, fn)));
        CHECK(ended.is_error());
        CHECK(alive == 0);
        CHECK(made == 2);
    });
}

TEST_CASE("for_each with room for nobody is refused and not waited for", "[scope][for_each]") {
    std::vector<int> items(3);
    const auto fn = [](int) -> co::task<> { co_return; };
    std::string what;
    try {
        (void)co::for_each(items, {.name = "none", .max_running = 0}, fn);
    } catch (const std::invalid_argument& e) {
        what = e.what();
    }
    CHECK(what == "for_each: max_running is 0, allowed are 1 and more");
}

TEST_CASE("for_each is found without its namespace, whatever the range is made of", "[scope][for_each]") {
    using namespace cordon;
    simulate([]() -> task<> {
        std::vector<std::string> items{"a", "b"};
        std::string all;
        const auto fn = [&](const std::string& s) -> task<> {
            all += s;
            co_return;
        };
        co_await for_each(items, {.max_running = 1}, fn);  // gcc12-ok: trivially copyable
        CHECK(all == "ab");
    });
}

TEST_CASE("a body that stops itself stops its children too", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        int alive = 0;
        const auto before = co::clock::now();
        auto body = [&](co::task_group& group) -> co::task<int> {
            group.spawn(wait_here<void>(alive));
            co_await co::sleep_for(1ms);
            co_await co::this_task::stop();
            co_return 1;
        };
        const auto ended = co_await co::as_outcome(co::with_group(body));
        CHECK(ended.is_stopped());
        CHECK(alive == 0);
        CHECK(co::clock::now() - before == 1ms);
    });
}

TEST_CASE("a group that was stopped from inside keeps its value, whatever stops it later", "[scope][with_group][G2]") {
    simulate([]() -> co::task<> {
        co::inplace_stop_source source;
        auto body = [](co::task_group& group) -> co::task<int> {
            auto cleans = []() -> co::task<> {
                auto waits = co::finally(pause(1h), [] { return pause(5ms); }, 1s);
                co_await std::move(waits);
            };
            group.spawn(cleans);
            co_await co::sleep_for(1ms);
            group.request_stop();
            co_return 42;
        };
        auto stoppable = co::as_outcome(co::with(co::with_group(body), co::stop_on(source.get_token())));
        auto both = co::when_all(std::move(stoppable), stop_at(3ms, source));
        const auto ended = co_await std::move(both);
        REQUIRE(std::get<0>(ended).has_value());
        CHECK(*std::get<0>(ended) == 42);
    });
}

TEST_CASE("a body that is ready is not waited for", "[scope][with_group]") {
    simulate([]() -> co::task<> {
        co::async_semaphore slots{1};
        auto takes = [&](co::task_group&) { return slots.acquire(); };
        co_await co::with_group(takes);
        CHECK(slots.stats().available == 0);
    });
}

TEST_CASE("for_each keeps what an iterator that goes once gives", "[scope][for_each]") {
    simulate([]() -> co::task<> {
        std::istringstream text("1 2 3");
        struct numbers {
            std::istringstream* from;
            std::istream_iterator<int> begin() const { return std::istream_iterator<int>(*from); }
            std::istream_iterator<int> end() const { return {}; }
        };
        std::vector<int> seen;
        const auto fn = [&](int i) -> co::task<> {
            seen.push_back(i);
            co_return;
        };
        const numbers all{&text};
        co_await co::for_each(all, {}, fn);
        std::sort(seen.begin(), seen.end());
        CHECK(seen == std::vector{1, 2, 3});
    });
}

TEST_CASE("for_each takes empty and huge ranges, changes elements, and can be used again", "[scope][for_each][G-026]") {
    simulate([]() -> co::task<> {
        int calls = 0;
        const auto fn = [&](int& i) -> co::task<> {
            co_await co::this_task::yield();
            ++i;
            ++calls;
        };
        std::vector<int> none;
        co_await co::for_each(none, {}, fn);
        CHECK(calls == 0);
        std::vector<int> three(3, 1);
        const co::group_options more_room_than_work{.max_running = 100};
        for (int round = 0; round < 2; ++round) co_await co::for_each(three, more_room_than_work, fn);
        CHECK(three == std::vector(3, 3));
        std::vector<int> many(10'000, 0);
        const co::group_options few{.max_running = 8};
        co_await co::for_each(many, few, fn);
        CHECK(std::count(many.begin(), many.end(), 1) == 10'000);
        const auto fails = [&](int& i) -> co::task<> {
            if (&i == &many[5000]) throw std::runtime_error("5000");
            co_return;
        };
        const auto ended = co_await co::as_outcome(co::for_each(many, few, fails));
        CHECK(text_of(ended) == "5000");
    });
}
