// SPDX-License-Identifier: MIT
// expect: a policy is called with a call, and returns something to await
#include <cordon/core/task.hpp>
#include <cordon/policy/pipeline.hpp>

struct no_policy {
    template <class Call>
    int operator()(Call) const {
        return 1;
    }
};

cordon::task<int> f() {
    const auto guarded = cordon::pipeline(no_policy());
    const auto call = []() -> cordon::task<int> { co_return 1; };
    co_return co_await guarded(call);
}
