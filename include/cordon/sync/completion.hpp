// SPDX-License-Identifier: MIT
#pragma once

// The bridge from a callback to a task: any library can be attached that calls back once, on whatever thread.
//
//     completion<std::size_t> read;
//     library_read(file, buffer, [&](std::error_code e, size_t n) { e ? read.set_error(...) : read.set_value(n); });
//     std::size_t n = co_await read.wait([&] { library_cancel(file); });

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/one_shot.hpp>
#include <cordon/core/operation.hpp>

#include <concepts>
#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label completion_label{"completion"};

/// Waits for a one_shot to the end; a stop only runs a hook, once, which makes the end come sooner.
template <class T, class Hook>
class hooked_wait : public operation_base<hooked_wait<T, Hook>> {
public:
    using value_type = T;
    static constexpr bool needs_executor = false;

    hooked_wait(one_shot<T>& s, Hook&& hook) : shot_(&s), hook_(std::forward<Hook>(hook)) {}

    class state : private receiver, private stop_node {
    public:
        using waits = void;  ///< see may_fail_in_a_test

        explicit state(hooked_wait&& w)
            : receiver(&context_, nullptr, {}, &state::ended), stop_node(&state::stop_arrived),
              hook_(std::forward<Hook>(w.hook_)), waiter_(*w.shot_, completion_label) {}
        bool ready() noexcept { return waiter_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            record = r.record();
            up = r;
            context_ = r.ctx().without_stop();
            if (scope* const s = context_access::scope_of(r.ctx())) {
                s->arm();
                if (!attach(s->source())) call_hook();
            }
            return waiter_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<T> take() noexcept { return waiter_.take(); }

    private:
        /// From the stack: the hook may set the result, and without an executor that ends this wait at once.
        void call_hook() noexcept {
            Hook hook = std::forward<Hook>(hook_);
            hook();
        }
        static void stop_arrived(stop_node& node) noexcept { static_cast<state&>(node).call_hook(); }
        static std::coroutine_handle<> ended(receiver& self, promise_base*, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            s.detach();
            return stopped ? s.up.stop_later() : s.up.complete();
        }

        context context_;
        Hook hook_;
        typename one_shot<T>::waiter waiter_;
    };

private:
    one_shot<T>* shot_;
    Hook hook_;
};

}  // namespace detail

/// A result that is set once and awaited once.
/// Threads:       set from any thread, also inside the call that starts the work, and before anybody waits
/// Lifetime:      lives until it was set, or until nobody will set it any more; whoever has awaited it may destroy it
///                at once. Destroyed while a task waits for it, it prints that task and terminates
/// Cost:          no allocation
template <class T>
class completion {
public:
    completion() = default;
    completion(const completion&) = delete;
    completion& operator=(const completion&) = delete;
    ~completion() { shot_.check_not_awaited("completion"); }

    /// Each sets the result, if it was not set before.
    /// Returns:       whether it was the first
    template <class... Args>
    bool set_value(Args&&... args) {
        return shot_.set(outcome<T>(std::in_place, std::forward<Args>(args)...));
    }
    bool set_error(std::exception_ptr error) noexcept { return shot_.set(outcome<T>(std::move(error))); }
    bool set_stopped() noexcept { return shot_.set(outcome<T>::stopped()); }
    bool set(outcome<T> result) noexcept { return shot_.set(std::move(result)); }

    [[nodiscard]] bool is_set() const noexcept { return shot_.is_set(); }

    /// Waits for the result.
    /// Cancellation:  a cancel point: stopped, the wait ends at once, and the callback may still come later
    [[nodiscard]] auto wait() noexcept { return shot_.wait(detail::completion_label); }

    /// The same on a thread.
    [[nodiscard]] outcome<T> wait_blocking(const blocking_scope& heeds = {}) { return detail::block_on(wait(), heeds); }

    /// Waits for the result; a stop calls `on_stop()`, once, which asks the library to end early, and the wait goes on:
    /// what the callback refers to stays alive, and a value that is there already is not lost.
    /// Cancellation:  ends stopped only by `set_stopped()`
    /// Threads:       `on_stop` runs on the thread that asks to stop; it must not throw or block
    template <class OnStop>
        requires std::invocable<OnStop&>
    [[nodiscard]] auto wait(OnStop&& on_stop) {
        detail::check_callable<OnStop>();
        return detail::hooked_wait<T, detail::kept_t<OnStop>>(shot_, std::forward<OnStop>(on_stop));
    }

private:
    detail::one_shot<T> shot_;
};

}  // namespace cordon::inline CORDON_ABI
