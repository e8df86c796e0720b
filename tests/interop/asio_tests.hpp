// SPDX-License-Identifier: MIT

// What both interop headers have to keep, included by each one's test with NET naming the library's namespace,
// NET_ERROR that of its error_code, NET_NAME how its tests are called, and `over` the namespace of ours that belongs to
// it. No `#pragma once`: it is a body.
//
// Asio has a clock of its own, so that what waits for a time here really waits: milliseconds, or an hour that nobody
// lets pass.

#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>
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
#include <string_view>
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
using NET_ERROR::error_code;
using NET_ERROR::system_error;
using net::experimental::as_tuple;
using stream = net::local::stream_protocol::socket;
using tcp = net::ip::tcp;

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
    } catch (const system_error& e) {
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
        const auto initiation = [this](auto&& handler) { this->keep(std::move(handler)); };
        return net::async_initiate<Token, void(Args...)>(initiation, token);
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


/// Two sockets that are connected.
struct wire {
    explicit wire(host& h) : near(h.io), far(h.io) { net::local::connect_pair(near, far); }
    void send(std::string_view text) { net::write(far, net::buffer(text)); }
    stream near, far;
};

/// Whether an operation that does not end by itself ends as it should: stopped by a stop, with a timeout_error by a
/// deadline, with an error when somebody else cancels it, and with its value when it has one. `op(true)` is one that
/// ends after `complete()`; `cancel()` is somebody else's.
template <class Op, class Cancel, class Complete>
void check_endings(host& h, Op op, Cancel cancel, Complete complete) {
    INFO("not cancelled");
    {
        auto waits = [&]() -> co::task<> { co_await op(true); };
        const auto ended = start(h, waits);
        h.poll();
        CHECK_FALSE(ended->has_value());
        complete();
        h.run();
        CHECK_NOTHROW(ended->value());
    }
    INFO("stopped in mid-wait");
    {
        co::task_group group{h.executor};
        bool began = false, went_on = false;
        auto waits = [&]() -> co::task<> {
            began = true;
            co_await op(false);
            went_on = true;
        };
        group.spawn(waits);
        h.poll();
        CHECK(began);
        CHECK(group.size() == 1);
        group.request_stop();
        join(h, group);
        CHECK_FALSE(went_on);
        CHECK(group.error_count() == 0);
    }
    INFO("a deadline in mid-wait");
    {
        auto waits = [&]() -> co::task<> { co_await co::with_timeout(3ms, op(false)); };
        CHECK_THROWS_AS(run(h, waits), co::timeout_error);
    }
    INFO("cancelled by somebody else in mid-wait");
    {
        auto waits = [&]() -> co::task<> { co_await op(false); };
        const auto ended = start(h, waits);
        h.poll();
        cancel();
        h.run();
        CHECK(code_of([&] { ended->value(); }) == operation_aborted);
    }
}

co::task<> acquire(co::async_semaphore& s) { co_await s.acquire(); }
co::task<> pass(int& n) {
    ++n;
    co_return;
}
net::awaitable<void> acquire_in_asio(co::async_semaphore& s, int& acquired) {
    co_await over::as_asio(s.acquire());
    ++acquired;
}
void rethrow(std::exception_ptr e) {
    if (e) std::rethrow_exception(e);
}

static_assert(co::executor<over::asio_executor>);

}  // namespace

// --- the executor -----------------------------------------------------------------------------------------------

TEST_CASE(NET_NAME ": tasks and sleeps run on the host's loop, without a thread of ours", TAGS) {
    host h;
    const std::size_t before = threads();
    const auto main_thread = std::this_thread::get_id();
    int steps = 0;
    auto body = [&]() -> co::task<> {
        CHECK(h.executor.is_current());
        co_await co::sleep_for(1ms);
        ++steps;
        co_await co::when_all(co::sleep_for(1ms), co::sleep_for(2ms));
        CHECK(std::this_thread::get_id() == main_thread);
        CHECK(threads() == before);
        ++steps;
    };
    const auto ended = start(h, body);
    CHECK_FALSE(h.executor.is_current());
    CHECK(steps == 0);
    h.run();
    CHECK_NOTHROW(ended->value());
    CHECK(steps == 2);
    CHECK(threads() == before);
}

TEST_CASE(NET_NAME ": run() returns when nothing is left, and no timer lingers", TAGS) {
    host h;
    const auto began = std::chrono::steady_clock::now();
    SECTION("after an operation that ended long before its deadline") {
        net::steady_timer timer(h.io, 1ms);
        auto body = [&]() -> co::task<> {
            co_await co::with_timeout(1h, timer.async_wait(over::use_cordon));
            co_await co::with_timeout(1h, co::sleep_for(1ms));
        };
        run(h, body);
    }
    SECTION("after a sleep that was stopped") {
        co::task_group group{h.executor};
        group.spawn(co::sleep_for(1h));
        h.poll();
        group.request_stop();
        join(h, group);
    }
    SECTION("after a sleep that was stopped in a callback of the host's") {
        co::task_group group{h.executor};
        group.spawn(co::sleep_for(1h));
        net::steady_timer timer(h.io, 1ms);
        timer.async_wait([&](const error_code&) { group.request_stop(); });
        join(h, group);
    }
    SECTION("after a timer that was cancelled outside") {
        co::timer timer([](co::timer&) noexcept {});
        timer.when = co::clock::now() + 1h;
        h.executor.timers().arm(timer);
        h.poll();
        std::thread([&] { h.executor.timers().cancel(timer); }).join();
        h.run();
    }
    SECTION("although a task waits for something outside, as nobody told the host") {
        co::async_semaphore nothing{0};
        auto body = [&]() -> co::task<> { co_await nothing.acquire(); };
        const auto ended = start(h, body);
        h.run();
        CHECK_FALSE(ended->has_value());
        nothing.release();
        h.run();
        CHECK(ended->has_value());
    }
    CHECK(std::chrono::steady_clock::now() - began < 1min);
}

