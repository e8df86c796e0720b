// SPDX-License-Identifier: MIT
#pragma once

// Which requests are passed on, and with how much time.

#include "message.hpp"
#include "wire.hpp"

#include <cordon/core/clock.hpp>

#include <algorithm>
#include <cstddef>
#include <optional>

namespace gateway {

/// Returns: the answer to a request that is well-formed, but not passed on; nothing if it is.
inline std::optional<response> objection(const request& asked) {
    switch (asked.method()) {
        case http::verb::get: case http::verb::head: case http::verb::post: case http::verb::put:
        case http::verb::patch: case http::verb::delete_: case http::verb::options: break;
        default: return refusal(http::status::not_implemented, "this method is not supported");
    }
    if (!is_body_decoded(asked))
        return refusal(http::status::not_implemented, "this transfer-encoding is not supported");
    const std::size_t hosts = asked.count(http::field::host);
    if (hosts > 1 || (hosts == 0 && asked.version() == 11))
        return refusal(http::status::bad_request, "there must be one Host header");
    if (asked.count("grpc-timeout") != 0 && !parse_grpc_timeout(sole(asked, "grpc-timeout").value_or("")))
        return refusal(http::status::bad_request, "grpc-timeout must be 1 to 8 digits and one of H M S m u n");
    return std::nullopt;
}

/// Returns: what the request may take: `most`, or less if it says so itself.
inline co::clock::duration time_limit(const request& asked, co::clock::duration most) {
    const auto own = parse_grpc_timeout(sole(asked, "grpc-timeout").value_or(""));
    return own ? std::min<co::clock::duration>(most, *own) : most;
}

}  // namespace gateway
