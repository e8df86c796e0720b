// SPDX-License-Identifier: MIT
#pragma once

// Looks for a schedule that breaks something: at random over seeds, or, for small tests, through all there are. And
// makes one that was found short enough to be followed.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Calls `f()`.
/// Returns:       what escapes from it, as a text; empty if nothing does
template <class F>
std::string what_escapes(F&& f) {
#if defined(__cpp_exceptions)
    try {
        f();
    } catch (const std::exception& e) {
        return e.what();
    } catch (const canceled&) {
        return "it was stopped";
    } catch (...) {
        return "an exception of an unknown type";
    }
#else
    f();
#endif
    return {};
}

/// Runs `make()` and asks `check(value)`, or `check()` if there is no value.
/// Returns:       what is wrong; empty if nothing is
template <class Make, class Check>
std::string schedule_fault(testing::simulation& sim, Make& make, Check& check) {
    const auto call = [&make] { return make(); };
    bool held = false;
    std::string escaped = what_escapes([&] {
        if constexpr (std::is_void_v<await_result_t<std::invoke_result_t<Make&>>>) {
            sim.run(call);
            held = check();
        } else {
            held = check(sim.run(call));
        }
    });
    return escaped.empty() && !held ? "the check says false" : escaped;
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

/// Runs `make()`, called inside the simulation, under one seed after the other, until `check(value)` is false or
/// something throws, a deadlock included. Without a value, `check` takes no argument.
/// Returns:       the seed that failed, after printing it and why: `simulation{seed}.run(make)` does it again
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<std::uint64_t> explore(explore_options options, Make&& make, Check&& check) {
    for (std::uint64_t seed = options.first_seed; seed < options.first_seed + options.schedules; ++seed) {
        simulation sim(seed);
        const std::string fault = detail::schedule_fault(sim, make, check);
        if (fault.empty()) continue;
        std::fprintf(stderr, "cordon: explore: seed %llu fails: %s\n", static_cast<unsigned long long>(seed),
                     fault.c_str());
        return seed;
    }
    return std::nullopt;
}

/// As `explore`, through every schedule there is, up to `max_schedules`, until one fails.
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] exploration explore_all(std::uint64_t max_schedules, Make&& make, Check&& check) {
    exploration seen;
    std::vector<choice> next;
    while (seen.schedules < max_schedules) {
        simulation sim(next);
        ++seen.schedules;
        const std::string fault = detail::schedule_fault(sim, make, check);
        next = sim.trace();
        if (!fault.empty()) {
            std::fprintf(stderr, "cordon: explore_all: schedule %llu fails: %s\n",
                         static_cast<unsigned long long>(seen.schedules), fault.c_str());
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

/// Leaves out of a schedule that fails what it fails without: the run ends as early as it can, and of what is ready the
/// first goes on, wherever that fails too.
/// Returns:       the choices of such a run, down to the last that is not the first: `simulation{choices}.run(make)`
///                does it again. Nothing if `failing` does not fail
/// Requires:      `make` gives an operation that does the same each time
/// Cost:          about as many runs as the schedule has choices that are not the first, a few times
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<std::vector<choice>> shrink(std::vector<choice> failing, Make&& make, Check&& check) {
    const auto fails = [&](const std::vector<choice>& choices) {
        simulation sim(choices);
        return !detail::schedule_fault(sim, make, check).empty();
    };
    const auto without_firsts_at_the_end = [](std::vector<choice>& choices) {
        while (!choices.empty() && choices.back().taken == 0) choices.pop_back();  // what a run takes beyond them
    };
    without_firsts_at_the_end(failing);
    if (!fails(failing)) return std::nullopt;
    for (bool shorter = true; shorter;) {
        shorter = false;
        for (std::size_t cut = failing.size(); cut > 0; cut /= 2)
            while (cut <= failing.size()) {
                std::vector<choice> tried(failing.begin(), failing.end() - static_cast<std::ptrdiff_t>(cut));
                without_firsts_at_the_end(tried);
                if (!fails(tried)) break;
                failing = std::move(tried);
                shorter = true;
            }
        for (std::size_t i = failing.size(); i-- > 0;) {
            if (failing[i].taken == 0) continue;
            std::vector<choice> tried = failing;
            tried[i].taken = 0;
            without_firsts_at_the_end(tried);
            if (!fails(tried)) continue;
            failing = std::move(tried);
            i = std::min(i, failing.size());
            shorter = true;
        }
    }
    return failing;
}
/// The same for the schedule of a seed that `explore` has found.
template <class Make, class Check>
    requires std::invocable<Make&>
[[nodiscard]] std::optional<std::vector<choice>> shrink(std::uint64_t seed, Make&& make, Check&& check) {
    simulation sim(seed);
    if (detail::schedule_fault(sim, make, check).empty()) return std::nullopt;
    return shrink(sim.trace(), make, check);
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
