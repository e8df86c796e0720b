// SPDX-License-Identifier: MIT
#pragma once

// How an operation ended, as a value: `outcome<int> o = co_await as_outcome(op)`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>

#include <coroutine>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// `always` also holds a stop of the awaiting side's own context back, for combinators that pass it on themselves.
template <operation O, bool always>
class outcome_operation : public operation_base<outcome_operation<O, always>> {
public:
    using value_type = outcome<typename O::value_type>;
    static constexpr bool needs_executor = O::needs_executor;
    static constexpr bool borrows = borrowing<O>;

    explicit outcome_operation(O&& description) : op_(std::move(description)) {}

    class state : private receiver {
    public:
        explicit state(outcome_operation&& o) : receiver(nullptr, nullptr, {}, &state::ended), inner_(std::move(o.op_)) {}

        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            ctx = &r.ctx();
            record = r.record();
            up = r;
            return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<value_type> take() noexcept {
            if (stopped_) return outcome<value_type>(std::in_place, value_type::stopped());
            return outcome<value_type>(std::in_place, inner_.take());
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) {
                discard(child);
                if (!always && s.ctx->stop_requested()) return s.up.stop();
                s.stopped_ = true;
            }
            return s.up.complete();
        }
        typename O::state inner_;
        bool stopped_ = false;
    };

private:
    O op_;
};

template <class A>
auto settle(A&& a) {
    return outcome_operation<operation_for<A>, true>(operation_of(std::forward<A>(a)));
}

}  // namespace detail

/// Runs `a` and yields its outcome instead of throwing.
/// Returns:       `outcome<T>`: stopped only if the stop came from inside `a`
/// Cancellation:  if the awaiting task's own context is stopped and `a` ends by it, the stop goes on up; a value or an
///                error that is there already still wins
/// Cost:          nothing beyond `a`; no frame, no allocation
template <awaitable A>
[[nodiscard]] auto as_outcome(A&& a) {
    return detail::outcome_operation<detail::operation_for<A>, false>(detail::operation_of(std::forward<A>(a)));
}
template <detail::named_operation A>
void as_outcome(A&&) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
