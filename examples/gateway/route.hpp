// SPDX-License-Identifier: MIT
#pragma once

// Where the requests of one prefix go, and what guards the calls: retries, copies of what is slow, a circuit breaker, a
// bulkhead and a timeout. A route of a new configuration goes on with the guards of the one before it.

#include "message.hpp"
#include "options.hpp"
#include "places.hpp"
#include "redis_link.hpp"

#include <cordon/cordon.hpp>

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace gateway {

/// One of the servers behind a route.
struct replica {
    const tcp::endpoint where;
    const std::shared_ptr<co::circuit_breaker> breaker;
    co::any_pipeline<response> guarded;  // of one among several: what is around a single call to it
};

/// What a route knows of its calls, and does not forget with their numbers.
class route_memory {
public:
    explicit route_memory(const route_options& o);
    void set(const route_options& o);

    const std::string name;
    co::retry_budget budget;
    co::hedge_policy copies;
    co::cache<std::string, looked_up> kept;  // this and the next for a redis
    co::single_flight<std::string, looked_up> flights;
    std::atomic<std::size_t> turn{0};        // of several upstreams, the one whose turn it is

private:
    [[nodiscard]] co::retry_budget_options budget_of(const route_options& o) const;
    [[nodiscard]] co::hedge_options hedge_of(const route_options& o);
    [[nodiscard]] co::cache_options cache_of(const route_options& o) const;
};

class route {
public:
    /// `before`: what the route of that prefix was until now, or nothing. What it knows goes on if it shares an
    /// upstream with this one. Of a breaker with other numbers that is only whether it is open; a bulkhead for which
    /// another number may wait begins anew.
    route(const route_options& o, const route* before);

    /// Has what it goes on with take its numbers, for all calls that begin from now on.
    void take_over() {
        memory->set(opts);
        slots.take_over();
    }

    /// Around a look-up: a value that is kept is not asked for, and one that several want only once. All that fails,
    /// and what the inner guards refuse, is answered by a stale one.
    [[nodiscard]] auto around_look_up(const std::string& key) {
        return co::pipeline(memory->kept.for_key(key), memory->flights.for_key(key), lookups);
    }

    const route_options opts;
    const std::shared_ptr<route_memory> memory;
    places slots;
    const std::vector<replica> replicas;
    // Around the attempts of a call. Of a route with several upstreams an attempt is guarded further in, by its own.
    const co::any_pipeline<response> repeated, once;  // the second for what may have an effect each time
    const co::any_pipeline<response> hedged;          // for what has none: two calls at the same time
    const co::any_pipeline<looked_up> lookups;        // of a redis

private:
    [[nodiscard]] bool goes_on_from(const route* before) const;
    [[nodiscard]] std::shared_ptr<co::circuit_breaker> breaker_of(const tcp::endpoint& where) const;
    [[nodiscard]] std::vector<replica> replicas_from(const route* before) const;

    [[nodiscard]] bool is_spread() const noexcept { return opts.upstreams.size() > 1; }
    [[nodiscard]] int attempts() const noexcept { return opts.retry ? opts.retry->attempts : 1; }

    co::any_pipeline<response> around(int attempts) const;
    co::any_pipeline<response> around_copies() const;
    co::any_pipeline<looked_up> around_look_ups() const;
    co::retry_policy<> tried(int attempts) const;
    co::timeout_policy each_in_time() const { return co::timeout(opts.attempt.value_or(longest_deadline)); }
};

}  // namespace gateway
