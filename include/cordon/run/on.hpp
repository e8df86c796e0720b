// SPDX-License-Identifier: MIT
#pragma once

// Where something runs: `co_await on(pool, compress(data))` goes there and comes back.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/on_operation.hpp>
#include <cordon/core/executor.hpp>

#include <utility>

namespace cordon::inline CORDON_ABI {

/// Runs `a` on `there`, under the stop, the deadline and the values in effect, and goes on where it came from.
/// Threads:       `a` runs on `there`; the awaiting task resumes on its own executor. In a simulation, which is the
///                only executor of its runs, another one terminates with a message
/// Cost:          a submission in each direction; no frame, no allocation
template <runnable A>
[[nodiscard]] auto on(executor_ref there, A&& a) {
    detail::check_callable<A>();
    using op = detail::runnable_operation<A>;
    return detail::on_operation<op>(there, detail::operation_of_runnable(std::forward<A>(a)));
}
template <detail::named_operation A>
void on(executor_ref, A&&) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
