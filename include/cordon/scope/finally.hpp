// SPDX-License-Identifier: MIT
#pragma once

// Cleanup that must await: `co_await finally(use(connection), [&] { return connection.close(); }, 2s)`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/shield.hpp>

#include <chrono>
#include <coroutine>
#include <optional>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <operation O, class F>
class finally_operation : public operation_base<finally_operation<O, F>> {
    using cleanup_operation = decltype(settle(shield(std::declval<F&>()(), clock::duration())));

public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = true;

    finally_operation(O&& op, F&& cleanup, clock::duration bound)
        : op_(std::move(op)), cleanup_(std::forward<F>(cleanup)), bound_(bound) {}

    class state : private receiver, private work_item {
    public:
        explicit state(finally_operation&& f)
            : receiver(nullptr, nullptr, {}, &state::ended), work_item(&state::clean_up), op_(std::move(f.op_)),
              make_cleanup_(std::forward<F>(f.cleanup_)), bound_(f.bound_) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            ctx = &r.ctx();
            record = r.record();
            up = r;
            if (op_.ready()) return ended(*this, nullptr, false);
            return op_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<value_type> take() noexcept {
            if (!cleaned_up_.has_value() && result_->has_value()) return as_failure<value_type>(cleaned_up_);
            return *std::move(result_);
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) discard(child);
            s.result_.emplace(stopped ? outcome<value_type>::stopped() : s.op_.take());
            submit(*s.ctx, s);
            return std::noop_coroutine();
        }
        static void clean_up(work_item& item) noexcept {
            auto& s = static_cast<state&>(item);
#if defined(__cpp_exceptions)
            try {
                s.cleanup_.emplace(settle(shield(s.make_cleanup_(), s.bound_)));
            } catch (...) {
                s.cleaned_up_ = outcome<void>(std::current_exception());
                return resume(cleaned(s, nullptr, false));
            }
#else
            s.cleanup_.emplace(settle(shield(s.make_cleanup_(), s.bound_)));
#endif
            s.done = &state::cleaned;
            resume(s.cleanup_->ready() ? cleaned(s, nullptr, false)
                                       : s.cleanup_->start(receiver_ref(static_cast<receiver&>(s))));
        }
        static std::coroutine_handle<> cleaned(receiver& self, promise_base*, bool) noexcept {
            auto& s = static_cast<state&>(self);
            if (s.cleanup_) {
                auto ended = *s.cleanup_->take();
                if (!ended.has_value() && !ended.is_stopped()) s.cleaned_up_ = as_failure<void>(ended);
            }
            return s.result_->is_stopped() ? s.up.stop_later() : s.up.complete();
        }

        typename O::state op_;
        std::optional<outcome<value_type>> result_;
        F make_cleanup_;
        clock::duration bound_;
        std::optional<typename cleanup_operation::state> cleanup_;
        outcome<void> cleaned_up_;
    };

private:
    O op_;
    F cleanup_;
    clock::duration bound_;
};

}  // namespace detail

/// Runs `a`, then what `cleanup()` returns: always, also when `a` failed or was stopped, and with a stop held back for
/// at most `bound`, as `shield` does.
/// Returns:       what `a` ended with; the cleanup's error only if `a` had a value
/// Cancellation:  what has not begun is not cleaned up: a child of a group that is stopped before it runs does neither.
///                A stop during `a` ends `a`, then cleans up, then goes on up. A stop during the cleanup, even one that
///                cuts it short, takes away nothing that `a` ended with
/// Cost:          no frame of its own
template <awaitable A, class F, class Rep, class Period>
    requires std::invocable<std::remove_reference_t<F>&> && awaitable<std::invoke_result_t<std::remove_reference_t<F>&>>
[[nodiscard]] auto finally(A&& a, F&& cleanup, std::chrono::duration<Rep, Period> bound) {
    detail::check_callable<F>();
    return detail::finally_operation<detail::operation_for<A>, detail::kept_t<F>>(
        detail::operation_of(std::forward<A>(a)), std::forward<F>(cleanup), detail::saturated(bound));
}

}  // namespace cordon::inline CORDON_ABI
