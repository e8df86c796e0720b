// SPDX-License-Identifier: MIT

// What both interop headers have to keep, included by each one's test with NET naming the library's namespace, NET_NAME
// how its tests are called, and `over` the namespace of ours that belongs to it. No `#pragma once`: it is a body.
//
// Asio has a clock of its own, so that what waits for a time here really waits: milliseconds, or an hour that nobody
// lets pass.

#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <iterator>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace co = cordon;
namespace net = NET;
using namespace std::chrono_literals;
using namespace net::experimental::awaitable_operators;

#define TAGS "[interop][" NET_NAME "]"

namespace {

using net::error::operation_aborted;
using error_code = std::decay_t<decltype(net::error::make_error_code(operation_aborted))>;

/// A host with its loop, which must leave nothing behind.
struct host {
    ~host() {
        poll();
        CHECK(co::live_tasks().empty());
    }
    void run() {
        io.restart();
        io.run();
    }
    void poll() {
        io.restart();
        io.poll();
    }
    net::io_context io;
    over::asio_executor executor{io};
};

template <class T>
struct ending {
    [[nodiscard]] bool has_value() const { return result.has_value(); }
    T value() {
        REQUIRE(result);
        return std::move(*result).value();
    }
    [[nodiscard]] bool stopped() const { return result && result->is_stopped(); }
    std::optional<co::outcome<T>> result;
};

/// Starts `f()`, a task, on the host's loop.
template <class F>
auto start(host& h, F& f) {
    using value_type = co::await_result_t<std::invoke_result_t<F&>>;
    auto ended = std::make_shared<ending<value_type>>();
    co::start_on(h.executor, f, [ended](co::outcome<value_type> o) { ended->result.emplace(std::move(o)); });
    return ended;
}
/// Runs `f()` until nothing is left.
template <class F>
auto run(host& h, F& f) {
    const auto ended = start(h, f);
    h.run();
    return ended->value();
}
void join(host& h, co::task_group& group) {
    auto joins = [&]() -> co::task<> { co_await group.join(); };
    run(h, joins);
}

/// The code of the library's system_error that `f()` throws.
template <class F>
error_code code_of(F&& f) {
    try {
        f();
    } catch (const NET::detail::remove_cv<decltype(NET_SYSTEM_ERROR)>::type& e) {
        return e.code();
    }
    return {};
}

/// An operation whose end the test decides.
template <class... Args>
class manual {
public:
    template <class Token>
    auto begin(Token&& token) {
        return net::async_initiate<Token, void(Args...)>([this](auto&& handler) { keep(std::move(handler)); }, token);
    }
    void finish(Args... args) { std::exchange(pending_, nullptr)->call(std::move(args)...); }
    void drop() { pending_ = nullptr; }

    int begun = 0, cancels = 0;

private:
    struct kept {
        virtual ~kept() = default;
        virtual void call(Args... args) = 0;
    };
    template <class Handler>
    void keep(Handler&& handler) {
        struct wrapped : kept {
            explicit wrapped(Handler&& h) : handler(std::move(h)) {}
            void call(Args... args) override { std::move(handler)(std::move(args)...); }
            Handler handler;
        };
        ++begun;
        auto slot = net::get_associated_cancellation_slot(handler);
        if (slot.is_connected()) slot.assign([this](net::cancellation_type) { ++cancels; });
        pending_ = std::make_unique<wrapped>(std::move(handler));
    }
    std::unique_ptr<kept> pending_;
};

std::size_t threads() {
    const std::filesystem::directory_iterator tasks("/proc/self/task");
    return static_cast<std::size_t>(std::distance(begin(tasks), end(tasks)));
}

}  // namespace
