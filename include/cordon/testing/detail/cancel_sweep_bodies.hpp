// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/testing/cancel_sweep.hpp>, which includes this.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/await_faults.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/function_name.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/overdue.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/allocation_fault.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/detail/duration_text.hpp>
#include <cordon/testing/explore.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <new>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

class sweep_access {
public:
    using verdict = testing::simulation::verdict;
    using session = testing::simulation::session;
    template <operation O>
    using one_run = testing::simulation::one_run<O>;

    static verdict drive(testing::simulation& s, const bool& done, cancel_scope& root, std::uint64_t max_steps,
                         clock::time_point latest) {
        return s.drive(done, root, max_steps, latest);
    }
    static std::vector<task_info> tasks(const testing::simulation& s) { return s.own_tasks(); }
    static bool idle(testing::simulation& s) { return s.ready_.empty() && s.armed_timers() == 0; }
};

/// Watches one run, has it end at its point, and keeps who waited where then.
class sweep_watch final : public testing::simulation::observer, private await_faults {
public:
    sweep_watch(testing::simulation& s, testing::sweep_point& p) : simulation_(&s), point_(&p), start_(s.now()) {
        if (p.variant == testing::sweep_variant::error) await_faults_here = this;
    }
    sweep_watch(const sweep_watch&) = delete;
    sweep_watch& operator=(const sweep_watch&) = delete;
    ~sweep_watch() { end(); }
    /// From now on it watches nothing.
    void end() noexcept {
        if (await_faults_here == this) await_faults_here = nullptr;
    }

    void before_step(std::uint64_t step, cancel_scope& root) override {
        const clock::duration at = simulation_->now() - start_;
        if (!reached && is_there(step, at)) {
            reach(at);
            if (point_->variant == testing::sweep_variant::stop) root.request_stop();
        }
        times.push_back(at);
    }

    bool reached = false;
    std::string failed_at;                 ///< the await that threw
    std::vector<task_info> tasks;          ///< then; a text is made only if something is found
    std::vector<testing::choice> choices;  ///< until the point
    std::size_t steps_until = 0;
    std::vector<clock::duration> times;    ///< of each step

private:
    void reach(clock::duration at) {
        reached = true;
        tasks = sweep_access::tasks(*simulation_);
        choices = simulation_->trace();
        steps_until = times.size();
        if (point_->variant != testing::sweep_variant::deadline) point_->at = at;
    }
    void ask(const context& ctx, const std::source_location& site) override {
        if (reached) return;
        const scope* const below = context_access::scope_of(ctx);
        if ((below != nullptr && below->shielded()) || ++awaits_ != point_->number) return;
        failed_at = "  thrown at " + site_text(site) + '\n';
        reach(simulation_->now() - start_);
        raise(testing::injected_error(), "an await that a sweep had fail, in a build without exceptions");
    }
    bool is_there(std::uint64_t step, clock::duration at) const noexcept {
        switch (point_->variant) {
            case testing::sweep_variant::stop: return step == point_->number;
            case testing::sweep_variant::deadline: return at >= point_->at;
            case testing::sweep_variant::allocation: return allocation_plan::here().seen >= point_->number;
            case testing::sweep_variant::error:
            case testing::sweep_variant::baseline: break;
        }
        return false;
    }

    testing::simulation* simulation_;
    testing::sweep_point* point_;
    clock::time_point start_;
    std::uint64_t awaits_ = 0;  ///< that would have waited
};

/// Returns what an outcome says that neither a stop, a deadline nor a failure that was made explains; empty if nothing.
/// What was stopped is closed, and refuses; what an error leads to, the check alone can tell.
template <class T>
std::string unexplained(const outcome<T>& ended, testing::sweep_variant how) {
    if (how == testing::sweep_variant::error) return {};
#if defined(__cpp_exceptions)
    try {
        if (ended.is_error()) std::rethrow_exception(ended.error());
    } catch (const timeout_error&) {
        return {};
    } catch (const std::bad_alloc&) {
        return how == testing::sweep_variant::allocation ? "" : "ended with an allocation that failed";
    } catch (const canceled&) {
        return {};
    } catch (const std::exception& e) {
        return std::string("ended with the error: ") + e.what();
    } catch (...) {
        return "ended with an error of an unknown type";
    }
#endif
    if (!ended.is_rejected() || ended.rejection().reason == reject_reason::closed) return {};
    return rejected(ended.rejection()).what();
}

/// Has the clock show that time on this thread.
class shown_time {
public:
    explicit shown_time(clock::time_point t) noexcept : time_(t) {
        simulations.fetch_add(1, std::memory_order_relaxed);
        virtual_now = &time_;
    }
    shown_time(const shown_time&) = delete;
    shown_time& operator=(const shown_time&) = delete;
    ~shown_time() {
        virtual_now = nullptr;
        simulations.fetch_sub(1, std::memory_order_relaxed);
    }

private:
    const clock::time_point time_;
};

