// SPDX-License-Identifier: MIT
#include <cordon/run/run_loop.hpp>

#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"
#include "run/jobs.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;
using co::run_loop;

namespace {

static_assert(co::executor<run_loop>);
static_assert(!std::is_copy_constructible_v<run_loop> && !std::is_move_constructible_v<run_loop>);
static_assert(noexcept(std::declval<run_loop&>().run()) && noexcept(std::declval<run_loop&>().poll()));

struct bell {
    static void ring(void* self) noexcept { ++static_cast<bell*>(self)->rings; }
    int rings = 0;
};

}  // namespace

TEST_CASE("a loop runs what was submitted in order, one item at a time", "[run][run_loop]") {
    run_loop loop;
    std::vector<int> order;
    bool inside = false;
    std::deque<job> jobs;
    for (int i = 0; i < 10; ++i)
        jobs.emplace_back([&, i] {
            CHECK_FALSE(inside);
            inside = true;
            order.push_back(i);
            if (i < 5) loop.submit(jobs[static_cast<std::size_t>(i) + 5]);  // behind what is there already
            inside = false;
        });
    for (std::size_t i = 0; i < 5; ++i) loop.submit(jobs[i]);
    CHECK(order.empty());
    job last([&] { loop.stop(); });
    jobs[9].run_it = [&] {
        order.push_back(9);
        loop.submit(last);
    };
    loop.run();
    CHECK(order == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9});
}

TEST_CASE("a loop is current inside its items and its timers, and nowhere else", "[run][run_loop]") {
    run_loop outer, inner;
    int checked = 0;
    job in_inner([&] {
        CHECK(inner.is_current());
        CHECK_FALSE(outer.is_current());
        ++checked;
    });
    job in_outer([&] {
        CHECK(outer.is_current());
        CHECK_FALSE(inner.is_current());
        inner.submit(in_inner);
        inner.poll();  // a loop inside another
        CHECK(outer.is_current());
        CHECK_FALSE(inner.is_current());
        ++checked;
    });
    fuse in_timer(co::clock::now(), [&] {
        CHECK(outer.is_current());
        ++checked;
    });
    outer.submit(in_outer);
    outer.timers().arm(in_timer);
    CHECK_FALSE(outer.is_current());
    outer.poll();
    CHECK_FALSE(outer.is_current());
    CHECK(checked == 3);
}

TEST_CASE("a loop with long items fires a timer behind the one during which it became due", "[run][run_loop]") {
    run_loop loop;
    int ran = 0, ran_before = 0;
    fuse due(co::clock::now() + 10ms, [&] { ran_before = ran; });
    std::deque<job> jobs;
    for (int i = 0; i < 40; ++i)
        jobs.emplace_back([&] {
            for (const auto end = co::clock::now() + 2ms; co::clock::now() < end;) {}
            ++ran;
        });
    for (job& j : jobs) loop.submit(j);
    loop.timers().arm(due);
    while (loop.poll()) {}
    CHECK(ran == 40);
    CHECK(ran_before <= 6);   // each takes 2 ms at least, so it was due behind the fifth
}

TEST_CASE("a busy loop looks at the clock rarely while items are short, and behind each long one", "[run][run_loop]") {
    co::detail::clock_pace pace;
    co::clock::time_point now{1h};
    std::vector<int> items;
    for (int i = 0; i < 9; ++i) {
        pace.looked(now += 10us);
        items.push_back(pace.items());
    }
    CHECK(items == std::vector<int>{1, 2, 4, 8, 16, 32, 64, 64, 64});
    pace.looked(now += 251us);
    CHECK(pace.items() == 1);
    pace.looked(now += 250us);
    CHECK(pace.items() == 2);
}

TEST_CASE("run() returns after the item that stops it, the rest waits for the next run", "[run][run_loop]") {
    run_loop loop;
    std::vector<int> order;
    job a([&] { order.push_back(1); });
    job b([&] {
        order.push_back(2);
        loop.stop();
        loop.stop();  // twice is as once
    });
    job c([&] { order.push_back(3); });
    job d([&] {
        order.push_back(4);
        loop.stop();
    });
    for (job* j : {&a, &b, &c, &d}) loop.submit(*j);
    loop.run();
    CHECK(order == std::vector<int>{1, 2});
    loop.run();
    CHECK(order == std::vector<int>{1, 2, 3, 4});
}

TEST_CASE("a stop before run() makes the next run return at once, and only that one", "[run][run_loop]") {
    run_loop loop;
    int ran = 0;
    job a([&] {
        ++ran;
        loop.stop();
    });
    loop.submit(a);
    loop.stop();
    loop.run();
    CHECK(ran == 0);
    loop.run();
    CHECK(ran == 1);
}

TEST_CASE("a loop can be run on one thread after the other", "[run][run_loop]") {
    run_loop loop;
    std::thread::id first, second;
    job a([&] {
        first = std::this_thread::get_id();
        loop.stop();
    });
    job b([&] {
        second = std::this_thread::get_id();
        loop.stop();
    });
    loop.submit(a);
    std::thread other([&] { loop.run(); });
    other.join();
    loop.submit(b);
    loop.run();
    CHECK(second == std::this_thread::get_id());
    CHECK(first != second);
}

