// SPDX-License-Identifier: MIT
#pragma once

// What all connections of one thread share, so that nothing here needs a lock but what all threads have in common.

#include "access_log.hpp"
#include "guards.hpp"
#include "options.hpp"
#include "redis_link.hpp"

#include <cordon/cordon.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <random>
#include <utility>

namespace gateway {

struct service {
    /// `io` is the loop of the thread of that number.
    service(options o, commons& c, asio::any_io_executor io, std::size_t thread = 0)
        : opts(std::move(o)), most_links(opts.guards.links()), common(c), log(opts.log),
          lookups(std::move(io), common.metrics, thread) {
        follow_routes();
    }

    /// Has the pools of connections to redis servers that the present routes need. On the loop, or before it runs.
    void follow_routes() { lookups.follow(common.guarded.get()->opts.routes); }

    [[nodiscard]] bool is_draining() const noexcept { return draining.stop_requested(); }

    /// How long a connection that is to end is still listened to: a second, less if there is little time to drain in.
    [[nodiscard]] std::chrono::milliseconds linger() const noexcept {
        return std::min(std::chrono::milliseconds(1000), opts.drain / 4);
    }

    const options opts;
    const std::size_t most_links;  // to upstreams, of a connection: there are files for as many as there were at first
    commons& common;
    access_log log;
    redis_links lookups;
    std::mt19937_64 random{std::random_device{}()};
    co::inplace_stop_source draining;  // stopped when the gateway is to end: idle connections notice by it

    std::uint64_t connections = 0, requests = 0, malformed = 0, answered_while_draining = 0;
    std::uint64_t deadline_hits = 0;      // requests whose time was over before the upstream had answered
    std::uint64_t upstream_failures = 0;  // refused, reset or not HTTP
};

}  // namespace gateway
