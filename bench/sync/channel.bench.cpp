// SPDX-License-Identifier: MIT
// A channel that nobody waits for, and items that stream through one: on one thread, where two tasks take turns, on
// two, and between two threads that block.
#include "../rows.hpp"

#include "../polled_thread.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#include <asio/experimental/channel.hpp>
#endif

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <thread>

namespace {

using namespace bench;
using benchmark::State;

/// What one writes without a channel.
class locked_deque {
public:
    explicit locked_deque(std::size_t capacity) : capacity_(capacity) {}
    bool try_push(int item) {
        const std::lock_guard lock(mutex_);
        if (items_.size() == capacity_) return false;
        items_.push_back(item);
        return true;
    }
    bool try_pop(int& item) {
        const std::lock_guard lock(mutex_);
        if (items_.empty()) return false;
        item = items_.front();
        items_.pop_front();
        return true;
    }
    void push(int item) {
        std::unique_lock lock(mutex_);
        room_.wait(lock, [this] { return items_.size() < capacity_; });
        items_.push_back(item);
        lock.unlock();
        there_.notify_one();
    }
    int pop() {
        std::unique_lock lock(mutex_);
        there_.wait(lock, [this] { return !items_.empty(); });
        const int item = items_.front();
        items_.pop_front();
        lock.unlock();
        room_.notify_one();
        return item;
    }

private:
    std::mutex mutex_;
    std::condition_variable room_, there_;
    std::deque<int> items_;
    const std::size_t capacity_;
};

// --- uncontended: an item in and out ----------------------------------------------------------------------------

void try_send_and_receive(State& state) {
    co::channel<int> channel{16};
    int sum = 0;
    for (auto _ : state) {
        if (channel.try_send(1) != co::send_status::sent) state.SkipWithError("no room");
        sum += *channel.try_receive();
    }
    expect(state, sum, state.iterations());
}
BENCHMARK(try_send_and_receive)->Name("channel_uncontended/cordon_try");

co::task<> send_and_receive(State& state) {
    co::channel<int> channel{16};
    int sum = 0;
    for (auto _ : state) {
        const bool sent = co_await channel.send(1);
        const std::optional<int> item = co_await channel.receive();
        sum += *item + sent - 1;
    }
    keep(sum);
}
BENCHMARK(in_group<&send_and_receive>)->Name("channel_uncontended/cordon");

void deque_alone(State& state) {
    begin_threads();
    locked_deque items(16);
    int sum = 0, item = 0;
    for (auto _ : state) {
        if (!items.try_push(1) || !items.try_pop(item)) state.SkipWithError("no room");
        sum += item;
    }
    expect(state, sum, state.iterations());
}
BENCHMARK(deque_alone)->Name("channel_uncontended/std_mutex_deque");

#if __has_include(<asio.hpp>)
using asio_channel = asio::experimental::channel<void(asio::error_code, int)>;

void asio_alone(State& state) {
    asio::io_context io(1);
    asio_channel channel(io, 16);
    int sum = 0;
    for (auto _ : state) {
        if (!channel.try_send(asio::error_code(), 1)) state.SkipWithError("no room");
        channel.try_receive([&](asio::error_code, int item) { sum += item; });
    }
    expect(state, sum, state.iterations());
}
BENCHMARK(asio_alone)->Name("channel_uncontended/asio_channel");
#endif

// --- a stream: each step is an item from one to the other ---------------------------------------------------------

co::task<> drain(co::channel<int>& from, std::int64_t& sum) {
    while (true) {
        const std::optional<int> item = co_await from.receive();
        if (!item) break;
        sum += *item;
    }
}
co::task<> feed(co::channel<int>& to, State& state) {
    for (auto _ : state) {
        const bool sent = co_await to.send(1);
        keep(sent);
    }
    to.close();
}

template <std::size_t capacity>
void stream(State& state) {
    co::channel<int> channel{capacity};
    std::int64_t sum = 0;
    co::run_loop loop;
    co::task_group group{loop};
    group.spawn(drain(channel, sum));
    group.spawn(feed(channel, state));
    finish(loop, group);
    expect(state, sum, state.iterations());
}
BENCHMARK(stream<64>)->Name("channel_stream/cordon");
BENCHMARK(stream<0>)->Name("channel_rendezvous/cordon");

#if __has_include(<asio.hpp>)
asio::awaitable<void> asio_drain(asio_channel& from, std::int64_t& sum) {
    while (true) {
        const int item = co_await from.async_receive(asio::use_awaitable);
        if (item == 0) break;
        sum += item;
    }
}
asio::awaitable<void> asio_feed(asio_channel& to, State& state) {
    for (auto _ : state) co_await to.async_send(asio::error_code(), 1, asio::use_awaitable);
    co_await to.async_send(asio::error_code(), 0, asio::use_awaitable);
}
template <std::size_t capacity>
void asio_stream(State& state) {
    asio::io_context io(1);
    asio_channel channel(io, capacity);
    std::int64_t sum = 0;
    asio::co_spawn(io, asio_drain(channel, sum), asio::detached);
    asio::co_spawn(io, asio_feed(channel, state), asio::detached);
    io.run();
    expect(state, sum, state.iterations());
}
BENCHMARK(asio_stream<64>)->Name("channel_stream/asio_channel");
BENCHMARK(asio_stream<0>)->Name("channel_rendezvous/asio_channel");
#endif

// --- from thread to thread --------------------------------------------------------------------------------------

void stream_between_loops(State& state) {
    co::channel<int> channel{64};
    std::int64_t sum = 0;
    co::run_loop here;
    polled_thread there;
    {
        co::task_group there_group{there.loop()}, here_group{here};
        there_group.spawn(drain(channel, sum));
        here_group.spawn(feed(channel, state));
        poll_until([&] { return here_group.size() == 0 && there_group.size() == 0; }, here);
        finish(here, here_group);
        finish(here, there_group);
    }
    expect(state, sum, state.iterations());
}
BENCHMARK(stream_between_loops)->Name("channel_stream_2_threads/cordon")->UseRealTime();

void stream_blocking(State& state) {
    co::channel<int> channel{64};
    std::int64_t sum = 0;
    std::thread other([&] {
        while (true) {
            const auto item = channel.receive_blocking();
            if (!item.has_value() || !*item) break;
            sum += **item;
        }
    });
    for (auto _ : state) keep(channel.send_blocking(1));
    channel.close();
    other.join();
    expect(state, sum, state.iterations());
}
BENCHMARK(stream_blocking)->Name("channel_stream_2_threads/cordon_blocking")->UseRealTime();

void stream_deque(State& state) {
    locked_deque items(64);
    std::int64_t sum = 0;
    std::thread other([&] {
        for (int item; (item = items.pop()) != 0;) sum += item;
    });
    for (auto _ : state) items.push(1);
    items.push(0);
    other.join();
    expect(state, sum, state.iterations());
}
BENCHMARK(stream_deque)->Name("channel_stream_2_threads/std_mutex_deque")->UseRealTime();

}  // namespace
