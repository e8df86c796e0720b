// SPDX-License-Identifier: MIT
#include <cordon/testing/cancel_sweep.hpp>

#include <cordon/core/awaitable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_mutex.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/channel.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::cancel_sweep;
using co::testing::simulation;
using co::testing::sweep_finding;
using co::testing::sweep_point;
using co::testing::sweep_result;
using co::testing::sweep_variant;

/// What the swept tasks have in common. Made anew for each run; shared, since a run may leave tasks behind.
struct world {
    explicit world(std::size_t permits) : semaphore(permits, {.name = "permits"}) {}
    co::async_semaphore semaphore;
    co::async_event event{{.name = "event"}};
    co::completion<int> answer;
    int open = 0;    // connections, say
    int closed = 0;
    int sum = 0;
};
using shared = std::shared_ptr<world>;

class permit {
public:
    explicit permit(co::async_semaphore& s) noexcept : semaphore_(s) {}
    permit(const permit&) = delete;
    ~permit() { semaphore_.release(); }

private:
    co::async_semaphore& semaphore_;
};

/// Sweeps `make(world)` over a few schedules; `holds(world)` must be true after each run. The invariant of all: the
/// permits are back, nobody waits, and what was opened is closed.
template <class Make, class Holds>
void expect_clean(std::size_t permits, Make make, Holds holds) {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        shared w;
        const auto make_task = [&] {
            w = std::make_shared<world>(permits);
            return make(w);
        };
        const auto check = [&](const auto&, const sweep_point&) {
            return w->semaphore.stats().available == permits && w->semaphore.stats().waiting == 0 &&
                   w->event.waiting() == 0 && w->open == 0 && holds(*w);
        };
        const sweep_result swept = cancel_sweep({.seed = seed, .fail_awaits = true}, make_task, check);
        INFO("seed " << seed << ": " << describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 0);
    }
}
template <class Make>
void expect_clean(std::size_t permits, Make make) {
    expect_clean(permits, make, [](const world&) { return true; });
}

task<> work(shared w, co::clock::duration d) {
    co_await w->semaphore.acquire();
    const permit held(w->semaphore);
    co_await co::sleep_for(d);
    ++w->sum;
}
task<> set_event_after(shared w, co::clock::duration d) {
    co_await co::sleep_for(d);
    w->event.set();
}
task<> wait_for_event(shared w) { co_await w->event.wait(); }

}  // namespace

