// SPDX-License-Identifier: MIT
// The version and the words of <cordon/policy/detail/live_value.hpp> (V1, V2) as a model: two that write, one that
// reads, in every order. Memory orders are not part of it: for those there is a stress test.
#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>

using small_steps::step;
using small_steps::walk;

namespace {

enum class protocol : std::int8_t {
    as_built,
    looks_once,      // the reader does not look at the version again
    never_odd,       // the writer moves the version only when it has written
    never_moves_on,  // the version goes back to what it was
    unlocked,        // writers do not exclude each other
    reads_odd,       // the reader does not mind a writer at work
};

struct live_value_model {
    static constexpr int actors = 3, reader = 2, nobody = -1;
    enum { lock, open, first, second, close, unlock, gone };
    enum { look, read_first, read_second, look_again, read };

    protocol variant = protocol::as_built;
    std::int8_t holder = nobody;
    std::int8_t version = 0;
    std::array<std::int8_t, 2> words{};    // both of one writer, or both 0
    std::array<std::int8_t, actors> at{};  // the next step of each
    std::array<std::int8_t, 2> written{};  // what a writer saw as the version
    std::int8_t seen = 0;                  // by the reader
    std::array<std::int8_t, 2> got{};
    bool torn = false;

    auto operator<=>(const live_value_model&) const = default;

    step take(int actor) { return actor == reader ? take_reader() : take_writer(static_cast<std::size_t>(actor)); }
    step take_writer(std::size_t me) {
        std::int8_t& next = at[me];
        const auto value = static_cast<std::int8_t>(me + 1);
        switch (next) {
            case lock:
                if (variant != protocol::unlocked) {
                    if (holder != nobody) return step::blocked;
                    holder = static_cast<std::int8_t>(me);
                }
                break;
            case open:
                written[me] = version;
                if (variant != protocol::never_odd) version = static_cast<std::int8_t>(written[me] + 1);
                break;
            case first: words[0] = value; break;
            case second: words[1] = value; break;
            case close:
                version = static_cast<std::int8_t>(written[me] + (variant == protocol::never_moves_on ? 0 : 2));
                break;
            case unlock:
                if (variant != protocol::unlocked) holder = nobody;
                break;
            default: return step::ended;
        }
        ++next;
        return step::moved;
    }
    step take_reader() {
        std::int8_t& next = at[reader];
        switch (next) {
            case look:
                if (version % 2 != 0 && variant != protocol::reads_odd) return step::blocked;
                seen = version;
                break;
            case read_first: got[0] = words[0]; break;
            case read_second:
                got[1] = words[1];
                if (variant == protocol::looks_once) {
                    torn = got[0] != got[1];
                    next = read;
                    return step::moved;
                }
                break;
            case look_again:
                if (version != seen) {
                    next = look;
                    return step::moved;
                }
                torn = got[0] != got[1];
                break;
            default: return step::ended;
        }
        ++next;
        return step::moved;
    }
    const char* broken() const { return torn ? "read half of one value and half of another" : nullptr; }
    const char* unfinished() const {
        if (words[0] != words[1]) return "two halves are left";
        return version % 2 != 0 ? "the version is left odd" : nullptr;
    }
};

auto walk_variant(protocol p) {
    live_value_model start;
    start.variant = p;
    return walk(start);
}

}  // namespace

TEST_CASE("in every order of steps what is read was written at once", "[policy][live_value][model]") {
    const auto walked = walk_variant(protocol::as_built);
    INFO(walked.fault);
    CHECK(walked.fault.empty());
    CHECK(walked.endings > 1);
    CHECK(walked.states > 100);
}

TEST_CASE("without any one of its rules the model of a live value finds a fault", "[policy][live_value][model]") {
    for (const auto p : {protocol::looks_once, protocol::never_odd, protocol::never_moves_on, protocol::unlocked,
                         protocol::reads_odd}) {
        INFO(static_cast<int>(p));
        CHECK_FALSE(walk_variant(p).fault.empty());
    }
}
