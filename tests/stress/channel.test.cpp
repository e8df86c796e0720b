// SPDX-License-Identifier: MIT
#include <cordon/core/this_task.hpp>
#include <cordon/run/on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/when_any.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/channel.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

namespace {

using namespace std::chrono_literals;
namespace co = cordon;

/// An item that counts how often it is taken: plain, so that the channel must make it visible.
struct item {
    int* taken;
    int number;
};
using parcel = std::unique_ptr<item>;

struct fair {
    fair(std::size_t capacity, std::size_t n) : goods(capacity, {.name = "goods"}), taken(n) {}
    co::channel<parcel> goods;
    std::vector<int> taken;                 // by a receiver, or kept by its sender
    std::atomic<int> received{0}, kept{0};  // how often either happened
    std::atomic<int> wrong{0};

    parcel make(std::size_t number) { return std::make_unique<item>(item{&taken[number], static_cast<int>(number)}); }
    void take(parcel p, std::atomic<int>& how) {
        ++*p->taken;
        how.fetch_add(1, std::memory_order_relaxed);
    }
};

/// Sends its items: by trying, waiting, waiting for a short time, or below a scope that is stopped.
co::task<> seller(fair& f, std::uint64_t seed, std::size_t first, std::size_t n) {
    std::mt19937_64 random(seed);
    for (std::size_t i = first; i < first + n; ++i) {
        parcel mine = f.make(i);
        bool sent = false;
        switch (random() % 4) {
            case 0: sent = f.goods.try_send(std::move(mine)) == co::send_status::sent; break;
            case 1: sent = co_await f.goods.send(std::move(mine)); break;
            case 2: {
                auto ended = co_await co::as_outcome(
                    co::with_timeout(std::chrono::microseconds(random() % 50), f.goods.send(std::move(mine))));
                sent = ended.has_value() && *ended;
                break;
            }
            default: {
                co::cancel_scope scope(*co_await co::this_task::context());
                if (random() % 2 == 0) scope.request_stop();
                auto ended = co_await co::as_outcome(f.goods.send(std::move(mine)).with(scope.ctx()));
                sent = ended.has_value() && *ended;
                break;
            }
        }
        if (sent == (mine != nullptr)) f.wrong.fetch_add(1);
        if (mine) f.take(std::move(mine), f.kept);
        if (random() % 8 == 0) co_await co::this_task::yield();
    }
}

/// Receives until the channel is closed and empty.
co::task<> buyer(fair& f, std::uint64_t seed) {
    std::mt19937_64 random(seed);
    while (true) {
        std::optional<parcel> got;
        if (random() % 4 == 0) {
            got = f.goods.try_receive();
        } else if (random() % 3 == 0) {
            auto ended = co_await co::as_outcome(
                co::with_timeout(std::chrono::microseconds(random() % 50), f.goods.receive()));
            if (ended.has_value()) {
                got = std::move(*ended);
                if (!got) break;
            }
        } else {
            got = co_await f.goods.receive();
            if (!got) break;
        }
        if (got) f.take(std::move(*got), f.received);
        else if (random() % 8 == 0) co_await co::this_task::yield();
    }
}

void each_item_once(std::size_t capacity, bool with_threads) {
    const std::uint64_t seed = stress::fresh_seed();
    constexpr std::size_t sellers = 4, each = 1'500;
    fair f(capacity, sellers * each);
    stress::crew<3> buyers;
    {
        stress::crew<3> crew;
        for (std::uint64_t i = 0; i < 3; ++i) buyers.start(i, buyer(f, seed + i));
        for (std::uint64_t i = 0; i < sellers; ++i) crew.start(i, seller(f, seed + 10 + i, i * each, each));
        std::optional<std::thread> thread;
        if (with_threads)
            thread.emplace([&f] {
                for (int i = 0; i < 500; ++i) {
                    const auto got = f.goods.receive_blocking(co::deadline::after(20us));
                    if (got.has_value() && *got) {
                        ++*(**got)->taken;
                        f.received.fetch_add(1, std::memory_order_relaxed);
                    }
                }
            });
        crew.wait();
        if (thread) thread->join();
    }
    f.goods.close();
    buyers.wait();
    CHECK(f.wrong.load() == 0);
    CHECK(f.received.load() > 0);
    CHECK(f.received.load() + f.kept.load() == static_cast<int>(sellers * each));
    std::size_t not_once = 0;
    for (const int n : f.taken) not_once += n != 1;
    CHECK(not_once == 0);
    CHECK(f.goods.stats().size == 0);
    CHECK(f.goods.stats().senders_waiting + f.goods.stats().receivers_waiting == 0);
}

}  // namespace

TEST_CASE("each item is received once or stays with its sender, through random stops and timeouts",
          "[stress][sync][channel]") {
    each_item_once(0, false);
    each_item_once(1, false);
    each_item_once(7, false);
}

TEST_CASE("the same with a thread that receives for a short time each", "[stress][sync][channel]") {
    each_item_once(0, true);
    each_item_once(2, true);
}

