// SPDX-License-Identifier: MIT
// What the pools allocate: nothing, once they are warm; and what becomes of an acquire that has no memory.
#include "counted_new.hpp"

#include <cordon/pool/object_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/pool/resource_pool.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>

#include "catch.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <new>
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

TEST_CASE("a resource that is idle, or comes back, is lent without an allocation", "[pool][resource_pool]") {
    namespace co = cordon;
    using pool = co::resource_pool<int>;
    const auto make = []() -> co::task<int> { co_return 7; };
    pool one{1, make, {.name = "one", .held_too_long = std::chrono::hours(1)}};
    const auto uses = [](pool& p) -> co::task<> {
        for (int i = 0; i < 100; ++i) {
            const auto mine = co_await p.acquire();
            co_await co::this_task::yield();  // the other one waits meanwhile
        }
    };
    const auto both = [&]() -> co::task<std::size_t> {
        co_await co::when_all(uses(one), uses(one));
        const std::size_t before = allocations;
        co_await co::when_all(uses(one), uses(one));
        co_return allocations - before;
    };
    CHECK(co::sync_wait(both()) == 0);
    CHECK(one.stats().waited >= 300);
}

TEST_CASE("an acquire that has no memory for what it must await is an error, and takes nothing",
          "[pool][resource_pool]") {
    namespace co = cordon;
    using page = std::array<char, 4096>;  // no frame of which is kept for the next
    const auto make = []() -> co::task<page> { co_return page{}; };
    const auto ping = [](page&) -> co::task<bool> { co_return true; };
    const auto root = [&]() -> co::task<> {
        co::resource_pool<page> pool{1, make, {.usable = ping, .trusted_for = std::chrono::seconds(0)}};
        for (const std::size_t present : {0u, 1u}) {
            memory_is_short = true;
            auto none = co_await co::as_outcome(pool.acquire());
            memory_is_short = false;
            REQUIRE(none.is_error());
            CHECK_THROWS_AS(std::rethrow_exception(none.error()), std::bad_alloc);
            CHECK(pool.stats().idle == present);
            CHECK(pool.stats().size == present);
            const auto got = co_await pool.acquire();
            CHECK(got);
        }
        CHECK(pool.stats().created == 1);
    };
    co::sync_wait(root());
}

#endif
