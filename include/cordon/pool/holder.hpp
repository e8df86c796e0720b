// SPDX-License-Identifier: MIT
#pragma once

// Who has something of a resource_pool, since when, and where it was borrowed.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/task_record.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <source_location>
#include <string>

namespace cordon::inline CORDON_ABI {

/// One lease that is out, or was until now.
struct pool_holder {
    std::string pool;                 ///< its name
    std::source_location where;       ///< of the `acquire`
    clock::duration held_for{};
    std::uint64_t task_id = 0;        ///< as in `task_info`; 0: no task, or no records
    std::string task;                 ///< as `describe` gives it, with where it waits now; empty once it has ended
    bool returned = false;            ///< it has come back, late
};

/// Returns a line for the lease, and the lines of its task; each ends with a newline.
[[nodiscard]] inline std::string describe(const pool_holder& h) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(h.held_for).count();
    std::string text = h.pool.empty() ? "pool" : "pool \"" + h.pool + '"';
    text += h.returned ? ": came back after " : ": held for ";
    text += std::to_string(ms) + " ms, borrowed at " + detail::site_text(h.where);
    if (h.task_id != 0 && h.task.empty()) text += " by a task that has ended";
    text += '\n';
    if (!h.task.empty()) text += "  by " + h.task;
    return text;
}

/// Prints it to stderr: what a pool does that is not told otherwise.
inline void print_holder(const pool_holder& h) { std::fprintf(stderr, "cordon: %s", describe(h).c_str()); }

namespace detail {

/// Fills in the task, which may have ended.
inline void find_task(pool_holder& h) {
    task_info task;
    if (h.task_id == 0) return;
    if (record_reader(to_record_ms(clock::now())).find(h.task_id, task)) h.task = cordon::describe(task);
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
