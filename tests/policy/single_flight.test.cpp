// SPDX-License-Identifier: MIT
#include <cordon/policy/single_flight.hpp>

#include <cordon/core/error.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include "calls.hpp"
#include "catch.hpp"
#include "last_words.hpp"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::pipeline;
using flights = co::single_flight<int, int>;

static_assert(co::reportable<flights>);

struct unlike {
    bool operator==(const unlike&) const { throw std::runtime_error("unlike"); }
};
/// Throws when it is hashed, if it is to.
struct unhashed {
    explicit unhashed(const bool& t) : throws(&t) {}
    bool operator==(const unhashed&) const { return true; }
    const bool* throws;
};

/// Who asks for what, when, and how long it has.
struct request {
    int key;
    co::clock::duration at;
    co::clock::duration within = 1min;
};
struct shared_world {
    explicit shared_world(const char* script) : s(script, 2ms) {}
    flights f;
    service s;
    std::uint64_t began = 0, made = 0, made_later = 0, had_another = 0, stopped_waiting = 0;
};

task<> asks(std::shared_ptr<shared_world> w, request r) {
    co_await co::sleep_for(r.at);
    struct under_way {
        explicit under_way(shared_world& in) : world(&in) { ++in.began; }
        ~under_way() { ++(made ? world->made : has_another ? world->had_another : world->stopped_waiting); }
        shared_world* world;
        bool made = false, has_another = false;
    } mine(*w);
    const auto from = co::clock::now();
    const auto call = [&]() -> task<int> {
        mine.made = true;
        if (co::clock::now() != from) ++w->made_later;
        return w->s.call();
    };
    const auto guarded = pipeline(w->f.for_key(r.key));
    const auto ended = co_await as_outcome(co::with_timeout(r.within, guarded(call)));
    mine.has_another = timed_out_line(ended) == 0;
}

}  // namespace

template <>
struct std::hash<unlike> {
    std::size_t operator()(const unlike&) const noexcept { return 1; }
};
template <>
struct std::hash<unhashed> {
    std::size_t operator()(const unhashed& key) const {
        if (*key.throws) throw std::runtime_error("unhashed");
        return 1;
    }
};

TEST_CASE("who asks the same at the same time shares one call", "[policy][single_flight]") {
    for (std::uint64_t seed = 0; seed < 10; ++seed) {
        simulation sim(seed);
        sim.run([]() -> task<> {
            flights f({.name = "stock"});
            service s("S", 10ms), other("S", 10ms);
            std::vector<int> got;
            const auto one = [&](int key, service& from) -> task<> {
                const auto fetch = from.fetch();
                const auto guarded = pipeline(f.for_key(key));
                got.push_back(co_await guarded(fetch));
            };
            const auto body = [&](co::task_group& group) -> task<> {
                for (int i = 0; i < 5; ++i) group.spawn(one(1, s));
                group.spawn(one(2, other));
                co_await co::sleep_for(5ms);
                CHECK(f.stats().in_flight == 2);
                CHECK(f.stats().waiting == 4);
            };
            const auto begin = co::clock::now();
            co_await co::with_group(body);
            CHECK(co::clock::now() - begin == 10ms);
            CHECK(s.calls == 1);
            CHECK(other.calls == 1);
            CHECK(got == std::vector<int>(6, 1));
            co_await one(1, s);  // later: another call
            CHECK(s.calls == 2);
            CHECK(f.stats().calls == 3);
            CHECK(f.stats().shared == 4);
            CHECK(f.stats().in_flight == 0);
        });
    }
}

TEST_CASE("an error, a refusal and a stop of the call itself are shared as well", "[policy][single_flight]") {
    for (const char how : {'F', 'R', 'C', 'L'}) {
        simulation sim;
        sim.run([&]() -> task<> {
            flights f;
            service s(std::string(1, how), 1ms);
            const auto fetch = s.fetch();
            const auto guarded = pipeline(f.for_key(1));
            int alike = 0;
            const auto one = [&]() -> task<> {
                const auto ended = co_await as_outcome(guarded(fetch));
                alike += how == 'R' ? ended.is_rejected() : how == 'C' ? ended.is_stopped() : error_text(ended) == "1";
            };
            (void)co_await co::when_all(one(), one(), one());
            CHECK(alike == 3);
            CHECK(s.calls == 1);
        });
    }
    SECTION("also what is thrown before there is a call") {
        simulation sim;
        sim.run([]() -> task<> {
            flights f;
            const auto throws = []() -> task<int> { throw std::runtime_error("at once"); };
            const auto before = [&](bool thrown) {
                return [&throws, thrown]() -> task<int> {
                    if (thrown) throw std::runtime_error("no task");
                    return throws();
                };
            };
            const auto guarded = pipeline(f.for_key(1));
            const auto call = before(true);
            const auto ended = co_await as_outcome(guarded(call));
            CHECK(error_text(ended) == "no task");
            CHECK(f.stats().in_flight == 0);
        });
    }
}

