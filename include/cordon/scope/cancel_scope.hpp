// SPDX-License-Identifier: MIT
#pragma once

// A stop, a deadline and a reason for code that is not a coroutine: a thread's blocking calls, a host's request.
//
//     cancel_scope request{executor, deadline::after(50ms)};
//     cv.wait(lock, request.std_stop_token(), ready);         // returns when the deadline passes

#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>

#include <optional>
#include <source_location>
#include <stdexcept>

#if defined(__cpp_lib_jthread)
#include <cordon/core/std_stop_token.hpp>
#endif

namespace cordon::inline CORDON_ABI {

/// A scope that lives in an object. Stopped by `request_stop`, by its deadline, or with what it was made under.
/// Threads:       all members from any thread; made and destroyed by one
/// Lifetime:      outlives its children, tokens and contexts; the executor outlives it
/// Cost:          no allocation but in `std_stop_token`
class cancel_scope {
public:
    /// `until` is a deadline, or a duration from now. Without an executor nobody fires a timer: a deadline is noticed
    /// when one asks.
    explicit cancel_scope(detail::time_limit until = {}, std::source_location where = std::source_location::current())
        : cancel_scope(executor_ref(), until, where) {}
    explicit cancel_scope(executor_ref runs_on, detail::time_limit until = {},
                          std::source_location where = std::source_location::current())
        : cancel_scope(context(runs_on), until, where) {}
    /// Under another scope: stopped with it, and with the earlier of both deadlines.
    explicit cancel_scope(cancel_scope& parent, detail::time_limit until = {},
                          std::source_location where = std::source_location::current())
        : cancel_scope(parent.ctx(), until, where) {}
    /// Under a context, which outlives this scope.
    explicit cancel_scope(const context& outer, detail::time_limit until = {},
                          std::source_location where = std::source_location::current())
        : cancel_scope(until.until, outer, where) {
        notice(until.until);
    }
#if defined(__cpp_lib_jthread)
    /// Under the token of a host's thread.
    explicit cancel_scope(const std::stop_token& parent, detail::time_limit until = {},
                          std::source_location where = std::source_location::current())
        : cancel_scope(parent, executor_ref(), until, where) {}
    cancel_scope(const std::stop_token& parent, executor_ref runs_on, detail::time_limit until = {},
                 std::source_location where = std::source_location::current())
        : cancel_scope(until.until, context(runs_on), where) {
        adopted_.emplace(parent, scope_.source());
        notice(until.until);
    }
#endif
    cancel_scope(const cancel_scope&) = delete;
    cancel_scope& operator=(const cancel_scope&) = delete;

    /// Asks to stop. The first reason wins.
    /// Returns:       whether this was the first
    bool request_stop(int code = 0, std::source_location where = std::source_location::current()) noexcept {
        return request_stop(stop_reason{stop_kind::requested, code, where});
    }
    bool request_stop(const stop_reason& reason) noexcept { return scope_.source().request_stop(reason); }

    [[nodiscard]] bool stop_requested() const noexcept { return context_.stop_requested(); }
    [[nodiscard]] stop_reason reason() const noexcept { return context_.reason(); }
    [[nodiscard]] cordon::deadline deadline() const noexcept { return context_.deadline(); }
    [[nodiscard]] inplace_stop_token token() const noexcept { return context_.stop_token(); }
    /// For operations: `op.with(scope.ctx())`.
    [[nodiscard]] const context& ctx() const noexcept { return context_; }

#if defined(__cpp_lib_jthread)
    /// A standard token that is stopped with this scope.
    /// Errors:        `std::logic_error` if there is a deadline and no executor that could fire it
    /// Cost:          one allocation, the first time
    [[nodiscard]] std::stop_token std_stop_token() {
        if (!deadline().is_never() && !context_.executor())
            detail::raise(std::logic_error("std_stop_token of a scope with a deadline but without an executor: nobody "
                                           "would fire its timer; pass an executor to the scope"),
                          "std_stop_token of a scope with a deadline but without an executor");
        const detail::spin_guard guard(exporting_);
        if (!exported_) exported_.emplace(token());
        return exported_->get_token();
    }
#endif

private:
    class own_scope final : public detail::deadline_scope {
    public:
        own_scope(const context& outer, cordon::deadline own, const std::source_location& where) noexcept
            : deadline_scope(detail::context_access::scope_of(outer), outer.deadline(), own, outer.executor(), where) {}
        /// Not left to the base: the timer may be firing on another thread, and calls virtual functions of this object.
        ~own_scope() { disarm(); }
    };

    cancel_scope(cordon::deadline until, const context& outer, const std::source_location& where)
        : scope_(outer, until, where),
          context_(detail::context_access::with_scope(outer, scope_, until < outer.deadline() ? until : outer.deadline())) {
        scope_.arm();
    }
    /// A deadline that has passed already stops, unless a parent has done so.
    void notice(cordon::deadline until) noexcept {
        if (until.expired()) scope_.expire(clock::now());
    }

    own_scope scope_;
    context context_;
#if defined(__cpp_lib_jthread)
    std::optional<detail::std_stop_parent> adopted_;
    detail::spin_lock exporting_;  ///< for exported_; held across one allocation, once
    std::optional<detail::std_stop_child> exported_;
#endif
};

}  // namespace cordon::inline CORDON_ABI
