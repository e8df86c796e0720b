// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/context.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/pool/resource_pool.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

/// Makes connections, counts them, and fails as it is told.
struct server {
    struct connection {
        explicit connection(server& s) : of(&s), id(s.made++) { ++s.alive; }
        connection(connection&& other) noexcept
            : of(std::exchange(other.of, nullptr)), id(other.id), usable(other.usable) {}
        connection& operator=(connection&&) = delete;
        ~connection() {
            if (of != nullptr) --of->alive;
        }
        server* of;
        int id;
        bool usable = true;
    };
    using pool = cordon::resource_pool<connection>;

    /// What a pool is given to make one.
    auto connect() {
        return [this]() -> cordon::task<connection> {
            ++tried;
            if (takes > std::chrono::milliseconds(0)) co_await cordon::sleep_for(takes);
            if (fails > 0) {
                --fails;
                throw std::runtime_error("refused");
            }
            co_return connection(*this);
        };
    }

    std::chrono::milliseconds takes{0};
    int fails = 0;  ///< so many of the next
    std::atomic<int> tried{0}, made{0}, alive{0};
};

/// Borrows for `d`, and notes the connection.
inline cordon::task<> use(server::pool& pool, std::chrono::milliseconds d, std::vector<int>& seen) {
    auto mine = co_await pool.acquire();
    seen.push_back(mine->id);
    co_await cordon::sleep_for(d);
    mine.mark_clean();
}

/// idle, in use, size
struct figures {
    std::size_t idle, in_use, size;
    friend bool operator==(const figures&, const figures&) = default;
};
inline figures of(const server::pool& p) {
    const auto s = p.stats();
    return {s.idle, s.in_use, s.size};
}

inline cordon::task<> until_waiting(const server::pool& p, std::size_t count) {
    while (p.stats().waiting < count) co_await cordon::this_task::yield();
}
inline cordon::task<> until_tried(const server& s, int count) {
    while (s.tried < count) co_await cordon::this_task::yield();
}

/// In a scope of its own, so that it can be stopped alone.
struct stoppable {
    explicit stoppable(const cordon::context& ctx) : scope(ctx), group(scope.ctx()) {}
    cordon::cancel_scope scope;
    cordon::task_group group;
};

template <class F>
void in_simulations(F root) {
    for (std::uint64_t seed = 0; seed < 20; ++seed) cordon::testing::simulation(seed).run(root());
}
