// SPDX-License-Identifier: MIT
// The sliding window beside a list of all events that ever were, over random sequences: every answer, every wait and
// every wake-up must agree to the nanosecond.
#include <cordon/limit/sliding_window_limiter.hpp>

#include <cordon/core/verdict.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "fake_clock.hpp"
#include "visits.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::sliding_window_limiter;
using co::task;
using co::verdict;
using co::testing::simulation;
using limit_test::come_and_go;
using limit_test::fresh_seed;

using permit = sliding_window_limiter::permit;

/// All events there were, by their times, which a clock that goes back does not make smaller.
class event_list {
public:
    event_list(std::size_t limit, std::int64_t window) : limit_(limit), window_(window) {}

    std::size_t inside(std::int64_t now) const {
        return static_cast<std::size_t>(
            std::count_if(events_.begin(), events_.end(), [&](std::int64_t t) { return t + window_ > now; }));
    }
    /// The first time from `now` on at which one more fits.
    std::int64_t turn(std::int64_t now) const {
        return inside(now) < limit_ ? now : events_[events_.size() - limit_] + window_;
    }
    void add(std::int64_t now) { events_.push_back(events_.empty() ? now : std::max(now, events_.back())); }
    void take_back_last() { events_.pop_back(); }
    std::size_t size() const { return events_.size(); }

private:
    std::size_t limit_;
    std::int64_t window_;
    std::vector<std::int64_t> events_;
};

}  // namespace

TEST_CASE("random events, some of which come back, and jumps of the clock agree with a list of all events",
          "[limit][sliding_window_limiter]") {
    const std::uint64_t first = fresh_seed("list of events");
    for (std::uint64_t seed = first; seed < first + 150; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        fake_clock time;
        const auto now = [&] { return time.now().time_since_epoch().count(); };
        const auto some = [&](std::int64_t most) {
            return static_cast<std::int64_t>(random() % static_cast<std::uint64_t>(most));
        };
        const std::size_t limit = 1 + random() % 8;
        const std::int64_t window = 1 + some(std::int64_t{1} << some(40));
        sliding_window_limiter api{limit, std::chrono::nanoseconds(window)};
        event_list events(limit, window);
        std::vector<std::pair<permit, std::size_t>> out;  // with the number of the event
        std::int64_t latest = now();
        for (int i = 0; i < 250; ++i) {
            INFO("step " << i);
            const std::int64_t typical = window / static_cast<std::int64_t>(limit) + 1;
            switch (random() % 8) {
                case 0:
                case 1: time.advance(std::chrono::nanoseconds(some(2 * typical))); break;
                case 2:
                    if (random() % 8 == 0) time.advance(std::chrono::nanoseconds(some(3 * window)));
                    break;
                case 3:
                    if (random() % 4 == 0) time.advance(-std::chrono::nanoseconds(some(2 * typical)));
                    if (random() % 30 == 0) time.advance(-std::chrono::nanoseconds(some(3 * window)));
                    break;
                case 4: {
                    if (out.empty()) break;
                    auto [p, number] = std::move(out.back());
                    out.pop_back();
                    const bool stopped = random() % 2 == 0;
                    p.settle(stopped ? verdict::stopped : verdict::success);
                    if (stopped && number == events.size()) events.take_back_last();
                    break;
                }
                default: {
                    const bool fits = events.turn(now()) == now();
                    permit p = api.admission().at_once();
                    // What came back left a place that was free when it came: to a clock before that it may not be.
                    if (now() >= latest) REQUIRE(static_cast<bool>(p) == fits);
                    if (!p) break;
                    REQUIRE(fits);
                    events.add(now());
                    out.emplace_back(std::move(p), events.size());
                }
            }
            latest = std::max<std::int64_t>(latest, now());
            const std::int64_t wait = api.time_until().count();
            const auto s = api.stats();
            REQUIRE(s.admitted == events.size());
            REQUIRE((wait == 0) == (s.used < limit));
            REQUIRE(wait >= events.turn(now()) - now());
            if (now() < latest) continue;
            REQUIRE(wait == events.turn(now()) - now());
            REQUIRE(s.used == events.inside(now()));
        }
        for (auto& [p, number] : out) p.settle(verdict::success);
    }
}

