// SPDX-License-Identifier: MIT
// expect: for a function that returns its result use call_blocking(guarded, f)
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>

void f() {
    const auto guarded = cordon::pipeline(cordon::retry(3));
    guarded([] { return 1; });
}
