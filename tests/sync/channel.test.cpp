// SPDX-License-Identifier: MIT
#include <cordon/sync/channel.hpp>

#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;
using co::channel;
using co::send_status;
using co::task;
using co::testing::explore;
using co::testing::explore_all;
using co::testing::simulation;

using box = std::unique_ptr<int>;

/// Ends once so many wait to send, and so many to receive.
template <class T>
task<> until_waiting(channel<T>& c, std::size_t senders, std::size_t receivers) {
    while (true) {
        const auto now = c.stats();
        if (now.senders_waiting >= senders && now.receivers_waiting >= receivers) break;
        co_await co::this_task::yield();
    }
}

/// Sends `item` and notes how that ended.
task<> send_one(channel<int>& c, int item, std::string& order) {
    const bool sent = co_await c.send(item);
    order += (sent ? "+" : "-") + std::to_string(item);
}
/// Receives one and notes it.
task<> receive_one(channel<int>& c, std::string& order, char name) {
    const std::optional<int> item = co_await c.receive();
    order += name + (item ? std::to_string(*item) : std::string("."));
}

/// Where items go that nobody takes.
std::vector<int>& undelivered() {
    static std::vector<int> items;
    return items;
}
void keep_undelivered(int&& item) noexcept { undelivered().push_back(item); }

/// Starts an operation, and destroys it after it has ended without having taken what it ended with: what a combinator
/// does with a loser.
template <class O>
class dropped : co::receiver {
public:
    dropped(O&& op, const co::context& c) : receiver(&c, nullptr, {}, &dropped::ended), state_(std::move(op)) {}
    /// Returns:       whether it has ended at once
    bool start() {
        if (state_.ready()) return true;
        co::detail::resume(state_.start(co::receiver_ref(static_cast<co::receiver&>(*this))));
        return ended_;
    }
    bool has_ended() const { return ended_; }

private:
    static std::coroutine_handle<> ended(co::receiver& self, co::promise_base*, bool) noexcept {
        static_cast<dropped&>(self).ended_ = true;
        return std::noop_coroutine();
    }
    typename O::state state_;
    bool ended_ = false;
};

static_assert(co::observable<co::channel<int>>);

}  // namespace

TEST_CASE("items with room for them are sent and received at once, in their order", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(3, {.name = "three"});
        CHECK(c.name() == "three");
        for (int round = 0; round < 5; ++round) {  // around the ring
            for (int i = 0; i < 3; ++i) {
                const bool sent = co_await c.send(i);
                CHECK(sent);
            }
            CHECK(c.stats().size == 3);
            CHECK(c.try_send(9) == send_status::full);
            for (int i = 0; i < 3; ++i) {
                const std::optional<int> got = co_await c.receive();
                CHECK(got == i);
            }
            CHECK_FALSE(c.try_receive());
        }
        CHECK(c.try_send(7) == send_status::sent);
        CHECK(c.try_receive() == 7);
        const auto now = c.stats();
        CHECK(now.size == 0);
        CHECK(now.capacity == 3);
        CHECK_FALSE(now.closed);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);  // it never suspended
}

TEST_CASE("an item that cannot be copied is moved from when it is delivered and only then", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<box> c(1);
        box one = std::make_unique<int>(1), two = std::make_unique<int>(2);
        const bool sent = co_await c.send(std::move(one));
        CHECK(sent);
        CHECK_FALSE(one);
        CHECK(c.try_send(std::move(two)) == send_status::full);
        CHECK(two);
        auto late = co_await co::as_outcome(co::with_timeout(1ms, c.send(std::move(two))));
        CHECK(late.is_error());
        CHECK(two);
        c.close();
        const bool refused = co_await c.send(std::move(two));
        CHECK_FALSE(refused);
        CHECK(c.try_send(std::move(two)) == send_status::closed);
        REQUIRE(two);
        CHECK(*two == 2);
        const std::optional<box> got = co_await c.receive();
        REQUIRE(got);
        CHECK(**got == 1);
    };
    simulation().run(root());
}

TEST_CASE("what is sent by value is copied and stays with the caller", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<std::string> c(2);
        const std::string text(100, 'x');
        const bool sent = co_await c.send(text);
        CHECK(sent);
        CHECK(c.try_send(text) == send_status::sent);
        CHECK(text.size() == 100);
        auto temporary = co_await co::as_outcome(co::with_timeout(1ms, c.send(std::string("no room"))));
        CHECK(temporary.is_error());
        CHECK(c.try_receive() == text);
        CHECK(c.try_receive() == text);
    };
    simulation().run(root());
}

