// SPDX-License-Identifier: MIT
#include <cordon/testing/fault.hpp>

#include "catch.hpp"

#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>

namespace {

using cordon::testing::fault;
using cordon::testing::fault_plan;

std::string hundred(const char* name) {
    std::string fired;
    for (int i = 0; i < 100; ++i) fired += fault(name) ? 'x' : '.';
    return fired;
}

}  // namespace

TEST_CASE("without a plan nothing goes wrong", "[testing][fault][V-029]") {
    CHECK(hundred("disk") == std::string(100, '.'));
    fault_plan plan(1, {.armed = 1, .fires = 1});
    bool elsewhere = true;
    std::thread([&] { elsewhere = fault("disk"); }).join();
    CHECK_FALSE(elsewhere);
    CHECK(fault("disk"));
}

TEST_CASE("a seed chooses which places go wrong, and when, and does so again", "[testing][fault][V-029][T8]") {
    int armed = 0, silent = 0;
    for (std::uint64_t seed = 0; seed < 400; ++seed) {
        std::string first;
        {
            fault_plan plan(seed);
            first = hundred("disk") + hundred("net");
            CHECK(plan.sites().size() == 2);
            CHECK(plan.sites()[0].name == "disk");
            CHECK(plan.sites()[0].asked == 100);
            CHECK((plan.sites()[0].fired > 0) == plan.sites()[0].armed);
        }
        fault_plan again(seed);
        CHECK(hundred("disk") + hundred("net") == first);
        for (const auto& site : again.sites()) ++(site.armed ? armed : silent);
    }
    CHECK(armed > 150);  // a quarter of 800
    CHECK(armed < 250);
    CHECK(armed + silent == 800);
}

TEST_CASE("a place can be set by hand", "[testing][fault]") {
    fault_plan plan(7, {.armed = 0});
    plan.set("disk", 1);
    CHECK(hundred("disk") == std::string(100, 'x'));
    CHECK(hundred("net") == std::string(100, '.'));
    plan.set("disk", 0);
    CHECK_FALSE(fault("disk"));
    CHECK_THROWS_AS(plan.set("disk", 2), std::invalid_argument);
    CHECK_THROWS_AS(fault_plan(1), std::logic_error);
    CHECK(fault("none") == false);
}

TEST_CASE("a plan says what is wrong with its shares", "[testing][fault]") {
    CHECK_THROWS_WITH(fault_plan(1, {.armed = 1.5}), "fault_plan: armed is 1.500000, allowed are 0.000000 to 1.000000");
    CHECK_THROWS_AS(fault_plan(1, {.fires = -1}), std::invalid_argument);
    CHECK_NOTHROW(fault_plan(1));
}
