// SPDX-License-Identifier: MIT
#include <cordon/policy/backoff.hpp>

#include <cordon/core/detail/random.hpp>

#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::backoff;
using std::chrono::nanoseconds;
using duration = co::clock::duration;

constexpr double infinity = std::numeric_limits<double>::infinity();
constexpr double no_number = std::numeric_limits<double>::quiet_NaN();

duration wait(const backoff& b, std::uint32_t retry_number, double uniform = 0.5) {
    double memory = 0;
    return b.delay(retry_number, uniform, memory);
}

/// The first `n` waits of a call.
std::vector<duration> waits(const backoff& b, std::uint32_t n) {
    std::vector<duration> result;
    double memory = 0;
    for (std::uint32_t i = 0; i < n; ++i) result.push_back(b.delay(i, 0.5, memory));
    return result;
}

/// What the function that makes it says of arguments that are out of range.
template <class F>
std::string complaint(F&& make) {
    try {
        (void)make();
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "";
}

/// Each kind with each jitter, with the longest wait `max`.
std::vector<backoff> all_kinds(duration base, duration max) {
    std::vector<backoff> result{co::decorrelated(base, max)};
    for (const co::jitter j : {co::no_jitter, co::full_jitter, co::equal_jitter, co::proportional_jitter(0.25)}) {
        result.push_back(co::linear(base, max, j));
        result.push_back(co::exponential(base, max, j));
        result.push_back(co::exponential(base, max, j, 1e200));
    }
    return result;
}

}  // namespace

static_assert(std::is_trivially_copyable_v<backoff> && std::is_trivially_copyable_v<co::jitter>);

TEST_CASE("a backoff is a value that can be compared and made at compile time", "[policy][backoff]") {
    constexpr backoff spread = co::exponential(1ms, 100ms, co::full_jitter);
    CHECK(spread == co::exponential(1ms, 100ms, co::full_jitter));
    CHECK_FALSE(spread == co::exponential(1ms, 100ms));
    CHECK_FALSE(co::linear(1ms, 100ms) == co::exponential(1ms, 100ms));
    CHECK(co::proportional_jitter(0) == co::no_jitter);
    CHECK(co::constant(1.5s) == co::constant(1500ms));
    CHECK(waits(backoff(), 3) == std::vector<duration>{0ns, 0ns, 0ns});
}

TEST_CASE("a constant wait is spread a quarter to both sides", "[policy][backoff][RT-11]") {
    const backoff b = co::constant(1s, co::proportional_jitter(0.25));
    CHECK(wait(b, 0, 0) == 750ms);
    CHECK(wait(b, 0, 0.4) == 950ms);
    CHECK(wait(b, 0, 0.6) == 1050ms);
    CHECK(wait(b, 0, 1) == 1250ms);
    CHECK(waits(co::constant(7ns), 3) == std::vector<duration>{7ns, 7ns, 7ns});
}

TEST_CASE("a linear wait grows by its step, with a jitter or without", "[policy][backoff][RT-12]") {
    CHECK(waits(co::linear(1s, 1h), 3) == std::vector<duration>{1s, 2s, 3s});
    CHECK(waits(co::linear(2s, 1h), 3) == std::vector<duration>{2s, 4s, 6s});
    CHECK(waits(co::linear(0s, 1h, co::full_jitter), 3) == std::vector<duration>{0s, 0s, 0s});
    const backoff spread = co::linear(1s, 1h, co::proportional_jitter(0.25));
    CHECK(wait(spread, 2, 0) == 2250ms);
    CHECK(wait(spread, 2, 0.4) == 2850ms);
    CHECK(wait(spread, 2, 0.5) == 3s);
    CHECK(wait(spread, 2, 0.6) == 3150ms);
    CHECK(wait(spread, 2, 1) == 3750ms);
}

TEST_CASE("an exponential wait grows by its factor up to the longest", "[policy][backoff][RT-04][RT-13][RT-20]") {
    CHECK(waits(co::exponential(500ms, 1h), 2) == std::vector<duration>{500ms, 1s});
    CHECK(waits(co::exponential(1s, 1h), 3) == std::vector<duration>{1s, 2s, 4s});
    CHECK(waits(co::exponential(1ms, 10ms), 6) == std::vector<duration>{1ms, 2ms, 4ms, 8ms, 10ms, 10ms});
    CHECK(waits(co::exponential(2s, 30s), 5) == std::vector<duration>{2s, 4s, 8s, 16s, 30s});
    CHECK(waits(co::exponential(2ms, 1s, co::no_jitter, 1.5), 4) ==
          std::vector<duration>{2ms, 3ms, 4500us, 6750us});
    CHECK(waits(co::exponential(1s, 1h, co::no_jitter, 1), 3) == std::vector<duration>{1s, 1s, 1s});
}

