// SPDX-License-Identifier: MIT
// Threads of one's own: a pool that runs tasks, a pool for calls that block, and a group of named threads.
#include <cordon/cordon.hpp>

#include <cassert>
#include <iostream>
#include <stop_token>
#include <string>
#include <thread>

using namespace std::chrono_literals;
namespace co = cordon;

// [tree]
/// Adds up `from` to `to`: each half wherever a thread has nothing to do.
co::task<long> sum(long from, long to) {
    if (to - from < 1'000) {
        co_return (from + to - 1) * (to - from) / 2;
    }
    const long middle = from + (to - from) / 2;
    auto both = co_await co::when_all(sum(from, middle), sum(middle, to));
    auto& [left, right] = both;
    co_return left + right;
}
// [/tree]

/// Stands for a library that knows no coroutines.
std::string read_slowly(const std::string& name) {
    std::this_thread::sleep_for(1ms);
    return "contents of " + name;
}
// [blocking]
co::task<std::string> load(co::thread_pool& disk, std::string name) {
    std::string text = co_await co::run_blocking(disk, [&] { return read_slowly(name); });
    assert(!disk.is_current());  // back where it came from
    co_return text;
}
// [/blocking]
// [permit]
/// Waits as a thread for what tasks wait for, under the stop of the task that waits for this.
co::task<bool> with_permit(co::thread_pool& disk, co::async_semaphore& permits) {
    co_return co_await co::run_blocking(disk, [&](std::stop_token stop) {
        const auto mine = permits.hold_blocking(stop);  // an outcome with the permit, which goes back with it
        return mine.has_value();
    });
}
// [/permit]

int main() {
    // [pool]
    co::thread_pool workers{2, {.name = "workers"}};
    co::thread_pool disk{4, {.name = "disk"}};  // as many threads as calls may block at the same time
    const long total = co::sync_wait(co::on(workers, sum(0, 100'000)));
    // [/pool]
    assert(total == 4'999'950'000);
    const std::string text = co::sync_wait(co::on(workers, load(disk, "a.txt")));
    assert(text == "contents of a.txt");
    co::async_semaphore permits{1};
    assert(co::sync_wait(co::on(workers, with_permit(disk, permits))));

    // [join]
    co::task_group jobs{workers};
    jobs.spawn(co::sleep_for(1ms));
    const bool ended = jobs.join_blocking(1h).has_value();  // on this thread
    // [/join]
    assert(ended);

    // [group]
    co::thread_group pollers{{.name = "pollers"}};
    pollers.spawn("poller", [](std::stop_token stop) {
        while (!stop.stop_requested()) std::this_thread::sleep_for(1ms);
    });
    pollers.request_stop();
    pollers.join();
    // [/group]
    assert(pollers.size() == 0);
    std::cout << "the sum is " << total << ", and all threads have ended\n";
}
