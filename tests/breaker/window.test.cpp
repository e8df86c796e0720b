// SPDX-License-Identifier: MIT
#include <cordon/breaker/window.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/breaker/detail/count_log.hpp>
#include <cordon/breaker/detail/time_log.hpp>

#include "catch.hpp"
#include "play.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace std::chrono_literals;
using namespace breaker_test;
namespace co = cordon;
using co::breaker_cause;
using co::breaker_event;
using co::breaker_state;
using co::last;
using co::last_calls;
using co::verdict;

}  // namespace

TEST_CASE("a window says what it is", "[breaker][window][CB-63]") {
    static_assert(!last_calls(7).is_of_time());
    CHECK(last_calls(7).calls() == 7);
    CHECK(last_calls(7).buckets() == 0);
    CHECK(last(10s).is_of_time());
    CHECK(last(10s).buckets() == 10);
    CHECK(last(10s).span() == 10s);
    CHECK(last(10s).calls() == 0);
    CHECK(last(10s, 3).buckets() == 3);
    CHECK(last(199ms).buckets() == 1);
    CHECK(last(200ms).buckets() == 10);
    CHECK(last(0s).is_of_time());
    CHECK(last(std::chrono::hours::max()).span() == co::clock::duration::max());
}

TEST_CASE("a breaker that counts failures in a row opens at that many and forgets them at a success",
          "[breaker][window][CB-01][CB-02]") {
    hand_clock clock;
    circuit_breaker b(in_a_row(6));
    play(b, "FFFFF");
    CHECK(b.state() == breaker_state::closed);
    check_counts(b, 5, 5);
    CHECK(b.stats().consecutive_failures == 5);
    play(b, "S");
    CHECK(b.stats().consecutive_failures == 0);
    check_counts(b, 6, 5);
    play(b, "F");
    CHECK(b.stats().consecutive_failures == 1);
    play(b, "FFFF");
    CHECK(b.state() == breaker_state::closed);
    play(b, "F");
    CHECK(b.state() == breaker_state::open);
    check_counts(b, 0, 0);
    CHECK(b.stats().consecutive_failures == 0);

    CHECK(play(b, "S") == 0);
    check_counts(b, 0, 0);  // a refusal is no call
    CHECK(b.stats().rejected == 1);
    clock += 59'999ms;
    CHECK(b.state() == breaker_state::open);
    clock += 1s;
    CHECK(b.state() == breaker_state::half_open);  // looking alone moves it
}