TEST_CASE("no wait of any kind is longer than the longest, or negative, however often a call was tried",
          "[policy][backoff][RT-13][RT-25][RT-26]") {
    constexpr std::uint32_t last = std::numeric_limits<std::uint32_t>::max();
    int outside = 0;
    for (const duration max : {duration(2h), duration(1s), duration(3ns), duration::max()})
        for (const duration base : {duration(1ns), std::min(max, duration(1s)), max})
            for (const backoff& b : all_kinds(base, max))
                for (const double uniform : {0.0, 1e-300, 0.3, 0.999, 1 - 0x1p-53}) {
                    double memory = 0;
                    for (std::uint32_t n = 0; n <= 1030; ++n) {
                        const duration d = b.delay(n < 1029 ? n : last - (1030 - n), uniform, memory);
                        outside += d < 0ns || d > max;
                    }
                }
    CHECK(outside == 0);
}

TEST_CASE("a wait that no clock can hold becomes the longest", "[policy][backoff][RT-13]") {
    CHECK(wait(co::exponential(1s, 10s), 1000) == 10s);
    CHECK(wait(co::exponential(1s, 10s), 1025) == 10s);
    CHECK(wait(co::exponential(1s, duration::max()), 1000) == duration::max());
    CHECK(wait(co::linear(1h, duration::max()), std::numeric_limits<std::uint32_t>::max()) == duration::max());
    CHECK(wait(co::linear(duration::max(), duration::max()), 1) == duration::max());
    CHECK(wait(co::constant(duration::max(), co::proportional_jitter(1)), 0, 1) == duration::max());
    CHECK(wait(co::constant(std::chrono::hours::max()), 0) == duration::max());
    CHECK(wait(co::exponential(0s, 10s), 5000) == 0s);  // not 0 times infinity
    CHECK(wait(co::decorrelated(0s, 10s), 5000) == 0s);
    for (std::uint32_t n = 1; n <= 1025; ++n) {
        REQUIRE(wait(co::decorrelated(1s, 10s), n) > 0s);
        REQUIRE(wait(co::exponential(1s, 10s, co::equal_jitter), n) > 0s);
    }
}

TEST_CASE("a wait is rounded to the nearest nanosecond", "[policy][backoff]") {
    CHECK(wait(co::constant(3ns, co::equal_jitter), 0, 0.7) == 3ns);  // of 2.55
    CHECK(wait(co::constant(3ns, co::equal_jitter), 0, 0.6) == 2ns);  // of 2.4
    CHECK(wait(co::exponential(3ns, 1s, co::no_jitter, 1.2), 1) == 4ns);
}

TEST_CASE("waits at the longest are still spread", "[policy][backoff]") {
    CHECK(wait(co::exponential(1s, 10s, co::full_jitter), 1000, 0.25) == 2500ms);
    CHECK(wait(co::exponential(1s, 10s, co::equal_jitter), 1000, 0.5) == 7500ms);
    CHECK(wait(co::exponential(1s, 10s, co::proportional_jitter(0.25)), 1000, 0) == 7500ms);
    CHECK(wait(co::exponential(1s, 10s, co::proportional_jitter(0.25)), 1000, 1) == 10s);
}

TEST_CASE("each jitter keeps inside its bounds, and reaches into all of them", "[policy][backoff][RT-25]") {
    struct bounds {
        co::jitter spread;
        duration least, most;
    };
    for (const bounds& range : {bounds{co::no_jitter, 1s, 1s}, bounds{co::full_jitter, 0s, 1s},
                                bounds{co::equal_jitter, 500ms, 1s},
                                bounds{co::proportional_jitter(0.25), 750ms, 1250ms},
                                bounds{co::proportional_jitter(1), 0s, 2s}}) {
        co::detail::random_source random(11);
        const backoff b = co::constant(1s, range.spread);
        duration least = duration::max(), most{0}, sum{0};
        for (int i = 0; i < 1000; ++i) {
            const duration d = wait(b, 0, random.next());
            least = std::min(least, d);
            most = std::max(most, d);
            sum += d;
        }
        const duration width = range.most - range.least, middle = range.least + width / 2;
        CHECK(least >= range.least);
        CHECK(most <= range.most);
        CHECK(least <= range.least + width / 50);
        CHECK(most >= range.most - width / 50);
        CHECK(sum / 1000 >= middle - width / 20);
        CHECK(sum / 1000 <= middle + width / 20);
    }
}

