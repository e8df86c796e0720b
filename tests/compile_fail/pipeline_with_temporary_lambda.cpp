// SPDX-License-Identifier: MIT
// Only GCC before 13 destroys such a lambda twice, and only there it is refused.
// expect: name the callable first
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>

#include <string>

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13
cordon::task<int> f(std::string text) {
    const auto guarded = cordon::pipeline(cordon::retry(3));
    co_return co_await guarded([text]() -> cordon::task<int> {  // gcc12-ok: it is refused
        co_return static_cast<int>(text.size());
    });
}
#else
#error "name the callable first: not needed here"
#endif
