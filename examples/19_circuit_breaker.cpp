// SPDX-License-Identifier: MIT
// A circuit breaker in virtual time: it opens, waits, lets a few calls through, and closes.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [permit]
struct inventory {
    co::circuit_breaker breaker{{
        .name = "inventory",
        .window = co::last_calls(10),  // or co::last(10s)
        .min_calls = 10,
        .failure_rate = 0.5,
        .slow_call = 200ms,
        .open_for = 30s,
        .half_open_calls = 3,
    }};
    bool works = true;
};

co::task<std::string> look_up(inventory& remote) {
    auto permit = remote.breaker.try_acquire();
    if (!permit) co_return "refused";     // nothing was called
    co_await co::sleep_for(10ms);         // stopped here, the permit is given back and counts for nothing
    permit.settle(remote.works ? co::verdict::success : co::verdict::failure);  // or succeeded(), failed(), ignored()
    co_return remote.works ? "found" : "failed";
}
// [/permit]

co::task<> opens_and_recovers(inventory& remote) {
    // [listen]
    const auto listens = remote.breaker.on_event([](const co::breaker_event& e) {
        std::cout << to_string(e.from) << " -> " << to_string(e.to) << ": " << to_string(e.cause) << '\n';
    });
    // [/listen]
    for (int i = 0; i < 5; ++i) (void)co_await look_up(remote);
    remote.works = false;
    for (int i = 0; i < 5; ++i) (void)co_await look_up(remote);
    assert(remote.breaker.state() == co::breaker_state::open);

    // [refused]
    const auto refused = co_await co::as_outcome(remote.breaker.admission());
    assert(refused.is_rejected() && refused.rejection().reason == co::reject_reason::circuit_open);
    assert(refused.rejection().retry_after == 30s && refused.rejection().who() == "inventory");
    // [/refused]

    co_await co::sleep_for(30s);
    for (int i = 0; i < 2; ++i) (void)co_await look_up(remote);  // two of three probes fail: certain
    assert(remote.breaker.state() == co::breaker_state::open);

    co_await co::sleep_for(30s);
    remote.works = true;
    const std::string answer = co_await look_up(remote);
    assert(answer == "found" && remote.breaker.state() == co::breaker_state::half_open);
    (void)co_await look_up(remote);                              // two of three are well
    assert(remote.breaker.state() == co::breaker_state::closed);
}

// [growing]
void how_long_it_stays_open() {
    co::circuit_breaker mail{{.name = "mail", .open_for = co::open_time::growing(5s, 60s)}};
    const auto by_rate = [](const co::breaker_trip& trip) { return trip.failure_rate > 0.9 ? 60s : 10s; };
    co::circuit_breaker bank{{.name = "bank", .consecutive_failures = 3, .open_for = by_rate}};
    for (int i = 0; i < 3; ++i) bank.try_acquire().failed();
    assert(bank.state() == co::breaker_state::open && mail.state() == co::breaker_state::closed);
}
// [/growing]

int main() {
    inventory remote;
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(opens_and_recovers(remote));
    how_long_it_stays_open();
}
