// SPDX-License-Identifier: MIT
// Stop callbacks: registered and taken back, by one and two threads; and a request to a hundred thousand of them, and
// to as many suspended coroutines.
#include "../rows.hpp"

#if __has_include(<asio.hpp>)
#include <asio.hpp>
#include <asio/experimental/as_tuple.hpp>
#endif

#include <atomic>
#include <deque>
#include <optional>
#include <stop_token>
#include <vector>

namespace {

using namespace bench;

constexpr std::int64_t many = 100'000;

// --- one callback -----------------------------------------------------------------------------------------------

void two_exchanges(benchmark::State& state) {
    std::atomic<int> word{0};
    for (auto _ : state) {
        int seen = 0;
        keep(word.compare_exchange_strong(seen, 1, std::memory_order_acq_rel));
        seen = 1;
        keep(word.compare_exchange_strong(seen, 0, std::memory_order_acq_rel));
    }
}
BENCHMARK(two_exchanges)->Name("stop_callback/floor");

void cordon_callback(benchmark::State& state) { stop_callback(state); }
BENCHMARK(cordon_callback)->Name("stop_callback/cordon");

template <class Source>
void std_callback_on(benchmark::State& state, Source& source) {
    int called = 0;
    auto f = [&called]() noexcept { ++called; };
    for (auto _ : state) {
        std::stop_callback callback(source.get_token(), f);
        keep(&callback);
    }
    keep(called);
}
void std_callback(benchmark::State& state) {
    begin_threads();
    std::stop_source source;
    std_callback_on(state, source);
}
BENCHMARK(std_callback)->Name("stop_callback/std");

void cordon_callback_shared(benchmark::State& state) {
    static co::inplace_stop_source source;
    int called = 0;
    auto f = [&called]() noexcept { ++called; };
    for (auto _ : state) {
        co::inplace_stop_callback callback(source.get_token(), f);
        keep(&callback);
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(cordon_callback_shared)->Name("stop_callback_shared/cordon")->Threads(2)->UseRealTime();

void std_callback_shared(benchmark::State& state) {
    static std::stop_source source;
    std_callback_on(state, source);
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(std_callback_shared)->Name("stop_callback_shared/std")->Threads(2)->UseRealTime();

void two_exchanges_shared(benchmark::State& state) {
    static std::atomic<int> word{0};
    for (auto _ : state) {
        keep(word.fetch_add(1, std::memory_order_acq_rel));
        keep(word.fetch_sub(1, std::memory_order_acq_rel));
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(two_exchanges_shared)->Name("stop_callback_shared/floor")->Threads(2)->UseRealTime();

// --- a source and its request -----------------------------------------------------------------------------------

void cordon_create(benchmark::State& state) { create_and_stop(state); }
BENCHMARK(cordon_create)->Name("stop_source/cordon");

void std_create(benchmark::State& state) {
    begin_threads();
    for (auto _ : state) {
        std::stop_source source;
        keep(&source);
        source.request_stop();
        keep(source.stop_requested());
    }
}
BENCHMARK(std_create)->Name("stop_source/std");

void atomic_flag_set(benchmark::State& state) {
    for (auto _ : state) {
        std::atomic<bool> flag{false};
        keep(&flag);
        flag.exchange(true, std::memory_order_acq_rel);
        keep(flag.load(std::memory_order_acquire));
    }
}
BENCHMARK(atomic_flag_set)->Name("stop_source/floor");

template <class Source, template <class> class Callback>
void with_callback(benchmark::State& state) {
    begin_threads();
    std::int64_t called = 0;
    auto f = [&called]() noexcept { ++called; };
    for (auto _ : state) {
        Source source;
        keep(&source);
        Callback<decltype(f)> callback(source.get_token(), f);
        source.request_stop();
    }
    expect(state, called, state.iterations());
}
BENCHMARK(with_callback<co::inplace_stop_source, co::inplace_stop_callback>)->Name("stop_source_with_callback/cordon");
BENCHMARK(with_callback<std::stop_source, std::stop_callback>)->Name("stop_source_with_callback/std");

// --- a hundred thousand callbacks -------------------------------------------------------------------------------

struct count_call {
    std::int64_t* called;
    void operator()() const noexcept { ++*called; }
};

template <class Source, template <class> class Callback>
void request_to_callbacks(benchmark::State& state) {
    begin_threads();
    std::int64_t called = 0;
    for (auto _ : state) {
        Source source;
        std::deque<Callback<count_call>> callbacks;
        for (std::int64_t i = 0; i < many; ++i) callbacks.emplace_back(source.get_token(), count_call{&called});
        stopwatch time(state);
        source.request_stop();
        time.stop();
    }
    expect(state, called, state.iterations() * many);
}
BENCHMARK(request_to_callbacks<co::inplace_stop_source, co::inplace_stop_callback>)
    ->Name("stop_100k_callbacks/cordon")->UseManualTime();
BENCHMARK(request_to_callbacks<std::stop_source, std::stop_callback>)->Name("stop_100k_callbacks/std")->UseManualTime();

/// A list that is walked, with a call through a pointer for each node.
void walk_list(benchmark::State& state) {
    struct node {
        node* next;
        void (*run)(node&) noexcept;
        std::int64_t* called;
    };
    std::int64_t called = 0;
    for (auto _ : state) {
        std::deque<node> nodes;
        node* head = nullptr;
        for (std::int64_t i = 0; i < many; ++i) {
            nodes.push_back({head, [](node& n) noexcept { ++*n.called; }, &called});
            head = &nodes.back();
        }
        stopwatch time(state);
        for (node* n = head; n != nullptr; n = n->next) n->run(*n);
        time.stop();
    }
    expect(state, called, state.iterations() * many);
}
BENCHMARK(walk_list)->Name("stop_100k_callbacks/floor")->UseManualTime();

// --- a hundred thousand suspended coroutines --------------------------------------------------------------------

co::task<> wait_for(co::async_event& event) { co_await event.wait(); }

/// Tasks of a group that wait for an event, from the request until they have all ended; or only the request itself.
void stop_tasks(benchmark::State& state, bool to_the_end) {
    for (auto _ : state) {
        co::run_loop loop;
        co::async_event never;
        co::task_group group{loop};
        for (std::int64_t i = 0; i < many; ++i) group.spawn(wait_for(never));
        while (loop.poll()) {}
        if (never.waiting() != static_cast<std::size_t>(many)) state.SkipWithError("they do not wait");
        stopwatch time(state);
        group.request_stop();
        if (!to_the_end) time.stop();
        while (loop.poll()) {}
        if (to_the_end) time.stop();
        if (group.size() != 0) state.SkipWithError("they have not ended");
        co::start_on(loop, group.join(), [&](co::outcome<void>) { loop.stop(); });
        loop.run();
    }
    state.SetItemsProcessed(state.iterations() * many);
}
void request_to_tasks(benchmark::State& state) { stop_tasks(state, false); }
BENCHMARK(request_to_tasks)->Name("stop_100k_waiters/cordon_request")->UseManualTime()->Iterations(3);
void tasks_to_the_end(benchmark::State& state) { stop_tasks(state, true); }
BENCHMARK(tasks_to_the_end)->Name("stop_100k_waiters/cordon")->UseManualTime()->Iterations(3);

std::int64_t ended;  // coroutines that were resumed and have ended

/// A coroutine that nobody owns.
struct detached {
    struct promise_type {
        static void* operator new(std::size_t size) { return cached_frames::take(size); }
        static void operator delete(void* frame, std::size_t size) noexcept { cached_frames::give(frame, size); }
        detached get_return_object() const noexcept { return {}; }
        std::suspend_never initial_suspend() const noexcept { return {}; }
        std::suspend_never final_suspend() const noexcept { return {}; }
        void return_void() const noexcept {}
        void unhandled_exception() const noexcept {}
    };
};

/// The least: a list of handles in the frames, resumed one after the other.
class waiters {
public:
    class awaiter {
    public:
        explicit awaiter(waiters& w) noexcept : waiters_(w) {}
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> h) noexcept {
            handle_ = h;
            next_ = std::exchange(waiters_.head_, this);
        }
        void await_resume() const noexcept {}

    private:
        friend waiters;
        waiters& waiters_;
        std::coroutine_handle<> handle_;
        awaiter* next_ = nullptr;
    };
    awaiter wait() noexcept { return awaiter(*this); }
    void resume_all() {
        for (awaiter* a = std::exchange(head_, nullptr); a != nullptr;) std::exchange(a, a->next_)->handle_.resume();
    }

private:
    awaiter* head_ = nullptr;
};
detached wait_in(waiters& list) {
    co_await list.wait();
    ++ended;
}
void resume_list(benchmark::State& state) {
    ended = 0;
    for (auto _ : state) {
        waiters list;
        for (std::int64_t i = 0; i < many; ++i) wait_in(list);
        stopwatch time(state);
        list.resume_all();
        time.stop();
    }
    expect(state, ended, state.iterations() * many);
}
BENCHMARK(resume_list)->Name("stop_100k_waiters/floor")->UseManualTime()->Iterations(3);

/// A coroutine resumed inside its std::stop_callback.
class std_stop_wait {
public:
    explicit std_stop_wait(std::stop_token t) noexcept : token_(std::move(t)) {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> h) { callback_.emplace(token_, resume_it{h}); }
    void await_resume() const noexcept {}

private:
    struct resume_it {
        std::coroutine_handle<> handle;
        void operator()() const { handle.resume(); }
    };
    std::stop_token token_;
    std::optional<std::stop_callback<resume_it>> callback_;
};
detached wait_for(const std::stop_source& source) {
    co_await std_stop_wait(source.get_token());
    ++ended;
}
void std_request(benchmark::State& state) {
    begin_threads();
    ended = 0;
    for (auto _ : state) {
        std::stop_source source;
        for (std::int64_t i = 0; i < many; ++i) wait_for(source);
        stopwatch time(state);
        source.request_stop();
        time.stop();
    }
    expect(state, ended, state.iterations() * many);
}
BENCHMARK(std_request)->Name("stop_100k_waiters/std")->UseManualTime()->Iterations(3);

#if __has_include(<asio.hpp>)
asio::awaitable<void> asio_wait(asio::steady_timer& timer) {
    const auto result = co_await timer.async_wait(asio::experimental::as_tuple(asio::use_awaitable));
    const auto& [error] = result;
    if (error == asio::error::operation_aborted) ++ended;
}
void asio_cancel(benchmark::State& state) {
    ended = 0;
    for (auto _ : state) {
        asio::io_context io(1);
        asio::steady_timer timer(io, 1h);
        for (std::int64_t i = 0; i < many; ++i) asio::co_spawn(io, asio_wait(timer), asio::detached);
        io.poll();
        stopwatch time(state);
        timer.cancel();
        io.poll();
        time.stop();
    }
    expect(state, ended, state.iterations() * many);
}
BENCHMARK(asio_cancel)->Name("stop_100k_waiters/asio_timer")->UseManualTime()->Iterations(1);
#endif

}  // namespace
