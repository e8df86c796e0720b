// SPDX-License-Identifier: MIT
#pragma once

// What metrics and dumps ask of a primitive: a name, and all its figures at one moment. A registry of metrics knows only
// this concept, so that no primitive knows of any registry.

#include <cordon/core/detail/config.hpp>

#include <concepts>
#include <string_view>
#include <type_traits>

namespace cordon::inline CORDON_ABI {

/// A type with `name()`, empty if it has none, and `stats()`, a consistent snapshot that is copied out.
template <class T>
concept observable = requires(const T& t) {
    { t.name() } noexcept -> std::convertible_to<std::string_view>;
    { t.stats() } noexcept;
    requires std::is_object_v<decltype(t.stats())> && std::copyable<decltype(t.stats())>;
};

}  // namespace cordon::inline CORDON_ABI
