// SPDX-License-Identifier: MIT
#include <cordon/core/detail/split_counts.hpp>

#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <barrier>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <string>
#include <thread>

namespace {

using cordon::detail::split_counts;
using cordon::detail::thread_mark;
using small_steps::step;
using small_steps::walk;

enum class protocol : std::int8_t {
    as_built,
    claims_blindly,  // a part that somebody else has claimed since is claimed again (C1)
    owns_at_once,    // who comes when all parts have owners adds as if it were one (C1)
};

/// Three threads that add twice each to counts of two parts.
struct counts_model {
    static constexpr int actors = 3, parts = 2, times = 2, nobody = -1;
    enum : std::int8_t { find, look, claim, share, load, store, gone };

    protocol variant = protocol::as_built;
    std::array<std::int8_t, parts> owner{nobody, nobody}, owned{}, shared{};
    std::array<std::int8_t, actors> pc{}, at{}, read{}, added{};

    auto operator<=>(const counts_model&) const = default;

    const char* broken() const { return nullptr; }
    const char* unfinished() const {
        const int sum = owned[0] + owned[1] + shared[0] + shared[1];
        return sum == actors * times ? nullptr : "what was added is not the sum";
    }

    step take(int who) {
        const auto me = static_cast<std::size_t>(who);
        const auto part = static_cast<std::size_t>(at[me]);
        switch (pc[me]) {
            case find:
                if (added[me] == times) return go(me, gone);
                if (owner[part] == who) return go(me, load);
                return at[me] + 1 == parts ? go(me, variant == protocol::owns_at_once ? load : look, 0) : next(me);
            case look:
                if (owner[part] == nobody) return go(me, claim);
                return at[me] + 1 == parts ? go(me, share) : next(me);
            case claim:
                if (owner[part] == nobody || variant == protocol::claims_blindly) {
                    owner[part] = static_cast<std::int8_t>(who);
                    return go(me, share);
                }
                return at[me] + 1 == parts ? go(me, share) : go(me, look, at[me] + 1);
            case share:
                ++shared[me % parts];
                ++added[me];
                return go(me, find, 0);
            case load: read[me] = owned[part]; return go(me, store);
            case store:
                owned[part] = static_cast<std::int8_t>(read[me] + 1);
                ++added[me];
                return go(me, find, 0);
            default: return step::ended;
        }
    }

private:
    step go(std::size_t me, int to) {
        pc[me] = static_cast<std::int8_t>(to);
        return step::moved;
    }
    step go(std::size_t me, int to, int part) {
        at[me] = static_cast<std::int8_t>(part);
        return go(me, to);
    }
    step next(std::size_t me) { return go(me, pc[me], at[me] + 1); }
};

}  // namespace

TEST_CASE("counts of several kinds and threads come to their sums", "[core][split_counts]") {
    constexpr int threads = 6, times = 1000;
    split_counts<3> counts;
    std::array<std::thread, threads> adders;
    for (std::thread& t : adders)
        t = std::thread([&] {
            for (int i = 0; i < times; ++i) counts.add(i % 4 == 0 ? 2 : 0);
        });
    for (std::thread& t : adders) t.join();
    CHECK(counts[0] == threads * times * 3 / 4);
    CHECK(counts[1] == 0);
    CHECK(counts[2] == threads * times / 4);
    split_counts<> one;
    one.add();
    CHECK(one[0] == 1);
}

TEST_CASE("who owns a part of the counts and who shares it are both counted", "[core][split_counts]") {
    constexpr int threads = 9, times = 3;  // more than there are parts
    split_counts<2> counts;
    std::barrier<> meet(threads);
    std::array<const char*, threads> marks{};
    std::array<std::thread, threads> adders;
    for (std::size_t t = 0; t < threads; ++t)
        adders[t] = std::thread([&, t] {
            marks[t] = thread_mark();
            for (int i = 0; i < times; ++i) {
                counts.add(1);
                meet.arrive_and_wait();  // all live
            }
        });
    for (std::thread& t : adders) t.join();
    CHECK(counts[0] == 0);
    CHECK(counts[1] == threads * times);
    for (std::size_t t = 0; t < threads; ++t)
        for (std::size_t other = 0; other < t; ++other) CHECK(marks[t] != marks[other]);
}

TEST_CASE("a thread counts on where one that has ended was", "[core][split_counts]") {
    split_counts<> counts;
    for (int i = 0; i < 20; ++i)
        std::thread([&] {
            counts.add();
            counts.add();
        }).join();
    CHECK(counts[0] == 40);
}

TEST_CASE("nothing is lost in any order of three threads that add", "[core][split_counts]") {
    const auto as_built = walk(counts_model{});
    CHECK(as_built.fault == "");
    CHECK(as_built.endings > 1);
    for (const protocol broken : {protocol::claims_blindly, protocol::owns_at_once})
        CHECK(walk(counts_model{.variant = broken}).fault != "");
}
