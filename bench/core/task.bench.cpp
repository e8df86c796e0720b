// SPDX-License-Identifier: MIT
// A co_await of a child that ends at once.
#include "../rows.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#endif
#if __has_include(<boost/asio.hpp>)
#include <boost/asio.hpp>
#endif

namespace {

using namespace bench;

template <class Frames>
void bare(benchmark::State& state) {
    await_bare<Frames>(state).run();
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(bare<cached_frames>)->Name("await_ready/floor");
BENCHMARK(bare<listed_frames>)->Name("await_ready/floor_unbounded_frames");
BENCHMARK(bare<new_frames>)->Name("await_ready/floor_new_frames");
BENCHMARK(in_group<&await_child<benchmark::State>>)->Name("await_ready/cordon");

#if __has_include(<asio.hpp>)
[[gnu::noinline]] asio::awaitable<int> asio_child(int x) { co_return x; }
asio::awaitable<void> await_asio_child(benchmark::State& state) {
    int sum = 0;
    for (auto _ : state) sum += co_await asio_child(1);
    keep(sum);
}
void standalone_asio(benchmark::State& state) {
    asio::io_context io(1);
    asio::co_spawn(io, await_asio_child(state), asio::detached);
    io.run();
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(standalone_asio)->Name("await_ready/asio");
#endif

#if __has_include(<boost/asio.hpp>)
[[gnu::noinline]] boost::asio::awaitable<int> boost_child(int x) { co_return x; }
boost::asio::awaitable<void> await_boost_child(benchmark::State& state) {
    int sum = 0;
    for (auto _ : state) sum += co_await boost_child(1);
    keep(sum);
}
void boost_asio(benchmark::State& state) {
    boost::asio::io_context io(1);
    boost::asio::co_spawn(io, await_boost_child(state), boost::asio::detached);
    io.run();
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(boost_asio)->Name("await_ready/boost_asio");
#endif

}  // namespace
