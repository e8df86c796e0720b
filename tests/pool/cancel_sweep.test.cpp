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
#include <iterator>
#include <memory>
#include <optional>
#include <utility>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

struct combination {
    explicit combination(std::size_t bits) noexcept {
        for (bool* const b : {&two, &by_task, &own, &slow, &fails, &ages, &watched, &one_by_one, &changes, &parts}) {
            *b = bits % 2 != 0;
            bits /= 2;
        }
    }
    bool two;         ///< resources there may be, else one
    bool by_task;     ///< the check, which all have, waits
    bool own;         ///< the pool has an executor, and keeps one ready
    bool slow;        ///< creations wait
    bool fails;       ///< the first creation does
    bool ages;        ///< nothing lives or is idle for long
    bool watched;     ///< a lease is soon held for too long
    bool one_by_one;  ///< are creations
    bool changes;     ///< somebody tries, invalidates, retains, resizes and reaps
    bool parts;       ///< leases end by `take` and `discard`, else one has been said to be clean
};
constexpr std::size_t combinations = 1'024;

struct world {
    server s;
    std::optional<server::pool> pool;
    std::uint64_t asked = 0, borrowed = 0, taken = 0, reports = 0;
    std::uint64_t broken = 0;  ///< leases that were discarded, or stopped in the middle of something
    int at_large = 0;  ///< of those that were taken
    bool too_many = false;
};

/// The use of a lease, which a stop may end.
struct use_of_one {
    explicit use_of_one(std::uint64_t& n, bool is_clean) noexcept : broken(n), clean(is_clean) {}
    use_of_one(const use_of_one&) = delete;
    ~use_of_one() { broken += !clean; }
    std::uint64_t& broken;
    bool clean;
};

task<> user(world& w, const combination& c, bool first) {
    ++w.asked;
    auto mine = co_await co::as_outcome(w.pool->acquire());
    if (!mine.has_value()) co_return;
    ++w.borrowed;
    w.too_many = w.too_many || w.s.alive - w.at_large > (c.two ? 2 : 1);
    (*mine)->usable = !(*mine)->usable;  // every other use makes it unusable
    if (first && !c.parts) mine->mark_clean();
    use_of_one now(w.broken, first && !c.parts);
    co_await co::sleep_for(500us);
    now.clean = first || !c.parts;
    if (!c.parts) co_return;
    if (!first) co_return mine->discard();
    ++w.taken;
    ++w.at_large;
    const server::connection kept = mine->take();
    co_await co::this_task::yield();
    --w.at_large;
}
task<> changes(world& w, const combination& c) {
    co_await co::sleep_for(500us);
    w.pool->invalidate();
    w.pool->resize(0);
    co_await co::this_task::yield();
    w.pool->resize(c.two ? 2 : 1);
    co_await co::sleep_for(1ms);
    w.pool->retain([](server::connection& l) { return l.usable; });
    w.pool->reap();
    if (auto mine = w.pool->try_acquire()) {
        ++w.borrowed;
        mine->usable = true;
    }
}

co::resource_pool_options<server::connection> options(world& w, const combination& c) {
    co::resource_pool_options<server::connection> o{.trusted_for = 0s};
    const auto ping = [](server::connection& l) -> task<bool> {
        co_await co::this_task::yield();
        co_return l.usable;
    };
    if (c.by_task) o.usable = ping;
    else o.usable = [](server::connection& l) { return l.usable; };
    if (c.own) o.min_idle = 1;
    if (c.ages) o.max_lifetime = 900us;
    if (c.ages) o.max_idle_time = 500us;
    if (c.watched) o.held_too_long = 500us;
    if (c.one_by_one) o.max_creating = 1;
    o.on_held_too_long = [&w](const co::pool_holder&) { ++w.reports; };
    o.seed = 1;
    return o;
}

task<> scene(std::shared_ptr<world> w, combination c) {
    w->s.takes = c.slow ? 1ms : 0ms;
    w->s.fails = c.fails ? 1 : 0;
    auto o = options(*w, c);
    if (c.own) o.runs_on = co_await co::this_task::executor();
    w->pool.emplace(c.two ? 2 : 1, w->s.connect(), std::move(o));
    const auto users = [&](co::task_group& group) -> task<> {
        group.spawn(user(*w, c, true));
        group.spawn(user(*w, c, false));
        if (c.changes) group.spawn(changes(*w, c));
        co_await group.join();
    };
    const auto closes = [&] { return w->pool->close(); };
    auto work = co::with_group(users);
    co_await co::finally(std::move(work), closes, 1min);
}

/// What is true of a pool that is closed.
bool nothing_is_lost(const world& w, const combination& c) {
    if (!w.pool) return w.s.alive == 0;
    const auto f = w.pool->stats();
    const auto destroyed = f.closed_broken + f.closed_unusable + f.closed_old + f.closed_idle + f.closed_surplus;
    const bool empty = f.size == 0 && f.idle == 0 && f.in_use == 0 && f.creating == 0 && f.waiting == 0;
    // who makes one has waited, and makes another only after an invalidation
    const bool counted = f.gave_up <= f.waited && f.waited <= w.asked &&
                         (c.own || c.changes || static_cast<std::uint64_t>(w.s.tried) <= f.waited);
    // a check that was stopped breaks one, too
    const bool right = c.by_task ? f.closed_broken >= w.broken : f.closed_broken == w.broken;
    return empty && right && w.s.alive == 0 && !w.too_many && f.created == destroyed + w.taken &&
           f.acquired >= w.borrowed && counted && f.created == static_cast<std::uint64_t>(w.s.made) &&
           f.created + f.creations_failed >= static_cast<std::uint64_t>(w.s.tried);
}

/// What the runs of a sweep have seen in all.
struct total {
    void add(const world& w) {
        if (!w.pool) return;
        const auto f = w.pool->stats();
        const std::uint64_t of_one[] = {f.closed_broken,    f.closed_unusable, f.closed_old,
                                        f.closed_idle,      f.closed_surplus,  f.gave_up,
                                        f.creations_failed, w.taken,           w.reports};
        for (std::size_t i = 0; i < std::size(seen); ++i) seen[i] += of_one[i];
    }
    std::size_t combinations = 0;
    std::uint64_t points = 0;
    std::uint64_t seen[9] = {};
};
void sweep(std::size_t bits, total& all) {
    const combination c(bits);
    std::shared_ptr<world> w;
    const auto make = [&] {
        w = std::make_shared<world>();
        return scene(w, c);
    };
    const auto check = [&](const co::outcome<void>&, co::testing::sweep_point) {
        all.add(*w);
        return nothing_is_lost(*w, c);
    };
    const auto swept = co::testing::cancel_sweep({.fail_awaits = true}, make, check);
    if (!swept.findings.empty()) {
        INFO("combination " << bits << ": " << describe(swept));
        CHECK(swept.findings.empty());
    }
    ++all.combinations;
    all.points += swept.points;
}

}  // namespace

TEST_CASE("a pool survives a stop and a deadline at every point, in 1,024 combinations of what it is told",
          "[pool][resource_pool][cancel_sweep][T7]") {
    total all;
    for (std::size_t bits = 0; bits < combinations; ++bits) sweep(bits, all);
    CHECK(all.combinations == 1'024);
    CHECK(all.points > 20'000);
    for (const std::uint64_t often : all.seen) CHECK(often > 100);  // each way to go, and each that is told
}