TEST_CASE("a stop from inside a shared call is no exception that could be caught", "[policy][single_flight]") {
    for (const co::clock::duration takes : {0ms, 1ms}) {
        simulation sim;
        sim.run([&]() -> task<> {
            flights f;
            service s("C", takes);
            const auto fetch = s.fetch();
            const auto guarded = pipeline(f.for_key(1));
            int caught = 0, stopped = 0;
            const auto asks = [&]() -> task<> {
                try {
                    co_await guarded(fetch);
                } catch (...) {
                    ++caught;
                }
            };
            const auto one = [&]() -> task<> {
                const auto ended = co_await as_outcome(asks());
                stopped += ended.is_stopped();
            };
            (void)co_await co::when_all(one(), one());
            CHECK(caught == 0);
            CHECK(stopped == 2);
        });
    }
}

TEST_CASE("if the one that calls is stopped, the next who waits calls, and has its own time",
          "[policy][single_flight]") {
    simulation sim;
    sim.run([]() -> task<> {
        flights f;
        service s("S", 10ms);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(f.for_key(1));
        const auto begin = co::clock::now();
        const auto hasty = [&]() -> task<> {
            const auto ended = co_await as_outcome(co::with_timeout(3ms, guarded(fetch)));
            CHECK(timed_out_line(ended) != 0);
        };
        const auto waits = [&](co::clock::duration d, int expected) -> task<> {
            co_await co::sleep_for(d);
            const int got = co_await guarded(fetch);
            CHECK(got == expected);
            CHECK(co::clock::now() - begin == 13ms);
        };
        const auto gives_up = [&]() -> task<> {
            co_await co::sleep_for(1500us);
            const auto ended = co_await as_outcome(co::with_timeout(1ms, guarded(fetch)));
            CHECK_FALSE(ended.has_value());
        };
        (void)co_await co::when_all(hasty(), waits(1ms, 2), gives_up(), waits(2ms, 2), waits(5ms, 2));
        CHECK(s.calls == 2);
        CHECK(f.stats().handed_over == 1);
        CHECK(f.stats().shared == 2);
        CHECK(f.stats().waiting == 0);
    });
}

TEST_CASE("behind a cache and around retries it keeps a service from being asked by everybody",
          "[policy][single_flight][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        flights f;
        co::cache<int, int> kept(1min);
        service s("FS", 10ms);
        const auto fetch = s.fetch();
        const auto guarded =
            pipeline(kept.for_key(1), f.for_key(1), co::retry(3, {.backoff = co::constant(1ms)}));
        const auto one = [&]() -> task<> {
            const int got = co_await guarded(fetch);
            CHECK(got == 2);
        };
        (void)co_await co::when_all(one(), one(), one(), one());
        co_await one();
        CHECK(s.calls == 2);
        CHECK(kept.stats().hits == 1);
    });
}

TEST_CASE("an outcome is copied without a lock, and a key that cannot be compared is an error",
          "[policy][single_flight]") {
    struct answer {
        explicit answer(std::function<void()>& told) : copied(&told) {}
        answer(const answer& other) : copied(other.copied) { (*copied)(); }
        answer(answer&&) = default;
        answer& operator=(const answer&) = default;
        std::function<void()>* copied;
    };
    simulation sim;
    sim.run([]() -> task<> {
        co::single_flight<int, answer> f;
        int copies = 0;
        std::function<void()> looks = [&] { copies += f.stats().in_flight == 0; };
        const auto call = [&]() -> task<answer> {
            co_await co::sleep_for(1ms);
            co_return answer(looks);
        };
        const auto guarded = pipeline(f.for_key(1));
        const auto one = [&]() -> task<> { (void)co_await guarded(call); };
        (void)co_await co::when_all(one(), one(), one());
        CHECK(copies >= 2);
        CHECK(f.stats().shared == 2);

        co::single_flight<unlike, int> wrong;
        service s("S", 1ms);
        const auto fetch = s.fetch();
        const auto asks = pipeline(wrong.for_key(unlike()));
        const auto makes = [&]() -> task<> { co_await asks(fetch); };
        const auto fails = [&]() -> task<> {
            const auto ended = co_await as_outcome(asks(fetch));
            CHECK(error_text(ended) == "unlike");
        };
        (void)co_await co::when_all(makes(), fails());
        CHECK(wrong.stats().calls == 1);
        CHECK(wrong.stats().waiting == 0);
    });
}

