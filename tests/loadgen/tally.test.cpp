// SPDX-License-Identifier: MIT
#include "tally.hpp"

#include "catch.hpp"

#include <cordon/testing/simulation.hpp>

#include <chrono>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <sstream>
#include <string>
#include <utility>

using namespace std::chrono_literals;
namespace co = cordon;
using loadgen::outcome;
using loadgen::schedule;
using loadgen::tally;

namespace {

/// A request that was due just now ends `after` that, as `o`.
co::task<tally::fate> attempt(tally& seen, outcome o, bool sent, co::clock::duration after = 0s, unsigned status = 0) {
    const std::uint64_t n = seen.fates().size();
    std::optional<tally::attempt> a(std::in_place, seen, schedule::request{n, co::clock::now()});
    co_await co::sleep_for(after);
    if (sent) a->sent_at = co::clock::now();
    a->status = status;
    a->ended = o;
    a.reset();
    co_return seen.fates()[n];
}

}  // namespace

TEST_CASE("every outcome is counted once, and those that are not ok are timed apart", "[loadgen][tally]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        schedule s(co::clock::now(), 0s, 1h, 10.0);
        tally seen(s);
        for (std::size_t i = 0; i < loadgen::outcome_names.size(); ++i)
            for (std::size_t n = 0; n <= i; ++n) {
                const unsigned status = n == 0 ? 404 : 503;
                co_await attempt(seen, static_cast<outcome>(i), true, i == 0 ? 10ms : 20ms, status);
            }
        for (std::size_t i = 0; i < loadgen::outcome_names.size(); ++i) CHECK(seen[static_cast<outcome>(i)] == i + 1);
        CHECK(seen.statuses == std::map<unsigned, std::uint64_t>{{404, 1}, {503, 1}});
        CHECK(seen.total() == 36);
        CHECK(seen.ok.count() == 1);
        CHECK(seen.ok.max() == 10ms);
        CHECK(seen.others.count() == 35);
        CHECK(seen.others.percentile(0) >= 20ms);
        CHECK(seen.others.max() == 20ms);
    };
    sim.run(all);
}

TEST_CASE("each request that counts gets a line when it has ended", "[loadgen][tally]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        std::ostringstream each;
        schedule s(co::clock::now(), 1s, 1h, 10.0);
        tally seen(s, &each);
        co_await attempt(seen, outcome::ok, true, 10ms, 200);  // in the warm-up
        co_await co::sleep_for(1s);
        const auto due = std::chrono::duration<double>(co::clock::now().time_since_epoch());
        co_await attempt(seen, outcome::status, true, 30ms, 503);
        co_await attempt(seen, outcome::refused, false);
        std::istringstream lines(each.str());
        std::string line;
        std::getline(lines, line);
        CHECK(line == "number\tdue_at\tconnected_at\tsent_at\tended_at\toutcome\tstatus\tnth");
        std::uint64_t number = 0;
        double due_at = 0, connected_at = 0, sent_at = 0, ended_at = 0;
        unsigned status = 0, nth = 0;
        const auto read = [&] {
            lines >> number >> due_at >> connected_at >> sent_at >> ended_at >> line >> status >> nth;
        };
        read();
        CHECK((number == 1 && line == "status" && status == 503 && nth == 0));
        CHECK((connected_at == 0 && sent_at == ended_at));
        CHECK(std::abs(due_at - due.count()) < 1e-5);
        CHECK(std::abs(ended_at - due_at - 0.03) < 1e-5);
        read();
        CHECK((number == 2 && line == "refused" && status == 0 && sent_at == 0));
        CHECK_FALSE(lines >> line);
    };
    sim.run(all);
}

TEST_CASE("a request that dies unfinished was abandoned", "[loadgen][tally]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        schedule s(co::clock::now(), 0s, 1h, 10.0);
        tally seen(s);
        auto endless = [&]() -> co::task<> {
            const tally::attempt a(seen, {0, co::clock::now()});
            co_await co::sleep_for(1h);
        };
        (void)co_await co::as_outcome(co::with_timeout(1s, endless()));
        CHECK(seen[outcome::abandoned] == 1);
        CHECK(seen.others.max() == 1s);
    };
    sim.run(all);
}

TEST_CASE("what was sent, in flight at the end and never answered is remembered as such", "[loadgen][tally]") {
    co::testing::simulation sim;
    auto all = []() -> co::task<> {
        schedule s(co::clock::now(), 0s, 1s, 10.0);
        tally seen(s);
        const tally::fate early = co_await attempt(seen, outcome::timeout, true);
        CHECK_FALSE(early.unanswered_at_end);
        co_await co::sleep_for(900ms);
        const tally::fate late = co_await attempt(seen, outcome::timeout, true, 200ms);
        CHECK(late.unanswered_at_end);
        for (const outcome o : {outcome::reset_after_send, outcome::abandoned}) {
            const tally::fate cut = co_await attempt(seen, o, true);
            CHECK(cut.unanswered_at_end);
            const tally::fate unsent = co_await attempt(seen, o, false);
            CHECK_FALSE(unsent.unanswered_at_end);
        }
        for (const outcome o : {outcome::ok, outcome::status}) {
            const tally::fate answered = co_await attempt(seen, o, true);
            CHECK_FALSE(answered.unanswered_at_end);
        }
    };
    sim.run(all);
}
