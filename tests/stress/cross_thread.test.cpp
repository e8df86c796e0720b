// SPDX-License-Identifier: MIT
// Operations whose parts run on different threads: who goes there and comes back, who is stopped or timed out from
// elsewhere, and who is freed where.
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/finally.hpp>
#include <cordon/scope/shield.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace co = cordon;
using namespace std::chrono_literals;

namespace {

co::task<int> yields(std::atomic<int>& alive, std::uint32_t times, int value) {
    const stress::counted here(alive);
    for (; times > 0; --times) co_await co::this_task::yield();
    co_return value;
}
co::task<int> sleeps(std::atomic<int>& alive, co::clock::duration d) {
    const stress::counted here(alive);
    co_await co::sleep_for(d);
    co_return 1;
}
co::task<> cleans(std::atomic<int>& alive, std::atomic<int>& cleaned, std::uint32_t times) {
    const stress::counted here(alive);
    for (; times > 0; --times) co_await co::this_task::yield();
    ++cleaned;
}

}  // namespace

TEST_CASE("who goes elsewhere and comes back is always on its own thread, and frees what others made", "[stress][on]") {
    stress::dice d;
    stress::looping_thread one, two;
    const auto go = [&]() -> co::task<int> {
        int wrong = 0;
        const auto here = std::this_thread::get_id();
        for (int i = 0; i < 3'000; ++i) {
            const std::uint32_t what = d.below(8);
            const co::executor_ref there = what % 2 == 0 ? one.loop() : two.loop();
            const auto text = [what]() -> co::task<std::string> {
                if (what > 5) co_await co::this_task::yield();
                co_return std::string(100 + what, 'x');
            };
            const std::string got = co_await co::on(there, text);
            if (got.size() != 100 + what || std::this_thread::get_id() != here) ++wrong;
        }
        co_return wrong;
    };
    CHECK(co::sync_wait(go()) == 0);
}

