// SPDX-License-Identifier: MIT
#include <cordon/policy/cache.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>
#include <cordon/testing/cancel_sweep.hpp>

#include "calls.hpp"
#include "catch.hpp"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <stdexcept>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace policy_test;
using co::pipeline;
using co::retry;
using answers = co::cache<int, int>;

static_assert(co::reportable<answers>);

/// A key that throws when it is compared or hashed, if it is to.
struct fussy {
    fussy(int n, const bool& t) : number(n), throws(&t) {}
    bool operator==(const fussy& other) const {
        if (*throws) throw std::runtime_error("compared");
        return number == other.number;
    }
    int number;
    const bool* throws;
};

bool operator==(const answers::snapshot& a, const answers::snapshot& b) {
    return std::tie(a.entries, a.hits, a.misses, a.refreshes, a.stale, a.evicted) ==
           std::tie(b.entries, b.hits, b.misses, b.refreshes, b.stale, b.evicted);
}

/// What a cache has to do and to count, told of each call when it begins and when it ends.
class ledger {
public:
    ledger(co::clock::duration good_for, const co::cache_options& o) : good_for_(good_for), options_(o) {}

    /// Returns:       the number of the call that is made, or 0
    int begins(int key) {
        const auto e = find(key);
        if (e != kept_.end()) {
            kept_.splice(kept_.end(), kept_, e);
            const auto old = co::clock::now() - e->since;
            const bool due = options_.refresh_ahead > 0s && old >= good_for_ - options_.refresh_ahead;
            if (old < good_for_ && (!due || e->refreshed_by != 0)) {
                ++counts_.hits;
                return 0;
            }
            if (old < good_for_) {
                e->refreshed_by = last_ + 1;
                ++counts_.refreshes;
            }
        }
        ++counts_.misses;
        return ++last_;
    }
    void succeeds(int key, int number) {
        leaves(key, number);
        auto e = find(key);
        if (e != kept_.end() && e->asked > number) return;
        if (e != kept_.end()) {
            kept_.erase(e);
        } else if (kept_.size() == options_.max_entries) {
            kept_.pop_front();
            ++counts_.evicted;
        }
        kept_.push_back({key, number, 0, co::clock::now()});
    }
    /// Returns:       whether an old value answers
    bool fails(int key, int number) {
        leaves(key, number);
        const auto e = find(key);
        if (e == kept_.end() || co::clock::now() - e->since >= good_for_ + options_.stale_for) return false;
        ++counts_.stale;
        return true;
    }
    /// Of a call that was stopped, or counts as nothing.
    void leaves(int key, int number) {
        if (const auto e = find(key); e != kept_.end() && e->refreshed_by == number) e->refreshed_by = 0;
    }
    answers::snapshot counts() const {
        answers::snapshot now = counts_;
        now.entries = kept_.size();
        return now;
    }

private:
    struct entry {
        int key, asked, refreshed_by;
        co::clock::time_point since;
    };
    std::list<entry>::iterator find(int key) {
        return std::find_if(kept_.begin(), kept_.end(), [&](const entry& e) { return e.key == key; });
    }

    co::clock::duration good_for_;
    co::cache_options options_;
    std::list<entry> kept_;  // the one that was not used for longest first
    int last_ = 0;
    answers::snapshot counts_;
};

/// Who asks for what, when, and how long it has.
struct request {
    int key;
    co::clock::duration at;
    co::clock::duration within = 1min;
};
struct cached_world {
    cached_world(co::clock::duration good_for, const co::cache_options& o, const char* script)
        : kept(good_for, o), books(good_for, o), s(script, 2ms) {}
    answers kept;
    ledger books;
    service s;
    std::uint64_t began = 0;
    bool right = true;  // everybody had what was to be had
};

