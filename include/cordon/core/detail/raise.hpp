// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>

#include <cstdio>
#include <exception>
#include <string>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Throws `error`; in a build without exceptions prints `what` and terminates.
template <class Error>
[[noreturn]] void raise(Error&& error, const char* what) {
#if defined(__cpp_exceptions)
    (void)what;
    throw std::forward<Error>(error);
#else
    (void)error;
    std::fprintf(stderr, "cordon: %s\n", what);
    std::terminate();
#endif
}

/// Prints why and terminates: for contract violations after which nothing can go on.
[[noreturn]] inline void fail(const std::string& why) noexcept {
    std::fprintf(stderr, "cordon: %s\n", why.c_str());
    std::fflush(stderr);
    std::terminate();
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
