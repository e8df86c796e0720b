// SPDX-License-Identifier: MIT
// An HTTP/1.1 reverse proxy on one thread or several: a group of connections on each, a deadline, an id and a trace for
// each request, and an end that loses nothing. SIGTERM: not ready, accept what has connected, close the listener, answer
// what is in flight and what comes in shortly after, then stop the rest and say what it was. SIGQUIT: say what every task
// is doing now, and go on.
#include "options.hpp"
#include "server.hpp"
#include "service.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/signal_set.hpp>

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <iostream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

namespace gateway {

/// One thread's worth: a loop, what its connections share, and who accepts them. Nothing in it needs a lock.
class lane {
public:
    lane(const options& opts, process& all, const tcp::endpoint& address)
        : all_(all), shared_(opts), server_(io_, executor_, shared_, all, address) {
        all_.serving.fetch_add(1);
    }

    /// Runs the loop until the server has drained, and what else was started on it has ended.
    void run() {
        co::start_on(executor_, server_.run(), [this](co::outcome<drained> o) {
            if (o.has_value()) ended_ = *std::move(o);
            if (all_.serving.fetch_sub(1) == 1) all_.ended.request_stop();
        });
        io_.run();
    }
    [[nodiscard]] asio::io_context& io() noexcept { return io_; }
    [[nodiscard]] co::executor_ref executor() noexcept { return executor_; }
    [[nodiscard]] tcp::endpoint address() const { return server_.address(); }
    /// Once `run` has returned: nothing if it failed.
    [[nodiscard]] const std::optional<drained>& ended() const noexcept { return ended_; }
    [[nodiscard]] const service& shared() const noexcept { return shared_; }

private:
    process& all_;
    asio::io_context io_{1};
    co::asio_executor executor_{io_};
    service shared_;
    server server_;
    std::optional<drained> ended_;
};

/// Turns the first signal into a drain and the second into its end; the third ends the process.
co::task<> heed_signals(asio::io_context& io, process& all, co::clock::time_point& began) {
    asio::signal_set signals(io, SIGTERM, SIGINT);
    co_await signals.async_wait(co::use_cordon);
    began = co::clock::now();
    all.ending.set();
    co_await signals.async_wait(co::use_cordon);
    all.at_once.set();
}

co::task<> dump_on_sigquit(asio::io_context& io) {
    asio::signal_set signals(io, SIGQUIT);
    for (;;) {
        co_await signals.async_wait(co::use_cordon);
        co::write_task_dump(std::cerr);
        std::cerr << std::flush;
    }
}

/// Sees to it that every connection can have its two sockets.
void raise_file_limit(const options& opts) {
    const rlim_t needed = 2 * opts.max_connections + 4 * opts.threads + 64;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= needed) return;
    limit.rlim_cur = std::min(needed, limit.rlim_max);
    if (limit.rlim_cur < needed || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        refuse("--max-connections", std::to_string(opts.max_connections),
               "what the limit of open files (ulimit -n) leaves room for");
}

/// Returns:       the exit code
int report(const std::deque<lane>& lanes, co::clock::duration took) {
    drained sum;
    std::uint64_t connections = 0, requests = 0, malformed = 0, late = 0, failures = 0, while_draining = 0;
    bool whole = true;
    for (const lane& l : lanes) {
        const drained ended = l.ended().value_or(drained{});
        whole = whole && l.ended().has_value();
        sum = {sum.left + ended.left, sum.never_served + ended.never_served, sum.failed + ended.failed};
        connections += l.shared().connections;
        requests += l.shared().requests;
        malformed += l.shared().malformed;
        late += l.shared().deadline_hits;
        failures += l.shared().upstream_failures;
        while_draining += l.shared().answered_while_draining;
    }
    std::cout << "connections=" << connections << "\nrequests=" << requests << "\nmalformed=" << malformed
              << "\ndeadline_hits=" << late << "\nupstream_failures=" << failures
              << "\nanswered_while_draining=" << while_draining << "\nnever_served=" << sum.never_served
              << "\nfailed=" << sum.failed << "\ntasks_left=" << sum.left
              << "\ndrain_ms=" << std::chrono::duration_cast<std::chrono::milliseconds>(took).count() << std::endl;
    return whole ? 0 : 1;
}

int run(int argc, char** argv) {
    if (argc > 1 && argv[1] == std::string_view("--help")) {
        std::cout << usage;
        return 0;
    }
    const options opts = parse(argc, argv);
    raise_file_limit(opts);
    std::signal(SIGPIPE, SIG_IGN);
    process all(opts.max_connections);
    std::deque<lane> lanes;
    lanes.emplace_back(opts, all, opts.listen);
    const tcp::endpoint address = lanes.front().address();
    while (lanes.size() < opts.threads) lanes.emplace_back(opts, all, address);
    std::cout << "listening on " << address << std::endl;

    co::clock::time_point began = co::clock::now();
    lane& first = lanes.front();
    {
        co::thread_group threads{{.name = "gateway"}};
        try {
            for (std::size_t i = 1; i < lanes.size(); ++i)
                threads.spawn("lane " + std::to_string(i), [&l = lanes[i]] { l.run(); });
        } catch (...) {  // those that run end again
            all.ending.set();
            all.at_once.set();
            throw;
        }
        auto watch = co::when_all(heed_signals(first.io(), all, began), dump_on_sigquit(first.io()));
        auto stoppable = co::with(std::move(watch), co::stop_on(all.ended.get_token()));
        co::start_on(first.executor(), std::move(stoppable), {.name = "signals"});
        first.run();
    }
    return report(lanes, co::clock::now() - began);
}

}  // namespace gateway

int main(int argc, char** argv) try {
    return gateway::run(argc, argv);
} catch (const std::exception& error) {
    std::cerr << "gateway: " << error.what() << '\n';
    return 1;
}
