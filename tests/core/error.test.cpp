// SPDX-License-Identifier: MIT
#include <cordon/core/error.hpp>

#include "catch.hpp"

#include <chrono>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>

namespace {

using namespace std::chrono_literals;
using cordon::canceled;
using cordon::rejected;
using cordon::rejection;
using cordon::reject_reason;
using cordon::timeout_error;

static_assert(!std::is_base_of_v<std::exception, canceled>, "a handler for errors must not swallow a stop");
static_assert(std::is_base_of_v<std::exception, rejected>);
static_assert(std::is_base_of_v<std::system_error, timeout_error>);
static_assert(std::is_trivially_copyable_v<rejection>);
static_assert(std::is_nothrow_copy_constructible_v<timeout_error>);

constexpr reject_reason all_reasons[] = {reject_reason::rate_limited, reject_reason::too_large,
                                         reject_reason::circuit_open, reject_reason::full,
                                         reject_reason::draining,     reject_reason::closed};

}  // namespace

TEST_CASE("a timeout is std::errc::timed_out, and not a cancellation", "[core][error][C-015]") {
    const timeout_error e(std::source_location::current());
    CHECK(e.code() == std::errc::timed_out);
    CHECK(e.code() != std::errc::operation_canceled);
    CHECK(e.code().default_error_condition() == std::errc::timed_out);
    bool is_stop = false;
    try {
        throw e;
    } catch (const canceled&) {
        is_stop = true;
    } catch (const std::system_error& caught) {
        CHECK(caught.code() == std::errc::timed_out);
    }
    CHECK_FALSE(is_stop);
}

TEST_CASE("a timeout says in which file and line its deadline was set", "[core][error][C-008]") {
    const auto here = std::source_location::current();
    const timeout_error e(here);
    const std::string said = e.what();
    CHECK(said.find(std::string(here.file_name()) + ":" + std::to_string(here.line())) != std::string::npos);
    CHECK(said.find("deadline") != std::string::npos);
    CHECK(e.where().line() == here.line());
    CHECK(std::string_view(e.where().file_name()) == here.file_name());
}

TEST_CASE("a stop that is thrown escapes handlers of std::exception and keeps its reason", "[core][error][X1]") {
    const cordon::stop_reason why{cordon::stop_kind::failure, 17, std::source_location::current()};
    bool swallowed = false;
    try {
        try {
            throw canceled(why);
        } catch (const std::exception&) {
            swallowed = true;
        }
    } catch (const canceled& c) {
        CHECK(c.reason().kind == cordon::stop_kind::failure);
        CHECK(c.reason().code == 17);
        CHECK(c.reason().where.line() == why.where.line());
        CHECK(std::string_view(c.what()) == "the operation was stopped");
    }
    CHECK_FALSE(swallowed);
    CHECK(canceled().reason().kind == cordon::stop_kind::none);
}

TEST_CASE("a refusal says why, who refused and when to come back", "[core][error]") {
    const rejection r(reject_reason::rate_limited, "api", 250ms);
    CHECK(r.reason == reject_reason::rate_limited);
    CHECK(r.who() == "api");
    CHECK(r.retry_after == 250ms);
    CHECK(rejection(reject_reason::closed).who().empty());
    CHECK(rejection(reject_reason::closed).retry_after == 0ns);
}

TEST_CASE("a refusal keeps its own copy of the name, cut to 22 bytes", "[core][error]") {
    std::string name = "0123456789abcdef012345";
    const rejection fits(reject_reason::full, name);
    name += "X";
    const rejection cut(reject_reason::full, name);
    name.assign(name.size(), '#');
    CHECK(fits.who() == "0123456789abcdef012345");
    CHECK(cut.who() == "0123456789abcdef012345");
    CHECK(cut.who().size() == 22);
}

TEST_CASE("every reason of a refusal has a text of its own", "[core][error]") {
    for (const reject_reason a : all_reasons) {
        CHECK(std::string_view(to_string(a)) != "unknown");
        for (const reject_reason b : all_reasons)
            CHECK((std::string_view(to_string(a)) == to_string(b)) == (a == b));
    }
}

TEST_CASE("a refusal that is thrown is a std::exception that names who refused", "[core][error]") {
    const rejected named(rejection(reject_reason::circuit_open, "payments", 3s));
    CHECK(std::string_view(named.what()) == "payments: rejected, circuit open");
    CHECK(named.rejection().retry_after == 3s);
    const rejected nameless((rejection(reject_reason::draining)));
    CHECK(std::string_view(nameless.what()) == "rejected, draining");
    CHECK_THROWS_AS(throw named, std::exception);
}
