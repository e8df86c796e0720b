// SPDX-License-Identifier: MIT
#pragma once

// Who may await what: operations inside tasks, operations inside coroutines of a host, and a host's awaitables inside
// tasks.

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/await_faults.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/foreign_operation.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/operation.hpp>

#include <concepts>
#include <coroutine>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// A promise that carries a context: a task's, or a host's own through `context_carrier`.
template <class P>
concept carries_context = requires(const P& p) {
    { p.cordon_context() } -> std::convertible_to<const context&>;
};

/// A mixin for the promise of a host's own coroutine type, with which context flows through that type as well.
///
///     struct promise_type : cordon::context_carrier { ... };
///     // where one host coroutine awaits another: child.promise().inherit_context(parent.promise());
class context_carrier {
public:
    [[nodiscard]] const context& cordon_context() const noexcept { return *ctx_; }

    /// Takes over the context of `awaiting`, if it carries one. Call it before the coroutine is resumed first.
    template <class Promise>
    void inherit_context(const Promise& awaiting) noexcept {
        if constexpr (carries_context<Promise>) ctx_ = &awaiting.cordon_context();
    }
    /// For the outermost coroutine. `root` outlives it.
    void set_context(const context& root) noexcept { ctx_ = &root; }

private:
    static inline const context none_{};
    const context* ctx_ = &none_;
};

namespace detail {

/// Something that stands for an operation: a future, say, which is awaited as often as one likes.
template <class A>
concept operation_source = requires(A&& a) {
    { std::forward<A>(a).as_operation() } -> operation;
};

/// How another library's awaitable, which its own coroutines alone can await, becomes an operation: `operation_of(a)`.
/// Specialized by the headers of interop.
template <class A>
struct awaitable_adaptor {};

template <class A>
concept adapted_awaitable = requires(A&& a) {
    { awaitable_adaptor<std::remove_cvref_t<A>>::operation_of(std::forward<A>(a)) } -> operation;
};

/// What only reads the context and never suspends: `this_task::deadline()`.
template <class F>
class context_query {
public:
    using reads_promise = void;

    explicit context_query(F f) noexcept : read_(f) {}
    bool await_ready() const noexcept { return false; }
    template <class Promise>
    bool await_suspend(std::coroutine_handle<Promise> h) noexcept {
        static_assert(carries_context<Promise>,
                      "this coroutine carries no cordon context: derive its promise from cordon::context_carrier, or "
                      "pass what you need as an argument");
        ctx_ = &h.promise().cordon_context();
        return false;
    }
    auto await_resume() const noexcept { return read_(*ctx_); }

private:
    F read_;
    const context* ctx_ = nullptr;
};
/// Yields the record of the task that awaits it.
class this_record {
public:
    using reads_promise = void;

    bool await_ready() const noexcept { return false; }
    template <std::derived_from<promise_base> Promise>
    bool await_suspend(std::coroutine_handle<Promise> h) noexcept {
        record_ = h.promise().record;
        return false;
    }
    task_record* await_resume() const noexcept { return record_; }

private:
    task_record* record_ = nullptr;
};

/// An awaiter that only reads the promise and is used as it is.
template <class A>
concept promise_reader = requires { typename A::reads_promise; };

/// Whether a coroutine may keep the state of an `O` in its frame; refuses it with a message where it may not.
template <operation O>
consteval bool state_fits_a_frame() {
    constexpr bool fits = alignof(typename O::state) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__;
    static_assert(fits, "what this operation gives or carries is over-aligned, and coroutine frames are not: give it a "
                        "std::unique_ptr to such a value");
    return fits;
}

/// An operation, awaited by a coroutine of this library.
template <operation O>
class operation_awaiter {
    static_assert(state_fits_a_frame<O>());

public:
    explicit operation_awaiter(O&& description) : state_(std::move(description)) {}
    [[gnu::always_inline]] ~operation_awaiter() = default;  // as that of a task's state, below which it is nothing

    bool await_ready() noexcept { return state_.ready(); }
    template <class Promise>
    std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h)
        noexcept(!may_fail_in_a_test<typename O::state>) {
        promise_base& awaiting = h.promise();
        if constexpr (may_fail_in_a_test<typename O::state>) fail_if_tested(*awaiting.ctx, awaiting.site);
        return transfer(state_.start(receiver_ref(awaiting)));
    }
    typename O::value_type await_resume() {
        if constexpr (requires { state_.get(); }) return state_.get();
        else return state_.take().value();
    }

private:
    typename O::state state_;
};

