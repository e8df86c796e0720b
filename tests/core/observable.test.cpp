// SPDX-License-Identifier: MIT
#include <cordon/core/observable.hpp>

#include <cordon/sync/async_semaphore.hpp>

#include "catch.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace {

struct figures {
    int n = 0;
};
struct nameless {
    figures stats() const noexcept { return {}; }
};
struct by_reference {
    figures f;
    std::string_view name() const noexcept { return {}; }
    const figures& stats() const noexcept { return f; }
};
struct plain {
    std::string_view name() const noexcept { return "plain"; }
    figures stats() const noexcept { return {3}; }
};

struct reporting {
    static constexpr std::string_view kind = "cache";
    std::string_view name() const noexcept { return "c"; }
    figures stats() const noexcept { return {7}; }
    template <class Sink>
    void report(Sink& sink) const {
        static constexpr std::string_view states[] = {"cold", "warm"};
        sink.counter("hits", static_cast<std::uint64_t>(stats().n), "Found.");
        sink.gauge("size", -3, "Entries.");
        sink.state("state", 1, states, "How it is.");
    }
};
struct kindless : plain {
    void report(cordon::metric_sink&) const {}
};
struct silent : plain {
    static constexpr std::string_view kind = "silent";
};

static_assert(cordon::observable<plain>);
static_assert(!cordon::reportable<plain>);
static_assert(!cordon::reportable<kindless> && !cordon::reportable<silent>);
static_assert(cordon::reportable<reporting> && cordon::reportable<const reporting>);
static_assert(cordon::reportable<cordon::async_semaphore>);
static_assert(cordon::observable<cordon::async_semaphore>);
static_assert(!cordon::observable<nameless>);
static_assert(!cordon::observable<by_reference>, "a reference into a living primitive is no snapshot");

template <cordon::observable T>
int figure(const T& t) {
    return t.stats().n;
}

}  // namespace

TEST_CASE("whatever is observable can be read without knowing its type", "[core][observable]") {
    CHECK(figure(plain()) == 3);
    cordon::async_semaphore db(2, {.name = "db"});
    CHECK(db.name() == "db");
    CHECK(db.stats().available == 2);
}

TEST_CASE("what is reportable reports its figures, each with its type, its name and a sentence", "[core][observable]") {
    std::string heard;
    const auto take = [&](const cordon::metric& m) {
        ((heard += m.name) += ' ') += m.help;
        if (m.type == cordon::metric_type::counter) heard += std::to_string(m.total);
        if (m.type == cordon::metric_type::gauge) heard += std::to_string(static_cast<int>(m.value));
        if (m.type == cordon::metric_type::state) ((heard += m.states[m.state]) += '/') += m.states[0];
        heard += '\n';
    };
    cordon::metric_sink sink(take);
    reporting().report(sink);
    CHECK(heard == "hits Found.7\nsize Entries.-3\nstate How it is.warm/cold\n");
}

TEST_CASE("a sink need not be cordon's", "[core][observable]") {
    struct only_counters {
        std::uint64_t sum = 0;
        void counter(std::string_view, std::uint64_t n, std::string_view) { sum += n; }
        void gauge(std::string_view, double, std::string_view) {}
        void state(std::string_view, std::size_t, std::span<const std::string_view>, std::string_view) {}
    } sink;
    reporting().report(sink);
    CHECK(sink.sum == 7);
}
