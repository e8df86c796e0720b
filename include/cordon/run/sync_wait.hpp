// SPDX-License-Identifier: MIT
#pragma once

// From ordinary code into coroutines: `int n = sync_wait(count())` runs it on this thread until it has ended.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/run/run_loop.hpp>

#include <source_location>
#include <stdexcept>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <operation O>
class waited_root final : public root<O> {
public:
    waited_root(O&& op, const context& c, run_loop& loop) noexcept : root<O>(std::move(op), c), loop_(&loop) {}

private:
    void on_ended() noexcept override { loop_->stop(); }
    run_loop* loop_;
};

}  // namespace detail

/// Runs `a`, a task or a callable that makes one, on this thread until it has ended, timers included.
/// Returns:       its value
/// Errors:        throws its error; `canceled` if it was stopped, `rejected` if it was refused; `std::logic_error` on
///                a thread that runs an executor already, where waiting would hold up everything else on it, and in a
///                simulation
/// Cost:          a run loop on the stack; no allocation but `a`'s own
template <runnable A>
detail::runnable_result_t<A> sync_wait(A&& a, std::source_location here = std::source_location::current()) {
    if (detail::runs_any_here() || detail::simulated_here())
        detail::raise(std::logic_error("sync_wait on a thread that runs an executor: co_await it instead"),
                      "sync_wait on a thread that runs an executor: co_await it instead");
    using op = detail::runnable_operation<A>;
    run_loop loop;
    const context ctx{executor_ref(loop)};
    detail::waited_root<op> root(detail::operation_of_runnable(std::forward<A>(a)), ctx, loop);
    root.open_record("sync_wait", here);
    root.start();
    loop.run();
    return root.take().value();
}
template <detail::named_operation A>
void sync_wait(A&&) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