TEST_CASE(NET_NAME ": a work guard keeps run() until a task has what it waits for from outside", TAGS) {
    host h;
    co::completion<int> answer;
    auto guard = net::make_work_guard(h.io);
    const auto main_thread = std::this_thread::get_id();
    auto body = [&]() -> co::task<int> {
        const int n = co_await answer.wait();
        CHECK(std::this_thread::get_id() == main_thread);
        guard.reset();
        co_return n;
    };
    std::thread outside([&] { answer.set_value(7); });
    CHECK(run(h, body) == 7);
    outside.join();
}

TEST_CASE(NET_NAME ": poll() and run_one() run what is ready and do not wait", TAGS) {
    host h;
    int n = 0;
    auto body = [&]() -> co::task<> {
        ++n;
        co_await co::this_task::yield();
        ++n;
        co_await co::sleep_for(50ms);  // real time: long enough that poll() cannot take as long
        ++n;
    };
    const auto ended = start(h, body);
    CHECK(h.io.poll() > 0);
    CHECK(n == 2);
    h.run();
    CHECK(ended->has_value());
    const auto again = start(h, body);
    h.io.restart();
    CHECK(h.io.run_one() == 1);
    CHECK(n >= 4);
    h.run();
    CHECK(again->has_value());
    CHECK(n == 6);
}

TEST_CASE(NET_NAME ": a task that never waits leaves the host's own handlers their turn", TAGS) {
    host h;
    bool done = false;
    int rounds = 0;
    auto body = [&]() -> co::task<> {
        while (!done) {
            ++rounds;
            co_await co::this_task::yield();
        }
    };
    const auto ended = start(h, body);
    net::steady_timer timer(h.io, 1ms);
    timer.async_wait([&](const error_code&) { done = true; });
    h.run();
    CHECK(ended->has_value());
    CHECK(rounds > 1);
}

TEST_CASE(NET_NAME ": sleepers wake in the order of their times, whoever began first", TAGS) {
    host h;
    std::vector<int> order;
    auto sleeper = [&](int ms) -> co::task<> {
        co_await co::sleep_for(std::chrono::milliseconds(ms));
        order.push_back(ms);
    };
    co::task_group group{h.executor};
    for (int ms : {6, 2, 4}) group.spawn(sleeper(ms));
    h.poll();
    group.spawn(sleeper(1));
    join(h, group);
    CHECK(order == std::vector{1, 2, 4, 6});
}

TEST_CASE(NET_NAME ": what other threads submit is run, all of it, on the host's loop", TAGS) {
    host h;
    constexpr int each = 20'000;
    auto guard = net::make_work_guard(h.io);
    const auto main_thread = std::this_thread::get_id();
    int ran = 0, elsewhere = 0;
    const auto submitter = [&] {
        for (int i = 0; i < each; ++i) {
            auto body = [&]() -> co::task<> {
                if (std::this_thread::get_id() != main_thread) ++elsewhere;
                if (++ran == 2 * each) guard.reset();
                co_return;
            };
            co::start_on(h.executor, body);
            if (i % 64 == 0) std::this_thread::yield();  // lets the loop fall asleep now and then
        }
    };
    std::thread one(submitter), other(submitter);
    h.run();
    one.join();
    other.join();
    CHECK(ran == 2 * each);
    CHECK(elsewhere == 0);
}

TEST_CASE(NET_NAME ": a wake-up from another thread is never lost", TAGS) {
    host h;
    constexpr int rounds = 20'000;
    co::async_semaphore ping{0}, pong{0};
    auto guard = net::make_work_guard(h.io);
    auto body = [&]() -> co::task<> {
        for (int i = 0; i < rounds; ++i) {
            co_await ping.acquire();
            pong.release();
        }
        guard.reset();
    };
    std::thread outside([&] {
        for (int i = 0; i < rounds; ++i) {
            ping.release();
            while (!pong.try_acquire()) std::this_thread::yield();
        }
    });
    run(h, body);
    outside.join();
}

TEST_CASE(NET_NAME ": a timer that another thread arms fires on the host's loop, before later ones", TAGS) {
    host h;
    struct noted : co::timer {
        explicit noted(co::clock::duration d) : timer(&noted::fired) { when = co::clock::now() + d; }
        static void fired(co::timer& t) noexcept { static_cast<noted&>(t).thread = std::this_thread::get_id(); }
        std::thread::id thread;
    };
    noted late(1h), early(2ms);
    h.executor.timers().arm(late);
    auto guard = net::make_work_guard(h.io);
    std::thread outside([&] {
        h.executor.timers().arm(early);
        guard.reset();
    });
    while (early.thread == std::thread::id()) h.io.run_one();
    CHECK(early.thread == std::this_thread::get_id());
    CHECK(late.thread == std::thread::id());
    outside.join();
    h.executor.timers().cancel(late);
    h.run();
}

