// SPDX-License-Identifier: MIT
#include "route.hpp"

#include <algorithm>
#include <chrono>
#include <exception>
#include <optional>
#include <string_view>
#include <utility>

namespace gateway {
namespace {

redis_numbers redis_of(const route_options& o) { return o.redis.value_or(redis_numbers()); }

co::circuit_breaker_options breaker_options(const std::optional<breaker_numbers>& o, std::string_view name) {
    if (!o) return {.name = name, .initial = co::breaker_state::disabled};
    return {.name = name,
            .window = co::last_calls(o->window),
            .min_calls = o->min_calls,
            .failure_rate = o->failure_rate,
            .open_for = o->open_for};
}

/// An answer that says that the upstream failed counts like none at all. A refusal is final: the client is told at once,
/// and can ask elsewhere.
template <class Pipeline>
co::any_pipeline<response> judged(Pipeline around) {
    return std::move(around)
        .failing_when([](const response& r) { return r.result_int() >= 500; })
        .ignoring([](const co::rejection&) { return true; });
}

}  // namespace

route_memory::route_memory(const route_options& o)
    : name(o.prefix.empty() ? "upstream" : o.prefix), budget(budget_of(o)), copies(hedge_of(o)),
      kept(redis_of(o).keep, cache_of(o)), flights({.name = name}) {}

void route_memory::set(const route_options& o) {
    budget.set(budget_of(o));
    copies.set(hedge_of(o));
    kept.set(redis_of(o).keep, cache_of(o));
}

co::retry_budget_options route_memory::budget_of(const route_options& o) const {
    return {.name = name, .ratio = o.retry.value_or(retry_numbers()).budget_ratio};
}
co::hedge_options route_memory::hedge_of(const route_options& o) {
    const hedge_numbers numbers = o.hedge.value_or(hedge_numbers());
    return {.name = name,
            .after = numbers.delay ? co::hedge_delay(*numbers.delay) : co::percentile(numbers.percentile),
            .budget = &budget,
            .within_retry = true};
}
co::cache_options route_memory::cache_of(const route_options& o) const {
    return {.name = name, .stale_for = redis_of(o).stale};
}

route::route(const route_options& o, const route* before)
    : opts(o), memory(goes_on_from(before) ? before->memory : std::make_shared<route_memory>(o)),
      slots(o.bulkhead, memory->name, goes_on_from(before) ? &before->slots : nullptr),
      replicas(replicas_from(before)), repeated(around(attempts())), once(around(1)), hedged(around_copies()),
      lookups(around_look_ups()) {}

bool route::goes_on_from(const route* before) const {
    if (before == nullptr || before->opts.redis.has_value() != opts.redis.has_value()) return false;
    return std::any_of(opts.upstreams.begin(), opts.upstreams.end(),
                       [&](const tcp::endpoint& where) { return before->breaker_of(where) != nullptr; });
}
std::shared_ptr<co::circuit_breaker> route::breaker_of(const tcp::endpoint& where) const {
    for (const replica& r : replicas)
        if (r.where == where) return r.breaker;
    return nullptr;
}
std::vector<replica> route::replicas_from(const route* before) const {
    std::vector<replica> all;
    for (const tcp::endpoint& where : opts.upstreams) {
        std::shared_ptr<co::circuit_breaker> breaker;
        if (goes_on_from(before)) breaker = before->breaker_of(where);
        if (!breaker || before->opts.breaker != opts.breaker) {
            const auto fresh = std::make_shared<co::circuit_breaker>(breaker_options(opts.breaker, memory->name));
            if (breaker && before->opts.breaker && opts.breaker) fresh->restore(breaker->export_state());
            breaker = fresh;
        }
        all.push_back({where, breaker, {}});
        if (is_spread()) all.back().guarded = judged(co::pipeline(*breaker, *slots, each_in_time()));
    }
    return all;
}

/// The timeout of the whole is the request's own: who calls says `until`. Guards that are not wanted let everything
/// through, so that all routes have one type of pipeline.
co::any_pipeline<response> route::around(int attempts) const {
    if (is_spread()) return judged(co::pipeline(tried(attempts)));
    return judged(co::pipeline(tried(attempts), *replicas.front().breaker, *slots, each_in_time()));
}
/// The same, with the copies inside of the retries: a copy is guarded like the call.
co::any_pipeline<response> route::around_copies() const {
    if (is_spread()) return judged(co::pipeline(tried(attempts()), memory->copies));
    return judged(co::pipeline(tried(attempts()), memory->copies, *replicas.front().breaker, *slots, each_in_time()));
}
co::any_pipeline<looked_up> route::around_look_ups() const {
    return co::pipeline(tried(attempts()), *replicas.front().breaker, *slots, each_in_time())
        .ignoring([](const co::rejection&) { return true; })
        .ignoring([](const std::exception& e) { return is_no_text(e); });
}
co::retry_policy<> route::tried(int attempts) const {
    const std::chrono::milliseconds base = opts.retry.value_or(retry_numbers()).backoff;
    const co::backoff waits = co::exponential(base, 10 * base, co::full_jitter);
    return co::retry(attempts, {.backoff = waits, .budget = &memory->budget});
}

}  // namespace gateway
