// SPDX-License-Identifier: MIT
#include <cordon/core/std_stop_token.hpp>

#include "catch.hpp"

#if defined(__cpp_lib_jthread)

#include <condition_variable>
#include <deque>
#include <fstream>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <source_location>
#include <stop_token>
#include <string>
#include <thread>

namespace {

using cordon::inplace_stop_callback;
using cordon::inplace_stop_source;
using cordon::inplace_stop_token;
using cordon::stop_kind;
using cordon::detail::attached;
using cordon::detail::std_stop_child;
using cordon::detail::std_stop_parent;
using cordon::detail::stop_link;

#if defined(__linux__)
std::string threads_of_this_process() {
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);)
        if (line.starts_with("Threads:")) return line;
    return {};
}
#endif

}  // namespace

TEST_CASE("a std::stop_token stops the source that adopted it", "[core][stop_token][X16]") {
    std::stop_source host;
    inplace_stop_source source;
    const auto line = std::source_location::current().line() + 1;
    const std_stop_parent bridge(host.get_token(), source, std::source_location::current());
    CHECK_FALSE(source.stop_requested());
    host.request_stop();
    CHECK(source.stop_requested());
    CHECK(source.reason().kind == stop_kind::requested);
    CHECK(source.reason().code == 0);
    CHECK(source.reason().where.line() == line);

    inplace_stop_source late;
    const std_stop_parent born(host.get_token(), late);
    CHECK(late.stop_requested());
    CHECK(late.reason().where.line() == 0);
}

TEST_CASE("a source that was adopted for a while is not stopped afterwards", "[core][stop_token][X16][X12]") {
    std::stop_source host;
    inplace_stop_source source;
    { const std_stop_parent bridge(host.get_token(), source); }
    host.request_stop();
    CHECK_FALSE(source.stop_requested());
    const std_stop_parent none(std::stop_token(), source);
    CHECK_FALSE(source.stop_requested());
}

TEST_CASE("a stop reaches the std::stop_token made from it", "[core][stop_token][X11]") {
    inplace_stop_source source;
    std::stop_token kept;
    {
        std_stop_child bridge(source.get_token());
        CHECK(attached(source) == 0);
        const std::stop_token token = bridge.get_token();
        CHECK(attached(source) == 1);
        CHECK(bridge.get_token() == token);
        CHECK(attached(source) == 1);
        CHECK(token.stop_possible());
        CHECK_FALSE(token.stop_requested());
        int runs = 0;
        const std::stop_callback callback(token, [&] { ++runs; });
        source.request_stop();
        CHECK(token.stop_requested());
        CHECK(runs == 1);

        std_stop_child late(source.get_token());
        CHECK(late.get_token().stop_requested());
    }
    inplace_stop_source other;
    {
        std_stop_child bridge(other.get_token());
        kept = bridge.get_token();
    }
    CHECK(attached(other) == 0);
    other.request_stop();
    CHECK_FALSE(kept.stop_requested());
    CHECK_FALSE(kept.stop_possible());
}

TEST_CASE("a token that never stops becomes a std::stop_token that never stops", "[core][stop_token]") {
    std_stop_child bridge{inplace_stop_token()};
    CHECK_FALSE(bridge.get_token().stop_possible());
}

TEST_CASE("a stop crosses a foreign token in the middle of a tree", "[core][stop_token][C-002][X3]") {
    inplace_stop_source root, outer, inner;
    stop_link link;
    link.attach(root.get_token(), outer);
    std_stop_child out(outer.get_token());
    const std_stop_parent in(out.get_token(), inner);
    CHECK_FALSE(inner.stop_requested());
    outer.request_stop();
    CHECK(outer.stop_requested());
    CHECK(out.get_token().stop_requested());
    CHECK(inner.stop_requested());
    CHECK_FALSE(root.stop_requested());
}

TEST_CASE("a wrapper that is told late passes on the reason of what it wraps", "[core][stop_token][C-053]") {
    inplace_stop_source inner, child;
    std::stop_source done;  // the wrapper's own idea of when it is over
    const std::stop_callback wrapper(done.get_token(), [&] { child.request_stop(inner.reason()); });
    inner.request_stop({stop_kind::failure, 53, {}});
    CHECK_FALSE(child.stop_requested());
    done.request_stop();
    CHECK(child.reason().kind == stop_kind::failure);
    CHECK(child.reason().code == 53);
}

TEST_CASE("a reason of the source's own is kept when the foreign parent stops", "[core][stop_token][X2][X16]") {
    std::stop_source host;
    inplace_stop_source source;
    const std_stop_parent bridge(host.get_token(), source);
    source.request_stop({stop_kind::deadline, 5, {}});
    host.request_stop();
    CHECK(source.reason().kind == stop_kind::deadline);
    CHECK(source.reason().code == 5);
}

#if defined(__linux__)
TEST_CASE("a thousand adopted tokens need no thread", "[core][stop_token][C-055][X16]") {
    const std::string before = threads_of_this_process();
    REQUIRE_FALSE(before.empty());
    std::stop_source host;
    std::deque<inplace_stop_source> sources(1'000);
    std::deque<std_stop_parent> bridges;
    for (inplace_stop_source& s : sources) bridges.emplace_back(host.get_token(), s);
    CHECK(threads_of_this_process() == before);
    host.request_stop();
    for (const inplace_stop_source& s : sources) CHECK(s.stop_requested());
    CHECK(threads_of_this_process() == before);
}
#endif

TEST_CASE("a callback may destroy the bridge that its stop came over", "[core][stop_token][X11]") {
    SECTION("inwards") {
        struct world {
            std::stop_source host;
            std::unique_ptr<inplace_stop_source> source = std::make_unique<inplace_stop_source>();
            std::optional<std_stop_parent> bridge;
            std::optional<inplace_stop_callback<std::function<void()>>> callback;
        } all;
        all.bridge.emplace(all.host.get_token(), *all.source);
        all.callback.emplace(all.source->get_token(), std::function<void()>([&all] {
                                 world& here = all;  // the capture dies with the callback
                                 here.bridge.reset();
                                 here.callback.reset();
                                 here.source.reset();
                             }));
        all.host.request_stop();
        CHECK(all.source == nullptr);
    }
    SECTION("outwards") {
        inplace_stop_source source;
        std::optional<std_stop_child> bridge(std::in_place, source.get_token());
        const std::stop_callback callback(bridge->get_token(), [&] { bridge.reset(); });
        source.request_stop();
        CHECK_FALSE(bridge.has_value());
    }
}

TEST_CASE("a stop wakes a thread that waits on a condition variable", "[core][stop_token]") {
    inplace_stop_source source;
    std_stop_child bridge(source.get_token());
    std::mutex mutex;
    std::condition_variable_any waiting;
    bool satisfied = true;
    std::jthread waiter([&, token = bridge.get_token()] {
        std::unique_lock lock(mutex);
        satisfied = waiting.wait(lock, token, [] { return false; });
    });
    source.request_stop();
    waiter.join();
    CHECK_FALSE(satisfied);
}

TEST_CASE("the stop of a std::jthread stops what its function runs", "[core][stop_token]") {
    stop_kind seen = stop_kind::none;
    std::jthread thread([&](const std::stop_token& stop) {
        inplace_stop_source source;
        const std_stop_parent bridge(stop, source);
        while (!source.stop_requested()) std::this_thread::yield();
        seen = source.reason().kind;
    });
    thread.request_stop();
    thread.join();
    CHECK(seen == stop_kind::requested);
}

#else

TEST_CASE("without std::stop_token the header is empty", "[core][stop_token]") { SUCCEED(); }

#endif
