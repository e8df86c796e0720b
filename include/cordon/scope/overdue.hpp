// SPDX-License-Identifier: MIT
#pragma once

// An operation that ignores its deadline is stopped and waited for, however long that takes. So that nobody has to
// guess what a service waits for, it is reported meanwhile: by name and place, once.

#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/task_record.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <source_location>
#include <string>

namespace cordon::inline CORDON_ABI {

/// An operation that has not ended although its deadline has passed.
struct overdue_report {
    std::source_location deadline_set_at;
    clock::duration overdue_for{};
    std::string task;  ///< the task as `describe` gives it: its name, and where it waits; empty without records
};

/// Who is told about overdue operations, and how long after the deadline. Bind it with the key `overdue`.
struct overdue_policy {
    overdue_policy() = default;
    overdue_policy(clock::duration wait, void (*told)(const overdue_report&, void*), void* arg = nullptr) noexcept
        : after(wait), report(told), argument(arg) {}

    /// Prints the report to stderr.
    static void print(const overdue_report& r, void*) {
        std::fprintf(stderr, "cordon: overdue by %lld ms: what had to end by the deadline set at %s:%u still runs\n%s",
                     static_cast<long long>(
                         std::chrono::duration_cast<std::chrono::milliseconds>(r.overdue_for).count()),
                     r.deadline_set_at.file_name(), static_cast<unsigned>(r.deadline_set_at.line()), r.task.c_str());
    }

    clock::duration after = std::chrono::seconds(1);
    /// Called by the executor's timers: it must not block.
    void (*report)(const overdue_report&, void* argument) = &overdue_policy::print;
    void* argument = nullptr;
};
CORDON_ONE_COPY inline constexpr context_key<overdue_policy> overdue{"overdue"};

namespace detail {

/// The deadline of a `with`, which reports what it waits for once that is overdue.
class watched_deadline_scope final : public deadline_scope {
public:
    watched_deadline_scope() noexcept : deadline_scope(later()) {}
    void open(const context& outer, cordon::deadline own, task_record* record, const std::source_location& where) noexcept {
        deadline_scope::open(context_access::scope_of(outer), outer.deadline(), own, outer.executor(), where);
        outer_ = &outer;
        record_ = record;
    }
    ~watched_deadline_scope() { disarm(); }

private:
    overdue_policy policy() const {
        const overdue_policy* bound = outer_->get(overdue);
        return bound != nullptr ? *bound : overdue_policy();
    }
    clock::time_point overdue_at() noexcept override {
        const cordon::deadline at = cordon::deadline::after(policy().after);
        return at.time();
    }
    void on_overdue() noexcept override {
        const overdue_policy p = policy();
        overdue_report r{where(), clock::now() - own().time(), {}};
        task_info task;
        if (record_ != nullptr && record_reader(to_record_ms(clock::now())).find(record_->id(), task))
            r.task = cordon::describe(task);
        p.report(r, p.argument);
    }

    const context* outer_;
    task_record* record_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
