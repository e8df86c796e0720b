// SPDX-License-Identifier: MIT
#pragma once

// Every value of a JSON file, with its path and the line where it stands, so that a message can say where something is
// wrong.

#include <cstddef>
#include <istream>
#include <map>
#include <string>

namespace gateway {

struct json_value {
    enum class kind { number, text, object, list, no, other };

    std::size_t line = 0;
    kind is = kind::other;
    std::string said;  // of a text without its quotes
};
/// By path: `breaker.window`, `routes["/reports"].breaker.window`, or `upstream[0]`, the first of a list.
using json_values = std::map<std::string, json_value>;

/// Reads a file that holds one object. Comments are allowed.
/// Errors:        `std::invalid_argument`, "FILE:LINE: ..."
json_values read_json(std::istream& in, const std::string& file);

/// Says what is wrong in a line of a file, 1 if it is 0.
/// Errors:        `std::invalid_argument`, always
[[noreturn]] void fail_in(const std::string& file, std::size_t line, const std::string& what);

}  // namespace gateway
