// SPDX-License-Identifier: MIT
// How long to wait before a retry, and how many retries a service can bear: both without any pipeline.
#include <cordon/policy.hpp>

#include <cassert>
#include <chrono>
#include <cstdint>
#include <iostream>

using namespace std::chrono_literals;
namespace co = cordon;

// [backoff]
void waits() {
    const co::backoff doubling = co::exponential(10ms, 1s);                      // 10, 20, 40 ms ... up to 1 s
    const co::backoff spread = co::exponential(10ms, 1s, co::full_jitter);       // 0 to 10, 0 to 20, 0 to 40 ms ...
    const co::backoff around = co::constant(1s, co::proportional_jitter(0.25));  // 0.75 to 1.25 s

    double memory = 0;                    // of one call; only decorrelated() uses it
    const double uniform = 0.5;           // from a random source
    assert(doubling.delay(0, uniform, memory) == 10ms);   // before the first retry
    assert(doubling.delay(20, uniform, memory) == 1s);
    assert(spread.delay(2, uniform, memory) == 20ms);     // half of 40
    assert(around.delay(7, uniform, memory) == 1s);
}
// [/backoff]

// [budget]
int retries_of_an_outage(co::retry_budget& budget, int calls) {
    int sent = 0;
    for (int i = 0; i < calls; ++i) {
        budget.called();
        for (int attempt = 1; attempt < 4; ++attempt) {  // each attempt fails
            if (!budget.try_retry()) break;              // the call ends with the failure that it has
            ++sent;
            budget.retry_ended();
        }
        budget.ended(true);
    }
    return sent;
}
// [/budget]

int main() {
    waits();
    // [kinds]
    co::retry_budget of_a_window{{.name = "stock", .ratio = 0.2, .min_per_second = 1, .window = 10s}};
    co::retry_budget of_tokens{{.name = "price", .max_tokens = 10, .per_success = 0.1}};
    co::retry_budget in_flight{{.name = "search", .in_flight_ratio = 0.2, .min_in_flight = 3}};
    // [/kinds]
    const int sent = retries_of_an_outage(of_a_window, 1000);
    std::cout << "1000 calls that fail are sent " << sent << " retries\n";
    assert(sent >= 209 && sent <= 210);  // a fifth of the calls, and the floor
    assert(retries_of_an_outage(of_tokens, 1000) == 3);  // and then none until calls succeed
    assert(retries_of_an_outage(in_flight, 1000) == 3000);  // one at a time is never too many
    assert(of_a_window.stats().rejected > 0);
}
