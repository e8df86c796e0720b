// SPDX-License-Identifier: MIT
// A value for a key lies in the frame that awaits, where the compilers would misplace it.
// expect: over-aligned, and coroutine frames are not: give it a std::unique_ptr
#include <cordon/core/context.hpp>
#include <cordon/core/task.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/time/sleep.hpp>

#include <chrono>

struct alignas(64) wide {
    int n = 0;
};
inline constexpr cordon::context_key<wide> key{"wide"};

cordon::task<> f() { co_await cordon::with(cordon::sleep_for(std::chrono::seconds(1)), key(wide())); }
