// SPDX-License-Identifier: MIT
#pragma once

// What a request says about itself on the wire: how much time it has left (grpc-timeout), which trace it belongs to
// (traceparent, W3C Trace Context) and what it is called (x-request-id). Text in, text out.

#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <system_error>

namespace gateway {

struct timeout_unit {
    char letter;
    std::chrono::nanoseconds size;
};
inline constexpr timeout_unit timeout_units[] = {  // the finest first
    {'n', std::chrono::nanoseconds(1)}, {'u', std::chrono::microseconds(1)}, {'m', std::chrono::milliseconds(1)},
    {'S', std::chrono::seconds(1)},     {'M', std::chrono::minutes(1)},      {'H', std::chrono::hours(1)},
};
inline constexpr std::int64_t max_timeout_amount = 99'999'999;  // eight digits

/// Returns: the time that a grpc-timeout header allows, saturated, or nothing unless it is 1 to 8 digits and a unit.
inline std::optional<std::chrono::nanoseconds> parse_grpc_timeout(std::string_view text) {
    if (text.size() < 2 || text.size() > 9) return std::nullopt;
    const char* const digits_end = text.data() + text.size() - 1;
    std::uint32_t amount = 0;
    const auto [end, error] = std::from_chars(text.data(), digits_end, amount);
    if (error != std::errc() || end != digits_end) return std::nullopt;
    for (const timeout_unit& unit : timeout_units) {
        if (unit.letter != text.back()) continue;
        if (amount > std::chrono::nanoseconds::max() / unit.size) return std::chrono::nanoseconds::max();
        return amount * unit.size;
    }
    return std::nullopt;
}

/// Returns: the finest spelling that fits, rounded down, since no hop may gain time; one nanosecond at least.
inline std::string format_grpc_timeout(std::chrono::nanoseconds left) {
    if (left.count() < 1) left = std::chrono::nanoseconds(1);
    for (const timeout_unit& unit : timeout_units)
        if (left / unit.size <= max_timeout_amount) return std::to_string(left / unit.size) + unit.letter;
    return std::to_string(max_timeout_amount) + 'H';
}

/// A place in a trace, as one hop tells it to the next.
struct trace_parent {
    std::string trace_id;   // 32 digits, the same on every hop
    std::string parent_id;  // 16 digits, of whoever sent the request
    unsigned flags = 0;     // 1: sampled, 2: the trace id is random
};

inline bool is_lower_hex(std::string_view text) {
    return text.find_first_not_of("0123456789abcdef") == std::string_view::npos;
}
inline bool is_zero(std::string_view text) { return text.find_first_not_of('0') == std::string_view::npos; }

/// Returns: what a traceparent header says, of version 00 or a later one that begins like it; nothing if it is invalid,
/// and then the request begins a new trace.
inline std::optional<trace_parent> parse_traceparent(std::string_view text) {
    constexpr std::size_t length = 55;  // of "vv-tttttttttttttttttttttttttttttttt-pppppppppppppppp-ff"
    if (text.size() < length || text[2] != '-' || text[35] != '-' || text[52] != '-') return std::nullopt;
    const std::string_view version = text.substr(0, 2), trace = text.substr(3, 32), parent = text.substr(36, 16);
    const std::string_view flags = text.substr(53, 2);
    if (!is_lower_hex(version) || !is_lower_hex(trace) || !is_lower_hex(parent) || !is_lower_hex(flags))
        return std::nullopt;
    if (version == "ff" || is_zero(trace) || is_zero(parent)) return std::nullopt;
    if (text.size() > length && (version == "00" || text[length] != '-')) return std::nullopt;
    unsigned bits = 0;
    std::from_chars(flags.data(), flags.data() + flags.size(), bits, 16);
    return trace_parent{std::string(trace), std::string(parent), bits & 3U};
}

inline std::string format_traceparent(const trace_parent& trace) {
    return "00-" + trace.trace_id + '-' + trace.parent_id + "-0" + static_cast<char>('0' + (trace.flags & 3U));
}

/// Returns: so many lower-case hexadecimal digits, not all of them zero.
template <class Random>
std::string random_hex(Random& random, std::size_t digits) {
    std::uniform_int_distribution<std::size_t> draw(0, 15);
    std::string made(digits, '0');
    while (is_zero(made))
        for (char& digit : made) digit = "0123456789abcdef"[draw(random)];
    return made;
}

/// Whether an id from outside may be passed on and written into a log: 1 to 128 letters, digits and `-._~:/+=@`.
inline bool is_sane_request_id(std::string_view id) {
    constexpr std::string_view allowed = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~:/+=@";
    return !id.empty() && id.size() <= 128 && id.find_first_not_of(allowed) == std::string_view::npos;
}

}  // namespace gateway
