// SPDX-License-Identifier: MIT
// What the pools allocate: nothing, once they are warm; and what becomes of an acquire that has no memory.
#include "counted_new.hpp"

#include <cordon/pool/object_pool.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/pool/resource_pool.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>

#include "catch.hpp"

#include <array>
#include <chrono>
#include <cstddef>
#include <exception>
#include <new>
#include <optional>
#include <utility>
#include <vector>

#include <pthread.h>

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

namespace {

namespace co = cordon;

void poll(co::run_loop& loop) {
    while (loop.poll()) {
    }
}

/// What a pool says of itself when a connection dies. From a connection's first move on memory is short.
struct witness {
    struct connection {
        explicit connection(witness& s) : of(&s) {}
        connection(connection&& other) noexcept : of(std::exchange(other.of, nullptr)) {
            memory_is_short = true;
        }
        ~connection() {
            if (of != nullptr) of->places.push_back(of->pool->stats().size);
        }
        witness* of;
    };
    std::optional<co::resource_pool<connection>> pool;
    std::vector<std::size_t> places;
};

}  // namespace

TEST_CASE("a creation of the pool's own that has no memory for its error, or for a creation, is an error",
          "[pool][resource_pool]") {
    co::run_loop loop;
    const co::rejected refused(co::rejection(co::reject_reason::circuit_open, "a name that is long enough"));
    const auto refuses = [&]() -> co::task<int> {
        co::rejected thrown(refused);
        memory_is_short = true;
        throw std::move(thrown);
        co_return 7;
    };
    co::resource_pool<int> pool{1, refuses, {.runs_on = co::executor_ref(loop)}};
    int ended = 0;
    co::start_on(loop, pool.acquire(), [&](const auto& o) {
        memory_is_short = false;
        ended += o.is_error();
    });
    poll(loop);
    CHECK(ended == 1);
    CHECK(pool.stats().creations_failed == 1);
    CHECK(pool.stats().size == 0);
}

TEST_CASE("ten thousand creations that find no memory one after the other do so on a small stack",
          "[pool][resource_pool]") {
    using page = std::array<char, 4096>;  // no frame of which is kept for the next
    constexpr int many = 10'000;
    static int ended;
    ended = 0;
    const auto run = [](void*) -> void* {
        co::run_loop loop;
        const auto make = []() -> co::task<page> { co_return page{}; };
        co::resource_pool<page> pool{1, make, {.runs_on = co::executor_ref(loop)}};
        co::resource_pool<page>::lease first;
        co::start_on(loop, pool.acquire(), [&](auto o) { first = *std::move(o); });
        poll(loop);
        const auto count = [](const auto& o) { ended += o.is_error(); };
        for (int i = 0; i < many; ++i) co::start_on(loop, pool.acquire(), count);
        poll(loop);
        memory_is_short = true;
        first.discard();
        memory_is_short = false;
        poll(loop);
        return nullptr;
    };
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 512 * 1024);
    pthread_t thread;
    REQUIRE(pthread_create(&thread, &small, run, nullptr) == 0);
    pthread_join(thread, nullptr);
    pthread_attr_destroy(&small);
    CHECK(ended == many);
}

TEST_CASE("what is made and finds no memory for its place is destroyed before that is free",
          "[pool][resource_pool]") {
    co::run_loop loop;
    witness w;
    w.places.reserve(4);
    const auto make = [&]() -> co::task<witness::connection> { co_return witness::connection(w); };
    w.pool.emplace(1, make, co::resource_pool_options<witness::connection>{.runs_on = co::executor_ref(loop)});
    bool failed = false;
    co::start_on(loop, w.pool->acquire(), [&](const auto& o) {
        memory_is_short = false;
        failed = o.is_error();
    });
    poll(loop);
    CHECK(failed);
    CHECK(w.places == std::vector<std::size_t>{1});
    CHECK(w.pool->stats().size == 0);
}

#endif
