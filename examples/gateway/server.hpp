// SPDX-License-Identifier: MIT
#pragma once

// What one thread of the gateway does: accepts, serves, and drains when it is told to.

#include "connection.hpp"
#include "listener.hpp"
#include "service.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

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
#include <variant>

namespace gateway {

using namespace std::chrono_literals;

/// Returns: what an error says of itself.
inline std::string text_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    } catch (...) {
        return "an error of unknown type";
    }
}

/// What all threads of the process share.
struct process {
    process(const options& opts, std::size_t most_queued_each)
        : most_queued(most_queued_each), slots(opts.max_connections, {.name = "connections"}), common(opts.guards) {}

    const std::size_t most_queued;                  // connections that a thread may accept before they have slots
    co::async_semaphore slots;                      // for one connection each
    commons common;                                 // of all requests
    const co::registry::registration slots_seen = common.metrics.add(slots);
    co::async_event ending{{.name = "ending"}};     // the first signal: drain
    co::async_event at_once{{.name = "at once"}};   // the second one: stop the rest
    std::atomic<std::size_t> serving{0};            // threads that have not drained
    co::inplace_stop_source ended;                  // stopped by the last of them
    std::atomic<bool> failed{false};

    /// Says what a thread failed of, and has all of them drain: the kernel would go on sending clients to it.
    void fail(const std::exception_ptr& why) {
        failed = true;
        std::cerr << "gateway: " + text_of(why) + '\n' << std::flush;
        ending.set();
    }
};

/// The right to one connection, given back with the frame that holds it.
struct give_back {
    void operator()(co::async_semaphore* slots) const noexcept { slots->release(); }
};
using slot = std::unique_ptr<co::async_semaphore, give_back>;

inline co::task<> serve(service& shared, tcp::socket client, slot) {
    co_await serve_client(shared, std::move(client));
}

/// How a drain ended.
struct drained {
    std::size_t left = 0;          // tasks that had to be stopped
    std::size_t never_served = 0;  // connections that were accepted last
    std::size_t failed = 0;
    co::clock::duration took{};
};

class server {
public:
    server(asio::io_context& io, co::executor_ref executor, service& shared, process& all, const tcp::endpoint& address)
        : shared_(shared), all_(all), connections_(executor, {.name = "connections"}),
          acceptor_(listen_at(io, address, shared.opts.threads > 1)) {}

    [[nodiscard]] tcp::endpoint address() const { return acceptor_.local_endpoint(); }

    /// Serves until the process is to end, then drains, until it is to end at once or the drain deadline. If it cannot
    /// accept any more, the process is to end.
    co::task<drained> run() {
        auto accepting = co::as_outcome(accept_all());  // an outcome, since when_any waits on if one branch throws
        const auto first = co_await co::when_any(std::move(accepting), all_.ending.wait());
        if (const auto* const accepted = std::get_if<0>(&first)) all_.fail(accepted->error());
        const co::clock::time_point began = co::clock::now();
        shared_.draining.request_stop();
        admit_no_more(acceptor_);
        co_await co::sleep_for(20ms);  // for the connections that are half made; what takes longer is reset
        accept_rest();
        std::ostringstream line;
        line << "draining: " << connections_.size() + queued_.size() << " connections\n";
        std::cout << line.str() << std::flush;
        auto ends = co::when_any(finish(), all_.at_once.wait());
        (void)co_await co::as_outcome(co::with_timeout(shared_.opts.drain, std::move(ends)));
        drained result = co_await stop_rest();
        result.took = co::clock::now() - began;
        co_return result;
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
    /// listener that is closed resets who waits in its queue, and who is served needs one more for the upstream.
    void accept_rest() {
        for (error_code error; acceptor_.is_open() && queued_.size() < all_.most_queued && !is_short(error);) {
            tcp::socket client = acceptor_.accept(error);
            if (!error) queued_.push_back(std::move(client));
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
        while (acceptor_.is_open() || !queued_.empty()) {
            accept_rest();  // what ends gives descriptors back
            if (queued_.empty() && acceptor_.is_open()) co_await co::sleep_for(20ms);
            if (queued_.empty()) continue;
            co_await all_.slots.acquire();
            start(std::move(queued_.front()), slot(&all_.slots));
            queued_.pop_front();
        }
        co_await connections_.join();
    }

    co::task<drained> stop_rest() {
        drained result;
        result.left = connections_.size();
        result.never_served = queued_.size();
        for (const co::task_info& task : connections_.children()) {
            std::istringstream lines(co::describe(task));
            for (std::string line; std::getline(lines, line);) std::cout << "left: " + line + '\n' << std::flush;
        }
        connections_.request_stop();
        co_await connections_.join();
        result.failed = connections_.error_count();
        for (const co::task_error& failure : connections_.errors())
            std::cerr << "gateway: connection " << failure.name << " failed: " << text_of(failure.error) << '\n';
        co_return result;
    }

    service& shared_;
    process& all_;
    co::task_group connections_;
    tcp::acceptor acceptor_;
    std::deque<tcp::socket> queued_;
};

}  // namespace gateway
