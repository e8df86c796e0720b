// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/config.hpp>

#include <chrono>
#include <string>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A duration in the largest unit that it is a whole number of: "1500 ms".
inline std::string duration_text(clock::duration d) {
    const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
    if (ns % 1'000'000'000 == 0) return std::to_string(ns / 1'000'000'000) + " s";
    if (ns % 1'000'000 == 0) return std::to_string(ns / 1'000'000) + " ms";
    if (ns % 1'000 == 0) return std::to_string(ns / 1'000) + " us";
    return std::to_string(ns) + " ns";
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
