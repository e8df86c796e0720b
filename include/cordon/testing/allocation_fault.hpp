// SPDX-License-Identifier: MIT
#pragma once

// What a test's own operator new asks, so that a `cancel_sweep` can have each allocation of its tasks fail:
//
//     void* operator new(std::size_t size) {
//         void* const p = cordon::testing::allocation_fault() ? nullptr : std::malloc(size);
//         return p != nullptr ? p : throw std::bad_alloc();
//     }
//
// and an operator delete beside it. A header cannot replace operator new; the program that is tested has to.

#include <cordon/core/detail/config.hpp>

#include <cstdint>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Which allocation is to fail, of those that the tasks of a sweep on this thread make.
struct allocation_plan {
    bool counts = false;     ///< a sweep has them counted
    bool in_a_task = false;  ///< now, and not in what runs it
    std::uint64_t seen = 0;
    std::uint64_t fails = 0;  ///< the number of the one, from 1 on; 0: none

    CORDON_NOINLINE static allocation_plan& here() noexcept {
        static constinit thread_local allocation_plan plan;
        return plan;
    }
};

/// Says for a while whether a task runs.
class in_a_task {
public:
    explicit in_a_task(bool yes) noexcept
        : plan_(allocation_plan::here()), before_(std::exchange(plan_.in_a_task, yes)) {}
    in_a_task(const in_a_task&) = delete;
    in_a_task& operator=(const in_a_task&) = delete;
    ~in_a_task() { plan_.in_a_task = before_; }

private:
    allocation_plan& plan_;
    bool before_;
};

}  // namespace detail

namespace testing {

/// Whether the allocation that asks is the one that a sweep wants to fail; false outside of one.
[[nodiscard]] inline bool allocation_fault() noexcept {
    detail::allocation_plan& plan = detail::allocation_plan::here();
    return plan.counts && plan.in_a_task && ++plan.seen == plan.fails;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
