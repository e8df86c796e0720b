// SPDX-License-Identifier: MIT
#pragma once

// A call behind a guard: waits to be admitted, calls, and tells the guard what came of it.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>

#include <concepts>
#include <coroutine>
#include <memory>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What lets calls through: `admission()` is an operation that yields a permit, and a permit is told by `settle` how
/// the call ended. One that is dropped gives back what it holds, and counts for nothing.
template <class G>
concept guard = requires(G& g) {
    { g.admission() } -> operation;
    requires requires(typename decltype(g.admission())::value_type& permit, verdict v) {
        { permit.settle(v) } noexcept;
    };
};

/// An admission that can be had without its state, as most are: `at_once()` gives a permit, or an empty one, with
/// nothing taken or counted. Then the state is made, and asked.
template <class A>
concept admits_at_once = requires(A& a) {
    { a.at_once() } noexcept -> std::same_as<typename A::value_type>;
    { static_cast<bool>(a.at_once()) } noexcept;
};

template <guard G, operation O, class Judge>
class admitted_call : public operation_base<admitted_call<G, O, Judge>> {
    using admission = decltype(std::declval<G&>().admission());
    using permit = typename admission::value_type;

public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = O::needs_executor || admission::needs_executor;

    /// Asks the guard only when it runs; keeps what it asks, since the guard may be a temporary.
    admitted_call(G& g, O&& op, const Judge& judge) : asks_(g.admission()), op_(std::move(op)), judge_(judge) {}

    class state : public policy_state<O> {
    public:
        explicit state(admitted_call&& a)
            : policy_state<O>(std::move(a.op_), &state::ended), asks_(std::move(a.asks_)), judge_(a.judge_) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        ~state() {
            if (asked_) [[unlikely]] std::destroy_at(std::addressof(admission_));
        }

        bool ready() noexcept {
            if constexpr (admits_at_once<admission>) {
                std::construct_at(std::addressof(permit_), asks_.at_once());  // over an empty one
                if (permit_) [[likely]] return call();
            }
            return ask();
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            return calling_ ? this->call_.start(this->here()) : admission_.start(this->here());
        }

    private:
        /// Whether it is over already: refused, or the call was ready at once. So does `admitted`, and so does `call`.
        CORDON_NOINLINE bool ask() noexcept {
            std::construct_at(std::addressof(admission_), std::move(asks_));
            asked_ = true;
            return admission_.ready() && admitted();
        }
        bool admitted() noexcept {
            outcome<permit> got = admission_.take();
            if (!got.has_value()) [[unlikely]] {
                this->call_.end_with(as_failure<value_type>(got));
                return true;
            }
            permit_ = *std::move(got);
            return call();
        }
        bool call() noexcept {
            calling_ = true;
            if (!this->call_.ready()) return false;
            permit_.settle(this->call_.judged_by(judge_));
            return true;
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] {
                discard(child);
                if (s.calling_) s.permit_.settle(verdict::stopped);
                return s.up.stop();
            }
            if (s.calling_) s.permit_.settle(s.call_.judged_by(s.judge_));
            else if (!s.admitted()) return s.call_.start(s.here());
            return s.up.complete();
        }

        admission asks_;
        union {
            typename admission::state admission_;  ///< if asked_
        };
        permit permit_;
        [[no_unique_address]] Judge judge_;
        bool asked_ = false;
        bool calling_ = false;
    };

private:
    admission asks_;
    O op_;
    [[no_unique_address]] Judge judge_;
};

/// `g(f, classify)`, for each guard.
template <guard G, class F, class Classifier>
auto call_through(G& g, F&& f, const Classifier& classify) {
    using op = decltype(call_of(std::forward<F>(f)));
    return admitted_call<G, op, judge<Classifier>>(g, call_of(std::forward<F>(f)), judge<Classifier>(classify));
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
