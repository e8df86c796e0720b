// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/testing/explore.hpp>, which includes this.
//
// Long, because <cordon/testing/simulation.hpp> ends by including explore.hpp: what that needs cannot have a header
// that includes simulation.hpp, and has to be here.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/function_name.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/testing/detail/chain_priorities.hpp>
#include <cordon/testing/detail/duration_text.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <map>
#include <optional>
#include <source_location>
#include <string>
#include <tuple>
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

/// What one step was: the same in each run of the same schedule, but for the ids of tasks.
struct logged_step {
    struct actor {
        std::string did, then;
        std::uint64_t id = 0;

        friend bool operator==(const actor& a, const actor& b) { return a.did == b.did && a.then == b.then; }
    };
    clock::duration at{0};      ///< when it began, since the beginning of the run
    std::size_t number = 0;     ///< of its choice, if `chose.of` is more than 1
    testing::choice chose;
    std::vector<actor> actors;  ///< in the order of what they did
    bool strikes = false;       ///< something was made to go wrong

    [[nodiscard]] bool is_usual() const noexcept { return chose.taken == 0 && !strikes; }
    friend bool operator==(const logged_step&, const logged_step&) = default;
};

/// `* after 1 ms, choice 3:1 of 2: #7 "writer" goes on at counter.cpp:12 in increment (yield)`, with a star if it is
/// not the first that was chosen; and perhaps where it waits then.
inline std::string describe(const logged_step& s, bool with_then = false) {
    std::string text = (s.is_usual() ? "  after " : "* after ") + duration_text(s.at);
    if (s.chose.of > 1)
        text += ", choice " + std::to_string(s.number) + ':' + std::to_string(s.chose.taken) + " of " +
                std::to_string(s.chose.of);
    const char* separator = ": ";
    for (const logged_step::actor& a : s.actors) {
        text += separator;
        if (a.id != 0) text += '#' + id_text(a.id) + ' ';
        text += a.did;
        if (with_then && !a.then.empty()) text += ", then waits" + a.then;
        separator = "; ";
    }
    return text + '\n';
}

/// Writes down what the steps of a run do, as far as the records of its tasks tell; without records, the choices.
class run_log final : public testing::simulation::observer {
public:
    explicit run_log(testing::simulation& s) : simulation_(&s), start_(s.now()) {
        look([this](std::uint64_t id, std::uint32_t) { older_.push_back(id); });
        s.observe(this);
    }
    run_log(const run_log&) = delete;
    run_log& operator=(const run_log&) = delete;
    ~run_log() { simulation_->observe(nullptr); }

    void before_step(std::uint64_t, cancel_scope&) override { end_step(); }
    /// For after the run.
    [[nodiscard]] std::vector<logged_step> take() {
        end_step();
        return std::move(steps_);
    }

private:
    static constexpr std::size_t max_steps = 100'000;  // it looks no further
    struct known {
        std::uint32_t changes = 0;
        bool has_begun = false, is_there = true;
        std::string who, spawned, waits;
    };

    /// Calls `f(id, changes)` for each task that is alive.
    template <class F>
    void look(F f) {
        record_reader(to_record_ms(simulation_->now())).each_glimpse([&](const record_reader::glimpse& seen) {
            if (!seen.is_group) f(seen.id, seen.changes);
        });
    }
    known read(std::uint64_t id, std::uint32_t changes) {
        known k;
        k.changes = changes;
        task_info task;
        if (!record_reader(to_record_ms(simulation_->now())).find(id, task)) return k;
        k.has_begun = task.state != task_info::activity::starting;
        if (!task.name.empty()) k.who = '"' + on_one_line(task.name) + "\" ";
        k.spawned = task.spawned_at.line() != 0 ? ", spawned at " + sites_(task.spawned_at) : ", a branch";
        if (!task.waits.empty()) k.waits = " at " + sites_(task.waits.back());
        if (!task.waits_for.empty()) k.waits += " (" + on_one_line(task.waits_for) + ')';
        return k;
    }
    static std::string went_on(const known& before) {
        return before.who + (before.has_begun ? "goes on" + before.waits : "begins" + before.spawned);
    }

    /// Notes what has changed since the step began; at first, since before the run.
    void end_step() {
        if (steps_.size() == max_steps) return;
        logged_step step{at_, chosen_, {}, {}, false};
        std::string struck;
        for (const auto& trace = simulation_->trace(); chosen_ < trace.size(); ++chosen_) {
            if (!trace[chosen_].strikes) step.chose = trace[chosen_];
            else if (trace[chosen_].taken != 0) struck += (struck.empty() ? "" : ", ") + std::to_string(chosen_) + ":1";
        }
        step.strikes = !struck.empty();
        if (step.strikes) step.actors.push_back({"something goes wrong, by choice " + struck, {}, 0});
        at_ = simulation_->now() - start_;
        for (auto& [id, task] : tasks_) task.is_there = false;
        look([&](std::uint64_t id, std::uint32_t changes) { see(step, id, changes); });
        std::erase_if(tasks_, [&](const auto& entry) {
            if (entry.second.is_there) return false;
            const auto& [id, task] = entry;
            step.actors.push_back(
                {task.has_begun ? went_on(task) + " and ends" : task.who + "ends" + task.spawned, {}, id});
            return true;
        });
        if (at_ != step.at) step.actors.push_back({"time goes on to " + duration_text(at_), {}, 0});
        std::sort(step.actors.begin(), step.actors.end(),
                  [](const auto& a, const auto& b) { return std::tie(a.did, a.then) < std::tie(b.did, b.then); });
        if (!step.actors.empty() || step.chose.of > 1) steps_.push_back(std::move(step));
    }
    void see(logged_step& step, std::uint64_t id, std::uint32_t changes) {
        if (std::find(older_.begin(), older_.end(), id) != older_.end()) return;
        const auto [entry, is_new] = tasks_.try_emplace(id);
        known& task = entry->second;
        task.is_there = true;
        if (!is_new && task.changes == changes) return;
        known now = read(id, changes);
        if (is_new) {
            task.who = now.who;
            task.spawned = now.spawned;
        }
        if (!is_new || now.has_begun) step.actors.push_back({went_on(task), now.waits, id});
        task = std::move(now);
    }

    testing::simulation* simulation_;
    clock::time_point start_;
    std::vector<std::uint64_t> older_;      ///< tasks that were alive before: none of its business
    std::map<std::uint64_t, known> tasks_;  ///< by id
    std::vector<logged_step> steps_;
    clock::duration at_{0};                 ///< when the present step began
    std::size_t chosen_ = 0;                ///< choices so far
    site_texts sites_{&site_text, 63};
};

/// The steps in which another than the first was chosen, and the last few; what is the same again only once.
inline std::string timeline(const std::vector<logged_step>& steps) {
    constexpr std::size_t last = 40;
    std::string text, line;
    for (std::size_t i = 0, left_out = 0, times = 1; i < steps.size(); ++i) {
        if (i + last < steps.size() && steps[i].is_usual()) {
            ++left_out;
            continue;
        }
        if (left_out > 0) text += "  ... " + std::to_string(left_out) + " more\n";
        left_out = 0;
        if (line.empty()) line = describe(steps[i]);
        if (std::string next = i + 1 < steps.size() ? describe(steps[i + 1]) : std::string(); next == line) {
            ++times;
        } else {
            if (times > 1) line.insert(line.size() - 1, ", " + std::to_string(times) + " times");
            text += line;
            line = std::move(next);
            times = 1;
        }
    }
    return text;
}

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
