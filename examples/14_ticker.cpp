// SPDX-License-Identifier: MIT
// Time: something every 100 ms, without drift, until it is stopped; and with a bound on each turn.
// In a simulation, so that times are exact.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

// [ticker]
co::task<> every(co::clock::duration period, std::vector<co::clock::time_point>& turns) {
    for (auto next = co::clock::now() + period;; next += period) {
        co_await co::sleep_until(next);  // what a turn takes does not add up
        turns.push_back(co::clock::now());
        co_await co::sleep_for(30ms);    // stands for the work of a turn
    }
}
// [/ticker]

// [bounded]
co::task<std::size_t> turns_within(co::clock::duration d) {
    std::vector<co::clock::time_point> turns;
    const auto ended = co_await co::as_outcome(co::with_timeout(d, every(100ms, turns)));
    assert(ended.is_error());  // it never ends by itself
    assert(turns.back() - turns.front() == 100ms * (turns.size() - 1));
    co_return turns.size();
}
// [/bounded]

int main() {
    co::testing::simulation sim;
    // [inside]
    const std::size_t turns = sim.run([] { return turns_within(1h - 1ms); });
    // [/inside]
    std::cout << turns << " turns in an hour, less a millisecond\n";
    assert(turns == 35999);
}
