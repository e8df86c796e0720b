// SPDX-License-Identifier: MIT
#include "config.hpp"

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

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
    before.guards.rest.retry->attempts = 7;
    before.guards.deadline = 30ms;
    before.guards.client_header = "x-client";
    for (const char* text : {"{}", "{}\n\n", "{\n}\n", "// nothing\n{ \"retry\": {} }\n  "}) {
        INFO(text);
        const gateway::options now = read(text, before);
        CHECK(now.guards.rest.retry->attempts == 7);
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
        "requests": { "concurrent": 30, "waiting": 5 },
        "hedge": { "percentile": 0.9 },
        "shedder": { "target_ms": 20, "interval_ms": 300 },
        "client": { "per_second": 100, "burst": 20, "header": "x-api-key" }
    })");
    CHECK(o.listen.address().to_string() == "::1");
    REQUIRE(o.guards.rest.upstreams.size() == 1);
    CHECK(o.guards.rest.upstreams[0].address().to_string() == "127.0.0.2");
    CHECK(o.guards.rest.upstreams[0].port() == 9000);
    CHECK(o.guards.deadline == 2s);
    CHECK(o.guards.rest.attempt == 700ms);
    CHECK(o.guards.rest.retry->attempts == 4);
    CHECK(o.guards.rest.retry->backoff == 20ms);
    CHECK(o.guards.rest.retry->budget_ratio == 0.5);
    CHECK(o.guards.rest.breaker->window == 50);
    CHECK(o.guards.rest.breaker->min_calls == 10);
    CHECK(o.guards.rest.breaker->failure_rate == 1.0);
    CHECK(o.guards.rest.breaker->open_for == 2500ms);
    CHECK(o.guards.rest.bulkhead->concurrent == 8);
    CHECK(o.guards.rest.bulkhead->waiting == 0);
    CHECK(o.guards.requests->concurrent == 30);
    CHECK(o.guards.requests->waiting == 5);
    CHECK(o.guards.rest.hedge->percentile == 0.9);
    CHECK_FALSE(o.guards.rest.hedge->delay);
    CHECK(o.guards.shedder->target == 20ms);
    CHECK(o.guards.shedder->interval == 300ms);
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
             {"breaker", R"("window": 0)", "breaker.window is 0, allowed is a number from 1 to 65536"},
             {"breaker", R"("min_calls": 99999999999999999999)",
              "breaker.min_calls is 99999999999999999999, allowed is a number from 1 to 65536"},
             {"breaker", R"("window": 65537)",
              "breaker.window is 65537, allowed is a number from 1 to 65536"},
             {"breaker", R"("min_calls": 101)",
              "breaker.min_calls is 101, allowed is a number up to breaker.window, which is 100"},
             {"breaker", R"("window": 19)",
              "breaker.window is 19, allowed is a number from breaker.min_calls on, which is 20"},
             {"breaker", R"("failure_rate": 0)", "breaker.failure_rate is 0, allowed is a number from 0.001 to 1"},
             {"breaker", R"("open_for_ms": 3600001)",
              "breaker.open_for_ms is 3600001, allowed is a number from 1 to 3600000"},
             {"bulkhead", R"("concurrent": 0)", "bulkhead.concurrent is 0, allowed is a number from 1 to 1000000"},
             {"bulkhead", R"("waiting": -1)", "bulkhead.waiting is -1, allowed is a number from 0 to 1000000"},
             {"hedge", R"("percentile": 0.49)", "hedge.percentile is 0.49, allowed is a number from 0.5 to 0.999"},
             {"hedge", R"("percentile": 1)", "hedge.percentile is 1, allowed is a number from 0.5 to 0.999"},
             {"hedge", R"("delay_ms": 0)", "hedge.delay_ms is 0, allowed is a number from 1 to 600000"},
             {"shedder", R"("target_ms": 0)", "shedder.target_ms is 0, allowed is a number from 1 to 60000"},
             {"shedder", R"("interval_ms": 60001)",
              "shedder.interval_ms is 60001, allowed is a number from 1 to 60000"},
             {"client", R"("per_second": 0)", "client.per_second is 0, allowed is a number from 1 to 1000000"},
             {"client", R"("burst": 1000001)", "client.burst is 1000001, allowed is a number from 1 to 1000000"},
         }) {
        CHECK(problem_of(b.section, b.field) == std::string("g.json:2: ") + b.said);
    }
}