TEST_CASE(NET_NAME ": several threads that run the context run one task at a time", TAGS) {
    host h;
    constexpr int children = 8, rounds = 500;
    int n = 0;  // not atomic
    std::atomic<int> inside{0};
    bool alone = true;
    auto child = [&]() -> co::task<> {
        for (int i = 0; i < rounds; ++i) {
            if (inside.fetch_add(1) != 0) alone = false;
            ++n;
            inside.fetch_sub(1);
            co_await co::this_task::yield();
            if (i % 100 == 0) co_await co::sleep_for(100us);
        }
    };
    co::task_group group{h.executor};
    for (int i = 0; i < children; ++i) group.spawn(child);
    std::thread other([&] { h.io.run(); });
    h.io.run();
    other.join();
    join(h, group);
    CHECK(n == children * rounds);
    CHECK(alone);
}

TEST_CASE(NET_NAME ": executors of one context are one loop, on which nobody may block", TAGS) {
    host h;
    over::asio_executor same{h.io};
    auto body = [&]() -> co::task<> {
        CHECK(same.is_current());
        CHECK_THROWS_AS(co::sync_wait(co::sleep_for(1h)), std::logic_error);
        co_return;
    };
    run(h, body);
}

// --- use_cordon -------------------------------------------------------------------------------------------------

TEST_CASE(NET_NAME ": a timer's wait ends by its time, a stop, a deadline or a cancel", TAGS "[use_cordon]") {
    host h;
    net::steady_timer timer(h.io);
    auto op = [&](bool ends) {
        timer.expires_after(ends ? net::steady_timer::duration(5ms) : 1h);
        return timer.async_wait(over::use_cordon);
    };
    check_endings(h, op, [&] { timer.cancel(); }, [] {});
}

TEST_CASE(NET_NAME ": a read ends by its data, a stop, a deadline or a cancel, and its buffer lives until then",
          TAGS "[use_cordon]") {
    host h;
    wire w(h);
    SECTION("the operation of a socket") {
        auto op = [&](bool) -> co::task<> {
            std::array<char, 16> buffer;
            const std::size_t n = co_await w.near.async_read_some(net::buffer(buffer), over::use_cordon);
            CHECK(std::string_view(buffer.data(), n) == "data");
        };
        check_endings(h, op, [&] { w.near.cancel(); }, [&] { w.send("data"); });
    }
    SECTION("a composed operation that is half done") {
        auto op = [&](bool) -> co::task<> {
            w.send("da");
            std::array<char, 4> buffer;
            const std::size_t n = co_await net::async_read(w.near, net::buffer(buffer), over::use_cordon);
            CHECK(n == 4);
            CHECK(std::string_view(buffer.data(), 2) == "da");
        };
        check_endings(h, op, [&] { w.near.cancel(); }, [&] { w.send("ta"); });
    }
    SECTION("a composed write that is half done") {
        const std::string much(4'000'000, 'x');
        auto op = [&](bool) -> co::task<> {
            const std::size_t n = co_await net::async_write(w.near, net::buffer(much), over::use_cordon);
            CHECK(n == much.size());
        };
        auto read_all = [&] {
            auto reads = [&]() -> co::task<> {
                std::string all(much.size(), '\0');
                co_await net::async_read(w.far, net::buffer(all), over::use_cordon);
                CHECK(all == much);
            };
            run(h, reads);
        };
        check_endings(h, op, [&] { w.near.cancel(); }, read_all);
    }
}

TEST_CASE(NET_NAME ": accept and connect are awaited, and an accept can be stopped", TAGS "[use_cordon]") {
    host h;
    tcp::acceptor acceptor(h.io, {net::ip::address_v4::loopback(), 0});
    std::vector<tcp::socket> clients;
    auto connect = [&] {
        tcp::socket& client = clients.emplace_back(h.io);
        auto connects = [&]() -> co::task<> {
            co_await client.async_connect(acceptor.local_endpoint(), over::use_cordon);
            CHECK(client.remote_endpoint() == acceptor.local_endpoint());
        };
        run(h, connects);
    };
    auto op = [&](bool) -> co::task<> {
        tcp::socket accepted = co_await acceptor.async_accept(over::use_cordon);
        CHECK(accepted.is_open());
    };
    check_endings(h, op, [&] { acceptor.cancel(); }, connect);
}

TEST_CASE(NET_NAME ": an error is thrown as the library's system_error", TAGS "[use_cordon]") {
    host h;
    wire w(h);
    w.far.close();
    char c;
    auto reads = [&]() -> co::task<> { co_await w.near.async_read_some(net::buffer(&c, 1), over::use_cordon); };
    CHECK(code_of([&] { run(h, reads); }) == net::error::eof);
}

