// SPDX-License-Identifier: MIT
#include "ledger.hpp"

#include "catch.hpp"

#include <optional>
#include <sstream>
#include <string>
#include <vector>

using loadgen::joined;
using loadgen::number_of;
using loadgen::outcome;
using fates = std::vector<loadgen::tally::fate>;

namespace {

joined join(const std::string& ledger, const fates& seen) {
    std::istringstream lines(ledger);
    return loadgen::join(lines, "a", seen);
}

}  // namespace

TEST_CASE("an id tells its number to whoever knows its prefix", "[loadgen][ledger]") {
    CHECK(loadgen::id_of("lg-7", 42) == "lg-7-42");
    CHECK(number_of("lg-7-42", "lg-7") == 42);
    CHECK(number_of("lg-7-0", "lg-7") == 0);
    for (const char* other : {"lg-7-", "lg-7", "lg-", "", "lg-71-4", "lg-8-42", "lg-7-4x", "lg-7--4", "lg-7- 4",
                              "lg-7-99999999999999999999"}) {
        CAPTURE(other);
        CHECK(number_of(other, "lg-7") == std::nullopt);
    }
}

TEST_CASE("what was executed and seen as ok is neither lost nor ambiguous", "[loadgen][ledger]") {
    const joined r = join("a-1\na-0\nb-2\n\n", fates(2, {true, false, outcome::ok}));
    CHECK(r.executed == 2);
    CHECK(r.ambiguous + r.lost() + r.repeated == 0);
}

TEST_CASE("executed, but seen as anything else than ok, is ambiguous", "[loadgen][ledger]") {
    for (const outcome o : {outcome::status, outcome::refused, outcome::reset_before_send, outcome::reset_after_send,
                            outcome::timeout, outcome::malformed, outcome::abandoned})
        for (const bool at_end : {false, true}) {
            CAPTURE(static_cast<int>(o), at_end);
            const joined r = join("a-0\n", fates(1, {true, at_end, o}));
            CHECK(r.executed == 1);
            CHECK(r.ambiguous == 1);
            CHECK(r.lost() == 0);
        }
}

TEST_CASE("ok that was not executed is lost, and so is what was unanswered at the end", "[loadgen][ledger]") {
    const joined r = join("a-1\n", {
        {true, false, outcome::ok},       // not executed
        {true, false, outcome::ok},
        {true, true, outcome::timeout},   // not executed, in flight at the end
        {true, false, outcome::timeout},  // not executed, and the client knew in time
        {true, false, outcome::refused},
        {true, true, outcome::abandoned},
    });
    CHECK(r.executed == 1);
    CHECK(r.ok_not_executed == 1);
    CHECK(r.unanswered == 2);
    CHECK(r.lost() == 3);
    CHECK(r.ambiguous == 0);
}

TEST_CASE("a request that was executed twice or more is repeated once", "[loadgen][ledger]") {
    std::string ledger = "a-0\na-1\n";
    for (int i = 0; i < 255; ++i) ledger += "a-1\n";
    const joined r = join(ledger, {{true, false, outcome::ok}, {true, false, outcome::timeout}});
    CHECK(r.executed == 2);
    CHECK(r.repeated == 1);
    CHECK(r.ambiguous == 1);
}

TEST_CASE("requests of the warm-up, and numbers that nobody sent, are left out", "[loadgen][ledger]") {
    const joined r = join("a-0\na-0\na-7\na-18446744073709551615\n", {
        {false, true, outcome::timeout}, {false, false, outcome::ok}, {true, false, outcome::refused}});
    CHECK(r.executed == 0);
    CHECK(r.ambiguous + r.lost() + r.repeated == 0);
}
