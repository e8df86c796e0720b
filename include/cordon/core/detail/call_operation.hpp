// SPDX-License-Identifier: MIT
#pragma once

// What a guard or a policy is given to do: a callable, which makes something to await when, and as often as, it is
// called.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <concepts>
#include <coroutine>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class F>
concept makes_awaitable = std::invocable<F&> && awaitable<std::invoke_result_t<F&>>;

/// Calls `f` when it starts, and is what `f` returns. What the call throws is an error of the operation; a `rejected`
/// is a refusal, and a `canceled` a stop, as in a task.
template <makes_awaitable F>
class call_operation : public operation_base<call_operation<F>> {
    using made = operation_for<std::invoke_result_t<F&>>;

public:
    using value_type = typename made::value_type;
    static constexpr bool needs_executor = made::needs_executor;

    explicit call_operation(F&& f) noexcept(std::is_nothrow_move_constructible_v<F>) : f_(std::move(f)) {}

    class state {
    public:
        explicit state(call_operation&& c) noexcept(std::is_nothrow_move_constructible_v<F>) : f_(std::move(c.f_)) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        ~state() { drop(); }

        bool ready() noexcept {
            make();
            return phase_ == phase::made ? inner_.ready() : phase_ != phase::stopped;
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            if (phase_ == phase::stopped) [[unlikely]] return r.stop_later();
            return inner_.start(r);
        }
        outcome<value_type> take() noexcept {
            if (failed()) [[unlikely]] return failure();
            return inner_.take();
        }
        value_type get() {
            if (failed()) [[unlikely]] return failure().value();
            if constexpr (requires { inner_.get(); }) return inner_.get();
            else return inner_.take().value();
        }

        [[nodiscard]] bool has_value() const noexcept
            requires shows_value<typename made::state>
        {
            return !failed() && inner_.has_value();
        }
        [[nodiscard]] const auto& peek() const noexcept
            requires shows_value<typename made::state>
        {
            return inner_.peek();
        }

        /// Forgets what came of the call; `ready()` calls again.
        void drop() noexcept {
            if (phase_ == phase::made) std::destroy_at(std::addressof(inner_));
            else if (phase_ == phase::threw) [[unlikely]] std::destroy_at(std::addressof(error_));
            phase_ = phase::uncalled;
        }

    private:
        enum class phase : unsigned char { uncalled, made, threw, refused, stopped };

        [[nodiscard]] bool failed() const noexcept { return phase_ != phase::made; }
        CORDON_NOINLINE outcome<value_type> failure() const noexcept {
            return phase_ == phase::threw ? outcome<value_type>(error_) : outcome<value_type>(refusal_);
        }
        void make() noexcept {
#if defined(__cpp_exceptions)
            try {
                std::construct_at(std::addressof(inner_), operation_of(f_()));
                phase_ = phase::made;
            } catch (const canceled&) {
                phase_ = phase::stopped;
            } catch (const rejected& r) {
                std::construct_at(std::addressof(refusal_), r.rejection());
                phase_ = phase::refused;
            } catch (...) {
                std::construct_at(std::addressof(error_), std::current_exception());
                phase_ = phase::threw;
            }
#else
            std::construct_at(std::addressof(inner_), operation_of(f_()));
            phase_ = phase::made;
#endif
        }

        F f_;
        union {
            typename made::state inner_;
            std::exception_ptr error_;
            rejection refusal_;
        };
        phase phase_ = phase::uncalled;
    };

private:
    F f_;
};

/// Stands for a callable that has a name and cannot be copied.
template <class F>
class call_ref {
public:
    explicit call_ref(F& f) noexcept : f_(std::addressof(f)) {}
    decltype(auto) operator()() const { return (*f_)(); }

private:
    F* f_;
};

/// How a callable is kept until the call has ended.
template <class F>
using kept_call = std::conditional_t<kept_by_reference<F>, call_ref<std::remove_reference_t<F>>, std::decay_t<F>>;

template <class F>
call_operation<kept_call<F>> call_of(F&& f) {
    check_callable<F>();
    return call_operation<kept_call<F>>(kept_call<F>(std::forward<F>(f)));
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