TEST_CASE("a check sees the time at which its run ended", "[testing][cancel_sweep]") {
    using maybe = std::optional<co::clock::time_point>;
    maybe ended;
    const auto make = [&] {
        ended.reset();
        return [](maybe& end) -> task<> {
            struct at_end {
                explicit at_end(maybe& t) noexcept : end(t) {}
                ~at_end() { end = co::clock::now(); }
                maybe& end;
            } const notes(end);
            co_await co::sleep_for(1s);
            co_await co::sleep_for(1s);
        }(ended);
    };
    std::size_t checked = 0;
    const auto check = [&](const auto&, const sweep_point&) {
        if (!ended) return true;  // it never began
        ++checked;
        const bool same = co::clock::now() == ended;
        co::testing::simulation other(0, {.start = co::clock::time_point(5h)});
        other.run([]() -> task<> { co_await co::sleep_for(1h); });
        return same && co::clock::now() == ended;
    };
    const sweep_result swept = cancel_sweep({}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(checked > 5);
    const auto now = std::chrono::steady_clock::now();
    CHECK(co::clock::now() >= now);  // afterwards it is the machine's again
}

TEST_CASE("a sweep stops before each step and at each time", "[testing][cancel_sweep][T7]") {
    std::vector<sweep_point> seen;
    const auto make = [] { return co::sleep_for(2s); };
    const auto check = [&](const co::outcome<void>& ended, const sweep_point& at) {
        seen.push_back(at);
        switch (at.variant) {
            case sweep_variant::baseline: return ended.has_value();
            case sweep_variant::stop: return ended.is_stopped() == (at.number < 3);  // then the value is there
            case sweep_variant::deadline: break;
            case sweep_variant::allocation:
            case sweep_variant::error: return false;
        }
        return ended.is_error();  // at the end, too: the deadline was armed before the sleep
    };
    const sweep_result swept = cancel_sweep({}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(swept.points == 6);  // begin, jump, wake; at once, in the middle, at the end
    REQUIRE(seen.size() == 7);
    for (std::uint64_t k = 1; k <= 3; ++k) {
        CHECK(seen[k].variant == sweep_variant::stop);
        CHECK(seen[k].number == k);
        CHECK(seen[k].at == (k < 3 ? 0s : 2s));
        CHECK(seen[k + 3].variant == sweep_variant::deadline);
        CHECK(seen[k + 3].number == k);
        CHECK(seen[k + 3].at == (k - 1) * 1s);
    }
    CHECK(describe(swept) == "6 points swept, 0 findings\n");
}

TEST_CASE("the check sees a value, an error or a stop", "[testing][cancel_sweep][T7]") {
    const auto make = []() -> task<int> {
        co_await co::sleep_for(1s);
        co_return 7;
    };
    int values = 0, timeouts = 0, stops = 0;
    const auto count = [&](co::outcome<int>& ended, sweep_point) {
        if (ended.has_value()) values += *ended == 7 ? 1 : 100;
        else if (ended.is_error()) ++timeouts;
        else if (ended.is_stopped()) ++stops;
    };
    CHECK(cancel_sweep({}, make, count).findings.empty());
    CHECK(values > 0);
    CHECK(timeouts > 0);
    CHECK(stops > 0);
    CHECK(values < 100);
}

TEST_CASE("a value that is there when the stop comes, just before its task goes on, is not lost",
          "[testing][cancel_sweep][sync][async_semaphore][T7]") {
    // The points are before each step, so this one is among them: the variant that has no name of its own.
    struct seen {
        co::async_semaphore permits{0};
        std::uint64_t handed_over = 0, went_on = 0;  // by which step
    };
    std::shared_ptr<seen> now;
    const auto make = [&] {
        now = std::make_shared<seen>();
        const auto waits = [](std::shared_ptr<seen> s) -> task<> {
            co_await s->permits.acquire();
            s->went_on = co::testing::simulation::current()->steps();
            s->permits.release();
        };
        const auto gives = [](std::shared_ptr<seen> s) -> task<> {
            co_await co::sleep_for(1ms);
            s->permits.release();
            s->handed_over = co::testing::simulation::current()->steps();
        };
        return co::when_all(waits(now), gives(now));
    };
    int between = 0;
    const auto check = [&](const auto&, const sweep_point& at) {
        if (at.variant == sweep_variant::stop && now->handed_over != 0 && at.number > now->handed_over) {
            if (at.number > now->went_on && now->went_on != 0) return now->permits.stats().available == 1;
            ++between;
            return now->went_on != 0 && now->permits.stats().available == 1;
        }
        return now->handed_over == 0 || now->permits.stats().available == 1;
    };
    const sweep_result swept = cancel_sweep({}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(between == 1);
}

TEST_CASE("each await that has to wait throws once, in its task, which may catch it", "[testing][cancel_sweep][T7]") {
    const auto step = [](int& steps) -> task<> {
        co_await co::sleep_for(1ms);
        ++steps;
    };
    const auto make = [&]() -> task<int> {
        co::async_semaphore free{1}, taken{0};
        co::async_mutex mutex;
        co::async_event event;
        co::channel<int> channel{1};
        co::completion<int> answer;
        int steps = 0;
        co_await free.acquire();       // has it at once
        co_await co::this_task::yield();
        co_await step(steps);          // 1
        for (int i = 0; i < 2; ++i) {  // 2, and if that throws once more
            try {
                co_await co::sleep_for(1ms);
                break;
            } catch (const co::testing::injected_error&) {
                ++steps;
            }
        }
        const auto opens = [&]() -> task<> {
            co_await simulation::settle();
            taken.release();
            co_await simulation::settle();
            event.set();
            co_await simulation::settle();
            (void)channel.try_send(1);
            co_await simulation::settle();
            answer.set_value(1);
        };
        const auto waits = [&]() -> task<> {
            co_await taken.acquire();                               // 3
            co_await event.wait();                                  // 4
            (void)co_await channel.receive();                       // 5
            steps += co_await answer.wait([&] { answer.set_stopped(); });  // 6
        };
        const auto mine = co_await mutex.lock();
        co_await co::when_all(waits(), opens());
        co_return steps;
    };
    std::vector<std::uint64_t> thrown, caught;
    const auto check = [&](co::outcome<int>& ended, const sweep_point& at) {
        if (at.variant == sweep_variant::baseline) return ended.has_value() && *ended == 2;
        if (at.variant != sweep_variant::error) return true;
        if (ended.has_value()) {
            caught.push_back(at.number);
            return *ended == 3;
        }
        thrown.push_back(at.number);
        if (!ended.is_error()) return false;
        CHECK_THROWS_AS(ended.value(), co::testing::injected_error);
        return at.at == (at.number == 1 ? 0ms : 2ms);
    };
    const sweep_result swept = cancel_sweep({.fail_awaits = true}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(thrown == std::vector<std::uint64_t>{1, 3, 4, 5, 6});
    CHECK(caught == std::vector<std::uint64_t>{2});
    CHECK(cancel_sweep({}, make, [&](const auto&, const sweep_point& at) {
              return at.variant != sweep_variant::error;
          }).findings.empty());
}

TEST_CASE("every kind of wait throws if a sweep has it fail, and takes nothing then", "[testing][cancel_sweep][T7]") {
    const auto fails = [](auto make_wait) {
        int errors = 0, others = 0;
        const auto make = [&]() -> task<> {
            co_await simulation::settle();  // counts as nothing
            co_await make_wait();
        };
        const auto check = [&](const auto& ended, const sweep_point& at) {
            if (at.variant == sweep_variant::error) ++(ended.is_error() ? errors : others);
        };
        const sweep_result swept = cancel_sweep({.fail_awaits = true}, make, check);
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        return errors == 1 && others == 0;
    };
    const auto within = [](auto body) {  // what comes later ends the wait
        return [body]() -> task<> { co_await body(); };
    };
    SECTION("a place in a group") {
        CHECK(fails(within([]() -> task<> {
            const auto body = [](co::task_group& group) -> task<> {
                group.spawn(co::this_task::yield());
                (void)co_await group.spawn_when_ready(co::this_task::yield());
                co_await group.join();  // no error: it ends what was begun
            };
            co_await co::with_group({.max_running = 1}, body);
        })));
    }
    SECTION("a lock") {
        CHECK(fails(within([]() -> task<> {
            co::async_mutex mutex;
            const auto holds = [&]() -> task<> {
                const auto mine = co_await mutex.lock();
                co_await simulation::settle();
            };
            const auto waits = [&]() -> task<> {
                co_await co::this_task::yield();
                const auto mine = co_await mutex.lock();
            };
            co_await co::when_all(holds(), waits());
            CHECK_FALSE(mutex.stats().locked);
        })));
    }
    SECTION("a send") {
        CHECK(fails(within([]() -> task<> {
            co::channel<int> channel{1};
            const auto sends = [&]() -> task<> {
                co_await channel.send(1);
                try {
                    co_await channel.send(2);
                } catch (const co::testing::injected_error&) {
                    CHECK(channel.try_receive() == 1);
                    CHECK_FALSE(channel.try_receive());
                    throw;
                }
            };
            const auto receives = [&]() -> task<> {
                co_await simulation::settle();
                CHECK(channel.try_receive() == 1);
            };
            co_await co::when_all(sends(), receives());
        })));
    }
    SECTION("the outcome of a future") {
        CHECK(fails(within([]() -> task<> {
            const auto value = []() -> task<int> {
                co_await co::this_task::yield();
                co_return 1;
            };
            const auto body = [&](co::task_group& group) -> task<> {
                auto future = group.spawn_future(value());
                (void)co_await future;
            };
            co_await co::with_group(body);
        })));
    }
}

TEST_CASE("below a shield, and in a cleanup, no await is had fail", "[testing][cancel_sweep][scope][shield][T7]") {
    const auto nap = []() -> task<> { co_await co::sleep_for(1ms); };
    const auto make = [&]() -> task<> {
        co_await co::shield(nap(), 1s);
        co_await co::finally(co::this_task::yield(), nap, 1s);
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(nap());
            co_await co::sleep_for(1ms);
        };
        co_await co::shield(co::with_group(body), 1s);
    };
    std::uint64_t errors = 0;
    const auto check = [&](const auto&, const sweep_point& at) { errors += at.variant == sweep_variant::error ? 1 : 0; };
    const sweep_result swept = cancel_sweep({.fail_awaits = true}, make, check);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(errors == 0);
}

// --- correct code has no findings ---------------------------------------------------------------------------------

TEST_CASE("sleeping can be stopped at any point", "[testing][cancel_sweep][time][sleep][T7]") {
    expect_clean(0, [](shared) -> task<> {
        co_await co::sleep_for(1ns);
        co_await co::sleep_for(0s);
        co_await co::sleep_until(co::clock::now() + 1h);
    });
}

TEST_CASE("waiting for permits can be stopped at any point", "[testing][cancel_sweep][sync][async_semaphore][T7]") {
    expect_clean(2, [](shared w) { return co::when_all(work(w, 1ms), work(w, 2ms), work(w, 1ms), work(w, 3ms)); });
    SECTION("several at a time") {
        const auto takes = [](shared w, std::size_t n) -> task<> {
            co_await w->semaphore.acquire(n);
            co_await co::finally(co::sleep_for(1ms), [&]() -> task<> {
                w->semaphore.release(n);
                co_return;
            }, 1s);
        };
        expect_clean(3, [&](shared w) { return co::when_all(takes(w, 3), takes(w, 1), takes(w, 2), takes(w, 1)); });
    }
}

TEST_CASE("waiting for an event can be stopped at any point", "[testing][cancel_sweep][sync][async_event][T7]") {
    expect_clean(0, [](shared w) {
        return co::when_all(wait_for_event(w), wait_for_event(w), set_event_after(w, 1ms), wait_for_event(w));
    });
}

TEST_CASE("waiting for a completion can be stopped at any point", "[testing][cancel_sweep][sync][completion][T7]") {
    const auto answers = [](shared w) -> task<> {
        co_await co::sleep_for(1ms);
        w->answer.set_value(42);
    };
    SECTION("and the answer is kept") {
        const auto asks = [](shared w) -> task<> { w->sum = co_await w->answer.wait(); };
        expect_clean(0, [&](shared w) { return co::when_all(asks(w), answers(w)); },
                     [](world& w) { return w.sum == 0 || w.sum == 42; });
    }
    SECTION("and the library is asked to end") {
        struct connection {
            explicit connection(shared in) : w(std::move(in)) { ++w->open; }
            connection(const connection&) = delete;
            ~connection() { --w->open; }
            shared w;
        };
        const auto asks = [](shared w) -> task<> {
            const connection open(w);
            w->sum = co_await w->answer.wait([&w] { w->answer.set_stopped(); });
        };
        // whoever answers is not stopped by the same stop: it is what the library does
        const auto root = [&](shared w) -> task<> {
            co_await co::when_all(asks(w), co::shield(answers(w), 1s));
        };
        expect_clean(0, root);
    }
}

TEST_CASE("timeouts can be stopped at any point", "[testing][cancel_sweep][scope][with][T7]") {
    const auto root = [](shared w) -> task<> {
        auto first = co_await co::as_outcome(co::with_timeout(2ms, work(w, 1ms)));
        auto second = co_await co::as_outcome(co::with_timeout(1ms, work(w, 2ms)));
        auto tie = co_await co::as_outcome(co::with_timeout(1ms, work(w, 1ms)));
        auto nested = co_await co::as_outcome(co::with_timeout(3ms, co::with_timeout(1ms, work(w, 2ms))));
        (void)first, (void)second, (void)tie, (void)nested;
    };
    expect_clean(1, root);
}

TEST_CASE("groups can be stopped at any point", "[testing][cancel_sweep][scope][with_group][T7]") {
    SECTION("with children, futures and a body that waits") {
        const auto value = [](shared w) -> task<int> {
            co_await work(w, 1ms);
            co_return 5;
        };
        const auto root = [&](shared w) -> task<> {
            const auto body = [&](co::task_group& group) -> task<int> {
                for (int i = 0; i < 3; ++i) group.spawn(work(w, 1ms));
                auto future = group.spawn_future(value(w));
                const int got = co_await future;
                co_await group.join();
                co_return got;
            };
            w->sum += co_await co::with_group(body);
        };
        expect_clean(2, root);
    }
    SECTION("while a child fails") {
        const auto fails = []() -> task<> {
            co_await co::sleep_for(1ms);
            throw std::runtime_error("child");
        };
        const auto root = [&](shared w) -> task<> {
            const auto body = [&](co::task_group& group) -> task<> {
                group.spawn(fails());
                group.spawn(work(w, 5ms));
                co_await work(w, 5ms);
            };
            auto ended = co_await co::as_outcome(co::with_group(body));
            (void)ended;
        };
        expect_clean(1, root);
    }
    SECTION("in one another") {
        const auto root = [&](shared w) -> task<> {
            const auto inner = [&](co::task_group& group) -> task<> {
                group.spawn(work(w, 1ms));
                group.spawn(work(w, 2ms));
                co_return;
            };
            const auto outer = [&](co::task_group& group) -> task<> {
                group.spawn(co::with_group(inner));
                group.spawn(co::with_group(inner));
                co_return;
            };
            co_await co::with_group(outer);
        };
        expect_clean(2, root);
    }
}

TEST_CASE("when_all and when_any can be stopped at any point",
          "[testing][cancel_sweep][scope][when_all][when_any][T7]") {
    expect_clean(1, [](shared w) { return co::when_all(work(w, 1ms), co::sleep_for(1ms), work(w, 2ms)); });
    expect_clean(1, [](shared w) { return co::when_any(work(w, 1ms), co::sleep_for(1ms), work(w, 2ms)); });
    expect_clean(2, [](shared w) {
        return co::when_any(co::when_all(work(w, 1ms), work(w, 2ms)), co::when_any(work(w, 1ms), work(w, 3ms)));
    });
    SECTION("over a range") {
        const auto all = [](shared w) {
            std::vector<task<>> tasks;
            for (int i = 1; i <= 3; ++i) tasks.push_back(work(w, i * 1ms));
            return co::when_all(std::move(tasks));
        };
        const auto any = [](shared w) {
            std::vector<task<>> tasks;
            for (int i = 1; i <= 3; ++i) tasks.push_back(work(w, i * 1ms));
            return co::when_any(std::move(tasks));
        };
        expect_clean(2, all);
        expect_clean(2, any);
    }
}

TEST_CASE("for_each can be stopped at any point", "[testing][cancel_sweep][scope][for_each][T7]") {
    const auto root = [](shared w) -> task<> {
        const auto each = [&](int ms) { return work(w, ms * 1ms); };
        const std::vector<int> elements{3, 1, 2, 1};
        co_await co::for_each(elements, {.max_running = 2}, each);
    };
    expect_clean(3, root);
}

TEST_CASE("what is shielded is not stopped half-way", "[testing][cancel_sweep][scope][shield][T7]") {
    const auto transfer = [](shared w) -> task<> {
        ++w->sum;
        co_await co::sleep_for(1ms);
        --w->sum;
    };
    const auto root = [&](shared w) -> task<> {
        co_await co::sleep_for(1ms);
        co_await co::shield(transfer(w), 1s);
        co_await co::sleep_for(1ms);
    };
    expect_clean(0, root, [](world& w) { return w.sum == 0; });
}

TEST_CASE("what was opened is closed by finally, wherever the stop comes",
          "[testing][cancel_sweep][scope][finally][T7]") {
    const auto close = [](shared w) -> task<> {
        co_await co::sleep_for(1ms);
        --w->open;
        ++w->closed;
    };
    const auto root = [&](shared w) -> task<> {
        co_await co::sleep_for(1ms);
        ++w->open;
        const auto cleanup = [&] { return close(w); };
        co_await co::finally(work(w, 2ms), cleanup, 1s);
    };
    expect_clean(1, root);
}

TEST_CASE("waiting for room in a group, and for its join, can be stopped at any point",
          "[testing][cancel_sweep][scope][task_group][T7]") {
    SECTION("spawn_when_ready") {
        const auto root = [](shared w) -> task<> {
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 4; ++i) {
                    const bool started = co_await group.spawn_when_ready(work(w, 1ms));
                    if (!started) co_return;
                }
            };
            co_await co::with_group({.max_running = 1}, body);
        };
        expect_clean(2, root);
    }
    SECTION("several spawners at once") {
        const auto root = [](shared w) -> task<> {
            const auto body = [&](co::task_group& group) -> task<> {
                const auto spawner = [&]() -> task<> { (void)co_await group.spawn_when_ready(work(w, 1ms)); };
                co_await co::when_all(spawner(), spawner(), spawner());
            };
            co_await co::with_group({.max_running = 2}, body);
        };
        expect_clean(2, root);
    }
    SECTION("join, by its owner outside the stop") {
        const auto root = [](shared w) -> task<> {
            const co::executor_ref here = co_await co::this_task::executor();
            const auto make_group = [&]() -> task<> {
                co::task_group group(here);
                group.spawn(work(w, 2ms));
                const auto end = [&]() -> task<> {
                    group.request_stop();
                    co_await group.join();
                };
                co_await co::finally(group.join(), end, 1s);
            };
            co_await make_group();
        };
        expect_clean(1, root);
    }
}

// --- and buggy twins have some, which name the place ----------------------------------------------------------------

namespace {

/// Sweeps a twin. Its world outlives it, since what it leaves behind refers to it.
template <class Make>
sweep_result sweep_twin(Make make, co::testing::sweep_options options = {}) {
    static auto& worlds = *new std::vector<shared>;
    const auto make_task = [&] { return make(worlds.emplace_back(std::make_shared<world>(1))); };
    const auto check = [&](const auto&, const sweep_point&) { return worlds.back()->semaphore.stats().available == 1; };
    return cancel_sweep(options, make_task, check);
}

bool any_finding(const sweep_result& swept, sweep_variant variant, const std::string& what, const std::string& where) {
    for (const sweep_finding& f : swept.findings)
        if (f.variant == variant && says(f.what, what) && says(f.where, where)) return true;
    return false;
}
std::string line(unsigned n) { return "cancel_sweep.test.cpp:" + std::to_string(n); }

}  // namespace

TEST_CASE("a permit that is not given back when its holder is stopped is found, with the place",
          "[testing][cancel_sweep][T7]") {
    const unsigned wait_line = __LINE__ + 3;
    const auto forgets = [](shared w) -> task<> {
        co_await w->semaphore.acquire();
        co_await co::sleep_for(1ms);
        w->semaphore.release();
    };
    const sweep_result swept = sweep_twin(forgets);
    INFO(describe(swept));
    CHECK(any_finding(swept, sweep_variant::stop, "the check says false", line(wait_line)));
    CHECK(any_finding(swept, sweep_variant::deadline, "the check says false", line(wait_line)));
    CHECK_FALSE(any_finding(swept, sweep_variant::baseline, "", ""));
    CHECK(says(describe(swept), "stop before step 2 after 0 s", "who waited where then", "sleep"));
}

TEST_CASE("a permit that is lost because a stop came with it is found", "[testing][cancel_sweep][T7]") {
    const unsigned wait_line = __LINE__ + 2;
    const auto looks_away = [](shared w) -> task<> {
        co_await w->semaphore.acquire();
        const bool stopped = co_await co::this_task::stop_requested();
        if (stopped) co_return;  // it has the permit
        w->semaphore.release();
    };
    const auto root = [&](shared w) -> task<> { co_await co::when_all(work(w, 1ms), looks_away(w)); };
    bool found = false;
    for (std::uint64_t seed = 0; seed < 8 && !found; ++seed) {
        const sweep_result swept = sweep_twin(root, {.seed = seed});
        found = any_finding(swept, sweep_variant::stop, "the check says false", line(wait_line));
    }
    CHECK(found);
}

TEST_CASE("what is done only after an error is found, with the await that threw", "[testing][cancel_sweep][T7][leaks]") {
    struct connection {
        explicit connection(shared in) : w(std::move(in)) { ++w->open; }
        connection(const connection&) = delete;
        ~connection() {
            if (!gone) --w->open;
        }
        shared w;
        bool gone = false;
    };
    unsigned wait_line = 0;
    const auto believes_it_gone = [&](shared w) -> task<> {
        connection c(w);
        wait_line = __LINE__ + 2;
        try {
            co_await co::sleep_for(1ms);
        } catch (const std::exception&) {
            c.gone = true;
        }
    };
    shared w;
    const auto make = [&] { return believes_it_gone(w = std::make_shared<world>(0)); };
    const auto check = [&](const auto&, const sweep_point&) { return w->open == 0; };
    CHECK(cancel_sweep({}, make, check).findings.empty());
    const sweep_result swept = cancel_sweep({.fail_awaits = true}, make, check);
    INFO(describe(swept));
    REQUIRE(swept.findings.size() == 1);
    CHECK(any_finding(swept, sweep_variant::error, "the check says false", line(wait_line)));
    CHECK(says(describe(swept), "error of await 1 after 0 s: the check says false", "  thrown at cancel_sweep.test"));
}

TEST_CASE("a child that outlives the run is found, with the place of its start", "[testing][cancel_sweep][T7][leaks]") {
    const auto child = []() -> task<> { co_await co::sleep_for(1h); };
    unsigned start_line = 0;
    const auto leaks = [&](shared) -> task<> {
        const co::executor_ref here = co_await co::this_task::executor();
        co_await co::sleep_for(1ms);
        start_line = __LINE__ + 1;
        co::start_on(here, child, {.name = "orphan"});
    };
    SECTION("already in the baseline") {
        const sweep_result swept = sweep_twin(leaks);
        INFO(describe(swept));
        CHECK(any_finding(swept, sweep_variant::baseline, "leaves tasks behind", ""));
        CHECK(any_finding(swept, sweep_variant::baseline, "\"orphan\"", ""));
        CHECK(any_finding(swept, sweep_variant::baseline, line(start_line), ""));
        CHECK(any_finding(swept, sweep_variant::baseline, "leaves 1 timers armed", ""));
        CHECK(swept.points == 0);
    }
    SECTION("only if the one who waits for it is stopped") {
        const auto background = [](shared w) -> task<> {
            co_await co::sleep_for(2ms);
            w->event.set();
        };
        const unsigned wait_line = __LINE__ + 4;
        const auto waits = [&](shared w) -> task<> {
            const co::executor_ref here = co_await co::this_task::executor();
            co::start_on(here, background(w), {.name = "background"});
            co_await w->event.wait();
        };
        const sweep_result swept = sweep_twin(waits);
        INFO(describe(swept));
        CHECK(any_finding(swept, sweep_variant::stop, "\"background\"", line(wait_line)));
    }
}

namespace {

/// A coroutine of somebody else's, in which a stop is an exception.
class host_coroutine {
public:
    struct promise_type {
        host_coroutine get_return_object() {
            return host_coroutine(std::coroutine_handle<promise_type>::from_promise(*this));
        }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        struct at_end {
            bool await_ready() const noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
                return h.promise().awaiting ? h.promise().awaiting : std::noop_coroutine();
            }
            void await_resume() const noexcept {}
        };
        at_end final_suspend() const noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { std::terminate(); }
        std::coroutine_handle<> awaiting;
    };

    explicit host_coroutine(std::coroutine_handle<promise_type> h) noexcept : handle_(h) {}
    host_coroutine(host_coroutine&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    ~host_coroutine() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return handle_.done(); }
    void await_suspend(std::coroutine_handle<> h) noexcept { handle_.promise().awaiting = h; }
    void await_resume() const noexcept {}

private:
    std::coroutine_handle<promise_type> handle_;
};

}  // namespace