TEST_CASE("decorrelated waits follow their formula, with a memory for each call", "[policy][backoff][RT-14]") {
    const auto f = [](double t) { return std::pow(2.0, t) * std::tanh(std::sqrt(4 * t)); };
    const backoff b = co::decorrelated(1s, 1h);
    co::detail::random_source random(5);
    for (int call = 0; call < 50; ++call) {
        double memory = 0, before = 0;
        for (std::uint32_t n = 0; n < 8; ++n) {
            const double u = random.next();
            const duration d = b.delay(n, u, memory);
            const double now = f(n + u), expected = (now - before) / 1.4 * 1e9;
            before = now;
            CHECK(static_cast<double>(d.count()) == Approx(std::min(expected, 3600e9)).margin(1));
        }
    }
}

TEST_CASE("half of the first decorrelated waits are shorter than about the base", "[policy][backoff][RT-14]") {
    const backoff b = co::decorrelated(1s, 1h);
    co::detail::random_source random(9);
    std::vector<duration> first;
    for (int i = 0; i < 10'001; ++i) first.push_back(wait(b, 0, random.next()));
    std::nth_element(first.begin(), first.begin() + 5'000, first.end());
    CHECK(first[5'000] > 850ms);
    CHECK(first[5'000] < 1050ms);
}

TEST_CASE("decorrelated waits stay in range where their formula is infinite", "[policy][backoff][RT-14][RT-25]") {
    double memory = 0;
    const backoff b = co::decorrelated(1s, 10s);
    co::detail::random_source random(3);
    for (std::uint32_t n = 0; n < 1000; ++n) {
        const duration d = b.delay(n, random.next(), memory);
        REQUIRE(d >= 0s);
        REQUIRE(d <= 10s);
    }
    for (std::uint32_t n = 1020; n < 1030; ++n) REQUIRE(b.delay(n, 0.9, memory) <= 10s);
    CHECK(memory == infinity);
    CHECK(b.delay(2000, 0.5, memory) == 10s);  // infinity less infinity
    CHECK(b.delay(0, 0.5, memory) == 0s);      // less than nothing, of a memory that is not this call's
}

TEST_CASE("a number that is none makes no wait out of range", "[policy][backoff]") {
    for (const backoff& b : all_kinds(1s, 10s)) {
        const duration d = wait(b, 3, no_number);
        CHECK(d >= 0s);
        CHECK(d <= 10s);
    }
}

TEST_CASE("what cannot be a backoff is refused with the field, its value and the range",
          "[policy][backoff][RT-26]") {
    CHECK(complaint([] { return co::constant(-1ns); }) == "constant: d is -1 ns, allowed are 0 ns and more");
    CHECK(complaint([] { return co::linear(-1us, 1s); }) == "linear: step is -1000 ns, allowed are 0 ns and more");
    CHECK(complaint([] { return co::exponential(100ms, 1ms); }) ==
          "exponential: max is 1000000 ns, allowed are 100000000 ns, the first wait, and more");
    CHECK(complaint([] { return co::decorrelated(1s, -1s); }) ==
          "decorrelated: max is -1000000000 ns, allowed are 1000000000 ns, the first wait, and more");
    CHECK(complaint([] { return co::decorrelated(std::chrono::duration<double>(no_number), 1s); })
              .starts_with("decorrelated: base is -"));
    for (const double factor : {0.5, -2.0, no_number, infinity}) {
        const std::string said = complaint([=] { return co::exponential(1ms, 1s, co::no_jitter, factor); });
        CHECK(said == "exponential: factor is " + std::to_string(factor) + ", allowed are finite numbers from 1");
    }
    for (const double share : {-0.1, 1.1, 100.1, no_number, infinity}) {
        const std::string said = complaint([=] { return co::proportional_jitter(share); });
        CHECK(said == "proportional_jitter: share is " + std::to_string(share) + ", allowed are 0 to 1");
    }
}
