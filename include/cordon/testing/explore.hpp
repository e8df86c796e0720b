// SPDX-License-Identifier: MIT
#pragma once

// Looks for a schedule that breaks something: at random over seeds, or, for small tests, through all there are. And
// makes one that was found short enough to be followed.
//
// What is found is printed as one line to copy, `CORDON_SIM=7/3:1`; with that variable in the environment a search runs
// that schedule and no other.

#include <cordon/core/detail/config.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/testing/simulation.hpp>

#include <concepts>
#include <cstdint>
#include <optional>
#include <source_location>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// No bound on how often another than the first of what is ready goes on.
inline constexpr std::uint32_t any_delays = 0xffffffff;

struct explore_options {
    std::uint64_t schedules = 1000;
    std::uint64_t first_seed = 1;
    /// How often another than the first of what is ready goes on in a schedule, at places that the seed chooses: most
    /// bugs need one or two, which are soon found in long runs where everything at random is not.
    std::uint32_t most_delays = any_delays;
    /// Instead of that: of what is ready the one of the highest priority goes on. Priorities are random, and what one
    /// has woken goes on with its own; at so many choices, which the seed draws, who would go on gets the lowest. For
    /// bugs that need a task to be late for long: one that needs an order of d places takes d - 1 changes; 0 to 1000.
    /// Source: `detail/chain_priorities.hpp`
    std::optional<std::uint32_t> priority_changes = std::nullopt;
    /// Steps, of all runs together, in which a failing schedule is made shorter; 0: as long as it is found.
    std::uint64_t shrink_steps = 5'000'000;
};

struct explore_all_options {
    std::uint64_t max_schedules = 100'000;
    std::uint32_t most_delays = any_delays;  ///< only schedules in which no more often another than the first goes on
};

/// What an exhaustive search saw.
struct exploration {
    std::uint64_t schedules = 0;      ///< that were run, until one failed
    bool complete = false;            ///< there are no others, with at most so many delays
    std::optional<schedule> failing;  ///< the first that failed, made shorter: give it to a `simulation`
};

/// Runs `make()`, called inside the simulation, under one seed after the other, until `check(value)` is false or
/// something throws, a deadlock included. Without a value, `check` takes no argument.
///
/// If the environment has a CORDON_SIM, it runs that schedule alone, and says on stderr how it went.
/// Returns:       a schedule that fails, made shorter, after printing it, why, and what happens in it:
///                `simulation{found}.run(make)` does it again
/// Errors:        `std::invalid_argument` if CORDON_SIM is no schedule, or an option is out of range
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<schedule> explore(explore_options options, Make&& make, Check&& check,
                                              std::source_location where = std::source_location::current());

/// As `explore`, through every schedule there is, up to a number of them, until one fails.
/// Source:        Emmi, Qadeer and Rakamaric, "Delay-bounded scheduling", 2011, for the bound
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] exploration explore_all(explore_all_options options, Make&& make, Check&& check,
                                      std::source_location where = std::source_location::current());
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] exploration explore_all(std::uint64_t max_schedules, Make&& make, Check&& check,
                                      std::source_location where = std::source_location::current()) {
    return explore_all(explore_all_options{.max_schedules = max_schedules}, make, check, where);
}

/// Leaves out of a schedule that fails what it fails without: the run ends as early as it can, and of what is ready the
/// first goes on, wherever it fails in the same way: by the check, a deadlock, a stop or an error.
/// Returns:       the shortest that was found when no choice could be left out any more, or all runs together had
///                taken `max_steps`. Nothing if `failing` does not fail. A livelock is not made shorter
/// Requires:      `make` gives an operation that does the same each time
/// Cost:          about as many runs as the schedule has choices that are not the first, a few times
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<schedule> shrink(const schedule& failing, Make&& make, Check&& check,
                                             std::uint64_t max_steps = explore_options().shrink_steps);

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI

#include <cordon/testing/detail/explore_bodies.hpp>
