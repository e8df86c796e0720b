// SPDX-License-Identifier: MIT
#pragma once

// How a test has an await that would have to wait throw instead.

#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>

#include <source_location>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Why not as it comes back, in the place of its value: what looks there for an error costs each await, also one that
/// finds a value at once. And what it was handed by then is given back when it is stopped, which is swept as well.
class await_faults {
public:
    /// Asked when a task awaits something that it has to wait for, before anything of that has happened.
    /// Returns, or throws
    virtual void ask(const context& ctx, const std::source_location& site) = 0;

protected:
    ~await_faults() = default;
};

/// That of the sweep that runs on this thread; null outside one.
CORDON_ONE_COPY inline constinit thread_local await_faults* await_faults_here = nullptr;

CORDON_THREAD_LOCAL_ACCESS inline void fail_if_tested(const context& ctx, const std::source_location& site) {
    if (await_faults_here != nullptr) [[unlikely]] await_faults_here->ask(ctx, site);
}

/// The state of an operation that waits, for something that may well never come: not for the end of what was begun.
template <class S>
concept may_fail_in_a_test = requires { typename S::waits; } && !requires { S::never_fails; };

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
