// SPDX-License-Identifier: MIT
#include "config.hpp"

#include "catch.hpp"

#include <chrono>
#include <sstream>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;

namespace {

gateway::options read(const std::string& text, gateway::options into = {}) {
    std::istringstream in(text);
    gateway::read_config(in, "g.json", into);
    return into;
}

/// Returns: what is said of a configuration that is refused.
std::string problem(const std::string& text) {
    try {
        read(text);
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return "nothing";
}

/// What is said of a field, alone in line 2 of the file.
std::string problem_of(const std::string& section, const std::string& field) {
    if (section.empty()) return problem("{\n" + field + "\n}");
    return problem("{ \"" + section + "\": {\n" + field + "\n} }");
}

}  // namespace

TEST_CASE("an empty configuration changes nothing", "[gateway][config]") {
    gateway::options before;
    before.guards.attempts = 7;
    before.guards.deadline = 30ms;
    before.guards.client_header = "x-client";
    for (const char* text : {"{}", "{}\n\n", "{\n}\n", "// nothing\n{ \"retry\": {} }\n  "}) {
        INFO(text);
        const gateway::options now = read(text, before);
        CHECK(now.guards.attempts == 7);
        CHECK(now.guards.deadline == 30ms);
        CHECK(now.guards.client_header == "x-client");
        CHECK(now.listen == before.listen);
        CHECK(now.guards.client_rate.is_unlimited());
    }
}

TEST_CASE("a configuration says every number of the guards", "[gateway][config]") {
    const gateway::options o = read(R"({
        "listen": "[::1]:0", "upstream": "127.0.0.2:9000",
        "deadline_ms": 2000, "attempt_ms": 700,
        "retry": { "attempts": 4, "backoff_ms": 20, "budget_ratio": 0.5 },  // and this is a comment
        "breaker": { "window": 50, "min_calls": 10, "failure_rate": 1, "open_for_ms": 2500 },
        "bulkhead": { "concurrent": 8, "waiting": 0 },
        "client": { "per_second": 100, "burst": 20, "header": "x-api-key" }
    })");
    CHECK(o.listen.address().to_string() == "::1");
    CHECK(o.guards.upstream.address().to_string() == "127.0.0.2");
    CHECK(o.guards.upstream.port() == 9000);
    CHECK(o.guards.deadline == 2s);
    CHECK(o.guards.attempt == 700ms);
    CHECK(o.guards.attempts == 4);
    CHECK(o.guards.backoff == 20ms);
    CHECK(o.guards.budget_ratio == 0.5);
    CHECK(o.guards.breaker_window == 50);
    CHECK(o.guards.breaker_min_calls == 10);
    CHECK(o.guards.failure_rate == 1.0);
    CHECK(o.guards.open_for == 2500ms);
    CHECK(o.guards.concurrent == 8);
    CHECK(o.guards.waiting == 0);
    CHECK(o.guards.client_rate == cordon::per_second(100));
    CHECK(o.guards.client_burst == 20);
    CHECK(o.guards.client_header == "x-api-key");
}

TEST_CASE("what is out of range is refused with line, field, value and range", "[gateway][config]") {
    struct bad {
        const char *section, *field, *said;
    };
    for (const bad& b : {
             bad{"", R"("deadline_ms": 0)", "deadline_ms is 0, allowed is a number from 1 to 600000"},
             {"", R"("attempt_ms": 600001)", "attempt_ms is 600001, allowed is a number from 1 to 600000"},
             {"retry", R"("attempts": 11)", "retry.attempts is 11, allowed is a number from 1 to 10"},
             {"retry", R"("attempts": 1.5)", "retry.attempts is 1.5, allowed is a number from 1 to 10"},
             {"retry", R"("backoff_ms": -5)", "retry.backoff_ms is -5, allowed is a number from 1 to 60000"},
             {"retry", R"("budget_ratio": 1.01)", "retry.budget_ratio is 1.01, allowed is a number from 0 to 1"},
             {"breaker", R"("window": 0)", "breaker.window is 0, allowed is a number from 1 to 100000"},
             {"breaker", R"("min_calls": 99999999999999999999)",
              "breaker.min_calls is 99999999999999999999, allowed is a number from 1 to 100000"},
             {"breaker", R"("min_calls": 101)",
              "breaker.min_calls is 101, allowed is a number up to breaker.window, which is 100"},
             {"breaker", R"("window": 19)",
              "breaker.window is 19, allowed is a number from breaker.min_calls on, which is 20"},
             {"breaker", R"("failure_rate": 0)", "breaker.failure_rate is 0, allowed is a number from 0.001 to 1"},
             {"breaker", R"("open_for_ms": 3600001)",
              "breaker.open_for_ms is 3600001, allowed is a number from 1 to 3600000"},
             {"bulkhead", R"("concurrent": 0)", "bulkhead.concurrent is 0, allowed is a number from 1 to 1000000"},
             {"bulkhead", R"("waiting": -1)", "bulkhead.waiting is -1, allowed is a number from 0 to 1000000"},
             {"client", R"("per_second": 0)", "client.per_second is 0, allowed is a number from 1 to 1000000"},
             {"client", R"("burst": 1000001)", "client.burst is 1000001, allowed is a number from 1 to 1000000"},
         }) {
        CHECK(problem_of(b.section, b.field) == std::string("g.json:2: ") + b.said);
    }
}

