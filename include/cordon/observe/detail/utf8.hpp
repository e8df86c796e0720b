// SPDX-License-Identifier: MIT
#pragma once

// Names come from anywhere, and who reads JSON or metrics refuses all of it for one byte that is no UTF-8.

#include <cordon/core/detail/config.hpp>

#include <cstddef>
#include <string>
#include <string_view>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constexpr std::string_view utf8_replacement = "\xEF\xBF\xBD";  // U+FFFD

/// The length of the UTF-8 character that a text begins with; 0 if it is none. Source: Unicode, table 3-7.
inline std::size_t utf8_length(std::string_view text) noexcept {
    const auto byte = [&](std::size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U; };
    const unsigned lead = byte(0), second = byte(1);
    if (lead < 0x80) return 1;
    const std::size_t length = lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
    const unsigned least = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
    const unsigned most = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
    if (second < least || second > most) return 0;
    for (std::size_t i = 2; i < length; ++i)
        if ((byte(i) & 0xC0U) != 0x80U) return 0;
    return length;
}

/// The text, with the replacement for each byte that belongs to no character, and for control characters but newlines.
inline std::string to_clean_utf8(std::string_view text) {
    std::string clean;
    while (!text.empty()) {
        const std::size_t length = utf8_length(text);
        const bool control = length == 1 && ((text[0] >= 0 && text[0] < ' ' && text[0] != '\n') || text[0] == '\x7F');
        clean += length == 0 || control ? utf8_replacement : text.substr(0, length);
        text.remove_prefix(length == 0 ? 1 : length);
    }
    return clean;
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
