// SPDX-License-Identifier: MIT
// Replaces operator new for all tests of this room. Built without the frame cache, coroutine frames fail as well.
#include <cordon/testing/allocation_fault.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/channel.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

// Not inlined: g++ 12 would find a free() of what another operator new gave. The forms that do not throw are here since
// a sanitizer has its own, which would not fit; those of arrays either call these or fit together.
[[gnu::noinline]] void* operator new(std::size_t size, const std::nothrow_t&) noexcept {
    return cordon::testing::allocation_fault() ? nullptr : std::malloc(size);
}
[[gnu::noinline]] void* operator new(std::size_t size) {
    if (void* const p = operator new(size, std::nothrow)) return p;
    throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, const std::nothrow_t&) noexcept { std::free(p); }

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;
using co::testing::cancel_sweep;
using co::testing::sweep_point;
using co::testing::sweep_result;
using co::testing::sweep_variant;

struct world {
    co::async_semaphore slots{1, {.name = "slots"}};
    std::unique_ptr<int> made;
};
using shared = std::shared_ptr<world>;

/// Sweeps `make(world)`; afterwards the slot has to be back, and nobody may wait for it.
template <class Make>
sweep_result sweep(Make make, std::uint64_t* allocations = nullptr) {
    shared w;
    const auto make_task = [&] {
        const cordon::detail::in_a_task no(false);
        w = std::make_shared<world>();
        const cordon::detail::in_a_task yes(true);
        return make(w);
    };
    const auto check = [&](const auto&, const sweep_point& at) {
        if (allocations != nullptr && at.variant == sweep_variant::allocation) *allocations = at.number;
        return w->slots.stats().available == 1 && w->slots.stats().waiting == 0;
    };
    return cancel_sweep({.fail_allocations = true}, make_task, check);
}
template <class Make>
void expect_clean(Make make) {
    const sweep_result swept = sweep(make);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
}

task<> holds(shared w) {
    const auto mine = co_await w->slots.hold();
    co_await co::sleep_for(1ms);
    w->made = std::make_unique<int>(1);
    co_await co::this_task::yield();
    w->made.reset(new int(2));
}

}  // namespace

TEST_CASE("outside a sweep no allocation fails", "[testing][allocation_fault][T7]") {
    CHECK_FALSE(co::testing::allocation_fault());
    const auto make = [] { return std::make_unique<int>(7); };
    for (int i = 0; i < 100; ++i) CHECK(*make() == 7);
    std::uint64_t asked = 0;
    const auto asks = [&]() -> task<> {
        asked += co::testing::allocation_fault() ? 1 : 0;
        co_return;
    };
    CHECK(cancel_sweep({}, asks).findings.empty());
    CHECK(asked == 0);
}

TEST_CASE("each allocation of a task fails once, and what it holds then is given back",
          "[testing][allocation_fault][cancel_sweep][T7]") {
    std::uint64_t allocations = 0;
    const sweep_result swept = sweep(holds, &allocations);
    INFO(describe(swept));
    CHECK(swept.findings.empty());
    CHECK(allocations >= 2);

    int errors = 0, values = 0;
    const auto twice = []() -> task<> {
        auto first = std::make_unique<std::string>(100, 'x');  // two: itself, and its text
        co_await co::this_task::yield();
        try {
            first = std::make_unique<std::string>();
        } catch (const std::bad_alloc&) {  // does without
        }
    };
    const auto count = [&](const co::outcome<void>& ended, const sweep_point& at) {
        if (at.variant == sweep_variant::allocation) ++(ended.is_error() ? errors : values);
    };
    CHECK(cancel_sweep({.fail_allocations = true}, twice, count).findings.empty());
    CHECK(errors >= 2);
    CHECK(values == 1);
}

TEST_CASE("what is lost when an allocation fails is found, with its number",
          "[testing][allocation_fault][cancel_sweep][T7]") {
    const auto careless = [](shared w) -> task<> {
        const bool mine = w->slots.try_acquire();
        REQUIRE(mine);
        w->made = std::make_unique<int>(1);  // kept, or a compiler may leave it out
        w->slots.release();
        co_await co::this_task::yield();
    };
    const sweep_result swept = sweep(careless);
    REQUIRE(swept.findings.size() == 1);
    CHECK(swept.findings[0].variant == sweep_variant::allocation);
    CHECK(says(describe(swept), "allocation " + std::to_string(swept.findings[0].number) + " failed after 0 s: ",
               "the check says false"));
    const auto hides = [](shared w) -> task<> {
        try {
            w->made = std::make_unique<int>(1);
        } catch (const std::bad_alloc&) {
            throw std::runtime_error("something is wrong");
        }
        co_return;
    };
    CHECK(says(describe(sweep(hides)), "ended with the error: something is wrong"));
}

TEST_CASE("groups, branches, timeouts and channels lose nothing when an allocation fails",
          "[testing][allocation_fault][cancel_sweep][T7]") {
    expect_clean([](shared w) { return co::when_all(holds(w), holds(w)); });
    expect_clean([](shared w) -> task<> { (void)co_await co::when_any(holds(w), holds(w)); });
    expect_clean([](shared w) -> task<> { (void)co_await co::as_outcome(co::with_timeout(1ms, holds(w))); });
    expect_clean([](shared w) -> task<> {
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 3; ++i) group.spawn(holds(w), {.name = "a name that is longer than a short string"});
            co_await co::this_task::yield();
        };
        co_await co::with_group(body);
    });
    expect_clean([](shared w) -> task<> {
        co::channel<std::vector<int>> items(1);
        const auto sends = [&]() -> task<> {
            const auto mine = co_await w->slots.hold();
            for (std::size_t i = 0; i < 3; ++i) {
                std::vector<int> some(i + 1);
                co_await items.send(std::move(some));
            }
            items.close();
        };
        const auto receives = [&]() -> task<> {
            for (bool more = true; more;) {
                const auto item = co_await items.receive();
                more = item.has_value();
            }
        };
        co_await co::when_all(sends(), receives());
    });
}
