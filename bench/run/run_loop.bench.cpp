// SPDX-License-Identifier: MIT
// Once around the loop, and to another thread's loop and back: while both are awake, and when each sleeps until the
// other wakes it.
#include "../rows.hpp"

#include "../polled_thread.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#endif

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <semaphore>

namespace {

using namespace bench;
using benchmark::State;

// --- once around ------------------------------------------------------------------------------------------------

BENCHMARK(in_group<&yield<State>>)->Name("yield/cordon");
BENCHMARK(in_group<&hop_bare<State>>)->Name("yield/cordon_leaf");

/// Bare coroutines and a ring of handles.
class ring {
public:
    class awaiter {
    public:
        explicit awaiter(ring& r) noexcept : ring_(r) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> h) const noexcept { ring_.handles_[ring_.tail_++ % 8] = h; }
        void await_resume() const noexcept {}

    private:
        ring& ring_;
    };
    awaiter yield() noexcept { return awaiter(*this); }
    void run() {
        while (head_ != tail_) handles_[head_++ % 8].resume();
    }

private:
    std::coroutine_handle<> handles_[8];
    std::size_t head_ = 0, tail_ = 0;
};
bare_task<cached_frames> yield_in(ring& r, State& state) {
    for (auto _ : state) co_await r.yield();
    co_return 0;
}
void bare_yield(State& state) {
    ring r;
    auto task = yield_in(r, state);
    task.run();
    r.run();
}
BENCHMARK(bare_yield)->Name("yield/floor");

#if __has_include(<asio.hpp>)
asio::awaitable<void> asio_yield(State& state) {
    for (auto _ : state) co_await asio::post(asio::use_awaitable);
}
void yield_on_asio(State& state) {
    asio::io_context io(1);
    asio::co_spawn(io, asio_yield(state), asio::detached);
    io.run();
}
BENCHMARK(yield_on_asio)->Name("yield/asio_post");
#endif

// --- there and back ---------------------------------------------------------------------------------------------

std::int64_t visits;

co::task<> visit() {
    ++visits;
    co_return;
}
co::task<> travel(co::run_loop& there, State& state) {
    for (auto _ : state) co_await co::on(there, visit());
}

void both_awake(State& state) {
    visits = 0;
    co::run_loop here;
    polled_thread there;
    co::task_group group{here};
    group.spawn(travel(there.loop(), state));
    poll_until([&] { return group.size() == 0; }, here);
    finish(here, group);
    expect(state, visits, state.iterations());
}
BENCHMARK(both_awake)->Name("hop_round_trip_awake/cordon")->UseRealTime();

void both_sleep(State& state) {
    visits = 0;
    co::run_loop here, there;
    std::thread thread([&] { there.run(); });
    {
        co::task_group group{here};
        group.spawn(travel(there, state));
        finish(here, group);
    }
    there.stop();
    thread.join();
    expect(state, visits, state.iterations());
}
BENCHMARK(both_sleep)->Name("hop_round_trip_asleep/cordon")->UseRealTime();

/// One word that goes to and fro; the other thread spins, or sleeps on it.
template <bool sleeps>
void one_word(State& state) {
    alignas(64) std::atomic<std::int64_t> ping{0};
    alignas(64) std::atomic<std::int64_t> pong{0};
    const auto await_change = [](std::atomic<std::int64_t>& word, std::int64_t old) {
        std::int64_t seen;
        co::detail::spin_wait spin;
        while ((seen = word.load(std::memory_order_acquire)) == old) {
            if constexpr (sleeps) word.wait(old, std::memory_order_acquire);
            else spin();
        }
        return seen;
    };
    const auto send = [](std::atomic<std::int64_t>& word, std::int64_t value) {
        word.store(value, std::memory_order_release);
        if constexpr (sleeps) word.notify_one();
    };
    std::thread other([&] {
        for (std::int64_t seen = 0; (seen = await_change(ping, seen)) >= 0;) send(pong, seen);
    });
    std::int64_t turn = 0;
    for (auto _ : state) {
        send(ping, turn + 1);
        turn = await_change(pong, turn);
    }
    send(ping, -1);
    other.join();
}
BENCHMARK(one_word<false>)->Name("hop_round_trip_awake/floor_cache_line")->UseRealTime();
BENCHMARK(one_word<true>)->Name("hop_round_trip_asleep/floor_atomic_wait")->UseRealTime();

/// Two threads that take turns, without a loop, a queue or anything to run.
template <class Signal>
void take_turns(State& state) {
    Signal ping, pong;
    std::atomic<bool> last{false};
    std::thread other([&] {
        while (true) {
            ping.acquire();
            if (last.load(std::memory_order_relaxed)) return;
            pong.release();
        }
    });
    for (auto _ : state) {
        ping.release();
        pong.acquire();
    }
    last.store(true, std::memory_order_relaxed);
    ping.release();
    other.join();
}
class condition {
public:
    void acquire() {
        std::unique_lock lock(mutex_);
        changed_.wait(lock, [this] { return set_; });
        set_ = false;
    }
    void release() {
        {
            const std::lock_guard lock(mutex_);
            set_ = true;
        }
        changed_.notify_one();
    }

private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool set_ = false;
};
class semaphore : public std::counting_semaphore<> {
public:
    semaphore() noexcept : std::counting_semaphore<>(0) {}
};
BENCHMARK(take_turns<condition>)->Name("hop_round_trip_asleep/std_condition_variable")->UseRealTime();
BENCHMARK(take_turns<semaphore>)->Name("hop_round_trip_asleep/std_counting_semaphore")->UseRealTime();

#if __has_include(<asio.hpp>)
/// A coroutine of Asio's goes on where a handler is bound to, and stays there.
asio::awaitable<void> asio_travel(asio::io_context& here, asio::io_context& there, State& state) {
    for (auto _ : state) {
        co_await asio::post(asio::bind_executor(there, asio::use_awaitable));
        ++visits;
        co_await asio::post(asio::bind_executor(here, asio::use_awaitable));
    }
}
template <bool sleep>
void asio_round_trip(State& state) {
    visits = 0;
    asio::io_context here, there;
    auto here_works = asio::make_work_guard(here);
    auto there_works = asio::make_work_guard(there);
    std::atomic<bool> last{false};
    std::thread thread([&] {
        if constexpr (sleep) there.run();
        else poll_until([&] { return last.load(std::memory_order_relaxed); }, there);
    });
    bool done = false;
    asio::co_spawn(here, asio_travel(here, there, state), [&](std::exception_ptr) {
        done = true;
        here.stop();
    });
    if constexpr (sleep) here.run();
    else poll_until([&] { return done; }, here);
    last.store(true, std::memory_order_relaxed);
    there.stop();
    thread.join();
    expect(state, visits, state.iterations());
}
BENCHMARK(asio_round_trip<false>)->Name("hop_round_trip_awake/asio")->UseRealTime();
BENCHMARK(asio_round_trip<true>)->Name("hop_round_trip_asleep/asio")->UseRealTime();
#endif

}  // namespace