TEST_CASE("a small plain item may be gone before the send begins", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(0);
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 3; ++i) group.spawn(c.send(i + 1));
            int sum = 0;
            for (int i = 0; i < 3; ++i) {
                const auto item = co_await c.receive();
                sum += *item;
            }
            CHECK(sum == 6);
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("whoever waits to receive gets the item from the send, and is not resumed inside it", "[sync][channel]") {
    const auto root = [](std::size_t capacity) -> task<> {
        channel<int> c(capacity);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(receive_one(c, order, 'r'));
            co_await until_waiting(c, 0, 1);
            CHECK(c.try_send(5) == send_status::sent);
            CHECK(order == "");
            CHECK(c.stats().receivers_waiting == 0);
            CHECK(c.stats().size == 0);
            co_await group.join();
            CHECK(order == "r5");
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed)
        for (const std::size_t capacity : {0U, 1U, 5U}) simulation(seed).run(root(capacity));
}

TEST_CASE("a rendezvous holds a sender until its item is taken", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<box> c(0);
        CHECK(c.try_send(std::make_unique<int>(0)) == send_status::full);
        box item = std::make_unique<int>(3);
        bool sent = false;
        const auto sends = [&]() -> task<> { sent = co_await c.send(std::move(item)); };
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(sends);
            co_await simulation::settle();
            CHECK_FALSE(sent);
            CHECK(item);
            CHECK(c.stats().senders_waiting == 1);
            CHECK(c.stats().size == 0);
            SECTION("by one who tries") {
                const std::optional<box> got = c.try_receive();
                REQUIRE(got);
                CHECK(**got == 3);
            }
            SECTION("by one who waits") {
                const std::optional<box> got = co_await c.receive();
                REQUIRE(got);
                CHECK(**got == 3);
            }
            co_await simulation::settle();
            CHECK(sent);
            CHECK_FALSE(item);
        };
        co_await co::with_group(body);
    };
    simulation().run(root());
}

TEST_CASE("senders and receivers are served first come, first served", "[sync][channel]") {
    const auto senders = [](std::size_t capacity) -> task<std::string> {
        channel<int> c(capacity);
        std::string order, got;
        const auto body = [&](co::task_group& group) -> task<> {
            const int room = static_cast<int>(capacity);
            for (int i = 0; i < 5 + room; ++i) {
                group.spawn(send_one(c, i, order));
                co_await simulation::settle();
            }
            CHECK(c.try_send(99) == send_status::full);
            for (int i = 0; i < 5 + room; ++i) {
                const std::optional<int> item = co_await c.receive();
                got += std::to_string(*item);
                co_await simulation::settle();
            }
        };
        co_await co::with_group(body);
        co_return got;
    };
    CHECK_FALSE(explore({.schedules = 30}, [&] { return senders(0); }, [](const auto& o) { return o == "01234"; }));
    CHECK_FALSE(explore({.schedules = 30}, [&] { return senders(2); }, [](const auto& o) { return o == "0123456"; }));

    const auto receivers = []() -> task<std::string> {
        channel<int> c(1);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            for (const char name : {'a', 'b', 'c', 'd'}) {
                group.spawn(receive_one(c, order, name));
                co_await simulation::settle();
            }
            for (int i = 0; i < 4; ++i) {
                CHECK(c.try_send(int{i}) == send_status::sent);
                CHECK_FALSE(c.try_receive());  // it is not for who comes now
                co_await simulation::settle();
            }
        };
        co_await co::with_group(body);
        co_return order;
    };
    CHECK_FALSE(explore({.schedules = 30}, receivers, [](const auto& o) { return o == "a0b1c2d3"; }));
}

TEST_CASE("a freed place goes to the sender that waits for it and not to one that tries", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(1);
        std::string order;
        CHECK(c.try_send(1) == send_status::sent);
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(send_one(c, 2, order));
            co_await until_waiting(c, 1, 0);
            CHECK(c.try_receive() == 1);
            CHECK(c.stats().size == 1);
            CHECK(c.try_send(3) == send_status::full);
            CHECK(order == "");
            co_await group.join();
            CHECK(order == "+2");
            CHECK(c.try_receive() == 2);
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

// --- close ----------------------------------------------------------------------------------------------------------

TEST_CASE("a closed channel refuses senders, and its receivers get what is left and then nothing", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(2);
        CHECK(c.try_send(1) == send_status::sent);
        CHECK(c.try_send(2) == send_status::sent);
        c.close();
        c.close();
        CHECK(c.is_closed());
        CHECK(c.try_send(3) == send_status::closed);
        const bool sent = co_await c.send(3);
        CHECK_FALSE(sent);
        const auto first = co_await c.receive();
        CHECK(first == 1);
        CHECK(c.try_receive() == 2);
        for (int i = 0; i < 2; ++i) {
            const auto none = co_await c.receive();
            CHECK_FALSE(none);
        }
        CHECK_FALSE(c.try_receive());
        CHECK(c.stats().closed);
        CHECK(c.stats().capacity == 2);
    };
    simulation sim;
    sim.run(root());
    CHECK(sim.steps() == 1);
}

