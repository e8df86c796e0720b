// SPDX-License-Identifier: MIT
#include <cordon/scope/task_group.hpp>

#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

/// Several loops with a thread each, which take turns: an executor whose items run at the same time.
class fleet {
public:
    explicit fleet(std::size_t threads) {
        for (std::size_t i = 0; i < threads; ++i) loops_.emplace_back();
        for (co::run_loop& l : loops_) threads_.emplace_back([&l] { l.run(); });
    }
    ~fleet() {
        for (co::run_loop& l : loops_) l.stop();
        for (std::thread& t : threads_) t.join();
    }
    void submit(co::work_item& item) noexcept { loops_[turn_.fetch_add(1) % loops_.size()].submit(item); }
    [[nodiscard]] bool is_current() const noexcept {
        return std::any_of(loops_.begin(), loops_.end(), [](const co::run_loop& l) { return l.is_current(); });
    }
    [[nodiscard]] co::timer_service& timers() noexcept { return loops_.front().timers(); }

private:
    std::atomic<std::size_t> turn_{0};
    std::deque<co::run_loop> loops_;
    std::vector<std::thread> threads_;
};

struct failure : std::runtime_error {
    failure() : runtime_error("on purpose") {}
};

/// Some yields, then an end of some kind.
co::task<> child(std::atomic<int>& alive, std::uint32_t what) {
    const stress::counted here(alive);
    for (std::uint32_t i = what % 4; i > 0; --i) co_await co::this_task::yield();
    switch (what / 4 % 8) {
        case 0: throw failure();
        case 1: co_await co::sleep_for(1h); break;  // until it is stopped
        case 2: co_await co::sleep_for(std::chrono::microseconds(what % 64)); break;
        default: break;
    }
}
/// One that ends by itself.
co::task<> brief(std::atomic<int>& alive, std::uint32_t what) {
    return child(alive, 4 * (2 + what / 4 % 6) + what % 4);
}

co::task<> spawns(co::task_group& group, std::atomic<int>& alive, std::uint32_t seed, int depth) {
    const stress::counted here(alive);
    std::minstd_rand random(seed);
    for (std::uint32_t i = 0; i < 3; ++i) {
        if (depth > 0 && random() % 2 == 0)
            group.spawn(spawns(group, alive, static_cast<std::uint32_t>(random()), depth - 1));
        else group.spawn(brief(alive, static_cast<std::uint32_t>(random())));
        if (random() % 4 == 0) co_await co::this_task::yield();
    }
}

}  // namespace

TEST_CASE("a group may be destroyed as soon as its join has returned, whoever ended last", "[stress][task_group]") {
    stress::dice d;
    fleet threads(3);
    std::atomic<int> alive{0};
    const std::size_t before = co::live_tasks().size();
    for (int round = 0; round < 1'000; ++round) {
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads));
        for (std::uint32_t i = d.below(6); i > 0; --i) group->spawn(spawns(*group, alive, d.below(1u << 30), 2));
        if (d.below(2) == 0) {
            co::sync_wait(group->join());
        } else {
            auto both = co::when_all(group->join(), group->join());
            co::sync_wait(std::move(both));
        }
        REQUIRE(alive == 0);
        REQUIRE(group->size() == 0);
        group.reset();
    }
    CHECK(co::live_tasks().size() == before);
}

