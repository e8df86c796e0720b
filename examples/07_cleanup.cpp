// SPDX-License-Identifier: MIT
// Cleanup: what has to be awaited before it is over, what a stop must not cut in two, and what does not stop in time.
// In a simulation, so that times are exact.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <string>

using namespace std::chrono_literals;
namespace co = cordon;

// [finally]
/// A connection that says goodbye, which takes a moment.
struct connection {
    co::task<> transfer() {
        log += "begun, ";
        co_await co::sleep_for(1h);
        log += "done, ";
    }
    co::task<> close() {
        co_await co::sleep_for(10ms);
        log += "closed";
    }
    std::string& log;
};

co::task<> use_connection(std::string& log) {
    connection c{log};
    auto close = [&] { return c.close(); };
    co_await co::finally(c.transfer(), close, 2s);  // closes also when stopped, with a stop held back for 2 s at most
}
// [/finally]

// [shield]
struct account {
    int alice = 100, bob = 0;
};

co::task<> move_money(account& books) {
    books.alice -= 40;
    co_await co::sleep_for(20ms);  // without the shield a stop could end it here
    books.bob += 40;
}
co::task<> pay(account& books) { co_await co::shield(move_money(books), 1s); }
// [/shield]

// [overdue]
void note(const co::overdue_report& late, void* log) { *static_cast<std::string*>(log) = late.task; }

co::task<> wait_for_the_stubborn(std::string& reported) {
    auto stubborn = co::shield(co::sleep_for(1h), 2h);  // does not heed the stop that the deadline sends
    auto watched = co::with(std::move(stubborn), co::within(10ms), co::named("stubborn"));
    co_await co::with(std::move(watched), co::overdue(5ms, note, &reported));
}
// [/overdue]

co::task<> all() {
    std::string log;
    const auto transferred = co_await co::as_outcome(co::with_timeout(50ms, use_connection(log)));
    assert(transferred.is_error() && log == "begun, closed");
    std::cout << log << '\n';

    account books;
    const auto paid = co_await co::as_outcome(co::with_timeout(10ms, pay(books)));
    assert(paid.has_value() && books.alice == 60 && books.bob == 40);  // a value that is there wins over the deadline
    std::cout << "alice has " << books.alice << ", bob has " << books.bob << '\n';

    std::string reported;
    const co::clock::time_point began = co::clock::now();
    co_await wait_for_the_stubborn(reported);
    assert(co::clock::now() - began == 1h && !reported.empty());  // was waited for, and reported meanwhile
    std::cout << "overdue:\n" << reported;
}

int main() { co::testing::simulation().run(all()); }
