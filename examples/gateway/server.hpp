// SPDX-License-Identifier: MIT
#pragma once

// What one thread of the gateway does: accepts, serves, and drains when it is told to.

#include "connection.hpp"
#include "service.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/socket_base.hpp>

#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <deque>
#include <exception>
#include <iostream>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

namespace gateway {

using namespace std::chrono_literals;

/// What all threads of the process share.
struct process {
    explicit process(std::size_t max_connections) : slots(max_connections, {.name = "connections"}) {}

    co::async_semaphore slots;                      // for one connection each
    co::async_event ending{{.name = "ending"}};     // the first signal: drain
    co::async_event at_once{{.name = "at once"}};   // the second one: stop the rest
    std::atomic<std::size_t> serving{0};            // threads that have not drained
    co::inplace_stop_source ended;                  // stopped by the last of them
};

/// The right to one connection, given back with the frame that holds it.
struct give_back {
    void operator()(co::async_semaphore* slots) const noexcept { slots->release(); }
};
using slot = std::unique_ptr<co::async_semaphore, give_back>;

inline co::task<> serve(service& shared, tcp::socket client, slot) {
    connection served(shared, std::move(client));
    co_await served.run();
}

/// With several of them at one address the kernel spreads the connections; one alone is nobody else's to share.
inline tcp::acceptor listen_at(asio::io_context& io, const tcp::endpoint& address, bool shared) {
    using reuse_port = asio::detail::socket_option::boolean<SOL_SOCKET, SO_REUSEPORT>;
    tcp::acceptor made(io, address.protocol());
    made.set_option(asio::socket_base::reuse_address(true));
    if (shared) made.set_option(reuse_port(true));
    made.bind(address);
    made.listen();
    made.non_blocking(true);
    return made;
}

/// How a drain ended.
struct drained {
    std::size_t left = 0;          // tasks that had to be stopped
    std::size_t never_served = 0;  // connections that were accepted last
    std::size_t failed = 0;
};

class server {
public:
    server(asio::io_context& io, co::executor_ref executor, service& shared, process& all, const tcp::endpoint& address)
        : shared_(shared), all_(all), connections_(executor, {.name = "connections"}),
          acceptor_(listen_at(io, address, shared.opts.threads > 1)) {}

    [[nodiscard]] tcp::endpoint address() const { return acceptor_.local_endpoint(); }

    /// Serves until the process is to end, then drains, until it is to end at once or the drain deadline.
    co::task<drained> run() {
        co_await co::when_any(accept_all(), all_.ending.wait());
        shared_.draining.request_stop();
        accept_rest();
        std::ostringstream line;
        line << "draining: " << connections_.size() + late_.size() << " connections\n";
        std::cout << line.str() << std::flush;
        auto ends = co::when_any(finish(), all_.at_once.wait());
        (void)co_await co::as_outcome(co::with_timeout(shared_.opts.drain, std::move(ends)));
        co_return co_await stop_rest();
    }

private:
    /// Accepts while there is room; who comes when there is none waits in the listener's queue.
    co::task<> accept_all() {
        for (;;) {
            co_await acceptor_.async_wait(tcp::acceptor::wait_read, co::use_cordon);
            co_await all_.slots.acquire();  // only when somebody has come: other threads want them, too
            slot room(&all_.slots);
            error_code error;
            tcp::socket client = acceptor_.accept(error);
            if (!error) start(std::move(client), std::move(room));
            else if (error != asio::error::would_block) co_await co::sleep_for(20ms);  // short of something
        }
    }

    /// Takes what has connected already, and closes the door, unless there are too few descriptors to take all: a
    /// listener that is closed resets who waits in its queue.
    void accept_rest() {
        for (error_code error; acceptor_.is_open() && !is_short(error);) {
            tcp::socket client = acceptor_.accept(error);
            if (!error) late_.push_back(std::move(client));
            else if (error == asio::error::would_block) acceptor_.close(error);
        }
    }
    static bool is_short(const error_code& error) {
        return error == asio::error::no_descriptors || error == boost::system::errc::too_many_files_open_in_system ||
               error == asio::error::no_buffer_space || error == asio::error::no_memory;
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
        while (acceptor_.is_open() || !late_.empty()) {
            accept_rest();  // what ends gives descriptors back
            if (late_.empty() && acceptor_.is_open()) co_await co::sleep_for(20ms);
            if (late_.empty()) continue;
            co_await all_.slots.acquire();
            start(std::move(late_.front()), slot(&all_.slots));
            late_.pop_front();
        }
        co_await connections_.join();
    }

    co::task<drained> stop_rest() {
        drained result{connections_.size(), late_.size(), 0};
        for (const co::task_info& task : connections_.children()) {
            std::istringstream lines(co::describe(task));
            for (std::string line; std::getline(lines, line);) std::cout << "left: " + line + '\n' << std::flush;
        }
        connections_.request_stop();
        co_await connections_.join();
        result.failed = connections_.error_count();
        for (const co::task_error& failure : connections_.errors()) report(failure);
        co_return result;
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
    process& all_;
    co::task_group connections_;
    tcp::acceptor acceptor_;
    std::deque<tcp::socket> late_;
};

}  // namespace gateway
