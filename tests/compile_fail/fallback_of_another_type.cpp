// SPDX-License-Identifier: MIT
// expect: fallback: the function returns neither what the call gives nor something to await that gives it
#include <cordon/core/task.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>

#include <string>

cordon::task<int> f() {
    const auto guarded =
        cordon::pipeline(cordon::fallback([](const cordon::failure&) { return std::string("unknown"); }));
    const auto call = []() -> cordon::task<int> { co_return 1; };
    co_return co_await guarded(call);
}
