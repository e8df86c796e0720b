// SPDX-License-Identifier: MIT
// The token bucket beside a slow one in exact rationals, which counts tokens and not positions, over random sequences:
// every answer, every wait and every wake-up must agree to the nanosecond.
#include <cordon/limit/token_bucket.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <deque>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::rate;
using co::task;
using co::token_bucket;
using co::detail::int128;
using co::testing::simulation;

/// So many tokens: `level` divided by the period of the rate, which is exact. Falls below zero by promises.
class oracle {
public:
    oracle(rate r, std::uint64_t burst, std::int64_t now) { terms(r, burst), level_ = full(), last_ = now; }

    /// While somebody waits nothing overflows: it would have been served within the nanosecond.
    void come_to(std::int64_t now, bool awaited = false) {
        if (now <= last_) return;  // a clock that goes back stands still
        level_ += int128{now - last_} * events_;
        if (!awaited) level_ = std::min(full(), level_);
        last_ = now;
    }
    bool take(std::uint64_t n) {
        if (n > burst_ || level_ < n * period_) return n == 0;
        level_ -= n * period_;
        return true;
    }
    /// Until `n` more are there: -1 if never.
    std::int64_t wait(std::uint64_t n) const {
        if (n == 0) return 0;
        if (n > burst_) return -1;
        const int128 missing = n * period_ - level_;
        if (missing <= 0) return 0;
        return events_ == 0 ? -1 : static_cast<std::int64_t>((missing + events_ - 1) / events_);
    }
    void promise(std::uint64_t n) { level_ -= n * period_; }
    void give_back(std::uint64_t n) { level_ += n * period_; }
    void drain() { level_ = std::min<int128>(level_, 0); }
    void set(rate r, std::uint64_t burst) {
        const int128 before = level_, period = period_;
        terms(r, burst);
        const int128 scaled = before * period_;
        level_ = scaled / period - (scaled < 0 && scaled % period != 0);
        level_ = std::min(level_, full());
    }
    std::int64_t available() const {
        return static_cast<std::int64_t>(level_ >= 0 ? level_ / period_ : -((-level_ + period_ - 1) / period_));
    }

private:
    void terms(rate r, std::uint64_t burst) {
        events_ = r.events();
        period_ = r.period().count();
        burst_ = burst;
    }
    int128 full() const { return burst_ * period_; }

    int128 events_ = 0, period_ = 1, burst_ = 0, level_ = 0;
    std::int64_t last_ = 0;
};

std::uint64_t fresh_seed(const char* of) {
    const std::uint64_t seed = std::random_device{}();
    std::printf("%s: seed %llu\n", of, static_cast<unsigned long long>(seed));
    return seed;
}

/// One that is counted without rounding, with times from nanoseconds to months.
rate some_rate(std::mt19937_64& random) {
    static constexpr std::int64_t periods[]{1, 7, 1'000, 999'983, 1'000'000'000, 60'000'000'000, 3'600'000'000'000};
    if (random() % 12 == 0) return rate::zero();
    return rate(1 + random() % (1u << random() % 20), std::chrono::nanoseconds(periods[random() % 7]));
}

}  // namespace

TEST_CASE("random tries, promises, drains and new terms agree with exact rationals", "[limit][token_bucket][RL-41]") {
    const std::uint64_t first = fresh_seed("exact rationals");
    for (std::uint64_t seed = first; seed < first + 400; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const auto now = [&] { return time.now().time_since_epoch().count(); };
        rate r = some_rate(random);
        std::uint64_t burst = random() % 40;
        token_bucket b(r, burst);
        oracle o(r, burst, now());
        std::int64_t latest = now();
        co::clock::time_point last_promise{};
        for (int i = 0; i < 400; ++i) {
            INFO("step " << i);
            const std::uint64_t n = random() % (burst + 2);
            // About as long as a few tokens take; sometimes ages, sometimes back.
            const auto period = static_cast<std::uint64_t>(r.period().count());
            const std::uint64_t typical = period / std::max<std::uint64_t>(r.events(), 1) + 2;
            switch (random() % 12) {
                case 0:
                case 1:
                case 2: time.advance(std::chrono::nanoseconds(random() % (3 * typical))); break;
                case 3: time.advance(std::chrono::nanoseconds(random() % (typical * (burst + 1)))); break;
                case 4:
                    if (random() % 8 == 0) time.advance(std::chrono::nanoseconds(random() % (1ull << (random() % 57))));
                    break;
                case 5:
                    if (random() % 4 == 0) time.advance(-std::chrono::nanoseconds(random() % typical));
                    break;
                case 6: {
                    if (n == 0 || n > burst) break;
                    if (now() < latest) break;  // a promise counts from a clock that went back
                    const std::int64_t wait = o.wait(n);
                    auto made = b.reserve(n, 1h);
                    REQUIRE(made.has_value() == (wait >= 0 && wait <= std::chrono::nanoseconds(1h).count()));
                    if (!made) break;
                    REQUIRE((made->time() - time.now()).count() == wait);
                    if (random() % 2 == 0 && wait > 0 && made->time() > last_promise) {
                        made->cancel();  // no promise is behind it: all of it comes back
                    } else {
                        last_promise = std::max(last_promise, made->time());
                        made->commit();
                        o.promise(n);
                    }
                    break;
                }
                case 7:
                    if (random() % 6 == 0 && now() >= latest) {
                        b.drain();
                        o.drain();
                    }
                    break;
                case 8:
                    if (random() % 10 == 0 && now() >= latest) {
                        r = some_rate(random);
                        burst = random() % 40;
                        b.set_rate(r, burst);
                        o.set(r, burst);
                    }
                    break;
                default: {
                    if (now() < latest) break;
                    REQUIRE(b.try_acquire(n) == o.take(n));
                    break;
                }
            }
            latest = std::max<std::int64_t>(latest, now());
            if (now() < latest) continue;
            o.come_to(now());
            REQUIRE(b.stats().available == o.available());
            const std::int64_t wait = o.wait(n);
            REQUIRE(b.time_until(n).count() == (wait < 0 ? co::clock::duration::max().count() : wait));
        }
    }
}

