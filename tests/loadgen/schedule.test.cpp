// SPDX-License-Identifier: MIT
// In virtual time, so that latencies can be compared with those that a queue with so many servers has by calculation.
#include "schedule.hpp"
#include "tally.hpp"

#include "catch.hpp"

#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <queue>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;
using loadgen::schedule;
using std::chrono::nanoseconds;

namespace {

/// Takes `service` for a request, but begins none while it stalls.
struct server {
    nanoseconds service;
    nanoseconds stalls_from{0}, stalls_to{0};

    /// When a request that begins at `t` has ended, both counted from the start.
    [[nodiscard]] nanoseconds ends(nanoseconds t) const {
        return (t >= stalls_from && t < stalls_to ? stalls_to : t) + service;
    }
};

struct measured {
    std::vector<nanoseconds> from_due, from_sent;  // by number
    loadgen::histogram ok;
    std::uint64_t total = 0, never_sent = 0, due = 0;
    nanoseconds own_delay{};
    std::vector<loadgen::tally::fate> fates;
};

struct plan {
    std::optional<double> rate;
    nanoseconds lasts, warm_up{0};
    std::optional<nanoseconds> ended_early = std::nullopt;
};

measured run(const plan& p, std::size_t connections, const server& s, std::uint64_t seed) {
    co::testing::simulation sim(seed);
    measured m;
    auto all = [&]() -> co::task<> {
        const co::clock::time_point start = co::clock::now();
        schedule plan_of(start, p.warm_up, p.lasts, p.rate);
        loadgen::tally seen(plan_of);
        auto send = [&](schedule::request r) -> co::task<> {
            loadgen::tally::attempt a(seen, r);
            const co::clock::time_point sent = co::clock::now();
            a.sent_at = sent;
            co_await co::sleep_until(start + s.ends(sent - start));
            a.ended = loadgen::outcome::ok;
            m.from_due.resize(std::max(m.from_due.size(), static_cast<std::size_t>(r.number) + 1));
            m.from_sent.resize(m.from_due.size());
            m.from_due[r.number] = co::clock::now() - r.due;
            m.from_sent[r.number] = co::clock::now() - sent;
        };
        auto body = [&](co::task_group& group) -> co::task<> {
            for (std::size_t i = 0; i < connections; ++i) group.spawn(keep_sending(plan_of, send));
            if (p.ended_early) {
                co_await co::sleep_until(start + *p.ended_early);
                plan_of.end();
            }
        };
        co_await co::with_group(body);
        m.ok = seen.ok;
        m.total = seen.total();
        m.never_sent = seen.never_sent();
        m.due = plan_of.due_so_far();
        m.own_delay = plan_of.own_delay();
        m.fates = seen.fates();
    };
    sim.run(all);
    return m;
}

/// The latencies of requests that arrive every `gap` at a queue before so many servers, by number.
std::vector<nanoseconds> queueing(nanoseconds gap, std::size_t n, std::size_t servers, const server& s) {
    std::priority_queue<nanoseconds, std::vector<nanoseconds>, std::greater<>> free;
    for (std::size_t i = 0; i < servers; ++i) free.push(0ns);
    std::vector<nanoseconds> latencies;
    for (std::size_t k = 0; k < n; ++k) {
        const nanoseconds due = gap * static_cast<std::int64_t>(k);
        const nanoseconds ended = s.ends(std::max(due, free.top()));
        free.pop();
        free.push(ended);
        latencies.push_back(ended - due);
    }
    return latencies;
}

}  // namespace

TEST_CASE("a server that stalls gives the latencies that a queue has by calculation", "[loadgen][schedule]") {
    const server s{.service = 700us, .stalls_from = 1s, .stalls_to = 1500ms};
    for (const std::size_t connections : {1U, 3U, 40U})
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
            CAPTURE(connections, seed);
            const measured m = run({.rate = 1000, .lasts = 5s}, connections, s, seed);
            const std::vector<nanoseconds> predicted = queueing(1ms, 5000, connections, s);
            REQUIRE(m.from_due.size() == 5000);
            CHECK(m.from_due == predicted);
            loadgen::histogram h;
            for (const nanoseconds d : predicted) h.record(d);
            CHECK(m.total == 5000);
            CHECK(m.never_sent == 0);
            CHECK(m.own_delay == 0ns);
            for (const double percent : {50.0, 90.0, 99.0, 99.9, 100.0})
                CHECK(m.ok.percentile(percent) == h.percentile(percent));
        }
}

