// SPDX-License-Identifier: MIT
// expect: cache: the call does not give what the cache keeps
#include <cordon/core/task.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/pipeline.hpp>

#include <string>

cordon::task<> f(cordon::cache<int, std::string>& names) {
    const auto guarded = cordon::pipeline(names.for_key(1));
    const auto call = []() -> cordon::task<int> { co_return 1; };
    co_await guarded(call);
}