TEST_CASE("a shedder needs a queue to look at, and an interval above its target", "[gateway][config]") {
    CHECK(problem("{\n\"shedder\": {} }") ==
          "g.json:2: shedder is an object, allowed is one beside \"requests\", whose queue it looks at");
    const auto beside_requests = [](const std::string& fields) {
        return problem("{ \"requests\": {}, \"shedder\": {\n" + fields + "\n} }");
    };
    CHECK(beside_requests(R"("target_ms": 100)") ==
          "g.json:2: shedder.target_ms is 100, allowed is a number below shedder.interval_ms, which is 100");
    CHECK(beside_requests(R"("interval_ms": 5)") ==
          "g.json:2: shedder.interval_ms is 5, allowed is a number above shedder.target_ms, which is 5");
    CHECK(read(R"({ "shedder": {}, "requests": {} })").guards.shedder->interval == 100ms);
    CHECK_FALSE(read(R"({ "requests": {} })").guards.shedder);
    CHECK_FALSE(read(R"({ "shedder": false })").guards.shedder);
}

TEST_CASE("a hedge waits for a time or for a share of the calls, and its copies have links", "[gateway][config]") {
    CHECK(problem("{ \"hedge\": { \"percentile\": 0.9,\n\"delay_ms\": 20 } }") ==
          "g.json:2: hedge.delay_ms is 20, allowed is one of the two, this or percentile");
    CHECK_FALSE(read("{}").guards.rest.hedge);
    CHECK(read("{}").guards.links() == 1);
    const gateway::options o = read(R"({
        "hedge": { "delay_ms": 20 },
        "routes": {
            "/none": { "upstream": "127.0.0.1:1", "hedge": false },
            "/share": { "upstream": "127.0.0.1:2", "hedge": { "percentile": 0.9 } },
            "/time": { "upstream": "127.0.0.1:3", "hedge": { "delay_ms": 30 } },
            "/as-above": { "upstream": "127.0.0.1:4" }
        }
    })");
    CHECK(o.guards.links() == 5);
    const auto& routes = o.guards.routes;
    REQUIRE(routes.size() == 4);
    CHECK(routes[0].hedge->delay == 20ms);
    CHECK(routes[1].hedge->percentile == 0.9);
    CHECK_FALSE(routes[1].hedge->delay);
    const std::size_t time = routes[2].prefix == "/time" ? 2 : 3;  // as long as /none
    CHECK(routes[time].hedge->delay == 30ms);
    CHECK_FALSE(routes[5 - time].hedge);
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
    const std::string allowed = ", allowed is a number from 1 to 1000000";
    for (const char* kind : {"null", "true", "false"})
        CHECK(problem_of("client", R"("burst": )" + std::string(kind)) ==
              "g.json:2: client.burst is " + std::string(kind) + allowed);
    CHECK(problem_of("client", R"("burst": {"of": 1})") == "g.json:2: client.burst is an object" + allowed);
    CHECK(problem_of("client", R"("burst": [1])") == "g.json:2: client.burst is a list" + allowed);
    CHECK(problem_of("", R"("breaker": 10)") == "g.json:2: breaker is 10, allowed is an object, or false");
    CHECK(problem_of("", R"("requests": true)") == "g.json:2: requests is true, allowed is an object, or false");
    CHECK(problem_of("", R"("client": false)") == "g.json:2: client is false, allowed is an object");
    CHECK(problem_of("", R"("routes": 5)") == "g.json:2: routes is 5, allowed is an object");
    CHECK(problem_of("", R"("attempt_ms": true)") ==
          "g.json:2: attempt_ms is true, allowed is a number from 1 to 600000");
}

