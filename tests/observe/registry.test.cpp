// SPDX-License-Identifier: MIT
#include <cordon/observe/registry.hpp>

#include <cordon/core/clock.hpp>
#include <cordon/core/observable.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/thread_group.hpp>
#include <cordon/run/thread_pool.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_mutex.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/channel.hpp>

#include "catch.hpp"
#include "last_words.hpp"

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

namespace co = cordon;
using co::registry;

/// A primitive of the tests, whose figures are set by hand; `reads` counts the calls of `stats()`.
template <class Kind>
struct basic_probe {
    static constexpr std::string_view kind = Kind::text;
    struct snapshot {
        std::uint64_t hits = 0;
        int level = 0;
    };
    std::string_view name() const noexcept { return called; }
    snapshot stats() const noexcept {
        if (reads != nullptr) reads->fetch_add(1);
        return {hits, level};
    }
    void report(co::metric_sink& sink) const {
        const snapshot now = stats();
        sink.counter("hits", now.hits, "Hits.");
        sink.gauge("level", now.level, "A level.");
    }
    std::string called = {};
    std::uint64_t hits = 0;
    int level = 0;
    std::atomic<int>* reads = nullptr;
};
struct probe_kind {
    static constexpr std::string_view text = "probe";
};
struct other_kind {
    static constexpr std::string_view text = "other";
};
struct odd_kind {
    static constexpr std::string_view text = "7-odd kind";
};
using probe = basic_probe<probe_kind>;
using other = basic_probe<other_kind>;

struct silent {  // observable, but nobody knows what its figures are
    struct snapshot {
        int n = 0;
    };
    std::string_view name() const noexcept { return "silent"; }
    snapshot stats() const noexcept { return {}; }
};

template <class T>
concept can_be_added = requires(registry r, T&& t) { r.add(std::forward<T>(t)); };
static_assert(can_be_added<probe&> && can_be_added<const probe&>);
static_assert(!can_be_added<probe> && !can_be_added<const probe>, "a temporary is dead before anybody looks");
static_assert(!can_be_added<silent&>);
static_assert(!std::is_copy_constructible_v<registry::registration>);
static_assert(std::is_nothrow_move_constructible_v<registry::registration>);
static_assert(!std::is_move_constructible_v<registry>);

/// "kind/name{labels} figure=value ..."
std::vector<std::string> seen(const registry& r) {
    std::vector<std::string> lines;
    std::uint64_t last = 0;
    r.scrape([&](const co::metric_source& who, const co::metric& m) {
        if (std::exchange(last, who.id) != who.id) {
            lines.push_back(who.kind + '/' + who.name);
            for (const co::metric_label& l : who.labels) lines.back() += '{' + l.name + '=' + l.value + '}';
        }
        (lines.back() += ' ') += m.name;
        lines.back() += '=' + std::to_string(m.type == co::metric_type::counter ? static_cast<long long>(m.total)
                                                                              : static_cast<long long>(m.value));
    });
    return lines;
}
using lines = std::vector<std::string>;

/// What `add` says when it refuses.
template <class T>
std::string refusal(registry& r, T& source, co::metric_options options = {}) {
    try {
        const auto here = r.add(source, std::move(options));
    } catch (const std::invalid_argument& e) {
        return e.what();
    }
    return {};
}

}  // namespace

TEST_CASE("what was added is read when somebody looks, until its registration dies", "[observe][registry]") {
    registry metrics;
    std::atomic<int> reads{0};
    probe p{.called = "p", .hits = 7, .level = -2, .reads = &reads};
    {
        const auto here = metrics.add(p);
        CHECK(metrics.size() == 1);
        CHECK(reads == 0);
        CHECK(seen(metrics) == lines{"probe/p hits=7 level=-2"});
        p.hits = 8;
        CHECK(seen(metrics) == lines{"probe/p hits=8 level=-2"});
        CHECK(reads == 2);
    }
    CHECK(metrics.size() == 0);
    CHECK(seen(metrics).empty());
    CHECK(reads == 2);
}

