// SPDX-License-Identifier: MIT
#pragma once

// How a call that a guard had admitted ended, as the guard is told when its permit is settled.

#include <cordon/core/detail/config.hpp>

#include <cstdint>

namespace cordon::inline CORDON_ABI {

/// What `permit.settle(verdict)` says of a call.
enum class verdict : std::uint8_t {
    success,  ///< it did what it was to do
    failure,  ///< it failed, in a way that counts
    ignored,  ///< it ended, in a way that says nothing about whom it called
    stopped,  ///< it was stopped: counts for nothing, and what it took goes back
};

}  // namespace cordon::inline CORDON_ABI