/// Keeps what a run has left behind, within the reach of leak checkers: its frames are still in somebody's lists.
inline void keep_for_ever(std::shared_ptr<void> left) {
    static auto& kept = *new std::vector<std::shared_ptr<void>>;
    kept.push_back(std::move(left));
}

/// Has the `number`th allocation of tasks fail while it lives; 0: none.
class failing_allocation {
public:
    explicit failing_allocation(std::uint64_t number) noexcept : plan_(allocation_plan::here()) {
        plan_ = {number != 0, false, 0, number};
    }
    failing_allocation(const failing_allocation&) = delete;
    failing_allocation& operator=(const failing_allocation&) = delete;
    ~failing_allocation() { plan_ = {}; }

    [[nodiscard]] bool has_failed() const noexcept { return plan_.fails != 0 && plan_.seen >= plan_.fails; }

    /// Throws if the program's operator new does not ask.
    static void expect_hook() {
        const failing_allocation second(2);
        {
            const in_a_task yes(true);
            ::operator delete(::operator new(1));
        }
        if (second.plan_.seen == 0)
            raise(std::logic_error("cancel_sweep: allocations are to fail, but the program's operator new does not ask "
                                   "allocation_fault()"),
                  "cancel_sweep: operator new does not ask allocation_fault()");
    }

private:
    allocation_plan& plan_;
};

template <class Make, class Check>
class sweeper {
    using op = decltype(with(std::declval<Make&>()(), overdue(overdue_policy()), until(deadline())));
    using run_type = sweep_access::one_run<op>;
    using value_type = typename op::value_type;
    using variant = testing::sweep_variant;

public:
    sweeper(const testing::sweep_options& options, Make& make, Check& check, const std::source_location& where)
        : options_(options), make_(make), check_(check), where_(where) {}

    testing::sweep_result sweep() {
        if (options_.fail_allocations) failing_allocation::expect_hook();
        run({});
        if (!result_.findings.empty()) return std::move(result_);
        const std::uint64_t steps = baseline_.size();
        for (std::uint64_t k = 1; k <= steps && wants_more(); ++k) run({variant::stop, k, {}});
        std::uint64_t number = 0;
        for (std::size_t i = 0; i < times_.size() && wants_more(); ++i) {
            run({variant::deadline, ++number, times_[i]});
            if (i + 1 == times_.size() || !wants_more()) continue;
            const clock::duration between = (times_[i + 1] - times_[i]) / 2;
            if (between != clock::duration::zero()) run({variant::deadline, ++number, times_[i] + between});
        }
        bool failed = options_.fail_allocations;
        for (number = 1; failed && wants_more(); ++number) failed = run({variant::allocation, number, {}});
        failed = options_.fail_awaits;
        for (number = 1; failed && wants_more(); ++number) failed = run({variant::error, number, {}});
        return std::move(result_);
    }

private:
    [[nodiscard]] bool wants_more() const { return result_.findings.size() < options_.max_findings; }

    /// Returns:       false if there is no such point: not that many allocations, or awaits
    bool run(testing::sweep_point point) {
        const bool is_baseline = point.variant == variant::baseline;
        if (!is_baseline) ++result_.points;
        const failing_allocation allocation(point.variant == variant::allocation ? point.number : 0);
        auto sim = std::make_unique<testing::simulation>(options_.seed);
        sweep_watch watch(*sim, point);
        sim->observe(&watch);
        const auto note = [&](std::string what) {
            result_.findings.push_back({point, std::move(what), watch.failed_at + describe_all(watch.tasks)});
        };
        std::optional<sweep_access::session> here(std::in_place, *sim);

        const overdue_policy nobody_is_told((clock::duration::max)(), &overdue_policy::print);
        std::unique_ptr<run_type> whole;
        const deadline until_then =
            point.variant == variant::deadline ? deadline::at(sim->now() + point.at) : deadline::never();
        const run_fault thrown = what_escapes([&] {
            whole = std::make_unique<run_type>(
                *sim, with(made(), overdue(nobody_is_told), until(until_then, where_)), where_);
        });
        outcome<value_type> ended(std::make_exception_ptr(std::bad_alloc()));  // if it could not even be made
        if (whole != nullptr) {
            const deadline latest =
                is_baseline ? deadline::never() : deadline::after(times_.back() + options_.max_time);
            const auto how = sweep_access::drive(*sim, whole->done, whole->scope,
                                                 baseline_.size() + options_.max_steps, latest.time());
            if (how != sweep_access::verdict::ended) {
                note(not_ended(*sim, how));
                keep_for_ever(std::move(whole));
                keep_for_ever(std::move(sim));
                return true;
            }
            ended = whole->root.take();
            whole.reset();
        } else if (!allocation.has_failed()) {
            note("could not be made: " + thrown.what);
            return true;
        }
        sim->observe(nullptr);
        watch.end();
        const bool may_miss = point.variant == variant::allocation || point.variant == variant::error;
        const bool is_there = !may_miss || watch.reached || allocation.has_failed();
        if (!is_there) --result_.points;
        if (is_baseline) learn(watch, *sim, ended);
        else if (!may_miss && !same_so_far(watch))
            note("does not run as the baseline did up to there: it is not deterministic");
        if (const std::string left = sim->who_waits(); !left.empty()) note("leaves tasks behind:\n" + left);
        if (sim->armed_timers() != 0) note("leaves " + std::to_string(sim->armed_timers()) + " timers armed");
        if (const std::string why = unexplained(ended, point.variant); !why.empty() && why != expected_) note(why);
        const bool idle = sweep_access::idle(*sim);
        here.reset();  // a check may run simulations of its own
        const shown_time end(sim->now());
        if (is_there) ask(ended, point, note);
        if (!idle) keep_for_ever(std::move(sim));
        return is_there;
    }
    decltype(auto) made() {
        const in_a_task yes(true);
        return make_();
    }

