// SPDX-License-Identifier: MIT
#pragma once

// Under AddressSanitizer a use of what was given back to a pool is an error, as if it were destroyed.

#include <cordon/core/detail/config.hpp>

#include <cstddef>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#include <sanitizer/asan_interface.h>
#endif
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

#ifdef ASAN_POISON_MEMORY_REGION
inline void hide(const void* object, std::size_t size) noexcept { __asan_poison_memory_region(object, size); }
inline void expose(const void* object, std::size_t size) noexcept { __asan_unpoison_memory_region(object, size); }
#else
inline void hide(const void*, std::size_t) noexcept {}
inline void expose(const void*, std::size_t) noexcept {}
#endif

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
