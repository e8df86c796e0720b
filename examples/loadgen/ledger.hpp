// SPDX-License-Identifier: MIT
#pragma once

// What clients saw, joined with what the server executed. The server's ledger is a file with the id of an executed
// request on each line; ids are `PREFIX-NUMBER`, and lines with another prefix are somebody else's.

#include "tally.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

namespace loadgen {

inline std::string id_of(std::string_view prefix, std::uint64_t number) {
    return std::string(prefix) + '-' + std::to_string(number);
}

/// Returns: the number in an id with this prefix.
inline std::optional<std::uint64_t> number_of(std::string_view id, std::string_view prefix) {
    if (id.size() <= prefix.size() + 1 || !id.starts_with(prefix) || id[prefix.size()] != '-') return std::nullopt;
    const std::string_view digits = id.substr(prefix.size() + 1);
    std::uint64_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
    return number;
}

/// Of the requests that count. Of `ambiguous`, `ok_not_executed` and `unanswered` a request is in one at most.
struct joined {
    std::uint64_t executed = 0;         // once at least
    std::uint64_t repeated = 0;         // more than once
    std::uint64_t ambiguous = 0;        // executed, but the client did not see ok
    std::uint64_t ok_not_executed = 0;  // the client saw ok
    std::uint64_t unanswered = 0;       // not executed; in flight at the end, and never answered

    [[nodiscard]] std::uint64_t lost() const noexcept { return ok_not_executed + unanswered; }
};

inline joined join(std::istream& ledger, std::string_view prefix, const std::vector<tally::fate>& fates) {
    std::vector<std::uint8_t> times(fates.size());
    for (std::string line; std::getline(ledger, line);) {
        const std::optional<std::uint64_t> number = number_of(line, prefix);
        if (number && *number < times.size() && times[*number] < 2) ++times[*number];
    }
    joined result;
    for (std::size_t i = 0; i < fates.size(); ++i) {
        if (!fates[i].counted) continue;
        const bool executed = times[i] > 0, ok = fates[i].ended == outcome::ok;
        result.executed += executed;
        result.repeated += times[i] > 1;
        result.ambiguous += executed && !ok;
        result.ok_not_executed += !executed && ok;
        result.unanswered += !executed && fates[i].unanswered_at_end;
    }
    return result;
}

}  // namespace loadgen