TEST_CASE("behind one that was stopped, too, those who wait are first come, first served", "[policy][single_flight]") {
    simulation sim;
    sim.run([]() -> task<> {
        flights f;
        std::vector<int> made;
        const auto asks = [&](int i, co::clock::duration until) -> task<> {
            co_await co::sleep_for(i * 1us);
            const auto call = [&made, i]() -> task<int> {
                made.push_back(i);
                co_await co::sleep_for(1h);
                co_return i;
            };
            const auto guarded = pipeline(f.for_key(1));
            (void)co_await as_outcome(co::with_timeout(until, guarded(call)));
        };
        (void)co_await co::when_all(asks(0, 1ms), asks(1, 2ms), asks(2, 3ms), asks(3, 4ms), asks(4, 5ms));
        CHECK(made == std::vector<int>{0, 1, 2, 3, 4});
        CHECK(f.stats().handed_over == 4);
    });
}

TEST_CASE("a refusal for want of time is not shared with those who have it", "[policy][single_flight]") {
    simulation sim;
    sim.run([]() -> task<> {
        flights f;
        int made = 0;
        const auto call = [&]() -> task<int> {
            const auto until = co_await co::this_task::deadline();
            if (++made; !until.is_never() && until.time() - co::clock::now() <= 10s) {
                co_await co::sleep_for(5ms);
                throw co::rejected(co::rejection(co::reject_reason::rate_limited, "remote", 10s));
            }
            co_await co::sleep_for(10s);
            co_return made;
        };
        const auto asks = [&](co::clock::duration at, co::clock::duration has, int expected) -> task<> {
            co_await co::sleep_for(at);
            const auto guarded = pipeline(f.for_key(1));
            const auto ended = co_await as_outcome(co::with_timeout(has, guarded(call)));
            CHECK(ended.is_rejected() == (expected == 0));
            CHECK((ended.has_value() ? *ended : 0) == expected);
        };
        (void)co_await co::when_all(asks(0ms, 1s, 0), asks(1ms, 1min, 2), asks(2ms, 1h, 2));
        CHECK(f.stats().handed_over == 1);
        (void)co_await co::when_all(asks(0ms, 1s, 0), asks(1ms, 2s, 0), asks(2ms, 9s, 0));  // nobody has it
        CHECK(made == 3);
        CHECK(f.stats().handed_over == 1);
        CHECK(f.stats().shared == 3);
        CHECK(f.stats().waiting == 0);
        CHECK(f.stats().in_flight == 0);
    });
}

TEST_CASE("keys are not hashed again when a call is handed over", "[policy][single_flight]") {
    simulation sim;
    sim.run([]() -> task<> {
        bool throws = false;
        co::single_flight<unhashed, int> f;
        service s("S", 10ms);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(f.for_key(unhashed(throws)));
        const auto one = [&](co::clock::duration at, co::clock::duration within, int expected) -> task<> {
            co_await co::sleep_for(at);
            const auto ended = co_await as_outcome(co::with_timeout(within, guarded(fetch)));
            CHECK((ended.has_value() ? *ended : 0) == expected);
        };
        const auto breaks = [&]() -> task<> {
            co_await co::sleep_for(900us);
            throws = true;
        };
        (void)co_await co::when_all(one(0ms, 1ms, 0), one(500us, 1min, 2), breaks());
        const auto ended = co_await as_outcome(guarded(fetch));
        CHECK(error_text(ended) == "unhashed");
        CHECK(f.stats().in_flight == 0);
    });
}

TEST_CASE("a call that is handed to one that was stopped at the same moment is no call", "[policy][single_flight]") {
    simulation sim;
    sim.run([]() -> task<> {
        flights f;
        service s("S", 1h);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(f.for_key(1));
        const auto one = [&]() -> task<> { (void)co_await as_outcome(co::with_timeout(1s, guarded(fetch))); };
        (void)co_await co::when_all(one(), one(), one(), one());
        CHECK(s.calls == 1);
        CHECK(f.stats().calls == 1);
        CHECK(f.stats().handed_over == 0);
    });
}

