// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/task_group.hpp>

#include <atomic>
#include <thread>

namespace bench {

/// Polls a loop until `done()`. Gives up the rest of its time slice once in a while: whoever is waited for may need it.
template <class Done, class Loop>
void poll_until(Done done, Loop& loop) {
    for (int polls = 0; !done(); ++polls) {
        loop.poll();
        if (polls % 256 == 255) std::this_thread::yield();
    }
}

/// A loop on a thread of its own that never sleeps.
class polled_thread {
public:
    polled_thread() = default;
    polled_thread(const polled_thread&) = delete;
    polled_thread& operator=(const polled_thread&) = delete;
    ~polled_thread() {
        last_.store(true, std::memory_order_relaxed);
        thread_.join();
    }
    cordon::run_loop& loop() noexcept { return loop_; }

private:
    cordon::run_loop loop_;
    std::atomic<bool> last_{false};
    std::thread thread_{[this] {
        poll_until([this] { return last_.load(std::memory_order_relaxed); }, loop_);
    }};
};

/// Joins a group from a thread that runs no loop just now.
inline void finish(cordon::run_loop& loop, cordon::task_group& group) {
    cordon::start_on(loop, group.join(), [&loop](cordon::outcome<void>) { loop.stop(); });
    loop.run();
}

}  // namespace bench
