// SPDX-License-Identifier: MIT
// Only GCC before 13 destroys such a lambda twice, and only there it is refused.
// expect: name the callable first
#include <cordon/core/task.hpp>
#include <cordon/scope/with_group.hpp>

#include <string>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
cordon::task<> f(std::string text) {
    // gcc12-ok: it is refused
    co_await cordon::with_group([text](cordon::task_group& group) -> cordon::task<> {
        group.request_stop(static_cast<int>(text.size()));
        co_return;
    });
}
#else
#error "name the callable first: not needed here"
#endif
