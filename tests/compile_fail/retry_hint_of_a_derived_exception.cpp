// SPDX-License-Identifier: MIT
// expect: retry: the hint of `honoring` takes neither what the call gives nor `const std::exception&`
#include <cordon/core/task.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/run/sync_wait.hpp>

#include <chrono>
#include <system_error>

cordon::task<int> call() { co_return 1; }

int main() {
    const auto hint = [](const std::system_error&) { return std::chrono::hours(1); };
    const auto twice = cordon::retry(2).honoring(hint);
    return cordon::sync_wait(twice(call));
}
