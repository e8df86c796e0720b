// SPDX-License-Identifier: MIT
// expect: single_flight: the call does not give what it is to share
#include <cordon/core/task.hpp>
#include <cordon/policy/single_flight.hpp>
#include <cordon/policy/pipeline.hpp>

#include <string>

cordon::task<> f(cordon::single_flight<int, std::string>& names) {
    const auto guarded = cordon::pipeline(names.for_key(1));
    const auto call = []() -> cordon::task<int> { co_return 1; };
    co_await guarded(call);
}
