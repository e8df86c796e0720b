// SPDX-License-Identifier: MIT
// A sending refers to its item, which is gone when a spawned one runs.
// expect: spawn a callable that awaits it
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/sync/channel.hpp>

#include <chrono>
#include <string>

void f(cordon::task_group& group, cordon::channel<std::string>& lines) {
    group.spawn(cordon::with_timeout(std::chrono::seconds(1), lines.send(std::string(100, 'x'))));
}
