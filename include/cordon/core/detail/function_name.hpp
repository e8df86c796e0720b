// SPDX-License-Identifier: MIT
#pragma once

// What a dump calls a place in the code.

#include <cordon/core/detail/config.hpp>

#include <cstddef>
#include <source_location>
#include <string>
#include <string_view>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Returns the bare name of the function that a `source_location` spells out, each compiler in its own way:
/// "read_row" for "cordon::task<> app::read_row(int)", "lambda in main" for "main()::<lambda(int)>".
inline std::string unqualified_name(std::string_view full) {
    std::string_view function;
    bool lambda = false;
    std::size_t begin = 0, i = 0;   // of the component at hand; of the character
    const auto skip_brackets = [&] {
        for (int depth = 0; i < full.size(); ++i) {
            const bool arrow = full[i] == '>' && full[i - 1] == '-';
            if (std::string_view("<({[").find(full[i]) != std::string_view::npos) ++depth;
            if (std::string_view(">)}]").find(full[i]) != std::string_view::npos && !arrow && --depth == 0) break;
        }
        if (i < full.size()) ++i;
    };
    const auto at = [&](std::string_view what) { return full.substr(i).starts_with(what); };

    while (i < full.size()) {
        const char c = full[i];
        if (i == begin && at("operator") && !at("operator_")) {
            i = full.find('(', i + (at("operator()") ? 10 : 8));
        } else if (at("::")) {
            begin = i += 2;
        } else if (c == ' ' || c == '*' || c == '&') {
            begin = ++i;
        } else if (i == begin && (at("(*") || at("(&"))) {   // returns a pointer to a function
            begin = ++i;
        } else if (c == '(' && i != begin) {
            std::string_view name = full.substr(begin, i - begin);
            if (!lambda || name != "operator()") function = name, lambda = false;
            skip_brackets();
            const std::size_t next = full.find_first_of(":)[(", i);
            if (next == std::string_view::npos || full[next] != ':') break;
            begin = i = next + 2;
        } else if (c == '<' || c == '(' || c == '{' || (c == '[' && i != begin)) {
            lambda = lambda || at("<lambda") || at("(lambda") || at("(anonymous class");
            skip_brackets();
        } else if (c == '[') {   // "[with T = int]"
            break;
        } else {
            ++i;
        }
    }
    if (lambda) return function.empty() ? "lambda" : "lambda in " + std::string(function);
    return std::string(function.empty() ? full : function);
}

inline std::string site_text(const std::source_location& at) {
    const std::string_view path = at.file_name();
    const std::size_t slash = path.find_last_of("/\\");
    return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1)) + ':' +
           std::to_string(at.line()) + " in " + unqualified_name(at.function_name());
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
