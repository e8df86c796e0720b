// SPDX-License-Identifier: MIT
#pragma once

// The connections to upstreams that belong to one connection from a client.

#include "access_log.hpp"
#include "message.hpp"
#include "wire.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <list>
#include <optional>
#include <string>
#include <utility>

namespace gateway {

class upstream_link {
public:
    explicit upstream_link(const asio::any_io_executor& io) : socket_(io) {}

    /// Returns: whom the last request went to.
    [[nodiscard]] const tcp::endpoint& where() const noexcept { return where_; }
    /// Whether a request is on it.
    [[nodiscard]] bool is_busy() const noexcept { return busy_; }

    /// Sends a request to `where` and reads the answer. Request id, trace and deadline are those of the context. An idempotent
    /// request goes out once more if a connection that had been kept turns out to be closed.
    /// Errors:        system_error if the upstream refuses, breaks off or does not speak HTTP
    /// Cancellation:  a cancel point; stopped, the connection is closed, since an answer may still be on its way
    co::task<response> exchange(request& asked, tcp::endpoint where) {
        const in_use until_it_ends(busy_);
        const bool repeatable = asked.method() != http::verb::post && asked.method() != http::verb::patch;
        if (where != where_) close();
        where_ = where;
        if (asked.count(http::field::host) == 0) asked.set(http::field::host, text_of(where_));  // as 1.1 demands
        asked.set("x-request-id", *co_await co::this_task::get(request_id));
        asked.set("traceparent", format_traceparent(*co_await co::this_task::get(trace)));
        for (bool kept = is_open();; kept = false) {
            if (!kept) co_await connect();
            const co::deadline until = co_await co::this_task::deadline();
            asked.set("grpc-timeout", format_grpc_timeout(until.remaining()));
            std::optional<response_parser> answer;
            try {
                co_await converse(asked, answer);
                co_return passed_back(answer->release(), asked.method());
            } catch (const system_error&) {
                if (!kept || !repeatable || (answer && answer->got_some())) throw;
            }
        }
    }

private:
    static constexpr std::uint32_t max_header_bytes = 64 << 10;
    static constexpr std::uint64_t max_body_bytes = 64 << 20;

    struct in_use {
        explicit in_use(bool& b) noexcept : busy(b) { busy = true; }
        in_use(const in_use&) = delete;
        ~in_use() { busy = false; }
        bool& busy;
    };

    /// Closes the connection unless it can be used again.
    class closing {
    public:
        explicit closing(upstream_link& link) : link_(&link) {}
        closing(const closing&) = delete;
        ~closing() {
            if (link_ != nullptr) link_->close();
        }
        void dismiss() { link_ = nullptr; }

    private:
        upstream_link* link_;
    };

    co::task<> connect() {
        close();
        closing unless_connected(*this);
        co_await socket_.async_connect(where_, co::use_cordon);
        socket_.set_option(tcp::no_delay(true));
        socket_.non_blocking(true);
        unless_connected.dismiss();
    }

    co::task<> converse(request& asked, std::optional<response_parser>& answer) {
        closing unless_kept(*this);
        co_await http::async_write(socket_, asked, co::use_cordon);
        do {
            answer.emplace();
            answer->header_limit(max_header_bytes);
            answer->body_limit(max_body_bytes);
            answer->skip(asked.method() == http::verb::head);
            co_await read_header(socket_, buffer_, *answer);
        } while (answer->get().result_int() / 100 == 1);
        if (!is_body_decoded(answer->get())) throw system_error(http::error::bad_transfer_encoding);
        co_await read_body(socket_, buffer_, *answer);
        if (answer->keep_alive()) unless_kept.dismiss();
    }

    /// Whether the connection stands, and the upstream said nothing that nobody asked for.
    bool is_open() {
        char byte = 0;
        error_code error;
        if (!socket_.is_open() || buffer_.size() != 0) return false;
        socket_.receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
        return error == asio::error::would_block;
    }

    void close() {
        error_code ignored;
        socket_.close(ignored);
        buffer_.clear();
    }

    tcp::socket socket_;
    tcp::endpoint where_;
    flat_buffer buffer_;
    bool busy_ = false;
};

/// Links to several upstreams, so that a client that goes from one to another finds each of its connections again.
class upstream_links {
public:
    upstream_links(asio::any_io_executor io, std::size_t most) : io_(std::move(io)), most_(most) {}

    /// Returns: a link without a request: one that goes there already, a new one if there may be more, or else the one
    /// that was not used for longest. If there is none, the gateway began without hedges: one more than there may be.
    upstream_link& to(const tcp::endpoint& where) {
        const auto is_idle = [](const upstream_link& link) { return !link.is_busy(); };
        const auto goes_there = [&](const upstream_link& link) { return is_idle(link) && link.where() == where; };
        auto link = std::find_if(links_.begin(), links_.end(), goes_there);
        if (link == links_.end() && links_.size() >= most_) {
            const auto oldest = std::find_if(links_.rbegin(), links_.rend(), is_idle);
            if (oldest != links_.rend()) link = std::prev(oldest.base());
        }
        if (link == links_.end()) link = links_.emplace(link, io_);
        links_.splice(links_.begin(), links_, link);
        return links_.front();
    }

private:
    const asio::any_io_executor io_;
    const std::size_t most_;
    std::list<upstream_link> links_;  // the one that was used last is the first
};

}  // namespace gateway