task<> asks(std::shared_ptr<cached_world> w, request r) {
    co_await co::sleep_for(r.at);
    struct under_way {
        explicit under_way(cached_world& in, int k) : world(&in), key(k), number(in.books.begins(k)) {}
        ~under_way() {
            if (number != 0) world->books.leaves(key, number);
        }
        cached_world* world;
        int key, number;
    } mine(*w, r.key);
    ++w->began;
    const int sent = w->s.calls + (mine.number != 0 ? 1 : 0);
    const auto fetch = w->s.fetch();
    const auto guarded = pipeline(w->kept.for_key(r.key));
    const auto ended = co_await as_outcome(co::with_timeout(r.within, guarded(fetch)));
    if (mine.number == 0) {
        w->right = w->right && ended.has_value();
    } else if (timed_out_line(ended) == 0) {
        const char how = w->s.script[std::min(static_cast<std::size_t>(sent), w->s.script.size()) - 1];
        const int number = how == 'L' ? mine.number : std::exchange(mine.number, 0);
        if (how == 'S') w->books.succeeds(r.key, number);
        const bool answered = how == 'S' || (how != 'L' && w->books.fails(r.key, number));
        w->right = w->right && ended.has_value() == answered && (how != 'S' || *ended == sent);
    }
}

}  // namespace

template <>
struct std::hash<fussy> {
    std::size_t operator()(const fussy&) const { return 1; }
};

TEST_CASE("a cache around a retry: what succeeds is kept once, and then no call is made",
          "[policy][cache][FB-05]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(1min);
        service s("FFS");
        const auto fetch = s.fetch();
        const auto guarded = pipeline(kept.for_key(7), retry(3, {.backoff = co::constant(1ms)}));
        const int first = co_await guarded(fetch);
        CHECK(first == 3);
        CHECK(s.calls == 3);
        CHECK(kept.stats().misses == 1);
        CHECK(kept.stats().entries == 1);
        const int second = co_await guarded(fetch);
        CHECK(second == 3);
        CHECK(s.calls == 3);
        CHECK(kept.stats().hits == 1);
        const auto other = pipeline(kept.for_key(8));
        co_await other(fetch);
        CHECK(s.calls == 4);
    });
    SECTION("errors, refusals and what is ignored are never kept") {
        sim.run([]() -> task<> {
            for (const char how : {'F', 'R', 'L'}) {
                answers kept(1min);
                service s(std::string(1, how));
                const auto fetch = s.fetch();
                const auto guarded = pipeline(kept.for_key(1));
                (void)co_await as_outcome(guarded(fetch));
                (void)co_await as_outcome(guarded(fetch));
                CHECK(s.calls == 2);
                CHECK(kept.stats().entries == 0);
            }
            answers kept(1min);
            service s("S");
            const auto fetch = s.fetch();
            const auto guarded = pipeline(kept.for_key(1))
                                     .failing_when([](int n) { return n == 1; })
                                     .ignoring([](int n) { return n == 2; });
            for (int i = 1; i <= 4; ++i) (void)co_await guarded(fetch);
            CHECK(s.calls == 3);
            CHECK(kept.try_get(1) == 3);
        });
    }
}

TEST_CASE("a value is good for its time, to the nanosecond", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(10ms);
        service s("S", 1ms);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(kept.for_key(1));
        co_await guarded(fetch);
        co_await co::sleep_for(10ms - 1ns);
        int got = co_await guarded(fetch);
        CHECK(got == 1);
        co_await co::sleep_for(1ns);
        CHECK_FALSE(kept.try_get(1));
        got = co_await guarded(fetch);
        CHECK(got == 2);
    });
}

TEST_CASE("a value that will be too old soon is refreshed by one call, and the others do not wait", "[policy][cache]") {
    for (std::uint64_t seed = 0; seed < 8; ++seed) {
        simulation sim(seed);
        sim.run([]() -> task<> {
            answers kept(100ms, {.refresh_ahead = 20ms});
            service s("SSF", 1ms);
            const auto fetch = s.fetch();
            const auto guarded = pipeline(kept.for_key(1));
            const auto timed = [&]() -> task<co::clock::duration> {
                const auto from = co::clock::now();
                co_await guarded(fetch);
                co_return co::clock::now() - from;
            };
            co_await guarded(fetch);
            co_await co::sleep_for(80ms);
            const auto three = co_await co::when_all(timed(), timed(), timed());
            CHECK(std::get<0>(three) + std::get<1>(three) + std::get<2>(three) == 1ms);
            CHECK(s.calls == 2);
            CHECK(kept.try_get(1) == 2);
            co_await co::sleep_for(85ms);  // the third call fails: the old value is good still
            const int got = co_await guarded(fetch);
            CHECK(got == 2);
            CHECK(s.calls == 3);
            CHECK(kept.stats().refreshes == 2);
            const int again = co_await guarded(fetch);  // and the next tries again
            CHECK(again == 2);
            CHECK(s.calls == 4);
        });
    }
}