TEST_CASE("entries come by prefix, kind, name and labels, in whatever order they were added", "[observe][registry]") {
    registry metrics;
    probe b{.called = "b"}, a{.called = "a"}, shop{.called = "z"};
    other o{.called = "z"};
    const auto first = metrics.add(shop, {.prefix = "a_shop"});
    const auto second = metrics.add(b);
    const auto third = metrics.add(a, {.labels = {{"zone", "b"}}});
    const auto fourth = metrics.add(o);
    const auto fifth = metrics.add(a, {.labels = {{"zone", "a"}, {"rack", "7"}}});
    CHECK(seen(metrics) == lines{"probe/z hits=0 level=0", "other/z hits=0 level=0",
                                 "probe/a{rack=7}{zone=a} hits=0 level=0", "probe/a{zone=b} hits=0 level=0",
                                 "probe/b hits=0 level=0"});
}

TEST_CASE("a second one of the same kind and name is refused, unless a label or a prefix tells them apart",
          "[observe][registry]") {
    registry metrics;
    probe one{.called = "api"}, two{.called = "api"};
    other o{.called = "api"};
    std::optional<registry::registration> first{metrics.add(one)};
    const std::string why = refusal(metrics, two);
    INFO(why);
    CHECK(says(why, "a probe named \"api\" is here already", "another name, or a label"));
    CHECK(metrics.size() == 1);
    CHECK(refusal(metrics, o).empty());
    CHECK(refusal(metrics, two, {.name = "api2"}).empty());
    CHECK(refusal(metrics, two, {.prefix = "shop"}).empty());
    CHECK(refusal(metrics, two, {.labels = {{"zone", "a"}}}).empty());
    first.reset();
    CHECK(refusal(metrics, two).empty());
}

TEST_CASE("labels that differ only in their order are the same", "[observe][registry]") {
    registry metrics;
    probe p{.called = "p"};
    const auto here = metrics.add(p, {.labels = {{"a", "1"}, {"b", "2"}}});
    CHECK(says(refusal(metrics, p, {.labels = {{"b", "2"}, {"a", "1"}}}), "here already"));
    CHECK(refusal(metrics, p, {.labels = {{"b", "1"}, {"a", "2"}}}).empty());
}

TEST_CASE("what has no name is refused, unless the options give it one", "[observe][registry]") {
    registry metrics;
    probe nameless;
    CHECK(says(refusal(metrics, nameless), "a probe has no name"));
    const auto here = metrics.add(nameless, {.name = "given"});
    CHECK(seen(metrics) == lines{"probe/given hits=0 level=0"});
    probe named{.called = "own"};
    const auto too = metrics.add(named, {.name = "other"});
    CHECK(seen(metrics).back() == "probe/other hits=0 level=0");
}

TEST_CASE("an option that no metric may have is refused, and the message says which", "[observe][registry]") {
    registry metrics;
    probe p{.called = "p"};
    CHECK(refusal(metrics, p, {.prefix = ""}).empty());
    for (const std::string_view bad : {"a-b", "7a", "a b", "\xC3\xA4"})
        CHECK(says(refusal(metrics, p, {.prefix = bad}), "the prefix of a probe named \"p\" is \"" + std::string(bad)));
    for (const char* bad : {"", "a-b", "7a", "__a", "name", "state"})
        CHECK(says(refusal(metrics, p, {.labels = {{bad, "x"}}}), "a label of a probe named \"p\" is \"" +
                                                                      std::string(bad) + '"'));
    CHECK(says(refusal(metrics, p, {.labels = {{"a", ""}}}), "\"a\"", "no value"));
    CHECK(says(refusal(metrics, p, {.labels = {{"a", "1"}, {"b", "2"}, {"a", "3"}}}), "\"a\"", "twice"));
    CHECK(metrics.size() == 0);
}