TEST_CASE("a field that is unknown or there twice is refused", "[gateway][config]") {
    CHECK(problem_of("breaker", R"("windw": 10)") ==
          "g.json:2: breaker.windw is 10, allowed is what config.hpp lists: there is no such field");
    CHECK(problem_of("", R"("braker": {"window": 10})") ==
          "g.json:2: braker is an object, allowed is what config.hpp lists: there is no such field");
    CHECK(problem("{ \"\": {\n \"deadline_ms\": 5 } }") ==
          "g.json:1:  is an object, allowed is what config.hpp lists: there is no such field");
    CHECK(problem("{ \"breaker.window\": 50 }") ==
          "g.json:1: breaker.window is 50, allowed is what config.hpp lists: there is no such field");
    CHECK(problem("{ \"deadline_ms\": 5,\n\n\"deadline_ms\": 5 }") == "g.json:3: deadline_ms is there twice");
    CHECK(problem("{ \"retry\": { \"attempts\": 1 },\n \"retry\": { \"attempts\": 2 } }") ==
          "g.json:2: retry is there twice");
    CHECK(problem("{ \"retry\": false,\n \"retry\": {} }") == "g.json:2: retry is there twice");
    CHECK(problem("{ \"breaker\": { \"window\": 5,\n \"window\": 5 } }") == "g.json:2: breaker.window is there twice");
}

TEST_CASE("a guard that the configuration says false to is not there", "[gateway][config]") {
    const gateway::options o = read(R"({ "attempt_ms": false, "retry": false, "breaker": false, "bulkhead": false,
                                         "requests": false })");
    CHECK_FALSE(o.guards.rest.attempt);
    CHECK_FALSE(o.guards.rest.retry);
    CHECK_FALSE(o.guards.rest.breaker);
    CHECK_FALSE(o.guards.rest.bulkhead);
    CHECK_FALSE(o.guards.requests);
    CHECK_FALSE(o.guards.rest.has_guards());
    CHECK(read("{ \"retry\": false }").guards.rest.has_guards());
    CHECK_FALSE(read("{}").guards.requests);
    CHECK(read("{ \"requests\": {} }").guards.requests);
}

TEST_CASE("what a route does not say is as at the top of the file", "[gateway][config]") {
    const gateway::options o = read(R"({
        "routes": {
            "/reports": { "upstream": "127.0.0.1:3", "deadline_ms": 3000, "attempt_ms": 2900, "retry": false,
                          "breaker": { "window": 30 } },
            "/": { "upstream": "127.0.0.1:2" },
            "/reports/old.d": { "upstream": "[::1]:4", "bulkhead": { "waiting": 0 }, "retry": { "attempts": 5 } }
        },
        "breaker": { "window": 50, "min_calls": 10 }, "bulkhead": false, "attempt_ms": 200
    })");
    CHECK(o.guards.rest.upstreams.empty());
    CHECK(o.guards.upstreams() == 3);
    REQUIRE(o.guards.routes.size() == 3);  // the longest prefix first
    const gateway::route_options &old = o.guards.routes[0], &reports = o.guards.routes[1], &all = o.guards.routes[2];
    CHECK(old.prefix == "/reports/old.d");
    CHECK(old.upstreams.at(0).port() == 4);
    CHECK(old.bulkhead->concurrent == 256);
    CHECK(old.bulkhead->waiting == 0);
    CHECK(old.retry->attempts == 5);
    CHECK(old.retry->backoff == 10ms);
    CHECK(old.attempt == 200ms);
    CHECK(reports.prefix == "/reports");
    CHECK(reports.deadline == 3s);
    CHECK(reports.attempt == 2900ms);
    CHECK_FALSE(reports.retry);
    CHECK_FALSE(reports.bulkhead);
    CHECK(reports.breaker->window == 30);
    CHECK(reports.breaker->min_calls == 10);
    CHECK(all.prefix == "/");
    CHECK_FALSE(all.deadline);
    CHECK(all.breaker->window == 50);
}

