// SPDX-License-Identifier: MIT
#pragma once

// HTTP messages on their way through: read in parts that can be stopped, stripped of what concerns one hop only.

#include "options.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/string.hpp>
#include <boost/beast/http.hpp>

#include <algorithm>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace gateway {

namespace co = cordon;
namespace http = boost::beast::http;
using boost::beast::flat_buffer;
using boost::system::error_code;
using boost::system::system_error;
using request = http::request<http::string_body>;
using response = http::response<http::string_body>;
using request_parser = http::request_parser<http::string_body>;
using response_parser = http::response_parser<http::string_body>;

/// Reads until the parser has `enough`; what comes after it stays in the buffer. A loop of its own, not Beast's
/// async_read, because that one forgets a cancellation which arrives between two of its reads.
/// Errors:        system_error: http::error::end_of_stream if nothing came, else of the socket or of the parser
template <bool is_request>
co::task<> read_until(bool (http::basic_parser<is_request>::*enough)() const, tcp::socket& from, flat_buffer& buffer,
                      http::basic_parser<is_request>& parser) {
    for (;;) {
        error_code error;
        while (!(parser.*enough)() && buffer.size() != 0 && !error) buffer.consume(parser.put(buffer.data(), error));
        if ((parser.*enough)()) co_return;
        if (error && error != http::error::need_more) throw system_error(error);
        try {
            buffer.commit(co_await from.async_read_some(buffer.prepare(16'384), co::use_cordon));
        } catch (const system_error& e) {
            if (e.code() != asio::error::eof) throw;
            error = http::error::end_of_stream;
            if (parser.got_some()) parser.put_eof(error = {});
            if (error) throw system_error(error);
        }
    }
}

template <bool is_request>
co::task<> read_header(tcp::socket& from, flat_buffer& buffer, http::basic_parser<is_request>& parser) {
    return read_until(&http::basic_parser<is_request>::is_header_done, from, buffer, parser);
}
template <bool is_request>
co::task<> read_body(tcp::socket& from, flat_buffer& buffer, http::basic_parser<is_request>& parser) {
    return read_until(&http::basic_parser<is_request>::is_done, from, buffer, parser);
}

/// Returns: the value of a header, unless it is missing or occurs more than once.
inline std::optional<std::string_view> sole(const http::fields& fields, std::string_view name) {
    const auto [first, last] = fields.equal_range(name);
    if (first == last || std::next(first) != last) return std::nullopt;
    return std::string_view(first->value());
}

/// Whether the body came plain, or in chunks only, which the parser has joined. Any other coding would still be on it,
/// and unnamed: Transfer-Encoding concerns one hop. Version 1.0 has no codings (RFC 9112, 6.1).
template <bool is_request>
bool is_body_decoded(const http::header<is_request>& message) {
    if (message.count(http::field::transfer_encoding) == 0) return true;
    const std::string_view coding = sole(message, "transfer-encoding").value_or("");
    return message.version() == 11 && boost::beast::iequals(coding, "chunked");
}

inline std::string text_of(const tcp::endpoint& where) {
    std::ostringstream text;
    text << where;
    return text.str();
}

/// Copies the headers that are meant for the far end (RFC 9110, 7.6.1). Connection may name more that concern one hop,
/// but only such as Beast does not know: what it knows and is not listed here is for the far end, and to heed
/// `Connection: host, authorization` would make another request of it. Bodies are held in memory while they pass, so
/// that their length is known anew.
inline void copy_end_to_end(const http::fields& from, http::fields& to) {
    constexpr http::field for_this_hop[] = {
        http::field::connection, http::field::keep_alive, http::field::proxy_connection,
        http::field::te, http::field::trailer, http::field::transfer_encoding, http::field::upgrade,
        http::field::http2_settings, http::field::expect, http::field::content_length,
    };
    const auto [first, last] = from.equal_range(http::field::connection);
    for (const auto& header : from) {
        const auto is_it = [&](http::field name) { return name == header.name(); };
        const auto names_it = [&](const auto& named) {
            return http::token_list(named.value()).exists(header.name_string());
        };
        if (std::any_of(std::begin(for_this_hop), std::end(for_this_hop), is_it)) continue;
        if (header.name() == http::field::unknown && std::any_of(first, last, names_it)) continue;
        to.insert(header.name(), header.name_string(), header.value());
    }
}

/// A request for the upstream, without its body.
inline request passed_on(const request& asked) {
    request made;
    made.method(asked.method());
    made.target(asked.target());
    made.version(11);
    copy_end_to_end(asked, made);
    made.insert(http::field::via, "1.1 gateway");
    return made;
}

/// An answer for the client.
inline response passed_back(response from, http::verb to) {
    response made;
    made.result(from.result_int());
    copy_end_to_end(from, made);
    const bool bodiless = to == http::verb::head || made.result() == http::status::no_content ||
                          made.result() == http::status::not_modified;
    const auto length = from.find(http::field::content_length);
    if (!bodiless) made.content_length(from.body().size());
    else if (length != from.end()) made.set(http::field::content_length, length->value());
    made.body() = std::move(from.body());
    return made;
}

/// An answer of the gateway's own.
inline response own_answer(http::status status, std::string text) {
    response made;
    made.result(status);
    made.set(http::field::content_type, "text/plain");
    made.body() = std::move(text += '\n');
    made.content_length(made.body().size());
    return made;
}

/// An answer whose body is a value of unknown type.
inline response answer_with(std::string value) {
    response made;
    made.set(http::field::content_type, "application/octet-stream");
    made.body() = std::move(value);
    made.content_length(made.body().size());
    return made;
}

/// The same, after which the connection ends: where the next request begins is uncertain.
inline response refusal(http::status status, std::string text) {
    response made = own_answer(status, std::move(text));
    made.keep_alive(false);
    return made;
}

}  // namespace gateway
