// SPDX-License-Identifier: MIT
// How the limit of <cordon/limit/adaptive_limiter.hpp> becomes that of its bulkhead (A3), and which call is a sample
// (A2), as a model: three calls that end, of which each changes the limit and one begins to probe, in every order.
#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>

using small_steps::fault_of;
using small_steps::go;
using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    sets_what_it_made,  // the bulkhead gets the limit of the caller's own change (A3)
    looks_once,         // does not look again after it has set the limit (A3)
    compares_early,     // compares the epoch before it has the lock (A2)
};

struct limiter_model {
    static constexpr int actors = 3, prober = 2;
    enum : std::int8_t { begins, compare, change, look, set, gone };

    protocol variant = protocol::as_built;
    std::int8_t estimate = 1, slots = 1, epoch = 0;
    std::array<std::int8_t, actors> pc{}, began{}, size{};
    bool foreign = false;  // a call of another epoch was a sample

    auto operator<=>(const limiter_model&) const = default;

    const char* broken() const { return foreign ? "a call of another epoch was a sample (A2)" : nullptr; }
    const char* unfinished() const { return slots == estimate ? nullptr : "the bulkhead has an old limit (A3)"; }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        switch (pc[me]) {
            case begins: began[me] = epoch; return go(pc[me], variant == protocol::compares_early ? compare : change);
            case compare: return go(pc[me], began[me] == epoch ? change : gone);
            case change:  // all of it under the lock
                if (variant != protocol::compares_early && began[me] != epoch) return go(pc[me], gone);
                foreign = began[me] != epoch;
                estimate = size[me] = static_cast<std::int8_t>(who + 2);
                if (who == prober) ++epoch;
                return go(pc[me], variant == protocol::sets_what_it_made ? set : look);
            case look: {  // under the lock
                const bool again = size[me] == estimate && made[me];
                size[me] = estimate;
                return go(pc[me], again ? gone : set);
            }
            case set:  // under the lock of the bulkhead
                slots = size[me];
                made[me] = true;
                return go(pc[me], variant == protocol::as_built || variant == protocol::compares_early ? look : gone);
            default: return step::ended;
        }
    }

private:
    std::array<bool, actors> made{};
};

}  // namespace

TEST_CASE("in every order of steps the last limit is that of the bulkhead, and no call counts for another epoch",
          "[limit][adaptive_limiter][model]") {
    const auto walked = walk(limiter_model{});
    INFO(walked.states << " states");
    CHECK(walked.fault == "");
    CHECK(walked.states > 100);
    CHECK(walked.endings > 3);
}

TEST_CASE("without any one of its rules the model of the adaptive limiter finds a fault",
          "[limit][adaptive_limiter][model]") {
    CHECK(fault_of<limiter_model>(protocol::sets_what_it_made).find("an old limit") != std::string::npos);
    CHECK(fault_of<limiter_model>(protocol::looks_once).find("an old limit") != std::string::npos);
    CHECK(fault_of<limiter_model>(protocol::compares_early).find("another epoch") != std::string::npos);
}
