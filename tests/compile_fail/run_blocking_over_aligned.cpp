// SPDX-License-Identifier: MIT
// What a blocking call returns lies in the frame that awaits it, where the compilers would misplace it.
// expect: over-aligned, and coroutine frames are not: give it a std::unique_ptr
#include <cordon/core/task.hpp>
#include <cordon/run/run_blocking.hpp>
#include <cordon/run/thread_pool.hpp>

struct alignas(64) wide {
    int n = 0;
};

cordon::task<int> f(cordon::thread_pool& disk) {
    const auto make = [] { return wide(); };
    co_return (co_await cordon::run_blocking(disk, make)).n;
}
