// SPDX-License-Identifier: MIT
#pragma once

// Which requests are passed on, where to, how often, and with how much time.

#include "message.hpp"
#include "wire.hpp"

#include <cordon/core/clock.hpp>
#include <cordon/core/error.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

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

/// Returns: the path that a request asks for, as it was written; its target may be a whole URI (RFC 9112, 3.2.2).
inline std::string_view path_of(std::string_view target) {
    const std::size_t scheme = target.find("://");
    if (!target.starts_with('/') && scheme != target.npos) {
        const std::size_t path = target.find_first_of("/?", scheme + 3);
        target = path == target.npos ? "" : target.substr(path);
    }
    const std::string_view path = target.substr(0, target.find('?'));
    return path.empty() ? "/" : path;
}

/// Whether a path is a prefix or lies below it, where a / ends a name: /items/5 is below /items, /items5 is not.
inline bool is_below(std::string_view path, std::string_view prefix) {
    if (!path.starts_with(prefix)) return false;
    return path.size() == prefix.size() || prefix.empty() || prefix.back() == '/' || path[prefix.size()] == '/';
}

/// Returns: what the request may take: `most`, or less if it says so itself.
inline co::clock::duration time_limit(const request& asked, co::clock::duration most) {
    const auto own = parse_grpc_timeout(sole(asked, "grpc-timeout").value_or(""));
    return own ? std::min<co::clock::duration>(most, *own) : most;
}

/// Whether a request may go to the upstream more than once. Its body is in memory by then, and can.
inline bool may_repeat(http::verb method) {
    return method == http::verb::get || method == http::verb::head || method == http::verb::put ||
           method == http::verb::delete_;
}

/// Whether a request may go to the upstream twice at the same time: it changes nothing there.
inline bool is_read(http::verb method) { return method == http::verb::get || method == http::verb::head; }

/// Returns: what who wants to change something behind such a route is told.
inline response answer_of_a_reader() {
    response made = own_answer(http::status::method_not_allowed, "there is only GET and HEAD here");
    made.set(http::field::allow, "GET, HEAD");
    return made;
}

/// Returns: what a client is told that a guard refuses. When to come back is rounded up: who comes at the full second
/// must not be too early.
inline response answer_to(const co::rejection& why) {
    http::status status = http::status::service_unavailable;
    if (why.reason == co::reject_reason::rate_limited) status = http::status::too_many_requests;
    response made = own_answer(status, std::string(why.who()) + ": " + to_string(why.reason));
    const auto seconds = std::chrono::ceil<std::chrono::seconds>(why.retry_after);
    if (seconds.count() > 0) made.set(http::field::retry_after, std::to_string(seconds.count()));
    return made;
}

}  // namespace gateway
