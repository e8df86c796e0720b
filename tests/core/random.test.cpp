// SPDX-License-Identifier: MIT
#include <cordon/core/detail/random.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::detail::random_source;

/// The first number of a source that is made after `wait` in a simulation.
std::uint64_t first_in_simulation(std::chrono::nanoseconds wait) {
    std::uint64_t drawn = 0;
    const auto root = [&]() -> co::task<> {
        co_await co::sleep_for(wait);
        const auto source = std::make_unique<random_source>();
        drawn = source->next_bits();
    };
    co::testing::simulation().run(root());
    return drawn;
}

}  // namespace

TEST_CASE("a seed gives the sequence of splitmix64", "[core][random]") {
    random_source source(1234567);  // the reference values of the published test vector
    CHECK(source.next_bits() == 6457827717110365317u);
    CHECK(source.next_bits() == 3203168211198807973u);
    CHECK(source.next_bits() == 9817491932198370423u);
    CHECK(source.next_bits() == 4593380528125082431u);
    CHECK(source.next_bits() == 16408922859458223821u);
}

TEST_CASE("numbers in the unit interval never reach one and spread evenly", "[core][random]") {
    CHECK(co::detail::unit_interval(0) == 0);
    CHECK(co::detail::unit_interval(~std::uint64_t{0}) < 1);
    random_source source(7);
    std::array<int, 16> bins{};
    constexpr int draws = 160'000;
    for (int i = 0; i < draws; ++i) {
        const double u = source.next();
        REQUIRE(u >= 0);
        REQUIRE(u < 1);
        ++bins[static_cast<std::size_t>(u * 16)];
    }
    double chi_squared = 0;  // with 15 degrees of freedom: above 37.7 once in a thousand seeds
    for (const int n : bins) chi_squared += (n - draws / 16.0) * (n - draws / 16.0) / (draws / 16.0);
    CHECK(chi_squared < 37.7);
}

TEST_CASE("two sources without a seed differ, and one in a simulation depends on its time only", "[core][random]") {
    std::array<random_source, 2> sources;
    CHECK(sources[0].next_bits() != sources[1].next_bits());
    CHECK(first_in_simulation(1s) == first_in_simulation(1s));
    CHECK(first_in_simulation(1s) != first_in_simulation(1s + 1ns));
}

TEST_CASE("threads that draw from one source share its sequence without repetition", "[core][random]") {
    constexpr std::size_t each = 20'000;
    random_source source(42);
    std::array<std::vector<std::uint64_t>, 2> drawn;
    std::array<std::thread, 2> threads;
    for (std::size_t t = 0; t < 2; ++t)
        threads[t] = std::thread([&, t] {
            for (std::size_t i = 0; i < each; ++i) drawn[t].push_back(source.next_bits());
        });
    for (std::thread& t : threads) t.join();
    std::vector<std::uint64_t> all = drawn[0];
    all.insert(all.end(), drawn[1].begin(), drawn[1].end());
    std::sort(all.begin(), all.end());

    random_source alone(42);
    std::vector<std::uint64_t> expected(2 * each);
    for (std::uint64_t& x : expected) x = alone.next_bits();
    std::sort(expected.begin(), expected.end());
    CHECK(all == expected);
}
