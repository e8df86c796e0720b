// SPDX-License-Identifier: MIT
// Connections to a redis server from a pool, while requests are stopped in the middle of their replies:
//     redis_pool PORT [STOPS [--mark-clean]]
// Ends when so many were stopped there, and fails if anybody has got a reply to what somebody else had asked. With
// --mark-clean the pool is told to keep the connections of those requests, which goes wrong at once.
#include "connection.hpp"

#include <boost/asio/io_context.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>
#include <string_view>

using namespace std::chrono_literals;
namespace asio = boost::asio;
namespace co = cordon;
using redis_pool = co::resource_pool<redis::connection>;

struct tally {
    int to_stop, stopped = 0, whole = 0, wrong = 0, failed = 0;
    bool mark_clean = false;
};

constexpr int keys = 16;
std::string key_of(int i) { return "cordon:" + std::to_string(i); }
/// Different for each key, and long enough to come in several parts.
std::string value_of(int i) { return std::string(40'000 + static_cast<std::size_t>(i), static_cast<char>('a' + i)); }

// [request]
co::task<> ask(redis_pool& pool, int key, tally& t) {
    auto connection = co_await pool.acquire();
    const auto reply = co_await connection->command("GET", key_of(key));
    ++t.whole;
    if (reply != value_of(key)) ++t.wrong;
}
// [/request]

/// What a request lets be seen of itself.
struct request {
    redis::connection* connection = nullptr;  ///< as long as it has one
    bool replied = false, ended = false;
};

/// In the frame of a request, behind its lease: says that it ends, however it does.
struct ending {
    request& of;
    ~ending() {
        of.connection = nullptr;
        of.ended = true;
    }
};

/// Asks, and is stopped as soon as a part of the reply has come.
co::task<> ask_and_stop(redis_pool& pool, int key, tally& t) {
    request mine;
    const auto asks = [&]() -> co::task<> {
        redis_pool::lease connection;
        const ending says{mine};
        connection = co_await pool.acquire();
        mine.connection = &*connection;
        if (t.mark_clean) connection.mark_clean();
        static_cast<void>(co_await mine.connection->command("GET", key_of(key)));
        mine.replied = true;
    };
    const auto midway = [&]() -> co::task<> {
        while (!mine.ended && (mine.connection == nullptr || !mine.connection->in_mid_reply()))
            co_await co::this_task::yield();
        if (!mine.ended) ++t.stopped;
        else if (!mine.replied) ++t.failed;  // and no error of this: a watcher that has ended is a success
    };
    co_await co::when_any(asks(), midway());  // the loser is stopped, and waited for
}

co::task<> go_on(redis_pool& pool, int first, tally& t) {
    for (int i = first; t.stopped < t.to_stop && t.wrong + t.failed == 0; ++i) {
        auto asked = i % 3 == 0 ? ask(pool, i % keys, t) : ask_and_stop(pool, i % keys, t);
        auto ended = co_await co::as_outcome(std::move(asked));
        if (ended.is_error()) ++t.failed;
    }
}

co::task<> run(asio::io_context& io, unsigned short port, tally& t) {
    // [pool]
    const redis::tcp::endpoint server(asio::ip::address_v4::loopback(), port);
    const auto connect = [&io, server] { return redis::connection::open(io.get_executor(), server); };
    redis_pool pool{4, connect, {.name = "redis", .max_idle_time = 10min, .held_too_long = 5s}};
    // [/pool]
    {
        auto writes = co_await pool.acquire();
        for (int i = 0; i < keys; ++i) co_await writes->command("SET", key_of(i), value_of(i));
    }
    co_await co::with_group([&](co::task_group& group) -> co::task<> {
        for (int i = 0; i < 8; ++i) group.spawn(go_on(pool, i, t));
        co_return;
    });
    co_await pool.close();
    const auto made = pool.stats();
    std::cout << t.stopped << " requests stopped in mid-reply, " << t.whole << " whole replies, " << t.wrong
              << " of them wrong, " << t.failed << " failed; " << made.created << " connections, " << made.closed_broken
              << " given up with their requests\n";
}

int main(int argc, char** argv) {
    if (argc < 2) {
        std::cerr << "redis_pool PORT [STOPS [--mark-clean]]\n";
        return 2;
    }
    tally t{.to_stop = argc > 2 ? std::atoi(argv[2]) : 10'000};
    t.mark_clean = argc > 3 && std::string_view(argv[3]) == "--mark-clean";
    asio::io_context io;
    co::asio_executor executor{io};
    int code = 1;
    const auto port = static_cast<unsigned short>(std::atoi(argv[1]));
    co::start_on(executor, run(io, port, t), [&](const co::outcome<void>& ended) {
        code = ended.has_value() && t.wrong + t.failed == 0 ? 0 : 1;
        try {
            if (ended.is_error()) std::rethrow_exception(ended.error());
        } catch (const std::exception& e) {
            std::cerr << "redis_pool: " << e.what() << '\n';
        }
    });
    io.run();
    return code;
}