TEST_CASE("a catch that swallows the stop and goes on is found, with the place", "[testing][cancel_sweep][T7][leaks]") {
    // The event is set by another branch, which is stopped.
    const auto polls = [](const co::context& ctx, shared w) -> host_coroutine {
        while (!w->event.is_set()) {
            try {
                co_await co::sleep_for(1ms).with(ctx);
            } catch (...) {
            }
            co_await co::shield(co::sleep_for(1ms), 1h).with(ctx);
        }
    };
    const unsigned wait_line = __LINE__ + 3;
    const auto host = [&](shared w) -> task<> {
        const co::context* const ctx = co_await co::this_task::context();
        co_await polls(*ctx, w);
    };
    const auto root = [&](shared w) -> task<> { co_await co::when_all(host(w), set_event_after(w, 5ms)); };
    const sweep_result swept = sweep_twin(root, {.max_time = 5s, .max_findings = 3});
    INFO(describe(swept));
    REQUIRE(swept.findings.size() == 3);
    CHECK(any_finding(swept, sweep_variant::stop, "has not ended after", "sleep"));
    CHECK(any_finding(swept, sweep_variant::stop, line(wait_line), ""));
}

TEST_CASE("what a stop leaves waiting for ever, or busy for ever, is found", "[testing][cancel_sweep][T7][leaks]") {
    SECTION("waiting") {
        const auto asks = [](shared w) -> task<> { (void)co_await w->answer.wait([] {}); };  // asks nobody to end
        const auto answers = [](shared w) -> task<> {
            co_await co::sleep_for(1ms);
            w->answer.set_value(1);
        };
        const auto root = [&](shared w) -> task<> { co_await co::when_all(asks(w), answers(w)); };
        const sweep_result swept = sweep_twin(root, {.max_findings = 2});
        INFO(describe(swept));
        CHECK(swept.findings.size() == 2);
        CHECK(any_finding(swept, sweep_variant::stop, "never ends: nothing can wake", ""));
        CHECK(any_finding(swept, sweep_variant::stop, "completion", ""));
    }
    SECTION("busy") {
        const auto spins = [](shared w) -> task<> {
            while (!w->event.is_set()) co_await co::shield(co::this_task::yield(), 1h);
        };
        const auto sets = [](shared w) -> task<> {
            for (int i = 0; i < 3; ++i) co_await co::this_task::yield();
            w->event.set();
        };
        const auto root = [&](shared w) -> task<> { co_await co::when_all(spins(w), sets(w)); };
        const sweep_result swept = sweep_twin(root, {.max_steps = 1000, .max_findings = 1});
        INFO(describe(swept));
        CHECK(any_finding(swept, sweep_variant::stop, "has not ended after 10", "yield"));
    }
}