TEST_CASE("a close ends the wait of all senders, whose items are as they were, and of all receivers",
          "[sync][channel]") {
    const auto senders = [](std::size_t capacity) -> task<> {
        channel<box> c(capacity);
        std::vector<box> items;
        for (int i = 0; i < 5; ++i) items.push_back(std::make_unique<int>(i));
        int refused = 0;
        const auto sends = [&](box& item) -> task<> {
            const bool sent = co_await c.send(std::move(item));
            CHECK(sent == !item);
            refused += !sent;
        };
        const auto body = [&](co::task_group& group) -> task<> {
            for (box& item : items) group.spawn(sends(item));
            co_await simulation::settle();
            c.close();
        };
        co_await co::with_group(body);
        CHECK(refused == 5 - static_cast<int>(capacity));
        for (std::size_t i = 0; i < capacity; ++i) {
            const auto kept = co_await c.receive();
            CHECK(kept);
        }
        const auto none = co_await c.receive();
        CHECK_FALSE(none);
    };
    const auto receivers = [](std::size_t capacity) -> task<> {
        channel<int> c(capacity);
        std::string order;
        const auto body = [&](co::task_group& group) -> task<> {
            for (const char name : {'a', 'b', 'c'}) {
                group.spawn(receive_one(c, order, name));
                co_await simulation::settle();
            }
            c.close();
            co_await simulation::settle();
        };
        co_await co::with_group(body);
        CHECK(order.size() == 6);
        CHECK(std::count(order.begin(), order.end(), '.') == 3);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed)
        for (const std::size_t capacity : {0U, 2U}) {
            simulation(seed).run(senders(capacity));
            simulation(seed).run(receivers(capacity));
        }
}

TEST_CASE("every schedule of sends, receives and a close accounts for each item", "[sync][channel]") {
    const auto root = [](std::size_t capacity) -> task<bool> {
        channel<box> c(capacity);
        box one = std::make_unique<int>(1), two = std::make_unique<int>(2);
        int received = 0;
        bool fits = true;
        const auto sends = [&](box& item) -> task<> {
            const bool sent = co_await c.send(std::move(item));
            fits = fits && sent == !item;
        };
        const auto receives = [&]() -> task<> {
            const auto item = co_await c.receive();
            if (item) received += **item;
        };
        const auto closes = [&]() -> task<> {
            c.close();
            co_return;
        };
        co_await co::when_all(sends(one), receives(), closes(), sends(two));
        int kept = (one ? *one : 0) + (two ? *two : 0);
        while (true) {
            const auto left = co_await c.receive();
            if (!left) break;
            kept += **left;
        }
        co_return fits && kept + received == 3 && c.stats().senders_waiting + c.stats().receivers_waiting == 0;
    };
    for (const std::size_t capacity : {0U, 1U, 2U}) {
        const auto all = explore_all(20'000, [&] { return root(capacity); }, [](bool right) { return right; });
        CHECK(all.complete);
        CHECK_FALSE(all.failing);
        CHECK(all.schedules > 20);
    }
}

// --- stop and deadline ----------------------------------------------------------------------------------------------

TEST_CASE("a stopped sender leaves the queue at once and keeps its item, a stopped receiver takes none",
          "[sync][channel]") {
    co::run_loop slow, quick;  // what belongs to slow has not even noticed
    channel<box> c(0);
    co::cancel_scope scope{co::executor_ref(slow)};
    bool stopped = false;
    const auto note = [&](const co::outcome<void>& o) { stopped = o.is_stopped(); };
    SECTION("a sender") {
        box doomed = std::make_unique<int>(1), item = std::make_unique<int>(2);
        bool sent = false;
        const auto sends = [&](box& what) -> task<> { sent = co_await c.send(std::move(what)); };
        co::start_on(scope.ctx(), sends(doomed), note);
        slow.poll();
        co::start_on(quick, sends(item));
        quick.poll();
        CHECK(c.stats().senders_waiting == 2);
        scope.request_stop();
        CHECK(c.stats().senders_waiting == 1);
        const auto got = c.try_receive();
        REQUIRE(got);
        CHECK(**got == 2);
        while (quick.poll()) {}
        CHECK(sent);
        while (slow.poll()) {}
        CHECK(doomed);
    }
    SECTION("a receiver") {
        int got = 0;
        const auto receives = [&](int& into) -> task<> {
            const auto item = co_await c.receive();
            into = **item;
        };
        int never = 0;
        co::start_on(scope.ctx(), receives(never), note);
        slow.poll();
        co::start_on(quick, receives(got));
        quick.poll();
        CHECK(c.stats().receivers_waiting == 2);
        scope.request_stop();
        CHECK(c.stats().receivers_waiting == 1);
        CHECK(c.try_send(std::make_unique<int>(7)) == send_status::sent);
        while (quick.poll()) {}
        CHECK(got == 7);
        while (slow.poll()) {}
        CHECK(never == 0);
    }
    CHECK(stopped);
    CHECK_FALSE(c.try_receive());
}

TEST_CASE("whoever is already stopped takes what is there, but does not wait", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(1);
        co::cancel_scope scope(*co_await co::this_task::context());
        scope.request_stop();
        auto none = co_await co::as_outcome(c.receive().with(scope.ctx()));
        CHECK(none.is_stopped());
        auto sent = co_await co::as_outcome(c.send(4).with(scope.ctx()));
        CHECK(sent.has_value());
        auto full = co_await co::as_outcome(c.send(5).with(scope.ctx()));
        CHECK(full.is_stopped());
        auto got = co_await co::as_outcome(c.receive().with(scope.ctx()));
        REQUIRE(got.has_value());
        CHECK(**got == 4);
        CHECK(c.stats().senders_waiting + c.stats().receivers_waiting + c.stats().size == 0);
    };
    simulation().run(root());
}

