// SPDX-License-Identifier: MIT
#pragma once

// What flows down the await chain by itself: the stop token, the deadline, the values and the executor.
//
//     inline constexpr context_key<std::string> request_id{"request_id"};
//     co_await with(handle(request), within(2s), request_id("r-42"));     // everything below sees all three
//
// A context is a small value that points into the frames above; it is passed down by pointer and never counted, since
// structure guarantees that whoever gave it outlives whoever uses it.

#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/detail/thread_state.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/stop_token.hpp>

#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// One value in a context. `value` is null where an outer binding of the same key is hidden.
struct value_binding {
    const void* key;
    const void* value;
    const value_binding* outer;
};

}  // namespace detail

template <class T>
class bound_value;

/// Names a value of type T in a context. Define it as `inline constexpr`: its address is its identity, so two keys of
/// one type are different keys. With hidden visibility each shared library has a copy, and so a key of its own: give
/// one that they share default visibility, `[[gnu::visibility("default")]] inline constexpr`.
template <class T>
class context_key {
    static_assert(std::is_object_v<T> && !std::is_const_v<T>, "a context value is a plain object type");

public:
    using value_type = T;

    explicit consteval context_key(const char* name) noexcept : name_(name) {}
    context_key(const context_key&) = delete;
    context_key& operator=(const context_key&) = delete;

    /// The attribute that binds a value, built in place from `args`: `with(op, key(args...))`.
    template <class... Args>
    [[nodiscard]] bound_value<T> operator()(Args&&... args) const {
        return bound_value<T>(*this, std::in_place, std::forward<Args>(args)...);
    }
    /// The attribute that hides what is bound further out.
    [[nodiscard]] bound_value<T> unset() const { return bound_value<T>(*this); }

    [[nodiscard]] constexpr const char* name() const noexcept { return name_; }

private:
    const char* name_;
};

/// See above. Copied and moved by value only: contexts refer to what they inherit from and do not own it.
/// Threads:       a context may be read from any thread while the scope that gave it lives
class context {
public:
    /// No stop, no deadline, no value and no executor.
    context() = default;
    /// The root of a chain that runs on `runs_on`.
    explicit context(executor_ref runs_on) noexcept : executor_(runs_on) {}

    /// The earliest of all deadlines in effect.
    [[nodiscard]] cordon::deadline deadline() const noexcept { return deadline_; }

    /// The value that is bound to `key` nearest; null where nobody bound one. Readable after a stop, too.
    /// Cost:          a walk over the bindings in effect
    template <class T>
    [[nodiscard]] const T* get(const context_key<T>& key) const noexcept {
        for (const detail::value_binding* b = values_; b != nullptr; b = b->outer)
            if (b->key == &key) return static_cast<const T*>(b->value);
        return nullptr;
    }

    [[nodiscard]] executor_ref executor() const noexcept { return executor_; }

    /// The token that tells when to stop. Asking for it connects the scopes above, which a call that ends without
    /// suspending never needs.
    [[nodiscard]] inplace_stop_token stop_token() const noexcept {
        if (scope_ == nullptr) return {};
        scope_->arm();
        return scope_->source().get_token();
    }

    /// Whether to stop now. Unlike the token it notices a passed deadline even while this very thread keeps the
    /// executor from firing its timers.
    [[nodiscard]] bool stop_requested() const noexcept {
        return scope_ != nullptr && stop_requested(*scope_);
    }

    /// Why; of kind `none` as long as there is nothing to stop for.
    [[nodiscard]] stop_reason reason() const noexcept {
        return scope_ != nullptr ? reason(*scope_) : stop_reason{};
    }

    /// The same values and executor, but no deadline, and nothing stops it: for work that must outlive what asked for
    /// it. Give it a deadline of its own.
    [[nodiscard]] context without_stop() const noexcept {
        context result = *this;
        result.scope_ = nullptr;
        result.deadline_ = {};
        return result;
    }

private:
    friend class detail::context_access;

    bool stop_requested(detail::scope& s) const noexcept {
        s.arm();
        return s.source().stop_requested() || (deadline_.expired() && expire(s));
    }
    CORDON_NOINLINE static bool expire(detail::scope& s) noexcept {
        const detail::deferred_wakes until_read;
        s.expire(clock::now());
        return s.source().stop_requested();
    }
    CORDON_NOINLINE stop_reason reason(detail::scope& s) const noexcept {
        const detail::deferred_wakes until_read;
        return stop_requested(s) ? s.source().reason() : stop_reason{};
    }

    detail::scope* scope_ = nullptr;
    cordon::deadline deadline_;
    const detail::value_binding* values_ = nullptr;
    executor_ref executor_;
};

namespace detail {

/// How combinators derive one context from another.
class context_access {
public:
    static scope* scope_of(const context& c) noexcept { return c.scope_; }
    static context with_scope(const context& outer, scope& inner) noexcept {
        context result = outer;
        result.scope_ = &inner;
        return result;
    }
    static context with_scope(const context& outer, scope& inner, cordon::deadline effective) noexcept {
        context result = with_scope(outer, inner);
        result.deadline_ = effective;
        return result;
    }
    static context with_value(const context& outer, value_binding& binding) noexcept {
        context result = outer;
        binding.outer = outer.values_;
        result.values_ = &binding;
        return result;
    }
    static context with_executor(const context& outer, executor_ref e) noexcept {
        context result = outer;
        result.executor_ = e;
        return result;
    }
    static bool stop_arrived(const context& c) noexcept { return c.scope_ != nullptr && c.scope_->stop_arrived(); }
    static void arm(const context& c) noexcept {
        if (c.scope_ != nullptr) c.scope_->arm();
    }
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
