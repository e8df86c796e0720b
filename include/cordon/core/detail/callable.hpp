// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/task.hpp>

#include <concepts>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// What can be run as a task of its own: something to await, or a callable that makes one. The callable is kept in the
/// frame of the task, so that the captures of a lambda live as long as its coroutine.
template <class A>
concept runnable = awaitable<A> || (std::invocable<std::decay_t<A>&> && awaitable<std::invoke_result_t<std::decay_t<A>&>>);

namespace detail {

/// What is started, and not awaited where it is described, runs when the temporaries of its description are gone.
template <class O>
consteval void check_lives_on() {
    static_assert(!borrowing<O>, "this refers to an argument that may be gone when it runs: spawn a callable that "
                                 "awaits it");
}

/// How a callable is kept while it is used: a temporary by value, a named one by reference.
template <class F>
using kept_t = std::conditional_t<std::is_lvalue_reference_v<F>, F, std::remove_cvref_t<F>>;

// GCC warns of the frame if the lambda in it belongs to one file alone and that is not the main one: a unity build.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif
template <class F>
task<await_result_t<std::invoke_result_t<F&>>> call(F f) {
    co_return co_await f();
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

/// Awaits what `fn` makes of `element`.
template <class F, class Element>
task<void> call_with(F& fn, Element element) {
    co_await fn(std::forward<Element>(element));
}

/// The operation that a runnable is, stands for or makes.
template <class A>
auto operation_of_runnable(A&& a) {
    if constexpr (awaitable<A>) return operation_of(std::forward<A>(a));
    else return call<std::decay_t<A>>(std::forward<A>(a));
}
template <class A>
using runnable_operation = decltype(operation_of_runnable(std::declval<A>()));
template <class A>
using runnable_result_t = typename runnable_operation<A>::value_type;

/// A task without a result that runs `op`: what a group keeps as a child.
template <operation O>
task<void> discard_result(O op) {
    (void)co_await std::move(op);
}

template <class A>
task<void> as_child(A&& a) {
    check_lives_on<runnable_operation<A>>();
    auto op = operation_of_runnable(std::forward<A>(a));
    if constexpr (std::is_same_v<decltype(op), task<void>>) return op;
    else return discard_result(std::move(op));
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
