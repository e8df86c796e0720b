// SPDX-License-Identifier: MIT
#pragma once

// The way in for a host that cannot wait: starts something on an executor and calls back when it has ended.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/operation.hpp>

#include <concepts>
#include <source_location>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Owns itself: deleted by the executor after the callback has returned.
template <operation O, class F>
class detached_root final : public root<O> {
public:
    detached_root(const context& c, O&& op, F&& callback)
        : root<O>(std::move(op), context_), context_(c), done_(std::move(callback)) {}

private:
    void on_ended() noexcept override {
        this->run = &detached_root::call;
        submit(context_, *this);  // no frame is destroyed inside its own await_suspend
    }
    static void call(work_item& item) noexcept {
        auto* self = static_cast<detached_root*>(&item);
        self->done_(self->take());
        delete self;
    }

    context context_;
    F done_;
};

struct ignore_outcome {
    template <class T>
    void operator()(const outcome<T>&) const noexcept {}
};

}  // namespace detail

struct start_options {
    std::string_view name = {};
};

/// Starts `a` on `there`, later (at once if there is no executor), and calls `done(outcome)` there when it has ended;
/// an exception from `done` terminates. Prefer a `task_group` where somebody can wait.
/// Threads:       from any
/// Lifetime:      `there` outlives what was started. Nothing else owns it
/// Cost:          one allocation
template <runnable A, class F>
    requires std::invocable<std::decay_t<F>&, outcome<detail::runnable_result_t<A>>>
void start_on(executor_ref there, A&& a, F&& done, start_options options = {},
              std::source_location where = std::source_location::current()) {
    start_on(context(there), std::forward<A>(a), std::forward<F>(done), options, where);
}
/// The same with a context that is given by hand; what it refers to outlives what is started.
template <runnable A, class F>
    requires std::invocable<std::decay_t<F>&, outcome<detail::runnable_result_t<A>>>
void start_on(const context& ctx, A&& a, F&& done, start_options options = {},
              std::source_location where = std::source_location::current()) {
    detail::check_lives_on<detail::runnable_operation<A>>();
    using root = detail::detached_root<detail::runnable_operation<A>, std::decay_t<F>>;
    detail::context_access::arm(ctx);  // before another thread can see its scopes
    auto* const r = new root(ctx, detail::operation_of_runnable(std::forward<A>(a)), std::decay_t<F>(std::forward<F>(done)));
    r->open_record(options.name, where);
    r->start();
}
/// The same for whom the outcome does not matter.
template <runnable A>
void start_on(executor_ref there, A&& a, start_options options = {},
              std::source_location where = std::source_location::current()) {
    start_on(there, std::forward<A>(a), detail::ignore_outcome(), options, where);
}
template <class There, detail::named_operation A>
void start_on(const There&, A&&, start_options = {}) {
    detail::refuse_named<A>();
}
template <class There, detail::named_operation A, class F>
void start_on(const There&, A&&, F&&, start_options = {}) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
