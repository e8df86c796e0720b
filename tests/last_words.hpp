// SPDX-License-Identifier: MIT
#pragma once

// For contracts whose violation terminates: runs something in a child process and reads what it prints as it dies.

#include "catch.hpp"

#include <csignal>
#include <cstddef>
#include <cstdio>
#include <string>

#include <sys/wait.h>
#include <unistd.h>

/// Returns what `f()` printed to stderr before a signal ended it; empty if it survived.
/// Requires: no other thread runs.
template <class F>
std::string last_words(F f) {
    int fds[2];
    REQUIRE(pipe(fds) == 0);
    std::fflush(nullptr);
    const pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
        std::signal(SIGABRT, SIG_DFL);  // not the test runner's
        dup2(fds[1], STDERR_FILENO);
        close(fds[0]);
        close(fds[1]);
        alarm(20);
        f();
        _exit(0);
    }
    close(fds[1]);
    std::string text;
    char buffer[256];
    for (ssize_t n; (n = read(fds[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<std::size_t>(n));
    close(fds[0]);
    int status = 0;
    REQUIRE(waitpid(pid, &status, 0) == pid);
    return WIFSIGNALED(status) ? text : std::string();
}

/// Whether `text` contains all the parts.
template <class... Parts>
bool says(const std::string& text, const Parts&... parts) {
    return ((text.find(parts) != std::string::npos) && ...);
}
