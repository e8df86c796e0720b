// SPDX-License-Identifier: MIT
#pragma once

// Looks for a schedule that breaks something: at random over seeds, or, for small tests, through all there are.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/testing/simulation.hpp>

#include <concepts>
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

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
