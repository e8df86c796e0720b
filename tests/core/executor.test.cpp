// SPDX-License-Identifier: MIT
#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>
#include <cordon/time/timer_queue.hpp>

#include "catch.hpp"

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::executor_ref;
using cordon::run_loop;
using cordon::task;
using cordon::work_item;
using cordon::testing::simulation;

/// The smallest executor that a host could write: a list that the test empties by hand.
class hand_loop {
public:
    void submit(work_item& item) noexcept { items_.push_back(&item); }
    [[nodiscard]] bool is_current() const noexcept { return running_; }
    [[nodiscard]] cordon::timer_service& timers() noexcept { return timers_; }

    /// Runs what is there, and what that submits, until nothing is left.
    std::size_t drain() {
        std::size_t n = 0;
        timers_.fire_due(cordon::clock::now());
        running_ = true;
        for (; !items_.empty(); ++n) {
            work_item* const item = items_.front();
            items_.erase(items_.begin());
            item->run(*item);
        }
        running_ = false;
        return n;
    }

private:
    std::vector<work_item*> items_;
    bool running_ = false;
    cordon::locked_timer_queue timers_;
};

struct no_timers {
    void submit(work_item&) noexcept {}
    bool is_current() const noexcept { return false; }
};
struct may_throw : hand_loop {
    void submit(work_item& item) { hand_loop::submit(item); }
};

static_assert(cordon::executor<hand_loop> && cordon::executor<run_loop> && cordon::executor<simulation>);
static_assert(!cordon::executor<no_timers> && !cordon::executor<may_throw> && !cordon::executor<int>);
static_assert(std::is_trivially_copyable_v<executor_ref> && sizeof(executor_ref) == 2 * sizeof(void*));
static_assert(std::is_nothrow_constructible_v<executor_ref, hand_loop&>);
static_assert(!std::is_constructible_v<executor_ref, hand_loop>, "a temporary executor would die too early");

struct recorder : work_item {
    recorder(std::vector<int>& to, int n) noexcept : work_item(&recorder::ran), log(&to), number(n) {}
    static void ran(work_item& item) noexcept {
        auto& self = static_cast<recorder&>(item);
        self.log->push_back(self.number);
    }
    std::vector<int>* log;
    int number;
};

}  // namespace

TEST_CASE("an empty executor_ref refers to nobody", "[core][executor]") {
    const executor_ref none;
    CHECK_FALSE(none);
    CHECK_FALSE(none.is_current());
    CHECK(none == executor_ref());
}

TEST_CASE("an executor_ref stands for the executor itself", "[core][executor]") {
    hand_loop a, b;
    const executor_ref ra(a), rb(b);
    CHECK(ra);
    CHECK(ra == executor_ref(a));
    CHECK_FALSE(ra == rb);
    CHECK(&ra.timers() == &a.timers());
    const executor_ref copy = ra;
    CHECK(copy == ra);

    std::vector<int> log;
    recorder one(log, 1), two(log, 2), three(log, 3);
    ra.submit(one);
    rb.submit(two);
    copy.submit(three);
    CHECK(log.empty());
    CHECK(a.drain() == 2);
    CHECK(log == std::vector<int>{1, 3});
    CHECK(b.drain() == 1);
    CHECK(log == std::vector<int>{1, 3, 2});
}

TEST_CASE("an executor is current only while it runs an item", "[core][executor]") {
    struct asks : work_item {
        explicit asks(executor_ref e) noexcept : work_item(&asks::ran), here(e) {}
        static void ran(work_item& item) noexcept {
            auto& self = static_cast<asks&>(item);
            self.was_current = self.here.is_current();
        }
        executor_ref here;
        bool was_current = false;
    };
    hand_loop loop;
    asks item{executor_ref(loop)};
    CHECK_FALSE(item.here.is_current());
    loop.submit(item);
    loop.drain();
    CHECK(item.was_current);
    CHECK_FALSE(item.here.is_current());
}

TEST_CASE("a task runs on any type that satisfies executor, timers included", "[core][executor]") {
    struct program {
        static task<int> run(executor_ref expected, std::vector<bool>& here) {
            here.push_back(co_await cordon::this_task::executor() == expected);
            here.push_back(expected.is_current());
            co_await cordon::this_task::yield();
            here.push_back(expected.is_current());
            co_await cordon::sleep_for(1us);
            here.push_back(expected.is_current());
            co_return 5;
        }
    };
    hand_loop loop;
    std::vector<bool> here;
    std::optional<int> result;
    cordon::start_on(executor_ref(loop), program::run(executor_ref(loop), here),
                     [&](const cordon::outcome<int>& o) { result = o.value(); });
    CHECK(here.empty());
    while (!result) loop.drain();  // real time: this loop has no other clock
    CHECK(result == 5);
    CHECK(here == std::vector<bool>(4, true));
}

TEST_CASE("a task comes back to its own executor from another one, on another thread", "[core][executor][D5]") {
    struct program {
        static task<std::thread::id> where() { co_return std::this_thread::get_id(); }
        static task<std::vector<std::thread::id>> run(executor_ref there) {
            std::vector<std::thread::id> seen;
            seen.push_back(std::this_thread::get_id());
            seen.push_back(co_await cordon::on(there, where()));
            seen.push_back(std::this_thread::get_id());
            co_return seen;
        }
    };
    run_loop home, other;
    std::thread worker([&] { other.run(); });
    std::vector<std::thread::id> seen;
    cordon::start_on(executor_ref(home), program::run(executor_ref(other)),
                     [&](cordon::outcome<std::vector<std::thread::id>> o) {
                         seen = std::move(o).value();
                         home.stop();
                     });
    home.run();
    REQUIRE(seen.size() == 3);
    CHECK(seen[0] == std::this_thread::get_id());
    CHECK(seen[1] == worker.get_id());
    CHECK(seen[2] == std::this_thread::get_id());
    other.stop();
    worker.join();
}
