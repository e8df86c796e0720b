// SPDX-License-Identifier: MIT
#pragma once

// What happens in the steps of a run, as a test is told of it.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/function_name.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/testing/detail/duration_text.hpp>
#include <cordon/testing/schedule.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

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
class step_log {
public:
    /// For before the run.
    explicit step_log(clock::time_point now) : start_(now), now_(now) {
        look([this](std::uint64_t id, std::uint32_t) { older_.push_back(id); });
    }
    step_log(const step_log&) = delete;
    step_log& operator=(const step_log&) = delete;

    /// Notes what has changed since the step began, until which `trace` was chosen; at first, since before the run.
    void end_step(clock::time_point now, const std::vector<testing::choice>& trace);
    [[nodiscard]] std::vector<logged_step> take() noexcept { return std::move(steps_); }

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
        record_reader(to_record_ms(now_)).each_glimpse([&](const record_reader::glimpse& seen) {
            if (!seen.is_group) f(seen.id, seen.changes);
        });
    }
    known read(std::uint64_t id, std::uint32_t changes) {
        known k;
        k.changes = changes;
        task_info task;
        if (!record_reader(to_record_ms(now_)).find(id, task)) return k;
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

    clock::time_point start_, now_;         ///< when the run began; when the last step ended
    std::vector<std::uint64_t> older_;      ///< tasks that were alive before: none of its business
    std::map<std::uint64_t, known> tasks_;  ///< by id
    std::vector<logged_step> steps_;
    clock::duration at_{0};                 ///< when the present step began
    std::size_t chosen_ = 0;                ///< choices so far
    site_texts sites_{&site_text, 63};
};

inline void step_log::end_step(clock::time_point now, const std::vector<testing::choice>& trace) {
    now_ = now;
    if (steps_.size() == max_steps) return;
    logged_step step{at_, chosen_, {}, {}, false};
    std::string struck;
    for (; chosen_ < trace.size(); ++chosen_) {
        if (!trace[chosen_].strikes) step.chose = trace[chosen_];
        else if (trace[chosen_].taken != 0) struck += (struck.empty() ? "" : ", ") + std::to_string(chosen_) + ":1";
    }
    step.strikes = !struck.empty();
    if (step.strikes) step.actors.push_back({"something goes wrong, by choice " + struck, {}, 0});
    at_ = now - start_;
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

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
