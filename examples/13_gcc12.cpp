// SPDX-License-Identifier: MIT
// What every compiler gets right: the forms to write instead of the eight of docs/gcc12.md.
#include <cordon/cordon.hpp>

#include <cassert>
#include <iostream>
#include <string>
#include <utility>
#include <vector>

namespace co = cordon;

struct query {
    std::string table;
    std::size_t limit = 10;
};

co::task<std::string> find(query q) { co_return q.table.substr(0, q.limit); }
co::task<std::size_t> count(std::vector<int> ids) { co_return ids.size(); }

co::task<bool> ready() { co_return true; }

co::task<> good_forms(bool cached) {
    const std::string name = "a name that is too long to be kept inside of a std::string";

    // [aggregate]
    query wanted{"customers", 4};
    const std::string found = co_await find(std::move(wanted));
    // [/aggregate]
    assert(found == "cust");

    // [list]
    std::vector<int> ids{1, 2, 3};
    const std::size_t n = co_await count(std::move(ids));
    // [/list]
    assert(n == 3);

    // [lambda]
    auto greet = [name](co::task_group&) -> co::task<std::string> { co_return "hello, " + name; };
    const std::string greeting = co_await co::with_group(greet);
    // [/lambda]
    assert(greeting == "hello, " + name);

    // [lambdas]
    auto left = []() -> co::task<int> { co_return 1; };
    auto right = []() -> co::task<int> { co_return 2; };
    const int sum = co_await left() + co_await right();
    // [/lambdas]
    assert(sum == 3);

    query slow{"orders"};
    // [ternary]
    std::string shown;
    if (cached) shown = name;
    else shown = co_await find(std::move(slow));
    // [/ternary]
    assert(shown == name);

    // [binding]
    auto both = co_await co::when_all(left(), right());
    auto& [one, two] = both;
    // [/binding]

    // [logic]
    bool both_ready = false;
    if (cached) both_ready = co_await ready();
    // [/logic]

    // [condition]
    while (true) {
        const bool done = co_await ready();
        if (done) break;
    }
    // [/condition]
    assert(one == 1 && two == 2 && both_ready);
    std::cout << found << ", " << n << ", " << sum << ", " << shown << ", " << one << two << '\n';
}

int main() {
    co::sync_wait(good_forms(true));
}
