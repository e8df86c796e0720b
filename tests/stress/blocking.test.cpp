// SPDX-License-Identifier: MIT
// Threads that wait: what they wait for comes at the same time as a stop, a deadline, or a task that waits as well.
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/run/call_blocking.hpp>
#include <cordon/run/run_blocking.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <random>
#include <stop_token>
#include <thread>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

/// A thread that waits, and what ends the wait on two others, a while later each.
template <class Wait, class One, class Other>
void race(stress::dice& d, Wait wait, One one, Other other) {
    const std::uint32_t first = d.below(4'000), second = d.below(4'000);
    std::thread a([&] {
        stress::dawdle(first);
        one();
    });
    std::thread b([&] {
        stress::dawdle(second);
        other();
    });
    wait();
    a.join();
    b.join();
}

/// A function that takes a while, unless it is told to stop: by asking a scope, or by its token.
class takes_a_while {
public:
    explicit takes_a_while(std::uint32_t how_long) : how_long_(how_long) {}

    int operator()(const co::blocking_scope& scope) {
        return work([&] { return scope.stop_requested(); });
    }
    /// The same for a token.
    auto by_token() {
        return [this](std::stop_token stop) { return work([&] { return stop.stop_requested(); }); };
    }
    int begun = 0, returned = 0, gave_up = 0;

private:
    template <class Stop>
    int work(Stop stop) {
        ++begun;
        for (std::uint32_t i = 0; i < how_long_; ++i) {
            if (stop()) {
                ++gave_up;
                throw co::canceled();
            }
            stress::dawdle(100);
        }
        return ++returned;
    }
    std::uint32_t how_long_;
};

/// How calls ended, and what does not fit.
struct endings {
    int values = 0, timeouts = 0, stopped = 0, others = 0, wrong = 0;

    template <class Policy>
    void call(const Policy& guarded, takes_a_while work, bool by_token, const co::blocking_scope& heeds,
              bool may_be_stopped) {
        const auto ended = by_token ? co::call_blocking(guarded, work.by_token(), heeds)
                                    : co::call_blocking(guarded, work, heeds);
        if (ended.has_value()) ++values;
        else if (ended.is_stopped()) ++stopped;
        else if (is_timeout(ended)) ++timeouts;
        else ++others;
        const bool once = work.begun <= 1 && work.begun == work.returned + work.gave_up;
        const bool told = ended.has_value() == (work.returned == 1);  // what it returns is not lost, nor made up
        wrong += once && told && (may_be_stopped || !ended.is_stopped()) ? 0 : 1;
    }

    endings& operator+=(const endings& more) {
        values += more.values;
        timeouts += more.timeouts;
        stopped += more.stopped;
        others += more.others;
        wrong += more.wrong;
        return *this;
    }

private:
    static bool is_timeout(const co::outcome<int>& ended) {
        if (!ended.is_error()) return false;
        try {
            std::rethrow_exception(ended.error());
        } catch (const co::timeout_error&) {
            return true;
        } catch (...) {
            return false;
        }
    }
};

}  // namespace

TEST_CASE("a stop against a release: the permit is either taken or still there", "[stress][core][blocking_scope]") {
    stress::dice d;
    int taken = 0, stopped = 0;
    for (int round = 0; round < 600; ++round) {
        co::async_semaphore semaphore(0);
        bool mine = false;
        if (round % 2 == 0) {
            std::stop_source source;
            race(d, [&] { mine = semaphore.acquire_blocking(source.get_token()).has_value(); },
                 [&] { semaphore.release(); }, [&] { source.request_stop(); });
        } else {
            co::cancel_scope scope;
            race(d, [&] { mine = semaphore.acquire_blocking(scope).has_value(); }, [&] { semaphore.release(); },
                 [&] { scope.request_stop(); });
        }
        REQUIRE(semaphore.stats().available == (mine ? 0u : 1u));
        REQUIRE(semaphore.stats().waiting == 0);
        ++(mine ? taken : stopped);
    }
    CHECK(taken + stopped == 600);
}

