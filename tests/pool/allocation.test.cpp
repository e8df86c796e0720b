// SPDX-License-Identifier: MIT
// What the pools allocate: nothing, once they are warm.
#include "counted_new.hpp"

#include <cordon/pool/object_pool.hpp>

#include "catch.hpp"

#include <cstddef>
#include <vector>

#ifndef SANITIZED

TEST_CASE("objects that are there are had and given back without an allocation", "[pool][object_pool]") {
    cordon::object_pool<std::size_t> pool{{.max_spare_per_thread = 8}};
    std::vector<cordon::object_pool<std::size_t>::lease> held(100);
    for (auto& l : held) l = pool.acquire();
    for (auto& l : held) l.release();
    const std::size_t before = allocations;
    for (int i = 0; i < 100; ++i) {
        for (auto& l : held) l = pool.acquire();
        for (auto& l : held) l.release();
    }
    CHECK(allocations == before);
}

#endif
