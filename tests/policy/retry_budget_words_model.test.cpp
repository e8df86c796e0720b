// SPDX-License-Identifier: MIT
// The word of <cordon/policy/retry_budget.hpp> (R1 to R3) as two models, of the rule that keeps tokens and of the one
// that counts what is in flight: calls that fail and ask for a retry, in every order. Memory orders are not part of it:
// they are relaxed.
#include "catch.hpp"
#include "small_steps.hpp"

#include <algorithm>
#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    takes_blindly,    // takes, or begins a retry, by an addition after a look (R1)
    stores,           // writes what it made of what it read, without an exchange (R1)
    brings_blindly,   // brings tokens by an addition after a look (R2)
    loses_blindly,    // loses tokens by a subtraction after a look (R2)
    compares_a_half,  // its exchange looks at the retries only, not at the calls (R1)
};

/// Three calls whose first attempt fails, and one that succeeds. The retry of the first succeeds, that of the second is
/// not sent, and that of the third fails.
struct tokens_model {
    static constexpr int actors = 4;
    static constexpr std::int8_t token = 2, share = 2, limit = 10;
    enum : std::int8_t { ask, take_one, look, change, gone };

    protocol variant = protocol::as_built;
    std::int8_t word = limit, truth = limit;  // truth: by the order of the changes
    std::array<std::int8_t, actors> pc{ask, ask, ask, look}, seen{}, brings{0, 0, 0, share};
    bool too_many = false;

    auto operator<=>(const tokens_model&) const = default;

    const char* broken() const {
        if (too_many) return "a retry was granted while half of the tokens were gone (R1)";
        if (word < 0 || word > limit) return "the tokens are not from 0 to the limit (R2)";
        return word == truth ? nullptr : "a change is lost (R1)";
    }
    const char* unfinished() const { return nullptr; }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        switch (pc[me]) {
            case ask:
                seen[me] = word;
                brings[me] = -token;
                return go(pc[me], grants(word) ? take_one : look);
            case take_one:
                if (word != seen[me] && variant != protocol::takes_blindly && variant != protocol::stores)
                    return go(pc[me], ask);
                too_many = !grants(truth);
                become(me, -token);
                brings[me] = who == 0 ? share : who == 1 ? token : static_cast<std::int8_t>(-token);
                return go(pc[me], look);
            case look:
                seen[me] = word;
                return go(pc[me], (brings[me] > 0 ? word == limit : word == 0) ? gone : change);
            case change: {
                const bool blind = variant == (brings[me] > 0 ? protocol::brings_blindly : protocol::loses_blindly);
                if (word != seen[me] && !blind && variant != protocol::stores) return go(pc[me], look);
                become(me, blind ? bounded(seen[me] + brings[me]) - seen[me] : brings[me], blind);
                return go(pc[me], gone);
            }
            default: return step::ended;
        }
    }

private:
    static bool grants(std::int8_t tokens) { return tokens >= token && 2 * (tokens - token) > limit; }
    static std::int8_t bounded(int tokens) { return static_cast<std::int8_t>(std::clamp<int>(tokens, 0, limit)); }
    void become(std::size_t me, int by, bool blindly = false) {
        truth = bounded(truth + by);
        const std::int8_t from = variant == protocol::stores ? seen[me] : word;
        word = blindly ? static_cast<std::int8_t>(word + by) : bounded(from + by);
    }
};

/// Three calls that ask for a retry and one that does not. Half as many retries as calls may be in flight, or one.
struct in_flight_model {
    static constexpr int actors = 4, retrying = 3;
    enum : std::int8_t { call, ask, take_one, retry_ends, ends, gone };

    protocol variant = protocol::as_built;
    std::int8_t calls = 0, retries = 0;
    std::array<std::int8_t, actors> pc{};
    std::array<std::int8_t, retrying> seen_calls{}, seen_retries{};
    bool too_many = false;

    auto operator<=>(const in_flight_model&) const = default;

    const char* broken() const {
        if (too_many) return "a retry was granted on a figure that had changed (R1)";
        return calls < 0 || retries < 0 ? "a half is below 0 (R3)" : nullptr;
    }
    const char* unfinished() const { return calls == 0 && retries == 0 ? nullptr : "something stays in flight (R3)"; }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        switch (pc[me]) {
            case call: ++calls; return go(pc[me], who < retrying ? ask : ends);
            case ask:
                seen_calls[me] = calls;
                seen_retries[me] = retries;
                return go(pc[me], retries < allowed(calls) ? take_one : ends);
            case take_one:
                if (variant != protocol::takes_blindly && variant != protocol::stores &&
                    (retries != seen_retries[me] || (calls != seen_calls[me] && variant != protocol::compares_a_half)))
                    return go(pc[me], ask);
                if (variant == protocol::stores) {
                    calls = seen_calls[me];
                    retries = static_cast<std::int8_t>(seen_retries[me] + 1);
                    return go(pc[me], retry_ends);
                }
                too_many = retries >= allowed(calls);
                ++retries;
                return go(pc[me], retry_ends);
            case retry_ends: --retries; return go(pc[me], ends);
            case ends: --calls; return go(pc[me], gone);
            default: return step::ended;
        }
    }

private:
    static int allowed(std::int8_t calls) { return std::max(1, calls / 2); }
};

small_steps::walked tokens(protocol variant, std::int8_t from) {
    tokens_model m;
    m.variant = variant;
    m.word = m.truth = from;
    return walk(m);
}
small_steps::walked in_flight(protocol variant) {
    in_flight_model m;
    m.variant = variant;
    return walk(m);
}

}  // namespace

TEST_CASE("in every order of steps tokens are paid and brought once, and none is taken while half are gone",
          "[policy][retry_budget][model]") {
    for (const std::int8_t from : {std::int8_t{1}, std::int8_t{8}, tokens_model::limit}) {
        CAPTURE(int{from});
        const auto walked = tokens(protocol::as_built, from);
        CHECK(walked.fault == "");
        CHECK(walked.states > 500);
    }
}

TEST_CASE("in every order of steps retries in flight are granted for calls that are in flight then",
          "[policy][retry_budget][model]") {
    const auto walked = in_flight(protocol::as_built);
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 1'000);
}

TEST_CASE("without any one of its rules the models of the budget's word find a fault",
          "[policy][retry_budget][model]") {
    const auto says = [](const small_steps::walked& walked, const char* what) {
        UNSCOPED_INFO(walked.fault);
        return walked.fault.find(what) != std::string::npos;
    };
    CHECK(says(tokens(protocol::takes_blindly, 8), "half of the tokens"));
    CHECK(says(tokens(protocol::stores, 7), "is lost"));
    CHECK(says(tokens(protocol::brings_blindly, 10), "from 0 to the limit"));
    CHECK(says(tokens(protocol::loses_blindly, 3), "from 0 to the limit"));
    CHECK(says(in_flight(protocol::takes_blindly), "had changed"));
    CHECK(says(in_flight(protocol::compares_a_half), "had changed"));
    CHECK_FALSE(in_flight(protocol::stores).fault.empty());
}