TEST_CASE("a timer that stays armed is found", "[testing][cancel_sweep][T7]") {
    struct alarm : co::timer {
        alarm() noexcept : timer([](co::timer&) noexcept {}) { when = co::clock::now() + 1h; }
    };
    std::vector<std::unique_ptr<alarm>> alarms;
    const auto arms = [&](shared) -> task<> {
        const co::executor_ref here = co_await co::this_task::executor();
        alarm& mine = *alarms.emplace_back(std::make_unique<alarm>());
        here.timers().arm(mine);
        co_await co::sleep_for(1ms);
        here.timers().cancel(mine);
    };
    const sweep_result swept = sweep_twin(arms);
    INFO(describe(swept));
    CHECK(any_finding(swept, sweep_variant::stop, "leaves 1 timers armed", "sleep"));
    static auto& kept = *new std::vector<std::unique_ptr<alarm>>;
    for (auto& a : alarms) kept.push_back(std::move(a));
}

TEST_CASE("an error that the baseline does not end with is a finding", "[testing][cancel_sweep][T7]") {
    const auto half_done = [](shared w) -> task<> {
        co_await co::shield(co::sleep_for(1ms), 1s);
        const bool stopped = co_await co::this_task::stop_requested();
        if (stopped) throw std::runtime_error("half done");
        w->sum = 1;
    };
    const sweep_result swept = sweep_twin(half_done);
    INFO(describe(swept));
    CHECK(any_finding(swept, sweep_variant::stop, "ended with the error: half done", "sleep"));
    CHECK(any_finding(swept, sweep_variant::deadline, "ended with the error: half done", ""));

    const auto always_fails = [](shared) -> task<> {
        co_await co::shield(co::sleep_for(1ms), 1s);
        throw std::runtime_error("half done");
    };
    CHECK(sweep_twin(always_fails).findings.empty());
    const auto refuses = [](shared) -> task<> {
        co_await co::shield(co::sleep_for(1ms), 1s);
        const bool stopped = co_await co::this_task::stop_requested();
        if (stopped) throw co::rejected(co::rejection(co::reject_reason::full, "pool"));
    };
    CHECK(any_finding(sweep_twin(refuses), sweep_variant::stop, "pool: rejected, full", ""));
}

