// SPDX-License-Identifier: MIT
// Task groups: whoever starts work owns it, waits for it and can name it.
#include <cordon/cordon.hpp>

#include <algorithm>
#include <cassert>
#include <iostream>
#include <stdexcept>
#include <string>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

co::task<std::string> fetch(std::string what, std::chrono::milliseconds delay) {
    co_await co::sleep_for(delay);
    co_return what;
}

// [group]
co::task<std::string> page() {
    // The only way out of with_group is past its join.
    co_return co_await co::with_group([&](co::task_group& group) -> co::task<std::string> {
        auto user = group.spawn_future(fetch("user", 3ms), {.name = "user"});
        auto cart = group.spawn_future(fetch("cart", 1ms), {.name = "cart"});
        co_return co_await user + " and " + co_await cart;
    });
}
// [/group]

// [failure]
co::task<std::string> first_failure_stops_the_rest() {
    auto fail = []() -> co::task<> { throw std::runtime_error("disk full"); co_return; };
    try {
        co_await co::with_group([&](co::task_group& group) -> co::task<> {
            group.spawn(co::sleep_for(24h), {.name = "for ever"});
            group.spawn(fail(), {.name = "writer"});
            co_await co::sleep_for(24h);  // the body is stopped, too
        });
    } catch (const std::runtime_error& e) {
        co_return e.what();  // all have ended here
    }
    co_return "";
}
// [/failure]

// [bounded]
co::task<int> bounded(std::vector<int> items) {
    int running = 0, peak = 0;
    auto work = [&](int) -> co::task<> {
        peak = std::max(peak, ++running);
        co_await co::sleep_for(1ms);
        --running;
    };
    co_await co::for_each(items, {.max_running = 8}, work);
    co_await co::with_group({.max_running = 8}, [&](co::task_group& group) -> co::task<> {
        for (int i : items) co_await group.spawn_when_ready(work(i));  // the same by hand: waits for room
    });
    co_return peak;
}
// [/bounded]

// [race]
co::task<std::string> all_and_any() {
    auto both = co_await co::when_all(fetch("a", 2ms), fetch("b", 1ms));
    auto& [a, b] = both;
    auto first = co_await co::when_any(fetch("slow", 1h), fetch(a + b, 1ms));  // the loser is stopped and waited for
    co_return std::get<1>(first);
}
// [/race]

int main() {
    // [sync_wait]
    const std::string shown = co::sync_wait(page());
    // [/sync_wait]
    const std::string failure = co::sync_wait(first_failure_stops_the_rest()), winner = co::sync_wait(all_and_any());
    const int peak = co::sync_wait(bounded(std::vector<int>(50)));
    std::cout << shown << "; " << failure << "; at most " << peak << " at a time; " << winner << " was first\n";
    assert(shown == "user and cart" && failure == "disk full" && peak == 8 && winner == "ab");
}
