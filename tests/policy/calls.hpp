// SPDX-License-Identifier: MIT
#pragma once

// Calls that follow a script, and what is done to them.

#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include <algorithm>
#include <chrono>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace policy_test {

using namespace std::chrono_literals;
namespace co = cordon;
using co::as_outcome;
using co::outcome;
using co::task;
using co::testing::simulation;

/// As many failures in a row. Not inlined: g++ 12 warns of the lengths of strings whose size it knows.
[[gnu::noinline]] inline std::string failures(std::size_t n) { return std::string(n, 'F'); }

/// What the calls of a service end with, one letter each; the last one again and again.
///   S  its number, from 1        F  a std::runtime_error that says its number    L  a std::logic_error
///   R  rate limited              D  draining                                     C  stopped, by itself
struct service {
    explicit service(std::string steps, co::clock::duration each = 0s) : script(std::move(steps)), takes(each) {}
    service(const service&) = delete;

    task<int> call() {
        ++calls;
        return run(calls, script[std::min(static_cast<std::size_t>(calls), script.size()) - 1]);
    }
    /// What a pipeline is given.
    auto fetch() {
        return [this] { return call(); };
    }

    std::string script;
    co::clock::duration takes;
    int calls = 0;    // frames that were made
    int running = 0;  // those whose body has begun, and whose locals live
    int finished = 0;
    int failed = 0;   // of those, by an error
    std::vector<co::clock::time_point> began;

private:
    task<int> run(int number, char how) {
        struct inside {
            explicit inside(int& n) : count(n) { ++count; }
            ~inside() { --count; }
            int& count;
        } const here(running);
        began.push_back(co::clock::now());
        try {
            if (takes > 0s) co_await co::sleep_for(takes);
        } catch (const std::exception&) {  // of a sweep
            ++finished;
            ++failed;
            throw;
        }
        ++finished;
        failed += how == 'F' || how == 'L' ? 1 : 0;
        switch (how) {
            case 'F': throw std::runtime_error(std::to_string(number));
            case 'L': throw std::logic_error(std::to_string(number));
            case 'R': throw co::rejected(co::rejection(co::reject_reason::rate_limited, "service"));
            case 'D': throw co::rejected(co::rejection(co::reject_reason::draining, "service"));
            case 'C': throw co::canceled();
            default: co_return number;
        }
    }
};

/// What the exception of an outcome says; empty if it is none.
template <class T>
std::string error_text(const outcome<T>& o) {
    if (!o.is_error()) return {};
    try {
        std::rethrow_exception(o.error());
    } catch (const std::exception& e) {
        return e.what();
    } catch (...) {
        return "no std::exception";
    }
}
/// The line where the deadline was set that ended it; 0 if none did.
template <class T>
unsigned timed_out_line(const outcome<T>& o) {
    if (!o.is_error()) return 0;
    try {
        std::rethrow_exception(o.error());
    } catch (const co::timeout_error& e) {
        return e.where().line();
    } catch (...) {
        return 0;
    }
}

inline task<> stop_after(co::inplace_stop_source& source, co::clock::duration d) {
    co_await co::sleep_for(d);
    source.request_stop(7);
}

/// How `op` ends if it is asked to stop after `d`, and how long it took.
template <class A>
auto stopped_after(co::clock::duration d, A op)
    -> task<std::pair<outcome<co::await_result_t<A>>, co::clock::duration>> {
    co::inplace_stop_source source;
    const auto begin = co::clock::now();
    const auto timed = [&]() -> task<std::pair<outcome<co::await_result_t<A>>, co::clock::duration>> {
        auto ended = co_await as_outcome(co::with(std::move(op), co::stop_on(source.get_token())));
        const auto took = co::clock::now() - begin;
        co_return std::pair(std::move(ended), took);
    };
    auto both = co_await co::when_all(timed(), stop_after(source, d));
    co_return std::get<0>(std::move(both));
}

/// A coroutine type of somebody else's, which runs at once and can be awaited by tasks.
class foreign {
public:
    struct promise_type {
        foreign get_return_object() { return foreign(std::coroutine_handle<promise_type>::from_promise(*this)); }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        struct at_end {
            bool await_ready() const noexcept { return false; }
            std::coroutine_handle<> await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
                return h.promise().awaiting ? h.promise().awaiting : std::noop_coroutine();
            }
            void await_resume() const noexcept {}
        };
        at_end final_suspend() const noexcept { return {}; }
        void return_void() noexcept {}
        void unhandled_exception() noexcept { std::terminate(); }
        std::coroutine_handle<> awaiting;
    };

    explicit foreign(std::coroutine_handle<promise_type> h) noexcept : handle_(h) {}
    foreign(foreign&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
    ~foreign() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return handle_.done(); }
    void await_suspend(std::coroutine_handle<> h) noexcept { handle_.promise().awaiting = h; }
    void await_resume() const noexcept {}

private:
    std::coroutine_handle<promise_type> handle_;
};

}  // namespace policy_test
