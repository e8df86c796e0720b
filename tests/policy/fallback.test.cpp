// SPDX-License-Identifier: MIT
#include <cordon/policy/fallback.hpp>

#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/timeout.hpp>

#include "calls.hpp"
#include "catch.hpp"

#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>

namespace {

using namespace policy_test;
using co::constant;
using co::failure;
using co::fallback;
using co::pipeline;
using co::retry;
using co::timeout;

/// What a failure is, in a word.
std::string text(const failure& why) {
    if (why.is_rejected()) return to_string(why.rejection().reason);
    if (why.is_value()) return "value";
    return error_text(outcome<int>(why.error()));
}

}  // namespace

TEST_CASE("a call that fails or is refused is answered in its place, one that works is left alone",
          "[policy][fallback]") {
    simulation sim;
    sim.run([&]() -> task<> {
        for (const char* script : {"S", "F", "R", "D"}) {
            service s(script, script[0] == 'F' ? 1ms : 0ms);
            std::string asked;
            const auto answer = [&](const failure& why) {
                asked = text(why);
                return 77;
            };
            const int got = co_await pipeline(fallback(answer))(s.fetch());
            const bool works = script[0] == 'S';
            CHECK(got == (works ? 1 : 77));
            CHECK(asked == (works ? "" : script[0] == 'F' ? "1" : script[0] == 'R' ? "rate limited" : "draining"));
            CHECK(s.calls == 1);
        }
    });
}

TEST_CASE("neither a programming error, nor what is ignored, nor a stop is answered", "[policy][fallback]") {
    simulation sim;
    sim.run([&]() -> task<> {
        int asked = 0;
        const auto answer = [&](const failure&) { return ++asked; };
        service wrong("L"), stops("C"), ignored("F"), refused("D");
        const auto guarded = pipeline(fallback(answer));
        const auto first = co_await as_outcome(guarded(wrong.fetch()));
        CHECK(error_text(first) == "1");
        const auto second = co_await as_outcome(guarded(stops.fetch()));
        CHECK(second.is_stopped());
        const auto lenient = pipeline(fallback(answer)).ignoring([](const std::exception&) { return true; });
        const auto third = co_await as_outcome(lenient(ignored.fetch()));
        CHECK(error_text(third) == "1");
        const auto proud = pipeline(fallback(answer)).ignoring([](const co::rejection&) { return true; });
        const auto fourth = co_await as_outcome(proud(refused.fetch()));
        CHECK(fourth.is_rejected());
        CHECK(asked == 0);
    });
}

TEST_CASE("a value that counts as a failure is answered", "[policy][fallback]") {
    simulation sim;
    service s("S");
    sim.run([&]() -> task<> {
        const auto guarded = pipeline(fallback([](const failure& why) {
                                 return why.is_value() ? -1 : -2;
                             })).failing_when([](int n) { return n == 2; });
        const int first = co_await guarded(s.fetch());
        const int second = co_await guarded(s.fetch());
        CHECK(first == 1);
        CHECK(second == -1);
    });
}

TEST_CASE("a fallback sees the last failure of what is inside: retries used up, a timeout, an open circuit",
          "[policy][fallback][FB-03]") {
    simulation sim;
    sim.run([&]() -> task<> {
        std::string last;
        const auto answer = fallback([&](const failure& why) {
            last = text(why);
            return 0;
        });
        service s("F"), slow("S", 1h), never("S");
        const auto retried = pipeline(answer, retry(3, {.backoff = constant(1ms)}));
        (void)co_await retried(s.fetch());
        CHECK(last == "3");
        (void)co_await pipeline(answer, timeout(1ms))(slow.fetch());
        CHECK(last.find("passed") != std::string::npos);
        co::circuit_breaker breaker{{.name = "b"}};
        breaker.force_open();
        const auto broken = pipeline(answer, retry(2, {.backoff = constant(1ms)}), breaker);
        (void)co_await broken(never.fetch());
        CHECK(last == "circuit open");
        CHECK(never.calls == 0);
    });
}

TEST_CASE("what a fallback throws is the outcome, and one that refuses is a refusal", "[policy][fallback]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        const auto throws = [](const failure&) -> int { throw std::runtime_error("no answer either"); };
        const auto first = co_await as_outcome(pipeline(fallback(throws))(s.fetch()));
        CHECK(error_text(first) == "no answer either");
        const auto refuses = [](const failure&) -> int {
            throw co::rejected(co::rejection(co::reject_reason::closed, "cache"));
        };
        const auto second = co_await as_outcome(pipeline(fallback(refuses))(s.fetch()));
        CHECK(second.is_rejected());
        const auto awaits = [](const failure&) -> task<int> {
            co_await co::sleep_for(1ms);
            throw std::runtime_error("nor here");
        };
        const auto third = co_await as_outcome(pipeline(fallback(awaits))(s.fetch()));
        CHECK(error_text(third) == "nor here");
        const auto later = [](const failure&) -> task<int> { throw std::runtime_error("nor before the task"); };
        const auto fourth = co_await as_outcome(pipeline(fallback(later))(s.fetch()));
        CHECK(error_text(fourth) == "nor before the task");
    });
}

