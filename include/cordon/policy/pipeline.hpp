// SPDX-License-Identifier: MIT
#pragma once

// Policies around a call, composed at compile time, outermost first.
//
//     auto guarded = pipeline(fallback(stale), timeout(2s), retry(3, {.budget = &budget}), breaker, timeout(500ms))
//                        .failing_when([](const reply& r) { return r.status >= 500; });
//     const reply r = co_await guarded([&] { return client.get("/stock"); });
//
// A policy is whatever is called with a call, `policy(call)` or `policy(call, classify)`, and gives something to await;
// `call()` gives something to await as well, each time it is called.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/detail/held_policy.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What is left of a pipeline behind its first policies, as a call; with none before it, the whole.
template <class Pipeline, std::size_t first, class F>
class rest_of_pipeline {
public:
    rest_of_pipeline(const Pipeline& p, F& f) noexcept : pipeline_(&p), f_(&f) {}
    decltype(auto) operator()() const {
        if constexpr (first == Pipeline::size) return (*f_)();
        else return pipeline_->template from<first>(*f_);
    }

private:
    const Pipeline* pipeline_;
    F* f_;
};

template <class Pipeline, class F>
class pipeline_operation : public operation_base<pipeline_operation<Pipeline, F>> {
    using whole = rest_of_pipeline<Pipeline, 0, F>;
    using outermost = call_operation<whole>;

public:
    using value_type = typename outermost::value_type;
    static constexpr bool needs_executor = outermost::needs_executor;

    pipeline_operation(const Pipeline& p, F&& f) : pipeline_(&p), f_(std::move(f)) {}

    class state {
    public:
        explicit state(pipeline_operation&& o)
            : f_(std::move(o.f_)), inner_(outermost(whole(*o.pipeline_, f_))) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;

        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return inner_.start(r); }
        outcome<value_type> take() noexcept { return inner_.take(); }
        value_type get() {
            if constexpr (requires { inner_.get(); }) return inner_.get();
            else return inner_.take().value();
        }
        [[nodiscard]] bool has_value() const noexcept
            requires shows_value<typename outermost::state>
        {
            return inner_.has_value();
        }
        [[nodiscard]] const auto& peek() const noexcept
            requires shows_value<typename outermost::state>
        {
            return inner_.peek();
        }

    private:
        F f_;
        typename outermost::state inner_;
    };

private:
    const Pipeline* pipeline_;
    F f_;
};

}  // namespace detail

/// Made by `pipeline(policies...)`; a policy itself. One that keeps a policy which cannot be copied cannot be copied
/// either, but moved.
/// Lifetime:      outlives its calls, and is not moved meanwhile; what it refers to outlives it
/// Threads:       any number of calls at the same time
template <class Classifier, class... P>
class policy_pipeline {
public:
    static constexpr std::size_t size = sizeof...(P);

    explicit policy_pipeline(std::tuple<detail::held_policy<P>...>&& policies, Classifier&& classify = {})
        : policies_(std::move(policies)), classify_(std::move(classify)) {}

    /// `call()` behind all the policies. A refusal calls nothing.
    /// Returns:       what the call gives, or a policy in its place; an `outcome` of it with `as_outcome`
    /// Errors:        what the call or a policy fails with; `rejected` if a guard refuses
    /// Cancellation:  what is stopped gives back what guards have granted, and counts nowhere
    /// Lifetime:      the callable is moved or copied, and lives until the operation ends; one that has a name and
    ///                cannot be copied is referred to
    /// Cost:          no allocation and no frame beyond the call's own, with the policies of this library
    template <class F>
        requires detail::makes_awaitable<std::decay_t<F>>
    [[nodiscard]] auto operator()(F&& call) const {
        detail::check_callable<F>();
        return detail::pipeline_operation<policy_pipeline, detail::kept_call<F>>(
            *this, detail::kept_call<F>(std::forward<F>(call)));
    }
    template <class F>
        requires(!detail::makes_awaitable<std::decay_t<F>>)
    void operator()(F&&) const {
        detail::refuse_call<F>();
    }

    /// The same, which also takes for a failure what `p` says: of a value, a `std::error_code`, a `std::exception` or
    /// `std::exception_ptr`, or a `rejection`. See `outcome_classifier`.
    template <class F>
    [[nodiscard]] auto failing_when(F p) && {
        auto classify = std::move(classify_).failing_when(std::move(p));
        return policy_pipeline<decltype(classify), P...>(std::move(policies_), std::move(classify));
    }
    /// The same, for which what `p` says counts as nothing: it is not retried, and no breaker counts it.
    template <class F>
    [[nodiscard]] auto ignoring(F p) && {
        auto classify = std::move(classify_).ignoring(std::move(p));
        return policy_pipeline<decltype(classify), P...>(std::move(policies_), std::move(classify));
    }