TEST_CASE("groups of short children on one pool may be destroyed as soon as their joins have returned",
          "[stress][task_group]") {
    stress::dice d;
    co::thread_pool pool(3);
    std::atomic<int> alive{0};
    const auto brief_one = [&]() -> co::task<> {
        const stress::counted here(alive);
        co_return;
    };
    const auto spawns_into = [&](std::array<std::unique_ptr<co::task_group>, 3>& groups,
                                 std::uint32_t seed) -> co::task<> {
        std::minstd_rand random(seed);
        for (int i = 0; i < 200; ++i) {
            auto& group = *groups[random() % 8 == 0 ? 1 : random() % 8 == 0 ? 2 : 0];
            if (random() % 16 == 0) group.spawn(brief(alive, static_cast<std::uint32_t>(random())));
            else group.spawn(brief_one);
            if (random() % 64 == 0) co_await co::this_task::yield();
        }
    };
    for (int round = 0; round < stress::rounds(200); ++round) {
        std::array<std::unique_ptr<co::task_group>, 3> groups;
        for (auto& group : groups) group = std::make_unique<co::task_group>(pool);
        {
            co::task_group spawners(pool);
            for (int i = 0; i < 2; ++i) spawners.spawn(spawns_into(groups, d.below(1u << 30)));
            if (round % 2 == 0) REQUIRE(spawners.join_blocking().has_value());
            else REQUIRE(co::sync_wait(co::as_outcome(spawners.join())).has_value());
        }
        if (d.below(4) == 0) groups[d.below(3)]->request_stop();
        for (auto& group : groups) {
            REQUIRE(group->join_blocking().has_value());
            REQUIRE(group->size() == 0);
            group.reset();
        }
        REQUIRE(alive == 0);
    }
}

TEST_CASE("a group without children may be destroyed, also after joins that gave up", "[stress][task_group]") {
    stress::dice d;
    fleet threads(2);
    std::atomic<int> alive{0};
    for (int round = 0; round < 500; ++round) {
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads));
        for (std::uint32_t i = 1 + d.below(3); i > 0; --i) group->spawn(brief(alive, d.below(1u << 30)));
        const std::chrono::microseconds patience(d.below(60));
        const auto gave_up = co::sync_wait(co::as_outcome(co::with_timeout(patience, group->join())));
        while (group->size() != 0) std::this_thread::yield();
        if (gave_up.has_value()) REQUIRE_FALSE(group->spawn(brief(alive, 8)));
        group.reset();
        REQUIRE(alive == 0);
    }
}

TEST_CASE("spawns from several threads, a stop and a join agree on who was started", "[stress][task_group]") {
    stress::dice d;
    fleet threads(2);
    for (int round = 0; round < 300; ++round) {
        std::atomic<int> alive{0}, accepted{0}, begun{0};
        std::atomic<std::size_t> refused{0};
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads));
        const auto work = [&](std::uint32_t what) -> co::task<> {
            ++begun;
            co_await brief(alive, what);
        };
        const auto spawner = [&](std::uint32_t seed) {
            std::minstd_rand random(seed);
            for (int i = 0; i < 30; ++i) {
                if (group->spawn(work(static_cast<std::uint32_t>(random())))) ++accepted;
                else ++refused;
            }
        };
        std::thread one(spawner, d.below(1u << 30)), two(spawner, d.below(1u << 30));
        const bool stops = d.below(2) == 0;
        stress::dawdle(d.below(20'000));
        if (stops) group->request_stop();
        one.join();
        two.join();
        co::sync_wait(group->join());
        REQUIRE(alive == 0);
        REQUIRE(accepted + static_cast<int>(refused.load()) == 60);
        REQUIRE(group->refused() == refused.load());
        REQUIRE(begun <= accepted);
        if (!stops) REQUIRE(begun == 60);
        group.reset();
    }
}

TEST_CASE("the first failures are kept, all are counted, and a stop from elsewhere hides none",
          "[stress][task_group]") {
    stress::dice d;
    fleet threads(3);
    std::atomic<int> alive{0};
    for (int round = 0; round < 500; ++round) {
        std::atomic<std::size_t> failed{0};
        co::group_options options;
        options.errors = d.below(2) == 0 ? co::on_error::keep_going : co::on_error::stop_group;
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads), options);
        const auto work = [&](std::uint32_t what) -> co::task<> {
            try {
                co_await child(alive, what);
            } catch (const failure&) {
                ++failed;
                throw;
            }
        };
        for (int i = 0; i < 20; ++i) group->spawn(work(d.below(1u << 30)));
        std::thread other([&, wait = d.below(10'000)] {
            stress::dawdle(wait);
            group->request_stop();
        });
        other.join();
        co::sync_wait(group->join());
        REQUIRE(alive == 0);
        REQUIRE(group->error_count() == failed);
        const auto errors = group->errors();
        REQUIRE(errors.size() == std::min(group->error_count(), co::task_group::errors_kept));
        for (const auto& e : errors) REQUIRE_THROWS_AS(std::rethrow_exception(e.error), failure);
        group.reset();
    }
}

