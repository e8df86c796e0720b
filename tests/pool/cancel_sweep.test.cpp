// SPDX-License-Identifier: MIT
// Every operation of a pool, stopped before each of its steps and by a deadline at each of its times, in all
// combinations of what a pool can be told: whatever happens, nothing is lent or lost after its close.
#include <cordon/pool/resource_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "connections.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

enum class checks { none, at_once, by_task };
struct combination {
    std::size_t limit = 1;
    checks checked = checks::none;
    bool own_executor = false;
    std::chrono::milliseconds takes{0};
    int fails = 0;
    bool discards = false;
};

struct world {
    server s;
    std::optional<server::pool> pool;
    bool too_many = false;
};

task<> user(world& w, bool discards) {
    auto mine = co_await co::as_outcome(w.pool->acquire());
    if (!mine.has_value()) co_return;
    w.too_many = w.too_many || w.s.alive > static_cast<int>(w.pool->stats().limit);
    (*mine)->usable = !(*mine)->usable;  // every other use makes it unusable
    co_await co::sleep_for(1ms);
    if (discards) mine->discard();
}

task<> scene(std::shared_ptr<world> w, combination c) {
    w->s.takes = c.takes;
    w->s.fails = c.fails;
    co::resource_pool_options<server::connection> options{.trusted_for = 0s};
    if (c.checked == checks::at_once) options.usable = [](server::connection& l) { return l.usable; };
    const auto ping = [](server::connection& l) -> task<bool> {
        co_await co::sleep_for(1ms);
        co_return l.usable;
    };
    if (c.checked == checks::by_task) options.usable = ping;
    if (c.own_executor) options.runs_on = co_await co::this_task::executor();
    w->pool.emplace(c.limit, w->s.connect(), std::move(options));
    const auto users = [&](co::task_group& group) -> task<> {
        for (int i = 0; i < 3; ++i) group.spawn(user(*w, c.discards && i == 1));
        co_await group.join();
    };
    const auto closes = [&] { return w->pool->close(); };
    auto work = co::with_group(users);
    co_await co::finally(std::move(work), closes, 1min);
}

}  // namespace

TEST_CASE("a pool survives a stop and a deadline at every point of every operation", "[pool][resource_pool]") {
    std::uint64_t points = 0;
    for (std::size_t limit : {1u, 2u})
        for (checks checked : {checks::none, checks::at_once, checks::by_task})
            for (bool own : {false, true})
                for (auto takes : {0ms, 1ms})
                    for (int fails : {0, 1})
                        for (bool discards : {false, true}) {
                            const combination c{limit, checked, own, takes, fails, discards};
                            auto w = std::make_shared<world>();
                            const auto make = [&] {
                                w = std::make_shared<world>();
                                return scene(w, c);
                            };
                            const auto check = [&](const co::outcome<void>&, co::testing::sweep_point) {
                                if (!w->pool) return w->s.alive == 0;
                                const auto f = w->pool->stats();
                                const bool clean = f.size == 0 && f.idle == 0 && f.in_use == 0 && f.creating == 0 &&
                                                   f.waiting == 0 && w->s.alive == 0 && !w->too_many;
                                const auto destroyed = f.closed_broken + f.closed_unusable + f.closed_old +
                                                       f.closed_idle + f.closed_surplus;
                                return clean && f.created == destroyed;
                            };
                            const auto swept = co::testing::cancel_sweep({}, make, check);
                            INFO(describe(swept));
                            CHECK(swept.findings.empty());
                            points += swept.points;
                        }
    CHECK(points > 1'024);
}
