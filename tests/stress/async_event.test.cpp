// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/async_event.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstdint>
#include <random>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;

/// An event that the last of its waiters destroys.
struct shared_event {
    explicit shared_event(int waiters) noexcept : left(waiters) {}
    co::async_event event;
    std::atomic<int> left;
    int written = 0;  // plain: set() must make it visible

    void leave() {
        if (left.fetch_sub(1) == 1) delete this;
    }
};

co::task<> waiter(shared_event* e, std::atomic<int>& wrong) {
    co_await e->event.wait();
    if (e->written != 7) wrong.fetch_add(1);
    e->leave();
}
co::task<> setter(shared_event* e, std::uint64_t delay) {
    for (; delay > 0; --delay) co_await co::this_task::yield();
    e->written = 7;
    e->event.set();  // touches nothing after it has let the last one go
}

}  // namespace

TEST_CASE("the last waiter may destroy the event while set returns", "[stress][sync][async_event]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    std::atomic<int> wrong{0};
    stress::crew<3> crew;
    for (int round = 0; round < 1'500; ++round) {
        auto* const e = new shared_event(3);
        const std::uint64_t first = random() % 3;
        for (std::uint64_t i = 0; i < 3; ++i) crew.start(i + first, waiter(e, wrong));
        crew.start(random() % 3, setter(e, random() % 4));
        crew.wait();
    }
    CHECK(wrong.load() == 0);
}

TEST_CASE("set and reset race with waiters that are stopped, and nobody is forgotten", "[stress][sync][async_event]") {
    const std::uint64_t seed = stress::fresh_seed();
    co::async_event event;
    std::atomic<int> passed{0}, given_up{0};
    std::atomic<int> working{6};
    const auto comes = [&](std::uint64_t own_seed) -> co::task<> {
        std::mt19937_64 random(own_seed);
        for (int i = 0; i < 1'500; ++i) {
            co::cancel_scope scope(*co_await co::this_task::context());
            if (random() % 8 == 0) scope.request_stop();
            auto ended = co_await co::as_outcome(co::with_timeout(std::chrono::microseconds(random() % 100),
                                                                  event.wait().with(scope.ctx())));
            ++(ended.has_value() ? passed : given_up);
        }
        --working;
    };
    const auto pulses = [&]() -> co::task<> {
        while (working.load() != 0) {
            event.set();
            co_await co::this_task::yield();
            event.reset();
            co_await co::this_task::yield();
        }
    };
    stress::crew<3> crew;
    for (std::uint64_t i = 0; i < 6; ++i) crew.start(i, comes(seed + i));
    crew.start(2, pulses());
    crew.wait();
    CHECK(passed.load() > 0);
    CHECK(given_up.load() > 0);
    CHECK(event.waiting() == 0);
}
