// SPDX-License-Identifier: MIT
#pragma once

// In a test: nothing may be left behind.
//
//     testing::leak_check check;
//     run_the_service();
//     REQUIRE(check.settled());                  // else: check.report() says who is left, and where it waits
//
// With Catch2 every test is checked, without a line in it: <cordon/interop/catch2.hpp>.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <source_location>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// Counts the tasks that began since it was made and have not ended, in the whole process or below one group. Library
/// threads and timers are no tasks, nor is a group.
/// Threads:       one at a time; the tasks may run anywhere
/// Cost:          a scan of all records for each question
class leak_check {
public:
    leak_check() { remember(); }
    /// Counts what is spawned into `within`, and into groups below it, only: tests that run in parallel in one process
    /// do not see each other's tasks.
    /// Lifetime:      `within` need not outlive the check
    explicit leak_check(const task_group& within) : within_(id_of(within)), everywhere_(false) { remember(); }

    /// Does not count tasks whose name begins like this.
    leak_check& ignore_name(std::string_view prefix) { return add(names_, prefix); }
    /// Does not count tasks that were spawned in a file, given by the end of its path ("metrics.cpp", "net/dns.cpp"),
    /// or in a function, given by its bare name.
    leak_check& ignore_spawned_in(std::string_view file_or_function) { return add(spawned_in_, file_or_function); }
    /// Does not count tasks that wait there now: any of the places that `describe` shows, but not that of the spawn.
    leak_check& ignore_waiting_in(std::string_view file_or_function) { return add(waiting_in_, file_or_function); }

    /// How many tasks are left.
    [[nodiscard]] std::size_t live_tasks() const { return left().size(); }
    /// How many groups began since and have not been destroyed. One without tasks is no leak.
    [[nodiscard]] std::size_t live_groups() const;

    /// Who is left: `describe` for each task; several that were spawned at one place and wait at the same ones are one
    /// entry, with the label of each. Empty if nobody is left.
    [[nodiscard]] std::string report() const;

    /// Waits until nobody is left, in real time and for at most so long: a task whose result has been seen may still be
    /// about to end. In a simulation it does not wait: `co_await simulation::settle()` before.
    /// Returns:       whether nobody is left
    /// Cost:          blocks the thread
    [[nodiscard]] bool settled(clock::duration at_most = std::chrono::seconds(1)) const;

private:
    using glimpse = detail::record_reader::glimpse;

    static detail::record_reader reader() { return detail::record_reader(detail::to_record_ms(clock::now())); }
    static std::uint64_t id_of(const task_group& g) noexcept {
        const detail::task_record* const r = detail::group_access::record(const_cast<task_group&>(g));
        return r == nullptr ? 0 : r->id();
    }
    static bool is_in(const std::source_location& at, std::string_view file_or_function);
    static bool any_in(const std::source_location& at, const std::vector<std::string>& places) {
        return std::any_of(places.begin(), places.end(), [&](const std::string& p) { return is_in(at, p); });
    }
    leak_check& add(std::vector<std::string>& to, std::string_view text) {
        to.emplace_back(text);
        return *this;
    }
    void remember();
    std::vector<glimpse> younger(detail::record_reader& from, bool groups) const;
    bool ignores(const task_info& task) const;
    std::vector<task_info> left() const;

    std::uint64_t within_ = 0;
    bool everywhere_ = true;
    std::vector<std::uint64_t> older_;  // sorted
    std::vector<std::string> names_, spawned_in_, waiting_in_;
};

inline void leak_check::remember() {
    reader().each_glimpse([&](const glimpse& g) { older_.push_back(g.id); });
    std::sort(older_.begin(), older_.end());
}

/// The groups, or the tasks, that are not older than this and are where it looks.
inline std::vector<leak_check::glimpse> leak_check::younger(detail::record_reader& from, bool groups) const {
    std::vector<glimpse> found;
    std::map<std::uint64_t, std::uint64_t> parents;
    from.each_glimpse([&](const glimpse& g) {
        if (!everywhere_) parents.emplace(g.id, g.parent_id);
        if (g.is_group == groups && !std::binary_search(older_.begin(), older_.end(), g.id)) found.push_back(g);
    });
    if (everywhere_) return found;
    std::erase_if(found, [&](const glimpse& g) {
        for (std::uint64_t above = g.parent_id; above != 0;) {
            if (above == within_) return false;
            const auto next = parents.find(above);
            above = next == parents.end() ? 0 : next->second;
        }
        return true;
    });
    return found;
}

inline bool leak_check::is_in(const std::source_location& at, std::string_view file_or_function) {
    const std::string_view path = at.file_name();
    if (file_or_function.empty()) return false;
    if (detail::unqualified_name(at.function_name()) == file_or_function) return true;
    if (!path.ends_with(file_or_function)) return false;
    const std::size_t before = path.size() - file_or_function.size();
    return before == 0 || path[before - 1] == '/' || path[before - 1] == '\\';
}

inline bool leak_check::ignores(const task_info& task) const {
    const auto is_prefix = [&](const std::string& prefix) { return task.name.starts_with(prefix); };
    const auto waits_in = [&](const std::source_location& at) { return any_in(at, waiting_in_); };
    return std::any_of(names_.begin(), names_.end(), is_prefix) || any_in(task.spawned_at, spawned_in_) ||
           std::any_of(task.waits.begin(), task.waits.end(), waits_in);
}

inline std::vector<task_info> leak_check::left() const {
    std::vector<task_info> found;
    detail::record_reader from = reader();
    for (const glimpse& g : younger(from, false))
        if (task_info task; from.find(g.id, task) && !ignores(task)) found.push_back(std::move(task));
    return found;
}

inline std::size_t leak_check::live_groups() const {
    detail::record_reader from = reader();
    return younger(from, true).size();
}

inline std::string leak_check::report() const {
    std::map<std::string, std::vector<task_info>> sites;
    detail::site_texts texts(&detail::site_text, 0);
    for (task_info& task : left()) sites[detail::places_text(task, texts)].push_back(std::move(task));
    std::string text;
    for (const auto& [places, tasks] : sites) {
        if (tasks.size() == 1) {
            text += describe(tasks[0]);
            continue;
        }
        text += std::to_string(tasks.size()) + " tasks  " + places;
        for (const task_info& task : tasks) text += "      " + detail::label_text(task) + '\n';
    }
    return text;
}

inline bool leak_check::settled(clock::duration at_most) const {
    if (detail::simulated_here()) return live_tasks() == 0;
    const clock::time_point begin = clock::now();
    clock::duration pause = std::chrono::microseconds(50);
    while (live_tasks() != 0) {
        const clock::duration spent = clock::now() - begin;
        if (spent >= at_most) return false;
        std::this_thread::sleep_for(std::min(pause, at_most - spent));
        pause = std::min<clock::duration>(2 * pause, std::chrono::milliseconds(10));
    }
    return true;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
