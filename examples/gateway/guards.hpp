// SPDX-License-Identifier: MIT
#pragma once

// What stands between clients and upstreams, on all threads together: at the door a limit for each client, a bound on
// the requests of all routes and a shedder of those that waited too long for it, and around the calls of each route
// retries, copies of what is slow, a circuit breaker, a bulkhead and a timeout. New ones replace the old while calls go
// on.

#include "admission.hpp"
#include "message.hpp"
#include "options.hpp"
#include "redis_link.hpp"

#include <cordon/cordon.hpp>

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gateway {

/// Where the requests of one prefix go, and what guards the calls.
class route {
public:
    explicit route(const route_options& o)
        : opts(o), name(o.prefix.empty() ? "upstream" : o.prefix),
          budget(co::retry_budget_options{.name = name, .ratio = o.retry.value_or(retry_numbers()).budget_ratio}),
          breaker(with_numbers(o.breaker, name)),
          slots(o.bulkhead ? o.bulkhead->concurrent : co::bulkhead::max_limit,
                {.name = name, .max_waiting = o.bulkhead ? o.bulkhead->waiting : 0}),
          copies(with_numbers(o.hedge.value_or(hedge_numbers()), name, budget)),
          repeated(around(o.retry ? o.retry->attempts : 1)), once(around(1)),
          hedged(around_copies(o.retry ? o.retry->attempts : 1)),
          kept(o.redis.value_or(redis_numbers()).keep,
               {.name = name, .stale_for = o.redis.value_or(redis_numbers()).stale}),
          flights({.name = name}),
          lookups(co::pipeline(tried(o.retry ? o.retry->attempts : 1), breaker, slots, each_in_time())
                      .ignoring([](const co::rejection&) { return true; })
                      .ignoring([](const std::exception& e) { return is_no_text(e); })) {}

    /// Around a look-up: a value that is kept is not asked for, and one that several want only once. All that fails,
    /// and what the inner guards refuse, is answered by a stale one.
    [[nodiscard]] auto around_look_up(const std::string& key) {
        return co::pipeline(kept.for_key(key), flights.for_key(key), lookups);
    }

    const route_options opts;
    const std::string name;
    co::retry_budget budget;
    co::circuit_breaker breaker;
    co::bulkhead slots;
    co::hedge_policy copies;
    const co::any_pipeline<response> repeated, once;  // the second for what may have an effect each time
    const co::any_pipeline<response> hedged;          // for what has none: two calls at the same time
    co::cache<std::string, looked_up> kept;           // this and the rest for a redis
    co::single_flight<std::string, looked_up> flights;
    const co::any_pipeline<looked_up> lookups;

private:
    static co::circuit_breaker_options with_numbers(const std::optional<breaker_numbers>& o, std::string_view name) {
        if (!o) return {.name = name, .initial = co::breaker_state::disabled};
        return {.name = name,
                .window = co::last_calls(o->window),
                .min_calls = o->min_calls,
                .failure_rate = o->failure_rate,
                .open_for = o->open_for};
    }

    static co::hedge_options with_numbers(const hedge_numbers& o, std::string_view name, co::retry_budget& budget) {
        return {.name = name,
                .after = o.delay ? co::hedge_delay(*o.delay) : co::percentile(o.percentile),
                .budget = &budget,
                .within_retry = true};
    }

    /// The timeout of the whole is the request's own: who calls says `until`. An answer that says that the upstream
    /// failed counts like none at all. A refusal is final: the client is told at once, and can ask elsewhere. Guards
    /// that are not wanted let everything through, so that all routes have one type of pipeline.
    co::any_pipeline<response> around(int attempts) {
        return judged(co::pipeline(tried(attempts), breaker, slots, each_in_time()));
    }
    /// The same, with the copies inside of the retries: a copy is guarded like the call.
    co::any_pipeline<response> around_copies(int attempts) {
        return judged(co::pipeline(tried(attempts), copies, breaker, slots, each_in_time()));
    }
    co::retry_policy<> tried(int attempts) {
        const std::chrono::milliseconds base = opts.retry.value_or(retry_numbers()).backoff;
        const co::backoff waits = co::exponential(base, 10 * base, co::full_jitter);
        return co::retry(attempts, {.backoff = waits, .budget = &budget});
    }
    co::timeout_policy each_in_time() const { return co::timeout(opts.attempt.value_or(longest_deadline)); }
    template <class Pipeline>
    static co::any_pipeline<response> judged(Pipeline around) {
        return std::move(around)
            .failing_when([](const response& r) { return r.result_int() >= 500; })
            .ignoring([](const co::rejection&) { return true; });
    }
};

/// One set of guards. Lifetime: whoever makes a call holds it until the call has ended.
struct guards {
    explicit guards(const guard_options& o)
        : opts(o), clients(o.client_rate, o.client_burst, {.name = "clients"}),
          places(o.requests ? o.requests->concurrent : co::bulkhead::max_limit,
                 {.name = "requests", .max_waiting = o.requests ? o.requests->waiting : 0}),
          door({.name = "door",
                .target = o.shedder.value_or(shedder_numbers()).target,
                .interval = o.shedder.value_or(shedder_numbers()).interval}) {
        for (const route_options& r : o.routes) routes.emplace_back(r);
        if (o.rest.upstream.port() != 0) routes.emplace_back(o.rest);
    }

    /// Returns:       where a request goes; nothing if there is no such route
    [[nodiscard]] route* route_of(std::string_view target) {
        const std::string_view path = path_of(target);
        for (route& r : routes)
            if (is_below(path, r.opts.prefix)) return &r;
        return nullptr;
    }

    const guard_options opts;
    co::keyed_limiter<std::string> clients;
    co::bulkhead places;
    co::load_shedder door;
    std::deque<route> routes;  // the longest prefixes first, and last, if there is one, that of the rest
};

/// The guards of the present configuration, and their figures.
class current_guards {
public:
    current_guards(co::registry& metrics, const guard_options& opts) : metrics_(metrics) { replace(opts); }

    [[nodiscard]] std::shared_ptr<guards> get() const {
        const std::lock_guard lock(mutex_);
        return now_;
    }

    /// For the calls that begin from now on. What a breaker knows stays, if route and upstream do; the others
    /// begin anew.
    /// Threads:       one at a time
    void replace(const guard_options& opts) {
        const auto fresh = std::make_shared<guards>(opts);
        const std::shared_ptr<guards> old = get();
        if (old)
            for (route& r : fresh->routes) inherit_breaker(r, old->routes);
        figures_.clear();  // two of the same name would be one series
        {
            const std::lock_guard lock(mutex_);
            now_ = fresh;  // before its figures: if there is no memory for one, the others stay good
        }
        if (!opts.client_rate.is_unlimited()) figures_.push_back(metrics_.add(fresh->clients));
        if (opts.requests) figures_.push_back(metrics_.add(fresh->places));
        if (opts.shedder) figures_.push_back(metrics_.add(fresh->door));
        for (route& r : fresh->routes) {
            if (r.opts.retry || r.opts.hedge) figures_.push_back(metrics_.add(r.budget));
            if (r.opts.hedge) figures_.push_back(metrics_.add(r.copies));
            if (r.opts.redis) figures_.push_back(metrics_.add(r.kept));
            if (r.opts.redis) figures_.push_back(metrics_.add(r.flights));
            if (r.opts.breaker) figures_.push_back(metrics_.add(r.breaker));
            if (r.opts.bulkhead) figures_.push_back(metrics_.add(r.slots));
        }
    }

private:
    static void inherit_breaker(route& r, const std::deque<route>& from) {
        for (const route& old : from) {
            if (old.opts.prefix != r.opts.prefix || old.opts.upstream != r.opts.upstream) continue;
            if (old.opts.breaker && r.opts.breaker) r.breaker.restore(old.breaker.export_state());
        }
    }

    co::registry& metrics_;
    mutable std::mutex mutex_;
    std::shared_ptr<guards> now_;  // under mutex_
    std::vector<co::registry::registration> figures_;  // die before the last guards do
};

/// How many requests were answered with statuses of one class: an observable of the gateway's own.
class answer_count {
public:
    static constexpr std::string_view kind = "answers";
    [[nodiscard]] std::string_view name() const noexcept { return "http"; }
    [[nodiscard]] std::uint64_t stats() const noexcept { return sent_.load(std::memory_order_relaxed); }
    void report(co::metric_sink& sink) const { sink.counter("sent", stats(), "Requests that were answered."); }
    void add() noexcept { sent_.fetch_add(1, std::memory_order_relaxed); }

private:
    std::atomic<std::uint64_t> sent_{0};
};

/// What the requests of all threads share.
class commons {
public:
    explicit commons(const guard_options& opts) : guarded(metrics, opts) {
        constexpr std::string_view classes[] = {"2xx", "3xx", "4xx", "5xx"};
        for (std::size_t i = 0; i < answers_.size(); ++i)
            seen_[i] = metrics.add(answers_[i], {.prefix = "gateway", .labels = {{"class", std::string(classes[i])}}});
    }

    void count(unsigned status) noexcept {
        if (status >= 200 && status < 600) answers_[status / 100 - 2].add();
    }

    co::registry metrics;
    current_guards guarded;

private:
    std::array<answer_count, 4> answers_;
    std::array<co::registry::registration, 4> seen_;
};

}  // namespace gateway