TEST_CASE(NET_NAME ": what a handler gets is what the await gives: nothing, one value or a tuple",
          TAGS "[use_cordon]") {
    host h;
    const error_code refused = net::error::connection_refused;
    SECTION("nothing") {
        manual<> op;
        auto waits = [&]() -> co::task<> { co_await op.begin(over::use_cordon); };
        const auto ended = start(h, waits);
        h.poll();
        op.finish();
        h.run();
        CHECK_NOTHROW(ended->value());
    }
    SECTION("one value") {
        manual<error_code, int> op;
        auto waits = [&]() -> co::task<int> { co_return co_await op.begin(over::use_cordon); };
        auto ended = start(h, waits);
        h.poll();
        op.finish({}, 7);
        h.run();
        CHECK(ended->value() == 7);
        ended = start(h, waits);
        h.poll();
        op.finish(refused, 7);
        h.run();
        CHECK(code_of([&] { ended->value(); }) == refused);
    }
    SECTION("one that can only be moved, without an error") {
        manual<std::unique_ptr<int>> op;
        auto waits = [&]() -> co::task<std::unique_ptr<int>> { co_return co_await op.begin(over::use_cordon); };
        const auto ended = start(h, waits);
        h.poll();
        op.finish(std::make_unique<int>(7));
        h.run();
        CHECK(*ended->value() == 7);
    }
    SECTION("several") {
        manual<error_code, int, std::string> op;
        auto waits = [&]() -> co::task<> {
            const std::tuple<int, std::string> both = co_await op.begin(over::use_cordon);
            CHECK(both == std::tuple(7, std::string("seven")));
        };
        const auto ended = start(h, waits);
        h.poll();
        op.finish({}, 7, "seven");
        h.run();
        CHECK_NOTHROW(ended->value());
    }
    SECTION("an exception_ptr that comes first is thrown") {
        manual<std::exception_ptr, int> op;
        auto waits = [&]() -> co::task<int> { co_return co_await op.begin(over::use_cordon); };
        auto ended = start(h, waits);
        h.poll();
        op.finish(std::make_exception_ptr(std::out_of_range("far")), 7);
        h.run();
        CHECK_THROWS_AS(ended->value(), std::out_of_range);
        ended = start(h, waits);
        h.poll();
        op.finish(nullptr, 7);
        h.run();
        CHECK(ended->value() == 7);
    }
    SECTION("a post to the context gives nothing, later") {
        auto waits = [&]() -> co::task<> { co_await net::post(h.io, over::use_cordon); };
        run(h, waits);
    }
}

TEST_CASE(NET_NAME ": as_tuple makes errors values, but a stop and a deadline stay what they are",
          TAGS "[use_cordon]") {
    host h;
    wire w(h);
    std::array<char, 16> buffer;
    auto read = [&] { return w.near.async_read_some(net::buffer(buffer), as_tuple(over::use_cordon)); };
    SECTION("a value") {
        w.send("data");
        auto reads = [&]() -> co::task<> {
            const auto got = co_await read();
            const auto& [e, n] = got;
            CHECK_FALSE(e);
            CHECK(n == 4);
        };
        run(h, reads);
    }
    SECTION("an error") {
        w.far.close();
        auto reads = [&]() -> co::task<> {
            const auto got = co_await read();
            const auto& [e, n] = got;
            CHECK(e == net::error::eof);
            CHECK(n == 0);
        };
        run(h, reads);
    }
    SECTION("cancelled by somebody else") {
        auto reads = [&]() -> co::task<> {
            const auto got = co_await read();
            const auto& [e, n] = got;
            CHECK(e == operation_aborted);
            CHECK(n == 0);
        };
        const auto ended = start(h, reads);
        h.poll();
        w.near.cancel();
        h.run();
        CHECK_NOTHROW(ended->value());
    }
    SECTION("stopped") {
        co::task_group group{h.executor};
        bool went_on = false;
        auto reads = [&]() -> co::task<> {
            (void)co_await read();
            went_on = true;
        };
        group.spawn(reads);
        h.poll();
        group.request_stop();
        join(h, group);
        CHECK_FALSE(went_on);
    }
    SECTION("a deadline") {
        auto reads = [&]() -> co::task<> { (void)co_await co::with_timeout(3ms, read()); };
        CHECK_THROWS_AS(run(h, reads), co::timeout_error);
    }
}

TEST_CASE(NET_NAME ": a stop and a deadline cancel a coroutine of the host that a task awaits", TAGS "[use_cordon]") {
    host h;
    const auto slow = []() -> net::awaitable<int> {
        net::steady_timer t(co_await net::this_coro::executor, 1h);
        co_await t.async_wait(net::use_awaitable);
        co_return 1;
    };
    const auto quick = []() -> net::awaitable<int> { co_return 7; };
    int got = 0;
    auto gets = [&]() -> co::task<> { got = co_await net::co_spawn(h.io, quick(), over::use_cordon); };
    run(h, gets);
    CHECK(got == 7);
    auto times_out = [&]() -> co::task<> {
        (void)co_await co::with_timeout(3ms, net::co_spawn(h.io, slow(), over::use_cordon));
    };
    CHECK_THROWS_AS(run(h, times_out), co::timeout_error);
    co::task_group group{h.executor};
    group.spawn([&]() -> co::task<> { (void)co_await net::co_spawn(h.io, slow(), over::use_cordon); });
    h.poll();
    group.request_stop();
    join(h, group);
    CHECK(group.error_count() == 0);
}

TEST_CASE(NET_NAME ": a stop cancels the operation, and the task ends only with it", TAGS "[use_cordon]") {
    host h;
    manual<error_code, int> op;
    co::task_group group{h.executor};
    int got = 0;
    auto waits = [&]() -> co::task<> { got = co_await op.begin(over::use_cordon); };
    group.spawn(waits);
    h.poll();
    REQUIRE(op.begun == 1);
    group.request_stop();
    CHECK(op.cancels == 0);  // not inside the call
    h.poll();
    CHECK(op.cancels == 1);
    CHECK(group.size() == 1);
    SECTION("as aborted: stopped") {
        op.finish(operation_aborted, 0);
        join(h, group);
        CHECK(got == 0);
        CHECK(group.error_count() == 0);
    }
    SECTION("with a value, which counts") {
        op.finish({}, 7);
        join(h, group);
        CHECK(got == 7);
    }
    SECTION("with an error, which counts") {
        op.finish(net::error::eof, 0);
        join(h, group);
        CHECK(group.error_count() == 1);
    }
}