TEST_CASE("an item and a stop that come together: the item is received, or is still there", "[sync][channel]") {
    enum { stopped = 1, got = 2 };
    for (const std::size_t capacity : {0U, 1U}) {
        int seen = 0;
        const auto root = [&]() -> task<bool> {
            channel<box> c(capacity);
            co::cancel_scope scope(*co_await co::this_task::context());
            box item = std::make_unique<int>(1);
            bool has_it = false;
            const auto receives = [&]() -> task<> {
                auto ended = co_await co::as_outcome(c.receive().with(scope.ctx()));
                has_it = ended.has_value();
            };
            const auto stops = [&]() -> task<> {
                scope.request_stop();
                co_return;
            };
            const auto sends = [&]() -> task<> {
                auto ended = co_await co::as_outcome(co::with_timeout(1s, c.send(std::move(item))));
                (void)ended;
            };
            co_await co::when_all(receives(), stops(), sends());
            seen |= has_it ? got : stopped;
            co_return (has_it ? 1U : 0U) + c.stats().size + (item ? 1U : 0U) == 1;
        };
        const auto all = explore_all(100'000, root, [](bool kept) { return kept; });
        CHECK(all.complete);
        CHECK_FALSE(all.failing);
        CHECK(seen == (stopped | got));
    }
}

TEST_CASE("a place and a stop that come together: the item is sent, or still the sender's", "[sync][channel]") {
    enum { stopped = 1, sent = 2 };
    for (const std::size_t capacity : {0U, 1U}) {
        int seen = 0;
        const auto root = [&]() -> task<bool> {
            channel<box> c(capacity);
            if (capacity != 0) (void)c.try_send(nullptr);
            co::cancel_scope scope(*co_await co::this_task::context());
            box item = std::make_unique<int>(1);
            const auto sends = [&]() -> task<> {
                auto ended = co_await co::as_outcome(c.send(std::move(item)).with(scope.ctx()));
                seen |= ended.has_value() ? sent : stopped;
                CHECK(ended.has_value() == !item);
            };
            const auto stops = [&]() -> task<> {
                scope.request_stop();
                co_return;
            };
            std::size_t received = 0;
            const auto receives = [&]() -> task<> {
                while (received < 2) {
                    auto got = co_await co::as_outcome(co::with_timeout(1s, c.receive()));
                    if (!got.has_value()) break;
                    received += **got ? 2 : 0;
                }
            };
            co_await co::when_all(sends(), stops(), receives());
            co_return (received == 2) == !item;
        };
        const auto all = explore_all(100'000, root, [](bool kept) { return kept; });
        CHECK(all.complete);
        CHECK_FALSE(all.failing);
        CHECK(seen == (stopped | sent));
    }
}

TEST_CASE("a passed deadline ends both waits and changes nothing", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<box> c(0);
        const auto begin = co::clock::now();
        auto none = co_await co::as_outcome(co::with_timeout(5ms, c.receive()));
        CHECK_THROWS_AS(std::move(none).value(), co::timeout_error);
        box item = std::make_unique<int>(1);
        auto unsent = co_await co::as_outcome(co::with_timeout(5ms, c.send(std::move(item))));
        CHECK_THROWS_AS(std::move(unsent).value(), co::timeout_error);
        CHECK(co::clock::now() - begin == 10ms);
        CHECK(item);
        const auto now = c.stats();
        CHECK(now.senders_waiting + now.receivers_waiting + now.size == 0);
    };
    simulation().run(root());
}

namespace {

/// Producers and consumers, and what became of the items.
struct market {
    explicit market(std::size_t capacity) : goods(capacity, {.name = "goods"}) {}
    channel<box> goods;
    std::vector<int> with_sender, received;
};
task<> produce(std::shared_ptr<market> m, int first, int n) {
    for (int i = first; i < first + n; ++i) {
        box item = std::make_unique<int>(i);
        struct keeper {
            ~keeper() {
                if (*item) into->push_back(**item);  // it was stopped, or refused
            }
            box* item;
            std::vector<int>* into;
        };
        const keeper kept{&item, &m->with_sender};
        const bool sent = co_await m->goods.send(std::move(item));
        if (!sent) break;
    }
}
task<> consume(std::shared_ptr<market> m) {
    while (true) {
        const auto item = co_await m->goods.receive();
        if (!item) break;
        m->received.push_back(**item);
        co_await co::this_task::yield();
    }
}
/// Whether each of the first items that were made is somewhere exactly once.
bool accounted(market& m) {
    std::vector<int> all = m.with_sender;
    all.insert(all.end(), m.received.begin(), m.received.end());
    while (auto item = m.goods.try_receive()) all.push_back(**item);
    std::sort(all.begin(), all.end());
    return std::adjacent_find(all.begin(), all.end()) == all.end() && m.goods.stats().senders_waiting == 0 &&
           m.goods.stats().receivers_waiting == 0;
}

}  // namespace

TEST_CASE("a producer and a consumer can be stopped at any point and lose no item", "[sync][channel][V-028]") {
    for (const std::size_t capacity : {0U, 1U, 2U}) {
        std::shared_ptr<market> m;
        const auto make = [&] {
            m = std::make_shared<market>(capacity);
            const auto trade = [](std::shared_ptr<market> mine) -> task<> {
                const auto first = [](std::shared_ptr<market> here) -> task<> {
                    co_await produce(here, 0, 4);
                    here->goods.close();
                };
                co_await co::when_all(first(mine), consume(mine));
            };
            return trade(m);
        };
        const auto check = [&](const co::outcome<void>& ended, co::testing::sweep_point) {
            const std::size_t sent = m->received.size() + m->goods.stats().size;
            const std::size_t kept = m->with_sender.size();
            // Its producer was stopped in a send, whose item it has, or nowhere.
            const bool all = ended.has_value() ? m->received.size() == 4 : sent + kept <= 4 && kept <= 1;
            return accounted(*m) && all;
        };
        const auto swept = co::testing::cancel_sweep({.fail_awaits = true}, make, check);
        INFO(describe(swept));
        CHECK(swept.findings.empty());
        CHECK(swept.points > 8);
    }
}

TEST_CASE("items of many senders with random stops are each received once or still their sender's", "[sync][channel]") {
    constexpr int producers = 4, each = 6;
    std::uint64_t seed = 0;
    const auto root = [&]() -> task<bool> {
        std::mt19937_64 random(++seed);
        auto m = std::make_shared<market>(random() % 4);
        const co::context& outer = *co_await co::this_task::context();
        std::vector<std::unique_ptr<co::cancel_scope>> scopes;
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 2 * producers; ++i) {
                scopes.push_back(std::make_unique<co::cancel_scope>(outer));
                const co::context& below = scopes.back()->ctx();
                if (i < producers) group.spawn(co::as_outcome(produce(m, i * each, each).with(below)));
                else group.spawn(co::as_outcome(consume(m).with(below)));
            }
            for (int stops = 0; stops < 5; ++stops) {
                for (std::uint64_t n = random() % 8; n > 0; --n) co_await co::this_task::yield();
                scopes[random() % scopes.size()]->request_stop();
            }
            co_await simulation::settle();
            m->goods.close();
            co_await group.join();
        };
        co_await co::with_group(body);
        // Made were of each producer the first so many, and each of them is somewhere.
        std::vector<int> all = m->with_sender;
        all.insert(all.end(), m->received.begin(), m->received.end());
        while (auto item = m->goods.try_receive()) all.push_back(**item);
        std::sort(all.begin(), all.end());
        bool right = std::adjacent_find(all.begin(), all.end()) == all.end();
        for (std::size_t i = 0; i < all.size(); ++i)
            right = right && (all[i] % each == 0 || (i > 0 && all[i - 1] == all[i] - 1));
        const auto now = m->goods.stats();
        co_return right && now.senders_waiting + now.receivers_waiting == 0;
    };
    CHECK_FALSE(explore({.schedules = 500}, root, [](bool right) { return right; }));
}

