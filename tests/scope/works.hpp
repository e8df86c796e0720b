// SPDX-License-Identifier: MIT
#pragma once

// What the tests of this room run: a simulation that must leave nothing behind, and small tasks that end in each way.

#include <cordon/core/clock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace works {

namespace co = cordon;
using namespace std::chrono_literals;
using co::testing::simulation;

/// Runs `f()` or `f(sim)` in a simulation, which must leave nothing behind.
template <class F>
void simulate(F&& f, std::uint64_t seed = 1) {
    const std::size_t before = co::live_tasks().size();
    simulation sim(seed);
    if constexpr (std::invocable<F&>) sim.run(f());
    else sim.run(f(sim));
    CHECK(sim.armed_timers() == 0);
    CHECK(co::live_tasks().size() == before);
}

/// Counts those of its kind that live.
class counted {
public:
    explicit counted(int& n) noexcept : n_(&n) { ++n; }
    counted(const counted& other) noexcept : counted(*other.n_) {}
    counted& operator=(const counted&) = delete;
    ~counted() { --*n_; }

private:
    int* n_;
};

inline co::task<int> ready(int value) { co_return value; }
inline co::task<> pause(co::clock::duration d) { co_await co::sleep_for(d); }
template <class T>
co::task<T> later(co::clock::duration d, T value) {
    co_await co::sleep_for(d);
    co_return value;
}
inline co::task<> add(int& to, co::clock::duration d) {
    co_await co::sleep_for(d);
    ++to;
}
template <class T = int>
co::task<T> wait_here(int& alive) {
    const counted here(alive);
    co_await co::sleep_for(1h);
    if constexpr (!std::is_void_v<T>) co_return T();
}
template <class T = int>
co::task<T> fail_after(co::clock::duration d, std::string what) {
    co_await co::sleep_for(d);
    throw std::runtime_error(what);
}
inline co::task<int> stop_after(co::clock::duration d) {
    co_await co::sleep_for(d);
    co_await co::this_task::stop();
    co_return 0;
}
/// Does not end before its time, whoever asks.
inline co::task<int> deaf(co::clock::duration d, int value) {
    const co::context* const ctx = co_await co::this_task::context();
    const co::context apart = ctx->without_stop();
    co_await pause(d).with(apart);
    co_return value;
}
inline co::task<> stop_at(co::clock::duration d, co::inplace_stop_source& source) {
    co_await co::sleep_for(d);
    source.request_stop();
}

inline std::string text_of(const std::exception_ptr& error) {
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        return e.what();
    } catch (const co::canceled&) {
        return "canceled";
    }
}
template <class T>
std::string text_of(const co::outcome<T>& o) {
    if (o.is_stopped()) return "stopped";
    if (o.is_rejected()) return "rejected";
    return o.has_value() ? "value" : text_of(o.error());
}

}  // namespace works
