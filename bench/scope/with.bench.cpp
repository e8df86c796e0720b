// SPDX-License-Identifier: MIT
// A deadline around a child that ends at once, and around an operation that goes once around its loop.
#include "../rows.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#endif

namespace {

using namespace bench;
using benchmark::State;

void clock_alone(State& state) {
    for (auto _ : state) keep(co::clock::now());
}

BENCHMARK(in_group<&await_child<State>>)->Name("timeout_ready/bare");
BENCHMARK(in_group<&await_child_within<State>>)->Name("timeout_ready/cordon");
BENCHMARK(in_group<&await_child_with_value<State>>)->Name("timeout_ready/cordon_a_value_instead");
BENCHMARK(clock_alone)->Name("timeout_ready/floor_clock_alone");

BENCHMARK(in_group<&hop_bare<State>>)->Name("timeout_hop/bare");
BENCHMARK(in_group<&hop_within<State>>)->Name("timeout_hop/cordon");
BENCHMARK(in_group<&hop_in_child<State>>)->Name("timeout_hop/bare_in_child");
BENCHMARK(in_group<&hop_in_child_within<State>>)->Name("timeout_hop/cordon_in_child");

#if __has_include(<asio.hpp>)
[[gnu::noinline]] asio::awaitable<int> asio_child(int x) { co_return x; }
asio::awaitable<int> asio_hop(int x) {
    co_await asio::post(asio::use_awaitable);
    co_return x;
}

template <asio::awaitable<int> (*operation)(int)>
asio::awaitable<void> asio_bare(State& state) {
    int sum = 0;
    for (auto _ : state) sum += co_await operation(1);
    keep(sum);
}
template <asio::awaitable<int> (*operation)(int)>
asio::awaitable<void> asio_within(State& state) {
    using namespace asio::experimental::awaitable_operators;
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (auto _ : state) {
        timer.expires_after(1h);
        const auto first = co_await (operation(1) || timer.async_wait(asio::use_awaitable));
        if (first.index() != 0) state.SkipWithError("timed out");
    }
}
template <asio::awaitable<void> (*body)(State&)>
void on_asio(State& state) {
    asio::io_context io(1);
    asio::co_spawn(io, body(state), asio::detached);
    io.run();
}
BENCHMARK(on_asio<&asio_bare<&asio_child>>)->Name("timeout_ready/asio_bare");
BENCHMARK(on_asio<&asio_within<&asio_child>>)->Name("timeout_ready/asio");
BENCHMARK(on_asio<&asio_bare<&asio_hop>>)->Name("timeout_hop/asio_bare");
BENCHMARK(on_asio<&asio_within<&asio_hop>>)->Name("timeout_hop/asio");
#endif

}  // namespace
