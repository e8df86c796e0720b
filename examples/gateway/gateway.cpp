// SPDX-License-Identifier: MIT
// An HTTP/1.1 reverse proxy on one thread or several: a group of connections on each, a deadline, an id and a trace for
// each request, and an end that loses nothing. SIGTERM: not ready, accept what has connected, close the listener,
// answer what is in flight and what comes in shortly after, then stop the rest and say what it was. SIGQUIT: say what
// every task is doing now, and go on. SIGHUP: read the configuration again. What guards each call is in route.hpp.
#include "config.hpp"
#include "options.hpp"
#include "server.hpp"
#include "service.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>

#include <sys/resource.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <iostream>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace gateway {

/// One thread's worth: a loop, what its connections share, and who accepts them. Nothing in it needs a lock.
class lane {
public:
    lane(const options& opts, process& all, const tcp::endpoint& address, std::size_t number)
        : all_(all), shared_(opts, all.common, io_.get_executor(), number),
          server_(io_, executor_, shared_, all, address) {
        all_.serving.fetch_add(1);
    }

    /// Runs the loop until the server has drained, and what else was started on it has ended.
    void run() {
        co::start_on(executor_, server_.run(), [this](co::outcome<drained> o) {
            if (o.has_value()) ended_ = *std::move(o);
            else all_.fail(o.error());
            if (all_.serving.fetch_sub(1) == 1) all_.ended.request_stop();
            serves_.reset();
        });
        io_.run();
    }
    /// Has it look at the present routes soon. From any thread.
    void follow_routes() {
        asio::post(io_, [this] { shared_.follow_routes(); });
    }
    [[nodiscard]] asio::io_context& io() noexcept { return io_; }
    [[nodiscard]] co::executor_ref executor() noexcept { return executor_; }
    [[nodiscard]] tcp::endpoint address() const { return server_.address(); }
    /// Once `run` has returned.
    [[nodiscard]] const drained& ended() const noexcept { return ended_; }
    [[nodiscard]] const service& shared() const noexcept { return shared_; }

private:
    process& all_;
    asio::io_context io_{1};
    co::asio_executor executor_{io_};
    // The loop of a lane that waits for a slot, and serves nobody meanwhile, has nothing of its own to go on for.
    asio::executor_work_guard<asio::io_context::executor_type> serves_{io_.get_executor()};
    service shared_;
    server server_;
    drained ended_;
};

/// Turns the first signal into a drain and the second into its end; the third ends the process.
co::task<> heed_signals(asio::io_context& io, process& all) {
    asio::signal_set signals(io, SIGTERM, SIGINT);
    co_await signals.async_wait(co::use_cordon);
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

/// Sees to it that every connection can have its socket and its links, each thread its connections to redis servers,
/// and that there are more for those who come last.
/// Returns:       how many more for each thread, one at least
/// Errors:        `std::invalid_argument` that says which number must be how much smaller
std::size_t reckon_files(const options& opts, const guard_options& guards) {
    const rlim_t fixed = (1 + opts.guards.links()) * opts.max_connections + 8 * opts.threads + 32;
    const rlim_t needed = fixed + guards.pooled() * opts.threads;
    const rlim_t wanted = needed + SOMAXCONN * opts.threads;  // a whole queue
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) throw std::system_error(errno, std::generic_category(), "getrlimit");
    limit.rlim_cur = std::min(std::max(wanted, limit.rlim_cur), limit.rlim_max);
    if (limit.rlim_cur < fixed || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        refuse("--max-connections", std::to_string(opts.max_connections),
               "what the limit of open files (ulimit -n) leaves room for");
    if (limit.rlim_cur < needed)
        refuse("the sum of redis.connections", std::to_string(guards.pooled()),
               "a number up to " + std::to_string((limit.rlim_cur - fixed) / opts.threads) +
                   ", for which the limit of open files (ulimit -n) leaves room");
    return 1 + (limit.rlim_cur - needed) / opts.threads;
}

/// Has new guards for the requests that come from now on, if the configuration is good. Those in flight keep theirs.
void reload(int argc, char** argv, const options& before, process& all, std::deque<lane>& lanes) {
    try {
        const options now = configured(argc, argv);
        if (now.listen != before.listen)
            throw std::invalid_argument("listen can only change when the gateway starts anew");
        reckon_files(before, now.guards);
        all.common.guarded.replace(now.guards);
        for (lane& l : lanes) l.follow_routes();
        std::cerr << "gateway: the configuration was read again\n" << std::flush;
    } catch (const std::exception& error) {
        std::cerr << std::string("gateway: the configuration stays as it was: ") + error.what() + '\n' << std::flush;
    }
}

co::task<> reload_on_sighup(int argc, char** argv, const options& before, process& all, std::deque<lane>& lanes) {
    asio::signal_set signals(lanes.front().io(), SIGHUP);
    for (;;) {
        co_await signals.async_wait(co::use_cordon);
        reload(argc, argv, before, all, lanes);
    }
}

void report(const std::deque<lane>& lanes) {
    drained sum;
    std::uint64_t connections = 0, requests = 0, malformed = 0, late = 0, failures = 0, while_draining = 0;
    for (const lane& l : lanes) {
        const drained& ended = l.ended();
        sum = {sum.left + ended.left, sum.never_served + ended.never_served, sum.failed + ended.failed,
               std::max(sum.took, ended.took)};
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
              << "\ndrain_ms=" << std::chrono::duration_cast<std::chrono::milliseconds>(sum.took).count() << std::endl;
}

int run(int argc, char** argv) {
    if (argc > 1 && argv[1] == std::string_view("--help")) {
        std::cout << usage;
        return 0;
    }
    const options opts = configured(argc, argv);
    const std::size_t most_queued = reckon_files(opts, opts.guards);
    std::signal(SIGPIPE, SIG_IGN);
    process all(opts, most_queued);
    std::deque<lane> lanes;
    lanes.emplace_back(opts, all, opts.listen, 0);
    const tcp::endpoint address = lanes.front().address();
    while (lanes.size() < opts.threads) lanes.emplace_back(opts, all, address, lanes.size());
    std::cout << "listening on " << address << std::endl;

    lane& first = lanes.front();
    {
        co::thread_group threads{{.name = "gateway"}};
        // A thread that cannot start, or whose loop throws, ends the others.
        const std::stop_callback end_all(threads.stop_token(), [&all] {
            all.ending.set();
            all.at_once.set();
            all.ended.request_stop();
        });
        try {
            for (std::size_t i = 1; i < lanes.size(); ++i)
                threads.spawn("lane " + std::to_string(i), [&l = lanes[i]] { l.run(); });
            auto watch = co::when_all(heed_signals(first.io(), all), dump_on_sigquit(first.io()),
                                      reload_on_sighup(argc, argv, opts, all, lanes));
            auto stoppable = co::with(std::move(watch), co::stop_on(all.ended.get_token()));
            co::start_on(first.executor(), std::move(stoppable), {.name = "signals"});
            first.run();
        } catch (...) {
            threads.request_stop();
            throw;
        }
        threads.join();  // throws what a loop threw
    }
    report(lanes);
    return all.failed ? 1 : 0;
}

}  // namespace gateway

int main(int argc, char** argv) try {
    return gateway::run(argc, argv);
} catch (const std::exception& error) {
    std::cerr << "gateway: " << error.what() << '\n';
    return 1;
}