TEST_CASE("a route may name several upstreams, each of which has links", "[gateway][config]") {
    const gateway::options o = read(R"({
        "upstream": ["127.0.0.1:1", "[::1]:1"],
        "routes": {
            "/one": { "upstream": ["127.0.0.1:2"] },
            "/three": { "upstream": [ "127.0.0.1:3",  // of which one is that of /one
                                      "127.0.0.1:2", "127.0.0.1:4" ] }
        }
    })");
    REQUIRE(o.guards.rest.upstreams.size() == 2);
    CHECK(o.guards.rest.upstreams[1].address().is_v6());
    CHECK(o.guards.routes.at(1).upstreams.size() == 1);
    const std::vector<gateway::tcp::endpoint>& three = o.guards.routes.at(0).upstreams;
    REQUIRE(three.size() == 3);
    CHECK(std::vector<int>{three[0].port(), three[1].port(), three[2].port()} == std::vector<int>{3, 2, 4});
    CHECK(o.guards.links() == 5);

    const auto of_list = [](const std::string& list) { return problem("{\n\"upstream\": " + list + "\n}"); };
    const std::string one = "\"127.0.0.1:1\"", at = "g.json:2: upstream";
    const std::string allowed = ", allowed is an address, or a list of 1 to 64";
    CHECK(of_list("[]") == at + " is a list" + allowed);
    std::string many = "[\"127.0.0.1:1\"";
    for (int port = 2; port <= 64; ++port) many += ",\"127.0.0.1:" + std::to_string(port) + '"';
    CHECK(read("{ \"upstream\": " + many + "] }").guards.rest.upstreams.size() == 64);
    CHECK(of_list(many + ",\"127.0.0.1:65\"]") == at + " is a list" + allowed);
    CHECK(of_list("[" + one + ",\n" + one + "]") ==
          "g.json:3: upstream[1] is " + one + ", allowed is one that is not in the list before it");
    CHECK(of_list("[" + one + ", \"127.0.0.1:0\"]") ==
          at + "[1]'s port is \"0\", allowed is a number from 1 to 65535");
    const std::string address = ", allowed is an address and a port, such as 127.0.0.1:8080 or [::1]:8080";
    CHECK(of_list("[5]") == at + "[0] is \"5\"" + address);
    CHECK(of_list("[[" + one + "]]") == at + "[0] is \"a list\"" + address);
    CHECK(of_list("[{ \"a\": 1 }]") == at + "[0] is \"an object\"" + address);
    CHECK(problem("{ \"routes\": { \"/a\": { \"redis\": {},\n\"upstream\": [" + one + ", \"[::1]:1\"] } } }") ==
          "g.json:2: routes[\"/a\"].upstream is a list, allowed is one address beside redis");
}

TEST_CASE("a list where none belongs is refused like any other value", "[gateway][config]") {
    CHECK(problem("{\n\"deadline_ms\": [1, 2] }") ==
          "g.json:2: deadline_ms is a list, allowed is a number from 1 to 600000");
    CHECK(problem("{\n\"retry\": [] }") == "g.json:2: retry is a list, allowed is an object, or false");
    CHECK(problem("{\n\"client\": { \"header\": [\"a\"] } }") ==
          "g.json:2: client.header is a list, allowed is the name of a header: letters, digits, - and _");
    CHECK(problem("{\n\"more\": [{ \"a\": [1] }] }") ==
          "g.json:2: more is a list, allowed is what config.hpp lists: there is no such field");
}

