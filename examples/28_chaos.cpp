// SPDX-License-Identifier: MIT
// Trouble on purpose: calls that are slow or fail, and places in a program that go wrong, both by a seed.
#include <cordon/cordon.hpp>
#include <cordon/testing.hpp>

#include <cassert>
#include <cstdint>
#include <iostream>
#include <system_error>

using namespace std::chrono_literals;
namespace co = cordon;

// [chaos]
co::task<int> successes_of_a_thousand(int attempts) {
    co::testing::chaos trouble{{.error_rate = 0.2, .latency_rate = 0.1, .latency = 300ms, .seed = 7}};
    const auto retries = co::retry(attempts, {.backoff = co::constant(10ms)});
    const auto guarded = co::pipeline(retries, co::timeout(100ms), trouble);
    const auto call = []() -> co::task<int> { co_return 1; };
    int good = 0;
    for (int i = 0; i < 1000; ++i) {
        const auto ended = co_await co::as_outcome(guarded(call));
        good += ended.has_value();
    }
    co_return good;
}
// [/chaos]

// [fault]
std::error_code save(int& saved) {
    if (co::testing::fault("disk full")) return std::make_error_code(std::errc::no_space_on_device);
    ++saved;
    return {};
}
// [/fault]

int main() {
    const int once = co::testing::simulation{1}.run(successes_of_a_thousand(1));
    const int thrice = co::testing::simulation{1}.run(successes_of_a_thousand(3));
    std::cout << "of 1000 calls " << once << " succeed, with retries " << thrice << '\n';
    assert(once < 800 && thrice > 950);

    // [plan]
    int saved = 0, armed = 0;
    for (std::uint64_t seed = 0; seed < 100; ++seed) {
        co::testing::fault_plan plan{seed};  // a quarter of the places go wrong, each a quarter of the time
        for (int i = 0; i < 10; ++i) (void)save(saved);
        armed += plan.sites()[0].armed;
    }
    // [/plan]
    std::cout << "the disk was full in " << armed << " runs of 100, and " << saved << " of 1000 were saved\n";
    assert(armed > 10 && armed < 40 && saved > 900 && saved < 1000);
}