TEST_CASE("the bound holds and no room is lost while spawners wait, give up and are stopped", "[stress][task_group]") {
    stress::dice d;
    fleet threads(3);
    for (int round = 0; round < 100; ++round) {
        std::atomic<int> running{0}, alive{0}, ran{0}, accepted{0};
        std::atomic<bool> too_many{false};
        const int bound = 1 + static_cast<int>(d.below(3));
        co::group_options options;
        options.max_running = static_cast<std::size_t>(bound);
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads), options);
        co::task_group spawners{co::executor_ref(threads)};
        const auto work = [&](std::uint32_t what) -> co::task<> {
            if (++running > bound) too_many = true;
            ++ran;
            for (std::uint32_t i = what % 4; i > 0; --i) co_await co::this_task::yield();
            --running;
        };
        const auto spawner = [&](std::uint32_t seed) -> co::task<> {
            std::minstd_rand random(seed);
            for (int i = 0; i < 10; ++i) {
                const auto what = static_cast<std::uint32_t>(random());
                const std::chrono::microseconds patience(random() % 100);
                auto impatient = co::as_outcome(co::with_timeout(patience, group->spawn_when_ready(work(what))));
                const auto got = co_await std::move(impatient);
                if (got.has_value() && *got) ++accepted;
            }
        };
        for (int i = 0; i < 6; ++i) spawners.spawn(spawner(d.below(1u << 30)));
        co::sync_wait(spawners.join());
        REQUIRE(spawners.error_count() == 0);
        while (group->size() != 0) std::this_thread::yield();
        REQUIRE_FALSE(too_many);
        REQUIRE(ran == accepted);
        for (int i = 0; i < bound; ++i) REQUIRE(group->spawn(child(alive, 4)));
        REQUIRE_FALSE(group->spawn(child(alive, 4)));
        std::thread other([&] { group->request_stop(); });
        co::sync_wait(group->join());
        other.join();
        REQUIRE(alive == 0);
        group.reset();
    }
}

TEST_CASE("the stop of a group reaches every spawner that waits for room, or comes to wait", "[stress][task_group]") {
    stress::dice d;
    fleet threads(3);
    for (int round = 0; round < 300; ++round) {
        std::atomic<int> told{0}, started{0}, alive{0};
        co::group_options options;
        options.max_running = 1;
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads), options);
        co::task_group spawners{co::executor_ref(threads)};
        const auto spawner = [&]() -> co::task<> {
            const bool ok = co_await group->spawn_when_ready(child(alive, 4));
            if (ok) ++started;
            ++told;
        };
        for (int i = 0; i < 8; ++i) spawners.spawn(spawner());
        stress::dawdle(d.below(10'000));
        std::thread other([&] { group->request_stop(); });
        co::sync_wait(spawners.join());
        other.join();
        co::sync_wait(group->join());
        REQUIRE(told == 8);
        REQUIRE(started <= 1);
        REQUIRE(alive == 0);
        group.reset();
    }
}

TEST_CASE("a future gives its result once, or ends stopped, while tasks, stops and drops race", "[stress][future]") {
    stress::dice d;
    fleet threads(3);
    for (int round = 0; round < 500; ++round) {
        auto group = std::make_unique<co::task_group>(co::executor_ref(threads));
        const auto work = [](std::uint32_t what) -> co::task<std::unique_ptr<int>> {
            for (std::uint32_t i = what % 4; i > 0; --i) co_await co::this_task::yield();
            if (what % 16 == 5) throw failure();
            co_return std::make_unique<int>(static_cast<int>(what));
        };
        std::vector<co::future<std::unique_ptr<int>>> futures;
        std::vector<std::uint32_t> whats;
        for (int i = 0; i < 8; ++i) {
            whats.push_back(d.below(1u << 20));
            futures.push_back(group->spawn_future(work(whats.back())));
        }
        std::thread stopper;
        const bool stops = d.below(2) == 0;
        if (stops) stopper = std::thread([&] { group->request_stop(); });
        for (std::size_t i = 0; i < futures.size(); ++i) {
            if (d.below(4) == 0) continue;
            const std::chrono::microseconds patience(d.below(50));
            auto first = co::sync_wait(co::as_outcome(co::with_timeout(patience, futures[i])));
            // a deadline that has passed may leave the result where it is
            if (first.is_error() && !futures[i].ready() && d.below(2) == 0) continue;
            if (first.is_error() && whats[i] % 16 != 5) first = co::sync_wait(co::as_outcome(futures[i]));
            if (whats[i] % 16 == 5) REQUIRE_FALSE(first.has_value());
            else if (first.has_value()) REQUIRE(**first == static_cast<int>(whats[i]));
            else REQUIRE((first.is_stopped() && stops));
        }
        futures.clear();
        if (stopper.joinable()) stopper.join();
        co::sync_wait(group->join());
        group.reset();
    }
}

