// SPDX-License-Identifier: MIT
// expect: this cannot be awaited
#include <cordon/core/task.hpp>

cordon::task<> f() { co_await 42; }