TEST_CASE("what another thread submits or stops wakes a loop that sleeps", "[run][run_loop]") {
    run_loop loop;
    bool ran = false;
    job a([&] {
        ran = true;
        loop.stop();
    });
    fuse far(co::clock::now() + 1h, [] {});
    loop.timers().arm(far);
    std::thread submits([&] {
        std::this_thread::sleep_for(2ms);  // for the loop to fall asleep; if it does not, the test still holds
        loop.submit(a);
    });
    loop.run();
    submits.join();
    CHECK(ran);
    std::thread stops([&] {
        std::this_thread::sleep_for(2ms);  // as above
        loop.stop();
    });
    loop.run();
    stops.join();
    loop.timers().cancel(far);
}

TEST_CASE("a timer that another thread arms wakes a loop that sleeps for longer, or for ever", "[run][run_loop]") {
    for (const bool sleeps_for_an_hour : {false, true}) {
        run_loop loop;
        fuse far(co::clock::now() + 1h, [] {});
        if (sleeps_for_an_hour) loop.timers().arm(far);
        bool fired = false;
        fuse near({}, [&] {
            fired = true;
            loop.stop();
        });
        std::thread other([&] {
            std::this_thread::sleep_for(2ms);  // for the loop to fall asleep; if it does not, the test still holds
            near.when = co::clock::now() + 1ms;
            loop.timers().arm(near);
        });
        loop.run();
        other.join();
        CHECK(fired);
        CHECK(co::clock::now() >= near.when);
        loop.timers().cancel(far);
    }
}

TEST_CASE("timers fire in their order, not before their time, between the items", "[run][run_loop]") {
    run_loop loop;
    std::vector<int> order;
    const auto now = co::clock::now();
    fuse third(now + 3ms, [&] {  // real time: the loop's own sleep is what is tested
        order.push_back(3);
        loop.stop();
    });
    fuse first(now + 1ms, [&] { order.push_back(1); });
    fuse second(now + 2ms, [&] { order.push_back(2); });
    fuse never(now + 2ms, [&] { order.push_back(99); });
    for (fuse* f : {&third, &first, &second, &never}) loop.timers().arm(*f);
    loop.timers().cancel(never);
    loop.run();
    CHECK(order == std::vector<int>{1, 2, 3});
    CHECK(co::clock::now() >= now + 3ms);
}

#if defined(__x86_64__)
TEST_CASE("no timer of a busy loop fires before its time, although the quick clock may be ahead", "[run][run_loop]") {
    using namespace co::detail;
    const auto put_ahead = [] {
        for (int looks = 0, tries = 0; looks < 4 && tries < 1000; ++tries) {
            const std::uint64_t before = __builtin_ia32_rdtsc();
            const auto now = co::clock::now() + quick_error - 100ns;
            const std::uint64_t after = __builtin_ia32_rdtsc();
            if (after - before > tick_rate::most_apart) continue;
            this_thread_ticks.see(before, now.time_since_epoch().count() + tick_rate::behind, after);
            if (++looks == 4) break;
            while (co::clock::now() < now + 1200us) {}
        }
    };
    int early = 0;
    for (int i = 0; i < 20; ++i) {
        run_loop loop;
        job again([] {});
        std::optional<fuse> due;
        again.run_it = [&] {
            if (due) return;
            put_ahead();
            due.emplace(co::clock::now() + 800ns, [&] { early += co::clock::now() < due->when ? 1 : 0; });
            loop.timers().arm(*due);
        };
        loop.submit(again);
        loop.poll();
        while (loop.next_wake()) loop.poll();
    }
    CHECK(early == 0);
}
#endif

TEST_CASE("items that keep each other busy do not keep timers and other threads out", "[run][run_loop]") {
    run_loop loop;
    int rounds = 0;
    bool fired = false, posted = false;
    job self([] {});
    self.run_it = [&] {
        ++rounds;
        if (fired && posted) loop.stop();
        else loop.submit(self);
    };
    fuse f(co::clock::now() + 1ms, [&] { fired = true; });
    job from_elsewhere([&] { posted = true; });
    loop.timers().arm(f);
    loop.submit(self);
    std::thread other([&] { loop.submit(from_elsewhere); });
    loop.run();
    other.join();
    CHECK(fired);
    CHECK(posted);
    CHECK(rounds > 1);
}

TEST_CASE("poll() runs what is ready, without waiting, and says whether there is more", "[run][run_loop]") {
    run_loop loop;
    CHECK_FALSE(loop.poll());
    int ran = 0;
    std::deque<job> jobs;
    for (int i = 0; i < 100; ++i) jobs.emplace_back([&] { ++ran; });
    for (job& j : jobs) loop.submit(j);
    CHECK(loop.poll());  // not all at once: the clock is looked at in between
    CHECK(ran > 0);
    CHECK(ran < 100);
    while (loop.poll()) {
    }
    CHECK(ran == 100);
    CHECK_FALSE(loop.poll());
}

