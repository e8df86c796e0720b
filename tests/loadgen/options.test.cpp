// SPDX-License-Identifier: MIT
#include "options.hpp"

#include "catch.hpp"

#include <chrono>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;

namespace {

loadgen::options parse(std::vector<const char*> words) {
    words.insert(words.begin(), "loadgen");
    return loadgen::parse(static_cast<int>(words.size()), words.data());
}

/// What is said about a command line that is refused.
std::string said(const std::vector<const char*>& words) {
    try {
        parse(words);
    } catch (const std::invalid_argument& error) {
        return error.what();
    }
    return "nothing";
}

}  // namespace

TEST_CASE("options that are not given have the defaults that the usage names", "[loadgen][options]") {
    const loadgen::options o = parse({"--target", "127.0.0.1:80", "--rate", "12.5"});
    CHECK(o.target.address().to_string() == "127.0.0.1");
    CHECK(o.target.port() == 80);
    CHECK(o.rate == 12.5);
    CHECK(o.connections == 64);
    CHECK(o.lasts == 10s);
    CHECK(o.warm_up == 0s);
    CHECK(o.timeout == 5000ms);
    CHECK((o.get && !o.post));
    CHECK(o.most_on_one == 0);
    CHECK(o.path == "/item");
    CHECK(o.body_bytes == 64);
    CHECK((o.prefix.empty() && o.ledger.empty() && o.json.empty() && o.each.empty()));
    CHECK(o.settle == 200ms);
}

TEST_CASE("every option reaches its field", "[loadgen][options]") {
    const loadgen::options o = parse({
        "--target", "[::1]:8080", "--clients", "7", "--seconds", "1.5", "--warm-up", "0.25", "--timeout-ms", "9",
        "--method", "POST", "--path", "/a?b=c", "--body-bytes", "3", "--prefix", "x_1-y", "--ledger", "l",
        "--settle-ms", "0", "--json", "j", "--each", "e", "--requests-per-connection", "4",
    });
    CHECK(o.target.address().to_string() == "::1");
    CHECK_FALSE(o.rate.has_value());
    CHECK(o.connections == 7);
    CHECK(o.lasts == 1500ms);
    CHECK(o.warm_up == 250ms);
    CHECK(o.timeout == 9ms);
    CHECK((o.post && !o.get));
    CHECK(o.most_on_one == 4);
    CHECK(o.path == "/a?b=c");
    CHECK(o.body_bytes == 3);
    CHECK(o.prefix == "x_1-y");
    CHECK(o.ledger == "l");
    CHECK(o.settle == 0ms);
    CHECK(o.json == "j");
    CHECK(o.each == "e");
    CHECK(parse({"--target", "[::1]:1", "--rate", "1", "--connections", "9"}).connections == 9);
    const loadgen::options get = parse({"--target", "[::1]:1", "--rate", "1", "--method", "GET"});
    CHECK((get.get && !get.post));
    const loadgen::options both = parse({"--target", "[::1]:1", "--rate", "1", "--method", "BOTH"});
    CHECK((both.get && both.post));
}

TEST_CASE("a value that is not allowed is refused with its option, itself and what is allowed", "[loadgen][options]") {
    struct {
        const char *option, *value, *allowed;
    } const cases[] = {
        {"--target", "localhost:80", "an address and a port"}, {"--target", "::1:80", "an address and a port"},
        {"--target", "1.2.3.4", "an address and a port"}, {"--rate", "0", "from 0.001 to 1000000"},
        {"--rate", "1000001", "from 0.001 to 1000000"}, {"--rate", "nan", "from 0.001 to"},
        {"--rate", "5/s", "from 0.001 to"}, {"--clients", "0", "from 1 to 100000"},
        {"--clients", "-1", "from 1 to 100000"}, {"--connections", "100001", "from 1 to 100000"},
        {"--seconds", "0", "from 0.1 to 86400"}, {"--seconds", "inf", "from 0.1 to"},
        {"--warm-up", "-1", "from 0 to 3600"}, {"--timeout-ms", "0", "from 1 to 600000"},
        {"--timeout-ms", "1s", "from 1 to 600000"}, {"--timeout-ms", "", "from 1 to 600000"},
        {"--method", "get", "GET, POST or BOTH"},
        {"--requests-per-connection", "0", "from 1 to 1000000"},
        {"--path", "item", "begins with /"}, {"--path", "", "begins with /"},
        {"--path", "/a b", "has no blanks"}, {"--path", "/a\r\nb", "has no blanks"},
        {"--body-bytes", "16777217", "from 0 to 16777216"}, {"--prefix", "", "1 to 64 letters"},
        {"--prefix", "a b", "1 to 64 letters"}, {"--settle-ms", "60001", "from 0 to 60000"},
    };
    for (const auto& c : cases) {
        const std::string text = said({c.option, c.value});
        CAPTURE(text, c.option, c.value, c.allowed);
        CHECK(text.find(std::string(c.option) + " is \"" + c.value + "\", allowed is ") == 0);
        CHECK(text.find(c.allowed) != text.npos);
    }
    CHECK(said({"--prefix", std::string(65, 'x').c_str()}).find("1 to 64 letters") != std::string::npos);
    CHECK(said({"--target", "127.0.0.1:65536"}) == "--target's port is \"65536\", allowed is a number from 1 to 65535");
    CHECK(said({"--target", "127.0.0.1:0"}) == "--target's port is \"0\", allowed is a number from 1 to 65535");
}

TEST_CASE("options that are missing, unknown or at odds are refused", "[loadgen][options]") {
    CHECK(said({"--rate", "1"}) == "--target is missing, see --help");
    const std::string either = "needs either --rate (open loop) or --clients (closed loop), see --help";
    CHECK(said({"--target", "127.0.0.1:80"}) == either);
    CHECK(said({"--target", "127.0.0.1:80", "--rate", "1", "--clients", "1"}) == either);
    const std::string both = said({"--target", "127.0.0.1:80", "--clients", "1", "--connections", "1"});
    CHECK(both.find("--connections goes with") == 0);
    CHECK(said({"--what", "1"}) == "--what is not an option, see --help");
    CHECK(said({"--rate"}) == "--rate is unknown or lacks a value, see --help");
}
