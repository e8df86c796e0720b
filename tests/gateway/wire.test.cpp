// SPDX-License-Identifier: MIT
#include "wire.hpp"

#include "catch.hpp"

#include <chrono>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

using namespace std::chrono_literals;
using gateway::format_grpc_timeout;
using gateway::format_traceparent;
using gateway::is_sane_request_id;
using gateway::parse_grpc_timeout;
using gateway::parse_traceparent;

TEST_CASE("a grpc-timeout is one to eight digits and a unit, whose case matters", "[gateway][wire]") {
    CHECK(parse_grpc_timeout("1n") == 1ns);
    CHECK(parse_grpc_timeout("20u") == 20us);
    CHECK(parse_grpc_timeout("300m") == 300ms);
    CHECK(parse_grpc_timeout("5S") == 5s);
    CHECK(parse_grpc_timeout("2M") == 2min);
    CHECK(parse_grpc_timeout("1H") == 1h);
    CHECK(parse_grpc_timeout("00000007S") == 7s);
    CHECK(parse_grpc_timeout("0S") == 0s);
    CHECK(parse_grpc_timeout("99999999n") == 99'999'999ns);
    for (const char* malformed : {"", "S", "5", "100000000n", "5s", "5h", "5N", "5U", "-1S", "+1S", " 1S", "1S ",
                                  "1.5S", "1 S", "0x1S", "1SS", "m5", "1\xB5"})
        CHECK_FALSE(parse_grpc_timeout(malformed));
    CHECK_FALSE(parse_grpc_timeout(std::string_view("1\0S", 3)));
}

TEST_CASE("a grpc-timeout that nanoseconds cannot hold is the longest time, not a wrapped one", "[gateway][wire]") {
    CHECK(parse_grpc_timeout("99999999H") == std::chrono::nanoseconds::max());
    CHECK(parse_grpc_timeout("2562047H") == 2'562'047h);
    CHECK(parse_grpc_timeout("2562048H") == std::chrono::nanoseconds::max());
}

TEST_CASE("the time left is written in the finest unit that fits, and never grows", "[gateway][wire]") {
    CHECK(format_grpc_timeout(99'999'999ns) == "99999999n");
    CHECK(format_grpc_timeout(100'000'000ns) == "100000u");
    CHECK(format_grpc_timeout(399'999'999ns) == "399999u");
    CHECK(format_grpc_timeout(1h) == "3600000m");
    CHECK(format_grpc_timeout(2'562'047h) == "2562047H");
    CHECK(format_grpc_timeout(0ns) == "1n");
    CHECK(format_grpc_timeout(-5s) == "1n");
    CHECK(parse_grpc_timeout(format_grpc_timeout(std::chrono::nanoseconds::max())).has_value());

    const auto seed = std::random_device{}();
    INFO("seed " << seed);
    std::mt19937_64 random(seed);
    for (int i = 0; i < 10'000; ++i) {
        const std::chrono::nanoseconds left(static_cast<std::int64_t>(random() >> (1 + random() % 63)) + 1);
        const auto read = parse_grpc_timeout(format_grpc_timeout(left));
        REQUIRE(read);
        REQUIRE(*read <= left);
        REQUIRE((*read > left - left / 1000 - 1ns || left > 99'999'999s));  // seven digits stay, but for whole hours
    }
}

TEST_CASE("a traceparent of version 00 is 55 characters", "[gateway][wire]") {
    const std::string trace = "0af7651916cd43dd8448eb211c80319c", parent = "b7ad6b7169203331";
    const auto read = parse_traceparent("00-" + trace + "-" + parent + "-01");
    REQUIRE(read);
    CHECK(read->trace_id == trace);
    CHECK(read->parent_id == parent);
    CHECK(read->flags == 1);
    CHECK(format_traceparent(*read) == "00-" + trace + "-" + parent + "-01");

    for (const std::string& invalid :
         {std::string(), "00-" + trace, "00-" + trace + "-" + parent, "00-" + trace + "-" + parent + "-1",
          "00-" + trace + "-" + parent + "-01-", "00-" + trace + "-" + parent + "-01-what-comes-later",
          "00-" + trace + "-" + parent + "-01.", "ff-" + trace + "-" + parent + "-01",
          "FF-" + trace + "-" + parent + "-01",
          "0g-" + trace + "-" + parent + "-01", "00_" + trace + "-" + parent + "-01",
          "00-" + trace + "_" + parent + "-01",
          "00-" + trace + "-" + parent + "_01", "00-0AF7651916CD43DD8448EB211C80319C-" + parent + "-01",
          "00-" + trace + "-B7AD6B7169203331-01", "00-" + trace + "-" + parent + "-0X",
          "00-" + trace + "-" + parent + "-A1",
          "00-" + std::string(32, '0') + "-" + parent + "-01", "00-" + trace + "-" + std::string(16, '0') + "-01",
          " 00-" + trace + "-" + parent + "-01"}) {
        INFO(invalid);
        CHECK_FALSE(parse_traceparent(invalid));
    }
}

TEST_CASE("a later version is read as far as it is known, and passed on as version 00", "[gateway][wire]") {
    const std::string known = "-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
    for (const char* end : {"09", "09-", "09-what-comes-later"}) {
        const auto read = parse_traceparent("cc" + known + end);
        REQUIRE(read);
        CHECK(format_traceparent(*read) == "00" + known + "01");
    }
    CHECK_FALSE(parse_traceparent("cc" + known + "09.what"));
}

TEST_CASE("of the trace flags only sampled and random are passed on", "[gateway][wire]") {
    const std::string known = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-";
    CHECK(parse_traceparent(known + "00")->flags == 0);
    CHECK(parse_traceparent(known + "03")->flags == 3);
    CHECK(format_traceparent(*parse_traceparent(known + "ff")) == known + "03");
}

TEST_CASE("ids are drawn from all digits, and are never zero", "[gateway][wire]") {
    std::mt19937_64 random(1);
    CHECK(gateway::random_hex(random, 32).size() == 32);
    CHECK(gateway::random_hex(random, 1000).find_first_not_of("0123456789abcdef") == std::string::npos);
    CHECK(gateway::random_hex(random, 1000).find('f') != std::string::npos);
    for (int i = 0; i < 1000; ++i) REQUIRE(gateway::random_hex(random, 1) != "0");
}

TEST_CASE("a request id from outside may not forge a log line", "[gateway][wire]") {
    CHECK(is_sane_request_id("r-42"));
    CHECK(is_sane_request_id("0192d3b4-6f5e_7c1a.~:/+=@Z"));
    CHECK(is_sane_request_id(std::string(128, 'x')));
    CHECK_FALSE(is_sane_request_id(""));
    CHECK_FALSE(is_sane_request_id(std::string(129, 'x')));
    for (const char* bad : {"a b", "a\nb", "a\tb", "a\"b", "a\\b", "a,b", "a;b", "a<b", "\xC3\xA9", "\x7F"})
        CHECK_FALSE(is_sane_request_id(bad));
    CHECK_FALSE(is_sane_request_id(std::string_view("a\0b", 3)));
}
