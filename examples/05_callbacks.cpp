// SPDX-License-Identifier: MIT
// Callbacks: a library that calls back once, on a thread of its own, becomes something to await, stop and time out.
#include <cordon/cordon.hpp>

#include <cassert>
#include <condition_variable>
#include <functional>
#include <iostream>
#include <mutex>
#include <system_error>
#include <thread>

using namespace std::chrono_literals;
namespace co = cordon;

/// The library, as one finds them. It knows nothing of cordon, and takes one request at a time.
class slow_squares {
public:
    using callback = std::function<void(std::error_code, int)>;

    /// Calls `done` after `delay`, or, once cancelled, as soon as it can.
    void start(int n, std::chrono::milliseconds delay, callback done) {
        worker_ = std::jthread([this, n, delay, done](std::stop_token canceled) {
            std::unique_lock lock(mutex_);
            changed_.wait_for(lock, canceled, delay, [] { return false; });
            if (canceled.stop_requested()) done(std::make_error_code(std::errc::operation_canceled), 0);
            else done({}, n * n);
        });
    }
    void cancel() { worker_.request_stop(); }

private:
    std::mutex mutex_;
    std::condition_variable_any changed_;
    std::jthread worker_;
};

// [bridge]
co::task<int> square(slow_squares& library, int n, std::chrono::milliseconds delay) {
    co::completion<int> done;
    library.start(n, delay, [&](std::error_code error, int result) {  // on the library's thread
        if (!error) done.set_value(result);
        else if (error == std::errc::operation_canceled) done.set_stopped();
        else done.set_error(std::make_exception_ptr(std::system_error(error)));
    });
    // A stop runs the hook, and then the callback is waited for: what it refers to stays alive.
    co_return co_await done.wait([&] { library.cancel(); });
}
// [/bridge]

co::task<> use(slow_squares& library, slow_squares& other) {
    const auto here = std::this_thread::get_id();

    auto both = co_await co::when_all(square(library, 3, 2ms), square(other, 4, 1ms));
    auto& [nine, sixteen] = both;
    assert(nine == 9 && sixteen == 16);
    assert(std::this_thread::get_id() == here);  // the task goes on where it runs, not where the callback was

    const auto late = co_await co::as_outcome(co::with_timeout(5ms, square(library, 5, 24h)));
    assert(late.is_error());  // a timeout_error; the library was told to cancel, and has called back

    const auto first = co_await co::when_any(square(library, 6, 24h), square(other, 7, 1ms));
    assert(std::get<1>(first) == 49);  // the other one was cancelled
    std::cout << nine << ", " << sixteen << ", one too late, and " << std::get<1>(first) << " came first\n";
}

// [late]
/// Without a hook the wait ends at once, and whatever the callback refers to has to live on until it comes.
co::task<bool> arrives_within(co::completion<int>& done, std::chrono::milliseconds d) {
    const auto waited = co_await co::as_outcome(co::with_timeout(d, done.wait()));
    co_return waited.has_value();
}
// [/late]

int main() {
    slow_squares library, other;
    co::sync_wait(use(library, other));
    co::completion<int> never;
    assert(!co::sync_wait(arrives_within(never, 1ms)));
}
