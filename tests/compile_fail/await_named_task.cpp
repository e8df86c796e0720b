// SPDX-License-Identifier: MIT
// expect: a cordon operation or task that has a name is awaited with std::move
#include <cordon/core/task.hpp>

cordon::task<> f(cordon::task<int> t) { co_await t; }
