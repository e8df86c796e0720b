// SPDX-License-Identifier: MIT
// Asio operations awaited in tasks by `use_cordon`, and in Asio's own coroutines by `use_awaitable`: 64 bytes to and
// fro between two ends of a local socket on one thread, and once around the context without any system call.
#include "../rows.hpp"

#if __has_include(<asio.hpp>)
#include <cordon/interop/asio.hpp>

#include <asio.hpp>

#include <array>

namespace {

using namespace bench;
using benchmark::State;
using stream = asio::local::stream_protocol::socket;
using message = std::array<char, 64>;

/// Two ends that are connected.
struct wire {
    asio::io_context io{1};
    stream near{io}, far{io};
    wire() { asio::local::connect_pair(near, far); }
};

// --- use_cordon -------------------------------------------------------------------------------------------------

co::task<> cordon_echo(stream& s) {
    message m{};
    for (;;) {
        const std::size_t n = co_await s.async_read_some(asio::buffer(m), co::use_cordon);
        co_await s.async_write_some(asio::buffer(m, n), co::use_cordon);
    }
}
co::task<> cordon_ask(stream& s, co::task_group& group, State& state) {
    message m{};
    for (auto _ : state) {
        co_await s.async_write_some(asio::buffer(m), co::use_cordon);
        const std::size_t n = co_await s.async_read_some(asio::buffer(m), co::use_cordon);
        if (n != m.size()) state.SkipWithError("a message was cut");
    }
    group.request_stop();
}
void echo_cordon(State& state) {
    wire w;
    co::asio_executor executor{w.io};
    co::task_group group{executor};
    group.spawn(cordon_echo(w.far));
    group.spawn(cordon_ask(w.near, group, state));
    co::start_on(executor, group.join(), [](const co::outcome<void>&) {});
    w.io.run();
}
BENCHMARK(echo_cordon)->Name("asio_echo/use_cordon");

co::task<> cordon_post(asio::io_context& io, State& state) {
    for (auto _ : state) co_await asio::post(io, co::use_cordon);
}
void post_cordon(State& state) {
    asio::io_context io(1);
    co::asio_executor executor{io};
    co::task_group group{executor};
    group.spawn(cordon_post(io, state));
    co::start_on(executor, group.join(), [](const co::outcome<void>&) {});
    io.run();
}
BENCHMARK(post_cordon)->Name("asio_post/use_cordon");

// --- use_awaitable ----------------------------------------------------------------------------------------------

asio::awaitable<void> asio_echo(stream& s) {
    message m{};
    for (;;) {
        const std::size_t n = co_await s.async_read_some(asio::buffer(m), asio::use_awaitable);
        co_await s.async_write_some(asio::buffer(m, n), asio::use_awaitable);
    }
}
asio::awaitable<void> asio_ask(stream& s, State& state) {
    message m{};
    for (auto _ : state) {
        co_await s.async_write_some(asio::buffer(m), asio::use_awaitable);
        const std::size_t n = co_await s.async_read_some(asio::buffer(m), asio::use_awaitable);
        if (n != m.size()) state.SkipWithError("a message was cut");
    }
    s.close();
}
void echo_asio(State& state) {
    wire w;
    asio::co_spawn(w.io, asio_echo(w.far), asio::detached);
    asio::co_spawn(w.io, asio_ask(w.near, state), asio::detached);
    w.io.run();
}
BENCHMARK(echo_asio)->Name("asio_echo/use_awaitable");

asio::awaitable<void> asio_post(State& state) {
    for (auto _ : state) co_await asio::post(asio::use_awaitable);
}
void post_asio(State& state) {
    asio::io_context io(1);
    asio::co_spawn(io, asio_post(state), asio::detached);
    io.run();
}
BENCHMARK(post_asio)->Name("asio_post/use_awaitable");

// --- the floor: callbacks ---------------------------------------------------------------------------------------

class callback_echo {
public:
    explicit callback_echo(stream& s) : stream_(s) { read(); }

private:
    void read() {
        stream_.async_read_some(asio::buffer(message_), [this](const asio::error_code& e, std::size_t n) {
            if (!e) write(n);
        });
    }
    void write(std::size_t n) {
        stream_.async_write_some(asio::buffer(message_, n), [this](const asio::error_code& e, std::size_t) {
            if (!e) read();
        });
    }
    stream& stream_;
    message message_{};
};
class callback_ask {
public:
    callback_ask(stream& s, State& state) : stream_(s), state_(state) { next(); }

private:
    void next() {
        if (!state_.KeepRunning()) return stream_.close();
        stream_.async_write_some(asio::buffer(message_), [this](const asio::error_code&, std::size_t) { read(); });
    }
    void read() {
        stream_.async_read_some(asio::buffer(message_), [this](const asio::error_code&, std::size_t n) {
            if (n != message_.size()) state_.SkipWithError("a message was cut");
            next();
        });
    }
    stream& stream_;
    State& state_;
    message message_{};
};
void echo_callbacks(State& state) {
    wire w;
    callback_echo echo(w.far);
    callback_ask ask(w.near, state);
    w.io.run();
}
BENCHMARK(echo_callbacks)->Name("asio_echo/floor_callbacks");

class callback_post {
public:
    callback_post(asio::io_context& io, State& state) : io_(io), state_(state) { next(); }

private:
    void next() {
        if (state_.KeepRunning()) asio::post(io_, [this] { next(); });
    }
    asio::io_context& io_;
    State& state_;
};
void post_callbacks(State& state) {
    asio::io_context io(1);
    callback_post post(io, state);
    io.run();
}
BENCHMARK(post_callbacks)->Name("asio_post/floor_callbacks");

}  // namespace
#endif
