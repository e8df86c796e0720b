// SPDX-License-Identifier: MIT
#include <cordon/run/thread_group.hpp>

#include <cordon/core/error.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <set>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__linux__)
#include <pthread.h>
#endif

namespace co = cordon;
using namespace std::chrono_literals;
using co::thread_group;

namespace {

static_assert(co::observable<thread_group>);
static_assert(!std::is_copy_constructible_v<thread_group> && !std::is_move_constructible_v<thread_group>);

/// Waits, as blocking code does, until it is asked to stop.
void wait_for_stop(std::stop_token stop) {
    std::mutex m;
    std::condition_variable_any never;
    std::unique_lock lock(m);
    never.wait(lock, stop, [] { return false; });
}

std::vector<std::string> reports;
void keep_report(std::string_view text) { reports.emplace_back(text); }

}  // namespace

TEST_CASE("threads of a group run, are stopped and joined together", "[run][thread_group]") {
    thread_group threads{{.name = "pollers"}};
    CHECK(threads.name() == "pollers");
    std::atomic<int> begun{0}, ended{0};
    for (int i = 0; i < 3; ++i)
        CHECK(threads.spawn("poller", [&](std::stop_token stop) {
            ++begun;
            wait_for_stop(stop);
            ++ended;
        }));
    CHECK(threads.size() == 3);
    while (begun != 3) std::this_thread::yield();
    CHECK_FALSE(threads.stop_requested());
    CHECK(threads.stats().size == 3);
    CHECK_FALSE(threads.stats().stop_requested);
    CHECK(threads.request_stop());
    CHECK_FALSE(threads.request_stop());
    CHECK(threads.stop_requested());
    threads.join();
    CHECK(ended == 3);
    CHECK(threads.stats().size == 0);
    CHECK(threads.stats().stop_requested);
}

TEST_CASE("a group waits for threads that nobody stops, as often as one likes", "[run][thread_group]") {
    thread_group threads;
    threads.join();
    std::atomic<int> ran{0};
    for (int round = 1; round <= 3; ++round) {
        for (int i = 0; i < 3; ++i) CHECK(threads.spawn("worker", [&] { ++ran; }));
        threads.join();
        CHECK(ran == 3 * round);
    }
}

