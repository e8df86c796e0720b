// SPDX-License-Identifier: MIT
// expect: a predicate takes `const std::exception&`, and looks for the class that it means with a dynamic_cast
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>

#include <stdexcept>

auto p = cordon::pipeline(cordon::retry(3)).failing_when([](const std::runtime_error&) { return true; });