// --- undelivered ----------------------------------------------------------------------------------------------------

TEST_CASE("an item that its receiver got and never took goes back to the front", "[sync][channel]") {
    co::run_loop loop;
    const co::context here{co::executor_ref(loop)};
    undelivered().clear();
    using receive = decltype(std::declval<channel<int>&>().receive());
    std::optional<dropped<receive>> loser;

    SECTION("got at once") {
        channel<int> c(2);
        CHECK(c.try_send(1) == send_status::sent);
        CHECK(c.try_send(2) == send_status::sent);
        CHECK(loser.emplace(c.receive(), here).start());
        CHECK(c.stats().size == 1);
        loser.reset();
        CHECK(c.try_receive() == 1);
        CHECK(c.try_receive() == 2);
    }
    SECTION("got after a wait, while others have filled the channel") {
        channel<int> c(2);
        std::vector<std::unique_ptr<dropped<receive>>> losers;
        for (int i = 0; i < 4; ++i) {
            losers.push_back(std::make_unique<dropped<receive>>(c.receive(), here));
            CHECK_FALSE(losers.back()->start());
        }
        for (int i = 0; i < 6; ++i) CHECK(c.try_send(int{i}) == send_status::sent);
        while (loop.poll()) {}
        CHECK(c.stats().size == 2);
        while (!losers.empty()) losers.pop_back();  // the latest first
        CHECK(c.stats().size == 6);
        CHECK(c.try_send(9) == send_status::full);
        for (int i = 0; i < 6; ++i) CHECK(c.try_receive() == i);
        CHECK(c.try_send(9) == send_status::sent);
        CHECK(c.try_receive() == 9);
    }
    SECTION("to one who waits for it") {
        channel<int> c(0);
        std::string order;
        CHECK_FALSE(loser.emplace(c.receive(), here).start());
        CHECK(c.try_send(1) == send_status::sent);
        co::start_on(loop, receive_one(c, order, 'a'));
        while (loop.poll()) {}
        CHECK(loser->has_ended());
        CHECK(order == "");
        loser.reset();
        while (loop.poll()) {}
        CHECK(order == "a1");
    }
    SECTION("in a rendezvous, and after a close, it stays there without a handler") {
        channel<int> c(0);
        CHECK_FALSE(loser.emplace(c.receive(), here).start());
        CHECK(c.try_send(1) == send_status::sent);
        while (loop.poll()) {}
        c.close();
        loser.reset();
        CHECK(c.stats().size == 1);
        CHECK(c.try_receive() == 1);
    }
    SECTION("or goes to the handler") {
        channel<int> none(0, {.on_undelivered = &keep_undelivered});
        CHECK_FALSE(loser.emplace(none.receive(), here).start());
        CHECK(none.try_send(1) == send_status::sent);
        while (loop.poll()) {}
        loser.reset();
        CHECK(undelivered() == std::vector<int>{1});
        {
            channel<int> some(1, {.on_undelivered = &keep_undelivered});
            CHECK(some.try_send(2) == send_status::sent);
            loser.emplace(some.receive(), here).start();
            loser.reset();
            CHECK(undelivered() == std::vector<int>{1});  // it is open and has room
            loser.emplace(some.receive(), here).start();
            some.close();
            loser.reset();
            CHECK(undelivered() == std::vector<int>{1, 2});
        }
        {
            channel<int> dies(3, {.on_undelivered = &keep_undelivered});
            CHECK(dies.try_send(3) == send_status::sent);
        }
        CHECK(undelivered() == std::vector<int>{1, 2, 3});
    }
    SECTION("also when a sender waits behind it") {
        channel<int> c(1);
        std::string order;
        CHECK(c.try_send(1) == send_status::sent);
        co::start_on(loop, send_one(c, 2, order));
        while (loop.poll()) {}
        loser.emplace(c.receive(), here).start();
        CHECK(c.stats().size == 1);  // the sender has moved up
        loser.reset();
        CHECK(c.stats().size == 2);
        while (loop.poll()) {}
        CHECK(order == "+2");
        CHECK(c.try_receive() == 1);
        CHECK(c.try_receive() == 2);
    }
}

