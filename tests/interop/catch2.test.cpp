// SPDX-License-Identifier: MIT
// Runs this program again, with one of its hidden tests, and looks at how it ends. The listener comes with main.cpp.
#include <cordon/core/task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/sync/async_event.hpp>

#include "catch.hpp"

#include <cstddef>
#include <cstdio>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

namespace {

namespace co = cordon;

/// A task that waits for ever; nothing here is ever destroyed.
struct forgotten {
    co::run_loop loop;
    co::async_event never{{.name = "never"}};
    co::task_group group{loop, {.name = "forgotten group"}};

    static co::task<> wait(co::async_event& e) { co_await e.wait(); }
    void spawn() {
        group.spawn(wait(never), {.name = "forgotten task"});
        while (loop.poll()) {}
    }
};
forgotten* kept = nullptr;

void leak() {
    kept = new forgotten;
    kept->spawn();
}

struct ended {
    int code = -1;
    std::string text;  // of both streams
    bool says(const char* part) const { return text.find(part) != std::string::npos; }
};

[[maybe_unused]] ended run(const std::string& tests) {
    char path[4096];
    const ssize_t length = readlink("/proc/self/exe", path, sizeof path);
    REQUIRE(length > 0);
    const std::string command = '\'' + std::string(path, static_cast<std::size_t>(length)) + "' '" + tests + "' 2>&1";
    std::FILE* const pipe = popen(command.c_str(), "r");
    REQUIRE(pipe != nullptr);
    ended result;
    char buffer[512];
    for (std::size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) result.text.append(buffer, n);
    const int status = pclose(pipe);
    if (WIFEXITED(status)) result.code = WEXITSTATUS(status);
    return result;
}

}  // namespace

// Hidden, since the tests below run them, each in a process of its own, and look at its end and at what it says.
TEST_CASE("victim that passes", "[.][victim]") { CHECK(true); }
TEST_CASE("victim that leaks", "[.][victim]") {
    leak();
    CHECK(true);
}
TEST_CASE("victim that has to leak", "[.][victim][leaks]") {
    leak();
    CHECK(true);
}
TEST_CASE("victim that fails", "[.][victim]") {
    for (int i = 0; i < 7; ++i) CHECK(i < 0);
}
TEST_CASE("victim that fails and leaks", "[.][victim]") {
    leak();
    for (int i = 0; i < 7; ++i) CHECK(i < 0);
}
TEST_CASE("victim that keeps a group without tasks", "[.][victim]") {
    kept = new forgotten;
    CHECK(true);
}
#if CORDON_TASK_RECORDS

TEST_CASE("a run that leaves nothing behind ends with 0, and nothing is said", "[interop][catch2][L-003][L-007]") {
    for (const char* name : {"victim that passes", "victim that keeps a group without tasks"}) {
        const ended clean = run(name);
        INFO(clean.text);
        CHECK(clean.code == 0);
        CHECK_FALSE(clean.says("cordon:"));
    }
}

TEST_CASE("a passing run that leaves a task behind ends with 1, and says which test and which task",
          "[interop][catch2][L-003][L-007]") {
    const ended leaked = run("victim that leaks");
    INFO(leaked.text);
    CHECK(leaked.code == 1);
    CHECK(leaked.says("All tests passed"));
    CHECK(leaked.says("cordon: the test \"victim that leaks\" left tasks behind\n"));
    CHECK(leaked.says("\"forgotten task\"  alive "));
    CHECK(leaked.says(" in spawn\n    waits at catch2.test.cpp:"));
    CHECK(leaked.says(" in wait   event never\n"));
    CHECK(leaked.says("cordon: 1 test left tasks behind\n"));
}

TEST_CASE("only the test that leaks is named", "[interop][catch2][L-003]") {
    const ended both = run("victim that passes,victim that leaks");
    INFO(both.text);
    CHECK(both.code == 1);
    CHECK(both.says("cordon: 1 test left tasks behind\n"));
    CHECK_FALSE(both.says("cordon: the test \"victim that passes\""));
}

TEST_CASE("a failing run keeps its code, and the report comes all the same", "[interop][catch2][L-007]") {
    const ended failed = run("victim that fails"), both = run("victim that fails and leaks");
    INFO(failed.text << both.text);
    CHECK(failed.code != 0);
    CHECK(failed.code != 1);
#ifndef CORDON_CATCH2_V3
    CHECK(failed.code == 7);
#endif
    CHECK_FALSE(failed.says("cordon:"));
    CHECK(both.code == failed.code);
    CHECK(both.says("cordon: the test \"victim that fails and leaks\" left tasks behind\n"));
    CHECK(both.says("\"forgotten task\""));
}

TEST_CASE("a test tagged [leaks] may leave tasks behind", "[interop][catch2]") {
    const ended excused = run("victim that has to leak");
    INFO(excused.text);
    CHECK(excused.code == 0);
    CHECK_FALSE(excused.says("cordon:"));
}

#endif
