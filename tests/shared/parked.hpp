// SPDX-License-Identifier: MIT
#pragma once

// What each of the two libraries does, with a copy of the headers of its own.

#include <cordon/core/context.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/limit/load_shedder.hpp>
#include <cordon/policy/hedge.hpp>
#include <cordon/pool/object_pool.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/scope/overdue.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/sync/async_event.hpp>

#include <algorithm>
#include <cstddef>
#include <string_view>

/// A task that waits until it is let go.
class parked {
public:
    explicit parked(std::string_view name) {
        group_.spawn(gate_.wait(), {.name = name});
        while (loop_.poll()) {
        }
    }
    ~parked() {
        gate_.set();
        while (group_.size() != 0) loop_.poll();
    }

private:
    cordon::run_loop loop_;
    cordon::async_event gate_;
    cordon::task_group group_{loop_};
};

/// How many live tasks of that name this library sees.
inline std::size_t seen(std::string_view name) {
    const auto all = cordon::live_tasks();
    return static_cast<std::size_t>(
        std::count_if(all.begin(), all.end(), [&](const cordon::task_info& t) { return t.name == name; }));
}

/// Whether this library sees what another one says of a call.
inline bool sees_keys(const cordon::context& said) {
    return said.get(cordon::idempotent) != nullptr && said.get(cordon::arrived) != nullptr &&
           said.get(cordon::overdue) != nullptr;
}

/// What this library gets from a pool that another one may have made, and gives back at once.
inline const void* borrow_and_return(cordon::object_pool<int>& pool) { return &*pool.acquire(); }
