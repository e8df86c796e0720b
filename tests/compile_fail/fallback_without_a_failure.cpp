// SPDX-License-Identifier: MIT
// expect: fallback: the function takes the failure, and is const
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/pipeline.hpp>

auto guarded = cordon::pipeline(cordon::fallback([] { return 1; }));
