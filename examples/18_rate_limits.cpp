// SPDX-License-Identifier: MIT
// Limits: how often, how often for each client, and how many at the same time. A refusal is an ordinary answer.
#include <cordon/cordon.hpp>

#include <atomic>
#include <cassert>
#include <iostream>
#include <string>
#include <thread>

using namespace std::chrono_literals;
namespace co = cordon;

// [bucket]
co::task<> waiters(co::token_bucket& limiter) {
    co_await limiter.acquire();   // first come, first served
    co_await limiter.acquire(5);

    // A wait that cannot end in time is refused at once, takes nothing, and says when to come back.
    co::outcome<void> refused = co_await co::as_outcome(co::with_timeout(1ms, limiter.acquire(50)));
    assert(refused.is_rejected());
    assert(refused.rejection().reason == co::reject_reason::rate_limited);
    assert(refused.rejection().retry_after > 1ms);
}
// [/bucket]

// [thread]
int work_until_told(co::token_bucket& limiter) {
    std::atomic<int> units{0};
    std::jthread worker([&](std::stop_token stop) {
        while (limiter.acquire_blocking(stop)) ++units;   // ends when the thread is to stop
    });
    while (units == 0) std::this_thread::yield();
    worker.request_stop();
    worker.join();
    return units;
}
// [/thread]

// [reserve]
co::task<> at_its_time(co::token_bucket& limiter) {
    co::outcome<co::token_bucket::reservation> mine = limiter.reserve(3, 1s);  // at most so long from now
    assert(mine.has_value());
    co_await co::sleep_until(mine->time());  // stopped meanwhile: the tokens go back
    mine->commit();
}
// [/reserve]

// [keyed]
void clients() {
    co::keyed_limiter<std::string> per_client{co::per_second(10), 2, {.name = "clients", .max_keys = 100'000}};
    assert(per_client.try_acquire("10.0.0.7") && per_client.try_acquire("10.0.0.7"));
    assert(!per_client.try_acquire("10.0.0.7"));          // this one has had its burst,
    assert(per_client.try_acquire("10.0.0.8"));           // which is nothing to another
    assert(per_client.time_until("10.0.0.7") <= 100ms);
}
// [/keyed]

// [bulkhead]
co::task<> reports(co::bulkhead& slots) {
    const co::bulkhead::permit running = co_await slots.acquire(), beside = co_await slots.acquire();
    assert(!slots.try_acquire() && slots.stats().in_use == 2);
    auto waited = co_await co::as_outcome(slots.acquire());  // there is room to wait, but not for long
    assert(waited.is_rejected() && waited.rejection().reason == co::reject_reason::full);
}
// [/bulkhead]

int main() {
    co::token_bucket limiter{co::per_second(1000), 50, {.name = "api"}};  // rate, burst
    assert(limiter.try_acquire(50) && !limiter.try_acquire(50));
    co::sync_wait(waiters(limiter));
    co::sync_wait(at_its_time(limiter));
    std::cout << (work_until_told(limiter) > 0 ? "a thread has worked at the rate\n" : "");
    limiter.set_rate(co::per_minute(60), 10);
    clients();
    co::bulkhead slots{2, {.name = "reports", .max_waiting = 1, .max_wait = 2ms}};
    co::sync_wait(reports(slots));
    std::cout << limiter.stats().rejected << " refused by the api, " << slots.stats().rejected << " by the reports\n";
    assert(slots.stats().in_use == 0);
}