TEST_CASE("an item of a rendezvous and a stop on both sides: it is on one of them, or in the channel",
          "[stress][sync][channel]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    std::atomic<int> wrong{0}, sent{0}, received{0};
    struct race {
        co::channel<parcel> c{0};
        co::cancel_scope sender_scope, receiver_scope;
        parcel mine, theirs;
    };
    const auto sends = [&](race* r) -> co::task<> {
        auto ended = co_await co::as_outcome(r->c.send(std::move(r->mine)).with(r->sender_scope.ctx()));
        if (ended.has_value() == (r->mine != nullptr)) wrong.fetch_add(1);
        if (ended.has_value()) sent.fetch_add(1);
    };
    const auto receives = [&](race* r) -> co::task<> {
        auto ended = co_await co::as_outcome(r->c.receive().with(r->receiver_scope.ctx()));
        if (!ended.has_value()) co_return;
        r->theirs = **std::move(ended);
        received.fetch_add(1);
    };
    const auto stops = [](race* r, std::uint64_t dice) -> co::task<> {
        stress::dawdle(static_cast<std::uint32_t>(dice % 2000));
        if (dice % 2 == 0) r->receiver_scope.request_stop();
        r->sender_scope.request_stop();
        r->receiver_scope.request_stop();
        co_return;
    };
    int slot = 0;
    stress::crew<3> crew;
    for (int round = 0; round < 3'000; ++round) {
        race r{co::channel<parcel>(0), co::cancel_scope(co::executor_ref(crew.loop(0))),
               co::cancel_scope(co::executor_ref(crew.loop(1))), std::make_unique<item>(item{&slot, round}), nullptr};
        crew.start(0, sends(&r));
        crew.start(1, receives(&r));
        crew.start(2, stops(&r, random()));
        crew.wait();
        const std::optional<parcel> inside = r.c.try_receive();
        if ((r.mine ? 1 : 0) + (r.theirs ? 1 : 0) + (inside ? 1 : 0) != 1) wrong.fetch_add(1);
    }
    CHECK(wrong.load() == 0);
    CHECK(received.load() <= sent.load());
}

TEST_CASE("of two channels that answer at the same moment only one is received from", "[stress][sync][channel]") {
    const std::uint64_t seed = stress::fresh_seed();
    constexpr std::size_t n = 4'000;
    std::vector<int> taken(n);
    co::channel<parcel> left(4), right(4);
    stress::crew<2> crew;
    const auto sends = [&](co::channel<parcel>* to, std::size_t first, std::uint64_t s) -> co::task<> {
        std::mt19937_64 random(s);
        for (std::size_t i = first; i < n; i += 2) {
            stress::dawdle(static_cast<std::uint32_t>(random() % 200));
            parcel mine = std::make_unique<item>(item{&taken[i], static_cast<int>(i)});
            (void)co_await to->send(std::move(mine));
        }
        to->close();
    };
    co::thread_pool pool(2);   // so that the branches are on two threads
    const auto receives = [&]() -> co::task<> {
        while (true) {
            auto first = co_await co::when_any(left.receive(), right.receive());
            std::optional<parcel> got = std::visit([](auto& p) { return std::move(p); }, first);
            if (!got) break;
            ++*(*got)->taken;
        }
        for (co::channel<parcel>* rest : {&left, &right}) {
            while (true) {
                std::optional<parcel> got = co_await rest->receive();
                if (!got) break;
                ++*(*got)->taken;
            }
        }
    };
    crew.start(0, sends(&left, 0, seed));
    crew.start(1, sends(&right, 1, seed + 1));
    co::sync_wait(co::on(pool, receives()));
    crew.wait();
    CHECK(std::count(taken.begin(), taken.end(), 1) == static_cast<std::ptrdiff_t>(n));
    CHECK(left.stats().size + right.stats().size == 0);
}

TEST_CASE("a close that comes while tasks begin to wait leaves none behind", "[stress][sync][channel]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    stress::crew<3> crew;
    std::atomic<int> wrong{0};
    struct race {
        explicit race(std::size_t capacity) : c(capacity) {}
        co::channel<int> c;
        std::atomic<int> sent{0}, received{0};
    };
    const auto sends = [](race* r) -> co::task<> {
        for (int i = 0; i < 3; ++i) {
            const bool sent = co_await r->c.send(i);
            r->sent.fetch_add(sent);
        }
    };
    const auto receives = [](race* r) -> co::task<> {
        while (true) {
            const auto got = co_await r->c.receive();
            if (!got) break;
            r->received.fetch_add(1);
        }
    };
    const auto closes = [](race* r, std::uint32_t n) -> co::task<> {
        stress::dawdle(n);
        r->c.close();
        co_return;
    };
    for (int round = 0; round < 3'000; ++round) {
        race r(random() % 3);
        crew.start(0, sends(&r));
        crew.start(1, receives(&r));
        crew.start(2, closes(&r, static_cast<std::uint32_t>(random() % 3000)));
        crew.wait();
        if (r.sent.load() != r.received.load()) wrong.fetch_add(1);
    }
    CHECK(wrong.load() == 0);
}

TEST_CASE("the last handle closes for a receiver that may destroy the channel then", "[stress][sync][channel]") {
    stress::crew<3> crew;
    std::atomic<int> wrong{0};
    for (int round = 0; round < 2'000; ++round) {
        auto* const c = new co::channel<int>(1);
        const auto receives = [](co::channel<int>* mine, std::atomic<int>* bad) -> co::task<> {
            int sum = 0;
            while (true) {
                const auto got = co_await mine->receive();
                if (!got) break;
                sum += *got;
            }
            if (sum != 3) bad->fetch_add(1);
            delete mine;
        };
        const auto sends = [](co::channel<int>::sender out, int n) -> co::task<> {
            const bool sent = co_await out.send(int{n});
            (void)sent;
            out.reset();
        };
        auto out = c->make_sender();
        crew.start(0, receives(c, &wrong));
        crew.start(1, sends(out, 1));
        crew.start(2, sends(std::move(out), 2));
        crew.wait();
    }
    CHECK(wrong.load() == 0);
}
