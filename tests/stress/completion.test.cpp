// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/sync/completion.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <cstdint>
#include <memory>
#include <random>
#include <thread>

namespace {

namespace co = cordon;

/// Two threads that race, after they have waited for each other, or go one after the other.
class start_line {
public:
    explicit start_line(std::uint64_t random) noexcept : order_(random % 4) {}
    void set_goes() noexcept { go(order_ == 1); }
    void set_is_done() noexcept { done_.fetch_add(1); }
    void stop_goes() noexcept { go(order_ == 2); }
    void stop_is_done() noexcept { done_.fetch_add(1); }

private:
    void go(bool after_the_other) noexcept {
        arrived_.fetch_add(1);
        for (int spins = 0; arrived_.load() < 2 || (after_the_other && done_.load() == 0); ++spins)
            if (spins > 2000) std::this_thread::yield();
    }
    std::uint64_t order_;
    std::atomic<int> arrived_{0}, done_{0};
};

}  // namespace

TEST_CASE("a completion that is set while its wait is stopped: the value is taken or still there",
          "[stress][sync][completion]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    std::atomic<int> got{0}, stopped{0}, wrong{0};
    struct race {
        co::completion<int> c;
        co::cancel_scope scope;
        start_line line;
        int written = 0;  // plain: set_value() must make it visible
    };
    const auto waits = [&](race* r) -> co::task<> {
        auto ended = co_await co::as_outcome(r->c.wait().with(r->scope.ctx()));
        ++(ended.has_value() ? got : stopped);
        if (!ended.has_value()) ended = co_await co::as_outcome(r->c.wait());
        if (!ended.has_value() || *ended != 5 || r->written != 6) ++wrong;
    };
    const auto sets = [](race* r) -> co::task<> {
        r->line.set_goes();
        r->written = 6;
        r->c.set_value(5);
        r->line.set_is_done();
        co_return;
    };
    const auto stops = [](race* r) -> co::task<> {
        r->line.stop_goes();
        r->scope.request_stop();
        r->line.stop_is_done();
        co_return;
    };
    stress::crew<3> crew;
    for (int round = 0; round < 2'000; ++round) {
        race r{{}, co::cancel_scope(co::executor_ref(crew.loop(0))), start_line(random()), 0};
        crew.start(0, waits(&r));
        crew.start(1, sets(&r));
        crew.start(2, stops(&r));
        crew.wait();
    }
    CHECK(wrong.load() == 0);
    CHECK(got.load() + stopped.load() == 2'000);
    CHECK(got.load() > 0);
    CHECK(stopped.load() > 0);
}

TEST_CASE("a hook that ends the wait races with the result, and the first one counts", "[stress][sync][completion]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    std::atomic<int> got{0}, stopped{0}, wrong{0};
    struct race {
        co::completion<int> c;
        co::cancel_scope scope;
        start_line line;
        std::atomic<int> asked{0};
        bool value_was_first = false;
        bool has_value = false;
    };
    const auto waits = [&](race* r) -> co::task<> {
        const auto hook = [r] {
            ++r->asked;
            r->c.set_stopped();
        };
        auto ended = co_await co::as_outcome(r->c.wait(hook).with(r->scope.ctx()));
        r->has_value = ended.has_value();
        if (r->asked.load() > 1 || (!r->has_value && r->asked.load() != 1)) ++wrong;
        ++(r->has_value ? got : stopped);
    };
    const auto sets = [](race* r) -> co::task<> {
        r->line.set_goes();
        r->value_was_first = r->c.set_value(5);
        r->line.set_is_done();
        co_return;
    };
    const auto stops = [](race* r) -> co::task<> {
        r->line.stop_goes();
        r->scope.request_stop();
        r->line.stop_is_done();
        co_return;
    };
    stress::crew<3> crew;
    for (int round = 0; round < 2'000; ++round) {
        race r{{}, co::cancel_scope(co::executor_ref(crew.loop(0))), start_line(random()), 0, false, false};
        crew.start(0, waits(&r));
        crew.start(1, sets(&r));
        crew.start(2, stops(&r));
        crew.wait();
        if (r.value_was_first != r.has_value) ++wrong;
    }
    CHECK(wrong.load() == 0);
    CHECK(got.load() > 0);
    CHECK(stopped.load() > 0);
}

TEST_CASE("who has awaited a completion may destroy it while set returns", "[stress][sync][completion]") {
    std::atomic<long> sum{0};
    const auto waits = [&](co::completion<int>* c) -> co::task<> {
        const std::unique_ptr<co::completion<int>> mine(c);
        sum += co_await mine->wait();
    };
    const auto waits_with_hook = [&](co::completion<int>* c) -> co::task<> {
        const std::unique_ptr<co::completion<int>> mine(c);
        sum += co_await mine->wait([] {});
    };
    const auto sets = [](co::completion<int>* c) -> co::task<> {
        c->set_value(1);
        co_return;
    };
    stress::crew<2> crew;
    for (int round = 0; round < 2'000; ++round) {
        auto* const c = new co::completion<int>;
        crew.start(0, round % 2 == 0 ? waits(c) : waits_with_hook(c));
        crew.start(1, sets(c));
        crew.wait();
    }
    CHECK(sum.load() == 2'000);
}