namespace {

/// A random tree of groups and combinators, as wide as the fleet is.
co::task<> tree(std::atomic<int>& alive, std::uint32_t seed, int depth) {
    const stress::counted here(alive);
    std::minstd_rand random(seed);
    const auto next = [&] { return static_cast<std::uint32_t>(random()); };
    (void)next();
    if (depth == 0) {
        co_await child(alive, next());
        co_return;
    }
    switch (next() % 6) {
        case 0: {
            auto both = co::when_all(tree(alive, next(), depth - 1), tree(alive, next(), depth - 1));
            co_await std::move(both);
            break;
        }
        case 1: {
            auto either = co::when_any(tree(alive, next(), depth - 1), tree(alive, next(), depth - 1));
            (void)co_await std::move(either);
            break;
        }
        case 2:
            co_await co::with_timeout(std::chrono::microseconds(next() % 200), tree(alive, next(), depth - 1));
            break;
        case 3: {
            const auto clean = [&] { return brief(alive, seed); };
            co_await co::finally(tree(alive, next(), depth - 1), clean, 1s);
            break;
        }
        default: {
            const auto body = [&](co::task_group& group) -> co::task<> {
                for (std::uint32_t i = next() % 4; i > 0; --i) group.spawn(tree(alive, next(), depth - 1));
                if (next() % 4 == 0) co_await group.join();
                if (next() % 4 == 0) group.request_stop();
            };
            co_await co::with_group(body);
        }
    }
}

}  // namespace

TEST_CASE("random trees across threads end whole, by themselves or by a stop from elsewhere", "[stress][task_group]") {
    stress::dice d;
    fleet threads(3);
    std::atomic<int> alive{0};
    const std::size_t before = co::live_tasks().size();
    for (int round = 0; round < 400; ++round) {
        co::inplace_stop_source source;
        const std::uint32_t seed = d.below(1u << 30);
        auto running = co::on(co::executor_ref(threads), tree(alive, seed, 4));
        std::thread other([&, wait = d.below(60'000)] {
            stress::dawdle(wait);
            source.request_stop();
        });
        const auto ended = co::sync_wait(co::as_outcome(co::with(std::move(running), co::stop_on(source.get_token()))));
        other.join();
        CAPTURE(seed, ended.has_value());
        REQUIRE(alive == 0);
        REQUIRE(co::live_tasks().size() == before);
    }
}

#if CORDON_FRAME_CACHE

TEST_CASE("a million spawns leave the process no larger than the first hundred thousand", "[stress][task_group]") {
    const auto spawns = [](int n) -> co::task<> {
        for (int done = 0; done < n; done += 1'000) {
            auto body = [](co::task_group& group) -> co::task<> {
                for (int i = 0; i < 1'000; ++i) group.spawn(co::this_task::yield(), {.name = "one of many"});
                co_return;
            };
            co_await co::with_group(body);
        }
    };
    co::sync_wait(spawns(stress::rounds(100'000)));
    const std::size_t before = stress::resident();
    co::sync_wait(spawns(stress::rounds(1'000'000)));
    const std::size_t after = stress::resident();
    CHECK(after < before + (std::size_t{2} << 20));
}

#endif
