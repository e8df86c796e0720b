// SPDX-License-Identifier: MIT
// A configurable HTTP/1.1 server to stand behind the gateway: slow, failing or hanging on request. It plays the outside
// world, so it knows nothing of cordon. Each answer is a JSON object that shows the headers its request came with; a
// ledger lists the ids of the requests that were executed, to be joined with what clients saw.
#include <boost/asio.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <charconv>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <random>
#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::ip::tcp;
using request = http::request<http::string_body>;
using response = http::response<http::string_body>;
using milliseconds = std::chrono::duration<double, std::milli>;

constexpr std::string_view usage = R"(usage: upstream [option value]...
  --port N             port on 127.0.0.1; 0 takes a free one, which the first line of output names (default 0)
  --latency-ms MS      mean time that a request takes, 0 to 60000 (default 40)
  --latency-dist NAME  constant, uniform (half to one and a half times the mean) or exponential (cut at its own
                       99th percentile, 4.6 times the mean) (default uniform)
  --slow-share P       share of requests that take --slow-ms instead, as if a slow replica had them, 0 to 1 (default 0)
  --slow-ms MS         0 to 60000 (default 400)
  --concurrent N       requests at a time, 1 to 1000000; more of them wait in the order in which they came
                       (default: no bound)
  --error-rate P       share of requests answered 500 instead of being executed, 0 to 1 (default 0)
  --body-bytes N       least size of an answer's body, 0 to 16777216 (default 1024)
  --seed N             seed of latencies and errors (default 1)
  --ledger FILE        appends the X-Request-Id of every executed request, a line each
While it runs: POST /control/hang?on=1|0, POST /control/latency?ms=MS, POST /control/errors?rate=P, GET /control/stats
)";

struct options {
    unsigned short port = 0;
    double latency_ms = 40;
    std::string shape = "uniform";
    double slow_share = 0, slow_ms = 400;
    std::size_t concurrent = SIZE_MAX;
    double error_rate = 0;
    std::size_t body_bytes = 1024;
    std::uint64_t seed = 1;
    std::string ledger;
};

/// Returns: the number that all of `text` spells. Errors: std::invalid_argument with name, value and allowed range.
template <class Number>
Number number(std::string_view name, std::string_view text, Number low, Number high) {
    Number value{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc{} && end == text.data() + text.size() && value >= low && value <= high) return value;
    std::ostringstream message;
    message << name << " is \"" << text << "\", allowed is a number from " << low << " to " << high;
    throw std::invalid_argument(message.str());
}