/// An operation, awaited by a coroutine of somebody else's type.
template <operation O>
class foreign_awaiter : private receiver {
    static_assert(state_fits_a_frame<O>());

public:
    explicit foreign_awaiter(O&& description)
        : receiver(&none(), nullptr, {}, &foreign_awaiter::resumed), state_(std::move(description)) {}

    bool await_ready() noexcept { return state_.ready(); }
    /// Returns false if the operation ended inside: then the coroutine goes on from here instead of being resumed
    /// further down the stack, which would grow with each such await. What `await_suspend` looks at after the start is
    /// on the stack, for `*this` may be gone by then.
    template <class Promise>
    CORDON_NOINLINE bool await_suspend(std::coroutine_handle<Promise> h) noexcept {
        static_assert(carries_context<Promise> || !O::needs_executor,
                      "this coroutine carries no cordon context, and the operation needs one for its timer or its "
                      "tasks: use op.with(ctx), or derive the promise from cordon::context_carrier");
        awaiting_ = h;
        if constexpr (carries_context<Promise>) ctx = &h.promise().cordon_context();
        if constexpr (requires { { h.promise().unhandled_stopped() } -> std::convertible_to<std::coroutine_handle<>>; })
            unhandled_stopped_ = [](std::coroutine_handle<> p) noexcept -> std::coroutine_handle<> {
                return std::coroutine_handle<Promise>::from_address(p.address()).promise().unhandled_stopped();
            };
        foreign_start here{this, this_thread_state.starting};
        starting_ = this_thread_state.starting = &here;
        resume(state_.start(receiver_ref(static_cast<receiver&>(*this))));
        this_thread_state.starting = here.outer;
        return !here.ended;
    }
    typename O::value_type await_resume() {
        if (stopped_) raise(canceled(stopped_in().reason()), "an operation was stopped");
        return state_.take().value();
    }

private:
    static const context& none() noexcept {
        static constinit const context empty{};
        return empty;
    }
    /// The context that is asked for the reason: the one that was given by hand, if any.
    const context& stopped_in() const noexcept {
        if constexpr (requires { state_.given_context(); }) return state_.given_context();
        else return *ctx;
    }
    static std::coroutine_handle<> resumed(receiver& self, promise_base* child, bool stopped) noexcept {
        auto& a = static_cast<foreign_awaiter&>(self);
        if (stopped) {
            discard(child);
            a.stopped_ = true;
            if (a.unhandled_stopped_ != nullptr) return a.unhandled_stopped_(a.awaiting_);
        }
        foreign_start* const here = this_thread_state.starting;
        if (here == nullptr || here != a.starting_ || here->awaiter != &a) return a.awaiting_;
        here->ended = true;
        return std::noop_coroutine();
    }

    typename O::state state_;
    std::coroutine_handle<> awaiting_;
    const foreign_start* starting_ = nullptr;
    std::coroutine_handle<> (*unhandled_stopped_)(std::coroutine_handle<>) noexcept = nullptr;
    bool stopped_ = false;
};

/// Tells `up` that what it awaits has ended, on the executor of its own context: at once where that is this thread's,
/// else by a submission. For combinators whose operation may end anywhere.
class homecoming : private work_item {
public:
    homecoming() noexcept : work_item(&homecoming::land) {}

    std::coroutine_handle<> go(receiver_ref up, bool stopped) noexcept {
        const executor_ref home = up.ctx().executor();
        if (!home || home.is_current()) return stopped ? up.stop_later() : up.complete();
        up_ = up;
        stopped_ = stopped;
        home.submit(*this);
        return std::noop_coroutine();
    }

private:
    static void land(work_item& item) noexcept {
        auto& h = static_cast<homecoming&>(item);
        resume(h.stopped_ ? h.up_.stop() : h.up_.complete());
    }
    receiver_ref up_;
    bool stopped_ = false;
};

/// An operation that refers to what it was given, which may be a temporary: it is awaited where it is described.
template <class O>
concept borrowing = requires { requires O::borrows; };

template <operation O>
class context_bound;
template <operation O>
context_bound<O> in_context(O&& op, const context& ctx) noexcept;

/// What every description derives from: awaiting it in a coroutine of somebody else's type, and with a context by hand.
template <class Derived>
class operation_base {
public:
    auto operator co_await() && { return foreign_awaiter<Derived>(std::move(static_cast<Derived&>(*this))); }

