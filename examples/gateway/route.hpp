// SPDX-License-Identifier: MIT
#pragma once

// Where the requests of one prefix go, and what guards the calls: retries, copies of what is slow, a circuit breaker, a
// bulkhead and a timeout. A route of a new configuration goes on with the guards of the one before it.

#include "message.hpp"
#include "options.hpp"
#include "places.hpp"
#include "redis_link.hpp"

#include <cordon/cordon.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
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
    explicit route_memory(const route_options& o)
        : name(o.prefix.empty() ? "upstream" : o.prefix), budget(budget_of(o)), copies(hedge_of(o)),
          kept(o.redis.value_or(redis_numbers()).keep, cache_of(o)), flights({.name = name}) {}

    void set(const route_options& o) {
        budget.set(budget_of(o));
        copies.set(hedge_of(o));
        kept.set(o.redis.value_or(redis_numbers()).keep, cache_of(o));
    }

    const std::string name;
    co::retry_budget budget;
    co::hedge_policy copies;
    co::cache<std::string, looked_up> kept;  // this and the next for a redis
    co::single_flight<std::string, looked_up> flights;
    std::atomic<std::size_t> turn{0};        // of several upstreams, the one whose turn it is

private:
    [[nodiscard]] co::retry_budget_options budget_of(const route_options& o) const {
        return {.name = name, .ratio = o.retry.value_or(retry_numbers()).budget_ratio};
    }
    [[nodiscard]] co::hedge_options hedge_of(const route_options& o) {
        const hedge_numbers numbers = o.hedge.value_or(hedge_numbers());
        return {.name = name,
                .after = numbers.delay ? co::hedge_delay(*numbers.delay) : co::percentile(numbers.percentile),
                .budget = &budget,
                .within_retry = true};
    }
    [[nodiscard]] co::cache_options cache_of(const route_options& o) const {
        return {.name = name, .stale_for = o.redis.value_or(redis_numbers()).stale};
    }
};

class route {
public:
    /// `before`: what the route of that prefix was until now, or nothing. What it knows goes on if it shares an
    /// upstream with this one. Of a breaker with other numbers that is only whether it is open; a bulkhead for which
    /// another number may wait begins anew.
    route(const route_options& o, const route* before)
        : opts(o), memory(goes_on_from(before) ? before->memory : std::make_shared<route_memory>(o)),
          slots(o.bulkhead, memory->name, goes_on_from(before) ? &before->slots : nullptr),
          replicas(replicas_from(before)), repeated(around(attempts())), once(around(1)), hedged(around_copies()),
          lookups(co::pipeline(tried(attempts()), *replicas.front().breaker, *slots, each_in_time())
                      .ignoring([](const co::rejection&) { return true; })
                      .ignoring([](const std::exception& e) { return is_no_text(e); })) {}

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
    [[nodiscard]] bool goes_on_from(const route* before) const {
        if (before == nullptr || before->opts.redis.has_value() != opts.redis.has_value()) return false;
        return std::any_of(opts.upstreams.begin(), opts.upstreams.end(),
                           [&](const tcp::endpoint& where) { return before->breaker_of(where) != nullptr; });
    }
    [[nodiscard]] std::shared_ptr<co::circuit_breaker> breaker_of(const tcp::endpoint& where) const {
        for (const replica& r : replicas)
            if (r.where == where) return r.breaker;
        return nullptr;
    }
    [[nodiscard]] std::vector<replica> replicas_from(const route* before) const {
        std::vector<replica> all;
        for (const tcp::endpoint& where : opts.upstreams) {
            auto breaker = goes_on_from(before) ? before->breaker_of(where) : nullptr;
            if (!breaker || before->opts.breaker != opts.breaker) {
                const auto fresh = std::make_shared<co::circuit_breaker>(breaker_numbers_of_this());
                if (breaker && before->opts.breaker && opts.breaker) fresh->restore(breaker->export_state());
                breaker = fresh;
            }
            all.push_back({where, breaker, {}});
            if (is_spread()) all.back().guarded = judged(co::pipeline(*breaker, *slots, each_in_time()));
        }
        return all;
    }
    [[nodiscard]] co::circuit_breaker_options breaker_numbers_of_this() const {
        if (!opts.breaker) return {.name = memory->name, .initial = co::breaker_state::disabled};
        return {.name = memory->name,
                .window = co::last_calls(opts.breaker->window),
                .min_calls = opts.breaker->min_calls,
                .failure_rate = opts.breaker->failure_rate,
                .open_for = opts.breaker->open_for};
    }

    [[nodiscard]] bool is_spread() const noexcept { return opts.upstreams.size() > 1; }
    [[nodiscard]] int attempts() const noexcept { return opts.retry ? opts.retry->attempts : 1; }

    /// The timeout of the whole is the request's own: who calls says `until`. An answer that says that the upstream
    /// failed counts like none at all. A refusal is final: the client is told at once, and can ask elsewhere. Guards
    /// that are not wanted let everything through, so that all routes have one type of pipeline.
    co::any_pipeline<response> around(int attempts) {
        if (is_spread()) return judged(co::pipeline(tried(attempts)));
        return judged(co::pipeline(tried(attempts), *replicas.front().breaker, *slots, each_in_time()));
    }
    /// The same, with the copies inside of the retries: a copy is guarded like the call.
    co::any_pipeline<response> around_copies() {
        if (is_spread()) return judged(co::pipeline(tried(attempts()), memory->copies));
        return judged(co::pipeline(tried(attempts()), memory->copies, *replicas.front().breaker, *slots,
                                   each_in_time()));
    }
    co::retry_policy<> tried(int attempts) {
        const std::chrono::milliseconds base = opts.retry.value_or(retry_numbers()).backoff;
        const co::backoff waits = co::exponential(base, 10 * base, co::full_jitter);
        return co::retry(attempts, {.backoff = waits, .budget = &memory->budget});
    }
    co::timeout_policy each_in_time() const { return co::timeout(opts.attempt.value_or(longest_deadline)); }
    template <class Pipeline>
    static co::any_pipeline<response> judged(Pipeline around) {
        return std::move(around)
            .failing_when([](const response& r) { return r.result_int() >= 500; })
            .ignoring([](const co::rejection&) { return true; });
    }
};

}  // namespace gateway
