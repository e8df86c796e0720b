// SPDX-License-Identifier: MIT
#pragma once

// The connections of one thread to the redis servers behind its routes: a pool for each route.

#include "../redis/connection.hpp"
#include "message.hpp"
#include "options.hpp"

#include <cordon/cordon.hpp>

#include <algorithm>
#include <cstddef>
#include <exception>
#include <list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gateway {

/// What redis has under a key; nothing if it has none.
using looked_up = std::optional<std::string>;

/// Whether redis has something under the key that is no text. That is no failure of redis.
inline bool is_no_text(const std::exception& e) {
    const auto* const said = dynamic_cast<const redis::error*>(&e);
    return said != nullptr && std::string_view(said->what()).find("WRONGTYPE") != std::string_view::npos;
}

/// Not shared by threads: a socket belongs to the loop that it was made for.
class redis_links {
public:
    using pool = co::resource_pool<redis::connection>;

    redis_links(asio::any_io_executor io, co::registry& metrics, std::size_t thread)
        : io_(std::move(io)), metrics_(metrics), thread_(std::to_string(thread)) {}

    /// Has a pool for each of the routes whose upstream is a redis, and its figures. Pools of routes that have gone
    /// end, each as soon as no look-up uses it.
    void follow(const std::vector<route_options>& routes) {
        links_.remove_if([&](const link& l) {
            return std::none_of(routes.begin(), routes.end(), [&](const route_options& r) { return l.leads(r); });
        });
        for (const route_options& r : routes) {
            if (!r.redis) continue;
            const auto known = std::find_if(links_.begin(), links_.end(), [&](const link& l) { return l.leads(r); });
            if (known != links_.end()) known->connections->resize(r.redis->connections);
            else add(r);
        }
    }

    /// Returns:       the pool of a route; one for this look-up alone if the route is not of the last that it followed
    std::shared_ptr<pool> of(const route_options& route) const {
        for (const link& l : links_)
            if (l.leads(route)) return l.connections;
        return made(route);
    }

    /// Asks a server of the pool for the value of a key.
    /// Errors:        system_error if there is no connection or no answer, `redis::protocol_error` if that is none,
    ///                `redis::error` if it is one, after which the connection serves the next
    /// Cancellation:  a cancel point; stopped, the connection is given up, since a reply may still be on its way
    static co::task<looked_up> look_up(pool& from, std::string key) {
        auto connection = co_await from.acquire();
        try {
            co_return co_await connection->command("GET", key);
        } catch (const redis::error&) {
            connection.mark_clean();
            throw;
        }
    }

private:
    struct link {
        std::string prefix;
        tcp::endpoint where;
        std::shared_ptr<pool> connections;
        co::registry::registration seen;  // dies first: another of the prefix may come while look-ups use this one

        [[nodiscard]] bool leads(const route_options& r) const {
            return r.redis && r.prefix == prefix && r.upstreams.front() == where;
        }
    };

    [[nodiscard]] std::shared_ptr<pool> made(const route_options& route) const {
        const auto connect = [io = io_, where = route.upstreams.front()] { return redis::connection::open(io, where); };
        co::resource_pool_options<redis::connection> options{.name = route.prefix};
        options.usable = [](redis::connection& c) { return c.is_quiet(); };
        return std::make_shared<pool>(route.redis->connections, connect, std::move(options));
    }
    void add(const route_options& route) {
        link fresh{route.prefix, route.upstreams.front(), made(route), {}};
        fresh.seen = metrics_.add(*fresh.connections, {.labels = {{"thread", thread_}}});
        links_.push_back(std::move(fresh));
    }

    const asio::any_io_executor io_;
    co::registry& metrics_;
    const std::string thread_;
    std::list<link> links_;
};

}  // namespace gateway
