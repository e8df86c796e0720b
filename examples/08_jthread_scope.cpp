// SPDX-License-Identifier: MIT
// Threads of a host: the token of a std::jthread drives scopes and tasks, and a scope wakes what waits in a thread.
#include <cordon/cordon.hpp>

#include <cassert>
#include <condition_variable>
#include <iostream>
#include <mutex>
#include <stop_token>
#include <thread>

using namespace std::chrono_literals;
namespace co = cordon;

// [poll]
/// A loop that asks. Nothing runs beside it, so the deadline is noticed when one asks.
co::stop_reason poll_until_stopped(std::stop_token stop, co::deadline until) {
    const co::cancel_scope work{stop, until};
    while (!work.stop_requested()) std::this_thread::sleep_for(1ms);  // stands for a piece of work
    return work.reason();
}
// [/poll]

// [wait]
/// A thread that sleeps. Somebody has to fire the timer: an executor that runs elsewhere.
co::stop_reason wait_until_stopped(std::stop_token stop, co::executor_ref timers, co::deadline until) {
    co::cancel_scope request{stop, timers, until};
    std::mutex mutex;
    std::condition_variable_any changed;
    std::unique_lock lock(mutex);
    changed.wait(lock, request.std_stop_token(), [] { return false; });
    return request.reason();
}
// [/wait]

// [task]
/// A thread that runs tasks until it is asked to stop.
void run_until_stopped(std::stop_token stop, bool& left_by_stop) {
    auto serve = []() -> co::task<> {
        for (;;) co_await co::sleep_for(1ms);
    };
    try {
        co::sync_wait(co::with(serve(), co::stop_on(stop)));
    } catch (const co::canceled&) {
        left_by_stop = true;
    }
}
// [/task]

int main() {
    // [loop]
    co::run_loop loop;
    std::jthread runner([&](std::stop_token stop) {
        std::stop_callback end(stop, [&] { loop.stop(); });
        loop.run();
    });
    // [/loop]
    co::stop_reason reasons[4];
    std::jthread asked([&](std::stop_token stop) {
        reasons[0] = poll_until_stopped(stop, co::deadline::after(1h));
        reasons[1] = wait_until_stopped(stop, loop, co::deadline::after(1h));
    });
    asked.request_stop();
    asked.join();
    std::jthread not_asked([&](std::stop_token stop) {
        reasons[2] = poll_until_stopped(stop, co::deadline::after(5ms));
        reasons[3] = wait_until_stopped(stop, loop, co::deadline::after(5ms));
    });
    not_asked.join();
    assert(reasons[0].kind == co::stop_kind::requested && reasons[1].kind == co::stop_kind::requested);
    assert(reasons[2].kind == co::stop_kind::deadline && reasons[3].kind == co::stop_kind::deadline);
    std::cout << "a stop of the thread ended both waits, and so did a deadline\n";

    bool left_by_stop = false;
    std::jthread worker([&](std::stop_token stop) { run_until_stopped(stop, left_by_stop); });
    worker.request_stop();
    worker.join();
    assert(left_by_stop);
    std::cout << "the worker has stopped its tasks and left\n";
}