double latency(std::string_view name, std::string_view text) { return number(name, text, 0.0, 60'000.0); }
double share(std::string_view name, std::string_view text) { return number(name, text, 0.0, 1.0); }

options parse(int argc, char** argv) {
    options parsed;
    for (int i = 1; i < argc; i += 2) {
        const std::string_view name = argv[i];
        if (i + 1 == argc) throw std::invalid_argument(std::string{name} + " is unknown or lacks a value, see --help");
        const std::string_view value = argv[i + 1];
        if (name == "--port") parsed.port = number<unsigned short>(name, value, 0, 65535);
        else if (name == "--latency-ms") parsed.latency_ms = latency(name, value);
        else if (name == "--latency-dist") parsed.shape = value;
        else if (name == "--slow-share") parsed.slow_share = share(name, value);
        else if (name == "--slow-ms") parsed.slow_ms = latency(name, value);
        else if (name == "--concurrent") parsed.concurrent = number<std::size_t>(name, value, 1, 1'000'000);
        else if (name == "--error-rate") parsed.error_rate = share(name, value);
        else if (name == "--body-bytes") parsed.body_bytes = number<std::size_t>(name, value, 0, 16'777'216);
        else if (name == "--seed") parsed.seed = number<std::uint64_t>(name, value, 0, UINT64_MAX);
        else if (name == "--ledger") parsed.ledger = value;
        else throw std::invalid_argument(std::string{name} + " is not an option, see --help");
    }
    if (parsed.shape != "constant" && parsed.shape != "uniform" && parsed.shape != "exponential")
        throw std::invalid_argument("--latency-dist is \"" + parsed.shape +
                                    "\", allowed are constant, uniform and exponential");
    return parsed;
}

/// Returns: the milliseconds that a grpc-timeout header (1 to 8 digits and a unit) stands for, or nothing if malformed.
std::optional<double> grpc_timeout_ms(std::string_view text) {
    constexpr std::string_view units = "HMSmun";
    constexpr double unit_ms[] = {3'600'000, 60'000, 1'000, 1, 1e-3, 1e-6};
    const auto unit = text.empty() ? units.npos : units.find(text.back());
    if (unit == units.npos || text.size() > 9) return std::nullopt;
    std::uint32_t amount = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size() - 1, amount);
    if (error != std::errc{} || end + 1 != text.data() + text.size()) return std::nullopt;
    return amount * unit_ms[unit];
}

/// Returns: the header as a JSON string, or null if the request has none.
std::string quoted(const request& from, std::string_view header) {
    const auto found = from.find(header);
    if (found == from.end()) return "null";
    std::string out = "\"";
    for (const char c : found->value()) {
        constexpr std::string_view hex = "0123456789abcdef";
        const auto byte = static_cast<unsigned char>(c);
        const bool plain = byte >= 0x20 && byte < 0x7f && c != '"' && c != '\\';
        if (plain) out += c;
        else ((out += "\\u00") += hex[byte >> 4]) += hex[byte & 15];
    }
    return out += '"';
}

response make_response(const request& to, http::status status, std::string body) {
    response made{status, to.version()};
    made.keep_alive(to.keep_alive());
    made.set(http::field::content_type, "application/json");
    made.content_length(body.size());
    if (to.method() != http::verb::head) made.body() = std::move(body);
    return made;
}

/// So many at a time, first come, first served. One thread uses it.
class slots {
public:
    explicit slots(std::size_t free) : free_(free) {}

    asio::awaitable<void> acquire() {
        if (free_ > 0) {
            --free_;
            co_return;
        }
        asio::steady_timer turn{co_await asio::this_coro::executor, asio::steady_timer::time_point::max()};
        waiting_.push_back(&turn);
        boost::system::error_code canceled;  // whoever leaves cancels the timer of the next, which has the slot then
        co_await turn.async_wait(asio::redirect_error(asio::use_awaitable, canceled));
    }
    void release() {
        if (waiting_.empty()) {
            ++free_;
            return;
        }
        waiting_.front()->cancel();
        waiting_.pop_front();
    }
    std::size_t waiting() const { return waiting_.size(); }

private:
    std::size_t free_;
    std::deque<asio::steady_timer*> waiting_;
};

/// One thread runs everything, so no member needs a lock. Lifetime: outlives the io_context that runs its coroutines.
class upstream {
public:
    explicit upstream(options opts)
        : options_(std::move(opts)), random_(options_.seed), slots_(options_.concurrent) {
        if (options_.ledger.empty()) return;
        ledger_.open(options_.ledger, std::ios::app);
        if (!ledger_) throw std::invalid_argument("--ledger is \"" + options_.ledger + "\", which cannot be opened");
    }

    /// Accepts connections for good.
    asio::awaitable<void> serve(tcp::acceptor acceptor) {
        for (;;) {
            tcp::socket client = co_await acceptor.async_accept(asio::use_awaitable);
            client.set_option(tcp::no_delay{true});
            client.non_blocking(true);
            asio::co_spawn(acceptor.get_executor(), converse(std::move(client)), rethrow);
        }
    }

    std::string stats() const {
        const auto smallest = grpc_timeout_min_ms_ ? std::to_string(*grpc_timeout_min_ms_) : "null";
        std::ostringstream out;
        out << "{\"requests\":" << requests_ << ",\"executed\":" << executed_ << ",\"errors\":" << errors_
            << ",\"abandoned\":" << abandoned_ << ",\"hanging\":" << hanging_now_ << ",\"in_progress\":" << in_progress_
            << ",\"waiting\":" << slots_.waiting() << ",\"open_connections\":" << open_connections_
            << ",\"grpc_timeouts\":" << grpc_timeouts_ << ",\"grpc_timeouts_malformed\":" << malformed_
            << ",\"grpc_timeout_min_ms\":" << smallest << "}\n";
        return out.str();
    }

    static void rethrow(std::exception_ptr error) { if (error) std::rethrow_exception(error); }

private:
    /// Counts up while it lives.
    struct presence {
        explicit presence(std::uint64_t& counted) : count(counted) { ++count; }
        presence(const presence&) = delete;
        ~presence() { --count; }
        std::uint64_t& count;
    };

    /// Answers the requests of one connection until either side closes it.
    asio::awaitable<void> converse(tcp::socket client) {
        const presence open{open_connections_};
        boost::beast::flat_buffer buffer;
        boost::system::error_code error;
        while (!error) {
            request asked;
            co_await http::async_read(client, buffer, asked, asio::redirect_error(asio::use_awaitable, error));
            if (error) break;
            response reply;
            if (asked.target().starts_with("/control/")) reply = control(asked);
            else reply = co_await take_turn(client, asked);
            co_await http::async_write(client, reply, asio::redirect_error(asio::use_awaitable, error));
            if (!reply.keep_alive()) break;
        }
    }

    asio::awaitable<response> take_turn(tcp::socket& client, const request& asked) {
        co_await slots_.acquire();
        response made = co_await execute(client, asked);
        slots_.release();  // by no destructor: those run also when the program ends, and the timers are gone
        co_return made;
    }

    /// Takes the time that this request is to take, then executes it. A client that leaves before its turn or during a
    /// hang abandons its request; one that leaves later does not undo it, as with any server that has begun to write to
    /// its database.
    asio::awaitable<response> execute(tcp::socket& client, const request& asked) {
        const presence busy{in_progress_};
        ++requests_;
        note_timeout(asked);
        const milliseconds takes = draw_latency();
        const bool fails = std::bernoulli_distribution{options_.error_rate}(random_);
        {
            const presence waiting{hanging_now_};
            // Polled, since a wait for readability would also end at the first byte of a pipelined request.
            while (hang_ && !has_left(client)) co_await pause(milliseconds{10});
        }
        if (has_left(client)) {
            ++abandoned_;
            co_return make_response(asked, http::status::service_unavailable, "{}\n");
        }
        co_await pause(takes);
        if (fails) {
            ++errors_;
            co_return make_response(asked, http::status::internal_server_error, echo(asked));
        }
        ++executed_;
        write_ledger(asked);
        co_return make_response(asked, http::status::ok, echo(asked));
    }

    static asio::awaitable<void> pause(milliseconds time) {
        asio::steady_timer timer{co_await asio::this_coro::executor};
        timer.expires_after(std::chrono::duration_cast<std::chrono::nanoseconds>(time));
        co_await timer.async_wait(asio::use_awaitable);
    }

    /// Returns: whether the client closed or reset the connection (bytes that wait to be read say that it did not).
    static bool has_left(tcp::socket& client) {
        char byte = 0;
        boost::system::error_code error;
        client.receive(asio::buffer(&byte, 1), tcp::socket::message_peek, error);
        return error && error != asio::error::would_block;
    }

    milliseconds draw_latency() {
        const double mean = options_.latency_ms;
        if (options_.slow_share > 0 && std::bernoulli_distribution{options_.slow_share}(random_))
            return milliseconds{options_.slow_ms};
        if (mean == 0 || options_.shape == "constant") return milliseconds{mean};
        if (options_.shape == "uniform")
            return milliseconds{std::uniform_real_distribution<double>{mean / 2, mean * 3 / 2}(random_)};
        const double drawn = std::exponential_distribution<double>{1 / mean}(random_);
        return milliseconds{std::fmin(drawn, mean * std::log(100.0))};
    }

    void note_timeout(const request& asked) {
        const auto header = asked.find("grpc-timeout");
        if (header == asked.end()) return;
        ++grpc_timeouts_;
        const auto ms = grpc_timeout_ms(header->value());
        if (!ms) ++malformed_;
        else if (!grpc_timeout_min_ms_ || *ms < *grpc_timeout_min_ms_) grpc_timeout_min_ms_ = ms;
    }

    /// Flushes each line, so that the ledger is whole however this process ends.
    void write_ledger(const request& executed) {
        const auto id = executed.find("x-request-id");
        if (!ledger_.is_open() || id == executed.end()) return;
        ledger_ << id->value() << '\n' << std::flush;
        if (!ledger_) throw std::runtime_error("cannot write to the ledger " + options_.ledger);
    }

    std::string echo(const request& asked) const {
        std::ostringstream out;
        out << "{\"method\":\"" << asked.method_string() << "\",\"received_bytes\":" << asked.body().size()
            << ",\"x-request-id\":" << quoted(asked, "x-request-id")
            << ",\"traceparent\":" << quoted(asked, "traceparent")
            << ",\"grpc-timeout\":" << quoted(asked, "grpc-timeout") << "}";
        std::string body = out.str();
        if (body.size() + 1 < options_.body_bytes) body.resize(options_.body_bytes - 1, ' ');
        return body += '\n';
    }

    response control(const request& asked) try {
        const std::string_view target{asked.target().data(), asked.target().size()};
        const bool post = asked.method() == http::verb::post;
        constexpr std::string_view hang = "/control/hang?on=", slow = "/control/latency?ms=",
                                   fail = "/control/errors?rate=", show = "/control/stats";
        if (post && target.starts_with(hang)) hang_ = number("on", target.substr(hang.size()), 0, 1) == 1;
        else if (post && target.starts_with(slow)) options_.latency_ms = latency("ms", target.substr(slow.size()));
        else if (post && target.starts_with(fail)) options_.error_rate = share("rate", target.substr(fail.size()));
        else if (asked.method() != http::verb::get || target != show)
            return make_response(asked, http::status::not_found, "{\"error\":\"no such control, see --help\"}\n");
        return make_response(asked, http::status::ok, stats());
    } catch (const std::invalid_argument& error) {
        return make_response(asked, http::status::bad_request, std::string{error.what()} + '\n');
    }

    options options_;
    std::mt19937_64 random_;
    std::ofstream ledger_;
    slots slots_;
    bool hang_ = false;
    std::uint64_t requests_ = 0, executed_ = 0, errors_ = 0, abandoned_ = 0, grpc_timeouts_ = 0, malformed_ = 0;
    std::uint64_t hanging_now_ = 0, in_progress_ = 0, open_connections_ = 0;
    std::optional<double> grpc_timeout_min_ms_;
};

int main(int argc, char** argv) try {
    if (argc > 1 && argv[1] == std::string_view{"--help"}) {
        std::cout << usage;
        return 0;
    }
    const options opts = parse(argc, argv);
    upstream server{opts};
    asio::io_context io{1};
    tcp::acceptor acceptor{io, tcp::endpoint{asio::ip::address_v4::loopback(), opts.port}};
    std::cout << "listening on " << acceptor.local_endpoint() << std::endl;
    asio::signal_set signals{io, SIGINT, SIGTERM};
    signals.async_wait([&io](boost::system::error_code, int) { io.stop(); });
    asio::co_spawn(io, server.serve(std::move(acceptor)), upstream::rethrow);
    io.run();
    std::cout << server.stats();
    return 0;
} catch (const std::exception& error) {
    std::cerr << "upstream: " << error.what() << '\n';
    return 1;
}
