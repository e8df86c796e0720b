// SPDX-License-Identifier: MIT
// A host that has a loop of its own polls cordon's; and work that goes to another executor comes back.
#include <cordon/cordon.hpp>

#include <cassert>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <numeric>
#include <optional>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

// [host]
/// The host's loop: it sleeps until somebody rings, or until a time.
class host {
public:
    void ring() noexcept {
        const std::lock_guard lock(mutex_);
        rang_ = true;
        changed_.notify_one();
    }
    void sleep(std::optional<co::clock::time_point> until) {
        std::unique_lock lock(mutex_);
        const auto rang = [this] { return rang_; };
        if (until) changed_.wait_until(lock, *until, rang);
        else changed_.wait(lock, rang);
        rang_ = false;
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool rang_ = false;
};
// [/host]

// [on]
co::task<int> sum(co::run_loop& worker, std::vector<int> numbers) {
    const auto here = std::this_thread::get_id();
    auto crunch = [&]() -> co::task<int> {
        assert(std::this_thread::get_id() != here);
        co_return std::accumulate(numbers.begin(), numbers.end(), 0);
    };
    const int result = co_await co::on(worker, crunch);  // under the same stop, deadline and values
    assert(std::this_thread::get_id() == here);
    co_await co::sleep_for(1ms);
    co_return result;
}
// [/on]

int main() {
    co::run_loop worker;
    std::jthread thread([&](std::stop_token stop) {
        std::stop_callback end(stop, [&] { worker.stop(); });
        worker.run();
    });

    // [poll]
    host own;
    co::run_loop loop([](void* h) noexcept { static_cast<host*>(h)->ring(); }, &own);

    std::optional<int> result;
    const std::vector<int> numbers(100, 7);
    co::start_on(loop, sum(worker, numbers), [&](const co::outcome<int>& ended) { result = ended.value(); });
    do {
        own.sleep(loop.next_wake());  // nobody needs the loop before that, or somebody rings
        while (loop.poll()) {
        }
    } while (!result);
    // [/poll]
    std::cout << *result << ", from another thread to the host's loop\n";
    assert(result == 700);
}
