// SPDX-License-Identifier: MIT
#include <cordon/core/detail/split_counts.hpp>

#include "catch.hpp"

#include <array>
#include <cstdint>
#include <set>
#include <thread>

namespace {
using cordon::detail::split_counts;
using cordon::detail::thread_number;
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

TEST_CASE("each thread has a number of its own, and keeps it", "[core][split_counts]") {
    const unsigned mine = thread_number();
    std::set<unsigned> seen{mine, 0};
    for (int i = 0; i < 3; ++i) {
        unsigned first = 0, second = 0;
        std::thread([&] {
            first = thread_number();
            second = thread_number();
        }).join();
        CHECK(first == second);
        CHECK(seen.insert(first).second);
    }
    CHECK(thread_number() == mine);
}
