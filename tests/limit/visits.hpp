// SPDX-License-Identifier: MIT
#pragma once

// Who comes to a limiter when, waits, and leaves it before its turn: made at random, then played in virtual time.

#include <cordon/core/clock.hpp>
#include <cordon/core/task.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace limit_test {

namespace co = cordon;

inline std::uint64_t fresh_seed(const char* of) {
    const std::uint64_t seed = std::random_device{}();
    std::printf("%s: seed %llu\n", of, static_cast<unsigned long long>(seed));
    return seed;
}

/// Times are nanoseconds from the beginning of the run.
struct visit {
    std::int64_t comes = 0;
    std::optional<std::int64_t> leaves;  ///< if it has not been served by then
    std::int64_t served = -1;            ///< as simulated
};

/// Has all of them come and leave; `one(limiter, visit, t0)` is what each does in between, from the time t0 on.
template <class Limiter, class Visit>
co::task<> come_and_go(Limiter& limiter, std::vector<Visit>& visits,
                       co::task<> (*one)(Limiter&, Visit&, std::int64_t t0)) {
    const std::int64_t t0 = co::clock::now().time_since_epoch().count();
    const auto body = [&](co::task_group& group) -> co::task<> {
        std::deque<co::cancel_scope> scopes;
        std::deque<co::task_group> groups;
        std::vector<std::pair<std::int64_t, std::size_t>> events;  // comes: 2 i, leaves: 2 i + 1
        for (std::size_t i = 0; i < visits.size(); ++i) {
            scopes.emplace_back(group.ctx());
            groups.emplace_back(scopes.back().ctx());
            events.emplace_back(visits[i].comes, 2 * i);
            if (visits[i].leaves) events.emplace_back(*visits[i].leaves, 2 * i + 1);
        }
        std::sort(events.begin(), events.end());
        for (const auto& [when, what] : events) {
            co_await co::sleep_until(co::clock::time_point(std::chrono::nanoseconds(t0 + when)));
            Visit& v = visits[what / 2];
            if (what % 2 == 0) groups[what / 2].spawn(one(limiter, v, t0));
            else if (v.served < 0) scopes[what / 2].request_stop();
            co_await co::testing::simulation::settle();
        }
        for (co::task_group& g : groups) co_await g.join();
    };
    co_await co::with_group(body);
    CHECK(limiter.stats().waiting == 0);
}

}  // namespace limit_test
