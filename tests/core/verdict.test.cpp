// SPDX-License-Identifier: MIT
#include <cordon/core/verdict.hpp>

#include <cstdint>
#include <type_traits>

#include "catch.hpp"

TEST_CASE("only success and failure come before what does not count", "[core][verdict]") {
    using cordon::verdict;
    static_assert(std::is_same_v<std::underlying_type_t<verdict>, std::uint8_t>);
    CHECK(verdict::success < verdict::ignored);
    CHECK(verdict::failure < verdict::ignored);
    CHECK(verdict::ignored < verdict::stopped);
    CHECK(verdict::success != verdict::failure);
}
