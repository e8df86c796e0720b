// SPDX-License-Identifier: MIT
// Plain functions on plain threads, behind the same policies as coroutines.
#include <cordon/cordon.hpp>

#include <cassert>
#include <iostream>
#include <stdexcept>
#include <string>
#include <thread>

using namespace std::chrono_literals;
namespace co = cordon;

/// Stands for a driver that knows no coroutines.
struct database {
    int asked = 0;
    std::string query(int id) {
        if (++asked < 3) throw std::runtime_error("connection reset");
        return "row " + std::to_string(id);
    }
    /// Takes too long, but looks now and then whether it should stop.
    std::string report(const co::blocking_scope& scope) {
        while (!scope.stop_requested()) std::this_thread::sleep_for(100us);
        throw co::canceled();
    }
};

int main() {
    database db;
    // [call]
    co::circuit_breaker breaker{{.name = "db"}};
    co::bulkhead slots{8, {.name = "db", .max_waiting = 32}};
    const auto guarded = co::pipeline(co::retry(3, {.backoff = co::constant(1ms)}), breaker, slots, co::timeout(2s));

    const co::outcome<std::string> row = co::call_blocking(guarded, [&] { return db.query(7); });
    assert(row.value() == "row 7" && db.asked == 3);
    // [/call]

    // [scope]
    // The function sees the timeout, and whatever stops the scope, by what it is given.
    const auto brief = co::pipeline(breaker, co::timeout(5ms));
    const auto report = [&](const co::blocking_scope& scope) { return db.report(scope); };
    const co::outcome<std::string> late = co::call_blocking(brief, report);
    assert(late.is_error());  // a timeout_error, which the breaker has counted
    // [/scope]

    // [token]
    // A std::stop_token cannot look at the clock: somebody has to, on another thread.
    co::thread_pool timers{1, {.name = "timers"}};
    std::jthread worker([&](std::stop_token stop) {
        co::cancel_scope request{stop, timers, 1h};
        const auto polls = [](std::stop_token asked) {
            while (!asked.stop_requested()) std::this_thread::sleep_for(100us);
            return 1;  // what is there all the same is not lost
        };
        assert(co::call_blocking(brief, polls, request).value() == 1);
    });
    // [/token]
    worker.join();
    std::cout << row.value() << " after " << db.asked << " calls; " << breaker.stats().failed << " failed\n";
}
