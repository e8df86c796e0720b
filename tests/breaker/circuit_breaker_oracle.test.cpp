// SPDX-License-Identifier: MIT
// The rules of a breaker as one would write them down: lists of calls, no word, no ring, no lock. Random histories, in
// which time stands still, passes, and jumps, have to come out the same.
#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "play.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace {

using namespace breaker_test;
using co::breaker_state;
using co::verdict;
using time_point = co::clock::time_point;
using duration = co::clock::duration;

class oracle {
public:
    struct leave {
        std::uint64_t era = 0;
        time_point since{};
        breaker_state in = breaker_state::closed;
        std::size_t id = 0;
    };
    std::uint64_t rejected = 0, stale = 0, ignored = 0, opened = 0;

    oracle(const circuit_breaker_options& o, duration first_open, time_point now)
        : o_(o), first_open_(first_open), made_(now) {}

    std::optional<leave> acquire(time_point now) {
        pass(now);
        switch (state_) {
            case breaker_state::open:
            case breaker_state::forced_open: ++rejected; return {};
            case breaker_state::half_open: {
                std::erase_if(out_, [&](const leave& l) { return now - l.since >= o_.probe_lease; });
                if (out_.size() + probes_.size() >= o_.half_open_calls) return ++rejected, std::nullopt;
                out_.push_back({era_, now, state_, ++ids_});
                return out_.back();
            }
            default: return leave{era_, now, state_, 0};
        }
    }
    void settle(const leave& l, verdict v, time_point now) {
        if (v == verdict::ignored) ++ignored;
        const bool counts = v == verdict::success || v == verdict::failure;
        const bool failed = v == verdict::failure;
        const bool slow = o_.slow_call && now - l.since > *o_.slow_call;
        if (l.in == breaker_state::disabled) return;
        if (l.in == breaker_state::half_open) {
            pass(now);
            const auto mine = std::find_if(out_.begin(), out_.end(), [&](const leave& x) { return x.id == l.id; });
            if (l.era != era_ || mine == out_.end()) return void(stale += counts);
            out_.erase(mine);
            if (!counts) return;
            if (now - l.since >= o_.probe_lease) return void(++stale);
            probes_.push_back({now, failed, slow});
            return judge_probes(now);
        }
        if (!counts) return;
        if (l.era != era_) return void(++stale);
        if (o_.window.buckets() == 1 && bucket(l.since) != bucket(now)) return void(++stale);
        calls_.push_back({now, failed, slow});
        row_ = failed ? row_ + 1 : 0;
        judge(now);
    }
    void by_hand(breaker_state to, time_point now, time_point until, bool again = false) {
        if (state_ == to && to == breaker_state::open) until_ = until;
        else if (state_ != to || again) enter(to, now), until_ = until;
    }
    breaker_state state(time_point now) {
        pass(now);
        return state_;
    }
    co::detail::call_tally tally(time_point now) {
        const std::vector<ended> of = state_ == breaker_state::half_open ? probes_ : window(now);
        co::detail::call_tally t;
        for (const ended& e : of) ++t.calls, t.failed += e.failed, t.slow += e.slow;
        return t;
    }
    std::size_t probes_out() const { return out_.size(); }
    std::uint32_t attempt() const { return attempt_; }
    duration retry_after(time_point now) const {
        return state_ == breaker_state::open && until_ > now ? until_ - now : duration(0);
    }

private:
    struct ended {
        time_point at;
        bool failed, slow;
    };