    /// Runs it with `ctx` instead of the context of the awaiting coroutine, on the executor of `ctx` if it has one.
    /// Lifetime:      the context is copied; the scopes and values that it refers to outlive the operation
    [[nodiscard]] auto with(const context& ctx) && { return in_context(std::move(static_cast<Derived&>(*this)), ctx); }
};

/// Runs `O` with a context that is given by hand.
template <operation O>
class context_bound : public operation_base<context_bound<O>> {
public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = false;
    static constexpr bool borrows = borrowing<O>;

    context_bound(O&& description, const context& ctx) noexcept : op_(std::move(description)), ctx_(ctx) {}

    class state : private receiver, private work_item {
    public:
        explicit state(context_bound&& b)
            : receiver(&given_, nullptr, {}, &state::done_below), work_item(&state::arrive), given_(b.ctx_),
              inner_(std::move(b.op_)) {}
        const context& given_context() const noexcept { return given_; }
        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            record = r.record();
            up = r;
            const executor_ref there = given_.executor();
            if (there && simulated_here() && !there.is_current())
                fail("with a context: inside a simulation nothing runs on another executor");
            if (!there || there.is_current()) return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
            there.submit(*this);
            return std::noop_coroutine();
        }
        outcome<value_type> take() noexcept { return inner_.take(); }

    private:
        static std::coroutine_handle<> done_below(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) discard(child);
            return s.home_.go(s.up, stopped);
        }
        static void arrive(work_item& item) noexcept {
            auto& s = static_cast<state&>(item);
            resume(s.inner_.start(receiver_ref(static_cast<receiver&>(s))));
        }
        context given_;
        typename O::state inner_;
        homecoming home_;
    };

private:
    O op_;
    context ctx_;
};

template <operation O>
context_bound<O> in_context(O&& op, const context& ctx) noexcept {
    return context_bound<O>(std::move(op), ctx);
}

/// The operation that an awaitable is or stands for.
template <class A>
auto operation_of(A&& a) {
    using plain = std::remove_cvref_t<A>;
    if constexpr (operation_source<A>) {
        return std::forward<A>(a).as_operation();
    } else if constexpr (adapted_awaitable<A>) {
        return awaitable_adaptor<plain>::operation_of(std::forward<A>(a));
    } else if constexpr (operation<plain> && !std::is_lvalue_reference_v<A>) {
        return plain(std::move(a));
    } else {
        static_assert(native_awaitable<A>,
                      "this cannot be awaited: a cordon operation or task that has a name is awaited with std::move, "
                      "and anything else needs an awaiter of its own (an asio::awaitable: include "
                      "<cordon/interop/asio.hpp>)");
        if constexpr (native_awaitable<A>) return foreign_operation<A>(std::forward<A>(a));
    }
}
template <class A>
using operation_for = decltype(operation_of(std::declval<A>()));

/// What a task's `co_await` of an `A` turns it into.
template <class A>
auto make_awaiter(A&& a) {
    using plain = std::remove_cvref_t<A>;
    if constexpr (promise_reader<plain>) return plain(a);
    else if constexpr (operation<plain> && !std::is_lvalue_reference_v<A>) return operation_awaiter<plain>(std::move(a));
    else return operation_awaiter<operation_for<A>>(operation_of(std::forward<A>(a)));
}

}  // namespace detail

/// What a task can `co_await`.
template <class A>
concept awaitable = (operation<std::remove_cvref_t<A>> && !std::is_lvalue_reference_v<A>) ||
                    detail::operation_source<A> || detail::adapted_awaitable<A> || detail::native_awaitable<A>;

namespace detail {

/// A task or an operation that has a name and is passed without `std::move`.
template <class A>
concept named_operation =
    std::is_lvalue_reference_v<A> && operation<std::remove_cvref_t<A>> && !cordon::awaitable<A>;

/// For overloads that say so: without them a compiler tells of constraints that are not satisfied.
template <class A>
consteval void refuse_named() {
    static_assert(!named_operation<A>,
                  "a task or an operation that has a name is passed with std::move, for it runs only once");
}

}  // namespace detail

/// What awaiting it gives.
template <class A>
using await_result_t = decltype(detail::make_awaiter(std::declval<A>()).await_resume());

}  // namespace cordon::inline CORDON_ABI