TEST_CASE("a value that is too old answers for a call that fails, or is refused, but not for ever",
          "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        for (const char how : {'F', 'R', 'L'}) {
            answers kept(10ms, {.stale_for = 50ms});
            service s(std::string("S") + how);
            const auto fetch = s.fetch();
            const auto guarded = pipeline(kept.for_key(1));
            co_await guarded(fetch);
            co_await co::sleep_for(60ms - 1ns);
            const auto old = co_await as_outcome(guarded(fetch));
            CHECK(old.has_value() == (how != 'L'));  // what no repetition mends is told
            CHECK(kept.stats().stale == (how != 'L' ? 1u : 0u));
            co_await co::sleep_for(1ns);
            const auto none = co_await as_outcome(guarded(fetch));
            CHECK_FALSE(none.has_value());
        }
        answers kept(10ms, {.stale_for = 1h});
        co::circuit_breaker breaker{{.name = "b"}};
        service s("S", 1s);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(kept.for_key(1), breaker, co::timeout(2s));
        co_await guarded(fetch);
        breaker.force_open();
        co_await co::sleep_for(1min);
        const int got = co_await guarded(fetch);
        CHECK(got == 1);
        breaker.close();
        const auto slow = pipeline(kept.for_key(1), co::timeout(1ms));
        const int late = co_await slow(fetch);
        CHECK(late == 1);
    });
}

TEST_CASE("there is room for so many, and the one that was not used for longest goes", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(1h, {.max_entries = 2});
        service s("S");
        const auto fetch = s.fetch();
        const auto get = [&](int key) { return pipeline(kept.for_key(key)); };
        const auto one = get(1), two = get(2), three = get(3);
        co_await one(fetch);
        co_await two(fetch);
        co_await one(fetch);
        CHECK(s.calls == 2);
        co_await three(fetch);
        CHECK(kept.stats().evicted == 1);
        CHECK(kept.stats().entries == 2);
        CHECK(kept.try_get(1) == 1);
        CHECK_FALSE(kept.try_get(2));
        kept.erase(1);
        kept.erase(5);
        CHECK_FALSE(kept.try_get(1));
        kept.put(9, 99);
        const auto nine = get(9);
        const int got = co_await nine(fetch);
        CHECK(got == 99);
        kept.clear();
        CHECK(kept.stats().entries == 0);
    });
}

TEST_CASE("the answer of the call that began later stays, and none that was asked for before its key was erased",
          "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(1h);
        int asked = 0;
        const auto slow = [&]() -> task<int> {
            const int mine = ++asked;
            co_await co::sleep_for(10ms);
            co_return mine;
        };
        const auto fast = [&]() -> task<int> { co_return ++asked; };
        const auto guarded = pipeline(kept.for_key(1));
        const auto first = [&](int expected) -> task<> {
            const int got = co_await guarded(slow);
            CHECK(got == expected);
        };
        const auto overtakes = [&]() -> task<> {
            co_await co::sleep_for(5ms);
            co_await guarded(fast);
        };
        (void)co_await co::when_all(first(1), overtakes());
        CHECK(kept.try_get(1) == 2);
        const auto puts = [&]() -> task<> {
            co_await co::sleep_for(5ms);
            kept.put(1, 100);
        };
        kept.erase(1);
        (void)co_await co::when_all(first(3), puts());
        CHECK(kept.try_get(1) == 100);
        for (const bool all : {false, true}) {
            const auto erases = [&]() -> task<> {
                co_await co::sleep_for(5ms);
                if (all) kept.clear();
                else kept.erase(1);
            };
            kept.erase(1);
            (void)co_await co::when_all(first(all ? 5 : 4), erases());
            CHECK_FALSE(kept.try_get(1));
        }
        co_await guarded(fast);
        CHECK(kept.try_get(1) == 6);
    });
}