TEST_CASE("kinds become words, and names become text without control characters", "[observe][registry]") {
    registry metrics;
    basic_probe<odd_kind> odd{.called = "a\x01" "b\xFF" "c\n\xC3\xA4"};
    const std::string bad = "\xEF\xBF\xBD";
    const auto here = metrics.add(odd, {.labels = {{"zone", "\x7F"}}});
    CHECK(seen(metrics) == lines{"_7_odd_kind/a" + bad + "b" + bad + "c\n\xC3\xA4{zone=" + bad + "} hits=0 level=0"});
    odd.called = "a\x02" "b\xFE" "c\n\xC3\xA4";  // which would be the same series
    CHECK(says(refusal(metrics, odd, {.labels = {{"zone", "\x1F"}}}), "here already"));
}

TEST_CASE("a registration moves, and one that is moved onto takes its own out", "[observe][registry]") {
    registry metrics;
    probe a{.called = "a"}, b{.called = "b"};
    registry::registration one = metrics.add(a), two;
    two = std::move(one);
    CHECK(metrics.size() == 1);
    one = metrics.add(b);
    CHECK(metrics.size() == 2);
    two = std::move(one);
    CHECK(seen(metrics) == lines{"probe/b hits=0 level=0"});
    auto& same = two;
    two = std::move(same);
    CHECK(metrics.size() == 1);
    two = {};
    CHECK(metrics.size() == 0);
}

TEST_CASE("an error of who scrapes goes to the caller, and holds nothing back", "[observe][registry]") {
    registry metrics;
    probe a{.called = "a"}, b{.called = "b"};
    std::optional<registry::registration> first{metrics.add(a)};
    const auto second = metrics.add(b);
    const auto fails = [](const co::metric_source&, const co::metric&) { throw std::runtime_error("full"); };
    CHECK_THROWS_AS(metrics.scrape(fails), std::runtime_error);
    first.reset();  // would wait for ever if the scrape still read it
    CHECK(seen(metrics) == lines{"probe/b hits=0 level=0"});
}

TEST_CASE("a scrape may add and take out others, and scrape", "[observe][registry]") {
    registry metrics;
    probe a{.called = "a"}, b{.called = "b"}, c{.called = "c"}, d{.called = "d"};
    const auto first = metrics.add(a);
    std::optional<registry::registration> second{metrics.add(b)}, fourth;
    const auto third = metrics.add(c);
    lines names, inner;
    metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
        if (m.type != co::metric_type::counter) return;
        names.push_back(who.name);
        if (who.name != "a") return;
        second.reset();
        fourth.emplace(metrics.add(d));
        inner = seen(metrics);
    });
    CHECK(names == lines{"a", "c", "d"});
    CHECK(inner == lines{"probe/a hits=0 level=0", "probe/c hits=0 level=0", "probe/d hits=0 level=0"});
}

TEST_CASE("one that takes the place of its predecessor during a scrape is not met twice", "[observe][registry]") {
    registry metrics;
    probe a{.called = "a"}, b{.called = "b"};
    std::optional<registry::registration> first{metrics.add(a, {.labels = {{"l", "1"}}})};
    const auto same_name = metrics.add(a, {.labels = {{"l", "2"}}});
    const auto last = metrics.add(b);
    int met = 0;
    metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
        if (m.type != co::metric_type::counter) return;
        met += who.name == "a" && who.labels[0].value == "1";
        if (who.name != "a" || who.labels[0].value == "1") return;
        first.reset();
        first.emplace(metrics.add(a, {.labels = {{"l", "1"}}}));
    });
    CHECK(met == 1);
}