    /// The policy with this index, to change its numbers: `guarded.get<1>().set(...)`.
    template <std::size_t index>
    [[nodiscard]] auto& get() noexcept {
        return std::get<index>(policies_).get();
    }

private:
    template <class, std::size_t, class>
    friend class detail::rest_of_pipeline;

    template <std::size_t index>
    using policy_at = std::remove_reference_t<decltype(std::get<index>(
        std::declval<const std::tuple<detail::held_policy<P>...>&>()).get())>;
    /// Where the guards end that begin at `index`.
    template <std::size_t index>
    static constexpr std::size_t behind_guards() {
        if constexpr (index < size) {
            if constexpr (detail::only_admits<policy_at<index>>) return behind_guards<index + 1>();
        }
        return index;
    }
    template <std::size_t index, class F>
    [[nodiscard]] auto from(F& f) const {
        if constexpr (constexpr std::size_t behind = behind_guards<index>(); behind != index) {
            return [&]<std::size_t... i>(std::index_sequence<i...>) {
                detail::rest_of_pipeline<policy_pipeline, behind, F> rest(*this, f);
                return detail::call_through_all(rest, classify_, std::get<index + i>(policies_).get()...);
            }(std::make_index_sequence<behind - index>());
        } else {
            return behind_policy<index>(f);
        }
    }
    template <std::size_t index, class F>
    [[nodiscard]] auto behind_policy(F& f) const {
        detail::rest_of_pipeline<policy_pipeline, index + 1, F> rest(*this, f);
        auto& policy = std::get<index>(policies_).get();
        using policy_type = decltype(policy);
        if constexpr (detail::policy_around<policy_type, decltype(rest)&, const Classifier&>) {
            return policy(rest, classify_);
        } else if constexpr (detail::policy_around<policy_type, decltype(rest)&>) {
            return policy(rest);
        } else {
            detail::check_policy_around<policy_type, decltype(rest)&>();
            return detail::call_of(rest);  // fits, so that this is the only error
        }
    }

    std::tuple<detail::held_policy<P>...> policies_;
    [[no_unique_address]] Classifier classify_;
};

namespace detail {

template <class... P>
auto pipeline_of(P&&... policies) {
    (check_policy<P>(), ...);
    return policy_pipeline<outcome_classifier<>, kept_policy<P>...>(
        std::tuple<held_policy<kept_policy<P>>...>(held_policy<kept_policy<P>>(std::forward<P>(policies))...));
}

/// Which of them is the first that is referred to; how many they are if none is.
template <class... P>
inline constexpr std::size_t first_referred_to = [] {
    std::size_t n = 0;
    static_cast<void>(((kept_by_reference<P> || (++n, false)) || ...));
    return n;
}();
template <class... P>
inline constexpr bool all_referred_to = sizeof...(P) != 0 && (kept_by_reference<P> && ...);

}  // namespace detail

/// Composes policies, the outermost first. What has a name is referred to if it cannot be copied: a guard, and each
/// policy of this library that has figures or numbers of its own to change; it outlives the pipeline. A temporary is
/// moved in, and `get<index>()` is the way to it.
///
/// Clang warns of a function that returns a pipeline of its own variables, if all are named or one of the first three.
template <class... P>
[[nodiscard]] auto pipeline(P&&... policies) {
    return detail::pipeline_of<P...>(std::forward<P>(policies)...);
}
// The same, and what CORDON_LIFETIME_BOUND says; not of all parameters, or it would be said of temporaries too.
template <class... P>
    requires detail::all_referred_to<P...>
[[nodiscard]] auto pipeline(P&&... policies CORDON_LIFETIME_BOUND) {
    return detail::pipeline_of<P...>(std::forward<P>(policies)...);
}
template <class P, class... Q>
    requires(detail::first_referred_to<P, Q...> == 0 && !detail::all_referred_to<P, Q...>)
[[nodiscard]] auto pipeline(P&& first CORDON_LIFETIME_BOUND, Q&&... inner) {
    return detail::pipeline_of<P, Q...>(std::forward<P>(first), std::forward<Q>(inner)...);
}
template <class P, class Q, class... R>
    requires(detail::first_referred_to<P, Q, R...> == 1)
[[nodiscard]] auto pipeline(P&& first, Q&& second CORDON_LIFETIME_BOUND, R&&... inner) {
    return detail::pipeline_of<P, Q, R...>(std::forward<P>(first), std::forward<Q>(second), std::forward<R>(inner)...);
}
template <class P, class Q, class R, class... S>
    requires(detail::first_referred_to<P, Q, R, S...> == 2)
[[nodiscard]] auto pipeline(P&& first, Q&& second, R&& third CORDON_LIFETIME_BOUND, S&&... inner) {
    return detail::pipeline_of<P, Q, R, S...>(std::forward<P>(first), std::forward<Q>(second), std::forward<R>(third),
                                              std::forward<S>(inner)...);
}

}  // namespace cordon::inline CORDON_ABI
