// SPDX-License-Identifier: MIT
// expect: a cordon operation or task that has a name is awaited with std::move
#include <cordon/core/task.hpp>
#include <cordon/sync/async_semaphore.hpp>

cordon::task<> f(cordon::async_semaphore& s) {
    auto permit = s.acquire();
    co_await permit;
}