namespace {

/// Who waits for what, from when, and until when if it is stopped before.
struct visit {
    std::int64_t comes = 0;
    std::uint64_t n = 0;
    std::optional<std::int64_t> leaves;
    std::int64_t served = -1;  ///< as simulated
};

task<> one(token_bucket& b, visit& v, std::int64_t t0) {
    co_await b.acquire(v.n);
    v.served = co::clock::now().time_since_epoch().count() - t0;
}

/// When everybody is served: by a queue in front of a bucket of exact rationals, event by event.
std::vector<std::int64_t> expected_times(rate r, std::uint64_t burst, const std::vector<visit>& visits) {
    oracle o(r, burst, 0);
    o.drain();
    std::vector<std::int64_t> served(visits.size(), -1);
    std::deque<std::size_t> queue;
    std::map<std::int64_t, std::vector<std::size_t>> leaving;
    for (std::size_t i = 0; i < visits.size(); ++i)
        if (visits[i].leaves) leaving[*visits[i].leaves].push_back(i);
    std::int64_t now = 0;
    const auto serve_until = [&](std::int64_t until) {
        while (!queue.empty()) {
            const std::int64_t wait = o.wait(visits[queue.front()].n);
            if (now + wait > until) break;
            now += wait;
            o.come_to(now, true);
            REQUIRE(o.take(visits[queue.front()].n));
            served[queue.front()] = now;
            queue.pop_front();
        }
        now = until;
        o.come_to(now, !queue.empty());
    };
    std::size_t next = 0;
    while (next < visits.size() || !leaving.empty() || !queue.empty()) {
        const bool comes = next < visits.size();
        if (!comes && leaving.empty()) {
            serve_until(std::numeric_limits<std::int64_t>::max() / 4);
            break;
        }
        if (comes && (leaving.empty() || visits[next].comes <= leaving.begin()->first)) {
            serve_until(visits[next].comes);
            queue.push_back(next++);
        } else {
            serve_until(leaving.begin()->first);
            for (const std::size_t i : leaving.begin()->second) std::erase(queue, i);
            leaving.erase(leaving.begin());
        }
    }
    return served;
}

}  // namespace

TEST_CASE("those who wait are served when a queue before an exact bucket would serve them",
          "[limit][token_bucket][RL-74]") {
    const std::uint64_t first = fresh_seed("exact queue");
    for (std::uint64_t seed = first; seed < first + 150; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        const rate r(1 + random() % 50, std::chrono::nanoseconds(1'000 + random() % 5'000));
        const std::uint64_t burst = 1 + random() % 8;
        std::vector<visit> visits(3 + random() % 12);
        std::int64_t at = 0;
        for (visit& v : visits) {
            at += 1 + static_cast<std::int64_t>(random() % 400);
            v.comes = 2 * at;  // even: nobody comes, leaves and is served at one time
            v.n = 1 + random() % burst;
            if (random() % 3 == 0) v.leaves = v.comes + 1 + 2 * static_cast<std::int64_t>(random() % 1'000);
        }
        const std::vector<std::int64_t> expected = expected_times(r, burst, visits);
        const auto root = [&]() -> task<> {
            token_bucket b(r, burst);
            b.drain();
            const std::int64_t t0 = co::clock::now().time_since_epoch().count();
            const auto body = [&](co::task_group& group) -> task<> {
                std::deque<co::cancel_scope> scopes;
                std::deque<co::task_group> groups;
                std::vector<std::pair<std::int64_t, std::size_t>> events;  // comes: 2 i, leaves: 2 i + 1
                for (std::size_t i = 0; i < visits.size(); ++i) {
                    scopes.emplace_back(group.ctx());
                    groups.emplace_back(scopes.back().ctx());
                    events.emplace_back(visits[i].comes, 2 * i);
                    if (visits[i].leaves) events.emplace_back(*visits[i].leaves, 2 * i + 1);
                }
                std::sort(events.begin(), events.end());
                for (const auto& [when, what] : events) {
                    co_await co::sleep_until(co::clock::time_point(std::chrono::nanoseconds(t0 + when)));
                    if (what % 2 != 0) scopes[what / 2].request_stop();
                    else groups[what / 2].spawn(one(b, visits[what / 2], t0));
                    co_await simulation::settle();
                }
                for (co::task_group& g : groups) co_await g.join();
            };
            co_await co::with_group(body);
            CHECK(b.stats().waiting == 0);
        };
        simulation(seed).run(root());
        for (std::size_t i = 0; i < visits.size(); ++i) {
            INFO("visit " << i << " comes " << visits[i].comes << " wants " << visits[i].n);
            if (visits[i].leaves && expected[i] == *visits[i].leaves) continue;  // a tie: either may win
            REQUIRE(visits[i].served == expected[i]);
        }
    }
}
