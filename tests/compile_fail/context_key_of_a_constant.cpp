// SPDX-License-Identifier: MIT
// A key that could not work is refused [C-023].
// expect: a context value is a plain object type
#include <cordon/core/context.hpp>

inline constexpr cordon::context_key<const int> key{"key"};
