// SPDX-License-Identifier: MIT
#pragma once

// What tests give to executors: items that call something, and timers that do.

#include <cordon/core/clock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/timer.hpp>

#include <functional>
#include <utility>

struct job : cordon::work_item {
    explicit job(std::function<void()> f) : work_item(&job::call), run_it(std::move(f)) {}
    static void call(cordon::work_item& item) noexcept { static_cast<job&>(item).run_it(); }
    std::function<void()> run_it;
};

struct fuse : cordon::timer {
    fuse(cordon::clock::time_point at, std::function<void()> f) : timer(&fuse::burnt), then(std::move(f)) { when = at; }
    static void burnt(cordon::timer& t) noexcept { static_cast<fuse&>(t).then(); }
    std::function<void()> then;
};
