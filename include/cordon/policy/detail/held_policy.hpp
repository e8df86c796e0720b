// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>

#include <concepts>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// How a pipeline keeps a policy: one that has a name and cannot be copied by reference, the others by value.
template <class P>
class held_policy {
public:
    template <class Q>
    explicit held_policy(Q&& p) : policy_(std::forward<Q>(p)) {}
    [[nodiscard]] P& get() noexcept { return policy_; }
    [[nodiscard]] const P& get() const noexcept { return policy_; }

private:
    P policy_;
};
template <class P>
class held_policy<P&> {
public:
    explicit held_policy(P& p) noexcept : policy_(&p) {}
    [[nodiscard]] P& get() const noexcept { return *policy_; }

private:
    P* policy_;
};
template <class P>
using kept_policy = std::conditional_t<kept_by_reference<P>, P, std::decay_t<P>>;

template <class P>
consteval void check_policy() {
    static_assert(std::is_lvalue_reference_v<P> || std::move_constructible<P>,
                  "pipeline: a guard has an identity, and is shared by reference: give it a name that outlives the "
                  "pipeline, and pass that");
}

/// What is called with a call, and perhaps a classifier, and gives something to await.
template <class P, class... Given>
concept policy_around = std::invocable<P, Given...> && awaitable<std::invoke_result_t<P, Given...>>;

template <class P, class... Given>
consteval void check_policy_around() {
    static_assert(policy_around<P, Given...>,
                  "pipeline: a policy is called with a call, and returns something to await: "
                  "template <class Call> auto operator()(Call call) const { ... co_await call() ... }");
}

/// Says what a pipeline can call.
template <class F>
consteval void refuse_call() {
    static_assert(makes_awaitable<F>,
                  "pipeline: it calls what returns something to await, as often as it is tried: "
                  "guarded([&] { return fetch(); }), not guarded(fetch()); for a function that returns its result "
                  "use call_blocking(guarded, f)");
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