namespace {

struct visit : limit_test::visit {
    std::optional<std::int64_t> keeps;  ///< how long it keeps its permit before that comes back
};

task<> one(sliding_window_limiter& api, visit& v, std::int64_t t0) {
    permit p = co_await api.admission();
    v.served = co::clock::now().time_since_epoch().count() - t0;
    if (v.keeps) co_await co::sleep_for(std::chrono::nanoseconds(*v.keeps));
    p.settle(v.keeps ? verdict::stopped : verdict::success);
}

/// When everybody is served: by a queue in front of a list of events, step by step. Nothing if two things that matter
/// to each other happen at one time.
std::optional<std::vector<std::int64_t>> expected_times(std::size_t limit, std::int64_t window,
                                                        const std::vector<visit>& visits) {
    constexpr std::int64_t never = std::numeric_limits<std::int64_t>::max();
    event_list events(limit, window);
    std::vector<std::int64_t> served(visits.size(), -1);
    std::vector<std::size_t> number(visits.size());
    std::deque<std::size_t> queue;
    std::vector<std::pair<std::int64_t, std::size_t>> changes;  // comes: 3 i, leaves: 3 i + 1, gives back: 3 i + 2
    for (std::size_t i = 0; i < visits.size(); ++i) {
        changes.emplace_back(visits[i].comes, 3 * i);
        if (visits[i].leaves) changes.emplace_back(*visits[i].leaves, 3 * i + 1);
    }
    std::set<std::int64_t> times;
    for (std::int64_t now = 0;;) {
        std::sort(changes.begin(), changes.end());
        const std::int64_t turn = queue.empty() ? never : events.turn(now);
        const std::int64_t change = changes.empty() ? never : changes.front().first;
        if (turn == never && change == never) return served;
        now = std::min(turn, change);
        if (turn == change && turn != never) return std::nullopt;
        if (turn < change) {
            const std::size_t i = queue.front();
            queue.pop_front();
            served[i] = now;
            events.add(now);
            number[i] = events.size();
            if (visits[i].keeps) changes.emplace_back(now + *visits[i].keeps, 3 * i + 2);
            continue;
        }
        if (!times.insert(now).second) return std::nullopt;
        const std::size_t i = changes.front().second / 3;
        switch (changes.front().second % 3) {
            case 0: queue.push_back(i); break;
            case 1: std::erase(queue, i); break;
            default:
                if (number[i] == events.size()) events.take_back_last();
        }
        changes.erase(changes.begin());
    }
}

}  // namespace

TEST_CASE("those who wait are served when a queue before a list of all events would serve them",
          "[limit][sliding_window_limiter]") {
    const std::uint64_t first = fresh_seed("queue before a list");
    int compared = 0;
    for (std::uint64_t seed = first; seed < first + 150; ++seed) {
        INFO("seed " << seed);
        std::mt19937_64 random(seed);
        const auto some = [&](std::uint64_t most) { return static_cast<std::int64_t>(random() % most); };
        const std::size_t limit = 1 + random() % 4;
        const std::int64_t window = 1 + some(1'000'000);
        std::vector<visit> visits(3 + random() % 12);
        std::int64_t at = 0;
        for (visit& v : visits) {
            v.comes = at += 1 + some(600'000 / limit);
            if (random() % 3 == 0) v.leaves = v.comes + 1 + some(2'000'000);
            if (random() % 3 == 0) v.keeps = 1 + some(1'000'000);
        }
        const std::optional<std::vector<std::int64_t>> expected = expected_times(limit, window, visits);
        if (!expected) continue;
        ++compared;
        const auto root = [&]() -> task<> {
            sliding_window_limiter api(limit, std::chrono::nanoseconds(window));
            co_await come_and_go(api, visits, &one);
        };
        simulation(seed).run(root());
        for (std::size_t i = 0; i < visits.size(); ++i) {
            INFO("visit " << i << " comes " << visits[i].comes);
            REQUIRE(visits[i].served == (*expected)[i]);
        }
    }
    CHECK(compared > 75);
}