TEST_CASE("a loser of when_any that still waits takes no item, and its timeout neither", "[sync][channel]") {
    const auto root = []() -> task<bool> {
        channel<int> slow(1), quick(1);
        const auto sends = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            (void)quick.try_send(1);
            co_await co::sleep_for(1ms);
            (void)slow.try_send(2);
        };
        bool right = true;
        const auto receives = [&]() -> task<> {
            auto first = co_await co::when_any(slow.receive(), quick.receive());
            right = right && first.index() == 1 && std::get<1>(first) == 1;
            right = right && slow.stats().receivers_waiting == 0;
            auto late = co_await co::as_outcome(co::with_timeout(500us, slow.receive()));
            right = right && late.is_error();
        };
        co_await co::when_all(sends(), receives());
        co_return right && slow.try_receive() == 2;
    };
    CHECK_FALSE(explore({.schedules = 200}, root, [](bool right) { return right; }));
}

// --- handles --------------------------------------------------------------------------------------------------------

TEST_CASE("with the last sender the channel closes for its receivers, who get what is left first", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<int> c(4);
        std::string got;
        const auto produces = [](channel<int>::sender out, int item) -> task<> {
            co_await co::sleep_for(1ms * item);
            const bool sent = co_await out.send(int{item});
            CHECK(sent);
        };
        const auto consumes = [&]() -> task<> {
            while (true) {
                const auto item = co_await c.receive();
                if (!item) break;
                got += std::to_string(*item);
            }
        };
        const auto body = [&](co::task_group& group) -> task<> {
            group.spawn(consumes());
            channel<int>::sender out = c.make_sender();
            for (int i = 1; i <= 3; ++i) group.spawn(produces(out, i));
            out.reset();
            CHECK_FALSE(out);
            co_return;
        };
        co_await co::with_group(body);
        CHECK(got == "123");
        CHECK(c.is_closed());
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("with the last receiver the waiting and later sends are refused", "[sync][channel]") {
    const auto root = []() -> task<> {
        channel<box> c(0);
        box item = std::make_unique<int>(1);
        bool sent = true;
        const auto sends = [&]() -> task<> { sent = co_await c.send(std::move(item)); };
        const auto body = [&](co::task_group& group) -> task<> {
            channel<box>::receiver in = c.make_receiver();
            channel<box>::receiver other = in;
            group.spawn(sends);
            co_await until_waiting(c, 1, 0);
            in.reset();
            co_await simulation::settle();
            CHECK(c.stats().senders_waiting == 1);
            const channel<box>::receiver moved = std::move(other);
            CHECK(moved);
            CHECK_FALSE(c.is_closed());
        };
        co_await co::with_group(body);
        CHECK_FALSE(sent);
        CHECK(item);
        const bool later = co_await c.send(std::move(item));
        CHECK_FALSE(later);
    };
    for (std::uint64_t seed = 0; seed < 20; ++seed) simulation(seed).run(root());
}

TEST_CASE("handles count like what they stand for: copies, moves, assignments and empty ones", "[sync][channel]") {
    channel<int> c(2);
    {
        const channel<int>::sender none;
        CHECK_FALSE(none);
        channel<int>::sender a = c.make_sender();
        channel<int>::sender b = a;
        a = b;
        a = std::move(b);
        const int one = 1;
        CHECK(a.try_send(one) == send_status::sent);
        channel<int>::receiver in = c.make_receiver();
        CHECK(in.try_receive() == 1);
        b = a;
        a = none;
        CHECK_FALSE(c.is_closed());
        CHECK(b);
    }
    CHECK(c.is_closed());
    CHECK(c.make_sender().try_send(1) == send_status::closed);
    channel<int> used_directly(1);
    CHECK(used_directly.try_send(1) == send_status::sent);
    CHECK(used_directly.try_receive() == 1);
    CHECK_FALSE(used_directly.is_closed());
}

// --- threads --------------------------------------------------------------------------------------------------------

TEST_CASE("threads send and receive, and heed their stop", "[sync][channel]") {
    channel<box> c(0);
    int sum = 0;
    co::outcome<std::optional<box>> last = co::outcome<std::optional<box>>::stopped();
    {
        const std::jthread consumer([&] {
            while (true) {
                last = c.receive_blocking();
                if (!last.has_value() || !*last) break;
                sum += ***last;
            }
        });
        std::jthread producer([&] {
            for (int i = 1; i <= 100; ++i) {
                const auto sent = c.send_blocking(std::make_unique<int>(i));
                if (!sent.has_value() || !*sent) break;
            }
            c.close();
        });
    }
    CHECK(sum == 5050);
    CHECK(last.has_value());

    channel<box> full(0);
    box item = std::make_unique<int>(1);
    bool stopped = false, no_item = false;
    std::jthread sender([&](std::stop_token stop) {
        stopped = full.send_blocking(std::move(item), stop).is_stopped();
    });
    while (full.stats().senders_waiting == 0) std::this_thread::yield();
    sender.request_stop();
    sender.join();
    CHECK(stopped);
    CHECK(item);
    std::jthread receiver([&](std::stop_token stop) { no_item = full.receive_blocking(stop).is_stopped(); });
    while (full.stats().receivers_waiting == 0) std::this_thread::yield();
    receiver.request_stop();
    receiver.join();
    CHECK(no_item);
    CHECK(full.receive_blocking(co::deadline::after(1ms)).is_stopped());  // a real millisecond: no simulation here
    full.close();
    const auto refused = full.make_sender().send_blocking(std::move(item));
    CHECK(refused.has_value());
    CHECK_FALSE(*refused);
    CHECK(item);
    channel<std::string> texts(1);
    const std::string text = "text";
    CHECK(*texts.make_sender().send_blocking(text));
    CHECK(**texts.make_receiver().receive_blocking() == text);
}

TEST_CASE("an item may come from another thread", "[sync][channel]") {
    channel<std::string> c(0);
    std::thread sender;
    const auto root = [&]() -> task<std::string> {
        sender = std::thread([&] {
            while (c.try_send("over there") != send_status::sent) std::this_thread::yield();
        });
        auto item = co_await c.receive();
        co_return *item;
    };
    CHECK(co::sync_wait(root()) == "over there");
    sender.join();
}

// --- who is alive ---------------------------------------------------------------------------------------------------

namespace {

/// What is alive now of those that are called `name`.
std::vector<co::task_info> alive(const std::string& name) {
    std::vector<co::task_info> found;
    for (co::task_info& task : co::live_tasks())
        if (task.name == name) found.push_back(std::move(task));
    return found;
}

}  // namespace

TEST_CASE("of two sends and one receive the sender that is left is seen with its site", "[sync][channel][L-012]") {
    const auto root = [](std::size_t capacity) -> task<> {
        channel<int> c(capacity, {.name = "results"});
        unsigned line = 0;
        const auto sends = [&]() -> task<> {
            line = std::source_location::current().line() + 1;
            const bool sent = co_await c.send(1);
            (void)sent;
        };
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < 2; ++i) group.spawn(sends, {.name = "sender"});
            const auto got = co_await c.receive();
            CHECK(got == 1);
            co_await simulation::settle();
            const auto leaked = alive("sender");
            CHECK(leaked.size() == (capacity == 0 ? 1U : 0U));
            for (const co::task_info& task : leaked) {
                CHECK(task.state == co::task_info::activity::suspended);
                CHECK(task.waits_for == "send to channel results");
                CHECK(says(describe(task), "channel.test.cpp:" + std::to_string(line)));
            }
            c.close();
        };
        co_await co::with_group(body);
        CHECK(alive("sender").empty());
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed)
        for (const std::size_t capacity : {0U, 1U}) simulation(seed).run(root(capacity));
}