TEST_CASE("a refresh that fails late does not hold for the one that another makes meanwhile", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(10s, {.refresh_ahead = 5s});
        kept.put(1, 1);
        const auto guarded = pipeline(kept.for_key(1));
        const auto fails = [&]() -> task<> {  // from 6 s to 13 s
            co_await co::sleep_for(6s);
            const auto call = []() -> task<int> {
                co_await co::sleep_for(7s);
                throw std::runtime_error("no");
            };
            const auto ended = co_await as_outcome(guarded(call));
            CHECK(ended.has_value());
        };
        const auto slow = []() -> task<int> {
            co_await co::sleep_for(3s);
            co_return 3;
        };
        const auto refreshes = [&]() -> task<> {  // from 12.5 s to 15.5 s
            co_await co::sleep_for(12500ms);
            const int got = co_await guarded(slow);
            CHECK(got == 3);
        };
        const auto others = [&]() -> task<> {
            co_await co::sleep_for(7s);
            kept.put(1, 2);
            co_await co::sleep_for(6500ms);
            const int got = co_await guarded(slow);
            CHECK(got == 2);
            CHECK(kept.stats().hits == 1);
        };
        (void)co_await co::when_all(fails(), refreshes(), others());
        CHECK(kept.stats().refreshes == 2);
        // An erased key of the same 64th: the answer is not kept, and the next call is made to refresh again.
        answers full(10s, {.refresh_ahead = 5s});
        full.put(1, 1);
        co_await co::sleep_for(6s);
        const auto again = pipeline(full.for_key(1));
        const auto erases = [&]() -> task<> {
            co_await co::sleep_for(1s);
            for (int other = 2; other < 1000; ++other) full.erase(other);
        };
        const auto asks = [&]() -> task<> { co_await again(slow); };
        (void)co_await co::when_all(asks(), erases());
        CHECK(full.try_get(1) == 1);
        co_await asks();
        CHECK(full.try_get(1) == 3);
    });
}

TEST_CASE("values that go may use the cache that they leave", "[policy][cache]") {
    struct value {
        explicit value(co::cache<int, std::shared_ptr<value>>& c) : of(&c) {}
        value(const value&) = delete;
        ~value() { (void)of->stats(); }
        co::cache<int, std::shared_ptr<value>>* of;
    };
    co::cache<int, std::shared_ptr<value>> kept(1h, {.max_entries = 2});
    const auto put = [&](int key) { kept.put(key, std::make_shared<value>(kept)); };
    put(1);
    put(1);
    put(2);
    put(3);
    CHECK(kept.stats().evicted == 1);
    kept.erase(3);
    kept.clear();
    CHECK(kept.stats().entries == 0);
    put(1);
    kept.erase(1);
    SECTION("those that can only be copied, too") {
        struct copied {
            explicit copied(const std::function<void()>& f) : goes(&f) {}
            copied(const copied&) = default;
            copied& operator=(const copied&) = default;
            ~copied() { (*goes)(); }
            const std::function<void()>* goes;
        };
        co::cache<int, copied> small(1h, {.max_entries = 1});
        const std::function<void()> goes = [&] { (void)small.stats(); };
        for (const int key : {1, 1, 2}) small.put(key, copied(goes));
        CHECK(small.stats().evicted == 1);
        CHECK(small.stats().entries == 1);
        small.clear();
    }
}

TEST_CASE("keys that cannot be compared are errors of the calls, and leave the cache as it was", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        bool throws = false;
        co::cache<fussy, int> kept(10s, {.max_entries = 1, .refresh_ahead = 5s});
        const auto guarded = pipeline(kept.for_key(fussy(1, throws)));
        const auto call = []() -> task<int> { co_return 1; };
        co_await guarded(call);
        throws = true;
        const auto none = co_await as_outcome(guarded(call));
        CHECK(error_text(none) == "compared");
        throws = false;
        co_await co::sleep_for(6s);
        const auto slow = [&]() -> task<int> {
            throws = true;
            co_await co::sleep_for(1s);
            co_return 2;
        };
        const auto kept_by_nobody = co_await as_outcome(guarded(slow));
        CHECK(kept_by_nobody.has_value());
        throws = false;
        CHECK(kept.try_get(fussy(1, throws)) == 1);
        kept.put(fussy(1, throws), 3);
        co_await co::sleep_for(6s);
        (void)co_await as_outcome(co::with_timeout(500ms, guarded(slow)));
        throws = false;
        const int old = co_await guarded(call);  // for nobody is known to have given the refresh up
        CHECK(old == 3);
        CHECK(kept.stats().refreshes == 2);
        co_await co::sleep_for(4s);
        const int fresh = co_await guarded(call);
        CHECK(fresh == 1);
    });
}

