// SPDX-License-Identifier: MIT
// A policy of one's own: measures each call, and hedges nothing, retries nothing. It is a coroutine around the call.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>
#include <cassert>
#include <iostream>
#include <stdexcept>
#include <type_traits>

using namespace std::chrono_literals;
namespace co = cordon;

// [policy]
struct latencies {
    co::clock::duration longest{0};
    int values = 0, failures = 0, refusals = 0, stops = 0;
};

class measured {
public:
    explicit measured(latencies& to) : to_(&to) {}

    template <class Call>
    auto operator()(Call call) const -> co::task<co::await_result_t<std::invoke_result_t<Call&>>> {
        struct count_stop {  // a stop skips what follows the co_await, but not a destructor
            latencies* to;
            ~count_stop() {
                if (to != nullptr) ++to->stops;
            }
        } stop{to_};
        const auto begin = co::clock::now();
        auto ended = co_await co::as_outcome(call());
        stop.to = nullptr;
        to_->longest = std::max(to_->longest, co::clock::now() - begin);
        ++(ended.has_value() ? to_->values : ended.is_rejected() ? to_->refusals : to_->failures);
        co_return std::move(ended).value();  // throws what there is instead, a refusal as a refusal
    }

private:
    latencies* to_;
};
// [/policy]

co::task<> uses_it() {
    latencies all, each;
    int calls = 0;
    const auto call = [&]() -> co::task<int> {
        co_await co::sleep_for(10ms);
        if (++calls < 3) throw std::runtime_error("503");
        co_return calls;
    };
    // [use]
    const auto guarded = co::pipeline(measured(all), co::retry(5, {.backoff = co::constant(5ms)}), measured(each));
    const int got = co_await guarded(call);
    assert(got == 3 && all.values == 1 && all.longest == 40ms);
    assert(each.values == 1 && each.failures == 2 && each.longest == 10ms);
    // [/use]
    std::cout << "one call of " << all.longest / 1ms << " ms, " << each.values + each.failures << " attempts\n";

    const auto late = co_await co::as_outcome(co::with_timeout(1ms, guarded(call)));
    assert(late.is_error() && all.stops == 1 && each.stops == 1);
    std::cout << "one stopped by a timeout\n";
}

int main() {
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(uses_it());
}
