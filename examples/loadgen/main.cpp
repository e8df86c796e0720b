// SPDX-License-Identifier: MIT
// A load generator for HTTP/1.1 that does not flatter the server: in an open loop requests are due at fixed times, and
// latency counts from when a request was due, so that a stall delays all that were due meanwhile. Every request has an
// id and one outcome; joined with the server's own list of what it executed, it says which were ambiguous (executed,
// but the client did not see ok) and which were lost. One thread; README.md shows a run.
//
//   histogram.hpp   how often which latency occurred       tally.hpp       what became of each request
//   schedule.hpp    which request is due when              ledger.hpp      that, joined with what was executed
//   connection.hpp  one request after the other            report.hpp      table, JSON, progress
#include "connection.hpp"
#include "ledger.hpp"
#include "options.hpp"
#include "report.hpp"
#include "schedule.hpp"
#include "tally.hpp"

#include <cordon/cordon.hpp>
#include <cordon/interop/boost_asio.hpp>

#include <boost/asio/io_context.hpp>
#include <boost/asio/signal_set.hpp>

#include <sys/resource.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <exception>
#include <fstream>
#include <iostream>
#include <optional>
#include <ostream>
#include <random>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

namespace loadgen {

class load {
public:
    /// Lifetime: `opts`, and `each` if there is one, outlive it
    load(asio::io_context& io, const options& opts, std::ostream* each)
        : io_(io), opts_(opts), plan_(co::clock::now(), opts.warm_up, opts.lasts, opts.rate), seen_(plan_, each) {}

    /// Sends until the schedule ends, and until what is in flight then has ended.
    co::task<> run() {
        auto sending = co::as_outcome(co::with(send_all(), co::stop_on(at_once_.get_token())));
        auto meanwhile = co::when_all(heed_signals(), show_progress(), watch_own_delay(plan_));
        const auto first = co_await co::when_any(std::move(sending), std::move(meanwhile));
        if (const auto* const sent = std::get_if<0>(&first); sent->is_error()) std::rethrow_exception(sent->error());
    }
    /// Waits until the server has executed what its clients have left, as far as it will.
    co::task<> settle() { return pause(opts_.settle); }

    [[nodiscard]] report result(std::optional<joined> ledger = {}) const { return {opts_, plan_, seen_, ledger}; }
    [[nodiscard]] const tally& seen() const noexcept { return seen_; }

private:
    co::task<> send_all() {
        auto body = [this](co::task_group& group) -> co::task<> {
            for (std::size_t i = 0; i < opts_.connections; ++i)
                group.spawn(send_one_after_the_other(i), {.name = "connection " + std::to_string(i)});
            co_return;
        };
        co_await co::with_group({.name = "connections"}, body);
    }

    co::task<> send_one_after_the_other(std::size_t number) {
        connection link(io_.get_executor(), opts_, number);
        auto send = [&](schedule::request next) -> co::task<> {
            std::optional<tally::attempt> now(std::in_place, seen_, next);
            co_await link.ask(*now);
            const bool hurries = !opts_.rate && now->ended == outcome::refused;
            now.reset();
            if (hurries) co_await pause(std::chrono::milliseconds(10));  // else a closed loop spins
        };
        co_await keep_sending(plan_, send);
    }

    static co::task<> pause(std::chrono::milliseconds time) { co_await co::sleep_for(time); }

    co::task<> heed_signals() {
        asio::signal_set signals(io_, SIGINT, SIGTERM);
        co_await signals.async_wait(co::use_cordon);
        plan_.end();
        co_await signals.async_wait(co::use_cordon);
        at_once_.request_stop();
    }

    co::task<> show_progress() {
        const co::clock::time_point began = co::clock::now();
        for (int second = 1;; ++second) {
            co_await co::sleep_until(began + std::chrono::seconds(second));
            write_progress(std::cerr, result());
        }
    }

    asio::io_context& io_;
    const options& opts_;
    schedule plan_;
    tally seen_;
    co::inplace_stop_source at_once_;
};

/// Sees to it that every connection can have its socket.
void raise_file_limit(const options& opts) {
    const rlim_t needed = opts.connections + 32;
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) throw std::system_error(errno, std::generic_category(), "getrlimit");
    if (limit.rlim_cur >= needed) return;
    limit.rlim_cur = needed;
    if (limit.rlim_max < needed || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        refuse("--connections or --clients", std::to_string(opts.connections),
               "what the limit of open files (ulimit -n) leaves room for");
}

std::string random_prefix() {
    std::random_device random;
    return "lg-" + std::to_string(random());
}

int run(int argc, char** argv) {
    if (argc > 1 && argv[1] == std::string_view("--help")) {
        std::cout << usage;
        return 0;
    }
    options opts = parse(argc, argv);
    if (opts.prefix.empty()) opts.prefix = random_prefix();
    raise_file_limit(opts);
    std::ifstream ledger;
    std::ofstream json, each;
    if (!opts.ledger.empty()) ledger.open(opts.ledger);
    if (!ledger) refuse("--ledger", opts.ledger, "a file that can be read");
    if (!opts.json.empty()) json.open(opts.json);
    if (!json) refuse("--json", opts.json, "a file that can be written");
    if (!opts.each.empty()) each.open(opts.each);
    if (!each) refuse("--each", opts.each, "a file that can be written");
    std::signal(SIGPIPE, SIG_IGN);

    asio::io_context io{1};
    co::asio_executor executor{io};
    load all(io, opts, each.is_open() ? &each : nullptr);
    std::exception_ptr failure;
    auto whole = [&]() -> co::task<> {
        co_await all.run();
        if (ledger.is_open()) co_await all.settle();
    };
    co::start_on(executor, whole(), [&](co::outcome<void> o) {
        if (o.is_error()) failure = o.error();
    });
    io.run();
    if (failure) std::rethrow_exception(failure);

    std::optional<joined> both;
    if (ledger.is_open()) both = join(ledger, opts.prefix, all.seen().fates());
    write_table(std::cout, all.result(both));
    if (json.is_open()) write_json(json, all.result(both));
    if (!std::cout.flush() || !json.flush() || !each.flush()) throw std::runtime_error("the report could not be written");
    return 0;
}

}  // namespace loadgen

int main(int argc, char** argv) try {
    return loadgen::run(argc, argv);
} catch (const std::exception& error) {
    std::cerr << "loadgen: " << error.what() << '\n';
    return 1;
}
