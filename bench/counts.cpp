// SPDX-License-Identifier: MIT
// Does one work as often as it is told, for tools/bench.py to count instructions: `bench_counts await 1000`.
// Without arguments it lists the works.
#include "works.hpp"

#if __has_include(<asio.hpp>)
#include <cordon/interop/asio.hpp>

#include <asio.hpp>
#include <asio/experimental/awaitable_operators.hpp>
#endif

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <thread>

namespace {

using namespace bench;

template <class Frames>
void await_floor(repeat n) {
    await_bare<Frames>(n).run();
}
template <co::task<> (*body)(repeat&)>
void in_group(repeat n) {
    run_as_child(body, n);
}

void timer_given_time(repeat n) {
    const co::clock::time_point now = co::clock::now();
    co::locked_timer_queue timers;
    timer_armed_and_cancelled(n, timers, [now] { return now; });
}
void timer_reads_clock(repeat n) {
    co::locked_timer_queue timers;
    timer_armed_and_cancelled(n, timers, &co::clock::now);
}

/// Stops as many tasks as it is told that all wait for one event.
void stop_waiters(repeat n) {
    co::run_loop loop;
    co::async_event never;
    co::task_group group{loop};
    for (auto _ : n) group.spawn(never.wait());
    while (loop.poll()) {}
    group.request_stop();
    while (loop.poll()) {}
    co::start_on(loop, group.join(), [&](co::outcome<void>) { loop.stop(); });
    loop.run();
}
/// The same, but it does not stop them: what `stop_waiters` does besides.
void set_waiters(repeat n) {
    co::run_loop loop;
    co::async_event soon;
    co::task_group group{loop};
    for (auto _ : n) group.spawn(soon.wait());
    while (loop.poll()) {}
    soon.set();
    while (loop.poll()) {}
    co::start_on(loop, group.join(), [&](co::outcome<void>) { loop.stop(); });
    loop.run();
}

#if __has_include(<asio.hpp>)
asio::awaitable<int> asio_child(int x) { co_return x; }

asio::awaitable<void> asio_await(repeat n) {
    int sum = 0;
    for (auto _ : n) sum += co_await asio_child(1);
    keep(sum);
}
asio::awaitable<void> asio_timeout(repeat n) {
    using namespace asio::experimental::awaitable_operators;
    asio::steady_timer timer(co_await asio::this_coro::executor);
    for (auto _ : n) {
        timer.expires_after(1h);
        const auto first = co_await (asio_child(1) || timer.async_wait(asio::use_awaitable));
        keep(first.index());
    }
}
asio::awaitable<void> asio_post(repeat n) {
    for (auto _ : n) co_await asio::post(asio::use_awaitable);
}
asio::awaitable<void> asio_nothing() { co_return; }
asio::awaitable<void> asio_spawn(repeat n) {
    int left = 50;
    for (auto _ : n) {
        asio::co_spawn(co_await asio::this_coro::executor, asio_nothing(), asio::detached);
        if (--left != 0) continue;
        left = 50;
        co_await asio::post(asio::use_awaitable);
    }
}

co::task<> use_cordon_post(asio::io_context& io, repeat n) {
    for (auto _ : n) co_await asio::post(io, co::use_cordon);
}
void use_cordon(repeat n) {
    asio::io_context io(1);
    co::asio_executor executor{io};
    co::task_group group{executor};
    group.spawn(use_cordon_post(io, n));
    co::start_on(executor, group.join(), [](const co::outcome<void>&) {});
    io.run();
}

template <asio::awaitable<void> (*body)(repeat)>
void on_asio(repeat n) {
    asio::io_context io(1);
    asio::co_spawn(io, body(n), asio::detached);
    io.run();
}
#endif

struct work {
    std::string_view name;
    void (*run)(repeat);
};
constexpr work works[] = {
    {"bare_await_listed", &await_floor<listed_frames>},
    {"bare_await", &await_floor<cached_frames>},
    {"bare_await_new", &await_floor<new_frames>},
    {"await", &in_group<&await_child<repeat>>},
    {"await_with_value", &in_group<&await_child_with_value<repeat>>},
    {"timeout_ready", &in_group<&await_child_within<repeat>>},
    {"yield", &in_group<&yield<repeat>>},
    {"hop", &in_group<&hop_bare<repeat>>},
    {"timeout_hop", &in_group<&hop_within<repeat>>},
    {"hop_in_child", &in_group<&hop_in_child<repeat>>},
    {"timeout_hop_in_child", &in_group<&hop_in_child_within<repeat>>},
    {"spawn", &in_group<&spawn_few_at_a_time<repeat>>},
    {"stop_callback", [](repeat n) { stop_callback(n); }},
    {"create_and_stop", [](repeat n) { create_and_stop(n); }},
    {"stop_waiters", &stop_waiters},
    {"set_waiters", &set_waiters},
    {"timer_given_time", &timer_given_time},
    {"timer_reads_clock", &timer_reads_clock},
    {"semaphore_uncontended", &in_group<&semaphore_uncontended<repeat>>},
    {"semaphore_ping_pong", &in_group<&semaphore_ping_pong<repeat>>},
    {"pipeline_of_five", &in_group<&call_through_five<repeat>>},
    {"five_guards_by_hand", &in_group<&call_by_hand<repeat>>},
    {"pipeline_refusal", &in_group<&call_refused<repeat>>},
#if __has_include(<asio.hpp>)
    {"asio_await", &on_asio<&asio_await>},
    {"asio_timeout_ready", &on_asio<&asio_timeout>},
    {"asio_post", &on_asio<&asio_post>},
    {"asio_post_use_cordon", &use_cordon},
    {"asio_spawn", &on_asio<&asio_spawn>},
#endif
};

}  // namespace

int main(int argc, char** argv) {
    if (argc != 3) {
        for (const work& w : works) std::printf("%.*s\n", static_cast<int>(w.name.size()), w.name.data());
        return argc == 1 ? 0 : 2;
    }
    std::thread([] {}).join();  // from now on the standard library believes in threads, as in a service
    for (const work& w : works) {
        if (w.name != argv[1]) continue;
        w.run(repeat(std::atoll(argv[2])));
        return 0;
    }
    std::fprintf(stderr, "there is no work %s\n", argv[1]);
    return 2;
}
