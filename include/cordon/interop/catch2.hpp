// SPDX-License-Identifier: MIT
#pragma once

// With Catch2, version 2 or 3, every test is checked for tasks that it leaves behind. Included in one file of a test
// program, this is all it takes:
//
//     #define CATCH_CONFIG_MAIN                  // version 2
//     #include <catch2/catch.hpp>
//     #include <cordon/interop/catch2.hpp>
//
// A test that leaves tasks behind is named on stderr, with where each was spawned and where it waits; and a run that
// would have ended with 0 ends with 1. A test that has to leave some is tagged [leaks].

#if defined(CATCH_VERSION_MAJOR) && CATCH_VERSION_MAJOR < 3
#ifndef CATCH_CONFIG_EXTERNAL_INTERFACES
#error "cordon: include this where Catch2's main is, or define CATCH_CONFIG_EXTERNAL_INTERFACES before Catch2's header"
#endif
#elif __has_include(<catch2/reporters/catch_reporter_event_listener.hpp>)
#include <catch2/catch_test_case_info.hpp>
#include <catch2/reporters/catch_reporter_event_listener.hpp>
#include <catch2/reporters/catch_reporter_registrars.hpp>
#elif !defined(CATCH_VERSION_MAJOR)
#define CATCH_CONFIG_EXTERNAL_INTERFACES
#include <catch2/catch.hpp>
#endif

#include <cordon/core/detail/config.hpp>
#include <cordon/testing/leak_check.hpp>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <string>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

#if defined(TWOBLUECUBES_SINGLE_INCLUDE_CATCH_HPP_INCLUDED)
using catch2_listener_base = Catch::TestEventListenerBase;
#else
using catch2_listener_base = Catch::EventListenerBase;
#endif

}  // namespace detail

namespace testing {

/// Makes a `leak_check` for each test case, and looks at it at the end, for up to a second. Registered by including
/// this header, once however often it is included. A failed test is looked at, too.
/// Order:         as the first thing at the exit of a program that would end with 0 and has leaked, flushes C's streams
///                and ends it with 1: destructors of static objects do not run then
class catch2_leak_listener : public detail::catch2_listener_base {
    using base = detail::catch2_listener_base;

public:
    using base::base;

    void testCaseStarting(const Catch::TestCaseInfo& test) override {
        base::testCaseStarting(test);
        check_.emplace();
    }
    void testCaseEnded(const Catch::TestCaseStats& stats) override {
        base::testCaseEnded(stats);
        const Catch::TestCaseInfo& test = deref(stats.testInfo);
        if (test.tagsAsString().find("[leaks]") == std::string::npos && !check_->settled()) {
            ++tests_;
            const std::string text = "cordon: the test \"" + test.name + "\" left tasks behind\n" + check_->report();
            std::fflush(stdout);
            std::fputs(text.c_str(), stderr);
        }
        check_.reset();
    }
    void testRunEnded(const Catch::TestRunStats& stats) override {
        base::testRunEnded(stats);
        if (tests_ == 0) return;
        std::fprintf(stderr, "cordon: %zu %s left tasks behind\n", tests_, tests_ == 1 ? "test" : "tests");
        if (stats.totals.testCases.failed != 0 || stats.totals.assertions.failed != 0) return;
#if defined(__GLIBC__)
        ::on_exit([](int code, void*) { if (code == 0) fail(); }, nullptr);
#else
        std::atexit(&catch2_leak_listener::fail);
#endif
    }

private:
    static const Catch::TestCaseInfo& deref(const Catch::TestCaseInfo& info) { return info; }  // version 2
    static const Catch::TestCaseInfo& deref(const Catch::TestCaseInfo* info) { return *info; }
    static void fail() {
        std::fflush(nullptr);
        std::_Exit(1);
    }

    std::optional<leak_check> check_;
    std::size_t tests_ = 0;
};

}  // namespace testing

namespace detail {

template <class Listener>
Catch::ListenerRegistrar<Listener> registered_listener() {
    using registrar = Catch::ListenerRegistrar<Listener>;
    if constexpr (std::is_constructible_v<registrar, const char*>) return registrar("cordon leaks");
    else return registrar();
}
inline const auto catch2_leak_registrar = registered_listener<testing::catch2_leak_listener>();

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
