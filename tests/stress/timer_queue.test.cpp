// SPDX-License-Identifier: MIT
#include <cordon/time/timer_queue.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::locked_timer_queue;
using time_point = cordon::timer::time_point;

// Plain fields on purpose: only the queue orders what the firing thread and the cancelling thread do with them.
struct node : cordon::timer {
    node(locked_timer_queue& q, int again) noexcept : timer(&call), queue(&q), rearm(again) {}

    static void call(cordon::timer& t) noexcept {
        auto& self = static_cast<node&>(t);
        ++self.fired;
        if (self.rearm-- > 0) {
            self.when += 1us;
            self.queue->arm(self);
        }
        self.tail = self.fired;  // a fire that goes on after it has armed itself
    }

    locked_timer_queue* queue;
    int rearm;
    int fired = 0;
    int tail = 0;
};

}  // namespace

TEST_CASE("timers that are cancelled and freed while they fire elsewhere", "[stress][time][timer_queue]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::atomic<int> woken{0};
    locked_timer_queue queue(
        [](void* n) noexcept { static_cast<std::atomic<int>*>(n)->fetch_add(1, std::memory_order_relaxed); }, &woken);
    std::atomic<bool> stop{false};
    std::atomic<std::int64_t> virtual_time{1'000'000};
    std::atomic<long> wrong{0};
    std::atomic<long> fired{0};

    const auto loop = [&] {
        while (!stop.load(std::memory_order_relaxed)) {
            const auto now = virtual_time.fetch_add(700, std::memory_order_relaxed);
            queue.fire_due(time_point(std::chrono::nanoseconds(now)));
            static_cast<void>(queue.next_wake());
        }
    };
    const auto owner = [&](std::uint64_t own_seed) {
        std::mt19937_64 random(own_seed);
        std::vector<std::unique_ptr<node>> held(64);
        // At least so many rounds, and more while the loops have hardly had a processor to fire on.
        for (int i = 0; i < 60'000 || fired.load(std::memory_order_relaxed) < 1000; ++i) {
            auto& slot = held[random() % held.size()];
            if (slot != nullptr) {
                queue.cancel(*slot);
                // After cancel the node is ours alone: nobody reads it, writes it or has it in a list.
                if (slot->tail != slot->fired || slot->next != nullptr) wrong.fetch_add(1);
                fired.fetch_add(slot->fired, std::memory_order_relaxed);
                slot.reset();
            }
            slot = std::make_unique<node>(queue, static_cast<int>(random() % 3));
            const auto offset = static_cast<std::int64_t>(random() % 20'000) - 2'000;
            slot->when = time_point(std::chrono::nanoseconds(virtual_time.load(std::memory_order_relaxed) + offset));
            queue.arm(*slot);
        }
        for (auto& slot : held) {
            if (slot != nullptr) queue.cancel(*slot);
        }
    };

    std::thread first_loop(loop), second_loop(loop), first_owner(owner, seed), second_owner(owner, seed + 1);
    first_owner.join();
    second_owner.join();
    stop = true;
    first_loop.join();
    second_loop.join();
    CHECK(wrong == 0);
    CHECK(fired >= 1000);
    CHECK(queue.empty());
}

TEST_CASE("cancel returns only after the fire on another thread has ended", "[stress][time][timer_queue]") {
    struct slow : cordon::timer {
        slow() noexcept
            : timer([](cordon::timer& t) noexcept {
                  auto& self = static_cast<slow&>(t);
                  self.begun.store(true);
                  for (int i = 0; i < 50; ++i) std::this_thread::yield();
                  self.ended = true;
              }) {}
        std::atomic<bool> begun{false};
        bool ended = false;
    };
    locked_timer_queue queue;
    int wrong = 0;
    for (int round = 0; round < stress::rounds(500); ++round) {
        auto t = std::make_unique<slow>();
        t->when = time_point(1s);
        queue.arm(*t);
        std::thread firer([&] { queue.fire_due(time_point(2s)); });
        while (!t->begun.load()) std::this_thread::yield();
        queue.cancel(*t);
        if (!t->ended) ++wrong;
        t.reset();
        firer.join();
    }
    CHECK(wrong == 0);
}

TEST_CASE("a loop that sleeps until next_wake misses no timer", "[stress][time][timer_queue]") {
    const std::uint64_t seed = stress::fresh_seed();
    // Real time, since what is tested is that a loop asleep is woken: all deadlines lie within a few milliseconds.
    struct sleeper {
        std::atomic<std::uint32_t> signal{0};
    } bell;
    locked_timer_queue queue(
        [](void* s) noexcept {
            auto& signal = static_cast<sleeper*>(s)->signal;
            signal.fetch_add(1);
            signal.notify_all();
        },
        &bell);
    struct counted : cordon::timer {
        explicit counted(std::atomic<int>& n) noexcept
            : timer([](cordon::timer& t) noexcept { static_cast<counted&>(t).count->fetch_add(1); }), count(&n) {}
        std::atomic<int>* count;
    };
    constexpr int total = 2000;
    std::atomic<int> count{0};
    std::vector<std::unique_ptr<counted>> timers;
    for (int i = 0; i < total; ++i) timers.push_back(std::make_unique<counted>(count));

    std::thread loop([&] {
        while (count.load() < total) {
            const auto seen = bell.signal.load();
            queue.fire_due(std::chrono::steady_clock::now());
            const auto wake = queue.next_wake();
            if (count.load() == total) break;
            if (!wake) {
                bell.signal.wait(seen);  // for ever: only on_earlier ends it
            } else {
                while (std::chrono::steady_clock::now() < *wake && bell.signal.load() == seen) {
                    std::this_thread::yield();
                }
            }
        }
    });
    std::mt19937_64 random(seed);
    for (auto& t : timers) {
        t->when = std::chrono::steady_clock::now() + std::chrono::microseconds(random() % 2000);
        queue.arm(*t);
        if (random() % 16 == 0) {
            while (!queue.empty()) std::this_thread::yield();  // lets the loop fall asleep for good
        }
    }
    loop.join();
    CHECK(count == total);
    CHECK(queue.empty());
}
