// SPDX-License-Identifier: MIT
// Policies around a call, in virtual time: retries with a budget, a breaker, timeouts, and an answer for when all
// fails.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

struct stock_service {
    int calls = 0, works_from = 3;
    co::task<std::string> fetch() {
        co_await co::sleep_for(1ms);
        if (++calls < works_from) throw std::runtime_error("503");
        co_return "12 left";
    }
};

// [pipeline]
class stock_client {
public:
    explicit stock_client(stock_service& remote) : remote_(remote) {}
    co::task<std::string> look_up() {
        const auto fetch = [this] { return remote_.fetch(); };
        co_return co_await guarded_(fetch);
    }

private:
    stock_service& remote_;
    co::circuit_breaker breaker_{{.name = "stock", .window = co::last_calls(100), .min_calls = 10, .open_for = 30s}};
    co::retry_budget budget_{{.ratio = 0.2, .min_per_second = 10}};
    // The outermost first. What has a name, as the breaker, is referred to; what is made here lives in the pipeline.
    co::any_pipeline<std::string> guarded_ = co::pipeline(
        co::fallback([](const co::failure&) { return std::string("unknown"); }), co::timeout(500ms),
        co::retry(4, {.backoff = co::exponential(1ms, 100ms, co::full_jitter), .budget = &budget_, .seed = 1}),
        breaker_, co::timeout(100ms));
};
// [/pipeline]

co::task<> shows_the_policies() {
    stock_service remote;
    stock_client client(remote);
    const std::string third = co_await client.look_up();
    assert(third == "12 left" && remote.calls == 3);
    std::cout << "after " << remote.calls << " calls: " << third << '\n';

    remote.works_from = 1'000;
    std::string last;
    for (int i = 0; i < 5; ++i) last = co_await client.look_up();
    assert(last == "unknown" && remote.calls < 3 + 5 * 4);  // the breaker has opened meanwhile
    std::cout << "down: " << last << ", and " << remote.calls - 3 << " calls for 5 look-ups\n";
}

// [verdict]
struct reply {
    int status;
};

co::task<> says_what_fails() {
    int asked = 0;
    const auto ask = [&]() -> co::task<reply> { co_return reply{++asked < 3 ? 503 : 200}; };
    const auto patient = co::pipeline(co::retry(5, {.backoff = co::constant(1ms)}))
                             .failing_when([](const reply& r) { return r.status >= 500; })
                             .ignoring([](std::error_code e) { return e == std::errc::operation_canceled; });
    const reply answer = co_await patient(ask);
    assert(answer.status == 200 && asked == 3);
    std::cout << "status " << answer.status << " after " << asked << " calls\n";
}
// [/verdict]

int main() {
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(shows_the_policies());
    simulation.run(says_what_fails());
}
