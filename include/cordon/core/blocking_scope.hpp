// SPDX-License-Identifier: MIT
#pragma once

// What a thread heeds while it waits: `slots.acquire_blocking(stop)`.

#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/std_stop_token.hpp>

#include <chrono>
#include <concepts>
#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {
class heeded_scope;
}  // namespace detail

/// The argument of every `x_blocking`: nothing, a deadline or a duration from now, the token of a thread, a scope or a
/// context. All of them convert. Such a call waits on this thread and gives an `outcome`: stopped if it was stopped or
/// its deadline passed, with nothing taken.
/// Errors:        `std::logic_error` on a thread that runs an executor, where waiting would hold up everything else on
///                it; inside `run_blocking` it is allowed. In a simulation, too
/// Lifetime:      what it was made from outlives the call
class blocking_scope {
public:
    /// Waits as long as it takes.
    blocking_scope() = default;
    blocking_scope(cordon::deadline until) noexcept : until_(until) {}
    template <class Rep, class Period>
    blocking_scope(std::chrono::duration<Rep, Period> d) noexcept : until_(cordon::deadline::after(d)) {}
    blocking_scope(const context& ctx) noexcept : ctx_(&ctx), until_(ctx.deadline()) {}
    /// A `cancel_scope`, a `task_group`: all that has a context.
    template <class Scope>
        requires requires(const Scope& s) {
            { s.ctx() } -> std::same_as<const context&>;
        }
    blocking_scope(const Scope& scope) noexcept : blocking_scope(scope.ctx()) {}
#if defined(__cpp_lib_jthread)
    blocking_scope(const std::stop_token& stop) noexcept : stop_(&stop) {}
#endif

    /// Whether to stop now, or the deadline has passed.
    [[nodiscard]] bool stop_requested() const noexcept {
#if defined(__cpp_lib_jthread)
        if (stop_ != nullptr && stop_->stop_requested()) return true;
#endif
        // One look at the clock: what says that the deadline has passed has stopped what is under it.
        return ctx_ != nullptr ? ctx_->stop_requested() : until_.expired();
    }

private:
    friend class detail::heeded_scope;

    const context* ctx_ = nullptr;
    cordon::deadline until_;
#if defined(__cpp_lib_jthread)
    const std::stop_token* stop_ = nullptr;
#endif
};

}  // namespace cordon::inline CORDON_ABI
