// SPDX-License-Identifier: MIT
#pragma once

// A keep-alive connection that carries one request after the other.

#include "ledger.hpp"
#include "options.hpp"
#include "tally.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace loadgen {

namespace http = boost::beast::http;
using boost::system::error_code;
using boost::system::system_error;

class connection {
public:
    /// The `number` says how early its first connection ends, if each ends after some requests: not all at once.
    /// Lifetime: `opts`, whose prefix is set, outlives the connection
    connection(const asio::any_io_executor& io, const options& opts, std::size_t number)
        : socket_(io), opts_(opts), most_(opts.most_on_one == 0 ? 0 : 1 + number % opts.most_on_one) {
        std::ostringstream rest;
        rest << opts.path << " HTTP/1.1\r\nHost: " << opts.target;
        get_head_ = "GET " + rest.str() + "\r\nX-Request-Id: ";
        rest << "\r\nContent-Length: " << opts.body_bytes;
        post_head_ = "POST " + rest.str() + "\r\nX-Request-Id: ";
        if (opts.post) body_.assign(opts.body_bytes, 'x');
    }

    /// Sends a request, on a new connection if there is none or the server has closed it meanwhile, and reads the
    /// answer. Nothing is ever sent twice: `a` says how far it came.
    /// Cancellation:  a cancel point; stopped, the connection is closed, since an answer may still be on its way
    co::task<> ask(tally::attempt& a) {
        try {
            co_await co::with_timeout(opts_.timeout, exchange(a));
        } catch (const co::timeout_error&) {
            a.ended = outcome::timeout;
        }
    }

private:
    using answer_parser = http::response_parser<http::string_body>;
    static constexpr std::uint64_t max_body_bytes = 64 << 20;

    /// Closes the connection unless it can be used again.
    class closing {
    public:
        explicit closing(connection& c) : connection_(&c) {}
        closing(const closing&) = delete;
        ~closing() {
            if (connection_ != nullptr) connection_->close();
        }
        void dismiss() { connection_ = nullptr; }

    private:
        connection* connection_;
    };

    co::task<> exchange(tally::attempt& a) {
        closing unless_kept(*this);
        const std::string id = id_of(opts_.prefix, a.number());
        outcome if_it_breaks = outcome::refused;
        try {
            if (!is_open()) co_await connect();
            a.connected_at = connected_at_;
            a.nth = ++asked_;
            const bool last = asked_ == most_;
            if_it_breaks = outcome::reset_before_send;
            co_await send(text_of(a.number(), id, last));
            a.sent_at = co::clock::now();
            if_it_breaks = outcome::reset_after_send;
            std::optional<answer_parser> answer;
            do {
                answer.emplace();
                answer->body_limit(max_body_bytes);
                co_await read(*answer);
            } while (answer->get().result_int() / 100 == 1);
            note(a, answer->get(), id);
            if (answer->keep_alive() && a.ended != outcome::malformed && !last) unless_kept.dismiss();
        } catch (const system_error& e) {
            a.ended = is_malformed(e.code()) ? outcome::malformed : if_it_breaks;
        }
    }

    [[nodiscard]] std::string text_of(std::uint64_t number, const std::string& id, bool last) const {
        const bool post = opts_.post && (!opts_.get || number % 2 == 1);
        std::string text = (post ? post_head_ : get_head_) + id + "\r\n";
        if (last) text += "Connection: close\r\n";
        text += "\r\n";
        if (post) text += body_;
        return text;
    }
    static void note(tally::attempt& a, const http::response<http::string_body>& answer, std::string_view id) {
        const auto named = answer.find("x-request-id");  // the gateway says it, a plain server need not
        a.status = answer.result_int();
        if (named != answer.end() && named->value() != id) a.ended = outcome::malformed;
        else a.ended = a.status / 100 == 2 ? outcome::ok : outcome::status;
    }
    static bool is_malformed(const error_code& e) {
        return e.category() == make_error_code(http::error::bad_version).category() &&
               e != http::error::end_of_stream && e != http::error::partial_message;
    }

    co::task<> connect() {
        close();
        co_await socket_.async_connect(opts_.target, co::use_cordon);
        if (std::exchange(connected_at_, co::clock::now()) != co::clock::time_point()) most_ = opts_.most_on_one;
        asked_ = 0;
        socket_.set_option(tcp::no_delay(true));
        socket_.non_blocking(true);
    }

    /// Hands all of it to the kernel. A loop of its own, as in `read`: composed operations of Asio and Beast forget a
    /// cancellation that arrives between two of their parts.
    co::task<> send(std::string bytes) {
        for (std::size_t sent = 0; sent < bytes.size();) {
            const auto rest = asio::buffer(bytes) + sent;
            sent += co_await socket_.async_write_some(rest, co::use_cordon);
        }
    }

    co::task<> read(answer_parser& answer) {
        for (;;) {
            error_code error;
            while (!answer.is_done() && buffer_.size() != 0 && !error)
                buffer_.consume(answer.put(buffer_.data(), error));
            if (answer.is_done()) co_return;
            if (error && error != http::error::need_more) throw system_error(error);
            try {
                buffer_.commit(co_await socket_.async_read_some(buffer_.prepare(16'384), co::use_cordon));
            } catch (const system_error& e) {
                if (e.code() != asio::error::eof) throw;
                if (!answer.got_some()) throw system_error(http::error::end_of_stream);
                answer.put_eof(error = {});
                if (error) throw system_error(error);
            }
        }
    }

    /// Whether the connection stands, and the server said nothing that nobody asked for.
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
    const options& opts_;
    std::string get_head_, post_head_, body_;
    std::size_t most_;                    // requests on this connection; 0: no bound
    std::size_t asked_ = 0;               // on this connection
    co::clock::time_point connected_at_;  // the last time
    boost::beast::flat_buffer buffer_;
};

}  // namespace loadgen
