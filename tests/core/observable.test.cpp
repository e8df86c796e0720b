// SPDX-License-Identifier: MIT
#include <cordon/core/observable.hpp>

#include <cordon/sync/async_semaphore.hpp>

#include <string_view>

#include "catch.hpp"

namespace {

struct figures {
    int n = 0;
};
struct nameless {
    figures stats() const noexcept { return {}; }
};
struct by_reference {
    figures f;
    std::string_view name() const noexcept { return {}; }
    const figures& stats() const noexcept { return f; }
};
struct plain {
    std::string_view name() const noexcept { return "plain"; }
    figures stats() const noexcept { return {3}; }
};

static_assert(cordon::observable<plain>);
static_assert(cordon::observable<cordon::async_semaphore>);
static_assert(!cordon::observable<nameless>);
static_assert(!cordon::observable<by_reference>, "a reference into a living primitive is no snapshot");

template <cordon::observable T>
int figure(const T& t) {
    return t.stats().n;
}

}  // namespace

TEST_CASE("whatever is observable can be read without knowing its type", "[core][observable]") {
    CHECK(figure(plain()) == 3);
    cordon::async_semaphore db(2, {.name = "db"});
    CHECK(db.name() == "db");
    CHECK(db.stats().available == 2);
}
