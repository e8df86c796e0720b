// SPDX-License-Identifier: MIT
// expect: is moved in, with std::move(p), or referred to, with pipeline(p)
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/timeout.hpp>

#include <chrono>

cordon::any_pipeline<int> stored() {
    const auto guarded = cordon::pipeline(cordon::timeout(std::chrono::seconds(1)));
    const cordon::any_pipeline<int> refers(guarded);
    return refers;
}