TEST_CASE("latency counts from when a request was due, not from when it was sent", "[loadgen][schedule]") {
    const server s{.service = 100us, .stalls_from = 1s, .stalls_to = 2s};
    const measured m = run({.rate = 1000, .lasts = 10s}, 1, s, 0);
    // Of ten seconds the server stalls in one: a tenth of all requests are late, by half a second in the mean. Only one
    // was sent while it did.
    CHECK(std::count_if(m.from_sent.begin(), m.from_sent.end(), [](nanoseconds d) { return d > 1ms; }) == 1);
    CHECK(std::count_if(m.from_due.begin(), m.from_due.end(), [](nanoseconds d) { return d > 1ms; }) > 1000);
    CHECK(m.ok.percentile(99) > 850ms);
    CHECK(m.ok.max() == 1s + 100us);
}

TEST_CASE("requests that find no connection before the end are reported as never sent", "[loadgen][schedule]") {
    const measured m = run({.rate = 100, .lasts = 1s}, 2, {.service = 10s}, 0);
    CHECK(m.due == 100);
    CHECK(m.total == 2);
    CHECK(m.never_sent == 98);
}

TEST_CASE("in a closed loop each client asks again as soon as it was answered", "[loadgen][schedule]") {
    const measured m = run({.rate = {}, .lasts = 1s}, 8, {.service = 10ms}, 0);
    CHECK(m.total == 800);
    CHECK(m.never_sent == 0);
    CHECK(m.ok.percentile(0) == m.ok.max());
    CHECK(m.ok.max() == 10ms);
}

TEST_CASE("what was due in the warm-up does not count", "[loadgen][schedule]") {
    // All are slow that are due before 500 ms, and some that the stall still delays after it.
    const server s{.service = 1ms, .stalls_from = 0ms, .stalls_to = 450ms};
    const measured m = run({.rate = 100, .lasts = 1s, .warm_up = 500ms}, 4, s, 0);
    CHECK(m.from_due.size() == 150);
    CHECK(m.total == 100);
    CHECK(m.due == 100);
    CHECK(m.ok.max() == 1ms);
    CHECK(m.fates.size() == 150);
    CHECK(std::count_if(m.fates.begin(), m.fates.end(), [](const auto& f) { return f.counted; }) == 100);
    CHECK_FALSE(m.fates[49].counted);
    CHECK(m.fates[50].counted);
    const measured closed = run({.rate = {}, .lasts = 1s, .warm_up = 1s}, 3, {.service = 100ms}, 0);
    CHECK(closed.total == 30);
}

TEST_CASE("a load that is ended early sends nothing more, and counts what was due until then", "[loadgen][schedule]") {
    for (std::uint64_t seed = 0; seed < 5; ++seed) {
        CAPTURE(seed);
        const plan p{.rate = 100, .lasts = 3600s, .ended_early = 1995ms};
        const measured m = run(p, 16, {.service = 1ms}, seed);
        CHECK(m.total == 200);
        CHECK(m.due == 200);
        CHECK(m.never_sent == 0);
        const measured busy = run(p, 2, {.service = 5s}, seed);
        CHECK(busy.total == 2);
        CHECK(busy.never_sent == 198);
    }
}

TEST_CASE("due times do not drift, and no request is due at the end", "[loadgen][schedule]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        const co::clock::time_point start = co::clock::now();
        schedule thirds(start, 0s, 1000s, 3.0);
        std::vector<co::clock::time_point> due;
        while (const auto r = thirds.take()) due.push_back(r->due);
        CHECK(due.size() == 3000);
        CHECK(due[1] - start == nanoseconds(333'333'333));
        CHECK(due[2] - start == nanoseconds(666'666'667));
        CHECK(due[2997] - start == 999s);
        CHECK(thirds.due_so_far() == 0);
        co_await co::sleep_for(999s);
        CHECK(thirds.due_so_far() == 2997);
        co_await co::sleep_for(1ns);
        CHECK(thirds.due_so_far() == 2998);
        co_await co::sleep_for(50s);
        CHECK(thirds.due_so_far() == 3000);
        CHECK(thirds.counted() == 1000s);
    };
    sim.run(all);
}

TEST_CASE("the longest late wake-up is kept, but not one of the warm-up", "[loadgen][schedule]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        const co::clock::time_point start = co::clock::now();
        schedule s(start, 1s, 10s, 10.0);
        co_await co::sleep_for(2s);
        s.note_wake_up(start + 999ms);
        CHECK(s.own_delay() == 0s);
        s.note_wake_up(start + 1900ms);
        s.note_wake_up(start + 1990ms);
        CHECK(s.own_delay() == 100ms);
    };
    sim.run(all);
}