TEST_CASE("a thread may take a token or none, be moved in, and spawn others", "[run][thread_group]") {
    thread_group threads;
    std::atomic<int> sum{0};
    auto owned = std::make_unique<int>(1);
    threads.spawn("moved", [&, p = std::move(owned)] { sum += *p; });
    const auto named = [&] { sum += 10; };
    threads.spawn("named", named);
    threads.spawn("returns", [&](std::stop_token) {
        threads.spawn("inner", [&] { sum += 1'000; });
        sum += 100;
        return 5;
    });
    threads.join();
    CHECK(sum == 1'111);
}

#if defined(__linux__)
TEST_CASE("the threads of a group have names", "[run][thread_group]") {
    thread_group threads;
    std::mutex mutex;
    std::set<std::string> names;
    const auto note = [&] {
        char text[16] = {};
        pthread_getname_np(pthread_self(), text, sizeof text);
        const std::lock_guard lock(mutex);
        names.insert(text);
    };
    threads.spawn("reader", note);
    threads.spawn("a writer of a long name", note);
    threads.join();
    CHECK(names == std::set<std::string>{"reader", "a writer of a l"});
}
#endif

TEST_CASE("once a group is stopped it starts nothing", "[run][thread_group]") {
    thread_group threads;
    threads.request_stop();
    bool ran = false;
    CHECK_FALSE(threads.spawn("late", [&] { ran = true; }));
    threads.join();
    CHECK_FALSE(ran);
}

TEST_CASE("an exception that leaves a thread stops the others, and join throws the first", "[run][thread_group]") {
    thread_group threads;
    std::atomic<int> stopped{0};
    for (int i = 0; i < 2; ++i)
        threads.spawn("waits", [&](std::stop_token stop) {
            wait_for_stop(stop);
            ++stopped;
            throw std::logic_error("later");
        });
    threads.spawn("fails", [] { throw std::out_of_range("first"); });
    CHECK_THROWS_AS(threads.join(), std::out_of_range);
    CHECK(stopped == 2);
    CHECK(threads.stop_requested());
    CHECK_NOTHROW(threads.join());  // once
}

TEST_CASE("a canceled that leaves a thread after the stop is an ordinary end, before it an error",
          "[run][thread_group]") {
    thread_group stopped;
    stopped.spawn("runs tasks", [](std::stop_token stop) {
        co::sync_wait(co::with(co::sleep_for(1h), co::stop_on(stop)));
    });
    stopped.request_stop();
    CHECK_NOTHROW(stopped.join());
    thread_group by_itself;
    by_itself.spawn("gives up", [] { throw co::canceled(); });
    CHECK_THROWS_AS(by_itself.join(), co::canceled);
}

TEST_CASE("the destructor stops the threads and waits for them, and drops their errors", "[run][thread_group]") {
    std::atomic<bool> left{false};
    {
        thread_group threads;
        threads.spawn("waits", [&](std::stop_token stop) {
            wait_for_stop(stop);
            left = true;
            throw std::runtime_error("dropped");
        });
    }
    CHECK(left);
}

TEST_CASE("a group is stopped with the token of a host's thread, or with a scope", "[run][thread_group]") {
    std::atomic<int> begun{0}, left{0};
    const auto waits = [&](std::stop_token stop) {
        ++begun;
        wait_for_stop(stop);
        ++left;
    };
    std::jthread host([&](std::stop_token stop) {
        thread_group threads(stop, {.name = "under a thread"});
        threads.spawn("waits", waits);
        threads.join();
    });
    while (begun == 0) std::this_thread::yield();
    host.request_stop();
    host.join();
    CHECK(left == 1);

    co::cancel_scope scope;
    thread_group threads(scope.token());
    threads.spawn("waits", waits);
    scope.request_stop();
    threads.join();
    CHECK(left == 2);
    CHECK(threads.stop_requested());

    thread_group late(scope.token(), {.name = "late"});
    CHECK(late.stop_requested());
    CHECK_FALSE(late.spawn("never", waits));
}

TEST_CASE("threads that have not ended some time after the stop are reported once, while they are waited for",
          "[run][thread_group]") {
    reports.clear();
    std::atomic<bool> may_end{false};
    thread_group threads{{.name = "pollers", .report_after = 1ms, .on_late = [](std::string_view text) {
                              keep_report(text);
                          }}};
    threads.spawn("heeds", [](std::stop_token stop) { wait_for_stop(stop); });
    threads.spawn("stuck", [&] {
        while (!may_end) std::this_thread::yield();
    });
    threads.request_stop();
    while (threads.size() != 1) std::this_thread::yield();
    std::thread helper([&] {
        std::this_thread::sleep_for(20ms);  // real time: that of the report has passed long before
        may_end = true;
    });
    threads.join();
    helper.join();
    REQUIRE(reports.size() == 1);
    CHECK(reports[0].starts_with("thread_group \"pollers\": 1 threads have not ended "));
    CHECK(reports[0].ends_with(" ms after the stop: \"stuck\""));
}

TEST_CASE("nobody is reported who ends in time, nor before the stop", "[run][thread_group]") {
    reports.clear();
    {
        thread_group threads{{.report_after = 1h, .on_late = &keep_report}};
        threads.spawn("heeds", [](std::stop_token stop) { wait_for_stop(stop); });
    }
    {
        thread_group threads{{.report_after = 0s, .on_late = &keep_report}};
        threads.spawn("slow", [] { std::this_thread::sleep_for(3ms); });  // longer than it would take to report it
        threads.join();
    }
    thread_group forgives{{.report_after = std::chrono::nanoseconds::max(), .on_late = &keep_report}};
    forgives.spawn("heeds", [](std::stop_token stop) { wait_for_stop(stop); });
    forgives.request_stop();
    forgives.join();
    CHECK(reports.empty());
}

TEST_CASE("by default the report goes to stderr", "[run][thread_group]") {
    const auto text = last_words([] {
        thread_group threads{{.name = "workers", .report_after = 1ms}};
        threads.spawn("stuck", [] {
            std::this_thread::sleep_for(30ms);  // real time, as above
            std::abort();
        });
        threads.request_stop();
        threads.join();
    });
    CHECK(says(text, "cordon: thread_group \"workers\": 1 threads have not ended", "\"stuck\"\n"));
}

TEST_CASE("a negative time to the report is refused", "[run][thread_group]") {
    std::string text;
    try {
        thread_group threads{{.report_after = -1ns}};
    } catch (const std::invalid_argument& e) {
        text = e.what();
    }
    CHECK(text == "thread_group: report_after is -1 ns, allowed are 0 and more");
}

TEST_CASE("a group is not joined by one of its own threads", "[run][thread_group]") {
    thread_group threads{{.name = "mine"}};
    threads.spawn("joins", [&] { threads.join(); });
    std::string text;
    try {
        threads.join();
    } catch (const std::logic_error& e) {
        text = e.what();
    }
    CHECK(text == "thread_group \"mine\" joined by one of its own threads");
}

TEST_CASE("a group destroyed by one of its own threads says so and terminates", "[run][thread_group]") {
    const auto text = last_words([] {
        auto* const threads = new thread_group{{.name = "mine"}};
        threads->spawn("destroys", [threads] { delete threads; });
        std::this_thread::sleep_for(10s);
    });
    CHECK(says(text, "thread_group \"mine\" destroyed by one of its own threads"));
}

TEST_CASE("a group that lives long does not keep the threads that have ended", "[run][thread_group]") {
    thread_group threads;
    std::atomic<int> ran{0};
    for (int i = 0; i < 300; ++i) {
        threads.spawn("short", [&] { ++ran; });
        while (ran != i + 1) std::this_thread::yield();
    }
    threads.join();
    CHECK(ran == 300);
}

TEST_CASE("threads spawn, fail, stop and join at the same time", "[run][thread_group]") {
    for (int round = 0; round < 100; ++round) {
        thread_group threads;
        std::atomic<int> alive{0};
        const auto lives = [&](std::stop_token stop) {
            ++alive;
            if (!stop.stop_requested()) std::this_thread::yield();
            --alive;
        };
        std::thread spawner([&] {
            for (int i = 0; i < 5; ++i) threads.spawn("a", lives);
        });
        std::thread stopper([&] {
            if (round % 2 == 0) threads.request_stop();
        });
        std::thread joiner([&] { threads.join(); });
        for (int i = 0; i < 5; ++i) threads.spawn("b", lives);
        spawner.join();
        threads.join();
        CHECK(alive == 0);
        stopper.join();
        joiner.join();
    }
}

TEST_CASE("what a thread's function owned may spawn the next one as it is destroyed", "[run][thread_group]") {
    struct respawns {
        co::thread_group* group;
        std::atomic<int>* left;
        ~respawns() {
            if (group != nullptr && left->fetch_sub(1) > 1) {
                respawns next{group, left};
                group->spawn("next", [kept = std::move(next)] {});
            }
        }
        respawns(co::thread_group* g, std::atomic<int>* l) : group(g), left(l) {}
        respawns(respawns&& other) noexcept : group(std::exchange(other.group, nullptr)), left(other.left) {}
        respawns& operator=(respawns&&) = delete;
    };
    std::atomic<int> left{5};
    co::thread_group threads;
    threads.spawn("first", [kept = respawns(&threads, &left)] {});
    while (left > 0) std::this_thread::yield();
    threads.join();
    CHECK(left == 0);
}

TEST_CASE("a function that is copied, moved and destroyed may ask the group that spawns it", "[run][thread_group]") {
    struct asks {
        explicit asks(const co::thread_group& g) : group(&g) {}
        asks(const asks& other) : group(other.group) { static_cast<void>(group->size()); }
        asks(asks&& other) noexcept : group(other.group) { static_cast<void>(group->size()); }
        asks& operator=(const asks&) = delete;
        ~asks() { static_cast<void>(group->size()); }
        void operator()() const noexcept {}
        const co::thread_group* group;
    };
    co::thread_group threads;
    const asks copied(threads);
    CHECK(threads.spawn("copied", copied));
    CHECK(threads.spawn("moved", asks(threads)));
    threads.request_stop();
    CHECK_FALSE(threads.spawn("refused", copied));
    threads.join();
}
