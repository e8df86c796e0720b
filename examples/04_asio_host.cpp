// SPDX-License-Identifier: MIT
// A host with its own loop and coroutines: cordon tasks that use Asio I/O, and Asio coroutines that use cordon.
#include <cordon/cordon.hpp>
#include <cordon/interop/asio.hpp>  // <cordon/interop/boost_asio.hpp> for Boost.Asio

#include <asio.hpp>

#include <cassert>
#include <iostream>
#include <string>
#include <vector>

using namespace std::chrono_literals;
using asio::ip::tcp;
namespace co = cordon;

co::task<> visit(tcp::endpoint user_server, tcp::endpoint cart_server, asio::io_context& io) {
    tcp::socket users(io), carts(io);
    co_await users.async_connect(user_server, co::use_cordon);
    co_await carts.async_connect(cart_server, co::use_cordon);
    // [readme]
    auto read = [](tcp::socket& from) -> co::task<std::string> {
        char data[64];
        const std::size_t n = co_await from.async_read_some(asio::buffer(data), co::use_cordon);
        co_return std::string(data, n);
    };
    auto page = [&](co::task_group& group) -> co::task<std::string> {
        auto user = group.spawn_future(read(users)), cart = group.spawn_future(read(carts));
        co_return co_await user + " has " + co_await cart;
    };
    std::cout << co_await co::with_timeout(500ms, co::with_group(page)) << '\n';
    // [/readme]
}

/// Answers one connection after the other. The empty answer never comes.
co::task<> serve(tcp::acceptor& acceptor, std::vector<std::string> answers) {
    for (const std::string& answer : answers) {
        auto socket = co_await acceptor.async_accept(co::use_cordon);
        if (answer.empty()) co_await co::sleep_for(24h);
        co_await asio::async_write(socket, asio::buffer(answer), co::use_cordon);
    }
}

// [handler]
asio::awaitable<int> handler(co::async_semaphore& slots) {
    auto first = co_await co::as_asio(slots.hold());  // free at once
    // The second waits, on the host's loop and with its timer.
    const auto second = co_await co::as_asio(co::with_timeout(10s, slots.hold()));
    co_return 7;
}
// [/handler]

int main() {
    // [main]
    asio::io_context io;
    co::asio_executor executor{io};  // tasks and timers run on the host's loop; no thread of ours
    co::task_group servers{executor, {.name = "servers"}};
    co::async_semaphore slots{1, {.name = "slots"}};
    // [/main]
    const tcp::endpoint any_port(asio::ip::address_v4::loopback(), 0);
    tcp::acceptor users(io, any_port), carts(io, any_port);
    servers.spawn(serve(users, {"ada", "bob"}), {.name = "users"});
    servers.spawn(serve(carts, {"3 books", ""}), {.name = "carts"});
    auto visit_twice = [&]() -> co::task<> {
        co_await visit(users.local_endpoint(), carts.local_endpoint(), io);
        try {
            co_await visit(users.local_endpoint(), carts.local_endpoint(), io);
            assert(false);
        } catch (const co::timeout_error& e) {
            std::cout << "timed out by the deadline of line " << e.where().line() << "; both reads have ended\n";
        }
        slots.release();  // lets the handler go on
        servers.request_stop();
        co_await servers.join();
    };
    int answer = 0;
    asio::co_spawn(io, handler(slots), [&](auto, int n) { answer = n; });
    co::start_on(executor, visit_twice(), [](const co::outcome<void>& ended) { assert(ended.has_value()); });
    io.run();
    assert(answer == 7);
}