TEST_CASE("shared calls can be stopped at any point: every figure is what it has to be",
          "[policy][single_flight][cancel_sweep][T7]") {
    struct config {
        const char* script;
        std::vector<request> requests;
    };
    const config configs[] = {
        // the first is stopped, the next takes over, another that waits is stopped, and one comes later
        {"SFS", {{1, 0ms, 1ms}, {1, 0ms}, {1, 500us, 1ms}, {1, 1ms}, {1, 9ms}}},
        // an error for all, beside another key
        {"FS", {{1, 0ms}, {1, 500us}, {2, 500us}, {1, 1ms}, {2, 1ms, 500us}, {2, 1ms}}},
        // all who wait are stopped, or all in turn
        {"S", {{1, 0ms}, {1, 500us, 1ms}, {1, 500us, 500us}, {2, 0ms, 1ms}, {2, 500us, 1ms}, {2, 750us, 1500us}}},
    };
    for (const config& of : configs) {
        for (std::uint64_t seed = 0; seed < 4; ++seed) {
            std::shared_ptr<shared_world> w;
            const auto make = [&] {
                w = std::make_shared<shared_world>(of.script);
                std::vector<task<>> all;
                for (const request& r : of.requests) all.push_back(asks(w, r));
                return co::when_all(std::move(all));
            };
            const auto swept = co::testing::cancel_sweep(
                {.seed = seed, .fail_awaits = true}, make, [&](const auto&, const co::testing::sweep_point& at) {
                    const auto now = w->f.stats();
                    const bool complete =
                        at.variant != co::testing::sweep_variant::baseline || w->began == of.requests.size();
                    if (at.variant == co::testing::sweep_variant::error)  // the wait for another's outcome threw
                        return now.in_flight == 0 && now.waiting == 0 && w->s.running == 0;
                    // each who came made the call, at once or later, or had the outcome of another, or was stopped
                    return complete && now.in_flight == 0 && now.waiting == 0 && w->s.running == 0 &&
                           now.calls == static_cast<std::uint64_t>(w->s.calls) && now.calls == w->made &&
                           now.handed_over == w->made_later && now.shared == w->had_another &&
                           w->began == now.calls + now.shared + w->stopped_waiting;
                });
            INFO("script " << of.script << " seed " << seed << ": " << describe(swept));
            CHECK(swept.findings.empty());
            CHECK(swept.points > 10);
        }
    }
}

TEST_CASE("one is stopped and another comes at the same moment: that one makes its own call, or takes over",
          "[policy][single_flight][T4]") {
    bool took_over = false, made_its_own = false;
    const auto root = [&]() -> task<bool> {
        flights f;
        service s("S", 2ms);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(f.for_key(1));
        co::inplace_stop_source source;
        const auto first = [&]() -> task<> {
            const auto ended = co_await as_outcome(co::with(guarded(fetch), co::stop_on(source.get_token())));
            CHECK(ended.is_stopped());
        };
        int got = 0;
        const auto second = [&]() -> task<> {
            co_await co::sleep_for(1ms);
            got = co_await guarded(fetch);
        };
        co_await co::when_all(first(), second(), stop_after(source, 1ms));
        (f.stats().handed_over == 1 ? took_over : made_its_own) = true;
        co_return got == 2 && f.stats().in_flight == 0 && f.stats().waiting == 0 && s.running == 0;
    };
    const auto all = co::testing::explore_all(20'000, root, [](bool right) { return right; });
    CHECK(all.complete);
    CHECK_FALSE(all.failing);
    CHECK(took_over);
    CHECK(made_its_own);
}

TEST_CASE("the figures of shared calls are reported, and destroyed in flight it says so",
          "[policy][single_flight][observable]") {
    const flights f({.name = "f"});
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    f.report(sink);
    CHECK(names == "calls shared handed_over in_flight waiting ");
    const auto text = last_words([] {
        simulation sim;
        auto dies = std::make_unique<flights>(co::single_flight_options{.name = "dies"});
        sim.run([&]() -> task<> {
            service s("S", 1h);
            const auto fetch = s.fetch();
            const auto guarded = pipeline(dies->for_key(1));
            const auto kills = [&]() -> task<> {
                co_await co::sleep_for(1ms);
                dies.reset();
            };
            const auto calls = [&]() -> task<> { co_await guarded(fetch); };
            (void)co_await co::when_all(calls(), kills());
        });
    });
    CHECK(says(text, "single_flight", "\"dies\"", "destroyed"));
}
