// SPDX-License-Identifier: MIT
// expect: fallback: the function returns neither what the call gives nor something to await that gives it
#include <cordon/core/task.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>

#include <string>

cordon::task<int> f() {
    const auto answer = [](const cordon::failure&) -> cordon::task<std::string> { co_return "unknown"; };
    const auto guarded = cordon::pipeline(cordon::fallback(answer));
    const auto call = []() -> cordon::task<int> { co_return 1; };
    co_return co_await guarded(call);
}