TEST_CASE("of five senders and one receive four remain, and without senders the receiver does",
          "[sync][channel][L-014]") {
    const auto root = [](int senders) -> task<> {
        channel<int> c(0, {.name = "ncast"});
        const auto sends = [&]() -> task<> {
            const bool sent = co_await c.send(1);
            (void)sent;
        };
        const auto receives = [&]() -> task<> {
            const auto item = co_await c.receive();
            (void)item;
        };
        const auto body = [&](co::task_group& group) -> task<> {
            for (int i = 0; i < senders; ++i) group.spawn(sends, {.name = "sender"});
            group.spawn(receives, {.name = "receiver"});
            co_await simulation::settle();
            CHECK(alive("sender").size() == (senders == 0 ? 0U : 4U));
            const auto waits = alive("receiver");
            CHECK(waits.size() == (senders == 0 ? 1U : 0U));
            for (const auto& task : waits) CHECK(task.waits_for == "receive from channel ncast");
            c.close();
        };
        co_await co::with_group(body);
    };
    for (std::uint64_t seed = 0; seed < 10; ++seed)
        for (const int senders : {5, 0}) simulation(seed).run(root(senders));
}

TEST_CASE("a channel that dies too early says which, and who uses it", "[sync][channel]") {
    const std::string waited_for = last_words([] {
        simulation sim;
        std::string order;
        const auto root = [&]() -> task<> {
            const auto here = co_await co::this_task::executor();
            channel<int> c(0, {.name = "jobs"});
            co::start_on(here, send_one(c, 1, order));
            co::start_on(here, send_one(c, 2, order));
            co_await until_waiting(c, 2, 0);
        };
        sim.run(root());
    });
    CHECK(says(waited_for, "channel \"jobs\" destroyed while 2 wait to send, 0 wait to receive"));
    const std::string landing = last_words([] {
        co::run_loop loop;
        std::string order;
        std::optional<channel<int>> c(std::in_place, 0, co::channel_options<int>{.name = "jobs"});
        co::start_on(loop, receive_one(*c, order, 'a'));
        loop.poll();
        c->close();
        c.reset();
    });
    CHECK(says(landing, "channel \"jobs\" destroyed while", "1 have waited and not gone on yet"));
    const std::string held = last_words([] {
        channel<int>::sender out;
        channel<int> c(0, {.name = "jobs"});
        out = c.make_sender();
    });
    CHECK(says(held, "channel \"jobs\" destroyed while", "1 handles are left"));
}

