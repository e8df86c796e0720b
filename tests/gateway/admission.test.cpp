// SPDX-License-Identifier: MIT
#include "admission.hpp"

#include "catch.hpp"

#include <chrono>
#include <string>

using namespace std::chrono_literals;
using cordon::reject_reason;
using gateway::answer_to;
using gateway::http::field;
using gateway::http::verb;

TEST_CASE("a refusal becomes the status of who has to change something", "[gateway][admission]") {
    CHECK(answer_to(cordon::rejection(reject_reason::rate_limited)).result_int() == 429);
    for (const reject_reason reason : {reject_reason::circuit_open, reject_reason::full, reject_reason::draining,
                                       reject_reason::closed, reject_reason::too_large})
        CHECK(answer_to(cordon::rejection(reason)).result_int() == 503);
    CHECK(answer_to(cordon::rejection(reject_reason::full, "upstream")).body() == "upstream: full\n");
}

TEST_CASE("Retry-After is in seconds, rounded up, and missing if nobody knows", "[gateway][admission]") {
    const auto after = [](std::chrono::nanoseconds wait) {
        return std::string(answer_to(cordon::rejection(reject_reason::rate_limited, "", wait))[field::retry_after]);
    };
    CHECK(after(1ns) == "1");
    CHECK(after(1s) == "1");
    CHECK(after(1s + 1ns) == "2");
    CHECK(after(90s) == "90");
    CHECK(after(std::chrono::nanoseconds::max()) == "9223372037");
    CHECK(after(0ns).empty());
}

TEST_CASE("only what has the same effect twice may be repeated", "[gateway][admission]") {
    for (const verb v : {verb::get, verb::head, verb::put, verb::delete_}) CHECK(gateway::may_repeat(v));
    for (const verb v : {verb::post, verb::patch, verb::options}) CHECK_FALSE(gateway::may_repeat(v));
}

TEST_CASE("a path is what is left of a target without scheme, host and query", "[gateway][admission]") {
    CHECK(gateway::path_of("/a/b?c=/d") == "/a/b");
    CHECK(gateway::path_of("http://h:80/a?b") == "/a");
    CHECK(gateway::path_of("/a?to=http://h/b") == "/a");
    for (const char* root : {"/", "http://h", "http://h?a", "", "?a"}) CHECK(gateway::path_of(root) == "/");
    CHECK(gateway::path_of("*") == "*");
}

TEST_CASE("a path is below a prefix where a slash ends a name", "[gateway][admission]") {
    for (const char* path : {"/a", "/a/", "/a/b"}) CHECK(gateway::is_below(path, "/a"));
    for (const char* path : {"/", "/ab", "/A", "a"}) CHECK_FALSE(gateway::is_below(path, "/a"));
    CHECK(gateway::is_below("/a/b", "/a/"));
    CHECK_FALSE(gateway::is_below("/a", "/a/"));
    CHECK(gateway::is_below("/a", "/"));
    CHECK(gateway::is_below("*", ""));
}
