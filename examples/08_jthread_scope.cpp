// SPDX-License-Identifier: MIT
// Threads of a host: the stop_token of a std::jthread drives scopes and tasks, and a scope wakes what waits in a thread.
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
    const auto kind_name = [](co::stop_kind kind) { return kind == co::stop_kind::deadline ? "deadline" : "request"; };

    std::stop_source asked;
    asked.request_stop();
    const auto in_5ms = [] { return co::deadline::after(5ms); };
    const co::stop_kind kinds[] = {poll_until_stopped(asked.get_token(), in_5ms()).kind,
                                   poll_until_stopped({}, in_5ms()).kind,
                                   wait_until_stopped(asked.get_token(), loop, {}).kind,
                                   wait_until_stopped({}, loop, in_5ms()).kind};
    for (co::stop_kind kind : kinds) std::cout << "ended by a " << kind_name(kind) << '\n';
    assert(kinds[0] == co::stop_kind::requested && kinds[1] == co::stop_kind::deadline);
    assert(kinds[2] == co::stop_kind::requested && kinds[3] == co::stop_kind::deadline);

    bool left_by_stop = false;
    std::jthread worker([&](std::stop_token stop) { run_until_stopped(stop, left_by_stop); });
    worker.request_stop();
    worker.join();
    assert(left_by_stop);
    std::cout << "the worker has stopped its tasks and left\n";
}
