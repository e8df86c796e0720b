// SPDX-License-Identifier: MIT
#include "histogram.hpp"

#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <utility>
#include <vector>

using loadgen::histogram;
using std::chrono::nanoseconds;
using namespace std::chrono_literals;

namespace {

histogram of(const std::vector<std::int64_t>& values) {
    histogram h;
    for (const std::int64_t v : values) h.record(nanoseconds(v));
    return h;
}

/// From a nanosecond to an hour, each size as likely as any other.
std::vector<std::int64_t> drawn(std::size_t n, unsigned seed) {
    std::mt19937_64 random(seed);
    std::uniform_real_distribution<double> exponent(0, std::log(3.6e12));
    std::vector<std::int64_t> values(n);
    for (std::int64_t& v : values) v = static_cast<std::int64_t>(std::exp(exponent(random)));
    return values;
}

}  // namespace

TEST_CASE("what is recorded comes back no smaller, and larger by less than 1/128", "[loadgen][histogram]") {
    const auto check = [](std::int64_t value) {
        histogram h;
        h.record(nanoseconds(value));
        h.record(nanoseconds::max());  // else the maximum would make it exact
        const std::int64_t got = h.percentile(50).count();
        CAPTURE(value, got);
        CHECK(got >= value);
        CHECK(got - value <= value / 128);
    };
    for (std::int64_t v = 0; v < 1024; ++v) check(v);
    for (int bit = 10; bit < 63; ++bit)
        for (std::int64_t off = -2; off <= 2; ++off) check((std::int64_t{1} << bit) + off);
    for (const std::int64_t v : drawn(2000, 1)) check(v);
    check(std::numeric_limits<std::int64_t>::max());
}

TEST_CASE("values below 256 are exact", "[loadgen][histogram]") {
    histogram h;
    for (int v = 1; v <= 200; ++v) h.record(nanoseconds(v));
    CHECK(h.percentile(50) == 100ns);
    CHECK(h.percentile(99) == 198ns);
    CHECK(h.percentile(99.5) == 199ns);
    CHECK(h.percentile(99.9) == 200ns);
}

TEST_CASE("percentiles are those of the sorted values, within the bound", "[loadgen][histogram]") {
    std::vector<std::int64_t> values = drawn(100'000, 2);
    const histogram h = of(values);
    std::sort(values.begin(), values.end());
    for (const double percent : {0.0, 1.0, 50.0, 90.0, 99.0, 99.9, 99.99, 100.0}) {
        const double rank = std::max(1.0, std::round(percent * 1000));  // of 100,000, all of them whole
        const std::int64_t exact = values[static_cast<std::size_t>(rank) - 1];
        const std::int64_t got = h.percentile(percent).count();
        CAPTURE(percent, exact, got);
        CHECK(got >= exact);
        CHECK(got - exact <= exact / 128);
    }
    CHECK(h.max() == nanoseconds(values.back()));
    CHECK(h.percentile(100) == h.max());
}

TEST_CASE("99.9% of a thousand leaves the one that is slow out, and of 999 does not", "[loadgen][histogram]") {
    histogram h;
    for (int i = 0; i < 998; ++i) h.record(1ns);
    h.record(200ns);
    CHECK(h.percentile(99.9) == 200ns);
    histogram more;
    for (int i = 0; i < 999; ++i) more.record(1ns);
    more.record(200ns);
    CHECK(more.percentile(99.9) == 1ns);
    CHECK(more.percentile(99.99) == 200ns);
}

TEST_CASE("merged histograms are the histogram of all values", "[loadgen][histogram]") {
    const std::vector<std::int64_t> some = drawn(5000, 3), others = drawn(700, 4);
    std::vector<std::int64_t> all = some;
    all.insert(all.end(), others.begin(), others.end());
    const histogram whole = of(all);
    for (const auto& [first, second] : {std::pair(some, others), std::pair(others, some)}) {
        histogram merged = of(first);
        merged.merge(of(second));
        CHECK(merged.count() == 5700);
        CHECK(merged.max() == whole.max());
        for (double percent = 0; percent <= 100; percent += 0.25)
            CHECK(merged.percentile(percent) == whole.percentile(percent));
    }
}

TEST_CASE("an empty histogram has zeros, and a negative duration counts as zero", "[loadgen][histogram]") {
    histogram h;
    CHECK(h.count() == 0);
    CHECK(h.max() == 0ns);
    CHECK(h.percentile(99) == 0ns);
    h.record(-5ns);
    CHECK(h.count() == 1);
    CHECK(h.percentile(100) == 0ns);
}
