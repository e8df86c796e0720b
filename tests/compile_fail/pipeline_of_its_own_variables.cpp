// SPDX-License-Identifier: MIT
// only: Clang
// flags: -Werror=return-stack-address
// expect: address of stack memory associated with local variable 'limit' returned
// expect: address of stack memory associated with local variable 'copies' returned
// expect: address of stack memory associated with local variable 'breaker' returned
// expect: address of stack memory associated with local variable 'inner' returned
// expect: address of stack memory associated with local variable 'values' returned
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/hedge.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>

using namespace std::chrono_literals;

auto all_named() {
    auto limit = cordon::timeout(1s);
    auto copies = cordon::hedge();
    return cordon::pipeline(limit, copies);
}
auto second() {
    cordon::circuit_breaker breaker{{.name = "b"}};
    return cordon::pipeline(cordon::retry(3), breaker, cordon::timeout(1s));
}
auto third() {
    auto inner = cordon::timeout(1s);
    return cordon::pipeline(cordon::timeout(2s), cordon::retry(3), inner);
}
auto of_a_key() {
    cordon::cache<int, int> values(1s);
    return values.for_key(7);
}
