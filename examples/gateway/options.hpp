// SPDX-License-Identifier: MIT
#pragma once

// What the gateway can be told, and its command line, every value checked.

#include <cordon/limit/rate.hpp>

#include <boost/asio/ip/tcp.hpp>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <set>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace gateway {

namespace asio = boost::asio;
using asio::ip::tcp;

inline constexpr std::string_view usage = R"(usage: gateway --upstream ADDRESS:PORT [option value]...
  --config FILE            more to choose, such as routes, limits and retries: see config.hpp; what is said here wins
  --listen ADDRESS:PORT    where clients connect; port 0 takes a free one, which the first line of output names
                           (default 127.0.0.1:8080)
  --upstream ADDRESS:PORT  whom requests are passed on to that no route of the file takes; an address of version 6 is
                           put in [brackets]
  --deadline-ms MS         what a request may take, less if its grpc-timeout header says so, 1 to 600000 (default 1000)
  --drain-ms MS            what SIGTERM leaves to the requests in flight, 1 to 600000 (default 10000)
  --header-ms MS           what the header of a request may take to arrive, 1 to 600000 (default 5000)
  --idle-ms MS             how long a connection is kept between requests, and may take to accept an answer,
                           1 to 3600000 (default 60000)
  --max-connections N      connections at the same time, 1 to 1000000; more of them wait to be accepted (default 1024)
  --max-header-bytes N     larger ones are answered 431, 64 to 1048576 (default 8192)
  --max-body-bytes N       larger ones are answered 413, 0 to 1073741824 (default 1048576)
  --threads N              each with its own listener and connections, 1 to 256 (default 1)
  --log FILE               where a line for each request is appended (default: stderr)
/debug/tasks says what every task is doing, /debug/tasks?format=json the same for programs, and SIGQUIT says it on stderr.
/metrics has the figures, for Prometheus. SIGHUP reads the file of --config again.
SIGTERM or SIGINT ends it when what is in flight has been answered, a second one at once. It then prints what was left.
)";

