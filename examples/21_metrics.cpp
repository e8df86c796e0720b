// SPDX-License-Identifier: MIT
// Metrics: what has a name is counted; nothing is pushed. A registry of what is to be seen, written as Prometheus reads
// it, and an exporter of the host's own.
#include <cordon/cordon.hpp>

#include <atomic>
#include <cassert>
#include <cstdint>
#include <iostream>
#include <sstream>
#include <string>
#include <string_view>

namespace co = cordon;

// [own]
/// Figures of the host's own: whatever has a name and a snapshot, and says what that holds.
class requests {
public:
    static constexpr std::string_view kind = "requests";
    struct snapshot {
        std::uint64_t served = 0, failed = 0;
        bool draining = false;
    };
    std::string_view name() const noexcept { return "http"; }
    snapshot stats() const noexcept { return {served, failed, draining}; }
    void report(co::metric_sink& sink) const {
        static constexpr std::string_view states[] = {"serving", "draining"};
        const snapshot now = stats();
        sink.counter("served", now.served, "Requests that were answered.");
        sink.counter("failed", now.failed, "Requests that ended in an error.");
        sink.state("state", now.draining ? 1 : 0, states, "What the server does.");
    }

    std::atomic<std::uint64_t> served{0}, failed{0};
    std::atomic<bool> draining{false};
};
// [/own]

int main() {
    co::run_loop loop;
    co::async_semaphore connections{8, {.name = "db"}};
    co::channel<int> jobs{64, {.name = "jobs"}};
    requests http;

    // [add]
    co::registry metrics;                                  // one for each process, or for each test
    auto seen = metrics.add(connections);                  // until `seen` dies
    auto seen_jobs = metrics.add(jobs, {.labels = {{"tenant", "acme"}}});
    auto seen_loop = metrics.add(loop, {.name = "main"});  // what has no name of its own is given one
    auto seen_http = metrics.add(http, {.prefix = "gateway"});
    // [/add]

    const bool taken = connections.try_acquire(3);
    const co::send_status sent = jobs.try_send(1);
    http.served += 2;

    // [write]
    std::ostringstream text;
    co::write_prometheus(text, metrics, {.tasks = true});
    // [/write]
    std::cout << text.str();
    assert(text.str().find("cordon_semaphore_available{name=\"db\"} 5\n") != std::string::npos);
    assert(text.str().find("gateway_requests_served_total{name=\"http\"} 2\n") != std::string::npos);
    assert(taken && sent == co::send_status::sent);

    // [exporter]
    std::string statsd;  // another system is a few lines
    metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
        if (m.type != co::metric_type::gauge) return;
        statsd += who.kind + '.' + who.name + '.' + std::string(m.name) + ':' + std::to_string(m.value) + "|g\n";
    });
    // [/exporter]
    assert(statsd.find("channel.jobs.size:1.000000|g\n") != std::string::npos);
    connections.release(3);
}