TEST_CASE("a fixed window forgets all its calls at once", "[breaker][window][CB-05][CB-06]") {
    hand_clock clock;
    circuit_breaker b(
        {.window = last(30s, 1), .min_calls = 3, .failure_rate = 0.6, .consecutive_failures = 100, .open_for = 90s});
    play(b, "SFXSFXSFXSFXSFX");
    CHECK(b.state() == breaker_state::closed);
    check_counts(b, 10, 5);
    CHECK(b.stats().ignored == 5);
    CHECK(b.stats().consecutive_failures == 1);
    clock.set(29'999ms);
    play(b, "S");
    check_counts(b, 11, 5);
    clock.set(30'999ms);
    play(b, "F");
    check_counts(b, 1, 1);
    play(b, "SF");
    CHECK(b.state() == breaker_state::open);
    check_counts(b, 0, 0);
}

TEST_CASE("an outcome belongs to the fixed window that admitted the call", "[breaker][window][CB-09]") {
    hand_clock clock;
    circuit_breaker b({.window = last(30s, 1), .min_calls = 1});
    std::vector<breaker_event> events;
    const auto listens = b.on_event([&](const breaker_event& e) { events.push_back(e); });
    clock.set(29s);
    auto late = b.try_acquire();
    clock.set(30'500ms);
    late.succeeded();
    check_counts(b, 0, 0);
    CHECK(b.stats().stale == 1);
    REQUIRE(events.size() == 1);
    CHECK(events[0].cause == breaker_cause::stale);
    CHECK(events[0].from == events[0].to);
}

TEST_CASE("failures in a row open it although their calls take longer than a fixed window", "[breaker][window]") {
    hand_clock clock;
    circuit_breaker b({.window = last(30s, 1), .consecutive_failures = 3});
    co::clock::duration now{0};
    const auto call = [&](bool fails) {
        auto permit = b.try_acquire();
        clock.set(now += 31s);
        if (fails) permit.failed();
        else permit.succeeded();
    };
    call(true);
    call(true);
    call(false);
    call(true);
    call(true);
    CHECK(b.stats().consecutive_failures == 2);
    CHECK(b.state() == breaker_state::closed);
    call(true);
    CHECK(b.state() == breaker_state::open);
    CHECK(b.stats().stale == 6);
}

TEST_CASE("a rolling window loses a bucket at a time, and a rate that is reached then opens it",
          "[breaker][window][CB-08]") {
    hand_clock clock;
    circuit_breaker b({.window = last(30s, 10),
                       .min_calls = 3,
                       .failure_rate = 0.6,
                       .consecutive_failures = 100,
                       .open_for = 30s,
                       .half_open_calls = 3,
                       .half_open_failure_rate = 0.1});
    play(b, "SFXSFXSFXSFXSFX");
    clock += 3s;
    play(b, "S");
    clock += 2s;
    play(b, "SX");
    clock += 2s;
    play(b, "XS");
    clock += 2s;
    play(b, "F");
    check_counts(b, 14, 6);
    for (std::uint64_t k = 1; k <= 6; ++k) {
        clock += 3s;
        play(b, "SF");
        check_counts(b, 14 + 2 * k, 6 + k);
    }
    clock += 3s;
    play(b, "F");
    check_counts(b, 17, 8);  // the ten calls of the first bucket have left at once
    CHECK(b.stats().consecutive_failures == 2);
    CHECK(b.stats().ignored == 7);
    play(b, "FFFFF");
    CHECK(b.state() == breaker_state::closed);  // 13 of 22
    play(b, "F");
    CHECK(b.state() == breaker_state::open);  // 14 of 23

    clock += 30s;
    play(b, "SS");
    CHECK(b.state() == breaker_state::half_open);
    auto third = b.try_acquire();
    CHECK(third);
    CHECK_FALSE(b.try_acquire());
    third.succeeded();
    CHECK(b.state() == breaker_state::closed);
    check_counts(b, 0, 0);
}

TEST_CASE("what a success is, is the caller's business, and a success after all does not count as a failure",
          "[breaker][window][CB-11][CB-12]") {
    hand_clock clock;
    circuit_breaker b(in_a_row(6));
    play(b, "SSSSS");
    check_counts(b, 5, 0);
    b.reset();
    play(b, "FF");
    b.reset();
    CHECK(b.stats().consecutive_failures == 0);
    play(b, "XXXSSSFF");
    check_counts(b, 5, 2);
    CHECK(b.stats().ignored == 3);
    b.reset();
    play(b, "FFFFFF");
    CHECK(b.state() == breaker_state::open);
}

TEST_CASE("a rate that is reached opens it, and one below does not", "[breaker][window][CB-22]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    for (const char c : std::string_view("SSSFF")) {
        play(b, {&c, 1});
        clock += 1s;
    }
    CHECK(b.state() == breaker_state::closed);
    CHECK(b.stats().failure_rate == 0.4);
    play(b, "F");
    CHECK(b.state() == breaker_state::open);
}

TEST_CASE("below the minimum of calls no rate is known", "[breaker][window][CB-23]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    std::vector<breaker_event> events;
    const auto listens = b.on_event([&](const breaker_event& e) { events.push_back(e); });
    play(b, "FFFS");
    CHECK(b.state() == breaker_state::closed);
    CHECK_FALSE(b.stats().failure_rate);
    play(b, "S");
    CHECK(b.state() == breaker_state::open);
    REQUIRE(events.size() == 1);
    CHECK(events[0].cause == breaker_cause::failure_rate);
    CHECK(events[0].calls == 5);
    CHECK(events[0].failed == 3);
    CHECK(play(b, "S") == 0);
    CHECK(b.stats().rejected == 1);
}

TEST_CASE("a call of exactly the slow threshold is not slow, and a slow failure counts in both rates",
          "[breaker][window][CB-25]") {
    hand_clock clock;
    circuit_breaker b(resilience4j());
    call(b, clock, 4s, verdict::success);
    CHECK(b.stats().slow == 0);
    call(b, clock, 4s + 1ns, verdict::success);
    CHECK(b.stats().slow == 1);
    call(b, clock, 5s, verdict::failure);
    CHECK(b.stats().slow == 2);
    check_counts(b, 3, 1);
}

TEST_CASE("slow calls alone open it", "[breaker][window][CB-56]") {
    hand_clock clock;
    auto options = resilience4j();
    const bool of_calls = GENERATE(false, true);
    options.window = of_calls ? last_calls(10) : last(60s, 10);
    circuit_breaker b(options);
    std::vector<breaker_cause> causes;
    const auto listens = b.on_event([&](const breaker_event& e) { causes.push_back(e.cause); });
    call(b, clock, 10s, verdict::success);
    call(b, clock, 10s, verdict::failure);
    for (int i = 0; i < 3; ++i) call(b, clock, 100ms, verdict::success);
    const auto s = b.stats();
    CHECK(s.calls == 5);
    CHECK(s.failed == 1);
    CHECK(s.slow == 2);
    CHECK(s.slow_rate == 0.4);
    call(b, clock, 5s, verdict::success);
    CHECK(b.state() == breaker_state::open);
    CHECK(causes == std::vector{breaker_cause::slow_rate});
}

TEST_CASE("a window of calls puts out the oldest, and its minimum is at most its size",
          "[breaker][window][CB-55][CB-57]") {
    circuit_breaker b({.window = last_calls(4), .min_calls = 100, .failure_rate = 1.0});
    play(b, "FSSS");
    CHECK(b.stats().failure_rate == 0.25);  // known with 4 calls
    play(b, "S");
    check_counts(b, 4, 0);
    CHECK(b.stats().failure_rate == 0.0);

    circuit_breaker early({.window = last_calls(4), .min_calls = 1, .failure_rate = 1.0});
    early.metrics_only();
    std::vector<double> rates;
    for (const char c : std::string_view("FSSSS")) {
        play(early, {&c, 1});
        rates.push_back(early.stats().failure_rate.value());
    }
    CHECK(rates == std::vector{1.0, 0.5, 1 / 3.0, 0.25, 0.0});

    circuit_breaker small({.window = last_calls(4), .min_calls = 100, .failure_rate = 0.5});
    play(small, "FFS");
    CHECK(small.state() == breaker_state::closed);
    play(small, "S");
    CHECK(small.state() == breaker_state::open);
}

TEST_CASE("a rate is compared as it was written", "[breaker][window][CB-64]") {
    struct row {
        int calls, failed;
        double threshold;
        bool opens;
    };
    for (const row& r : {row{10, 0, 0.1, false}, row{10, 1, 0.1, true}, row{10, 2, 0.1, true}, row{11, 3, 0.2, true},
                         row{9, 1, 0.1, false}, row{100, 55, 0.55, true}, row{100, 54, 0.55, false},
                         row{100, 57, 0.57, true}, row{3, 2, 2.0 / 3, true}, row{10, 7, 0.7, true}}) {
        CAPTURE(r.calls, r.failed, r.threshold);
        circuit_breaker b({.window = last_calls(100),
                           .min_calls = r.calls < 11 ? 10u : static_cast<std::uint32_t>(r.calls),
                           .failure_rate = r.threshold});
        // With the failures at the end, none of them opens it before the minimum is there.
        play(b, std::string(static_cast<std::size_t>(r.calls - r.failed), 'S'));
        play(b, std::string(static_cast<std::size_t>(r.failed), 'F'));
        if (r.calls == 3) {  // what the minimum of 10 hides
            circuit_breaker three({.window = last_calls(3), .failure_rate = r.threshold});
            play(three, "SFF");
            CHECK(three.state() == breaker_state::open);
            continue;
        }
        CHECK((b.state() == breaker_state::open) == r.opens);
    }
}

TEST_CASE("thresholds of failsafe: one failure, several in a row, some of some", "[breaker][window][CB-65][CB-67]") {
    const auto ends = [](circuit_breaker_options o, std::string_view calls) {
        circuit_breaker b(o);
        play(b, calls);
        return b.state() == breaker_state::open ? "open" : "closed";
    };
    CHECK(ends(in_a_row(1), "F") == std::string("open"));
    CHECK(ends(in_a_row(3), "FSFF") == std::string("closed"));
    CHECK(ends(in_a_row(3), "FSFFF") == std::string("open"));
    CHECK(ends(in_a_row(2), "SFSFSFSFSFSFSFSFSFSF") == std::string("closed"));
    const circuit_breaker_options two_of_three{.window = last_calls(3), .failure_rate = 2.0 / 3};
    CHECK(ends(two_of_three, "FS") == std::string("closed"));
    CHECK(ends(two_of_three, "FSF") == std::string("open"));
    CHECK(ends({.window = last_calls(4), .failure_rate = 0.75}, "SFSFSFSFSFSFSFSFSFSFSFSF") == std::string("closed"));
    const circuit_breaker_options of_time{.window = last(1s), .min_calls = 3, .failure_rate = 0.5};
    CHECK(ends(of_time, "FS") == std::string("closed"));
    CHECK(ends(of_time, "FSF") == std::string("open"));
}

TEST_CASE("buckets leave as wholes", "[breaker][window][CB-59]") {
    hand_clock clock;
    circuit_breaker b({.window = last(5s, 5), .min_calls = 100});
    struct row {
        char outcome;
        co::clock::duration at;
        std::uint64_t calls, failed;
    };
    for (const row& r : {row{'F', 0s, 1, 1}, row{'S', 100ms, 2, 1}, row{'S', 200ms, 3, 1}, row{'S', 1200ms, 4, 1},
                         row{'S', 2200ms, 5, 1}, row{'F', 3200ms, 6, 2}, row{'S', 4200ms, 7, 2}, row{'S', 5200ms, 5, 1},
                         row{'S', 6200ms, 5, 1}, row{'S', 11200ms, 1, 0}}) {
        clock.set(r.at);
        play(b, {&r.outcome, 1});
        CAPTURE(r.at);
        check_counts(b, r.calls, r.failed);
    }
}

TEST_CASE("time passes for a window that is only read", "[breaker][window][CB-60][CB-61]") {
    hand_clock clock;
    circuit_breaker b({.window = last(10s, 10), .min_calls = 1, .failure_rate = 1.0});
    struct row {
        std::string_view outcomes;
        std::uint64_t calls;
        double rate;
        std::uint64_t failed;
    };
    for (const row& r : {row{"SF", 2, .5, 1}, row{"SF", 4, .5, 2}, row{"SS", 6, 2 / 6.0, 2}, row{"SS", 8, .25, 2},
                         row{"SS", 8, .125, 1}, row{"", 6, 0, 0}}) {
        play(b, r.outcomes);
        clock += 2s;
        check_counts(b, r.calls, r.failed);
        CHECK(b.stats().failure_rate == r.rate);
    }
    b.reset();
    for (int i = 0; i < 10; ++i) {
        play(b, "S");
        clock += 1s;
    }
    check_counts(b, 9, 0);  // the oldest has just left
    clock += 1s;
    check_counts(b, 8, 0);
}

TEST_CASE("rates of a window of time follow its calls", "[breaker][window][CB-68]") {
    hand_clock clock;
    circuit_breaker b({.window = last(2s, 2), .min_calls = 1, .failure_rate = 1.0});
    CHECK_FALSE(b.stats().failure_rate);
    play(b, "SFFSFSS");
    CHECK(b.stats().failure_rate == 3 / 7.0);
    clock += 2s;
    CHECK_FALSE(b.stats().failure_rate);
    play(b, "SSFSS");
    CHECK(b.stats().failure_rate == 0.2);
    play(b, "F");
    CHECK(b.stats().failure_rate == 2 / 6.0);
}

TEST_CASE("a success can open a window of time in which older successes have made room", "[breaker][window]") {
    hand_clock clock;
    circuit_breaker b({.window = last(10s, 10), .min_calls = 4, .failure_rate = 0.5});
    play(b, "SSSSSS");
    clock += 5s;
    play(b, "FFF");
    CHECK(b.state() == breaker_state::closed);  // 3 of 9
    clock += 5s;
    CHECK(b.state() == breaker_state::closed);  // 3 of 3, but too few
    play(b, "S");
    CHECK(b.state() == breaker_state::open);  // 3 of 4
}

// --- who writes late ---------------------------------------------------------------------------------------------

TEST_CASE("a mark that comes a whole ring too late is lost, and takes none with it", "[breaker][window]") {
    co::detail::mark_ring marks(16);  // four blocks of sixteen
    marks.set(5);
    marks.set(64 + 7);
    CHECK(marks.count(64, 16) == 1);
    CHECK(marks.count(0, 16) == 0);
    marks.set(6);
    CHECK(marks.count(64, 16) == 1);
    CHECK(marks.count(0, 16) == 0);
    for (const std::uint64_t p : {15u, 16u, 17u, 33u}) marks.set(128 + p);
    CHECK(marks.count(128, 64) == 4);
    CHECK(marks.count(128 + 15, 2) == 2);
    CHECK(marks.count(128 + 16, 17) == 2);
    CHECK(marks.count(128 + 34, 10) == 0);
}

TEST_CASE("a window of calls counts only those of its generation", "[breaker][window]") {
    co::detail::count_log log(4);
    log.restart(1);
    CHECK(log.record(1, true, false) == 1);
    CHECK(log.record(1, false, true) == 2);
    CHECK(log.record(2, true, true) == co::detail::count_log::refused);
    log.restart(2);
    CHECK(log.tally(2).calls == 0);
    CHECK(log.tally(1).calls == 0);
    CHECK(log.record(1, true, true) == co::detail::count_log::refused);
    for (std::uint64_t i = 1; i <= 9; ++i) CHECK(log.record(2, i < 8, i > 7) == i);
    CHECK(log.tally(2).calls == 4);
    CHECK(log.tally(2).failed == 2);
    CHECK(log.tally(2).slow == 2);
}

TEST_CASE("who writes into a bucket that has been taken writes nothing", "[breaker][window]") {
    const co::clock::time_point begin{100s};
    co::detail::time_log log(begin, 4s, 4);
    const auto tag = [&](co::clock::duration after) { return log.tag_at(1, begin + after); };
    CHECK(tag(0s) == tag(999ms));
    CHECK(tag(1s) == tag(0s) + 1);
    CHECK(tag(-5s) == tag(0s));
    CHECK(log.tag_at(2, begin) == tag(4s));  // a whole window further
    log.record(tag(8s), true, true);
    log.record(tag(0s), true, true);  // the same place in the ring, eight buckets ago
    CHECK(log.tally(tag(8s)).calls == 1);
    CHECK(log.tally(tag(8s)).failed == 1);
    CHECK(log.tally(tag(0s)).calls == 0);
    log.record(tag(1000h), false, false);  // after a long idle time
    CHECK(log.tally(tag(1000h)).calls == 1);
    CHECK(log.tally(tag(1000h)).failed == 0);
}
