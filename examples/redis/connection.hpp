// SPDX-License-Identifier: MIT
#pragma once

// A connection to a redis server: a request at a time, on Boost.Asio. Source: the Redis serialization protocol, RESP2.

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/write.hpp>

#include <charconv>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace redis {

namespace asio = boost::asio;
using asio::ip::tcp;

/// Why a server that could be reached gave no value.
struct failure : std::runtime_error {
    explicit failure(const std::string& what) : runtime_error("redis: " + what) {}
};
/// The server refuses what it was asked. That is a whole reply: the connection is good for the next request.
struct error : failure {
    using failure::failure;
};
/// What came is no reply that this client knows, or larger than it takes: the connection is good for nothing.
struct protocol_error : failure {
    using failure::failure;
};

// [connection]
class connection {
public:
    static cordon::task<connection> open(asio::any_io_executor io, tcp::endpoint server) {
        tcp::socket socket(std::move(io));
        co_await socket.async_connect(server, cordon::use_cordon);
        socket.set_option(tcp::no_delay(true));
        socket.non_blocking(true);
        socket.set_option(tcp::socket::linger(true, 0));  // closed in the middle of a reply it is reset
        co_return connection(std::move(socket));
    }

    static constexpr std::size_t longest_line = 64 * 1024, largest_value = 512 * 1024 * 1024;  ///< bytes

    /// `co_await c.command("GET", key)`: what the server replies, if anything.
    /// Errors:        `error`, `protocol_error`, system_error if the connection ends
    /// Cancellation:  a cancel point. Stopped, it leaves a part of its reply to whoever asks next
    template <class... Words>
    cordon::task<std::optional<std::string>> command(const Words&... words) {
        std::string request = '*' + std::to_string(sizeof...(Words)) + "\r\n";
        const auto add = [&request](std::string_view word) {
            request += '$' + std::to_string(word.size()) + "\r\n";
            request.append(word) += "\r\n";
        };
        (add(words), ...);
        return round_trip(std::move(request));
    }

    /// Whether a part of a reply has come, and the rest is awaited.
    bool in_mid_reply() const noexcept { return awaiting_ && bytes_ != 0; }

    /// Whether the connection stands, and the server said nothing that nobody asked for.
    bool is_quiet() {
        char byte = 0;
        boost::system::error_code why;
        if (!in_.empty()) return false;
        socket_.receive(asio::buffer(&byte, 1), tcp::socket::message_peek, why);
        return why == asio::error::would_block;
    }

private:
    explicit connection(tcp::socket s) : socket_(std::move(s)) {}

    cordon::task<std::optional<std::string>> round_trip(std::string request) {
        bytes_ = 0;
        awaiting_ = true;
        co_await asio::async_write(socket_, asio::buffer(request), cordon::use_cordon);
        const std::string head = co_await line();
        std::optional<std::string> reply;
        if (head[0] == '$') {
            if (const std::size_t size = number(head); size != none) reply = co_await exactly(size);
        } else if (head[0] == '+' || head[0] == ':') {
            reply = head.substr(1);
        } else if (head[0] == '-') {
            awaiting_ = false;
            throw error(head);
        } else {
            throw protocol_error("no reply that is known here: " + head);
        }
        awaiting_ = false;
        co_return reply;
    }
    // [/connection]

    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    static std::size_t number(const std::string& head) {
        long long n = 0;
        const char* const end = head.data() + head.size();
        const auto parsed = std::from_chars(head.data() + 1, end, n);
        if (parsed.ec != std::errc() || parsed.ptr != end || n < -1) throw protocol_error("no length: " + head);
        if (n > static_cast<long long>(largest_value)) throw protocol_error("too large: " + head);
        return static_cast<std::size_t>(n);
    }
    cordon::task<> more() {
        char part[4096];
        const std::size_t n = co_await socket_.async_read_some(asio::buffer(part), cordon::use_cordon);
        in_.append(part, n);
        bytes_ += n;
    }
    cordon::task<std::string> line() {
        std::size_t end, seen = 0;
        while ((end = in_.find("\r\n", seen)) == std::string::npos) {
            if (in_.size() > longest_line) throw protocol_error("a line without an end");
            seen = in_.empty() ? 0 : in_.size() - 1;
            co_await more();
        }
        std::string first = in_.substr(0, end);
        in_.erase(0, end + 2);
        if (first.empty()) throw protocol_error("an empty line");
        co_return first;
    }
    cordon::task<std::string> exactly(std::size_t size) {
        while (in_.size() < size + 2) co_await more();
        if (in_.compare(size, 2, "\r\n") != 0) throw protocol_error("a value that does not end where it should");
        std::string text = in_.substr(0, size);
        in_.erase(0, size + 2);
        co_return text;
    }

    tcp::socket socket_;
    std::string in_;          // what has come and was not taken
    std::size_t bytes_ = 0;   // of the present reply
    bool awaiting_ = false;
};

}  // namespace redis
