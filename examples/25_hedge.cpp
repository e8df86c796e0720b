// SPDX-License-Identifier: MIT
// A second copy of a call that is slower than usual, in virtual time: what it does to the slow ones, and what it costs.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <cassert>
#include <iostream>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

struct replica {
    int asked = 0;
    co::task<int> get() {
        const int mine = ++asked;
        co_await co::sleep_for(mine % 20 == 0 ? 500ms : 10ms);  // one in twenty is slow, for no reason of its own
        co_return mine;
    }
};

template <class Pipeline>
co::task<co::clock::duration> slowest_of_a_thousand(const Pipeline& guarded, replica& remote) {
    co::clock::duration slowest{0};
    const auto get = [&] { return remote.get(); };
    for (int i = 0; i < 1000; ++i) {
        const auto begin = co::clock::now();
        co_await guarded(get);
        if (i >= 100) slowest = std::max(slowest, co::clock::now() - begin);  // the first calls teach it what is usual
    }
    co_return slowest;
}

co::task<> with_and_without() {
    replica remote;
    const auto plain = co::pipeline(co::timeout(1s));
    const auto without = co_await slowest_of_a_thousand(plain, remote);

    // [hedge]
    co::retry_budget budget{{.ratio = 0.1, .min_per_second = 1}};
    auto hedged = co::pipeline(
        co::timeout(1s), co::hedge({.name = "stock", .after = co::percentile(0.9), .max_extra = 1, .budget = &budget}));
    const auto with = co_await slowest_of_a_thousand(hedged, remote);
    // [/hedge]

    const auto figures = hedged.get<1>().stats();
    std::cout << "the slowest took " << without / 1ms << " ms, hedged " << with / 1ms << " ms, for " << figures.sent
              << " calls more\n";
    assert(without == 500ms && with < 30ms && figures.sent < 100);
}

// [marked]
co::task<> not_this_one() {
    replica remote;
    const auto hedged = co::pipeline(co::hedge({.after = 20ms}));
    const auto slow = [&] { return remote.get(); };
    remote.asked = 19;
    co_await co::with(hedged(slow), co::idempotent(false));  // may be done only once: no copy, however slow it is
    assert(remote.asked == 20);
}
// [/marked]

int main() {
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(with_and_without());
    simulation.run(not_this_one());
}
