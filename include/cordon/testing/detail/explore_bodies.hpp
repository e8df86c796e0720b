// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/testing/explore.hpp>, which includes this.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/function_name.hpp>
#include <cordon/core/error.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/testing/detail/chain_priorities.hpp>
#include <cordon/testing/detail/step_log.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <source_location>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What is wrong with a run.
struct run_fault {
    enum class kind : std::uint8_t { none, check, deadlock, livelock, stop, error };
    kind is = kind::none;
    std::string what;  // not empty if there is one
};

/// Calls `f()`.
/// Returns:       what escapes from it
template <class F>
run_fault what_escapes(F&& f) {
    using enum run_fault::kind;
#if defined(__cpp_exceptions)
    const auto text = [](const std::exception& e) {
        return *e.what() != 0 ? std::string(e.what()) : std::string("an exception without a text");
    };
    try {
        f();
    } catch (const testing::deadlock& e) {
        return {deadlock, text(e)};
    } catch (const testing::livelock& e) {
        return {livelock, text(e)};
    } catch (const std::exception& e) {
        return {error, text(e)};
    } catch (const canceled&) {
        return {stop, "it was stopped"};
    } catch (...) {
        return {error, "an exception of an unknown type"};
    }
#else
    f();
#endif
    return {};
}

/// Runs `make()` and asks `check(value)`, or `check()` if there is no value.
template <class Make, class Check>
run_fault schedule_fault(testing::simulation& sim, Make& make, Check& check, const std::source_location& where) {
    const auto call = [&make] { return make(); };
    bool held = false;
    run_fault escaped = what_escapes([&] {
        if constexpr (std::is_void_v<await_result_t<std::invoke_result_t<Make&>>>) {
            sim.run(call, where);
            held = check();
        } else {
            held = check(sim.run(call, where));
        }
    });
    if (escaped.is == run_fault::kind::none && !held) return {run_fault::kind::check, "the check says false"};
    return escaped;
}

/// Has the steps of a simulation's runs written down while it lives.
class run_log final : public testing::simulation::observer {
public:
    explicit run_log(testing::simulation& s) : simulation_(&s), steps_(s.now()) { s.observe(this); }
    run_log(const run_log&) = delete;
    run_log& operator=(const run_log&) = delete;
    ~run_log() { simulation_->observe(nullptr); }

    void before_step(std::uint64_t, cancel_scope&) override { steps_.end_step(simulation_->now(), simulation_->trace()); }
    /// For after the run.
    [[nodiscard]] std::vector<logged_step> take() {
        steps_.end_step(simulation_->now(), simulation_->trace());
        return steps_.take();
    }

private:
    testing::simulation* simulation_;
    step_log steps_;
};

/// The schedule of CORDON_SIM, if there is one.
inline std::optional<testing::schedule> asked_for() {
    const char* const text = std::getenv("CORDON_SIM");
    if (text == nullptr || *text == 0) return std::nullopt;
    return testing::schedule::from_string(text, "CORDON_SIM");
}

[[nodiscard]] inline std::ptrdiff_t others_than_first(const std::vector<testing::choice>& choices) {
    return std::count_if(choices.begin(), choices.end(), [](const auto& c) { return c.taken != 0; });
}

inline void check_explore_options(const testing::explore_options& options) {
    if (!options.priority_changes) return;
    check_option(options.most_delays == testing::any_delays, "explore", "most_delays", options.most_delays,
                 "is any_delays beside priority_changes");
    static_cast<void>(checked_range("explore", "priority_changes", *options.priority_changes, 0, 1000));
}

/// The first of what is ready, but at so many of `length` choices, by the seed, one of the next.
inline std::vector<testing::choice> with_delays(std::uint32_t delays, std::size_t length, std::uint64_t seed) {
    std::vector<testing::choice> choices(length);
    for (std::uint64_t i = 0, bits = mixed(seed); length != 0 && i < delays; ++i, bits = mixed(bits + seed + i))
        choices[static_cast<std::size_t>(bits >> 8) % length] = {1 + static_cast<std::uint32_t>(bits % 4), 5};
    return choices;
}