TEST_CASE(NET_NAME ": a value that is there at the same time as a stop wins", TAGS "[use_cordon]") {
    host h;
    manual<error_code, int> op;
    co::task_group group{h.executor};
    int got = 0;
    auto waits = [&]() -> co::task<> { got = co_await op.begin(over::use_cordon); };
    group.spawn(waits);
    h.poll();
    SECTION("the value first") {
        op.finish({}, 7);
        group.request_stop();
    }
    SECTION("the stop first") {
        group.request_stop();
        op.finish({}, 7);
    }
    join(h, group);
    CHECK(got == 7);
    CHECK(op.cancels == 0);  // it had ended: what it referred to may be gone
}

TEST_CASE(NET_NAME ": of a task that is stopped already no operation is begun", TAGS "[use_cordon]") {
    host h;
    manual<error_code> op;
    co::task_group group{h.executor};
    bool went_on = false;
    auto waits = [&]() -> co::task<> {
        group.request_stop();
        co_await op.begin(over::use_cordon);
        went_on = true;
    };
    group.spawn(waits);
    join(h, group);
    CHECK_FALSE(went_on);
    CHECK(op.begun == 0);
}

TEST_CASE(NET_NAME ": a stop from another thread cancels on the host's loop", TAGS "[use_cordon]") {
    host h;
    for (int round = 0; round < 200; ++round) {
        wire w(h);
        co::task_group group{h.executor};
        std::atomic<bool> reading{false};
        bool went_on = false;
        auto reads = [&]() -> co::task<> {
            char c;
            reading = true;
            co_await w.near.async_read_some(net::buffer(&c, 1), over::use_cordon);
            went_on = true;
        };
        group.spawn(reads);
        std::thread outside([&] {
            while (round % 2 == 0 && !reading) std::this_thread::yield();
            group.request_stop();
        });
        join(h, group);
        outside.join();
        CHECK_FALSE(went_on);
    }
}

TEST_CASE(NET_NAME ": stops race the ends of operations", TAGS "[use_cordon]") {
    host h;
    for (int round = 0; round < 300; ++round) {
        wire w(h);
        co::task_group group{h.executor};
        std::atomic<int> read{0};
        auto reads = [&]() -> co::task<> {
            char c;
            for (;;) {
                co_await w.near.async_read_some(net::buffer(&c, 1), over::use_cordon);
                ++read;
            }
        };
        group.spawn(reads);
        std::thread outside([&] {
            for (int i = 0; i < 5; ++i) w.send("x");
            while (read < round % 5) std::this_thread::yield();
            group.request_stop();
        });
        join(h, group);
        outside.join();
        CHECK(group.error_count() == 0);
    }
}

TEST_CASE(NET_NAME ": what an initiation throws is thrown by the await", TAGS "[use_cordon]") {
    host h;
    auto begin = [](auto&& token) {
        return net::async_initiate<decltype(token), void(error_code)>(
            [](auto&&) { throw std::runtime_error("no memory"); }, token);
    };
    auto waits = [&]() -> co::task<> { co_await begin(over::use_cordon); };
    CHECK_THROWS_AS(run(h, waits), std::runtime_error);
}

TEST_CASE(NET_NAME ": a dump says which operation a task waits for, and where", TAGS "[use_cordon]") {
    if (CORDON_TASK_RECORDS == 0) return;
    host h;
    wire w(h);
    co::task_group group{h.executor};
    auto reads = [&]() -> co::task<> {
        char c;
        co_await w.near.async_read_some(net::buffer(&c, 1), over::use_cordon);
    };
    group.spawn(reads, {.name = "reader"});
    h.poll();
    const auto children = group.children();
    REQUIRE(children.size() == 1);
    CHECK(children[0].name == "reader");
    CHECK(children[0].waits_for == "an Asio operation");
    REQUIRE_FALSE(children[0].waits.empty());
    CHECK(std::string(children[0].waits.back().file_name()).find("asio_tests.hpp") != std::string::npos);
    group.request_stop();
    join(h, group);
}

TEST_CASE(NET_NAME ": a context without an executor resumes where the operation ends", TAGS "[use_cordon]") {
    host h;
    const co::context none;
    manual<error_code, int> op;
    auto waits = [&]() -> co::task<int> { co_return co_await op.begin(over::use_cordon).with(none); };
    const auto ended = start(h, waits);
    h.poll();
    op.finish({}, 7);
    h.run();
    CHECK(ended->value() == 7);
}

// --- as_asio ----------------------------------------------------------------------------------------------------

TEST_CASE(NET_NAME ": a coroutine of the host goes on at once if there is nothing to wait for", TAGS "[as_asio]") {
    host h;
    co::async_semaphore slots{1};
    int acquired = 0;
    net::co_spawn(h.io, acquire_in_asio(slots, acquired), rethrow);
    h.io.run_one();
    CHECK(acquired == 1);
    h.run();
    CHECK(slots.stats().available == 0);
}

TEST_CASE(NET_NAME ": coroutines of the host wait in the order of their arrival", TAGS "[as_asio]") {
    host h;
    co::async_semaphore slots{0};
    std::vector<int> order;
    auto waits = [&](int i) -> net::awaitable<void> {
        co_await over::as_asio(slots.acquire());
        order.push_back(i);
    };
    for (int i = 0; i < 4; ++i) net::co_spawn(h.io, waits(i), rethrow);
    h.poll();
    CHECK(slots.stats().waiting == 4);
    CHECK(order.empty());
    slots.release(3);
    h.poll();
    CHECK(order == std::vector{0, 1, 2});
    slots.release();
    h.run();
    CHECK(order == std::vector{0, 1, 2, 3});
}

