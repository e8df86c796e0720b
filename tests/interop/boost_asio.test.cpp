// SPDX-License-Identifier: MIT
#include <cordon/interop/boost_asio.hpp>

// Both headers in one file: every name of ours is qualified here, while asio.test.cpp has one header and plain names.
#include <cordon/interop/asio.hpp>

#include <asio/io_context.hpp>
#include <asio/steady_timer.hpp>
#include <boost/asio.hpp>
#include <boost/asio/experimental/as_tuple.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>

#define NET boost::asio
#define NET_ERROR boost::system
#define NET_NAME "boost_asio"
namespace over = cordon::over_boost_asio;
#include "asio_tests.hpp"

TEST_CASE("boost_asio: errors are Boost's", "[interop][boost_asio]") {
    host h;
    net::steady_timer timer(h.io, 1h);
    auto waits = [&]() -> co::task<> { co_await timer.async_wait(over::use_cordon); };
    const auto ended = start(h, waits);
    h.poll();
    timer.cancel();
    h.run();
    CHECK_THROWS_AS(ended->value(), boost::system::system_error);
}

TEST_CASE("boost_asio: both libraries serve one program, and even one task", "[interop][boost_asio][asio]") {
    asio::io_context other;
    cordon::over_asio::asio_executor there{other};
    host h;
    net::steady_timer here(h.io, 1ms);
    asio::steady_timer across(other, 1ms);
    int steps = 0;
    auto both = [&]() -> co::task<> {
        co_await here.async_wait(over::use_cordon);
        ++steps;
        co_await across.async_wait(cordon::over_asio::use_cordon);
        ++steps;
    };
    auto theirs = [&]() -> co::task<> {
        co_await co::sleep_for(1ms);
        ++steps;
    };
    const auto ended = start(h, both);
    co::start_on(there, theirs);
    while (!ended->has_value() || steps < 3) {
        h.poll();
        other.restart();
        other.poll();
    }
    CHECK(steps == 3);
}
