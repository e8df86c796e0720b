// SPDX-License-Identifier: MIT
// What becomes of a lease that dies where something ends badly, and where something else does.
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "connections.hpp"

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <stdexcept>
#include <thread>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::simulation;
using pool = server::pool;
using lease = pool::lease;

enum class end { value, error, refusal };

/// Uses what it was given, and ends midway unless it ends with a value.
task<> use_up(lease mine, end how) {
    mine->usable = true;
    co_await co::sleep_for(1ms);
    if (how == end::error) throw std::runtime_error("half way");
    if (how == end::refusal) throw co::rejected(co::rejection(co::reject_reason::full, "below"));
}

/// A child of a group that has the lease.
task<> in_a_group(lease& given, end how) {
    co_await co::with_group([&](co::task_group& group) -> task<> {
        group.spawn(use_up(std::move(given), how));
        co_await group.join();
    });
}
task<> captured_in_a_group(lease& given, end how) {
    co_await co::with_group([&](co::task_group& group) -> task<> {
        group.spawn([mine = std::move(given), how]() mutable -> task<> {
            mine->usable = true;
            co_await co::sleep_for(1ms);
            if (how != end::value) throw std::runtime_error("half way");
        });
        co_await group.join();
    });
}
task<> caught(lease& given, end how) {
    try {
        co_await use_up(std::move(given), how);
    } catch (const std::exception&) {
    }
}
task<> kept_in_an_outcome(lease& given, end how) {
    const auto ended = co_await co::as_outcome(use_up(std::move(given), how));
    CHECK(ended.has_value() == (how == end::value));
}
task<> one_of_all(lease& given, end how) { co_await co::when_all(use_up(std::move(given), how), co::sleep_for(2ms)); }
task<> one_of_any(lease& given, end how) { co_await co::when_any(use_up(std::move(given), how), co::sleep_for(2ms)); }
/// Ends, with nobody who looks at how, after another has won.
task<> late_in_a_race(lease& given, end how) {
    co_await co::when_any(co::shield(use_up(std::move(given), how), 1s), co::sleep_for(500us));
}

/// Does something in its destructor.
struct at_end {
    explicit at_end(std::function<void()> f) : does(std::move(f)) {}
    at_end(const at_end&) = delete;
    ~at_end() { does(); }
    const std::function<void()> does;
};
/// While an exception is on its way.
void amid_an_exception(std::function<void()> f) {
    try {
        const at_end now(std::move(f));
        throw std::runtime_error("on its way");
    } catch (const std::exception&) {
    }
}
/// While a frame dies that a stop has ended.
void amid_a_stop(std::function<void()> f) {
    const auto stops = [&]() -> task<> {
        const at_end now(f);
        co_await co::this_task::stop();
    };
    co::run_loop loop;
    co::start_on(loop, stops());
    while (loop.poll()) {
    }
}
void poll(co::run_loop& loop) {
    while (loop.poll()) {
    }
}
void make_one(pool& p) {
    co::run_loop loop;
    const auto borrows = [&]() -> task<> { const lease first = co_await p.acquire(); };
    co::start_on(loop, borrows());
    poll(loop);
}
task<> fails_at_once(lease mine, bool touches) {
    if (touches) mine->usable = true;
    throw std::runtime_error("half way");
    co_return;
}

}  // namespace

TEST_CASE("a lease that an exception ends, wherever its frame has it, takes its resource with it",
          "[pool][resource_pool]") {
    for (const auto way : {&in_a_group, &captured_in_a_group, &caught, &kept_in_an_outcome, &one_of_all, &one_of_any,
                           &late_in_a_race})
        for (const end how : {end::value, end::error, end::refusal}) {
            const auto root = [&]() -> task<> {
                server s;
                pool p{1, s.connect()};
                lease mine = co_await p.acquire();
                static_cast<void>(co_await co::as_outcome(way(mine, how)));
                CHECK(p.stats().closed_broken == (how == end::value ? 0 : 1));
                CHECK(of(p) == (how == end::value ? figures{1, 0, 1} : figures{0, 0, 0}));
            };
            simulation().run(root());
        }
}

TEST_CASE("a lease does not take for its own what ended badly below the loop that runs its task",
          "[pool][resource_pool]") {
    for (const auto amid : {&amid_an_exception, &amid_a_stop}) {
        server s;
        pool p{1, s.connect()};
        co::run_loop loop;
        std::optional<co::async_event> go;
        const auto job = [&](end how) -> task<> {
            lease mine = co_await p.acquire();
            mine->usable = true;
            co_await go->wait();
            if (how != end::value) throw std::runtime_error("half way");
        };
        // got inside, ends badly outside; and all of it inside
        std::uint64_t broken = 0;
        for (const bool goes_inside : {false, true}) {
            go.emplace();
            amid([&] {
                co::start_on(loop, job(end::error));
                poll(loop);
                if (goes_inside) go->set();
                poll(loop);
            });
            go->set();
            poll(loop);
            CHECK(p.stats().closed_broken == ++broken);
        }
        // got outside, ends well inside
        go.emplace();
        co::start_on(loop, job(end::value));
        poll(loop);
        amid([&] {
            go->set();
            poll(loop);
        });
        CHECK(p.stats().closed_broken == broken);
        CHECK(of(p) == figures{1, 0, 1});
    }
}

TEST_CASE("a lease that is used where something ends badly is given back if that use ends well",
          "[pool][resource_pool]") {
    for (const auto amid : {&amid_an_exception, &amid_a_stop}) {
        server s;
        pool p{1, s.connect()};
        make_one(p);
        amid([&] {
            const lease mine = p.try_acquire();
            mine->usable = true;
        });
        CHECK(of(p) == figures{1, 0, 1});
        // not if it does not, nor if another task goes on with it
        amid([&] {
            try {
                const lease mine = p.try_acquire();
                mine->usable = true;
                throw std::runtime_error("half way");
            } catch (const std::exception&) {
            }
        });
        CHECK(p.stats().closed_broken == 1);
        for (const bool touched : {false, true}) {
            make_one(p);
            co::run_loop loop;
            amid([&] {
                lease mine = p.try_acquire();
                if (touched) mine->usable = true;
                co::start_on(loop, fails_at_once(std::move(mine), !touched));
            });
            poll(loop);
            CHECK(p.stats().closed_broken == (touched ? 3 : 2));
        }
    }
}

TEST_CASE("a thread may wait for a lease where something ends badly", "[pool][resource_pool]") {
    server s;
    co::run_loop loop;
    std::thread runs([&] { loop.run(); });
    {
        pool p{1, s.connect(), {.runs_on = co::executor_ref(loop)}};
        amid_an_exception([&] {
            auto mine = p.acquire_blocking();
            (*mine)->usable = true;
        });
        CHECK(p.stats().closed_broken == 0);
        amid_an_exception([&] {
            try {
                lease mine = *p.acquire_blocking();
                mine->usable = true;
                throw std::runtime_error("half way");
            } catch (const std::exception&) {
            }
        });
        CHECK(p.stats().closed_broken == 1);
        co::sync_wait(p.close());
    }
    loop.stop();
    runs.join();
}