class search_access {
public:
    static void let_choose(testing::simulation& s, chain_priorities* by) noexcept { s.chains_ = by; }
};

/// Runs schedules of one test.
template <class Make, class Check>
class explorer {
public:
    struct ran {
        run_fault fault;
        testing::schedule as;
        std::vector<testing::choice> trace;
        std::uint64_t steps = 0;

        [[nodiscard]] bool failed() const noexcept { return fault.is != run_fault::kind::none; }
    };

    explorer(Make& make, Check& check, const std::source_location& where)
        : make_(make), check_(check), where_(where) {}

    ran run(const testing::schedule& s, std::vector<logged_step>* steps = nullptr,
            testing::simulation_options options = {}, chain_priorities* by = nullptr) {
        testing::simulation sim(s, options);
        search_access::let_choose(sim, by);
        std::optional<run_log> log;
        if (steps != nullptr) log.emplace(sim);
        ran r{schedule_fault(sim, make_, check_, where_), s, sim.trace(), sim.steps()};
        if (steps != nullptr) *steps = log->take();
        return r;
    }

    /// Returns:       the shortest run that fails as `found` does
    ran shorter(const ran& found, std::uint64_t max_steps) {
        ran best = found;
        cut_firsts(best.trace);
        if (found.fault.is == run_fault::kind::livelock) return best;
        const auto seed = found.as.seed();
        testing::simulation_options options;
        options.max_steps = (std::min)(options.max_steps, 2 * found.steps + 100'000);  // one that takes more is no help
        std::uint64_t left = max_steps;
        const auto fails = [&](std::vector<testing::choice> tried) {
            if (left == 0) return false;
            cut_firsts(tried);
            ran r = run(testing::schedule(tried, seed), nullptr, options);
            left -= (std::min)(left, r.steps);
            if (r.fault.is != found.fault.is) return false;
            cut_firsts(r.trace);
            r.as = testing::schedule(r.trace, seed);
            best = std::move(r);
            return true;
        };
        fails(best.trace);  // as choices, no longer as a seed
        for (bool shorter = true; shorter && left != 0;) {
            shorter = false;
            for (std::size_t cut = best.trace.size(); cut > 0; cut /= 2)
                while (cut <= best.trace.size() && fails(without_end(best.trace, cut))) shorter = true;
            for (std::size_t size = best.trace.size() / 2; size > 0; size /= 2)
                for (std::size_t end = best.trace.size(); end > 0; end = (std::min)(end, best.trace.size())) {
                    const std::size_t begin = end - (std::min)(end, size);
                    const auto tried = with_firsts(best.trace, begin, end);
                    end = begin;
                    if (tried != best.trace && fails(tried)) shorter = true;
                }
        }
        return best;
    }

private:
    using choices = std::vector<testing::choice>;

    /// A run takes the first behind the last that is given.
    static void cut_firsts(choices& c) {
        while (!c.empty() && c.back().taken == 0) c.pop_back();
    }
    static choices without_end(const choices& from, std::size_t count) {
        return choices(from.begin(), from.end() - static_cast<std::ptrdiff_t>(count));
    }
    static choices with_firsts(choices c, std::size_t begin, std::size_t end) {
        for (; begin < end; ++begin) c[begin].taken = 0;
        return c;
    }

    Make& make_;
    Check& check_;
    std::source_location where_;
};

/// What a search says on stderr.
class search_report {
public:
    search_report(const char* search, const std::source_location& where)
        : who_(std::string("cordon: ") + search + " at " + site_text(where)) {}

