// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>

#include <string>
#include <string_view>

#if defined(__linux__)
#include <pthread.h>
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Names the calling thread for debuggers and `top -H`, where Linux shows 15 bytes: of a longer name the end is cut,
/// but not that of `suffix`.
inline void name_this_thread(std::string_view name, std::string_view suffix = {}) {
#if defined(__linux__)
    constexpr std::size_t most = 15;
    std::string text(name.substr(0, suffix.size() < most ? most - suffix.size() : 0));
    text += suffix.substr(0, most);
    pthread_setname_np(pthread_self(), text.c_str());
#else
    static_cast<void>(name), static_cast<void>(suffix);
#endif
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
