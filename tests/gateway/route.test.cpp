// SPDX-License-Identifier: MIT
#include "route.hpp"

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using gateway::route;

namespace {

gateway::tcp::endpoint at(unsigned short port) { return {boost::asio::ip::address_v4::loopback(), port}; }

/// A route to upstreams with these ports.
gateway::route_options to(const std::vector<unsigned short>& ports) {
    gateway::route_options o;
    o.prefix = "/a";
    for (const unsigned short port : ports) o.upstreams.push_back(at(port));
    o.breaker->window = o.breaker->min_calls = 2;
    o.hedge.emplace();
    return o;
}

/// The breaker of the nth upstream opens.
void fail(const route& r, std::size_t n) {
    for (int call = 0; call < 2; ++call) r.replicas[n].breaker->try_acquire().failed();
    REQUIRE(r.replicas[n].breaker->state() == cordon::breaker_state::open);
}

bool is_open(const route& r, std::size_t n) { return r.replicas[n].breaker->state() == cordon::breaker_state::open; }

}  // namespace

TEST_CASE("a route goes on with what it knows while it keeps one of its upstreams", "[gateway][route]") {
    const route before(to({1, 2}), nullptr);
    CHECK(route(to({2, 3}), &before).memory == before.memory);
    CHECK(&*route(to({2, 3}), &before).slots == &*before.slots);
    CHECK(route(to({3, 4}), &before).memory != before.memory);
    CHECK(&*route(to({3, 4}), &before).slots != &*before.slots);
    gateway::route_options redis = to({1});
    redis.redis.emplace();
    CHECK(route(redis, &before).memory != before.memory);
}

TEST_CASE("a breaker goes on with its upstream, of other numbers only whether it is open", "[gateway][route]") {
    const route before(to({1, 2, 3}), nullptr);
    fail(before, 1);
    const route same(to({2, 4, 1}), &before);
    CHECK(same.replicas[0].breaker == before.replicas[1].breaker);
    CHECK_FALSE(is_open(same, 1));
    CHECK(same.replicas[2].breaker == before.replicas[0].breaker);

    gateway::route_options numbers = to({2, 1});
    numbers.breaker->failure_rate = 0.7;
    const route other(numbers, &before);
    CHECK(other.replicas[0].breaker != before.replicas[1].breaker);
    CHECK(is_open(other, 0));
    CHECK_FALSE(is_open(other, 1));

    gateway::route_options none = to({2});
    none.breaker.reset();
    const route off(none, &before);
    CHECK(off.replicas[0].breaker->state() == cordon::breaker_state::disabled);
    CHECK_FALSE(is_open(route(to({2}), &off), 0));
}

TEST_CASE("a bulkhead has another size when the route takes over, and begins anew if others may wait",
          "[gateway][route]") {
    const route before(to({1}), nullptr);
    gateway::route_options o = to({1});
    o.bulkhead->concurrent = 7;
    route smaller(o, &before);
    CHECK(before.slots->stats().limit == 256);
    smaller.take_over();
    CHECK(before.slots->stats().limit == 7);
    CHECK(&*smaller.slots == &*before.slots);
    o.bulkhead->waiting = 5;
    CHECK(&*route(o, &smaller).slots != &*before.slots);
    o.bulkhead.reset();
    CHECK(route(o, &smaller).slots->stats().limit == cordon::bulkhead::max_limit);
}

TEST_CASE("a route tells what goes on its numbers when it takes over", "[gateway][route]") {
    gateway::route_options o = to({1});
    o.hedge->delay = 50ms;
    o.retry->budget_ratio = 0;
    const route before(o, nullptr);
    before.memory->budget.called();
    const auto granted = before.memory->budget.stats().available;
    o.hedge->delay = 70ms;
    o.retry->budget_ratio = 1;
    route now(o, &before);
    CHECK(before.memory->copies.stats().delay == 50ms);
    now.take_over();
    CHECK(before.memory->copies.stats().delay == 70ms);
    before.memory->budget.ended(false);
    CHECK(before.memory->budget.stats().available == granted + 1);
}

TEST_CASE("only of several upstreams each has guards of its own", "[gateway][route]") {
    const route one(to({1}), nullptr), two(to({1, 2}), nullptr);
    CHECK_FALSE(one.replicas[0].guarded);
    CHECK((two.replicas[0].guarded && two.replicas[1].guarded));
    CHECK(two.replicas[0].breaker != two.replicas[1].breaker);
}
