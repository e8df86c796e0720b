// SPDX-License-Identifier: MIT
#pragma once

// How a constructor refuses an option: which one, what it was, and what is allowed.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>

#include <chrono>
#include <concepts>
#include <stdexcept>
#include <string>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A number, a text, or a duration in nanoseconds.
template <class T>
[[nodiscard]] std::string shown(const T& value) {
    if constexpr (std::convertible_to<const T&, std::string>) return value;
    else if constexpr (std::is_arithmetic_v<T>) return std::to_string(value);
    else return std::to_string(std::chrono::nanoseconds(value).count()) + " ns";
}

/// Throws a `std::invalid_argument` that says "<whose>: <option> is <value>, allowed <allowed>".
template <class T>
[[noreturn]] CORDON_NOINLINE void refuse_option(const char* whose, const char* option, const T& value,
                                                const std::string& allowed) {
    const std::string text = std::string(whose) + ": " + option + " is " + shown(value) + ", allowed " + allowed;
    raise(std::invalid_argument(text), text.c_str());
}

/// Refuses an option that is not `good`. What is `allowed` begins with "is" or "are".
template <class T>
constexpr void check_option(bool good, const char* whose, const char* option, const T& value, const char* allowed) {
    if (!good) [[unlikely]] refuse_option(whose, option, value, allowed);
}

template <class T>
[[noreturn]] CORDON_NOINLINE void refuse_range(const char* whose, const char* option, T value, T least, T most) {
    refuse_option(whose, option, value, "are " + shown(least) + " to " + shown(most));
}
/// The value, unless it is not from `least` to `most`.
template <class T>
[[nodiscard]] constexpr T checked_range(const char* whose, const char* option, T value, std::type_identity_t<T> least,
                                        std::type_identity_t<T> most) {
    if (!(value >= least && value <= most)) [[unlikely]] refuse_range(whose, option, value, least, most);
    return value;
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
