// SPDX-License-Identifier: MIT
#include <cordon/core/verdict.hpp>

#include "catch.hpp"

#include <type_traits>

TEST_CASE("a verdict is one byte, and the four are told apart", "[core][verdict]") {
    using cordon::verdict;
    STATIC_REQUIRE(sizeof(verdict) == 1);
    STATIC_REQUIRE(!std::is_convertible_v<verdict, int>);
    CHECK(verdict::success != verdict::failure);
    CHECK(verdict::ignored != verdict::stopped);
    CHECK(verdict::success != verdict::stopped);
    CHECK(verdict{} == verdict::success);
}
