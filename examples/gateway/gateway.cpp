// SPDX-License-Identifier: MIT
// An HTTP/1.1 reverse proxy on one thread: a group of connections, a deadline, an id and a trace for each request, and
// an end that loses nothing. SIGTERM: not ready, accept what has connected, close the listener, answer what is in
// flight and what comes in shortly after, then stop the rest and say what it was.
#include "connection.hpp"
#include "options.hpp"
#include "service.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/signal_set.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <deque>
#include <exception>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <utility>

namespace gateway {

using namespace std::chrono_literals;

/// The right to one connection, given back with the frame that holds it.
struct give_back {
    void operator()(co::async_semaphore* slots) const noexcept { slots->release(); }
};
using slot = std::unique_ptr<co::async_semaphore, give_back>;

co::task<> serve(service& shared, tcp::socket client, slot) {
    connection served(shared, std::move(client));
    co_await served.run();
}

class server {
public:
    server(asio::io_context& io, co::asio_executor& executor, service& shared)
        : shared_(shared), slots_(shared.opts.max_connections, {.name = "connections"}),
          connections_(executor, {.name = "connections"}), acceptor_(io, shared.opts.listen),
          signals_(io, SIGTERM, SIGINT) {}

    /// Serves until a signal comes, then drains, until a second one or the drain deadline.
    co::task<> run() {
        std::cout << "listening on " << acceptor_.local_endpoint() << std::endl;
        co_await co::when_any(accept_all(), signals_.async_wait(co::use_cordon));

        const co::clock::time_point began = co::clock::now();
        shared_.draining.request_stop();
        accept_rest();
        std::cout << "draining: " << connections_.size() + late_.size() << " connections" << std::endl;
        auto drained = co::when_any(finish(), signals_.async_wait(co::use_cordon));
        (void)co_await co::as_outcome(co::with_timeout(shared_.opts.drain, std::move(drained)));
        signals_.clear();  // the next signal ends the process
        co_await stop_rest(began);
    }

private:
    /// Accepts while there is room; who comes when there is none waits in the listener's queue.
    co::task<> accept_all() {
        for (;;) {
            co_await slots_.acquire();
            slot room(&slots_);
            auto client = co_await co::as_outcome(acceptor_.async_accept(co::use_cordon));
            if (client.has_value()) start(*std::move(client), std::move(room));
            else co_await co::sleep_for(20ms);  // the peer is gone again, or the machine is short of something
        }
    }

    /// Takes what has connected already, and closes the door: a listener that is closed resets who waits in its queue.
    void accept_rest() {
        error_code error;
        acceptor_.non_blocking(true, error);
        while (!error) {
            tcp::socket client = acceptor_.accept(error);
            if (!error) late_.push_back(std::move(client));
        }
        acceptor_.close(error);
    }

    void start(tcp::socket client, slot room) {
        std::ostringstream peer;
        error_code error;
        peer << client.remote_endpoint(error);
        ++shared_.connections;
        connections_.spawn(serve(shared_, std::move(client), std::move(room)), {.name = peer.str()});
    }

    /// Serves those who came last, and waits until all connections have ended.
    co::task<> finish() {
        while (!late_.empty()) {
            co_await slots_.acquire();
            start(std::move(late_.front()), slot(&slots_));
            late_.pop_front();
        }
        co_await connections_.join();
    }

    co::task<> stop_rest(co::clock::time_point began) {
        const std::size_t left = connections_.size();
        for (const co::task_info& task : connections_.children()) {
            std::istringstream lines(co::describe(task));
            for (std::string line; std::getline(lines, line);) std::cout << "left: " << line << '\n';
        }
        connections_.request_stop();
        co_await connections_.join();
        for (const co::task_error& failure : connections_.errors()) report(failure);
        const auto took = std::chrono::duration_cast<std::chrono::milliseconds>(co::clock::now() - began);
        std::cout << "connections=" << shared_.connections << "\nrequests=" << shared_.requests
                  << "\nmalformed=" << shared_.malformed << "\ndeadline_hits=" << shared_.deadline_hits
                  << "\nupstream_failures=" << shared_.upstream_failures
                  << "\nanswered_while_draining=" << shared_.answered_while_draining
                  << "\nnever_served=" << late_.size() << "\nfailed=" << connections_.error_count()
                  << "\ntasks_left=" << left << "\ndrain_ms=" << took.count() << std::endl;
    }

    static void report(const co::task_error& failure) {
        try {
            std::rethrow_exception(failure.error);
        } catch (const std::exception& e) {
            std::cerr << "gateway: connection " << failure.name << " failed: " << e.what() << '\n';
        } catch (...) {
            std::cerr << "gateway: connection " << failure.name << " failed\n";
        }
    }

    service& shared_;
    co::async_semaphore slots_;
    co::task_group connections_;
    tcp::acceptor acceptor_;
    asio::signal_set signals_;
    std::deque<tcp::socket> late_;
};

/// Sees to it that every connection can have its two sockets.
void raise_file_limit(const options& opts) {
    const rlim_t needed = 2 * opts.max_connections + 64;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
    limit.rlim_cur = std::min(needed, limit.rlim_max);
    if (limit.rlim_cur < needed || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        refuse("--max-connections", std::to_string(opts.max_connections),
               "what the limit of open files (ulimit -n) leaves room for");
}

int run(int argc, char** argv) {
    if (argc > 1 && argv[1] == std::string_view("--help")) {
        std::cout << usage;
        return 0;
    }
    const options opts = parse(argc, argv);
    raise_file_limit(opts);
    std::signal(SIGPIPE, SIG_IGN);
    service shared(opts);
    asio::io_context io(1);
    co::asio_executor executor(io);
    server gateway(io, executor, shared);
    int code = 1;
    co::start_on(executor, gateway.run(), [&](co::outcome<void> ended) { code = ended.has_value() ? 0 : 1; });
    io.run();
    return code;
}

}  // namespace gateway

int main(int argc, char** argv) try {
    return gateway::run(argc, argv);
} catch (const std::exception& error) {
    std::cerr << "gateway: " << error.what() << '\n';
    return 1;
}
