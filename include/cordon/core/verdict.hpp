// SPDX-License-Identifier: MIT
#pragma once

// What a guard that let a call through is told when that call has ended.

#include <cordon/core/detail/config.hpp>

#include <cstdint>

namespace cordon::inline CORDON_ABI {

/// How a guarded call ended. Only the first two count; the others give back what the guard took and leave no trace.
enum class verdict : std::uint8_t {
    success,
    failure,
    ignored,  ///< ended, and says nothing about whom the guard watches
    stopped,  ///< did not end
};

}  // namespace cordon::inline CORDON_ABI