    void learn(sweep_watch& watch, testing::simulation& sim, const outcome<value_type>& ended) {
        baseline_ = std::move(watch.times);
        choices_ = sim.trace();
        times_ = baseline_;
        times_.push_back(sim.now() - testing::simulation_options().start);
        times_.erase(std::unique(times_.begin(), times_.end()), times_.end());
        expected_ = unexplained(ended, variant::baseline);
    }
    static std::string not_ended(const testing::simulation& sim, sweep_access::verdict how) {
        if (how == sweep_access::verdict::deadlock) return "never ends: nothing can wake\n" + sim.who_waits();
        return "has not ended after " + std::to_string(sim.steps()) + " steps and " +
               duration_text(sim.now() - testing::simulation_options().start) + ":\n" + sim.who_waits();
    }
    bool same_so_far(const sweep_watch& watch) const {
        return watch.reached && watch.steps_until <= baseline_.size() && watch.choices.size() <= choices_.size() &&
               std::equal(watch.choices.begin(), watch.choices.end(), choices_.begin()) &&
               std::equal(baseline_.begin(), baseline_.begin() + static_cast<std::ptrdiff_t>(watch.steps_until),
                          watch.times.begin());
    }
    template <class Note>
    void ask(outcome<value_type>& ended, const testing::sweep_point& point, Note& note) {
        bool held = true;
        const run_fault thrown = what_escapes([&] {
            if constexpr (std::is_void_v<decltype(check_(ended, point))>) check_(ended, point);
            else held = static_cast<bool>(check_(ended, point));
        });
        if (!thrown.what.empty()) note("the check: " + thrown.what);
        else if (!held) note("the check says false");
    }

    const testing::sweep_options& options_;
    Make& make_;
    Check& check_;
    std::source_location where_;
    testing::sweep_result result_;
    std::vector<clock::duration> baseline_;   ///< the time of each step
    std::vector<testing::choice> choices_;    ///< of the baseline
    std::vector<clock::duration> times_;      ///< of the baseline, each once
    std::string expected_;                    ///< the error that the baseline ends with
};

}  // namespace detail

namespace testing {

inline std::string describe(const sweep_finding& finding) {
    std::string text = to_string(finding.variant);
    if (finding.variant == sweep_variant::stop) text += " before step " + std::to_string(finding.number);
    if (finding.variant == sweep_variant::allocation) text += ' ' + std::to_string(finding.number) + " failed";
    if (finding.variant == sweep_variant::error) text += " of await " + std::to_string(finding.number);
    if (finding.variant != sweep_variant::baseline) text += " after " + detail::duration_text(finding.at);
    text += ": " + finding.what + (finding.what.ends_with('\n') ? "" : "\n");
    return finding.where.empty() ? text : text + "  who waited where then:\n" + finding.where;
}
inline std::string describe(const sweep_result& swept) {
    std::string text = std::to_string(swept.points) + " points swept, " + std::to_string(swept.findings.size()) +
                       " findings\n";
    for (const sweep_finding& finding : swept.findings) text += describe(finding);
    return text;
}

template <class Make, class Check>
    requires std::invocable<Make&> && awaitable<std::invoke_result_t<Make&>>
sweep_result cancel_sweep(const sweep_options& options, Make&& make, Check&& check, std::source_location where) {
    using value_type = typename detail::operation_for<std::invoke_result_t<Make&>>::value_type;
    static_assert(std::invocable<Check&, outcome<value_type>&, const sweep_point&>,
                  "cancel_sweep: the check is called with an outcome of what make() gives, and a sweep_point");
    return detail::sweeper<std::remove_reference_t<Make>, std::remove_reference_t<Check>>(options, make, check, where)
        .sweep();
}
template <class Make>
    requires std::invocable<Make&> && awaitable<std::invoke_result_t<Make&>>
sweep_result cancel_sweep(const sweep_options& options, Make&& make, std::source_location where) {
    const auto nothing = [](const auto&, const sweep_point&) { return true; };
    return cancel_sweep(options, make, nothing, where);
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
