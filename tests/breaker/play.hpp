// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/breaker/circuit_breaker.hpp>

#include <string_view>

namespace breaker_test {

/// Makes calls that end at once: S succeeds, F fails, X is ignored, C is stopped.
/// Returns:       how many were let through
inline int play(cordon::circuit_breaker& breaker, std::string_view calls) {
    int admitted = 0;
    for (const char c : calls) {
        auto permit = breaker.try_acquire();
        if (!permit) continue;
        ++admitted;
        permit.settle(c == 'S'   ? cordon::verdict::success
                      : c == 'F' ? cordon::verdict::failure
                      : c == 'X' ? cordon::verdict::ignored
                                 : cordon::verdict::stopped);
    }
    return admitted;
}

}  // namespace breaker_test