TEST_CASE("of a value that cannot be stored whole nothing is kept", "[policy][cache]") {
    static int good = -1;  // copies until one throws
    struct legacy {        // without moves
        legacy(std::string t, int n) : text(std::move(t)), number(n) {}
        legacy(const legacy& other) : text(other.text) {
            if (good-- == 0) throw std::bad_alloc();
            number = other.number;
        }
        legacy& operator=(const legacy& other) {
            text = other.text;
            if (good-- == 0) throw std::bad_alloc();
            number = other.number;
            return *this;
        }
        std::string text;
        int number = 0;
    };
    simulation sim;
    sim.run([]() -> task<> {
        int kept = 0, failed = 0;
        for (int n = 0; n < 6; ++n) {
            co::cache<int, legacy> values(1s);
            values.put(1, legacy("old", 1));
            good = n;
            try {
                values.put(1, legacy("new", 2));
                ++kept;
            } catch (const std::bad_alloc&) {
                ++failed;
            }
            good = -1;
            const auto value = values.try_get(1);
            if (value) CHECK(value->number == (value->text == "new" ? 2 : 1));
            values.put(1, legacy("newest", 3));
            CHECK(values.try_get(1)->number == 3);
            CHECK(values.stats().entries == 1);
        }
        CHECK(kept > 0);
        CHECK(failed > 0);
        co_return;
    });
}

TEST_CASE("a hit neither suspends nor makes a frame, and a value that cannot be copied is an error",
          "[policy][cache]") {
    struct fragile {
        explicit fragile(int n) : number(n) {}
        fragile(const fragile& other) : number(other.number) {
            if (number == 2) throw std::runtime_error("no copy");
        }
        fragile(fragile&&) = default;
        fragile& operator=(const fragile&) = default;
        fragile& operator=(fragile&&) = default;
        int number;
    };
    simulation sim;
    sim.run([&]() -> task<> {
        co::cache<std::string, fragile> kept(1h);
        int calls = 0;
        const auto call = [&]() -> task<fragile> { co_return fragile(++calls); };
        const auto one = pipeline(kept.for_key("one")), two = pipeline(kept.for_key("two"));
        co_await one(call);
        co_await one(call);
        CHECK(calls == 1);
        const auto uncopied = co_await as_outcome(two(call));
        CHECK(uncopied.has_value());  // it cannot be kept, but it is the result
        CHECK(kept.stats().entries == 1);
        kept.put("two", fragile(2));
        const auto ended = co_await as_outcome(two(call));
        CHECK(error_text(ended) == "no copy");
        CHECK(sim.steps() == 1);
    });
}