TEST_CASE("a deadline against a release: the permit is either taken or still there", "[stress][core][blocking_scope]") {
    stress::dice d;
    for (int round = 0; round < 600; ++round) {
        co::async_semaphore semaphore(0);
        bool mine = false;
        const auto until = co::deadline::after(std::chrono::microseconds(d.below(150)));
        race(d, [&] { mine = semaphore.acquire_blocking(until).has_value(); }, [&] { semaphore.release(); }, [] {});
        REQUIRE(semaphore.stats().available == (mine ? 0u : 1u));
        REQUIRE(semaphore.stats().waiting == 0);
    }
}

TEST_CASE("a stop against the result of a completion, which is either taken or still there",
          "[stress][core][blocking_scope]") {
    stress::dice d;
    for (int round = 0; round < 600; ++round) {
        co::completion<int> number;
        std::stop_source source;
        std::optional<int> got;
        race(d,
             [&] {
                 const co::outcome<int> ended = number.wait_blocking(source.get_token());
                 if (ended.has_value()) got = *ended;
             },
             [&] { number.set_value(round); }, [&] { source.request_stop(); });
        if (!got) got = number.wait_blocking().value();
        REQUIRE(got == round);
    }
}

TEST_CASE("who waited for an event or a last permit may destroy it while the waker returns",
          "[stress][core][blocking_scope]") {
    stress::dice d;
    for (int round = 0; round < 600; ++round) {
        auto event = std::make_unique<co::async_event>();
        auto semaphore = std::make_unique<co::async_semaphore>(0);
        const std::uint32_t wait = d.below(3'000);
        std::thread waker([e = event.get(), s = semaphore.get(), wait] {
            stress::dawdle(wait);
            e->set();
            s->release();
        });
        stress::dawdle(d.below(3'000));
        REQUIRE(event->wait_blocking().has_value());
        event.reset();
        REQUIRE(semaphore->acquire_blocking().has_value());
        semaphore.reset();
        waker.join();
    }
}

TEST_CASE("threads and tasks share a semaphore, and give up now and then: no permit is lost or made",
          "[stress][core][blocking_scope]") {
    const auto seed = static_cast<std::uint32_t>(stress::fresh_seed());
    constexpr std::size_t total = 3;
    co::async_semaphore semaphore(total);
    std::atomic<std::size_t> held{0};
    std::atomic<int> too_many{0}, taken{0};
    const auto use = [&](std::size_t n) {
        if (held.fetch_add(n) + n > total) too_many.fetch_add(1);
        taken.fetch_add(1);
        held.fetch_sub(n);
        semaphore.release(n);
    };
    const auto task = [&](std::uint32_t s) -> co::task<> {
        std::minstd_rand random(s);
        for (int i = 0; i < 300; ++i) {
            const std::size_t n = 1 + random() % total;
            const auto ended = co_await co::as_outcome(
                co::with_timeout(std::chrono::microseconds(random() % 300), semaphore.acquire(n)));
            if (ended.has_value()) use(n);
            co_await co::this_task::yield();
        }
    };
    co::thread_pool pool(2);
    co::task_group group(pool);
    for (std::uint32_t i = 0; i < 3; ++i) group.spawn(task(seed + i));
    std::vector<std::jthread> threads;
    for (std::uint32_t i = 3; i < 6; ++i)
        threads.emplace_back([&, s = seed + i](std::stop_token stop) {
            std::minstd_rand random(s);
            for (int k = 0; k < 300; ++k) {
                const std::size_t n = 1 + random() % total;
                const bool mine = random() % 2 == 0
                                      ? semaphore.acquire_blocking(stop, n).has_value()
                                      : semaphore
                                            .acquire_blocking(
                                                co::deadline::after(std::chrono::microseconds(random() % 300)), n)
                                            .has_value();
                if (mine) use(n);
            }
        });
    threads.back().request_stop();
    REQUIRE(group.join_blocking().has_value());
    threads.clear();
    CHECK(too_many == 0);
    CHECK(taken > 0);
    CHECK(semaphore.stats().available == total);
    CHECK(semaphore.stats().waiting == 0);
}

TEST_CASE("joins of threads against the last child, a stop, and the end of the group", "[stress][scope][task_group]") {
    stress::dice d;
    co::thread_pool pool(2);
    const auto child = [](std::uint32_t n) -> co::task<> {
        stress::dawdle(n);
        co_await co::this_task::yield();
    };
    for (int round = 0; round < 400; ++round) {
        std::optional<co::task_group> group(std::in_place, pool);
        const std::uint32_t children = d.below(4);
        for (std::uint32_t i = 0; i < children; ++i) group->spawn(child(d.below(3'000)));
        {
            std::jthread gives_up([&](std::stop_token stop) { (void)group->join_blocking(stop); });
            stress::dawdle(d.below(3'000));
        }  // asked to stop, and joined
        REQUIRE(group->join_blocking().has_value());
        group.reset();
    }
}

TEST_CASE("a timeout, a stop and the return of a call on a thread: it ends as one of them, and its place is back",
          "[stress][run][call_blocking]") {
    stress::dice d;
    co::thread_pool timers(1, {.name = "timers"});
    co::bulkhead slots{1, {.max_waiting = 8}};
    endings all;
    const int rounds = stress::rounds(1'200);
    for (int round = 0; round < rounds; ++round) {
        const auto guarded = co::pipeline(co::timeout(std::chrono::microseconds(1 + d.below(150))), slots);
        const takes_a_while mine(d.below(500)), other(d.below(500));
        const std::uint32_t until_stop = d.below(30'000);
        endings here, there;
        const auto both = [&](const co::blocking_scope& heeds, bool by_token, auto stop) {
            std::thread stops([&] {
                stress::dawdle(until_stop);
                stop();
            });
            std::thread calls([&] { there.call(guarded, other, false, {}, false); });  // they share the one place
            here.call(guarded, mine, by_token, heeds, true);
            stops.join();
            calls.join();
        };
        if (round % 3 == 0) {
            std::stop_source source;
            both(source.get_token(), false, [&] { source.request_stop(); });
        } else if (round % 3 == 1) {
            co::cancel_scope scope;
            both(scope, false, [&] { scope.request_stop(); });
        } else {
            co::cancel_scope scope{timers};
            both(scope, true, [&] { scope.request_stop(); });
        }
        all += here;
        all += there;
        REQUIRE(slots.stats().in_use == 0);
        REQUIRE(slots.stats().waiting == 0);
    }
    CHECK(all.values + all.timeouts + all.stopped == 2 * rounds);
    CHECK(all.others == 0);
    CHECK(all.wrong == 0);
}

TEST_CASE("run_blocking against stops: what has begun is waited for, what has not is never called",
          "[stress][run][run_blocking]") {
    stress::dice d;
    co::thread_pool pool(2, {.name = "blocking"}), tasks(1);
    std::atomic<int> inside{0};
    for (int round = 0; round < 200; ++round) {
        std::atomic<int> begun{0}, ended{0};
        const auto works = [&](std::stop_token stop) {
            const stress::counted here(inside);
            ++begun;
            for (int i = 0; i < 50 && !stop.stop_requested(); ++i) std::this_thread::yield();
            ++ended;
            return 1;
        };
        const auto child = [&]() -> co::task<> { (void)co_await co::run_blocking(pool, works); };
        co::task_group group(tasks);
        for (int i = 0; i < 6; ++i) group.spawn(child);
        stress::dawdle(d.below(60'000));
        group.request_stop();
        REQUIRE(group.join_blocking().has_value());
        REQUIRE(inside == 0);
        REQUIRE(begun == ended);
        CHECK(group.error_count() == 0);
    }
}
