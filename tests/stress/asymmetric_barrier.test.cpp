// SPDX-License-Identifier: MIT
#include <cordon/core/detail/asymmetric_barrier.hpp>

#include <cordon/core/detail/spin_lock.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace {

namespace detail = cordon::detail;

struct alignas(64) word {
    std::atomic<int> value{0};
};

}  // namespace

TEST_CASE("of two who write, then read, with a light barrier between and with a heavy one, one sees the other",
          "[stress][core]") {
    if (!detail::heavy_barrier()) {
        WARN("SKIPPED: membarrier(2) is missing, or refused");
        return;
    }
    const int rounds = stress::rounds(20'000);
    word words[2];
    std::atomic<int> arrived{0};
    std::vector<int> seen[2];
    bool refused = false;
    stress::dice dice[2];
    const auto loop = [&](std::size_t mine) {
        for (int round = 1; round <= rounds; ++round) {
            arrived.fetch_add(1);
            for (detail::spin_wait wait; arrived.load() < 2 * round;) wait();
            stress::dawdle(dice[mine].below(200));
            words[mine].value.store(round, std::memory_order_relaxed);
            if (mine == 0) detail::light_barrier();
            else if (!detail::heavy_barrier()) refused = true;
            seen[mine].push_back(words[1 - mine].value.load(std::memory_order_relaxed));
        }
    };
    std::thread light([&] { loop(0); });
    loop(1);
    light.join();
    int neither = 0;
    for (std::size_t i = 0; i < seen[0].size(); ++i) {
        const int round = static_cast<int>(i) + 1;
        if (seen[0][i] < round && seen[1][i] < round) ++neither;
    }
    CHECK(neither == 0);
    CHECK_FALSE(refused);
}