TEST_CASE("a loop that is polled tells its host when to poll again", "[run][run_loop]") {
    bell b;
    run_loop loop(&bell::ring, &b);
    CHECK_FALSE(loop.next_wake().has_value());
    job a([] {});
    loop.submit(a);
    const auto now = loop.next_wake();
    REQUIRE(now.has_value());
    CHECK(*now <= co::clock::now());
    CHECK_FALSE(loop.poll());
    CHECK_FALSE(loop.next_wake().has_value());

    fuse later(co::clock::now() + 1h, [] {});
    fuse sooner(co::clock::now() + 1min, [] {});
    loop.timers().arm(later);
    CHECK(loop.next_wake() == later.when);
    loop.timers().arm(sooner);
    CHECK(loop.next_wake() == sooner.when);
    loop.timers().cancel(sooner);
    CHECK(loop.next_wake() == later.when);
    loop.timers().cancel(later);
    CHECK_FALSE(loop.next_wake().has_value());

    std::deque<job> jobs;
    for (int i = 0; i < 100; ++i) jobs.emplace_back([] {});
    for (job& j : jobs) loop.submit(j);
    REQUIRE(loop.poll());
    const auto at_once = loop.next_wake();
    REQUIRE(at_once.has_value());
    CHECK(*at_once <= co::clock::now());
    while (loop.poll()) {
    }
}

TEST_CASE("on_wake is called once for a loop that waits to be polled, from any thread, and again after the next poll",
          "[run][run_loop]") {
    bell b;
    run_loop loop(&bell::ring, &b);
    int ran = 0;
    job first([&] { ++ran; }), second([&] { ++ran; });
    loop.submit(first);
    CHECK(b.rings == 0);  // it does not wait yet: next_wake() has not been asked
    loop.poll();
    REQUIRE_FALSE(loop.next_wake().has_value());
    std::thread other([&] {
        loop.submit(first);
        loop.submit(second);
    });
    other.join();
    CHECK(b.rings == 1);
    CHECK(loop.next_wake().has_value());
    loop.poll();
    CHECK(ran == 3);
    CHECK(b.rings == 1);
    REQUIRE_FALSE(loop.next_wake().has_value());
    loop.submit(first);  // its own thread, outside of poll()
    CHECK(b.rings == 2);
    loop.poll();
    CHECK(ran == 4);

    fuse later(co::clock::now() + 1h, [] {}), sooner(co::clock::now() + 1min, [] {}), latest(later.when + 1h, [] {});
    REQUIRE_FALSE(loop.next_wake().has_value());
    std::thread arms([&] { loop.timers().arm(later); });
    arms.join();
    CHECK(b.rings == 3);
    CHECK(loop.next_wake() == later.when);
    loop.timers().arm(sooner);
    CHECK(b.rings == 4);
    CHECK(loop.next_wake() == sooner.when);
    loop.timers().arm(latest);  // no earlier than what the host waits for
    CHECK(b.rings == 4);
    for (fuse* f : {&later, &sooner, &latest}) loop.timers().cancel(*f);
}

TEST_CASE("stop() is nothing to a loop that is polled", "[run][run_loop]") {
    bell b;
    run_loop loop(&bell::ring, &b);
    loop.stop();
    CHECK_FALSE(loop.next_wake().has_value());
    int ran = 0;
    job a([&] {
        ++ran;
        loop.stop();
    });
    job c([&] { ++ran; });
    loop.submit(a);
    loop.submit(c);
    CHECK_FALSE(loop.poll());
    CHECK(ran == 2);
    CHECK_FALSE(loop.next_wake().has_value());
}

TEST_CASE("a host's loop drives tasks by polling", "[run][run_loop]") {
    bell b;
    run_loop loop(&bell::ring, &b);
    bool ended = false;
    const auto work = []() -> co::task<int> {
        co_await co::this_task::yield();
        co_await co::sleep_for(1ms);
        co_return 5;
    };
    co::start_on(loop, work, [&](co::outcome<int> o) { ended = o.has_value() && *o == 5; });
    while (!ended) {
        if (loop.poll()) continue;
        const auto next = loop.next_wake();
        if (next) std::this_thread::sleep_until(*next);  // what a host does
    }
    CHECK_FALSE(loop.next_wake().has_value());
}

TEST_CASE("a loop destroyed with something left to run says so and terminates", "[run][run_loop]") {
    for (const bool from_outside : {false, true}) {
        const auto text = last_words([from_outside] {
            job never([] {});
            std::optional<run_loop> loop(std::in_place);
            job submits([&] { loop->submit(never); });
            if (from_outside) {
                loop->submit(never);
            } else {
                job stops([&] { loop->stop(); });
                loop->submit(stops);
                loop->submit(submits);
                loop->run();
            }
            loop.reset();
        });
        CHECK(says(text, "a run_loop was destroyed with something submitted that has not run"));
    }
}

TEST_CASE("a loop destroyed with timers armed says so and terminates", "[run][run_loop]") {
    const auto text = last_words([] {
        std::optional<run_loop> loop(std::in_place);
        fuse f(co::clock::now() + 1h, [] {});
        loop->timers().arm(f);
        loop.reset();
    });
    CHECK(says(text, "1 timers armed"));
}
