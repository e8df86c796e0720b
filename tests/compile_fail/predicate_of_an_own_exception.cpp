// SPDX-License-Identifier: MIT
// expect: a predicate takes `const std::exception&`, and looks for the class that it means with a dynamic_cast
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>

#include <stdexcept>

struct http_error : std::runtime_error {
    using std::runtime_error::runtime_error;
    int status = 0;
};

auto p = cordon::pipeline(cordon::retry(3)).failing_when([](const http_error& e) { return e.status >= 500; });
