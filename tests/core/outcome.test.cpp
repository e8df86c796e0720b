// SPDX-License-Identifier: MIT
#include <cordon/core/outcome.hpp>

#include "catch.hpp"

#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using cordon::canceled;
using cordon::outcome;
using cordon::rejected;
using cordon::rejection;
using cordon::reject_reason;

static_assert(std::is_copy_constructible_v<outcome<std::string>> && std::is_copy_assignable_v<outcome<std::string>>);
static_assert(!std::is_copy_constructible_v<outcome<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<outcome<std::unique_ptr<int>>>);
static_assert(std::is_nothrow_move_constructible_v<outcome<void>>);
static_assert(std::is_convertible_v<int, outcome<int>> && std::is_convertible_v<const char*, outcome<std::string>>);
static_assert(std::is_convertible_v<std::exception_ptr, outcome<int>>);
static_assert(std::is_convertible_v<rejection, outcome<int>>);
static_assert(!std::is_convertible_v<int, outcome<int&>> && !std::is_convertible_v<std::string, outcome<int>>);
static_assert(!std::is_default_constructible_v<outcome<int>> && std::is_default_constructible_v<outcome<void>>);
static_assert(std::is_same_v<decltype(std::declval<outcome<int&>>().value()), int&>);
static_assert(std::is_same_v<decltype(std::declval<const outcome<int>&>().value()), const int&>);
static_assert(std::is_same_v<decltype(std::declval<outcome<int>>().value()), int>);
static_assert(std::is_void_v<decltype(std::declval<outcome<void>&>().value())>);

/// Counts what is alive, so that a test sees a value that was lost or destroyed twice.
struct counted {
    explicit counted(int v) : value(v) { ++alive; }
    counted(const counted& other) : value(other.value) { ++alive; }
    counted(counted&& other) noexcept : value(std::exchange(other.value, -1)) { ++alive; }
    counted& operator=(const counted&) = default;
    ~counted() { --alive; }
    int value;
    static inline int alive = 0;
};

struct immovable {
    immovable(int a, int b) : sum(a + b) {}
    immovable(const immovable&) = delete;
    int sum;
};

std::exception_ptr error(const char* text) { return std::make_exception_ptr(std::runtime_error(text)); }

template <class T>
std::string state_of(const outcome<T>& o) {
    std::string s;
    if (o.has_value()) s += "value ";
    if (o.is_error()) s += "error ";
    if (o.is_rejected()) s += "rejected ";
    if (o.is_stopped()) s += "stopped ";
    return s;
}

}  // namespace

TEST_CASE("an outcome is exactly one of value, error, rejected and stopped", "[core][outcome]") {
    CHECK(state_of(outcome<int>(7)) == "value ");
    CHECK(state_of(outcome<void>()) == "value ");
    CHECK(state_of(outcome<int>(error("no"))) == "error ");
    CHECK(state_of(outcome<void>(error("no"))) == "error ");
    CHECK(state_of(outcome<int>(rejection(reject_reason::full))) == "rejected ");
    CHECK(state_of(outcome<int>::stopped()) == "stopped ");
    CHECK(outcome<int>(0));
    CHECK_FALSE(outcome<int>::stopped());
}

TEST_CASE("the value of an outcome is read by value(), * and ->, and moved out of an rvalue", "[core][outcome]") {
    outcome<std::string> o("text");
    CHECK(o.value() == "text");
    CHECK(*o == "text");
    CHECK(o->size() == 4);
    o.value() += "s";
    CHECK(std::as_const(o).value() == "texts");
    CHECK(std::as_const(o)->back() == 's');
    CHECK(std::move(o).value() == "texts");

    outcome<std::unique_ptr<int>> moved(std::make_unique<int>(3));
    const std::unique_ptr<int> p = *std::move(moved);
    CHECK(*p == 3);
}

TEST_CASE("an outcome of a reference refers", "[core][outcome]") {
    int n = 1;
    outcome<int&> o(std::in_place, &n);
    o.value() = 2;
    CHECK(n == 2);
    CHECK(&*o == &n);
    CHECK(&std::as_const(o).value() == &n);
    CHECK(&std::move(o).value() == &n);
}

TEST_CASE("an outcome without a value throws what it has instead", "[core][outcome]") {
    CHECK_THROWS_WITH(outcome<int>(error("broken")).value(), "broken");
    CHECK_THROWS_AS(outcome<int>(rejection(reject_reason::circuit_open, "db")).value(), rejected);
    CHECK_THROWS_WITH(outcome<void>(rejection(reject_reason::circuit_open, "db")).value(), "db: rejected, circuit open");
    CHECK_THROWS_AS(outcome<int>::stopped().value(), canceled);
    outcome<int> named = outcome<int>::stopped();
    CHECK_THROWS_AS(named.value(), canceled);
    CHECK_THROWS_AS(std::as_const(named).value(), canceled);
}