TEST_CASE("a capacity beyond all memory is refused by name", "[sync][channel]") {
    CHECK_THROWS_AS(channel<int>(channel<int>::max_capacity + 1), std::invalid_argument);
    CHECK_THROWS_AS(channel<int>(std::numeric_limits<std::size_t>::max()), std::invalid_argument);
}

TEST_CASE("two channels race in a when_any and no item of the loser is lost, in any order", "[sync][channel]") {
    const bool timed = GENERATE(false, true);
    const auto root = [&]() -> co::task<bool> {
        co::channel<int> a(0), b(0);
        int received = 0, kept = 0;
        const auto count = [&](auto& won) {
            if (const auto* const first = std::get_if<0>(&won)) received += first->value_or(0);
            else received += std::get<1>(won).value_or(0);
        };
        const auto races = [&]() -> co::task<> {
            if (timed) {
                auto won = co_await co::when_any(co::with_timeout(1s, a.receive()), co::with_timeout(1s, b.receive()));
                count(won);
            } else {
                auto won = co_await co::when_any(a.receive(), b.receive());
                count(won);
            }
        };
        const auto sends = [&](co::channel<int>& c, int n) -> co::task<> {
            if (c.try_send(int{n}) != co::send_status::sent) kept += n;
            co_return;
        };
        const auto late = [&]() -> co::task<> {
            co_await co::sleep_for(1ms);
            if (a.try_send(4) != co::send_status::sent) kept += 4;
        };
        co_await co::when_all(races(), sends(a, 1), sends(b, 2), late());
        const std::optional<int> left_a = a.try_receive();
        const std::optional<int> left_b = b.try_receive();
        co_return received + left_a.value_or(0) + left_b.value_or(0) + kept == 7;
    };
    const auto all = co::testing::explore_all(100'000, root, [](bool r) { return r; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
}
