// SPDX-License-Identifier: MIT
#pragma once

// A host's awaitable as an operation, so that tasks can await it.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/operation.hpp>

#include <atomic>
#include <concepts>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class A>
concept awaiter_like = requires(A& a, std::coroutine_handle<> h) {
    { a.await_ready() } -> std::convertible_to<bool>;
    a.await_suspend(h);
    a.await_resume();
};

/// The awaiter that a `co_await` in an ordinary coroutine would use.
template <class A>
decltype(auto) native_awaiter(A&& a) {
    if constexpr (requires { std::forward<A>(a).operator co_await(); }) return std::forward<A>(a).operator co_await();
    else if constexpr (requires { operator co_await(std::forward<A>(a)); }) return operator co_await(std::forward<A>(a));
    else return std::forward<A>(a);
}

template <class A>
concept native_awaitable = requires(A&& a) {
    { native_awaiter(std::forward<A>(a)) } -> awaiter_like;
};

inline constinit const wait_label foreign_label{"an awaitable of another library"};

/// A host's awaitable, awaited by a task: wrapped in a small coroutine which, wherever the host resumes it, sends the
/// task back to its own executor. Not a cancel point: the host's awaitable knows nothing of our stop.
/// The scopes above are armed all the same, before another thread can see them: deadlines pass meanwhile, hedges are sent.
template <class A>
class foreign_operation {
    using result_type = decltype(native_awaiter(std::declval<A>()).await_resume());

public:
    using value_type = std::conditional_t<std::is_rvalue_reference_v<result_type>,
                                          std::remove_cvref_t<result_type>, result_type>;
    static constexpr bool needs_executor = false;

    explicit foreign_operation(A&& awaited) noexcept(std::is_nothrow_move_constructible_v<A>)
        : awaited_(std::forward<A>(awaited)) {}

    class state : public work_item {
    public:
        explicit state(foreign_operation&& o) : work_item(&state::wake), awaited_(std::forward<A>(o.awaited_)) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        ~state() {
            if (frame_) frame_.destroy();
        }

        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            receiver_ = r;
            context_access::arm(r.ctx());
#if defined(__cpp_exceptions)
            try {
                frame_ = wrap(*this).handle;
            } catch (...) {  // there is no memory for it
                result_.emplace(std::current_exception());
                return r.complete();
            }
#else
            frame_ = wrap(*this).handle;
#endif
            frame_.resume();
            std::uint8_t seen = word_.load(std::memory_order_acquire);
            if (seen == starting) {
                note_wait(r, foreign_label);
                if (word_.compare_exchange_strong(seen, suspended, std::memory_order_acq_rel, std::memory_order_acquire))
                    return std::noop_coroutine();
                note_running(r);
            }
            return result_->is_stopped() ? r.stop_later() : r.complete();
        }
        outcome<value_type> take() noexcept { return std::move(*result_); }

    private:
        /// starting: start() is still on the stack; suspended: whoever finishes submits; finished: a result is there.
        enum : std::uint8_t { starting, suspended, finished };

        struct wrapper {
            struct promise_type : cached_frame {
                explicit promise_type(state& s) noexcept : owner(&s) {}
                wrapper get_return_object() noexcept {
                    return {std::coroutine_handle<promise_type>::from_promise(*this)};
                }
                std::suspend_always initial_suspend() const noexcept { return {}; }
                struct final_awaiter {
                    bool await_ready() const noexcept { return false; }
                    CORDON_NOINLINE void await_suspend(std::coroutine_handle<promise_type> h) const noexcept {
                        state& s = *h.promise().owner;
                        if (s.word_.exchange(finished, std::memory_order_acq_rel) == suspended)
                            submit(s.receiver_.ctx(), s);
                    }
                    void await_resume() const noexcept {}
                };
                final_awaiter final_suspend() const noexcept { return {}; }
                void return_void() const noexcept {}
                void unhandled_exception() noexcept { owner->failed(); }
                [[nodiscard]] const context& cordon_context() const noexcept { return owner->receiver_.ctx(); }
                state* owner;
            };
            std::coroutine_handle<> handle;
        };
        static wrapper wrap(state& s) {
            auto&& awaiter = native_awaiter(std::forward<A>(s.awaited_));  // named: g++ 12 would copy what has no name
            if constexpr (std::is_void_v<value_type>) {
                co_await awaiter;
                s.result_.emplace();
            } else if constexpr (std::is_lvalue_reference_v<value_type>) {
                value_type value = co_await awaiter;
                s.result_.emplace(std::in_place, std::addressof(value));
            } else {
                s.result_.emplace(std::in_place, co_await awaiter);
            }
        }
        /// A stop that came to the host's coroutine through the context goes on as a stop, a refusal as a refusal.
        void failed() noexcept {
#if defined(__cpp_exceptions)
            try {
                throw;
            } catch (const canceled&) {
                result_.emplace(outcome<value_type>::stopped());
            } catch (const rejected& r) {
                result_.emplace(r.rejection());
            } catch (...) {
                result_.emplace(std::current_exception());
            }
#endif
        }
        static void wake(work_item& item) noexcept {
            const state& s = static_cast<state&>(item);
            note_running(s.receiver_);
            resume(s.result_->is_stopped() ? s.receiver_.stop() : s.receiver_.complete());
        }

        A awaited_;
        receiver_ref receiver_;
        std::coroutine_handle<> frame_;
        std::optional<outcome<value_type>> result_;
        std::atomic<std::uint8_t> word_{starting};
    };

private:
    A awaited_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
