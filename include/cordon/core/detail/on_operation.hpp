// SPDX-License-Identifier: MIT
#pragma once

// An operation on another executor, whose awaiting side goes on where it came from.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>

#include <concepts>
#include <coroutine>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An operation during which a dump shows the awaiting task as waiting. A simulation runs it as a step of its own.
template <class O>
concept runs_a_function = requires {
    { O::waits_for() } -> std::same_as<const wait_label&>;
};

template <operation O>
class on_operation : public operation_base<on_operation<O>> {
public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = false;
    static constexpr bool borrows = borrowing<O>;

    on_operation(executor_ref there, O&& op) : there_(there), op_(std::move(op)) {}

    class state : private receiver, private work_item {
    public:
        explicit state(on_operation&& o)
            : receiver(&context_, nullptr, {}, &state::ended), work_item(&state::arrive), there_(o.there_),
              inner_(std::move(o.op_)) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            if (!there_) fail("on(): there is no executor");
            if (simulated_here() && !there_.is_current()) {
                if constexpr (runs_a_function<O>) there_ = r.ctx().executor();
                else fail("on(): inside a simulation nothing runs on another executor");
            }
            record = r.record();
            up = r;
            context_access::arm(r.ctx());  // before another thread can see the scopes above
            context_ = context_access::with_executor(r.ctx(), there_);
            if constexpr (runs_a_function<O>) note_wait(r, O::waits_for());
            submit(context_, *this);
            return std::noop_coroutine();
        }
        outcome<value_type> take() noexcept { return inner_.take(); }

    private:
        static void arrive(work_item& item) noexcept {
            auto& s = static_cast<state&>(item);
            resume(s.inner_.ready() ? s.go_home(false) : s.inner_.start(receiver_ref(static_cast<receiver&>(s))));
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) discard(child);
            return s.go_home(stopped);
        }
        std::coroutine_handle<> go_home(bool stopped) noexcept {
            if constexpr (runs_a_function<O>) note_running(up);
            return home_.go(up, stopped);
        }

        executor_ref there_;
        context context_;
        typename O::state inner_;
        homecoming home_;
    };

private:
    executor_ref there_;
    O op_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
