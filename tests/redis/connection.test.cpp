// SPDX-License-Identifier: MIT
#include "connection.hpp"

#include "catch.hpp"

#include <boost/asio/io_context.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace {

namespace co = cordon;
namespace asio = boost::asio;
using redis::tcp;
using pool = co::resource_pool<redis::connection>;

/// What a request was answered with: its value, "nothing", or the error.
co::task<std::string> get(pool& from) {
    auto connection = co_await from.acquire();
    try {
        const std::optional<std::string> value = co_await connection->command("GET", "key");
        co_return value.value_or("nothing");
    } catch (const redis::error& e) {
        connection.mark_clean();
        co_return e.what();
    }
}
co::task<std::string> get_or_failure(pool& from) {
    co::outcome<std::string> ended = co_await co::as_outcome(get(from));
    if (ended.has_value()) co_return std::move(*ended);
    try {
        std::rethrow_exception(ended.error());
    } catch (const redis::protocol_error& e) {
        co_return std::string("protocol: ") + e.what();
    }
}

struct answered {
    std::vector<std::string> with;
    std::uint64_t connections = 0, broken = 0;
};

/// A server that answers each request with the next of these, whatever it is, a few bytes at a time.
co::task<> serve(tcp::acceptor& door, const std::vector<std::string>& replies, std::size_t piece) {
    for (std::size_t i = 0; i < replies.size();) {
        tcp::socket client = co_await door.async_accept(co::use_cordon);
        client.set_option(tcp::no_delay(true));
        while (i < replies.size()) {
            char request[256];
            auto got = co_await co::as_outcome(client.async_read_some(asio::buffer(request), co::use_cordon));
            if (!got.has_value()) break;  // it was given up: on to the next
            const std::string& reply = replies[i++];
            for (std::size_t at = 0; at < reply.size(); at += piece) {
                const auto part = asio::buffer(reply.data() + at, std::min(piece, reply.size() - at));
                auto sent = co_await co::as_outcome(asio::async_write(client, part, co::use_cordon));
                if (!sent.has_value()) break;
            }
        }
    }
}
/// Asks once for each of the replies.
answered ask(const std::vector<std::string>& replies, std::size_t piece = 7) {
    asio::io_context io;
    co::asio_executor executor{io};
    tcp::acceptor door(io, {asio::ip::address_v4::loopback(), 0});
    answered all;
    const auto asks = [&]() -> co::task<> {
        const tcp::endpoint server = door.local_endpoint();
        const auto connect = [&io, server] { return redis::connection::open(io.get_executor(), server); };
        pool from{1, connect, {.usable = [](redis::connection& c) { return c.is_quiet(); }}};
        for (std::size_t i = 0; i < replies.size(); ++i) all.with.push_back(co_await get_or_failure(from));
        all.connections = from.stats().created;
        all.broken = from.stats().closed_broken;
        co_await from.close();
    };
    const auto both = [&](co::task_group& group) -> co::task<> {
        group.spawn(serve(door, replies, piece));
        co_await asks();
        group.request_stop();  // of a server that still has replies
    };
    bool done = false;
    co::start_on(executor, co::with_group(both), [&](const co::outcome<void>& ended) { done = !ended.is_error(); });
    io.run();
    CHECK(done);
    return all;
}
using replies = std::vector<std::string>;

}  // namespace

TEST_CASE("values, texts, numbers and nothing are replies, in whatever pieces they come", "[redis][connection]") {
    const replies sent{"$5\r\nhello\r\n", "+OK\r\n", ":42\r\n", "$-1\r\n", "$0\r\n\r\n", "$4\r\n\r\n\r\n\r\n"};
    for (const std::size_t piece : {1u, 2u, 5u, 100u}) {
        const answered all = ask(sent, piece);
        CHECK(all.with == replies{"hello", "OK", "42", "nothing", "", "\r\n\r\n"});
        CHECK(all.connections == 1);
    }
}

TEST_CASE("what the server refuses is a whole reply, and costs no connection", "[redis][connection]") {
    const answered all = ask({"-WRONGTYPE not that\r\n", "$5\r\nhello\r\n", "-ERR no\r\n", "$1\r\na\r\n"});
    CHECK(all.with == replies{"redis: -WRONGTYPE not that", "hello", "redis: -ERR no", "a"});
    CHECK(all.connections == 1);
    CHECK(all.broken == 0);
}

TEST_CASE("what is no reply is an error, and its connection is given up", "[redis][connection]") {
    const std::string bad = GENERATE(as<std::string>{}, "$5abc\r\nhello\r\n", "$\r\n", "$-2\r\n", "$5\r\nhelloXX",
                                     "$3\r\nhello\r\n", "*1\r\n$1\r\na\r\n", "\r\n", "hello\r\n",
                                     "$99999999999999999999\r\n");
    INFO(bad);
    const answered all = ask({bad, "$5\r\nhello\r\n"});
    CHECK(all.with.at(0).rfind("protocol: redis: ", 0) == 0);
    CHECK(all.with.at(1) == "hello");
    CHECK(all.connections == 2);
    CHECK(all.broken == 1);
}

TEST_CASE("a line without an end and a value that is too large are refused before they are read",
          "[redis][connection]") {
    const std::string endless(2 * redis::connection::longest_line, 'x');
    const std::string huge = "$" + std::to_string(redis::connection::largest_value + 1) + "\r\n";
    const answered all = ask({"+" + endless, huge}, 4096);
    CHECK(all.with == replies{"protocol: redis: a line without an end",
                              "protocol: redis: too large: $" +
                                  std::to_string(redis::connection::largest_value + 1)});
    CHECK(all.broken == 2);
}
