// SPDX-License-Identifier: MIT
#pragma once

// An ordinary function as an operation, which may block the thread that it is called on.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/std_stop_token.hpp>
#include <cordon/core/task_record.hpp>

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>
#if defined(__cpp_lib_jthread)
#include <stop_token>
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label blocking_label{"run_blocking"};

/// Takes what tells a blocking call when to stop: a `blocking_scope`, say, which a context converts to. Asked before
/// takes_stop_token, since a token converts to one as well.
template <class F>
concept takes_scope = std::invocable<F&, const context&>;
#if defined(__cpp_lib_jthread)
template <class F>
concept takes_stop_token = !takes_scope<F> && std::invocable<F&, std::stop_token>;
#else
template <class F>
concept takes_stop_token = false;
#endif

/// An ordinary function, which may block.
template <class F>
concept blocking_function = takes_scope<F> || takes_stop_token<F> || std::invocable<F&>;

/// Calls `f`, with what tells it when to stop if it takes that.
template <blocking_function F>
decltype(auto) call_function(F& f, const context& ctx) {
    if constexpr (takes_scope<F>) {
        return f(ctx);
    } else if constexpr (takes_stop_token<F>) {
#if defined(__cpp_lib_jthread)
        std_stop_child token(ctx.stop_token());
        return f(token.get_token());
#endif
    } else {
        return f();
    }
}
template <class F>
using blocking_return_t = decltype(call_function(std::declval<F&>(), std::declval<const context&>()));

/// Calls a function to its end inside `start`.
template <blocking_function F>
class blocking_call : public operation_base<blocking_call<F>> {
    using returned = blocking_return_t<F>;

public:
    using value_type =
        std::conditional_t<std::is_lvalue_reference_v<returned>, returned, std::remove_cvref_t<returned>>;
    static constexpr bool needs_executor = false;
    static const wait_label& waits_for() noexcept { return blocking_label; }

    explicit blocking_call(F&& f) : f_(std::forward<F>(f)) {}

    class state {
    public:
        explicit state(blocking_call&& c) : f_(std::forward<F>(c.f_)) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            if (!r.ctx().stop_requested()) run(r.ctx());
            return result_ ? r.complete() : r.stop_later();
        }
        outcome<value_type> take() noexcept { return *std::move(result_); }

    private:
        /// Leaves no result if `f` was stopped.
        void run(const context& ctx) noexcept {
            const executor_entry apart(nullptr, {});  // this thread may block now
#if defined(__cpp_exceptions)
            try {
                call(ctx);
            } catch (const canceled&) {
            } catch (const rejected& refused) {
                result_.emplace(refused.rejection());
            } catch (...) {
                result_.emplace(std::current_exception());
            }
#else
            call(ctx);
#endif
        }
        void call(const context& ctx) {
            if constexpr (std::is_void_v<value_type>) {
                call_function(f_, ctx);
                result_.emplace();
            } else if constexpr (std::is_reference_v<value_type>) {
                result_.emplace(std::in_place, std::addressof(call_function(f_, ctx)));
            } else {
                result_.emplace(std::in_place, call_function(f_, ctx));
            }
        }

        F f_;
        std::optional<outcome<value_type>> result_;
    };

private:
    F f_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
