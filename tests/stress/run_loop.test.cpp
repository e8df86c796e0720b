// SPDX-License-Identifier: MIT
#include <cordon/run/run_loop.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <random>
#include <thread>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

struct dice {
    dice() : seed(static_cast<std::uint32_t>(stress::fresh_seed())), engine(seed) {}
    std::uint32_t below(std::uint32_t n) { return static_cast<std::uint32_t>(engine() % n); }

    std::uint32_t seed;
    std::minstd_rand engine;
};

/// Something to submit.
struct job : co::work_item {
    explicit job(std::function<void()> f) : work_item(&job::call), run_it(std::move(f)) {}
    static void call(co::work_item& item) noexcept { static_cast<job&>(item).run_it(); }
    std::function<void()> run_it;
};

/// A thread that does what it is given, once each time.
class helper {
public:
    helper() : thread_([this] { work(); }) {}
    ~helper() {
        give([this] { over_ = true; });
        thread_.join();
    }
    /// Requires: what was given last has ended, or is about to.
    void give(std::function<void()> what) {
        while (given_.load()) std::this_thread::yield();
        what_ = std::move(what);
        given_ = true;
    }

private:
    void work() {
        while (!over_) {
            if (!given_.load()) {
                std::this_thread::yield();
                continue;
            }
            what_();
            given_ = false;
        }
    }
    std::function<void()> what_;
    std::atomic<bool> given_{false};
    bool over_ = false;
    std::thread thread_;
};

/// Now and then a pause, so that the loop is found asleep and awake.
void dawdle(std::uint32_t how_long) {
    for (; how_long > 0; --how_long) std::atomic_signal_fence(std::memory_order_seq_cst);
}

}  // namespace

TEST_CASE("a loop may be destroyed as soon as run() has returned from another thread's stop()", "[stress][run_loop]") {
    dice d;
    helper other;
    for (int round = 0; round < 5'000; ++round) {
        auto loop = std::make_unique<co::run_loop>();
        const std::uint32_t mine = d.below(20'000), its = d.below(400);
        other.give([l = loop.get(), its] {
            dawdle(its);
            l->stop();
        });
        dawdle(mine);
        loop->run();
        loop.reset();
    }
}

TEST_CASE("a loop may be destroyed as soon as the item that another thread submitted has stopped it",
          "[stress][run_loop]") {
    dice d;
    helper other;
    for (int round = 0; round < 5'000; ++round) {
        auto loop = std::make_unique<co::run_loop>();
        auto last = std::make_unique<job>([l = loop.get()] { l->stop(); });
        const std::uint32_t mine = d.below(20'000), its = d.below(400);
        other.give([l = loop.get(), item = last.get(), its] {
            dawdle(its);
            l->submit(*item);
        });
        dawdle(mine);
        loop->run();
        last.reset();
        loop.reset();
    }
}

TEST_CASE("what several threads submit runs once, in the order of each of them, however the loop sleeps between",
          "[stress][run_loop]") {
    dice d;
    constexpr std::size_t threads = 3, items = 4'000;
    co::run_loop loop;
    std::array<std::size_t, threads> next{};
    std::size_t out_of_order = 0, ran = 0;
    std::array<std::deque<job>, threads> jobs;
    for (std::size_t t = 0; t < threads; ++t)
        for (std::size_t i = 0; i < items; ++i)
            jobs[t].emplace_back([&, t, i] {
                if (next[t]++ != i) ++out_of_order;
                if (++ran == threads * items) loop.stop();
            });
    std::vector<std::thread> others;
    for (std::size_t t = 0; t < threads; ++t)
        others.emplace_back([&, t, seed = d.seed + t] {
            std::minstd_rand random(static_cast<std::uint32_t>(seed));
            for (job& j : jobs[t]) {
                if (random() % 8 == 0) dawdle(static_cast<std::uint32_t>(random() % 3'000));
                loop.submit(j);
            }
        });
    loop.run();
    for (std::thread& t : others) t.join();
    CHECK(ran == threads * items);
    CHECK(out_of_order == 0);
}

TEST_CASE("a timer that another thread arms is noticed, whatever the loop sleeps for", "[stress][run_loop]") {
    struct fuse : co::timer {
        explicit fuse(std::function<void()> f) : timer(&fuse::burnt), then(std::move(f)) {}
        static void burnt(co::timer& t) noexcept { static_cast<fuse&>(t).then(); }
        std::function<void()> then;
    };
    dice d;
    helper other;
    co::run_loop loop;
    fuse far([] {});  // what the loop sleeps for: an hour, or nothing
    for (int round = 0; round < 1'000; ++round) {
        const bool has_far = d.below(2) == 0;
        if (has_far) {
            far.when = co::clock::now() + 1h;
            loop.timers().arm(far);
        }
        fuse near([&] { loop.stop(); });
        std::atomic<bool> armed{false};
        const std::uint32_t its = d.below(2'000);
        other.give([&, its] {
            dawdle(its);
            near.when = co::clock::now() + std::chrono::microseconds(its % 50);
            loop.timers().arm(near);
            armed = true;
        });
        loop.run();
        while (!armed) std::this_thread::yield();
        if (has_far) loop.timers().cancel(far);
    }
}

TEST_CASE("a polled loop may go as soon as what was posted last has run", "[stress][run_loop]") {
    struct bell {
        static void ring(void* self) noexcept { static_cast<bell*>(self)->rings.fetch_add(1, std::memory_order_relaxed); }
        std::atomic<int> rings{0};
    };
    dice d;
    helper other;
    bell host;
    for (int round = 0; round < 2'000; ++round) {
        auto loop = std::make_unique<co::run_loop>(&bell::ring, &host);
        bool has_run = false;
        job last([&] { has_run = true; });
        static_cast<void>(loop->next_wake());   // whoever posts now rings
        const std::uint32_t its = d.below(300);
        other.give([&, its] {
            dawdle(its);
            loop->submit(last);
        });
        if (round % 8 == 0)   // else it may be polled, and found awake, before anybody posts
            while (host.rings <= round / 8) std::this_thread::yield();
        while (!has_run) loop->poll();
        loop.reset();
    }
    CHECK(host.rings > 0);
}

TEST_CASE("a host that polls misses no wake-up", "[stress][run_loop]") {
    struct bell {
        static void ring(void* self) noexcept {
            auto& b = *static_cast<bell*>(self);
            b.rings.fetch_add(1);
            b.rings.notify_one();
        }
        std::atomic<std::uint32_t> rings{0};
    };
    dice d;
    bell b;
    co::run_loop loop(&bell::ring, &b);
    constexpr std::size_t items = 20'000;
    std::size_t ran = 0;
    std::deque<job> jobs;
    for (std::size_t i = 0; i < items; ++i) jobs.emplace_back([&] { ++ran; });
    std::thread other([&, seed = d.seed] {
        std::minstd_rand random(seed);
        for (job& j : jobs) {
            if (random() % 4 == 0) dawdle(static_cast<std::uint32_t>(random() % 1'000));
            loop.submit(j);
        }
    });
    std::uint32_t heard = 0, waits = 0;
    for (;;) {
        heard = b.rings.load();
        const bool more = loop.poll();
        if (ran == items) break;
        if (!more && !loop.next_wake()) {
            ++waits;
            b.rings.wait(heard);
        }
    }
    other.join();
    CHECK(ran == items);
    CHECK(b.rings.load() <= waits + 1);  // once until the next poll
}
