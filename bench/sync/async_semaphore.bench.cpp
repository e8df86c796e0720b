// SPDX-License-Identifier: MIT
// A semaphore that nobody else wants, and two tasks that wake each other through a pair of them, on one thread and on
// two.
#include "../rows.hpp"

#include "../polled_thread.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#include <asio/experimental/channel.hpp>
#endif

#include <atomic>
#include <mutex>
#include <semaphore>

namespace {

using namespace bench;
using benchmark::State;

// --- uncontended ------------------------------------------------------------------------------------------------

void two_exchanges(State& state) {
    std::atomic<std::uint64_t> word{1};
    for (auto _ : state) {
        std::uint64_t seen = 1;
        keep(word.compare_exchange_strong(seen, 0, std::memory_order_acquire));
        seen = 0;
        keep(word.compare_exchange_strong(seen, 1, std::memory_order_release));
    }
}
BENCHMARK(two_exchanges)->Name("semaphore_uncontended/floor");
BENCHMARK(in_group<&semaphore_uncontended<State>>)->Name("semaphore_uncontended/cordon");

void try_acquire(State& state) {
    co::async_semaphore semaphore{1};
    for (auto _ : state) {
        if (!semaphore.try_acquire()) state.SkipWithError("not free");
        semaphore.release();
    }
}
BENCHMARK(try_acquire)->Name("semaphore_uncontended/cordon_try_acquire");

void std_semaphore(State& state) {
    std::counting_semaphore<> semaphore{1};
    for (auto _ : state) {
        semaphore.acquire();
        semaphore.release();
    }
}
BENCHMARK(std_semaphore)->Name("semaphore_uncontended/std_counting_semaphore");

void std_mutex(State& state) {
    begin_threads();
    std::mutex mutex;
    for (auto _ : state) {
        mutex.lock();
        keep(&mutex);
        mutex.unlock();
    }
}
BENCHMARK(std_mutex)->Name("semaphore_uncontended/std_mutex");

// --- ping-pong: each item is one switch -------------------------------------------------------------------------

void two_switches_a_step(State& state) { state.SetItemsProcessed(2 * state.iterations()); }

void ping_pong(State& state) {
    run_as_child(&semaphore_ping_pong<State>, state);
    two_switches_a_step(state);
}
BENCHMARK(ping_pong)->Name("semaphore_ping_pong/cordon");

/// What a wake-up costs without the semaphore: a leaf that is completed as soon as it waits.
void hop_alone(State& state) {
    run_as_child(&hop_bare<State>, state);
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(hop_alone)->Name("semaphore_ping_pong/floor_hop");

#if __has_include(<asio.hpp>)
using channel = asio::experimental::channel<void(asio::error_code, int)>;

asio::awaitable<void> asio_answer(channel& ping, channel& pong, const bool& last) {
    while (!last) {
        co_await ping.async_receive(asio::use_awaitable);
        pong.try_send(asio::error_code(), 1);
    }
}
asio::awaitable<void> asio_ask(channel& ping, channel& pong, bool& last, State& state) {
    for (auto _ : state) {
        ping.try_send(asio::error_code(), 1);
        co_await pong.async_receive(asio::use_awaitable);
    }
    last = true;
    ping.try_send(asio::error_code(), 1);
}
void asio_channels(State& state) {
    asio::io_context io(1);
    channel ping(io, 1), pong(io, 1);
    bool last = false;
    asio::co_spawn(io, asio_answer(ping, pong, last), asio::detached);
    asio::co_spawn(io, asio_ask(ping, pong, last, state), asio::detached);
    io.run();
    two_switches_a_step(state);
}
BENCHMARK(asio_channels)->Name("semaphore_ping_pong/asio_channel");
#endif

// --- the same between two threads that are both awake -----------------------------------------------------------

struct table {
    co::async_semaphore ping{0}, pong{0};
    std::atomic<bool> last{false};
};
co::task<> answer(table& t) {
    while (!t.last.load(std::memory_order_relaxed)) {
        co_await t.ping.acquire();
        t.pong.release();
    }
}
co::task<> ask(table& t, State& state) {
    for (auto _ : state) {
        t.ping.release();
        co_await t.pong.acquire();
    }
    t.last.store(true, std::memory_order_relaxed);
    t.ping.release();
}
void between_threads(State& state) {
    co::run_loop here;
    polled_thread there;
    table t;
    {
        co::task_group there_group{there.loop()}, here_group{here};
        there_group.spawn(answer(t));
        here_group.spawn(ask(t, state));
        poll_until([&] { return here_group.size() == 0 && there_group.size() == 0; }, here);
        finish(here, here_group);
        finish(here, there_group);
    }
    two_switches_a_step(state);
}
BENCHMARK(between_threads)->Name("semaphore_ping_pong_2_threads/cordon")->UseRealTime();

void cache_line(State& state) {
    alignas(64) std::atomic<std::int64_t> ping{0};
    alignas(64) std::atomic<std::int64_t> pong{0};
    const auto await_change = [](const std::atomic<std::int64_t>& word, std::int64_t old) {
        std::int64_t seen;
        for (co::detail::spin_wait spin; (seen = word.load(std::memory_order_acquire)) == old;) spin();
        return seen;
    };
    std::thread other([&] {
        for (std::int64_t seen = 0; (seen = await_change(ping, seen)) >= 0;)
            pong.store(seen, std::memory_order_release);
    });
    std::int64_t turn = 0;
    for (auto _ : state) {
        ping.store(turn + 1, std::memory_order_release);
        turn = await_change(pong, turn);
    }
    ping.store(-1, std::memory_order_release);
    other.join();
    two_switches_a_step(state);
}
BENCHMARK(cache_line)->Name("semaphore_ping_pong_2_threads/floor_cache_line")->UseRealTime();

}  // namespace