TEST_CASE("a route to a redis says what it keeps", "[gateway][config]") {
    const auto of_route = [](const std::string& rest) {
        return "{ \"hedge\": {}, \"routes\": { \"/a\": { \"upstream\": \"127.0.0.1:1\",\n" + rest + "\n} } }";
    };
    const gateway::options o = read(of_route(R"("redis": { "connections": 3, "keep_ms": 20, "stale_ms": 30 })"));
    const gateway::route_options& a = o.guards.routes.at(0);
    CHECK(a.redis->connections == 3);
    CHECK(a.redis->keep == 20ms);
    CHECK(a.redis->stale == 30ms);
    CHECK_FALSE(a.hedge);
    CHECK(o.guards.pooled() == 3);
    CHECK(read(of_route(R"("redis": false)")).guards.routes.at(0).hedge);
    CHECK(read(of_route(R"("redis": {}, "hedge": false)")).guards.routes.at(0).redis->keep == 1s);
    const std::string at = "g.json:2: routes[\"/a\"].";
    CHECK(problem(of_route(R"("redis": { "connections": 0 })")) ==
          at + "redis.connections is 0, allowed is a number from 1 to 10000");
    CHECK(problem(of_route(R"("redis": { "keep_ms": 0 })")) ==
          at + "redis.keep_ms is 0, allowed is a number from 1 to 3600000");
    CHECK(problem(of_route(R"("redis": { "stale_ms": -1 })")) ==
          at + "redis.stale_ms is -1, allowed is a number from 0 to 3600000");
    CHECK(problem(of_route(R"("redis": {}, "hedge": {})")) ==
          at + "hedge is an object, allowed is false beside redis");
    CHECK(problem("{\n\"redis\": {} }") ==
          "g.json:2: redis is an object, allowed is what config.hpp lists: there is no such field");
}

TEST_CASE("what is wrong with a route is said with its path", "[gateway][config]") {
    const auto of_route = [](const std::string& field) {
        const std::string before = R"({ "breaker": { "min_calls": 40 }, "routes": { "/a": { "upstream": "127.0.0.1:1",)";
        return problem(before + '\n' + field + "\n} } }");
    };
    const std::string at = "g.json:2: routes[\"/a\"]";
    CHECK(of_route(R"("deadline_ms": 0)") == at + ".deadline_ms is 0, allowed is a number from 1 to 600000");
    CHECK(of_route(R"("bulkhead": { "waiting": -1 })") ==
          at + ".bulkhead.waiting is -1, allowed is a number from 0 to 1000000");
    CHECK(of_route(R"("breaker": { "window": 39 })") ==
          at + ".breaker.window is 39, allowed is a number from breaker.min_calls on, which is 40");
    CHECK(of_route(R"("breaker": 1)") == at + ".breaker is 1, allowed is an object, or false");
    CHECK(of_route(R"("client": {})") ==
          at + ".client is an object, allowed is what config.hpp lists: there is no such field");
    CHECK(of_route(R"("routes": { "/b": {} })") ==
          at + ".routes is an object, allowed is what config.hpp lists: there is no such field");
    CHECK(problem("{ \"routes\": {\n\"/a\": {} } }") ==
          at + " is an object, allowed is one that names its upstream");
    CHECK(problem("{ \"routes\": {\n\"/a\": 5 } }") == at + " is 5, allowed is an object");
    CHECK(problem("{ \"routes\": { \"/a\": {},\n\"/a\": {} } }") == at + " is there twice");
    for (const char* prefix : {"a", "", "/a b", "/a?b", "/a#b", "/a]x["}) {
        INFO(prefix);
        const std::string quoted = '"' + std::string(prefix) + '"';
        const std::string said = problem("{ \"routes\": {\n" + quoted + ": {} } }");
        CHECK(said.find("g.json:2: routes[" + quoted + "] is an object, allowed is what begins with /") == 0);
    }
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

TEST_CASE("the command line wins over the file, which need not name an upstream if it has routes",
          "[gateway][config]") {
    const gateway::options file = read(R"({ "routes": { "/a": { "upstream": "127.0.0.1:1" } }, "deadline_ms": 5 })");
    const char* words[] = {"gateway", "--deadline-ms", "7", "--upstream", "127.0.0.1:2"};
    const gateway::options o = gateway::parse(5, const_cast<char**>(words), file);
    CHECK(o.guards.deadline == 7ms);
    CHECK(o.guards.rest.upstreams.at(0).port() == 2);
    CHECK(o.guards.routes.size() == 1);
    CHECK(gateway::parse(1, const_cast<char**>(words), file).guards.rest.upstreams.empty());
    CHECK_THROWS_AS(gateway::parse(1, const_cast<char**>(words), {}), std::invalid_argument);
}
