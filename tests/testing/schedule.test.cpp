// SPDX-License-Identifier: MIT
#include <cordon/testing/schedule.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using cordon::testing::choice;
using cordon::testing::schedule;

std::string error_of(const char* text) {
    try {
        (void)schedule::from_string(text, "CORDON_SIM");
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("the text of a schedule is its seed, and the choices that are not the first", "[testing][schedule][T5]") {
    const auto text = [](const std::vector<choice>& trace) { return schedule(trace, 7).to_string(); };
    CHECK(schedule(7).to_string() == "7");
    CHECK(schedule(std::numeric_limits<std::uint64_t>::max()).to_string() == "18446744073709551615");
    CHECK(text({}) == "7/");
    CHECK(text({{0, 2}, {0, 3}}) == "7/");
    CHECK(text({{0, 2}, {2, 3}, {0, 2}}) == "7/1:2");
    CHECK(text({{1, 2}, {1, 3}, {1, 4}, {2, 3}, {0, 2}, {0, 2}, {2, 3}}) == "7/0:1x3,3:2,6:2");
    CHECK(text(std::vector<choice>(1000, choice{1, 2})) == "7/0:1x1000");
    CHECK(schedule(std::vector<choice>{{1, 2}}).to_string() == "0/0:1");
}

TEST_CASE("a schedule that was written as a text is the same when it is read", "[testing][schedule][T5]") {
    std::mt19937_64 random(11);
    for (int round = 0; round < 2000; ++round) {
        std::vector<choice> trace(random() % 60);
        const auto others = random() % 5;  // in four, from none to all
        for (choice& c : trace) {
            c.of = 2 + static_cast<std::uint32_t>(random() % 3);
            if (random() % 4 < others) c.taken = static_cast<std::uint32_t>(random() % c.of);
        }
        const std::uint64_t seed = random() >> (random() % 64);
        const schedule seeded(seed), chosen(trace, seed);
        const schedule read = schedule::from_string(chosen.to_string());
        INFO(chosen.to_string());
        REQUIRE(schedule::from_string(seeded.to_string()) == seeded);
        REQUIRE(read == chosen);
        REQUIRE(read != seeded);
        REQUIRE(read.seed() == seed);
        REQUIRE_FALSE(read.is_seeded());
        REQUIRE(read.choices().size() <= trace.size());
        for (std::size_t i = 0; i < trace.size(); ++i)
            REQUIRE((i < read.choices().size() ? read.choices()[i] : 0) == trace[i].taken);
        REQUIRE(read.to_string() == chosen.to_string());
    }
}

TEST_CASE("a text that is no schedule is refused, with what was expected where", "[testing][schedule][T5]") {
    CHECK(says(error_of(""), "CORDON_SIM: \"\" is no schedule: a seed, 0 to 18446744073709551615, is expected"));
    CHECK(says(error_of("x"), "a seed", "at character 1"));
    CHECK(says(error_of("-1"), "a seed", "at character 1"));
    CHECK(says(error_of("18446744073709551616"), "a seed", "at character 1"));
    CHECK(says(error_of("7 "), "'/', or the end,", "at character 2"));
    CHECK(says(error_of("7/3"), "':' is expected", "at character 4"));
    CHECK(says(error_of("7/3;1"), "':' is expected", "at character 4"));
    CHECK(says(error_of("7/3:0"), "what is chosen, 1 to 4294967295,", "at character 5"));
    CHECK(says(error_of("7/3:"), "what is chosen", "at character 5"));
    CHECK(says(error_of("7/3:1x"), "how often, 1 to 67108861,", "at character 7"));
    CHECK(says(error_of("7/3:1x0"), "how often", "at character 7"));
    CHECK(says(error_of("7/3:1,"), "the number of a choice, 4 to 67108863,", "at character 7"));
    CHECK(says(error_of("7/3:1,3:1"), "the number of a choice", "at character 7"));
    CHECK(says(error_of("7/3:1x4,5:1"), "the number of a choice, 7 to", "at character 9"));
    CHECK(says(error_of("7/99999999999:1"), "the number of a choice", "at character 3"));
    CHECK(says(error_of("7/3:1 "), "',', or the end,", "at character 6"));
    CHECK(error_of("7/3:1x4,7:1") == "");
    CHECK_THROWS_AS(schedule::from_string("7/3"), std::invalid_argument);
}
