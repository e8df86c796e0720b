// SPDX-License-Identifier: MIT
#pragma once

// The command line, every value checked.

#include <boost/asio/ip/tcp.hpp>

#include <charconv>
#include <chrono>
#include <cstddef>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>

namespace loadgen {

namespace asio = boost::asio;
using asio::ip::tcp;

inline constexpr std::string_view usage =
    R"(usage: loadgen --target ADDRESS:PORT (--rate R | --clients N) [option value]...
  --target ADDRESS:PORT  whom to ask; an address of version 6 is put in [brackets]
  --rate R               open loop: requests per second, due at fixed times, 0.001 to 1000000
  --clients N            closed loop: so many clients, each of which asks again when it was answered, 1 to 100000
  --connections N        open loop: connections at the same time at most, 1 to 100000 (default 64)
  --seconds S            how long requests count, 0.1 to 86400 (default 10)
  --warm-up S            how long before that they are sent but do not count, 0 to 3600 (default 0)
  --timeout-ms MS        how long a request may take from its turn on, with connecting, 1 to 600000 (default 5000)
  --requests-per-connection N
                         after so many the client closes a connection, the first ones sooner, each after another number;
                         1 to 1000000 (default: it closes none)
  --method NAME          GET, POST, or BOTH in turn (default GET)
  --path PATH            what to ask for (default /item)
  --body-bytes N         size of the body of a POST, 0 to 16777216 (default 64)
  --prefix TEXT          ids of requests (header X-Request-Id) are TEXT-NUMBER; 1 to 64 letters, digits, - and _
                         (default lg- and random digits)
  --ledger FILE          where the server lists the ids that it executed: counts ambiguous and lost requests
  --settle-ms MS         how long after the last request the ledger is read, 0 to 60000 (default 200)
  --json FILE            where the report goes once more, for programs
  --each FILE            where each request that counts gets a line when it has ended: number, due_at, connected_at,
                         sent_at, ended_at, outcome, status, and its number on its connection (0: it did not come to
                         that); times are seconds of the system's monotonic clock
SIGINT ends the load, waits for what is in flight and reports; a second one waits no longer.
)";

struct options {
    tcp::endpoint target;
    std::optional<double> rate;  // none: closed loop
    std::size_t connections = 64;
    std::chrono::nanoseconds lasts = std::chrono::seconds(10);
    std::chrono::nanoseconds warm_up{};
    std::chrono::milliseconds timeout{5000};
    std::size_t most_on_one = 0;    // requests on a connection; 0: no bound
    bool get = true, post = false;  // both: in turn
    std::string path = "/item";
    std::size_t body_bytes = 64;
    std::string prefix;  // empty: random
    std::string ledger, json, each;
    std::chrono::milliseconds settle{200};
};

[[noreturn]] inline void refuse(std::string_view name, std::string_view value, const std::string& allowed) {
    throw std::invalid_argument(std::string(name) + " is \"" + std::string(value) + "\", allowed is " + allowed);
}

/// Returns: the number that all of `text` spells. Errors: std::invalid_argument with name, value and allowed range.
template <class Number>
Number number(std::string_view name, std::string_view text, Number low, Number high) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value >= low && value <= high) return value;
    std::ostringstream range;
    range.precision(15);
    range << "a number from " << low << " to " << high;
    refuse(name, text, range.str());
}

inline std::size_t count(std::string_view name, std::string_view text, std::size_t low, std::size_t high) {
    return number<std::size_t>(name, text, low, high);
}
inline std::chrono::milliseconds milliseconds(std::string_view name, std::string_view text, int low, int high) {
    return std::chrono::milliseconds(number(name, text, low, high));
}
inline std::chrono::nanoseconds seconds(std::string_view name, std::string_view text, double low, double high) {
    return std::chrono::round<std::chrono::nanoseconds>(std::chrono::duration<double>(number(name, text, low, high)));
}

inline tcp::endpoint endpoint(std::string_view name, std::string_view text) {
    const std::size_t colon = text.rfind(':');
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    boost::system::error_code error;
    const asio::ip::address address = asio::ip::make_address(std::string(host), error);
    if (colon == text.npos || error || address.is_v6() != bracketed)
        refuse(name, text, "an address and a port, such as 127.0.0.1:8080 or [::1]:8080");
    return {address, number<unsigned short>(std::string(name) + "'s port", text.substr(colon + 1), 1, 65535)};
}

inline std::string path(std::string_view name, std::string_view text) {
    const auto is_plain = [](char c) { return c > ' ' && c < '\x7f'; };
    bool plain = text.starts_with('/');
    for (const char c : text) plain = plain && is_plain(c);
    if (!plain) refuse(name, text, "a path that begins with / and has no blanks, such as /item");
    return std::string(text);
}

inline std::string prefix(std::string_view name, std::string_view text) {
    constexpr std::string_view allowed = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
    if (text.empty() || text.size() > 64 || text.find_first_not_of(allowed) != text.npos)
        refuse(name, text, "1 to 64 letters, digits, - and _");
    return std::string(text);
}

inline void set_method(options& of, std::string_view name, std::string_view text) {
    if (text != "GET" && text != "POST" && text != "BOTH") refuse(name, text, "GET, POST or BOTH");
    of.get = text != "POST";
    of.post = text != "GET";
}

/// Errors: std::invalid_argument that says which option has which value, and what is allowed
inline options parse(int argc, const char* const* argv) {
    options parsed;
    std::optional<std::size_t> clients, connections;
    for (int i = 1; i < argc; i += 2) {
        const std::string_view name = argv[i];
        if (i + 1 == argc) throw std::invalid_argument(std::string(name) + " is unknown or lacks a value, see --help");
        const std::string_view value = argv[i + 1];
        if (name == "--target") parsed.target = endpoint(name, value);
        else if (name == "--rate") parsed.rate = number(name, value, 0.001, 1e6);
        else if (name == "--clients") clients = count(name, value, 1, 100'000);
        else if (name == "--connections") connections = count(name, value, 1, 100'000);
        else if (name == "--seconds") parsed.lasts = seconds(name, value, 0.1, 86'400);
        else if (name == "--warm-up") parsed.warm_up = seconds(name, value, 0, 3600);
        else if (name == "--timeout-ms") parsed.timeout = milliseconds(name, value, 1, 600'000);
        else if (name == "--requests-per-connection") parsed.most_on_one = count(name, value, 1, 1'000'000);
        else if (name == "--method") set_method(parsed, name, value);
        else if (name == "--path") parsed.path = path(name, value);
        else if (name == "--body-bytes") parsed.body_bytes = count(name, value, 0, 16'777'216);
        else if (name == "--prefix") parsed.prefix = prefix(name, value);
        else if (name == "--ledger") parsed.ledger = value;
        else if (name == "--settle-ms") parsed.settle = milliseconds(name, value, 0, 60'000);
        else if (name == "--json") parsed.json = value;
        else if (name == "--each") parsed.each = value;
        else throw std::invalid_argument(std::string(name) + " is not an option, see --help");
    }
    if (parsed.target.port() == 0) throw std::invalid_argument("--target is missing, see --help");
    if (parsed.rate.has_value() == clients.has_value())
        throw std::invalid_argument("needs either --rate (open loop) or --clients (closed loop), see --help");
    if (clients && connections)
        throw std::invalid_argument("--connections goes with --rate: a closed loop has one connection for each client");
    if (clients || connections) parsed.connections = clients ? *clients : *connections;
    return parsed;
}

}  // namespace loadgen
