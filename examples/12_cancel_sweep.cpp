// SPDX-License-Identifier: MIT
// Cancel sweep: stops an operation at each of its steps, one run for each, and looks at what it leaves behind.
#include <cordon/cordon.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include <cassert>
#include <iostream>
#include <memory>

using namespace std::chrono_literals;
namespace co = cordon;

// [transfer]
struct account {
    int alice = 100, bob = 0;
};

co::task<> careless(std::shared_ptr<account> books) {
    books->alice -= 40;
    co_await co::sleep_for(5ms);  // asks the bank, say
    books->bob += 40;
}
co::task<> careful(std::shared_ptr<account> books) {
    co_await co::sleep_for(5ms);
    books->alice -= 40;  // nothing is awaited between the two
    books->bob += 40;
}
// [/transfer]

// [sweep]
template <class Transfer>
co::testing::sweep_result sweep(Transfer transfer) {
    auto books = std::make_shared<account>();
    auto make = [&] {
        *books = account();
        return transfer(books);
    };
    auto check = [&](const co::outcome<void>&, co::testing::sweep_point) {
        return books->alice + books->bob == 100;  // whatever happened, and wherever it was stopped
    };
    return co::testing::cancel_sweep({.max_findings = 2}, make, check);
}
// [/sweep]

int main() {
    const auto bad = sweep(careless), good = sweep(careful);
    std::cout << "careless: " << describe(bad) << "careful: " << describe(good);
    assert(!bad.findings.empty() && good.findings.empty() && good.points != 0);
}
