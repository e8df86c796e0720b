// SPDX-License-Identifier: MIT
// A channel hands items from tasks to tasks and is closed when there are no more; a mutex lets in one at a time, across
// suspensions.
#include <cordon/cordon.hpp>

#include <cassert>
#include <iostream>
#include <memory>
#include <optional>

using namespace std::chrono_literals;
namespace co = cordon;

// [pipeline]
co::task<> produce(co::channel<int>::sender out, int first) {
    for (int i = first; i < first + 3; ++i) {
        const bool sent = co_await out.send(int{i});  // waits for room
        if (!sent) co_return;                         // closed: nobody receives any more
    }
}   // with the last sender the channel closes

co::task<> consume(co::channel<int>& jobs, int& sum) {
    while (true) {
        const std::optional<int> job = co_await jobs.receive();
        if (!job) break;  // closed, and nothing is left
        sum += *job;
    }
}

co::task<int> work() {
    co::channel<int> jobs{2, {.name = "jobs"}};
    int sum = 0;
    co_await co::with_group([&](co::task_group& group) -> co::task<> {
        const auto out = jobs.make_sender();
        for (const int first : {1, 4}) group.spawn(produce(out, first));
        for (int i = 0; i < 3; ++i) group.spawn(consume(jobs, sum));
        co_return;
    });
    co_return sum;
}
// [/pipeline]

// [kept]
co::task<> not_lost(co::channel<std::unique_ptr<int>>& parcels) {  // of capacity 0: a rendezvous
    auto parcel = std::make_unique<int>(7);
    const auto late = co_await co::as_outcome(co::with_timeout(1ms, parcels.send(std::move(parcel))));
    assert(late.is_error() && parcel);               // nobody took it, so it is still ours
    assert(!parcels.try_receive());

    parcels.close();
    const bool sent = co_await parcels.send(std::move(parcel));
    assert(!sent && *parcel == 7);
}
// [/kept]

// [mutex]
struct account {
    co::async_mutex books{{.name = "books"}};
    int balance = 100;
};

co::task<bool> withdraw(account& a, int amount) {
    const co::async_mutex::guard mine = co_await a.books.lock();
    if (a.balance < amount) co_return false;
    co_await co::sleep_for(1ms);  // nobody else looks at the balance meanwhile
    a.balance -= amount;
    co_return true;
}
// [/mutex]

int main() {
    const int sum = co::sync_wait(work());
    std::cout << "the jobs add up to " << sum << '\n';
    assert(sum == 21);
    co::channel<std::unique_ptr<int>> parcels{0};
    co::sync_wait(not_lost(parcels));
    account a;
    const auto [first, second] = co::sync_wait(co::when_all(withdraw(a, 70), withdraw(a, 70)));
    assert(first != second && a.balance == 30);
}