inline constexpr std::chrono::milliseconds longest_deadline{600'000};
inline constexpr std::size_t most_upstreams = 64;  // of one route

/// The numbers of the guards. See config.hpp for their names in a file, and what is allowed.
struct retry_numbers {
    int attempts = 3;                       // the first one included; for GET, HEAD, PUT and DELETE
    std::chrono::milliseconds backoff{10};  // the first wait at most; later ones grow to ten times that
    double budget_ratio = 0.2;              // retries for each request, besides ten per second
};
struct breaker_numbers {
    std::uint32_t window = 100;  // calls
    std::uint32_t min_calls = 20;
    double failure_rate = 0.5;
    std::chrono::milliseconds open_for{5000};

    friend bool operator==(const breaker_numbers&, const breaker_numbers&) = default;
};
struct bulkhead_numbers {
    std::size_t concurrent = 256, waiting = 256;
};
struct hedge_numbers {
    double percentile = 0.95;                        // a copy goes out when a call takes longer than so many do,
    std::optional<std::chrono::milliseconds> delay;  // or, if this is there, when it takes longer than that
};
struct redis_numbers {
    std::size_t connections = 8;            // of each thread
    std::chrono::milliseconds keep{1000};   // how long a value is good; that there is none as well
    std::chrono::milliseconds stale{0};     // how long after that it answers if redis does not
};
struct shedder_numbers {
    std::chrono::milliseconds target{5}, interval{100};
};

/// Where the requests of a route go, and what guards the calls. What is empty is not there.
struct route_options {
    std::string prefix;                    // of the path; empty: of the route that takes what no other does
    std::vector<tcp::endpoint> upstreams;  // calls go to them in turn; none: of that route only, it is not there
    std::optional<std::chrono::milliseconds> deadline;  // if it is not that of all
    std::optional<std::chrono::milliseconds> attempt{500};
    std::optional<retry_numbers> retry{std::in_place};
    std::optional<breaker_numbers> breaker{std::in_place};
    std::optional<bulkhead_numbers> bulkhead{std::in_place};
    std::optional<hedge_numbers> hedge;  // of GET and HEAD
    std::optional<redis_numbers> redis;  // the upstream is one, and alone

    [[nodiscard]] bool has_guards() const noexcept { return attempt || retry || breaker || bulkhead || hedge; }
};

/// What can change while the gateway runs.
struct guard_options {
    std::chrono::milliseconds deadline{1000};  // of a request, with all attempts
    route_options rest;
    std::vector<route_options> routes;         // the longest prefixes first
    std::optional<bulkhead_numbers> requests;  // of all routes together
    std::optional<shedder_numbers> shedder;    // of those that have waited for a place among them
    cordon::rate client_rate = cordon::rate::unlimited();
    std::uint64_t client_burst = 1;
    std::string client_header;  // that says who the client is; empty, or not in a request: its address

    /// Returns: how many different ones that speak HTTP there are, at least 1.
    [[nodiscard]] std::size_t upstreams() const {
        std::set<tcp::endpoint> different(rest.upstreams.begin(), rest.upstreams.end());
        for (const route_options& r : routes)
            if (!r.redis) different.insert(r.upstreams.begin(), r.upstreams.end());
        return std::max<std::size_t>(1, different.size());
    }
    /// Returns: how many connections to redis servers each thread may have.
    [[nodiscard]] std::size_t pooled() const {
        std::size_t sum = 0;
        for (const route_options& r : routes) sum += r.redis ? r.redis->connections : 0;
        return sum;
    }
    /// Returns: how many connections to upstreams one client can use: one to each, and one for a copy of its call.
    [[nodiscard]] std::size_t links() const {
        const auto has_copies = [](const route_options& r) { return r.hedge.has_value(); };
        return upstreams() + (has_copies(rest) || std::any_of(routes.begin(), routes.end(), has_copies) ? 1 : 0);
    }
};

struct options {
    tcp::endpoint listen{asio::ip::address_v4::loopback(), 8080};
    guard_options guards;
    std::chrono::milliseconds drain{10'000};
    std::chrono::milliseconds header{5000};
    std::chrono::milliseconds idle{60'000};
    std::size_t max_connections = 1024;
    std::size_t max_header_bytes = 8192;
    std::size_t max_body_bytes = 1'048'576;
    std::size_t threads = 1;
    std::string log;  // empty: stderr
    std::string config;
};

[[noreturn]] inline void refuse(std::string_view name, std::string_view value, const std::string& allowed) {
    throw std::invalid_argument(std::string(name) + " is \"" + std::string(value) + "\", allowed is " + allowed);
}

/// Returns: the number that all of `text` spells. Errors: std::invalid_argument with name, value and allowed range.
inline std::size_t number(std::string_view name, std::string_view text, std::size_t low, std::size_t high) {
    std::size_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size() || value < low || value > high)
        refuse(name, text, "a number from " + std::to_string(low) + " to " + std::to_string(high));
    return value;
}

inline std::chrono::milliseconds milliseconds(std::string_view name, std::string_view text, std::size_t high) {
    return std::chrono::milliseconds(number(name, text, 1, high));
}

inline tcp::endpoint endpoint(std::string_view name, std::string_view text, std::size_t low_port) {
    const std::size_t colon = text.rfind(':');
    std::string_view host = text.substr(0, colon);
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    if (bracketed) host = host.substr(1, host.size() - 2);
    boost::system::error_code error;
    const asio::ip::address address = asio::ip::make_address(std::string(host), error);
    if (colon == text.npos || error || address.is_v6() != bracketed)
        refuse(name, text, "an address and a port, such as 127.0.0.1:8080 or [::1]:8080");
    const std::size_t port = number(std::string(name) + "'s port", text.substr(colon + 1), low_port, 65535);
    return {address, static_cast<unsigned short>(port)};
}

/// Returns: `parsed`, and what the command line says in its place
/// Errors: std::invalid_argument that says which option has which value, and what is allowed
inline options parse(int argc, char** argv, options parsed = {}) {
    for (int i = 1; i < argc; i += 2) {
        const std::string_view name = argv[i];
        if (i + 1 == argc) throw std::invalid_argument(std::string(name) + " is unknown or lacks a value, see --help");
        const std::string_view value = argv[i + 1];
        if (name == "--listen") parsed.listen = endpoint(name, value, 0);
        else if (name == "--upstream") parsed.guards.rest.upstreams = {endpoint(name, value, 1)};
        else if (name == "--deadline-ms") parsed.guards.deadline = milliseconds(name, value, 600'000);
        else if (name == "--drain-ms") parsed.drain = milliseconds(name, value, 600'000);
        else if (name == "--header-ms") parsed.header = milliseconds(name, value, 600'000);
        else if (name == "--idle-ms") parsed.idle = milliseconds(name, value, 3'600'000);
        else if (name == "--max-connections") parsed.max_connections = number(name, value, 1, 1'000'000);
        else if (name == "--max-header-bytes") parsed.max_header_bytes = number(name, value, 64, 1'048'576);
        else if (name == "--max-body-bytes") parsed.max_body_bytes = number(name, value, 0, 1'073'741'824);
        else if (name == "--threads") parsed.threads = number(name, value, 1, 256);
        else if (name == "--log") parsed.log = value;
        else if (name == "--config") parsed.config = value;
        else throw std::invalid_argument(std::string(name) + " is not an option, see --help");
    }
    if (parsed.guards.rest.upstreams.empty() && parsed.guards.routes.empty())
        throw std::invalid_argument("--upstream is missing, see --help");
    return parsed;
}

}  // namespace gateway
