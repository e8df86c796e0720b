// SPDX-License-Identifier: MIT
#pragma once

// A plain function behind policies, called on this thread:
//
//     const outcome<row> found = call_blocking(guarded, [&] { return db.query(id); }, request);
//
// where `guarded` is a pipeline, a guard, or any other policy that tasks share, too.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/run/detail/blocking_call.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>

#include <concepts>
#include <source_location>
#include <stdexcept>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Stops what runs under `ctx` when its deadline passes, while the thread that should notice is inside a function.
class deadline_watch final : private timer {
public:
    deadline_watch(const context& ctx, executor_ref elsewhere) noexcept
        : timer(&deadline_watch::fired), ctx_(ctx), timers_(elsewhere.timers()) {
        when = ctx.deadline().time();
        timers_.arm(*this);
    }
    ~deadline_watch() { timers_.cancel(*this); }

private:
    static void fired(timer& t) noexcept {
        static_cast<void>(static_cast<deadline_watch&>(t).ctx_.stop_requested());  // looks, and so notices
    }
    const context& ctx_;
    timer_service& timers_;
};

/// The thread of a `call_blocking`: runs what the policies do, and fires their timers unless it is inside the function.
class calling_thread {
public:
    explicit calling_thread(const blocking_scope& heeds)
        : scope_(heeds), passes_(*this), ctx_(scope_.ctx_on(executor_ref(loop_))) {}

    [[nodiscard]] const context& ctx() const noexcept { return ctx_; }
    [[nodiscard]] run_loop& loop() noexcept { return loop_; }
    /// Whose timers fire meanwhile: that of the scope that the call heeds, if it has one.
    [[nodiscard]] executor_ref elsewhere() const noexcept { return scope_.executor(); }

private:
    /// The timer of the deadline that is heeded.
    class end_of_time final : private timer {
    public:
        explicit end_of_time(calling_thread& t) noexcept : timer(&end_of_time::fired), thread_(t) {
            if (t.scope_.deadline().is_never()) return;
            when = t.scope_.deadline().time();
            t.loop_.timers().arm(*this);
        }
        ~end_of_time() { thread_.loop_.timers().cancel(*this); }

    private:
        static void fired(timer& t) noexcept { static_cast<end_of_time&>(t).thread_.scope_.expire(); }
        calling_thread& thread_;
    };

    run_loop loop_;
    heeded_scope scope_;
    end_of_time passes_;
    context ctx_;
};

/// What a policy calls: the function, with something that is stopped in time although this thread is inside it.
template <class F>
class watched_function {
public:
    watched_function(F& f, calling_thread& thread) noexcept : f_(f), thread_(thread) {}

    decltype(auto) operator()(const context& ctx) const {
        if (!(ctx.executor() == executor_ref(thread_.loop()))) return call_function(f_, ctx);  // on another thread
        const context under = context_access::with_executor(ctx, thread_.elsewhere());
        if constexpr (takes_stop_token<F>) {
            if (!ctx.deadline().is_never()) {
                if (!thread_.elsewhere()) nobody_watches();
                const deadline_watch watch(under, thread_.elsewhere());
                return call_function(f_, under);
            }
        }
        return call_function(f_, under);
    }

private:
    [[noreturn]] static void nobody_watches() {
        raise(std::logic_error("call_blocking: the function takes a std::stop_token under a deadline, and nobody would "
                               "stop that: pass a scope that has an executor, or take a const blocking_scope&"),
              "call_blocking: a std::stop_token under a deadline, and no executor to stop it");
    }
    F& f_;
    calling_thread& thread_;
};

/// `blocking_call`, each time it is called.
template <class F>
class blocking_attempts {
public:
    blocking_attempts(F& f, calling_thread& thread) noexcept : f_(f, thread) {}
    [[nodiscard]] blocking_call<const watched_function<F>&> operator()() const {
        return blocking_call<const watched_function<F>&>(f_);
    }

private:
    watched_function<F> f_;
};

}  // namespace detail

/// Calls `f()` behind `policy`, a pipeline or a guard, on this thread, which waits wherever the policy does: for a
/// token, a free place, or the next attempt. If `f` takes one, it is given a `const blocking_scope&`, for its own
/// blocking waits, or a `std::stop_token`; both are stopped with `heeds`, and by the timeouts of the policy.
/// Returns:       an outcome: what `f` returns, or a policy in its place; stopped if `heeds` was, or its deadline passed
/// Errors:        what `f` throws and policies leave; refused if a guard refuses; but `canceled` is a stop, and
///                `rejected` a refusal. `std::logic_error` on a thread that runs an executor, and in a simulation
/// Cancellation:  a wait of a policy ends at once, with nothing taken. `f` is waited for: it has to notice a timeout by
///                itself, and a value that it returns all the same is not lost
/// Threads:       `f` runs on this one, also if it is called again. So no timer of the policy fires meanwhile: a
///                `blocking_scope` looks at the clock when it is asked; a `std::stop_token` under a deadline needs
///                somebody elsewhere, which is the executor of the scope `heeds`. Without one the call ends with a
///                `std::logic_error`
/// Cost:          a run loop on the stack. No frame and no allocation; a token allocates once
template <class Policy, detail::blocking_function F>
[[nodiscard]] auto call_blocking(Policy&& policy, F&& f, const blocking_scope& heeds = {},
                                 std::source_location here = std::source_location::current()) {
    using function = std::remove_reference_t<F>;
    static_assert(!awaitable<detail::blocking_return_t<function>>,
                  "call_blocking calls an ordinary function; for one that returns something to await use "
                  "sync_wait(policy(f))");
    static_assert(std::invocable<Policy&, detail::blocking_attempts<function>>,
                  "call_blocking: a policy is called with a call, and returns something to await");
    if (detail::runs_any_here() || detail::simulated_here()) detail::raise_would_block();
    detail::calling_thread thread(heeds);
    using op = detail::operation_for<std::invoke_result_t<Policy&, detail::blocking_attempts<function>>>;
    detail::waited_root<op> root(detail::operation_of(policy(detail::blocking_attempts<function>(f, thread))),
                                 thread.ctx(), thread.loop());
    root.open_record("call_blocking", here);
    root.start();
    thread.loop().run();
    return root.take();
}

}  // namespace cordon::inline CORDON_ABI
