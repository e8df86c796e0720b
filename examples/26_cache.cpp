// SPDX-License-Identifier: MIT
// Values that are kept for a while, and one call for all who miss the same one, in virtual time.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

struct price_service {
    int calls = 0;
    bool up = true;
    co::task<int> price_of(const std::string&) {
        ++calls;
        co_await co::sleep_for(20ms);
        if (!up) throw std::runtime_error("503");
        co_return 100 + calls;
    }
};

// [cache]
class prices {
public:
    explicit prices(price_service& remote) : remote_(remote) {}

    co::task<int> of(std::string item) {
        const auto ask = [&] { return remote_.price_of(item); };
        const auto guarded = co::pipeline(kept_.for_key(item), flights_.for_key(item), co::timeout(1s));
        co_return co_await guarded(ask);
    }
    co::cache<std::string, int>::snapshot figures() const { return kept_.stats(); }

private:
    price_service& remote_;
    co::cache<std::string, int> kept_{1min, {.name = "prices", .refresh_ahead = 10s, .stale_for = 10min}};
    co::single_flight<std::string, int> flights_{{.name = "prices"}};
};
// [/cache]

co::task<> run() {
    price_service remote;
    prices all(remote);

    // [crowd]
    co_await co::when_all(all.of("tea"), all.of("tea"), all.of("tea"));  // nobody has it: one call for the three
    assert(remote.calls == 1);
    // [/crowd]
    co_await co::sleep_for(30s);
    const int soon = co_await all.of("tea");
    assert(soon == 101 && remote.calls == 1);
    co_await co::sleep_for(25s);
    const int ahead = co_await all.of("tea");  // good still, but not for long
    assert(ahead == 102 && remote.calls == 2);

    remote.up = false;
    co_await co::sleep_for(5min);
    const int old = co_await all.of("tea");  // too old, but better than an error
    assert(old == 102 && remote.calls == 3);

    const auto seen = all.figures();
    std::cout << seen.hits << " hit, " << seen.refreshes << " refresh, " << seen.stale << " stale answer, "
              << remote.calls << " calls\n";
}

int main() {
    co::testing::simulation simulation{/*seed*/ 1};
    simulation.run(run());
}