TEST_CASE(NET_NAME ": Asio's cancellation takes the waiter out of its queue, and it has taken nothing",
          TAGS "[as_asio]") {
    host h;
    co::async_semaphore slots{0};
    SECTION("the operator || of coroutines") {
        std::size_t index = 9;
        auto waits = [&]() -> net::awaitable<void> {
            net::steady_timer timer(co_await net::this_coro::executor, 3ms);
            const auto first =
                co_await (over::as_asio(slots.acquire()) || timer.async_wait(net::use_awaitable));
            index = first.index();
        };
        net::co_spawn(h.io, waits(), rethrow);
        h.run();
        CHECK(index == 1);
    }
    SECTION("a signal") {
        net::cancellation_signal signal;
        int acquired = 0;
        std::exception_ptr error;
        auto done = [&](std::exception_ptr e) { error = e; };
        net::co_spawn(h.io, acquire_in_asio(slots, acquired), net::bind_cancellation_slot(signal.slot(), done));
        h.poll();
        CHECK(slots.stats().waiting == 1);
        SECTION("before the operation ends") {
            signal.emit(net::cancellation_type::terminal);
            h.run();
            CHECK(code_of([&] { rethrow(error); }) == operation_aborted);
            CHECK(acquired == 0);
        }
        SECTION("when it has just ended: the value wins") {
            slots.release();
            signal.emit(net::cancellation_type::terminal);
            h.run();
            CHECK(acquired == 1);
        }
    }
    CHECK(slots.stats().waiting == 0);
    CHECK(slots.stats().available == 0);
    slots.release();
    CHECK(slots.try_acquire());
}

TEST_CASE(NET_NAME ": the operator || gives our value when it comes first", TAGS "[as_asio]") {
    host h;
    co::async_semaphore slots{0};
    std::size_t index = 9;
    auto waits = [&]() -> net::awaitable<void> {
        net::steady_timer timer(co_await net::this_coro::executor, 1h);
        const auto first = co_await (over::as_asio(slots.acquire()) || timer.async_wait(net::use_awaitable));
        index = first.index();
    };
    net::co_spawn(h.io, waits(), rethrow);
    h.poll();
    slots.release();
    h.run();
    CHECK(index == 0);
    CHECK(slots.stats().available == 0);
}

TEST_CASE(NET_NAME ": a cancelled coroutine's sleep leaves no timer", TAGS "[as_asio]") {
    host h;
    const auto began = std::chrono::steady_clock::now();
    auto waits = [&]() -> net::awaitable<void> {
        net::steady_timer timer(co_await net::this_coro::executor, 1ms);
        co_await (over::as_asio(co::sleep_for(1h)) || timer.async_wait(net::use_awaitable));
    };
    net::co_spawn(h.io, waits(), rethrow);
    h.run();
    CHECK(std::chrono::steady_clock::now() - began < 1min);
}

TEST_CASE(NET_NAME ": errors go through as_asio as they are", TAGS "[as_asio]") {
    host h;
    co::async_semaphore nothing{0};
    std::exception_ptr error;
    auto spawn = [&](net::awaitable<void> a) {
        net::co_spawn(h.io, std::move(a), [&](std::exception_ptr e) { error = e; });
        h.run();
        rethrow(error);
    };
    SECTION("a deadline") {
        CHECK_THROWS_AS(spawn(over::as_asio(co::with_timeout(3ms, nothing.acquire()))), co::timeout_error);
        CHECK(nothing.stats().waiting == 0);
    }
    SECTION("an exception of a task") {
        auto throws = []() -> co::task<> {
            co_await co::sleep_for(1ms);
            throw std::out_of_range("far");
        };
        CHECK_THROWS_AS(spawn(over::as_asio(throws())), std::out_of_range);
    }
    SECTION("a refusal") {
        co::task_group closed{h.executor};
        closed.request_stop();
        int n = 0;
        CHECK_THROWS_AS(spawn(over::as_asio(closed.spawn_future(pass(n)))), co::rejected);
        CHECK(n == 0);
        join(h, closed);
    }
    SECTION("a stop from inside is operation_aborted") {
        auto stops = [&]() -> co::task<> {
            co::task_group group{h.executor};
            auto child = [&]() -> co::task<int> { co_return co_await nothing.acquire(), 1; };
            const co::future<int> result = group.spawn_future(child);
            group.request_stop();
            co_await group.join();
            co_await result;
        };
        CHECK(code_of([&] { spawn(over::as_asio(stops())); }) == operation_aborted);
    }
}

