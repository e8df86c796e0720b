// SPDX-License-Identifier: MIT
// Two shared libraries with hidden visibility and a program: all three see the tasks of all, and share what is spare.
#include "parked.hpp"

#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/with.hpp>

#include <cstdio>

void* park_left();
void release_left(void*);
std::size_t left_sees(const char* name);
const void* left_borrows(cordon::object_pool<int>& pool);
bool left_sees_keys(const cordon::context& said);
void* park_right();
void release_right(void*);
std::size_t right_sees(const char* name);
const void* right_borrows(cordon::object_pool<int>& pool);
bool right_sees_keys(const cordon::context& said);

int main() {
    int wrong = 0;
    const auto expect = [&wrong](const char* who, std::size_t sees, std::size_t wanted) {
        if (sees != wanted) std::printf("%s sees %zu instead of %zu\n", who, sees, wanted), ++wrong;
    };
    void* const left = park_left();
    void* const right = park_right();
    {
        const parked own("own");
        for (const char* name : {"left", "right", "own"}) {
            expect("the program", seen(name), 1);
            expect("left", left_sees(name), 1);
            expect("right", right_sees(name), 1);
        }
    }
    release_left(left);
    expect("right", right_sees("left"), 0);
    release_right(right);
    expect("left", left_sees("right"), 0);
    expect("the program", seen("own"), 0);
    cordon::object_pool<int> pool;
    const void* const one = borrow_and_return(pool);
    const bool same = left_borrows(pool) == one && right_borrows(pool) == one;
    expect("a pool that all three use", same && pool.stats().made == 1, 1);
    const auto asks = []() -> cordon::task<bool> {
        const cordon::context* const said = co_await cordon::this_task::context();
        co_return sees_keys(*said) && left_sees_keys(*said) && right_sees_keys(*said);
    };
    const bool seen_by_all = cordon::sync_wait(
        cordon::with(asks(), cordon::idempotent(true), cordon::arrived(), cordon::overdue(cordon::overdue_policy())));
    expect("each side, of keys,", seen_by_all, 1);
    return wrong == 0 ? 0 : 1;
}
