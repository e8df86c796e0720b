// SPDX-License-Identifier: MIT
#pragma once

// A call that blocks its thread, made where that harms nobody:
//
//     std::string text = co_await run_blocking(disk, [&] { return read_file(path); });

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/std_stop_token.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/run/on.hpp>

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

#if defined(__cpp_lib_jthread)
template <class F>
concept takes_stop_token = std::invocable<F&, std::stop_token>;
#else
template <class F>
concept takes_stop_token = false;
#endif

/// Calls `f`, with a token if it takes one.
template <class F>
decltype(auto) call_blocking(F& f, const context& ctx) {
#if defined(__cpp_lib_jthread)
    if constexpr (takes_stop_token<F>) {
        std_stop_child token(ctx.stop_token());
        return f(token.get_token());
    } else
#endif
    {
        static_cast<void>(ctx);
        return f();
    }
}
template <class F>
using blocking_return_t = decltype(call_blocking(std::declval<F&>(), std::declval<const context&>()));

/// Calls a function to its end inside `start`.
template <class F>
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
            const executor_entry apart(nullptr, clock::now());  // this thread may block now
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
                call_blocking(f_, ctx);
                result_.emplace();
            } else if constexpr (std::is_reference_v<value_type>) {
                result_.emplace(std::in_place, std::addressof(call_blocking(f_, ctx)));
            } else {
                result_.emplace(std::in_place, call_blocking(f_, ctx));
            }
        }

        F f_;
        std::optional<outcome<value_type>> result_;
    };

private:
    F f_;
};

}  // namespace detail

/// Calls `f()`, or `f(std::stop_token)` if it takes one, on `there`, and goes on where it came from.
/// `f` may block: inside it the thread does not count as running an executor, so `x_blocking` and `sync_wait` are
/// allowed. For a coroutine use `on`.
/// Returns:       what `f` returns: a value, an lvalue reference, nothing
/// Errors:        what `f` throws; but `canceled` is a stop again, and `rejected` a refusal
/// Cancellation:  stopped before `f` begins, `f` is not called. Once it has begun it is waited for: its token is
///                stopped with the awaiting context, and a value that it returns all the same is not lost. While it
///                waits for a thread of `there`, a stop is noticed when its turn comes
/// Threads:       `there` needs a thread for each call that blocks at the same time: a `thread_pool` of its own. In a
///                simulation `f` is called by the simulation, as one step
/// Lifetime:      a temporary `f` is kept until the end; a named one is used where it is
/// Cost:          a submission in each direction; no frame. A token allocates once
template <class F>
    requires detail::takes_stop_token<F> || std::invocable<F&>
[[nodiscard]] auto run_blocking(executor_ref there, F&& f) {
    detail::check_callable<F>();
    using call = detail::blocking_call<detail::kept_t<F>>;
    static_assert(!awaitable<typename call::value_type>,
                  "run_blocking calls an ordinary function; for one that returns something to await use on(executor, f)");
    return detail::on_operation<call>(there, call(std::forward<F>(f)));
}

}  // namespace cordon::inline CORDON_ABI