TEST_CASE(NET_NAME ": results of all kinds come out of as_asio", TAGS "[as_asio]") {
    host h;
    co::completion<std::unique_ptr<int>> moved;
    co::task_group group{h.executor};
    auto seven = []() -> co::task<int> {
        co_await co::sleep_for(1ms);
        co_return 7;
    };
    co::future<int> result = group.spawn_future(seven);
    bool done = false;
    auto takes = [&]() -> net::awaitable<void> {
        auto at_once = []() -> co::task<int> { co_return 1; };
        const int one = co_await over::as_asio(at_once());
        const int later = co_await over::as_asio(seven());
        const int of_name = co_await over::as_asio(result);  // a name: awaited where it is
        CHECK(std::tuple(one, later, of_name) == std::tuple(1, 7, 7));
        CHECK(result.ready());
        const std::unique_ptr<int> there = co_await over::as_asio(moved.wait());
        CHECK(*there == 8);
        co_await over::as_asio(group.join());
        done = true;
    };
    net::co_spawn(h.io, takes(), rethrow);
    net::steady_timer timer(h.io, 5ms);
    timer.async_wait([&](const error_code&) { moved.set_value(std::make_unique<int>(8)); });
    h.run();
    CHECK(done);
}

TEST_CASE(NET_NAME ": a coroutine on a strand goes on on its strand", TAGS "[as_asio]") {
    host h;
    auto strand = net::make_strand(h.io);
    bool on_strand = false;
    auto waits = [&]() -> net::awaitable<void> {
        co_await over::as_asio(co::sleep_for(1ms));
        on_strand = strand.running_in_this_thread();
    };
    net::co_spawn(strand, waits(), rethrow);
    h.run();
    CHECK(on_strand);
}

TEST_CASE(NET_NAME ": a coroutine that is cancelled already does not begin to wait", TAGS "[as_asio]") {
    host h;
    co::async_semaphore slots{0};
    net::cancellation_signal signal;
    std::exception_ptr error;
    auto waits = [&]() -> net::awaitable<void> {
        co_await net::post(h.io, net::use_awaitable);
        signal.emit(net::cancellation_type::terminal);
        co_await over::as_asio(slots.acquire());
    };
    auto done = [&](std::exception_ptr e) { error = e; };
    net::co_spawn(h.io, waits(), net::bind_cancellation_slot(signal.slot(), done));
    h.run();
    CHECK(code_of([&] { rethrow(error); }) == operation_aborted);
    CHECK(slots.stats().waiting == 0);
}

TEST_CASE(NET_NAME ": a cancellation goes through a task into the operation that it waits for",
          TAGS "[as_asio][use_cordon]") {
    host h;
    wire w(h);
    std::size_t index = 9;
    auto reads = [&]() -> co::task<> {
        char c;
        co_await w.near.async_read_some(net::buffer(&c, 1), over::use_cordon);
    };
    auto waits = [&]() -> net::awaitable<void> {
        net::steady_timer timer(co_await net::this_coro::executor, 3ms);
        const auto first = co_await (over::as_asio(reads()) || timer.async_wait(net::use_awaitable));
        index = first.index();
    };
    net::co_spawn(h.io, waits(), rethrow);
    h.run();
    CHECK(index == 1);
}

// --- a context that is destroyed --------------------------------------------------------------------------------

namespace {

struct noted {
    explicit noted(int& n) : alive(&n) { ++n; }
    noted(const noted&) = delete;
    ~noted() { --*alive; }
    int* alive;
};
net::awaitable<void> abandoned(net::awaitable<void> awaited, int& alive, bool& went_on) {
    const noted here(alive);
    co_await std::move(awaited);
    went_on = true;
}
co::task<> abandoned_read(stream& socket, int& alive, bool& went_on) {
    const noted here(alive);
    std::array<char, 16> buffer;
    co_await socket.async_read_some(net::buffer(buffer), over::use_cordon);
    went_on = true;
}
co::task<> abandoned_read_of_its_own(stream socket, int& alive, bool& went_on) {
    co_await abandoned_read(socket, alive, went_on);
}

}  // namespace

TEST_CASE(NET_NAME ": a context that is destroyed destroys the coroutines that wait in as_asio", TAGS "[as_asio]") {
    int alive = 0;
    bool went_on = false;
    co::async_semaphore slots{0};
    {
        net::io_context io;
        stream near(io), far(io);
        net::local::connect_pair(near, far);
        const auto spawn = [&](auto executor, net::awaitable<void> a) {
            net::co_spawn(executor, abandoned(std::move(a), alive, went_on), rethrow);
        };
        SECTION("which leave the queue") {
            spawn(io.get_executor(), over::as_asio(slots.acquire()));
            spawn(io.get_executor(), over::as_asio(co::with_timeout(1h, slots.acquire())));
            spawn(net::make_strand(io), over::as_asio(acquire(slots)));
            io.poll();
            CHECK(slots.stats().waiting == 3);
            CHECK(alive == 3);
        }
        SECTION("before they have begun to wait") {
            spawn(io.get_executor(), over::as_asio(slots.acquire()));
            while (alive == 0) io.poll_one();
        }
        SECTION("when what they wait for has just come") {
            spawn(io.get_executor(), over::as_asio(slots.acquire()));
            io.poll();
            slots.release();
        }
        SECTION("when they are on their way back") {
            spawn(io.get_executor(), over::as_asio(slots.acquire()));
            spawn(net::make_strand(io), over::as_asio(slots.acquire()));
            io.poll();
            slots.release(2);
            io.poll_one();
        }
        SECTION("with the operations of Asio's that tasks wait for below") {
            spawn(io.get_executor(), over::as_asio(abandoned_read(near, alive, went_on)));
            spawn(net::make_strand(io), over::as_asio(abandoned_read_of_its_own(std::move(far), alive, went_on)));
            io.poll();
            CHECK(alive == 4);
        }
        SECTION("in the operator ||") {
            net::steady_timer timer(io, 1h);
            auto either = [&]() -> net::awaitable<void> {
                co_await (over::as_asio(slots.acquire()) || timer.async_wait(net::use_awaitable));
            };
            spawn(io.get_executor(), either());
            io.poll();
            CHECK(slots.stats().waiting == 1);
        }
    }
    CHECK(alive == 0);
    CHECK_FALSE(went_on);
    CHECK(slots.stats().waiting == 0);
    CHECK(co::live_tasks().empty());
}

