// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>

#include <cstddef>
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

/// For the destructor of a primitive to which `present` tasks still refer, `waiting` of them in its queue.
[[noreturn]] CORDON_NOINLINE inline void fail_in_use(const char* kind, const std::string& name, std::size_t waiting,
                                                     std::size_t present) noexcept {
    const std::string who = std::string(kind) + " \"" + name + "\" destroyed while ";
    if (waiting != 0) fail(who + std::to_string(waiting) + " wait for it");
    fail(who + std::to_string(present) + " that it has woken have not gone on yet");
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