TEST_CASE("a value of another kind is refused like one that is out of range", "[gateway][config]") {
    CHECK(problem_of("", R"("deadline_ms": "100")") ==
          "g.json:2: deadline_ms is \"100\", allowed is a number from 1 to 600000");
    const std::string address = ", allowed is an address and a port, such as 127.0.0.1:8080 or [::1]:8080";
    CHECK(problem_of("", R"("upstream": 9000)") == "g.json:2: upstream is \"9000\"" + address);
    CHECK(problem_of("", R"("listen": "localhost:80")") == "g.json:2: listen is \"localhost:80\"" + address);
    CHECK(problem_of("client", R"("header": "x api key")") ==
          "g.json:2: client.header is \"x api key\", allowed is the name of a header: letters, digits, - and _");
    CHECK(problem_of("client", R"("header": 5)") ==
          "g.json:2: client.header is 5, allowed is the name of a header: letters, digits, - and _");
    const std::string allowed = ", allowed is a number or a text";
    CHECK(problem_of("client", R"("burst": null)") == "g.json:2: client.burst is null" + allowed);
    CHECK(problem_of("client", R"("burst": true)") == "g.json:2: client.burst is true" + allowed);
    CHECK(problem_of("client", R"("burst": [1])") == "g.json:2: client.burst is a list" + allowed);
    CHECK(problem_of("client", R"("burst": {"of": 1})") == "g.json:2: client.burst is an object" + allowed);
}

TEST_CASE("a field that is unknown or there twice is refused", "[gateway][config]") {
    CHECK(problem_of("breaker", R"("windw": 10)") ==
          "g.json:2: breaker.windw is 10, allowed is what config.hpp lists: there is no such field");
    CHECK(problem_of("", R"("breaker": 10)") ==
          "g.json:2: breaker is 10, allowed is what config.hpp lists: there is no such field");
    CHECK(problem("{ \"deadline_ms\": 5,\n\n\"deadline_ms\": 5 }") == "g.json:3: deadline_ms is there twice");
    CHECK(problem("{ \"retry\": { \"attempts\": 1 },\n \"retry\": { \"attempts\": 2 } }") ==
          "g.json:2: retry.attempts is there twice");
}

TEST_CASE("what is no JSON object is refused with the line where that shows", "[gateway][config]") {
    CHECK(problem("{\n\"deadline_ms\": 5\n\"attempt_ms\": 5 }").find("g.json:3: no JSON: ") == 0);
    CHECK(problem("{\n\"deadline_ms\": 5\n").find("g.json:2: no JSON: ") == 0);
    CHECK(problem("{\n\"deadline_ms\n\": 5\n}").find("g.json:2: no JSON: ") == 0);
    CHECK(problem("{}\n{}").find("g.json:2: no JSON: ") == 0);
    CHECK(problem("{} x").find("g.json:1: no JSON: ") == 0);
    CHECK(problem("").find("g.json:1: no JSON: ") == 0);
    CHECK(problem("5") == "g.json:1: the file holds 5, allowed is an object");
    CHECK(problem("[{}]") == "g.json:1: the file holds a list, allowed is an object");
}

TEST_CASE("a refused configuration leaves the options as they were", "[gateway][config]") {
    gateway::options o;
    std::istringstream in(R"({ "deadline_ms": 5, "attempt_ms": 0 })");
    CHECK_THROWS_AS(gateway::read_config(in, "g.json", o), std::invalid_argument);
    CHECK(o.guards.deadline == 1s);
}
