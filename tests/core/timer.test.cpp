// SPDX-License-Identifier: MIT
#include <cordon/core/timer.hpp>

#include "catch.hpp"

#include <type_traits>
#include <utility>

namespace {

using namespace std::chrono_literals;

struct counting_timer : cordon::timer {
    explicit counting_timer(cordon::timer::function f) noexcept : timer(f) {}
    int fired = 0;
};

// The smallest service there can be: it holds one timer and fires it when told.
class one_timer final : public cordon::timer_service {
public:
    void arm(cordon::timer& t) noexcept override { held_ = &t; }
    void cancel(cordon::timer& t) noexcept override {
        if (held_ == &t) held_ = nullptr;
    }
    void fire() {
        if (cordon::timer* const t = std::exchange(held_, nullptr)) t->fire(*t);
    }

private:
    cordon::timer* held_ = nullptr;
};

}  // namespace

TEST_CASE("a timer is small, stays where it is and begins unarmed", "[core][timer]") {
    STATIC_REQUIRE(sizeof(cordon::timer) <= 40);
    STATIC_REQUIRE_FALSE(std::is_copy_constructible_v<cordon::timer>);
    STATIC_REQUIRE_FALSE(std::is_move_constructible_v<cordon::timer>);
    STATIC_REQUIRE_FALSE(std::is_aggregate_v<cordon::timer>);
    const cordon::timer t{[](cordon::timer&) noexcept {}};
    CHECK(t.prev == nullptr);
    CHECK(t.next == nullptr);
    CHECK(t.when == cordon::timer::time_point{});
}

TEST_CASE("a service of one's own fires a timer or forgets it", "[core][timer]") {
    one_timer mine;
    cordon::timer_service& service = mine;
    counting_timer t{[](cordon::timer& self) noexcept { ++static_cast<counting_timer&>(self).fired; }};
    t.when = cordon::timer::time_point{5ms};
    service.arm(t);
    mine.fire();
    CHECK(t.fired == 1);
    service.arm(t);
    service.cancel(t);
    mine.fire();
    CHECK(t.fired == 1);
}
