// SPDX-License-Identifier: MIT
#pragma once

// One connection to a redis server: a request at a time, on Asio. Source: the Redis serialization protocol, RESP2.

#include <cordon/cordon.hpp>
#include <cordon/interop/asio.hpp>

#include <asio.hpp>

#include <charconv>
#include <cstddef>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace redis {

using asio::ip::tcp;

// [connection]
class connection {
public:
    static cordon::task<connection> open(asio::io_context& io, tcp::endpoint server) {
        tcp::socket socket(io);
        co_await socket.async_connect(server, cordon::use_cordon);
        socket.set_option(tcp::no_delay(true));
        socket.set_option(tcp::socket::linger(true, 0));  // closed in the middle of a reply it is reset
        co_return connection(std::move(socket));
    }

    /// `co_await c.command("GET", key)`: what the server replies; nothing if there is none, an error is thrown.
    /// Stopped, it leaves a part of its reply to whoever asks next.
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
        } else {
            throw std::runtime_error("redis: " + head);  // an error, or what this client does not understand
        }
        awaiting_ = false;
        co_return reply;
    }
    // [/connection]

    static constexpr std::size_t none = static_cast<std::size_t>(-1);

    static std::size_t number(const std::string& head) {
        long long n = 0;
        const auto parsed = std::from_chars(head.data() + 1, head.data() + head.size(), n);
        if (parsed.ec != std::errc() || n < -1) throw std::runtime_error("redis: no length: " + head);
        return static_cast<std::size_t>(n);
    }
    cordon::task<> more() {
        char part[4096];
        const std::size_t n = co_await socket_.async_read_some(asio::buffer(part), cordon::use_cordon);
        in_.append(part, n);
        bytes_ += n;
    }
    cordon::task<std::string> line() {
        std::size_t end;
        while ((end = in_.find("\r\n")) == std::string::npos) co_await more();
        std::string first = in_.substr(0, end);
        in_.erase(0, end + 2);
        if (first.empty()) throw std::runtime_error("redis: an empty line");
        co_return first;
    }
    cordon::task<std::string> exactly(std::size_t size) {
        while (in_.size() < size + 2) co_await more();
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
