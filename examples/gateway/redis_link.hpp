// SPDX-License-Identifier: MIT
#pragma once

// The connections of one thread to the redis servers behind its routes: a pool for each route.

#include "../redis/connection.hpp"
#include "message.hpp"
#include "options.hpp"

#include <cordon/cordon.hpp>

#include <cstddef>
#include <exception>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

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

    /// Returns:       the pool of a route whose upstream is a redis. It stays when the route goes, with what is idle
    pool& of(const route_options& route, const asio::any_io_executor& io) {
        const tcp::endpoint where = route.upstream;
        const auto connect = [io, where] { return redis::connection::open(io, where); };
        const std::size_t most = route.redis->connections;
        co::resource_pool_options<redis::connection> options{.name = "redis"};
        options.usable = [](redis::connection& c) { return c.is_quiet(); };
        const std::pair key(route.prefix, where);
        const auto [made, is_new] = pools_.try_emplace(key, most, connect, std::move(options));
        if (!is_new && made->second.stats().limit != most) made->second.resize(most);
        return made->second;
    }

    /// Asks a server of the pool for the value of a key.
    /// Errors:        system_error if there is no connection or no answer, `redis::error` if it is one
    /// Cancellation:  a cancel point; stopped, the connection is given up, since a reply may still be on its way
    static co::task<looked_up> look_up(pool& from, std::string key) {
        auto connection = co_await from.acquire();
        co_return co_await connection->command("GET", key);
    }

private:
    std::map<std::pair<std::string, tcp::endpoint>, pool> pools_;
};

}  // namespace gateway
