// SPDX-License-Identifier: MIT
#pragma once

// Work that a stop must not interrupt half-way, for a bounded time: `co_await shield(commit(), 2s)`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/scope/with.hpp>

#include <atomic>
#include <chrono>
#include <optional>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A scope that learns of its parent's stop only when its bound passes.
class shielding_scope final : public scope, private timer {
public:
    shielding_scope(const context& outer, deadline lifted_at) noexcept
        : scope(context_access::scope_of(outer)), timer(&shielding_scope::lifted), executor_(outer.executor()) {
        when = lifted_at.time();
    }
    ~shielding_scope() { disarm(); }
    void disarm() noexcept {
        if (!armed()) return;
        if (executor_ && !deadline::at(when).is_never()) executor_.timers().cancel(*this);
        unlink_from_parent();
    }

private:
    void on_arm() noexcept override {
        if (executor_ && !deadline::at(when).is_never()) executor_.timers().arm(*this);
    }
    [[nodiscard]] bool stops_when_armed() const noexcept override { return false; }
    [[nodiscard]] bool shields() const noexcept override { return true; }
    void on_expire(clock::time_point now) noexcept override {
        if (when <= now) lift();
    }
    void lift() noexcept {
        if (!is_lifted_.exchange(true, std::memory_order_relaxed)) link_to_parent();
    }
    static void lifted(timer& t) noexcept { static_cast<shielding_scope&>(t).lift(); }

    executor_ref executor_;
    std::atomic<bool> is_lifted_{false};  ///< by the timer, or by whoever polls: once
};

class shield_attribute {
public:
    static constexpr bool needs_executor = true;

    explicit shield_attribute(clock::duration bound) noexcept : bound_(bound) {}

    class layer {
    public:
        explicit layer(shield_attribute&& a) noexcept : bound_(a.bound_) {}
        const context& enter(const context& outer, task_record*) noexcept {
            const deadline lifted_at = deadline::after(bound_);
            const bool never = outer.deadline().is_never();
            scope_.emplace(outer, lifted_at);
            ctx_ = context_access::with_scope(
                outer, *scope_, never || outer.deadline() > lifted_at ? outer.deadline() : lifted_at);
            return ctx_;
        }
        void leave() noexcept { scope_->disarm(); }

    private:
        clock::duration bound_;
        std::optional<shielding_scope> scope_;
        context ctx_;
    };

private:
    clock::duration bound_;
};

}  // namespace detail

/// Runs `a` with the stop and the deadline around it held back, for at most `bound` from when it starts. After that a
/// stop that is pending is delivered, and `a` runs on unprotected.
/// Cancellation:  no cancel point until `bound` has passed. A stop that arrived meanwhile is delivered at the next
///                cancel point after the region
/// Cost:          no frame, no allocation; one timer if it suspends
template <class Rep, class Period, awaitable A>
[[nodiscard]] auto shield(A&& a, std::chrono::duration<Rep, Period> bound) {
    return with(std::forward<A>(a), detail::shield_attribute(detail::saturated(bound)));
}
template <class Rep, class Period, detail::named_operation A>
void shield(A&&, std::chrono::duration<Rep, Period>) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
