// SPDX-License-Identifier: MIT
// expect: guarded([&] { return fetch(); }), not guarded(fetch())
#include <cordon/core/task.hpp>
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/timeout.hpp>

#include <chrono>

cordon::task<int> fetch();

void f(const cordon::any_pipeline<int>& guarded) {
    guarded(fetch());
}