TEST_CASE(NET_NAME ": a task awaits a coroutine of the host as it is: its value, its error, and in with", TAGS "[awaitable]") {
    host h;
    struct coroutine {
        static net::awaitable<std::string> later(std::string text) {
            net::steady_timer timer(co_await net::this_coro::executor, 1ms);
            co_await timer.async_wait(net::use_awaitable);
            co_return text;
        }
        static net::awaitable<void> fails() {
            co_await net::post(net::use_awaitable);
            throw std::runtime_error("broken");
        }
        static net::awaitable<void> hangs(bool& cancelled) {
            net::steady_timer timer(co_await net::this_coro::executor, 1h);
            const auto ended = co_await timer.async_wait(as_tuple(net::use_awaitable));
            cancelled = std::get<0>(ended) == operation_aborted;
            throw system_error(std::get<0>(ended));
        }
    };
    bool cancelled = false;
    auto program = [&]() -> co::task<> {
        const std::string text = co_await coroutine::later("seven");
        CHECK(text == "seven");
        const auto failed = co_await co::as_outcome(coroutine::fails());
        CHECK(failed.is_error());
        const auto late = co_await co::as_outcome(co::with_timeout(2ms, coroutine::hangs(cancelled)));
        CHECK(late.is_error());
        CHECK(cancelled);
    };
    run(h, program);
}

TEST_CASE(NET_NAME ": a stop cancels the host's coroutine that a task awaits, and one of no asio_executor is told",
          TAGS "[awaitable]") {
    host h;
    struct coroutine {
        static net::awaitable<int> hangs(bool& began) {
            net::steady_timer timer(co_await net::this_coro::executor, 1h);
            began = true;
            co_await timer.async_wait(net::use_awaitable);
            co_return 1;
        }
    };
    bool began = false;
    co::task_group group(h.executor);
    auto waits = [&]() -> co::task<> { (void)co_await coroutine::hangs(began); };
    REQUIRE(group.spawn(waits));
    while (!began) h.poll();
    group.request_stop();
    join(h, group);
    CHECK(group.error_count() == 0);

    const std::string words = last_words([] {
        bool never = false;
        auto elsewhere = [&]() -> co::task<int> {
            const int n = co_await coroutine::hangs(never);
            co_return n;
        };
        (void)co::sync_wait(elsewhere());
    });
    CHECK(words.find("an Asio coroutine is awaited by a task that runs on no asio_executor") != std::string::npos);
}

TEST_CASE(NET_NAME ": a pipeline takes coroutines of the host, from both sides", TAGS "[awaitable]") {
    host h;
    int calls = 0;
    struct coroutine {
        static net::awaitable<int> flaky(int& calls) {
            net::steady_timer timer(co_await net::this_coro::executor, 1ms);
            co_await timer.async_wait(net::use_awaitable);
            if (++calls < 3) throw system_error(net::error::connection_reset);
            co_return calls;
        }
    };
    const auto guarded = co::pipeline(co::timeout(10s), co::retry(4, {.backoff = co::constant(1ms)}));
    auto call = [&] { return coroutine::flaky(calls); };
    auto program = [&]() -> co::task<int> {
        const int n = co_await guarded(call);
        co_return n;
    };
    CHECK(run(h, program) == 3);
    calls = 0;
    int answer = 0;
    auto outside = [&]() -> net::awaitable<void> { answer = co_await over::as_asio(guarded(call)); };
    net::co_spawn(h.io, outside, net::detached);
    h.run();
    CHECK(answer == 3);
    CHECK(calls == 3);
}

TEST_CASE(NET_NAME ": a context that is destroyed under a task says so and terminates", TAGS) {
    SECTION("a timer is armed") {
        const std::string said = last_words([] {
            net::io_context io;
            over::asio_executor executor{io};
            co::start_on(executor, co::sleep_for(1h));
            io.poll();
        });
        CHECK(says(said, "io_context is destroyed with 1 timers armed", "end what runs on an asio_executor"));
    }
    SECTION("an operation is under way") {
        const std::string said = last_words([] {
            net::io_context io;
            over::asio_executor executor{io};
            net::steady_timer timer(io, 1h);
            auto waits = [&]() -> co::task<> { co_await co::with_timeout(2h, timer.async_wait(over::use_cordon)); };
            co::start_on(executor, waits);
            io.poll();
        });
        CHECK(says(said, "io_context is destroyed while a task waits for an operation of it at", "asio_tests.hpp:"));
    }
    SECTION("something has not run yet") {
        const std::string said = last_words([] {
            net::io_context io;
            over::asio_executor executor{io};
            co::start_on(executor, co::sleep_for(1h));
        });
        CHECK(says(said, "io_context is destroyed with", "something ready to run"));
    }
    SECTION("what as_asio waits for does not end when it is stopped") {
        const std::string said = last_words([] {
            co::async_semaphore slots{0};
            net::io_context io;
            net::co_spawn(io, over::as_asio(co::shield(acquire(slots), 1h)), net::detached);
            io.poll();
        });
        CHECK(says(said, "io_context is destroyed with", "1 operations that as_asio waits for"));
    }
}
