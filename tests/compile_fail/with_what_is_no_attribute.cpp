// SPDX-License-Identifier: MIT
// expect: with_attribute
#include <cordon/core/task.hpp>
#include <cordon/scope/with.hpp>

#include <chrono>
#include <utility>

cordon::task<> f(cordon::task<int> t) { co_await cordon::with(std::move(t), std::chrono::seconds(2)); }
