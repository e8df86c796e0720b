// SPDX-License-Identifier: MIT
// Only GCC before 13 destroys such a lambda twice, and only there it is refused.
// expect: name the callable first
#include <cordon/core/task.hpp>
#include <cordon/run/on.hpp>

#include <string>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
cordon::task<> f(cordon::executor_ref there, std::string text) {
    co_await cordon::on(there, [text]() -> cordon::task<> {  // gcc12-ok: it is refused
        (void)text;
        co_return;
    });
}
#else
#error "name the callable first: not needed here"
#endif
