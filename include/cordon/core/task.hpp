// SPDX-License-Identifier: MIT
#pragma once

// The coroutine type: lazy, owned by whoever awaits or spawns it, ended by a value, an exception or a stop.
//
//     task<std::string> page(int item) {
//         auto stock = co_await query_stock(item);          // context, deadline and stop flow into query_stock
//         co_return render(stock);
//     }

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/operation.hpp>

#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <source_location>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

template <class T>
class task;

namespace detail {

class task_access;

/// How a coroutine ended, or `running` until it did.
enum class task_state : unsigned char { running, stopped, value, error, rejected };  // in this order

/// The part of a task's promise that does not depend on how its result is returned.
template <class T>
class task_promise_base : public promise_base, public cached_frame {
public:
    task_promise_base() noexcept {}
    task_promise_base(const task_promise_base&) = delete;
    task_promise_base& operator=(const task_promise_base&) = delete;
    ~task_promise_base() {
        if (state_ == task_state::value) std::destroy_at(std::addressof(value_));
        else if (state_ == task_state::error || state_ == task_state::rejected) std::destroy_at(std::addressof(error_));
    }

    std::suspend_always initial_suspend() const noexcept { return {}; }

    class final_awaiter {
    public:
        bool await_ready() const noexcept { return false; }
        template <class Promise>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<Promise> h) const noexcept {
            promise_base& p = h.promise();
            if (h.promise().state_ <= task_state::stopped) [[unlikely]] return h.promise().without_result();
            return transfer(p.up.complete(&p));
        }
        void await_resume() const noexcept {}
    };
    final_awaiter final_suspend() const noexcept { return {}; }

    template <class A>
    auto await_transform(A&& awaited, std::source_location here = std::source_location::current()) {
        site = here;
        return make_awaiter(std::forward<A>(awaited));
    }

    /// A stop or a refusal that leaves the body as an exception becomes a stop or a refusal again.
    void unhandled_exception() noexcept {
#if defined(__cpp_exceptions)
        try {
            throw;
        } catch (const canceled&) {
            state_ = task_state::stopped;
            return;
        } catch (const rejected&) {
            state_ = task_state::rejected;
        } catch (...) {
            state_ = task_state::error;
        }
        std::construct_at(std::addressof(error_), std::current_exception());
#endif
    }

    [[nodiscard]] const context& cordon_context() const noexcept { return *ctx; }

    /// The result; throws the error. Once.
    T get() {
        if (state_ != task_state::value) [[unlikely]] rethrow();
        if constexpr (std::is_void_v<T>) return;
        else if constexpr (std::is_reference_v<T>) return static_cast<T>(*value_);
        else return std::move(value_);
    }

    [[nodiscard]] bool has_value() const noexcept { return state_ == task_state::value; }
    [[nodiscard]] bool has_failed() const noexcept { return state_ > task_state::value; }
    [[nodiscard]] const auto& value() const noexcept {
        if constexpr (std::is_reference_v<T>) return *value_;
        else return value_;
    }

    /// The exception that ended the body; null if none did.
    [[nodiscard]] std::exception_ptr failure() const noexcept {
        return state_ == task_state::error || state_ == task_state::rejected ? error_ : std::exception_ptr();
    }

    outcome<T> take() noexcept {
        switch (state_) {
            case task_state::value:
                if constexpr (std::is_void_v<T>) return outcome<T>();
                else return outcome<T>(std::in_place, std::move(value_));
            case task_state::rejected: return refusal();
            case task_state::error: return outcome<T>(error_);
            case task_state::running:
            case task_state::stopped: break;
        }
        return outcome<T>::stopped();
    }

protected:
    template <class... Args>
    void set_value(Args&&... args) {
        std::construct_at(std::addressof(value_), std::forward<Args>(args)...);
        state_ = task_state::value;
    }

private:
    CORDON_NOINLINE std::coroutine_handle<> without_result() noexcept {
        if (state_ == task_state::running)
            fail("a task ended without a co_return, last seen at " + site_text(site));
        return up.stop_later(this);
    }
    [[noreturn]] void rethrow() {
#if defined(__cpp_exceptions)
        std::rethrow_exception(error_);
#else
        fail("a task failed in a build without exceptions");
#endif
    }
    outcome<T> refusal() noexcept {
#if defined(__cpp_exceptions)
        try {
            std::rethrow_exception(error_);
        } catch (const rejected& r) {
            return outcome<T>(r.rejection());
        } catch (...) {
        }
#endif
        return outcome<T>(error_);
    }

    union {
        stored_t<T> value_;
        std::exception_ptr error_;
    };
    task_state state_ = task_state::running;
};

