// SPDX-License-Identifier: MIT
// expect: call_blocking calls an ordinary function; for one that returns something to await use sync_wait
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/run/call_blocking.hpp>

bool f() {
    const auto make = []() -> cordon::task<int> { co_return 1; };
    return cordon::call_blocking(cordon::pipeline(), make).has_value();
}
