// SPDX-License-Identifier: MIT
#include <cordon/interop/asio.hpp>

#include <asio.hpp>
#include <asio/experimental/as_tuple.hpp>
#include <asio/experimental/awaitable_operators.hpp>

#define NET asio
#define NET_ERROR std
#define NET_NAME "asio"
namespace over = cordon;
#include "asio_tests.hpp"

TEST_CASE("asio: errors are the standard library's", "[interop][asio]") {
    host h;
    net::steady_timer timer(h.io, 1h);
    auto waits = [&]() -> co::task<> { co_await timer.async_wait(over::use_cordon); };
    const auto ended = start(h, waits);
    h.poll();
    timer.cancel();
    h.run();
    CHECK_THROWS_AS(ended->value(), std::system_error);
}