/// Whether a frame may hold a T: GCC and Clang misplace what is aligned to more than `new` gives.
template <class T>
inline constexpr bool fits_a_frame = [] {
    if constexpr (std::is_object_v<T>) return alignof(T) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__;
    else return true;
}();

/// Whether a `T&` made of a `U&&` refers to that object, or to a part of it, and not to a temporary.
template <class T, class U>
inline constexpr bool refers_to_what_stays =
    std::is_lvalue_reference_v<U> &&
    std::is_convertible_v<std::remove_reference_t<U>*, std::remove_reference_t<T>*>;

template <class T>
class task_promise final : public task_promise_base<T> {
public:
    task<T> get_return_object() noexcept;
    template <class U = T>
        requires(std::is_reference_v<T> ? std::is_convertible_v<U&&, T> && refers_to_what_stays<T, U>
                                        : std::is_convertible_v<U, T>)
    void return_value(U&& value) {
        if constexpr (std::is_reference_v<T>) this->set_value(std::addressof(static_cast<T>(value)));
        else this->set_value(std::forward<U>(value));
    }
};

template <>
class task_promise<void> final : public task_promise_base<void> {
public:
    task<void> get_return_object() noexcept;
    void return_void() noexcept { set_value(); }
};

}  // namespace detail

/// A coroutine that starts when it is awaited or spawned. T may be void or an lvalue reference.
/// Errors:        an exception that leaves the body is thrown from the `co_await`
/// Cancellation:  passes on what happens to the operation it awaits: a stop ends it without an exception, destroying
///                its locals innermost first; between two awaits it is not interrupted
/// Threads:       runs on the executor of its context; after each `co_await` as well
/// Lifetime:      arguments live in the frame; what they refer to must outlive it. The captures of a lambda do not
///                live in the frame: pass them as arguments, or hand the lambda itself to `spawn` and friends
/// Cost:          one frame, from a cache per thread
template <class T = void>
class [[nodiscard("a task does nothing until it is awaited or spawned")]] task : public detail::operation_base<task<T>> {
    static_assert(detail::fits_a_frame<T>, "a task's result is aligned to more than 16 bytes: compilers misplace those "
                                           "in coroutine frames; return a std::unique_ptr");

public:
    using value_type = T;
    using promise_type = detail::task_promise<T>;
    static constexpr bool needs_executor = true;

    task(task&& other) noexcept : promise_(std::exchange(other.promise_, nullptr)) {}
    task& operator=(task&& other) noexcept {
        task moved(std::move(other));
        std::swap(promise_, moved.promise_);
        return *this;
    }
    ~task() {
        if (promise_ != nullptr) promise_->handle().destroy();
    }

    /// Whether there is a coroutine to await: false once it has been moved from.
    [[nodiscard]] bool valid() const noexcept { return promise_ != nullptr; }

    /// See `operation`.
    class state {
    public:
        explicit state(task&& t) noexcept : child_(std::exchange(t.promise_, nullptr)) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        [[gnu::always_inline]]  // or g++ calls it for each await: eleven instructions instead of none
        ~state() {
            if (child_ == nullptr) return;
            if (promise().has_failed()) [[unlikely]] detail::destroy_interrupted(child_->handle());
            else child_->handle().destroy();
        }

        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            if (child_ == nullptr) [[unlikely]] detail::fail("awaiting a task that has been moved from");
            child_->ctx = &r.ctx();
            child_->record = r.record();
            child_->up = r;
            child_->owner = &child_;
            return child_->handle();
        }
        outcome<T> take() noexcept { return promise().take(); }
        T get() { return promise().get(); }
        /// Whether it has ended with a value.
        [[nodiscard]] bool has_value() const noexcept { return promise().has_value(); }
        /// That value. Requires:      `has_value()`, and T is not void
        [[nodiscard]] const auto& peek() const noexcept { return promise().value(); }

    private:
        promise_type& promise() const noexcept { return static_cast<promise_type&>(*child_); }
        promise_base* child_;
    };

private:
    friend promise_type;
    friend class detail::task_access;
    explicit task(promise_type& p) noexcept : promise_(&p) {}

    promise_type* promise_;
};

namespace detail {

/// How groups take a task apart to run it as a root.
class task_access {
public:
    template <class T>
    static task_promise<T>* release(task<T>&& t) noexcept {
        return std::exchange(t.promise_, nullptr);
    }
};

template <class T>
task<T> task_promise<T>::get_return_object() noexcept {
    return task<T>(*this);
}
inline task<void> task_promise<void>::get_return_object() noexcept { return task<void>(*this); }

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