    /// Runs the one schedule that was asked for.
    template <class Explorer>
    std::optional<testing::schedule> only(const testing::schedule& s, Explorer explorer) const {
        std::vector<logged_step> steps;
        const auto r = explorer.run(s, &steps);
        const bool fits = s.is_seeded() || testing::schedule(r.trace, s.seed()) == s;
        say(s, r.failed() ? "alone was run, and fails: " + r.fault.what : "alone was run, and passes");
        if (!fits) say(s, "has choices that the run did not have: this is another test, or it has changed");
        if (!r.failed()) return std::nullopt;
        print(steps);
        return s;
    }
    /// Tells of a run that failed, and looks for a shorter one.
    template <class Explorer>
    testing::schedule found(const typename Explorer::ran& r, Explorer explorer, std::uint64_t max_steps) const {
        say(r.as, "fails: " + r.fault.what);
        if (max_steps == 0 || r.fault.is == run_fault::kind::livelock) return r.as;
        const auto shorter = explorer.shorter(r, max_steps);
        if (shorter.as != r.as)
            say(shorter.as, "fails as well, with " + std::to_string(others_than_first(shorter.trace)) +
                                " choices that are not the first, instead of " +
                                std::to_string(others_than_first(r.trace)));
        std::vector<logged_step> steps;
        (void)explorer.run(shorter.as, &steps);
        print(steps);
        return shorter.as;
    }

private:
    void say(const testing::schedule& s, const std::string& what) const {
        std::fprintf(stderr, "%s: CORDON_SIM=%s %s%s", who_.c_str(), s.to_string().c_str(), what.c_str(),
                     what.ends_with('\n') ? "" : "\n");
    }
    static void print(const std::vector<logged_step>& steps) { std::fputs(timeline(steps).c_str(), stderr); }

    std::string who_;
};

}  // namespace detail

namespace testing {

template <class Make, class Check>
    requires std::invocable<Make&>
std::optional<schedule> explore(explore_options options, Make&& make, Check&& check, std::source_location where) {
    detail::check_explore_options(options);
    detail::explorer explorer(make, check, where);
    const detail::search_report report("explore", where);
    if (const auto only = detail::asked_for()) return report.only(*only, explorer);
    std::size_t longest = 0;
    const auto run_seed = [&](std::uint64_t seed) {
        if (options.priority_changes) {
            detail::chain_priorities by(seed, *options.priority_changes, longest);
            auto r = explorer.run(schedule(seed), nullptr, {}, &by);
            longest = (std::max)(longest, by.chosen());
            if (r.failed()) r.as = schedule(r.trace, seed);
            return r;
        }
        auto r = explorer.run(options.most_delays == any_delays
                                  ? schedule(seed)
                                  : schedule(detail::with_delays(options.most_delays, longest, seed), seed));
        longest = (std::max)(longest, r.trace.size());
        return r;
    };
    for (std::uint64_t seed = options.first_seed; seed < options.first_seed + options.schedules; ++seed)
        if (const auto r = run_seed(seed); r.failed()) return report.found(r, explorer, options.shrink_steps);
    return std::nullopt;
}

template <class Make, class Check>
    requires std::invocable<Make&>
exploration explore_all(explore_all_options options, Make&& make, Check&& check, std::source_location where) {
    detail::explorer explorer(make, check, where);
    const detail::search_report report("explore_all", where);
    exploration seen;
    if (const auto only = detail::asked_for()) {
        seen.schedules = 1;
        seen.failing = report.only(*only, explorer);
        return seen;
    }
    std::vector<choice> next;
    while (seen.schedules < options.max_schedules) {
        ++seen.schedules;
        auto r = explorer.run(schedule(next));
        if (r.failed()) {
            r.as = schedule(r.trace);
            seen.failing = report.found(r, explorer, explore_options().shrink_steps);
            return seen;
        }
        next = std::move(r.trace);
        // the next in lexical order: the last choice that has an alternative takes it, and what follows starts anew
        auto delays = static_cast<std::uint64_t>(detail::others_than_first(next));
        const auto may_rise = [&](const choice& c) {
            return c.taken + 1 < c.of && (c.taken != 0 || delays < options.most_delays);
        };
        for (; !next.empty() && !may_rise(next.back()); next.pop_back()) delays -= next.back().taken != 0 ? 1 : 0;
        if (next.empty()) {
            seen.complete = true;
            return seen;
        }
        ++next.back().taken;
    }
    return seen;
}

template <class Make, class Check>
    requires std::invocable<Make&>
std::optional<schedule> shrink(const schedule& failing, Make&& make, Check&& check, std::uint64_t max_steps) {
    detail::explorer explorer(make, check, std::source_location::current());
    const auto r = explorer.run(failing);
    if (!r.failed()) return std::nullopt;
    return explorer.shorter(r, max_steps).as;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
