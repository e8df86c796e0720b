// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>

#include <concepts>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// GCC before 13 destroys a temporary closure twice if it is part of a `co_await` expression and has captures by value
/// that need a destructor.
template <class F>
consteval void check_callable() {
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
    static_assert(awaitable<F> || std::is_lvalue_reference_v<F> || std::is_trivially_copyable_v<std::remove_cvref_t<F>>,
                  "name the callable first: GCC before 13 destroys a temporary lambda with such captures twice when it "
                  "is part of a co_await expression");
#endif
}

/// Whether a callable, or a policy, is kept by reference: it has a name and cannot be copied.
template <class F>
inline constexpr bool kept_by_reference = std::is_lvalue_reference_v<F> && !std::copy_constructible<std::decay_t<F>>;

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