TEST_CASE("the end of a registration waits for who reads it, and for nobody else", "[observe][registry]") {
    registry metrics;
    auto a = std::make_unique<probe>(probe{.called = "a"});
    probe b{.called = "b"};
    std::optional<registry::registration> first{metrics.add(*a)}, second{metrics.add(b)};
    std::atomic<bool> reading{false}, go_on{false}, removed{false};
    std::atomic<int> early{0};
    std::thread scraper([&] {
        metrics.scrape([&](const co::metric_source& who, const co::metric& m) {
            if (who.name != "a" || m.type != co::metric_type::counter) return;
            reading = true;
            reading.notify_all();
            go_on.wait(false);
            early += removed;
        });
    });
    reading.wait(false);
    second.reset();  // nobody reads it
    std::thread remover([&] {
        first.reset();
        removed = true;
        a.reset();
    });
    while (seen(metrics) != lines{}) std::this_thread::yield();  // whoever comes now does not meet it any more
    CHECK_FALSE(removed);
    CHECK(metrics.size() == 1);
    go_on = true;
    go_on.notify_all();
    scraper.join();
    remover.join();
    CHECK(early == 0);
    CHECK(removed);
    CHECK(metrics.size() == 0);
}

TEST_CASE("a registry that dies before its registrations says whose", "[observe][registry]") {
    const std::string text = last_words([] {
        probe p{.called = "api"};
        auto metrics = std::make_unique<registry>();
        const auto here = metrics->add(p);
        metrics.reset();
    });
    CHECK(says(text, "registry destroyed while 1 are registered", "a probe named \"api\""));
}

TEST_CASE("each primitive says what its figures are, as any sink hears them", "[observe][registry]") {
    co::run_loop loop;
    co::async_semaphore semaphore{3, {.name = "s"}};
    co::async_mutex mutex{{.name = "m"}};
    co::async_event event{{.name = "e"}};
    co::thread_group threads{{.name = "t"}};
    co::channel<int> channel{4, {.name = "c"}};
    co::thread_pool pool{2, {.name = "p"}};
    co::task_group group{loop, {.name = "g", .max_running = 1}};
    CHECK(semaphore.try_acquire());
    const auto locked = mutex.try_lock();
    CHECK(channel.try_send(1) == co::send_status::sent);
    const auto child = []() -> co::task<> { co_return; };
    CHECK(group.spawn(child()));
    CHECK_FALSE(group.spawn(child()));

    registry metrics;
    const registry::registration all[] = {metrics.add(semaphore), metrics.add(mutex), metrics.add(channel),
                                          metrics.add(pool), metrics.add(group), metrics.add(loop, {.name = "l"}),
                                          metrics.add(event), metrics.add(threads)};
    lines found = seen(metrics);
    REQUIRE(found.size() == 8);
    CHECK(found[0] == "channel/c size=1 capacity=4 senders_waiting=0 receivers_waiting=0 closed=0");
    CHECK(found[1] == "event/e set=0 abandoned=0 waiting=0");
    CHECK(found[2] == "mutex/m locked=1 waiting=0");
    CHECK(found[3] == "run_loop/l timers=0");
    CHECK(found[4] == "semaphore/s available=2 waiting=0");
    CHECK(found[5] == "task_group/g size=1 waiting_for_room=0 refused=1 errors=0 stop_requested=0");
    CHECK(found[6] == "thread_group/t size=0 stop_requested=0");
    CHECK(found[7].starts_with("thread_pool/p threads=2 sleeping="));
    CHECK(found[7].ends_with(" timers=0"));
    metrics.scrape([](const co::metric_source&, const co::metric& m) {
        INFO(m.name);
        CHECK(m.help.ends_with('.'));
        CHECK(m.help.size() > 5);
    });
    while (loop.poll()) {}
    CHECK(group.stats().size == 0);
    group.request_stop();
    CHECK(group.stats().stop_requested);
    co::timer timer([](co::timer&) noexcept {});
    timer.when = co::clock::now() + std::chrono::hours(1);
    loop.timers().arm(timer);
    CHECK(loop.stats().timers == 1);
    loop.timers().cancel(timer);
    CHECK(loop.stats().timers == 0);
    pool.timers().arm(timer);
    CHECK(pool.stats().timers == 1);
    pool.timers().cancel(timer);
    channel.close();
    CHECK(seen(metrics)[0].ends_with("closed=1"));
}