TEST_CASE("a fallback may be awaited, and knows the failure until it has answered", "[policy][fallback]") {
    simulation sim;
    sim.run([&]() -> task<> {
        for (const char* script : {"F", "R", "S"}) {
            service s(script, 1ms);
            const auto answer = [](const failure& why) -> task<int> {
                co_await co::sleep_for(5ms);
                co_return static_cast<int>(text(why).size());
            };
            const auto begin = co::clock::now();
            const auto guarded = pipeline(fallback(answer)).failing_when([](int) { return true; });
            const int got = co_await guarded(s.fetch());
            CHECK(got == (script[0] == 'F' ? 1 : script[0] == 'R' ? 12 : 5));
            CHECK(co::clock::now() - begin == 6ms);
        }
    });
}

TEST_CASE("an awaited fallback also answers what failed without a wait", "[policy][fallback]") {
    simulation sim;
    sim.run([&]() -> task<> {
        const auto answer = [](const failure& why) -> task<std::string> {
            co_await co::sleep_for(5ms);
            co_return text(why);
        };
        const auto thrower = []() -> task<std::string> {
            throw std::runtime_error("at once");
            co_return "";
        };
        bool throws = true;
        const auto callable_throws = [&]() -> task<std::string> {  // no coroutine
            if (throws) throw std::runtime_error("at once");
            return thrower();
        };
        const std::string first = co_await pipeline(fallback(answer))(callable_throws);
        CHECK(first == "at once");
        co::circuit_breaker breaker{{.name = "b"}};
        breaker.force_open();
        const std::string second = co_await pipeline(fallback(answer), breaker)(thrower);
        CHECK(second == "circuit open");
    });
}

TEST_CASE("a fallback that throws canceled is a stop, whether it answers at once or is awaited", "[policy][fallback]") {
    simulation sim;
    const auto each = GENERATE(0ms, 1ms);
    sim.run([&]() -> task<> {
        service s("F", each);
        const auto plain = [](const failure&) -> int { throw co::canceled(); };
        const auto awaited = [](const failure&) -> task<int> { throw co::canceled(); };
        const auto first = co_await as_outcome(pipeline(fallback(plain))(s.fetch()));
        CHECK(first.is_stopped());
        const auto second = co_await as_outcome(pipeline(timeout(1s), fallback(plain), timeout(1s))(s.fetch()));
        CHECK(second.is_stopped());
        const auto third = co_await as_outcome(pipeline(fallback(awaited))(s.fetch()));
        CHECK(third.is_stopped());
        CHECK(s.running == 0);
    });
}

TEST_CASE("what the conversion of an answer throws is the outcome, whether it was awaited or not",
          "[policy][fallback]") {
    struct reply {
        explicit(false) reply(int) { throw std::runtime_error("no reply"); }
    };
    simulation sim;
    sim.run([]() -> task<> {
        const auto fails = []() -> task<reply> { throw std::runtime_error("no"); co_return reply(1); };
        const auto at_once = pipeline(fallback([](const failure&) { return 1; }));
        const auto ready = pipeline(fallback([](const failure&) -> task<int> { co_return 1; }));
        const auto later = pipeline(fallback([](const failure&) -> task<int> {
            co_await co::sleep_for(1ms);
            co_return 1;
        }));
        const auto first = co_await as_outcome(at_once(fails));
        CHECK(error_text(first) == "no reply");
        const auto second = co_await as_outcome(ready(fails));
        CHECK(error_text(second) == "no reply");
        const auto third = co_await as_outcome(later(fails));
        CHECK(error_text(third) == "no reply");
    });
}

TEST_CASE("an awaited fallback is stopped like any call", "[policy][fallback][FB-04]") {
    simulation sim;
    service s("F", 10ms), slow("F", 1s);
    sim.run([&]() -> task<> {
        int asked = 0, answered = 0;
        const auto answer = [&](const failure&) -> task<int> {
            ++asked;
            co_await co::sleep_for(100ms);
            co_return ++answered;
        };
        const auto guarded = pipeline(fallback(answer));
        auto during = co_await stopped_after(50ms, guarded(s.fetch()));
        CHECK(during.first.is_stopped());
        CHECK(during.second == 50ms);
        CHECK(asked == 1);
        auto before = co_await stopped_after(50ms, guarded(slow.fetch()));
        CHECK(before.first.is_stopped());
        CHECK(asked == 1);
        CHECK(answered == 0);
        const auto timed = co_await as_outcome(co::with_timeout(50ms, guarded(s.fetch())));
        CHECK(timed_out_line(timed) != 0);
        CHECK(answered == 0);
    });
}

