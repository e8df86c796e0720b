// SPDX-License-Identifier: MIT
#include <cordon/core/detail/random.hpp>
#include <cordon/core/task.hpp>
#include <cordon/testing/simulation.hpp>

#include "catch.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace {

namespace co = cordon;
using co::detail::random_source;

/// A number of a source that is made in a simulation, and one of `outside`, which is not.
std::array<std::uint64_t, 2> drawn_in_simulation(std::uint64_t seed, random_source& outside) {
    std::array<std::uint64_t, 2> drawn{};
    const auto root = [&]() -> co::task<> {
        const auto source = std::make_unique<random_source>();
        drawn = {source->next_bits(), outside.next_bits()};
        co_return;
    };
    co::testing::simulation(seed).run(root());
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

TEST_CASE("two sources without a seed differ, and in a simulation all draw from its seed", "[core][random]") {
    std::array<random_source, 3> sources;
    CHECK(sources[0].next_bits() != sources[1].next_bits());
    const auto drawn = drawn_in_simulation(1, sources[0]);
    CHECK(drawn[0] != drawn[1]);
    CHECK(drawn_in_simulation(1, sources[1]) == drawn);  // whatever was drawn before, and elsewhere
    CHECK(drawn_in_simulation(2, sources[2])[0] != drawn[0]);
    random_source seeded(7), same(7);
    const std::uint64_t first = seeded.next_bits();
    CHECK(drawn_in_simulation(1, same)[1] == first);  // what has a seed keeps to it
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
