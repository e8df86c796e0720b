// SPDX-License-Identifier: MIT
#pragma once

// What stands between clients and the upstream, on all threads together: a limit for each client at the door, and
// around each call retries, a circuit breaker, a bulkhead and a timeout. New ones replace the old while calls go on.

#include "message.hpp"
#include "options.hpp"

#include <cordon/cordon.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace gateway {

/// One set of guards. Lifetime: whoever makes a call holds it until the call has ended.
struct guards {
    explicit guards(const guard_options& o)
        : opts(o), clients(o.client_rate, o.client_burst, {.name = "clients"}),
          budget(co::retry_budget_options{.name = "upstream", .ratio = o.budget_ratio}),
          breaker({.name = "upstream",
                   .window = co::last_calls(o.breaker_window),
                   .min_calls = o.breaker_min_calls,
                   .failure_rate = o.failure_rate,
                   .open_for = o.open_for}),
          slots(o.concurrent, {.name = "upstream", .max_waiting = o.waiting}), repeated(around(o.attempts)),
          once(around(1)) {}

    const guard_options opts;
    co::keyed_limiter<std::string> clients;
    co::retry_budget budget;
    co::circuit_breaker breaker;
    co::bulkhead slots;
    const co::any_pipeline<response> repeated, once;  // the second for what may have an effect each time

private:
    /// The timeout of the whole is the request's own: who calls says `until`. An answer that says that the upstream
    /// failed counts like none at all. A refusal is final: the client is told at once, and can ask elsewhere.
    co::any_pipeline<response> around(int attempts) {
        const co::backoff waits = co::exponential(opts.backoff, 10 * opts.backoff, co::full_jitter);
        return co::pipeline(co::retry(attempts, {.backoff = waits, .budget = &budget}), breaker, slots,
                            co::timeout(opts.attempt))
            .failing_when([](const response& r) { return r.result_int() >= 500; })
            .ignoring([](const co::rejection&) { return true; });
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

    /// For the calls that begin from now on. What the breaker knows stays, if the upstream does; clients begin anew.
    /// Threads:       one at a time
    void replace(const guard_options& opts) {
        auto fresh = std::make_shared<guards>(opts);
        const std::shared_ptr<guards> old = get();
        if (old && old->opts.upstream == opts.upstream) fresh->breaker.restore(old->breaker.export_state());
        figures_.clear();  // two of the same name would be one series
        figures_.push_back(metrics_.add(fresh->clients));
        figures_.push_back(metrics_.add(fresh->budget));
        figures_.push_back(metrics_.add(fresh->breaker));
        figures_.push_back(metrics_.add(fresh->slots));
        const std::lock_guard lock(mutex_);
        now_ = std::move(fresh);
    }

private:
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