TEST_CASE("it answers for every type of result", "[policy][fallback]") {
    simulation sim;
    const bool waits = GENERATE(false, true);
    sim.run([&]() -> task<> {
        const auto fails = [&]() -> task<> {
            if (waits) co_await co::sleep_for(1ms);
            throw std::runtime_error("fails");
        };
        int answered = 0;
        co_await pipeline(fallback([&](const failure&) { ++answered; }))(fails);
        CHECK(answered == 1);
        const auto later = [&](const failure&) -> task<> {
            co_await co::sleep_for(1ms);
            ++answered;
        };
        co_await pipeline(fallback(later))(fails);
        CHECK(answered == 2);

        const auto no_string = [&]() -> task<std::string> {
            if (waits) co_await co::sleep_for(1ms);
            throw std::runtime_error("fails");
        };
        const std::string text = co_await pipeline(fallback([](const failure&) { return "a text"; }))(no_string);
        CHECK(text == "a text");
        const auto view = [](const failure&) -> task<const char*> { co_return "converted"; };
        const std::string converted = co_await pipeline(fallback(view))(no_string);
        CHECK(converted == "converted");

        const auto no_box = [&]() -> task<std::unique_ptr<int>> {
            if (waits) co_await co::sleep_for(1ms);
            throw std::runtime_error("fails");
        };
        const std::unique_ptr<int> box =
            co_await pipeline(fallback([](const failure&) { return std::make_unique<int>(4); }))(no_box);
        CHECK(*box == 4);
        const auto awaited_box = [](const failure&) -> task<std::unique_ptr<int>> {
            co_return std::make_unique<int>(5);
        };
        const std::unique_ptr<int> other = co_await pipeline(fallback(awaited_box))(no_box);
        CHECK(*other == 5);

        int spare = 9;
        const auto no_ref = [&]() -> task<int&> {
            if (waits) co_await co::sleep_for(1ms);
            throw std::runtime_error("fails");
        };
        int& ref = co_await pipeline(fallback([&](const failure&) -> int& { return spare; }))(no_ref);
        CHECK(&ref == &spare);
        const auto awaited_ref = [&](const failure&) -> task<int&> { co_return spare; };
        int& second = co_await pipeline(fallback(awaited_ref))(no_ref);
        CHECK(&second == &spare);
    });
}

TEST_CASE("a fallback of its own, and one that only moves", "[policy][fallback]") {
    simulation sim;
    service s("F");
    sim.run([&]() -> task<> {
        const auto policy = fallback([](const failure&) { return 3; });
        const int got = co_await policy(s.fetch());
        CHECK(got == 3);
        auto owns = pipeline(fallback([n = std::make_unique<int>(6)](const failure&) { return *n; }), retry(1));
        const auto moved = std::move(owns);
        const int second = co_await moved(s.fetch());
        CHECK(second == 6);
    });
}

TEST_CASE("a fallback counts its answers, and the calls for which it had none", "[policy][fallback][observable]") {
    using answers = co::fallback_policy<int (*)(const failure&)>;
    static_assert(co::reportable<answers>);
    static_assert(!std::is_copy_constructible_v<answers>);  // so that a pipeline refers to one that has a name
    const bool waits = GENERATE(false, true);
    simulation sim;
    sim.run([&]() -> task<> {
        int asked = 0;
        const auto at_once = [&](const failure&) {
            switch (++asked) {
                case 2: throw std::runtime_error("no answer");
                case 3: throw co::rejected(co::rejection(co::reject_reason::full, "answers"));
                case 4: throw co::canceled();
                default: return asked;
            }
        };
        const auto later = [&](const failure& why) -> task<int> {
            co_await co::sleep_for(1ms);
            co_return at_once(why);
        };
        const auto ends = [&](const auto& policy) -> task<> {
            const auto guarded = pipeline(policy);
            for (const char* script : {"S", "F", "F", "F", "F", "R", "L"}) {
                service s(script);
                (void)co_await as_outcome(guarded(s.fetch()));
            }
            CHECK(asked == 5);
            CHECK(policy.stats().answered == 2);
            CHECK(policy.stats().failed == 2);
            CHECK(policy.name() == "unknown");
            std::string text;
            auto take = [&](const co::metric& m) { text += std::string(m.name) + ' ' + std::to_string(m.total) + ' '; };
            co::metric_sink sink(take);
            policy.report(sink);
            CHECK(text == "answered 2 failed 2 ");
        };
        if (waits) {
            const auto policy = fallback(later, {.name = "unknown"});
            co_await ends(policy);
        } else {
            const auto policy = fallback(at_once, {.name = "unknown"});
            co_await ends(policy);
        }
    });
}
