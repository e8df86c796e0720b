// SPDX-License-Identifier: MIT
// Numbers that are changed while calls are in flight, as when a configuration is read again, in virtual time.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [named]
/// What has a name is referred to: its numbers can be changed, and its figures seen, from outside of the pipeline.
class client {
public:
    explicit client(co::registry& metrics) : seen_(metrics.add(copies_)) {}
    template <class Call>
    co::task<int> get(Call call) {
        co_return co_await guarded_(call);
    }
    /// For the calls that begin from now on; those in flight keep what they began with.
    void configure(co::clock::duration limit, co::clock::duration slow, double ratio) {
        limit_.set(limit);
        copies_.set({.after = slow, .budget = &budget_});
        budget_.set({.ratio = ratio, .min_per_second = 10});
    }

private:
    co::retry_budget budget_{{.name = "stock", .ratio = 0.2, .min_per_second = 10}};
    co::timeout_policy limit_ = co::timeout(1s);
    co::hedge_policy copies_ = co::hedge({.name = "stock", .after = 200ms, .budget = &budget_});
    co::any_pipeline<int> guarded_ = co::pipeline(limit_, copies_);
    co::registry::registration seen_;
};
// [/named]

co::task<> changes(co::registry& metrics) {
    client stock(metrics);
    int asked = 0;
    const auto call = [&]() -> co::task<int> {
        const int mine = ++asked;
        co_await co::sleep_for(mine % 2 == 1 ? 100ms : 5ms);
        co_return mine;
    };
    auto begin = co::clock::now();
    co_await stock.get(call);
    std::cout << "as it was: " << (co::clock::now() - begin) / 1ms << " ms, " << asked << " calls\n";

    stock.configure(80ms, 20ms, 0.5);
    asked = 0;
    begin = co::clock::now();
    co_await stock.get(call);
    std::cout << "changed:   " << (co::clock::now() - begin) / 1ms << " ms, " << asked << " calls\n";
    assert(asked == 2 && co::clock::now() - begin == 25ms);

    std::string sent;
    metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
        if (m.name == "sent") sent = who.kind + ' ' + who.name + ": " + std::to_string(m.total) + " sent";
    });
    std::cout << sent << '\n';
    assert(sent == "hedge stock: 1 sent");
}

int main() {
    co::registry metrics;
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(changes(metrics));
}