TEST_CASE("cached calls can be stopped at any point: every figure is what it has to be",
          "[policy][cache][cancel_sweep][T7]") {
    struct config {
        co::clock::duration good_for;
        co::cache_options options;
        const char* script;
        std::vector<request> requests;
    };
    const config configs[] = {
        // one beside the other, and one that has the value; another key
        {1min, {}, "S", {{1, 0ms}, {1, 1ms}, {1, 3ms}, {2, 3ms}}},
        // too old
        {3ms, {}, "S", {{1, 0ms}, {1, 4ms}, {1, 6ms}, {1, 9ms}}},
        // refreshed by one, who is stopped, and then by another, while the rest have the value
        {10ms, {.refresh_ahead = 8ms}, "S", {{1, 0ms}, {1, 5ms, 1ms}, {1, 5500us}, {1, 6500us}, {1, 7ms}, {1, 9ms}}},
        // a refresh that fails, and the next
        {10ms, {.refresh_ahead = 8ms}, "SFRS", {{1, 0ms}, {1, 5ms}, {1, 6ms}, {1, 7500us}, {1, 10ms}, {2, 10ms}}},
        // old, then too old to answer
        {3ms, {.stale_for = 6ms}, "SFRF", {{1, 0ms}, {1, 6ms}, {1, 8ms}, {1, 9ms}, {2, 9ms}}},
        // what is ignored, and no room
        {1min, {.max_entries = 1}, "SLSSS", {{1, 0ms}, {1, 3ms}, {2, 3ms}, {2, 6ms}, {1, 6ms}, {1, 9ms}, {2, 10ms}}},
    };
    for (const config& of : configs) {
        for (std::uint64_t seed = 0; seed < 3; ++seed) {
            std::shared_ptr<cached_world> w;
            const auto make = [&] {
                w = std::make_shared<cached_world>(of.good_for, of.options, of.script);
                std::vector<task<>> all;
                for (const request& r : of.requests) all.push_back(asks(w, r));
                return co::when_all(std::move(all));
            };
            const auto swept = co::testing::cancel_sweep(
                {.seed = seed, .fail_awaits = true}, make, [&](const auto&, const co::testing::sweep_point& at) {
                    const auto now = w->kept.stats();
                    const auto sent = static_cast<std::uint64_t>(w->s.calls);
                    const bool complete = at.variant != co::testing::sweep_variant::baseline ||
                                          w->began == of.requests.size();
                    if (at.variant == co::testing::sweep_variant::error)  // of the call itself, which no script says
                        return w->s.running == 0 && now.hits + now.misses == w->began;
                    return complete && w->right && w->s.running == 0 && now == w->books.counts() &&
                           now.hits + now.misses == w->began && now.misses == sent;
                });
            INFO("script " << of.script << " seed " << seed << ": " << describe(swept));
            CHECK(swept.findings.empty());
            CHECK(swept.points > 10);
        }
    }
}

TEST_CASE("a refresh that is stopped is made by another", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(10ms, {.refresh_ahead = 9ms});
        service s("S", 1ms);
        const auto fetch = s.fetch();
        const auto guarded = pipeline(kept.for_key(1));
        co_await guarded(fetch);
        co_await co::sleep_for(2ms);
        (void)co_await as_outcome(co::with_timeout(500us, guarded(fetch)));
        CHECK(s.calls == 2);
        co_await guarded(fetch);
        CHECK(s.calls == 3);
    });
}

TEST_CASE("a cache says what is wrong with its numbers, and reports", "[policy][cache][observable]") {
    CHECK_THROWS_WITH(answers(0s), "cache: time_to_live is 0 ns, allowed are more than 0");
    CHECK_THROWS_WITH(answers(1s, {.max_entries = 0}), "cache: max_entries is 0, allowed are 1 and more");
    CHECK_THROWS_AS(answers(1s, {.refresh_ahead = 1s}), std::invalid_argument);
    CHECK_THROWS_AS(answers(1s, {.refresh_ahead = -1s}), std::invalid_argument);
    CHECK_THROWS_AS(answers(1s, {.stale_for = -1s}), std::invalid_argument);
    const answers kept(1s, {.name = "answers"});
    std::string names;
    auto take = [&](const co::metric& m) { names += std::string(m.name) + ' '; };
    co::metric_sink sink(take);
    kept.report(sink);
    CHECK(names == "hits misses refreshes stale evicted entries ");
    CHECK(kept.name() == "answers");
}

TEST_CASE("the numbers of a cache can be changed, and count for the values that are there", "[policy][cache]") {
    simulation sim;
    sim.run([]() -> task<> {
        answers kept(10s);
        for (int i = 0; i < 10; ++i) kept.put(i, i);
        co_await co::sleep_for(5s);
        kept.set(4s);
        CHECK_FALSE(kept.try_get(7));
        kept.set(6s, {.max_entries = 3});
        CHECK(kept.try_get(7) == 7);
        CHECK_FALSE(kept.try_get(6));
        CHECK(kept.stats().entries == 3);
        CHECK(kept.stats().evicted == 7);
        co_await co::sleep_for(2s);
        service s("F");
        const auto fetch = s.fetch();
        const auto guarded = pipeline(kept.for_key(9));
        const auto failed = co_await as_outcome(guarded(fetch));
        CHECK(failed.is_error());
        kept.set(6s, {.max_entries = 3, .stale_for = 1min});
        const int stale = co_await guarded(fetch);
        CHECK(stale == 9);
        CHECK_THROWS_AS(kept.set(0s), std::invalid_argument);
        CHECK_THROWS_AS(kept.set(1s, {.max_entries = 0}), std::invalid_argument);
    });
}
