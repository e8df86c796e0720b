// SPDX-License-Identifier: MIT
// expect: inplace_stop_callback needs a callable without parameters
#include <cordon/core/stop_token.hpp>

struct needs_an_argument {
    void operator()(int) const noexcept;
};
void f(cordon::inplace_stop_token token) { cordon::inplace_stop_callback callback(token, needs_an_argument()); }
