// SPDX-License-Identifier: MIT
#pragma once

// A call that blocks its thread, made where that harms nobody:
//
//     std::string text = co_await run_blocking(disk, [&] { return read_file(path); });

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/run/detail/blocking_call.hpp>
#include <cordon/run/on.hpp>

#include <utility>

namespace cordon::inline CORDON_ABI {

/// Calls `f()` on `there`, and goes on where it came from. If `f` takes one, it is given a `const blocking_scope&`, for
/// its own blocking waits, or a `std::stop_token`.
/// `f` may block: inside it the thread does not count as running an executor, so `x_blocking` and `sync_wait` are
/// allowed. For a coroutine use `on`.
/// Returns:       what `f` returns: a value, an lvalue reference, nothing
/// Errors:        what `f` throws; but `canceled` is a stop again, and `rejected` a refusal
/// Cancellation:  stopped before `f` begins, `f` is not called. Once it has begun it is waited for: its scope or
///                token is stopped with the awaiting context, and a value that it returns all the same is not lost.
///                While it waits for a thread of `there`, a stop is noticed when its turn comes
/// Threads:       `there` needs a thread for each call that blocks at the same time: a `thread_pool` of its own. In a
///                simulation `f` is called by the simulation, as one step
/// Lifetime:      a temporary `f` is kept until the end; a named one is used where it is
/// Cost:          a submission in each direction; no frame. A token allocates once
template <detail::blocking_function F>
[[nodiscard]] auto run_blocking(executor_ref there, F&& f) {
    detail::check_callable<F>();
    using call = detail::blocking_call<detail::kept_t<F>>;
    static_assert(!awaitable<typename call::value_type>,
                  "run_blocking calls an ordinary function; for one that returns something to await use on(executor, f)");
    return detail::on_operation<call>(there, call(std::forward<F>(f)));
}

}  // namespace cordon::inline CORDON_ABI