TEST_CASE("a stop from a third thread ends what runs on two others, once", "[stress][on]") {
    stress::dice d;
    stress::looping_thread one, two;
    std::atomic<int> alive{0};
    for (int round = 0; round < 1'000; ++round) {
        std::optional<co::inplace_stop_source> source(std::in_place);
        auto inner = co::when_all(co::on(one.loop(), sleeps(alive, 1h)), co::on(two.loop(), sleeps(alive, 1h)));
        auto all = co::as_outcome(co::with(std::move(inner), co::stop_on(source->get_token())));
        std::thread third([&, wait = d.below(20'000)] {
            stress::dawdle(wait);
            source->request_stop();
        });
        const auto ended = co::sync_wait(std::move(all));
        REQUIRE(ended.is_stopped());
        REQUIRE(alive == 0);
        third.join();
        source.reset();
    }
}

TEST_CASE("of branches on several threads one wins, all end, and a stop that comes too late changes nothing",
          "[stress][when_any]") {
    stress::dice d;
    stress::looping_thread one, two;
    std::atomic<int> alive{0};
    for (int round = 0; round < 1'000; ++round) {
        co::inplace_stop_source source;
        auto racing = co::when_any(co::on(one.loop(), yields(alive, d.below(5), 0)),
                                   co::on(two.loop(), yields(alive, d.below(5), 1)), yields(alive, d.below(5), 2));
        std::optional<std::thread> third;
        if (d.below(2) == 0)
            third.emplace([&, wait = d.below(20'000)] {
                stress::dawdle(wait);
                source.request_stop();
            });
        const auto ended = co::sync_wait(co::as_outcome(co::with(std::move(racing), co::stop_on(source.get_token()))));
        if (ended.has_value()) {
            const auto index = static_cast<int>((*ended).index());
            REQUIRE(std::visit([](int v) { return v; }, *ended) == index);
        } else {
            REQUIRE((ended.is_stopped() && third.has_value()));
        }
        REQUIRE(alive == 0);
        if (third) third->join();
    }
}

TEST_CASE("a value, a deadline and a stop race for an operation on another thread", "[stress][with]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    int values = 0, timeouts = 0, stops = 0;
    for (int round = 0; round < 1'500; ++round) {
        co::inplace_stop_source source;
        const std::chrono::microseconds limit(d.below(60)), work(d.below(60));
        auto timed = co::with_timeout(limit, co::on(there.loop(), sleeps(alive, work)));
        std::optional<std::thread> third;
        if (d.below(4) == 0)
            third.emplace([&, wait = d.below(30'000)] {
                stress::dawdle(wait);
                source.request_stop();
            });
        const auto ended = co::sync_wait(co::as_outcome(co::with(std::move(timed), co::stop_on(source.get_token()))));
        if (ended.has_value()) ++values;
        else if (ended.is_stopped()) ++stops;
        else {
            REQUIRE_THROWS_AS(std::rethrow_exception(ended.error()), co::timeout_error);
            ++timeouts;
        }
        if (ended.is_stopped()) REQUIRE(third.has_value());
        REQUIRE(alive == 0);
        if (third) third->join();
    }
    CHECK(values + timeouts + stops == 1'500);
}

TEST_CASE("a computation that polls for its stop on another thread sees the timer of this one", "[stress][with]") {
    stress::dice d;
    stress::looping_thread there;
    const auto polls = []() -> co::task<int> {
        int rounds = 0;
        for (;; ++rounds) {
            const bool stop = co_await co::this_task::stop_requested();
            if (stop) break;
        }
        co_await co::sleep_for(1h);  // where the stop is delivered
        co_return rounds;
    };
    for (int round = 0; round < 1'000; ++round) {
        const std::chrono::microseconds limit(d.below(200));
        const auto ended = co::sync_wait(co::as_outcome(co::with_timeout(limit, co::on(there.loop(), polls))));
        REQUIRE(ended.is_error());
        REQUIRE_THROWS_AS(std::rethrow_exception(ended.error()), co::timeout_error);
    }
}

TEST_CASE("a shield whose bound passes while its stop arrives from elsewhere delivers it once", "[stress][shield]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    for (int round = 0; round < 1'000; ++round) {
        co::inplace_stop_source source;
        const std::chrono::microseconds bound(d.below(100)), work(d.below(100));
        const auto shielded = [&]() -> co::task<int> {
            co_return co_await co::shield(co::on(there.loop(), sleeps(alive, work)), bound);
        };
        std::thread third([&, wait = d.below(30'000)] {
            stress::dawdle(wait);
            source.request_stop();
        });
        const auto ended = co::sync_wait(co::as_outcome(co::with(shielded(), co::stop_on(source.get_token()))));
        REQUIRE((ended.has_value() || ended.is_stopped()));
        REQUIRE(alive == 0);
        third.join();
    }
}

TEST_CASE("finally cleans up once, on its own thread, whoever stops the work and wherever that runs",
          "[stress][finally]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    for (int round = 0; round < 1'000; ++round) {
        co::inplace_stop_source source;
        std::atomic<int> cleaned{0};
        bool at_home = false;
        const auto here = std::this_thread::get_id();
        const auto clean = [&, times = d.below(4)] {
            at_home = std::this_thread::get_id() == here;
            return cleans(alive, cleaned, times);
        };
        const std::chrono::microseconds work(d.below(100));
        auto all = co::finally(co::on(there.loop(), sleeps(alive, work)), clean, 10s);
        std::thread third([&, wait = d.below(30'000)] {
            stress::dawdle(wait);
            source.request_stop();
        });
        const auto ended = co::sync_wait(co::as_outcome(co::with(std::move(all), co::stop_on(source.get_token()))));
        REQUIRE((ended.has_value() || ended.is_stopped()));
        REQUIRE(cleaned == 1);
        REQUIRE(at_home);
        REQUIRE(alive == 0);
        third.join();
    }
}

TEST_CASE("a result from elsewhere, a deadline and a stop race for a completion, which dies at once",
          "[stress][completion]") {
    stress::dice d;
    for (int round = 0; round < 1'500; ++round) {
        const auto shared = std::make_unique<co::completion<std::unique_ptr<int>>>();
        std::thread other([&, wait = d.below(20'000)] {
            stress::dawdle(wait);
            shared->set_value(std::make_unique<int>(round));
        });
        const std::chrono::microseconds limit(d.below(60));
        auto first = co::sync_wait(co::as_outcome(co::with_timeout(limit, shared->wait())));
        if (first.has_value()) {
            REQUIRE(**first == round);
        } else {
            const auto late = co::sync_wait(shared->wait());  // a deadline that has passed took nothing
            REQUIRE(*late == round);
        }
        other.join();
    }
}

TEST_CASE("what a host starts on another loop calls back there, while scopes stop it from here", "[stress][start_on]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    for (int round = 0; round < 1'000; ++round) {
        auto scope = std::make_unique<co::cancel_scope>(there.loop(),
                                                        co::deadline::after(std::chrono::microseconds(d.below(300))));
        std::atomic<int> called{0};
        std::atomic<bool> wrong_thread{false};
        const std::chrono::microseconds work(d.below(100));
        co::start_on(scope->ctx(), sleeps(alive, work), [&](co::outcome<int> o) {
            wrong_thread = !there.loop().is_current() || o.is_error();
            ++called;
            called.notify_one();
        });
        if (d.below(2) == 0) {
            stress::dawdle(d.below(20'000));
            scope->request_stop();
        }
        called.wait(0);
        REQUIRE_FALSE(wrong_thread);
        REQUIRE(called == 1);
        scope.reset();
    }
    co::sync_wait(co::on(there.loop(), yields(alive, 1, 0)));  // what was started is freed after its callback
    CHECK(alive == 0);
}

TEST_CASE("a scope dies while its deadline passes on another thread", "[stress][cancel_scope]") {
    stress::dice d;
    stress::looping_thread there;
    for (int round = 0; round < 3'000; ++round) {
        co::cancel_scope scope(there.loop(), co::deadline::after(std::chrono::microseconds(1 + d.below(60))));
        stress::dawdle(d.below(30'000));
        REQUIRE((!scope.stop_requested() || scope.reason().kind == co::stop_kind::deadline));
    }
}

TEST_CASE("a loop that is stopped by a callback from another loop may be destroyed at once", "[stress][run_loop]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    for (int round = 0; round < 2'000; ++round) {
        auto loop = std::make_unique<co::run_loop>();
        co::start_on(there.loop(), yields(alive, d.below(3), 1), [l = loop.get()](co::outcome<int>) { l->stop(); });
        stress::dawdle(d.below(10'000));
        loop->run();
        loop.reset();
    }
    co::sync_wait(co::on(there.loop(), yields(alive, 1, 0)));
    CHECK(alive == 0);
}

TEST_CASE("groups on two threads that run parts of each other end together", "[stress][with_group]") {
    stress::dice d;
    stress::looping_thread there;
    std::atomic<int> alive{0};
    const std::size_t before = co::live_tasks().size();
    const auto inner = [&](co::task_group& second) -> co::task<> {
        for (int i = 0; i < 4; ++i) second.spawn(yields(alive, 2, 1));
        co_return;
    };
    for (int round = 0; round < 300; ++round) {
        const auto go = [&](co::task_group& group) -> co::task<> {
            for (std::uint32_t i = d.below(6); i > 0; --i) {
                group.spawn(co::on(there.loop(), yields(alive, d.below(4), 1)));
                group.spawn(co::on(there.loop(), sleeps(alive, std::chrono::microseconds(d.below(50)))));
            }
            group.spawn(co::on(there.loop(), co::with_group(inner)));
            if (d.below(3) == 0) throw std::runtime_error("on purpose");
            if (d.below(3) == 0) group.request_stop();
            co_return;
        };
        const auto ended = co::sync_wait(co::as_outcome(co::with_group(go)));
        REQUIRE_FALSE(ended.is_stopped());
        REQUIRE(alive == 0);
        REQUIRE(co::live_tasks().size() == before);
    }
}
