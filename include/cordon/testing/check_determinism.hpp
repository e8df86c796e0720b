// SPDX-License-Identifier: MIT
#pragma once

// Finds what a simulation cannot repeat, since it comes from elsewhere: the real clock, a random device, the order of
// addresses, what an earlier run has left behind.

#include <cordon/core/detail/config.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <optional>
#include <source_location>
#include <string>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// Runs `make()` twice under the same schedule, each time called inside a new simulation, and compares the steps: when
/// each came, what was chosen among how many, and which tasks went on, from where.
/// Returns:       the first that differs, as it was in both runs, a line each; nothing if none does. How the runs end,
///                also if they throw, is not compared
/// Requires:      no other thread starts tasks meanwhile
/// Cost:          a look at all records of tasks in each step, and memory for each: of longer runs the first 100,000
///                steps. Without records only times and choices are compared
template <class Make>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<std::string> check_determinism(
    Make&& make, const schedule& follows = {}, std::source_location where = std::source_location::current()) {
    const auto steps_of_a_run = [&] {
        simulation sim(follows);
        detail::run_log log(sim);
        const auto call = [&make] { return make(); };
        (void)detail::what_escapes([&] { (void)sim.run(call, where); });
        return log.take();
    };
    const std::vector<detail::logged_step> first = steps_of_a_run(), second = steps_of_a_run();
    const auto [a, b] = std::mismatch(first.begin(), first.end(), second.begin(), second.end());
    if (a == first.end() && b == second.end()) return std::nullopt;
    return "once:\n" + (a != first.end() ? detail::describe(*a, true) : "  nothing more\n") + "and again:\n" +
           (b != second.end() ? detail::describe(*b, true) : "  nothing more\n");
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
