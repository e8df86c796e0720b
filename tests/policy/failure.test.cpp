// SPDX-License-Identifier: MIT
#include <cordon/policy/failure.hpp>

#include "calls.hpp"
#include "catch.hpp"

#include <exception>
#include <stdexcept>
#include <string>

TEST_CASE("a failure is an exception, a refusal or a value", "[policy][failure]") {
    using namespace policy_test;
    using co::failure;
    const outcome<int> error(std::make_exception_ptr(std::runtime_error("broken")));
    const failure of_error(&error);
    CHECK(of_error.is_error());
    CHECK_FALSE(of_error.is_rejected());
    CHECK_FALSE(of_error.is_value());
    CHECK(of_error.error() == error.error());

    const outcome<std::string> refused(co::rejection(co::reject_reason::full, "pool", 3s));
    const failure of_refusal(&refused);
    CHECK(of_refusal.is_rejected());
    CHECK_FALSE(of_refusal.is_error());
    CHECK_FALSE(of_refusal.is_value());
    CHECK(of_refusal.error() == nullptr);
    CHECK(of_refusal.rejection().who() == "pool");
    CHECK(of_refusal.rejection().retry_after == 3s);

    const failure of_value(static_cast<const outcome<void>*>(nullptr));
    CHECK(of_value.is_value());
    CHECK_FALSE(of_value.is_error());
    CHECK_FALSE(of_value.is_rejected());
}