TEST_CASE("a baseline that does not work is all that is found", "[testing][cancel_sweep][T7][leaks]") {
    const auto waits = [](shared w) -> task<> { co_await w->event.wait(); };
    const sweep_result stuck = sweep_twin(waits);
    REQUIRE(stuck.findings.size() == 1);
    CHECK(stuck.points == 0);
    CHECK(says(describe(stuck), "baseline: never ends", "event event"));

    const auto cannot = [](shared) -> task<> {
        throw std::runtime_error("no");
        co_return;
    };
    CHECK(sweep_twin(cannot).findings.empty());  // it ends with an error, as it always does
    const auto make = []() -> co::detail::sleep_operation { throw std::runtime_error("cannot be made"); };
    const sweep_result unmade = cancel_sweep({}, make);
    REQUIRE(unmade.findings.size() == 1);
    CHECK(says(describe(unmade), "could not be made: cannot be made"));

    const auto throws = [](const auto&, const sweep_point&) { throw std::runtime_error("3 permits"); };
    CHECK(says(describe(cancel_sweep({}, [] { return co::sleep_for(1s); }, throws)), "baseline: the check: 3 permits"));
}

TEST_CASE("a task that behaves differently from run to run is found", "[testing][cancel_sweep][T6][T7]") {
    int runs = 0;
    const auto drifts = [&](shared) -> task<> {
        const int ms = ++runs;
        co_await co::sleep_for(ms * 1ms);
        co_await co::sleep_for(1ms);
    };
    CHECK(any_finding(sweep_twin(drifts), sweep_variant::stop, "not deterministic", ""));
}

TEST_CASE("a check may run simulations, and a sweep inside a run is refused", "[testing][cancel_sweep]") {
    int checked = 0;
    const auto result = co::testing::cancel_sweep({}, [] { return co::sleep_for(1ms); },
                                                  [&](const co::outcome<void>&, const co::testing::sweep_point&) {
                                                      co::testing::simulation().run(co::sleep_for(1s));
                                                      ++checked;
                                                  });
    CHECK(result.findings.empty());
    CHECK(checked > 1);
    CHECK_THROWS_AS(co::testing::simulation().run([]() -> co::task<> {
        (void)co::testing::cancel_sweep({}, [] { return co::sleep_for(1ms); });
        co_return;
    }()), std::logic_error);
}
