// SPDX-License-Identifier: MIT
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/observe/leak_watchdog.hpp>
#include <cordon/observe/task_dump.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#if CORDON_TASK_RECORDS

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <sstream>
#include <string>
#include <string_view>
#include <thread>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::task;

std::size_t count(std::string_view text, std::string_view part) {
    std::size_t n = 0;
    for (std::size_t at = 0; (at = text.find(part, at)) != std::string_view::npos; at += part.size()) ++n;
    return n;
}

std::string dump(co::dump_options options = {}) {
    std::ostringstream out;
    co::write_task_dump(out, options);
    return out.str();
}

task<> read_row(co::async_event& e) { co_await e.wait(); }
task<> query(co::async_event& e) { co_await read_row(e); }
task<> session(co::async_event& e) { co_await query(e); }

/// Awaits, spawns, and is stopped or ends.
task<> lively(co::async_semaphore& slots, int depth) {
    co_await co::this_task::yield();
    if (depth == 0) {
        co_await slots.acquire();
        co_await co::this_task::yield();
        slots.release();
        co_return;
    }
    const auto body = [&](co::task_group& inner) -> task<> {
        inner.spawn(lively(slots, depth - 1), {.name = "lively child"});
        inner.spawn(lively(slots, depth - 1), {.name = "lively child"});
        co_await co::sleep_for(50us);
        if (depth == 1) inner.request_stop();
    };
    co_await co::with_group({.name = "lively group"}, body);
}

/// Spawns lively tasks until it is told to stop; a few are always alive.
task<> busy(co::task_group& group, co::async_semaphore& slots, std::atomic<bool>& stop, std::atomic<long>& spawned) {
    while (!stop.load(std::memory_order_relaxed)) {
        if (group.size() < 50 && group.spawn(lively(slots, 2), {.name = "lively root"})) ++spawned;
        co_await co::this_task::yield();
    }
}

}  // namespace

TEST_CASE("dumps in every form are right while tasks begin, wait, are stopped and end",
          "[stress][observe][task_dump]") {
    co::thread_pool pool{2};
    co::async_semaphore slots{1, {.name = "slots"}};
    co::task_group group{pool, {.name = "outer"}}, spawners{pool};
    std::atomic<bool> stop{false};
    std::atomic<long> spawned{0};
    spawners.spawn(busy(group, slots, stop, spawned), {.name = "busy"});
    spawners.spawn(busy(group, slots, stop, spawned), {.name = "busy"});

    long children = 0, wrong = 0;
    for (int i = 0; i < 150 || (i < 100'000 && (spawned <= 100 || children == 0)); ++i) {
        const std::string text = dump();
        wrong += count(text, "group \"outer\"") != 1;
        wrong += count(text, "\"busy\"") != 2;
        std::istringstream lines(text);
        for (std::string line; std::getline(lines, line);) {  // a root lies below the outer group
            const std::size_t columns = line.find('#');
            wrong += line.find("\"lively root\"") != std::string::npos && columns != 2 && columns != 0;
            children += line.find("\"lively child\"") != std::string::npos;
        }
        const std::string json = dump({.format = co::dump_format::json});
        wrong += !json.ends_with("]}\n") || count(json, "\"name\":\"outer\"") != 1;
        wrong += count(dump({.by_site = true}), " task") == 0;
    }
    stop = true;
    co::sync_wait(spawners.join());
    co::sync_wait(group.join());
    CHECK(wrong == 0);
    CHECK(children > 0);
    CHECK(spawned > 100);
    CHECK(group.error_count() == 0);
    CHECK(dump().find("lively") == std::string::npos);
}

TEST_CASE("a hundred thousand that wait are all dumped, with their three frames, while two workers spawn",
          "[stress][observe][task_dump]") {
    constexpr auto many = std::size_t{stress::rounds(100'000)};
    co::thread_pool pool{2};
    co::async_semaphore slots{1, {.name = "slots"}};
    co::async_event never{{.name = "never"}};
    co::task_group parked{pool, {.name = "parked"}}, group{pool}, spawners{pool};
    for (std::size_t i = 0; i < many; ++i) parked.spawn(session(never), {.name = "p"});
    while (never.waiting() != many) std::this_thread::sleep_for(1ms);

    std::atomic<bool> stop{false};
    std::atomic<long> spawned{0};
    spawners.spawn(busy(group, slots, stop, spawned));
    spawners.spawn(busy(group, slots, stop, spawned));
    const std::string text = dump();
    CHECK(count(text, " \"p\"  alive ") == many);
    CHECK(count(text, " in session\n") == many);
    CHECK(count(text, " in query\n") == many);
    CHECK(count(text, " in read_row   event never\n") == many);
    CHECK(count(dump({.format = co::dump_format::json}), "\"name\":\"p\"") == many);
    stop = true;
    parked.request_stop();
    for (co::task_group* g : {&spawners, &group, &parked}) co::sync_wait(g->join());
}

TEST_CASE("a watchdog may be destroyed at any time while its tasks come and go", "[stress][observe][leak_watchdog]") {
    co::thread_pool pool{2};
    co::async_semaphore slots{1};
    co::task_group group{pool}, spawners{pool};
    std::atomic<bool> stop{false};
    std::atomic<long> spawned{0};
    spawners.spawn(busy(group, slots, stop, spawned), {.name = "old"});
    stress::dice random;
    std::atomic<int> alive{0}, late{0}, calls{0};
    const auto round = [&](std::uint32_t pause, bool waits) {
        auto over = std::make_shared<std::atomic<bool>>(false);
        const auto held = std::make_shared<stress::counted>(alive);
        const co::leak_watchdog watchdog{pool, 1ms, [&late, &calls, over, held](const co::task_info&) {
                                             ++calls;
                                             late += *over;
                                         }};
        std::this_thread::sleep_for(std::chrono::microseconds(pause));  // it looks once in a millisecond
        for (const int before = calls; waits && calls == before;) std::this_thread::yield();
        return over;
    };
    for (int i = 0; i < 400; ++i) *round(i % 4 == 0 ? 0 : random.below(2500), i % 10 == 9) = true;
    for (int i = 0; i < 50; ++i) {  // by its own handler, on one of two threads
        std::unique_ptr<co::leak_watchdog> watchdog;
        std::atomic<bool> made{false}, gone{false};
        watchdog = std::make_unique<co::leak_watchdog>(pool, 1ms, [&](const co::task_info&) {
            made.wait(false);
            watchdog.reset();
            gone = true;
            gone.notify_all();
        });
        made = true;
        made.notify_all();
        gone.wait(false);
    }
    stop = true;
    co::sync_wait(spawners.join());
    co::sync_wait(group.join());
    for (int i = 0; i < 1000 && alive != 0; ++i) std::this_thread::sleep_for(1ms);  // the last item runs later
    CHECK(alive == 0);
    CHECK(late == 0);
    CHECK(calls > 0);
}

#endif
