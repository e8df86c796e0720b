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
#include <cstddef>
#include <memory>
#include <tuple>
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

/// What a call has to do with one guard: what it asks for, the wait for that if there is one, and what it was given.
template <operation Admission>
class admission_slot {
public:
    using permit = typename Admission::value_type;

    explicit admission_slot(Admission&& asks) : asks_(std::move(asks)) {}
    admission_slot(const admission_slot&) = delete;
    admission_slot& operator=(const admission_slot&) = delete;
    ~admission_slot() {
        if (asked_) [[unlikely]] std::destroy_at(std::addressof(waits_));
    }

    /// Whether there is a permit now. If not, `ask` in full.
    bool at_once() noexcept {
        if constexpr (admits_at_once<Admission>) {
            std::construct_at(std::addressof(permit_), asks_.at_once());  // over an empty one
            return static_cast<bool>(permit_);
        } else {
            return false;
        }
    }
    /// Whether there is an answer; else `start` waits for it.
    bool ask() noexcept {
        std::construct_at(std::addressof(waits_), std::move(asks_));
        asked_ = true;
        return waits_.ready();
    }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return waits_.start(r); }
    outcome<permit> answer() noexcept { return waits_.take(); }
    void keep(permit&& p) noexcept { permit_ = std::move(p); }
    void settle(verdict v) noexcept { permit_.settle(v); }

private:
    Admission asks_;
    union {
        typename Admission::state waits_;  ///< if asked_
    };
    permit permit_;
    bool asked_ = false;
};

/// A call behind one guard, or several that follow each other in a pipeline: they are asked from the outermost on, and
/// told how it ended from the innermost on.
template <class Admissions, operation O, class Judge>
class admitted_call;
template <operation... A, operation O, class Judge>
class admitted_call<std::tuple<A...>, O, Judge> : public operation_base<admitted_call<std::tuple<A...>, O, Judge>> {
    static constexpr std::size_t count = sizeof...(A);

public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = O::needs_executor || (A::needs_executor || ...);

    /// Asks only when it runs; keeps what it asks, since a guard may be a temporary.
    admitted_call(std::tuple<A...>&& asks, O&& op, const Judge& judge)
        : asks_(std::move(asks)), op_(std::move(op)), judge_(judge) {}

    class state : public policy_state<O> {
    public:
        explicit state(admitted_call&& a)
            : policy_state<O>(std::move(a.op_), &state::ended), slots_(std::move(a.asks_)), judge_(a.judge_) {}

        bool ready() noexcept { return goes_on<0>(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            return begin();
        }

    private:
        // Whether it is over: refused, or the call was ready at once. If not, it waits for the guard that at_ says, or
        // for the call. So do all three.
        template <std::size_t i>
        bool goes_on() noexcept {
            if constexpr (i < count) {
                return std::get<i>(slots_).at_once() ? goes_on<i + 1>() : ask<i>();
            } else {
                at_ = count;
                if (!this->call_.ready()) return false;
                settle<count>(this->call_.judged_by(judge_));
                return true;
            }
        }
        template <std::size_t i>
        CORDON_NOINLINE bool ask() noexcept {
            at_ = i;
            return std::get<i>(slots_).ask() && answered<i>();
        }
        template <std::size_t i>
        bool answered() noexcept {
            auto got = std::get<i>(slots_).answer();
            if (got.has_value()) {
                std::get<i>(slots_).keep(*std::move(got));
                return goes_on<i + 1>();
            }
            this->call_.end_with(as_failure<value_type>(got));
            if constexpr (i != 0) {
                const verdict v = judge_(*this->call_.failure());
                settle<i>(counts(v) ? v : verdict::stopped);  // it was not made
            }
            return true;
        }

        std::coroutine_handle<> begin() noexcept {
            if (at_ == count) [[likely]] return this->call_.start(this->here());
            return begin_wait<0>();
        }
        template <std::size_t i>
        std::coroutine_handle<> begin_wait() noexcept {
            if constexpr (i + 1 < count)
                if (at_ != i) return begin_wait<i + 1>();
            return std::get<i>(slots_).start(this->here());
        }
        template <std::size_t i>
        bool wait_ended() noexcept {
            if constexpr (i + 1 < count)
                if (at_ != i) return wait_ended<i + 1>();
            return answered<i>();
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] return s.ended_stopped(child);
            if (s.at_ == count) [[likely]] s.template settle<count>(s.call_.judged_by(s.judge_));
            else if (!s.template wait_ended<0>()) return s.begin();
            return s.up.complete();
        }
        CORDON_NOINLINE std::coroutine_handle<> ended_stopped(promise_base* child) noexcept {
            discard(child);
            give_back<count>();
            return this->up.stop();
        }
        /// Of those that have let it through, at_ in number.
        template <std::size_t n>
        void give_back() noexcept {
            if (at_ == n) settle<n>(verdict::stopped);
            else if constexpr (n != 0) give_back<n - 1>();
        }
        /// Tells the first `n` guards.
        template <std::size_t n>
        void settle(verdict v) noexcept {
            if constexpr (n != 0) {
                std::get<n - 1>(slots_).settle(v);
                settle<n - 1>(v);
            }
        }

        std::tuple<admission_slot<A>...> slots_;
        [[no_unique_address]] Judge judge_;
        std::size_t at_ = 0;  ///< the guard that it waits for; behind the last: the call
    };

private:
    std::tuple<A...> asks_;
    O op_;
    [[no_unique_address]] Judge judge_;
};

/// `f` behind all these guards.
template <class F, class Classifier, guard... G>
auto call_through_all(F&& f, const Classifier& classify, G&... g) {
    using op = decltype(call_of(std::forward<F>(f)));
    using admissions = std::tuple<decltype(g.admission())...>;
    return admitted_call<admissions, op, judge<Classifier>>(admissions(g.admission()...), call_of(std::forward<F>(f)),
                                                            judge<Classifier>(classify));
}
/// `g(f, classify)`, for each guard. One for which this is all says `using only_admits = void`: then it shares one
/// state with its neighbours in a pipeline.
template <guard G, class F, class Classifier>
auto call_through(G& g, F&& f, const Classifier& classify) {
    return call_through_all(std::forward<F>(f), classify, g);
}
template <class G>
concept only_admits = guard<G> && requires { typename G::only_admits; };

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
