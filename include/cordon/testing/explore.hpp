// SPDX-License-Identifier: MIT
#pragma once

// Looks for a schedule that breaks something: at random over seeds, or, for small tests, through all there are.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/testing/simulation.hpp>

#include <concepts>
#include <cstdint>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Whether one run holds: `check(value)` is true, or, without a value, the run did not throw.
template <class Make, class Check>
bool schedule_holds(testing::simulation& sim, Make& make, Check& check) {
    try {
        if constexpr (std::is_void_v<await_result_t<std::invoke_result_t<Make&>>>) {
            sim.run(make());
            return check();
        } else {
            return check(sim.run(make()));
        }
    } catch (...) {
        return false;
    }
}

}  // namespace detail

namespace testing {

struct explore_options {
    std::uint64_t schedules = 1000;
    std::uint64_t first_seed = 1;
};

/// What an exhaustive search saw.
struct exploration {
    std::uint64_t schedules = 0;                   ///< that were run
    bool complete = false;                         ///< there are no others
    std::optional<std::vector<choice>> failing;    ///< the first that failed: give it to a `simulation`
};

/// Runs `make()` under one seed after the other until `check(value)` is false or the run throws, a deadlock included.
/// Without a value, `check` takes no argument.
/// Returns:       the seed that failed: `simulation{seed}.run(make())` does it again
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<std::uint64_t> explore(explore_options options, Make&& make, Check&& check) {
    for (std::uint64_t seed = options.first_seed; seed < options.first_seed + options.schedules; ++seed) {
        simulation sim(seed);
        if (!detail::schedule_holds(sim, make, check)) return seed;
    }
    return std::nullopt;
}

/// Runs every schedule of `make()`, up to `max_schedules`, until one fails.
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] exploration explore_all(std::uint64_t max_schedules, Make&& make, Check&& check) {
    exploration seen;
    std::vector<choice> next;
    while (seen.schedules < max_schedules) {
        simulation sim(next);
        ++seen.schedules;
        const bool held = detail::schedule_holds(sim, make, check);
        next = sim.trace();
        if (!held) {
            seen.failing = std::move(next);
            return seen;
        }
        // the next in lexical order: the last choice that has an alternative takes it, and what follows starts anew
        while (!next.empty() && next.back().taken + 1 >= next.back().of) next.pop_back();
        if (next.empty()) {
            seen.complete = true;
            return seen;
        }
        ++next.back().taken;
    }
    return seen;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