    std::int64_t bucket(time_point t) const { return (t - made_) / (o_.window.span() / o_.window.buckets()); }
    std::vector<ended> window(time_point now) const {
        std::vector<ended> result;
        for (const ended& e : calls_) {
            if (!o_.window.is_of_time() || bucket(now) - bucket(e.at) < o_.window.buckets()) result.push_back(e);
        }
        if (!o_.window.is_of_time() && result.size() > o_.window.calls())
            result.erase(result.begin(), result.end() - o_.window.calls());
        return result;
    }
    void judge(time_point now) {
        if (state_ != breaker_state::closed) return;
        const auto t = tally(now);
        const std::uint64_t least = o_.window.is_of_time() ? o_.min_calls : std::min(o_.min_calls, o_.window.calls());
        bool trips = o_.consecutive_failures && row_ >= *o_.consecutive_failures;
        // All rates of these tests are whole percents.
        const auto percent = [](double r) { return static_cast<std::uint64_t>(r * 100 + 0.5); };
        if (t.calls >= least && o_.failure_rate) trips |= t.failed * 100 >= percent(*o_.failure_rate) * t.calls;
        if (t.calls >= least && o_.slow_call) trips |= t.slow * 100 >= percent(o_.slow_rate) * t.calls;
        if (trips) open(now);
    }
    /// Tries all ways in which the probes can yet end.
    void judge_probes(time_point now) {
        const auto t = tally(now);
        const std::uint64_t n = o_.half_open_calls, left = n - t.calls;
        bool may_open = false, may_close = false;
        for (std::uint64_t bad = 0; bad <= left; ++bad)
            for (std::uint64_t slow = 0; slow <= left; ++slow) {
                bool opens = o_.failure_rate ? (t.failed + bad) * 100 >=
                                                   static_cast<std::uint64_t>(*o_.failure_rate * 100 + 0.5) * n
                                             : t.failed + bad > 0;
                if (o_.slow_call)
                    opens |= (t.slow + slow) * 100 >= static_cast<std::uint64_t>(o_.slow_rate * 100 + 0.5) * n;
                (opens ? may_open : may_close) = true;
            }
        if (!may_close) open(now);
        else if (!may_open) enter(breaker_state::closed, now);
    }
    void open(time_point now) {
        const std::uint32_t before = attempt_;
        enter(breaker_state::open, now);
        attempt_ = before + 1;
        ++opened;
        duration d = first_open_;
        for (std::uint32_t i = 0; i < before && d < 60s; ++i) d *= 2;
        until_ = now + std::min<duration>(d, 60s);
    }
    void pass(time_point now) {
        if (state_ == breaker_state::open && now >= until_) enter(breaker_state::half_open, now);
        if (state_ == breaker_state::half_open && o_.half_open_for && now - entered_ >= *o_.half_open_for) {
            open(now);
            if (now >= until_) enter(breaker_state::half_open, now);
        }
    }
    void enter(breaker_state s, time_point now) {
        state_ = s;
        entered_ = now;
        ++era_;
        calls_.clear();
        probes_.clear();
        out_.clear();
        row_ = 0;
        if (s == breaker_state::closed) attempt_ = 0;
    }

    circuit_breaker_options o_;
    duration first_open_;
    time_point made_, entered_{}, until_{};
    breaker_state state_ = breaker_state::closed;
    std::uint64_t era_ = 0;
    std::deque<ended> calls_;
    std::vector<ended> probes_;
    std::vector<leave> out_;
    std::size_t ids_ = 0;
    std::uint32_t row_ = 0, attempt_ = 0;
};