TEST_CASE("the error of an outcome is the exception itself, null if there is none", "[core][outcome]") {
    const std::exception_ptr e = error("x");
    CHECK(outcome<int>(e).error() == e);
    CHECK(outcome<int>(1).error() == nullptr);
    CHECK(outcome<int>::stopped().error() == nullptr);
    CHECK(outcome<int>(rejection(reject_reason::full)).error() == nullptr);
}

TEST_CASE("an outcome carries a refusal unchanged", "[core][outcome]") {
    const outcome<int> o(rejection(reject_reason::rate_limited, "api", std::chrono::seconds(2)));
    CHECK(o.rejection().reason == reject_reason::rate_limited);
    CHECK(o.rejection().who() == "api");
    CHECK(o.rejection().retry_after == std::chrono::seconds(2));
}

TEST_CASE("copying, moving and assigning outcomes neither loses nor doubles a value", "[core][outcome]") {
    CHECK(counted::alive == 0);
    {
        const outcome<counted> from[] = {outcome<counted>(std::in_place, 1), outcome<counted>(error("e")),
                                         outcome<counted>(rejection(reject_reason::full)),
                                         outcome<counted>::stopped()};
        for (const auto& a : from) {
            for (const auto& b : from) {
                outcome<counted> copy(a);
                CHECK(state_of(copy) == state_of(a));
                copy = b;
                CHECK(state_of(copy) == state_of(b));
                outcome<counted> moved(std::move(copy));
                CHECK(state_of(moved) == state_of(b));
                if (moved) CHECK(moved->value == 1);
                copy = std::move(moved);
                CHECK(state_of(copy) == state_of(b));
                if (copy) CHECK(copy->value == 1);
                copy = *&copy;
                CHECK(state_of(copy) == state_of(b));
            }
        }
        CHECK(counted::alive == 1);
    }
    CHECK(counted::alive == 0);
}

TEST_CASE("an outcome whose assignment throws is left stopped, with nothing destroyed twice", "[core][outcome]") {
    struct throws_when_moved {
        explicit throws_when_moved(int& n) : alive(&n) { ++*alive; }
        throws_when_moved(const throws_when_moved& other) : alive(other.alive) {
            if (*alive >= 3) throw std::runtime_error("cannot be moved");
            ++*alive;
        }
        throws_when_moved& operator=(const throws_when_moved&) = delete;
        ~throws_when_moved() { --*alive; }
        int* alive;
    };
    int alive = 0;
    {
        outcome<throws_when_moved> to(std::in_place, alive);
        outcome<throws_when_moved> from(std::in_place, alive);
        const throws_when_moved another(alive), one_more(alive);
        CHECK_THROWS_WITH(to = std::move(from), "cannot be moved");
        CHECK(to.has_value());  // it threw before anything was touched: the parameter was to be made
    }
    CHECK(alive == 0);
    {
        outcome<throws_when_moved> to(error("x"));
        outcome<throws_when_moved> from(std::in_place, alive);
        const throws_when_moved another(alive);
        CHECK_THROWS_WITH(to = std::move(from), "cannot be moved");
        CHECK(to.is_stopped());
        CHECK(alive == 2);
    }
    CHECK(alive == 0);
}

TEST_CASE("an outcome may hold what cannot be moved", "[core][outcome]") {
    outcome<immovable> o(std::in_place, 2, 3);
    CHECK(o.value().sum == 5);
    CHECK(o->sum == 5);
}

TEST_CASE("a failure keeps its kind when it becomes that of another type", "[core][outcome]") {
    const std::exception_ptr e = error("x");
    CHECK(cordon::detail::as_failure<int>(outcome<std::string>(e)).error() == e);
    const outcome<void> refused(rejection(reject_reason::full, "q"));
    CHECK(cordon::detail::as_failure<int>(refused).rejection().who() == "q");
    CHECK(cordon::detail::as_failure<void>(outcome<int>::stopped()).is_stopped());

    CHECK(cordon::detail::failure_of(outcome<int>(1)) == nullptr);
    CHECK(cordon::detail::failure_of(outcome<int>(e)) == e);
    CHECK_THROWS_AS(std::rethrow_exception(cordon::detail::failure_of(outcome<int>::stopped())), canceled);
    CHECK_THROWS_AS(std::rethrow_exception(cordon::detail::failure_of(outcome<int>(rejection(reject_reason::full)))),
                    rejected);
}
