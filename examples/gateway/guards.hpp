// SPDX-License-Identifier: MIT
#pragma once

// What stands between clients and upstreams, on all threads together: at the door a limit for each client, a bound on
// the requests of all routes and a shedder of those that waited too long for it, and behind it the guards of each
// route. A new configuration is put in place while calls go on.

#include "admission.hpp"
#include "options.hpp"
#include "places.hpp"
#include "route.hpp"

#include <cordon/cordon.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gateway {

/// One set of guards. Lifetime: whoever makes a call holds it until the call has ended.
struct guards {
    /// `before`: what was until now, or nothing. What it knows goes on where the new numbers can be told to it: see
    /// `route`, `places` and `take_over`. With another rate or burst all clients begin anew.
    guards(const guard_options& o, guards* before)
        : opts(o), clients(clients_from(before)),
          requests(o.requests, "requests", before ? &before->requests : nullptr),
          door(before ? before->door : std::make_shared<co::load_shedder>(co::load_shedder_options{.name = "door"})) {
        for (const route_options& r : o.routes) routes.emplace_back(r, route_before(r, before));
        if (!o.rest.upstreams.empty()) routes.emplace_back(o.rest, route_before(o.rest, before));
    }

    /// Has all that goes on take the numbers of this set.
    void take_over() {
        const shedder_numbers shedder = opts.shedder.value_or(shedder_numbers());
        requests.take_over();
        door->set(shedder.target, shedder.interval);
        for (route& r : routes) r.take_over();
    }

    /// Returns:       where a request goes; nothing if there is no such route
    [[nodiscard]] route* route_of(std::string_view target) {
        const std::string_view path = path_of(target);
        for (route& r : routes)
            if (is_below(path, r.opts.prefix)) return &r;
        return nullptr;
    }

    const guard_options opts;
    const std::shared_ptr<co::keyed_limiter<std::string>> clients;
    places requests;
    const std::shared_ptr<co::load_shedder> door;
    std::deque<route> routes;  // the longest prefixes first, and last, if there is one, that of the rest

private:
    [[nodiscard]] std::shared_ptr<co::keyed_limiter<std::string>> clients_from(const guards* before) const {
        if (before && before->opts.client_rate == opts.client_rate && before->opts.client_burst == opts.client_burst)
            return before->clients;
        const co::keyed_limiter_options named{.name = "clients"};
        return std::make_shared<co::keyed_limiter<std::string>>(opts.client_rate, opts.client_burst, named);
    }
    static const route* route_before(const route_options& o, const guards* before) {
        if (before == nullptr) return nullptr;
        for (const route& r : before->routes)
            if (r.opts.prefix == o.prefix) return &r;
        return nullptr;
    }
};

/// The guards of the present configuration, and their figures.
class current_guards {
public:
    current_guards(co::registry& metrics, const guard_options& opts) : metrics_(metrics) { replace(opts); }

    [[nodiscard]] std::shared_ptr<guards> get() const {
        const std::lock_guard lock(mutex_);
        return now_;
    }

    /// For the calls that begin from now on. What the guards know goes on as far as `guards` says.
    /// Threads:       one at a time
    void replace(const guard_options& opts) {
        const std::shared_ptr<guards> old = get();
        const auto fresh = std::make_shared<guards>(opts, old.get());
        figures_.clear();  // two of the same name would be one series
        {
            const std::lock_guard lock(mutex_);
            now_ = fresh;  // before its figures: if there is no memory for one, the others stay good
        }
        fresh->take_over();
        if (!opts.client_rate.is_unlimited()) figures_.push_back(metrics_.add(*fresh->clients));
        if (opts.requests) figures_.push_back(metrics_.add(*fresh->requests));
        if (opts.shedder) figures_.push_back(metrics_.add(*fresh->door));
        for (route& r : fresh->routes) show(r);
    }

private:
    void show(route& r) {
        route_memory& known = *r.memory;
        if (r.opts.retry || r.opts.hedge) figures_.push_back(metrics_.add(known.budget));
        if (r.opts.hedge) figures_.push_back(metrics_.add(known.copies));
        if (r.opts.redis) figures_.push_back(metrics_.add(known.kept));
        if (r.opts.redis) figures_.push_back(metrics_.add(known.flights));
        if (r.opts.bulkhead) figures_.push_back(metrics_.add(*r.slots));
        if (!r.opts.breaker) return;
        for (const replica& each : r.replicas) {
            co::metric_options which;
            if (r.replicas.size() > 1) which.labels = {{"upstream", text_of(each.where)}};
            figures_.push_back(metrics_.add(*each.breaker, std::move(which)));
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