void check_history(std::uint64_t seed, std::size_t& opened) {
    std::mt19937_64 random(seed);
    const auto below = [&](std::uint64_t n) { return random() % n; };
    const auto pick = [&](auto... of) {
        const std::array all{of...};
        return all[below(all.size())];
    };
    hand_clock clock;
    circuit_breaker_options o;
    const duration span = pick(duration(10ms), duration(1s), duration(10s));
    o.window =
        below(2) == 0 ? co::last_calls(pick(1u, 3u, 10u, 16u, 33u, 100u)) : co::last(span, pick(1u, 2u, 7u, 10u));
    o.min_calls = pick(1u, 2u, 5u, 20u);
    o.failure_rate = pick(0.01, 0.2, 0.5, 0.55, 1.0);
    if (below(4) == 0) o.failure_rate.reset();
    if (below(3) == 0) o.consecutive_failures = pick(1u, 2u, 4u);
    if (below(2) == 0) o.slow_call = span / pick(2, 10, 100);
    if (!o.failure_rate && !o.slow_call && !o.consecutive_failures) o.consecutive_failures = 3u;
    o.slow_rate = pick(0.3, 0.5, 1.0);
    const duration first_open = pick(duration(1), duration(100ms), duration(5s), duration(60s));
    o.open_for = co::open_time::growing(first_open, 60s, {.jitter = 0});
    o.half_open_calls = pick(1u, 2u, 3u, 5u);
    o.probe_lease = pick(duration(1), duration(50ms), duration(1h));
    if (below(2) == 0) o.half_open_for = pick(duration(1), duration(70ms), duration(10s));
    circuit_breaker b(o);
    oracle expected(o, first_open, clock.now());
    const auto width = o.window.is_of_time() ? o.window.span() / o.window.buckets() : span;

    std::vector<std::pair<circuit_breaker::permit, oracle::leave>> held;
    const unsigned fails = pick(5u, 30u, 60u);
    for (int i = 0; i < 400; ++i) {
        INFO("seed " << seed << ", step " << i);
        const auto action = below(100);
        if (action < 40) {
            auto got = b.try_acquire();
            const auto may = expected.acquire(clock.now());
            REQUIRE(bool(got) == may.has_value());
            if (may) held.emplace_back(std::move(got), *may);
        }
        if (!held.empty() && (action < 60 || held.size() > 12)) {
            const std::size_t which = below(held.size());
            const auto dice = below(100);
            const verdict v = dice < 5            ? verdict::ignored
                              : dice < 10         ? verdict::stopped
                              : dice < 10 + fails ? verdict::failure
                                                  : verdict::success;
            held[which].first.settle(v);
            expected.settle(held[which].second, v, clock.now());
            held.erase(held.begin() + static_cast<std::ptrdiff_t>(which));
        }
        if (action >= 60 && action < 90) {
            const auto left = expected.retry_after(clock.now());
            clock += pick(duration(0), duration(1), width / 3, width - duration(1), width, o.probe_lease, first_open,
                          left, left > 0s ? left - duration(1) : left);
            if (below(200) == 0) clock += pick(duration(24h), duration(24h * 200));
        }
        if (action == 97 || (action == 98 && below(4) == 0)) {
            const auto until = clock.now() + pick(duration(0), duration(1s));
            switch (below(6)) {
                case 0: b.force_open(), expected.by_hand(breaker_state::forced_open, clock.now(), {}); break;
                case 1: b.disable(), expected.by_hand(breaker_state::disabled, clock.now(), {}); break;
                case 2: b.metrics_only(), expected.by_hand(breaker_state::metrics_only, clock.now(), {}); break;
                case 3: b.reset(), expected.by_hand(breaker_state::closed, clock.now(), {}, true); break;
                default: b.open_until(until), expected.by_hand(breaker_state::open, clock.now(), until); break;
            }
        }
        if (action == 99) b.close(), expected.by_hand(breaker_state::closed, clock.now(), {});

        if (below(3) != 0) continue;  // looking moves it: not always
        REQUIRE(b.state() == expected.state(clock.now()));
        const auto s = b.stats();
        const auto t = expected.tally(clock.now());
        REQUIRE(s.state == expected.state(clock.now()));
        REQUIRE(s.calls == t.calls);
        REQUIRE(s.failed == t.failed);
        REQUIRE(s.slow == t.slow);
        REQUIRE(s.probes == expected.probes_out());
        REQUIRE(s.attempt == expected.attempt());
        REQUIRE(s.retry_after == expected.retry_after(clock.now()));
        REQUIRE(s.rejected == expected.rejected);
        REQUIRE(s.stale == expected.stale);
        REQUIRE(s.ignored == expected.ignored);
        REQUIRE(s.opened == expected.opened);
    }
    opened += expected.opened;
    held.clear();
}

}  // namespace

TEST_CASE("a breaker does what its rules say, whatever happens to calls and to time", "[breaker][circuit_breaker]") {
    const std::uint64_t first = std::random_device{}();
    std::printf("seeds from %llu\n", static_cast<unsigned long long>(first));
    std::size_t opened = 0;
    for (std::uint64_t seed = first; seed < first + 1'000; ++seed) check_history(seed, opened);
    CHECK(opened > 1'000);
}
