// SPDX-License-Identifier: MIT
#pragma once

// How an operation ended: with a value, with an error, refused, or stopped. `co_await as_outcome(op)` gives one and
// never throws; policies hand outcomes to each other, so that a refusal costs nanoseconds and not a throw.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/error.hpp>

#include <exception>
#include <memory>
#include <new>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

struct unit {};

/// What an outcome keeps for a value of type T: T itself, a pointer for a reference, nothing for void.
template <class T> struct stored { using type = T; };
template <class T> struct stored<T&> { using type = T*; };
template <> struct stored<void> { using type = unit; };
template <class T> using stored_t = typename stored<T>::type;

/// A bool, or something that may be empty itself: an optional.
template <class T>
concept has_bool_of_its_own = std::is_same_v<T, bool> || requires(const T& t) { t.has_value(); };

}  // namespace detail

/// A value of type T, a `std::exception_ptr`, a `rejection`, or stopped. T may be void or an lvalue reference.
/// Requires:      moving a T throws nothing. Outcomes go from an operation to whoever awaits it through functions that
///                are noexcept: a move that throws there, or a copy in place of one, ends the program
/// Errors:        `value()` of a refused outcome throws `rejected`, of a stopped one `canceled`, of an error the error
/// Cost:          the largest of the four and one byte; no allocation
template <class T>
class [[nodiscard]] outcome {
    using stored_type = detail::stored_t<T>;

public:
    using value_type = T;

    /// Constructs the value in place.
    template <class... Args>
        requires std::is_constructible_v<stored_type, Args...>
    explicit outcome(std::in_place_t, Args&&... args) : kind_(kind::value) {
        std::construct_at(std::addressof(value_), std::forward<Args>(args)...);
    }
    /// A value.
    template <class U = T>
        requires(!std::is_void_v<T> && !std::is_reference_v<T> && std::is_convertible_v<U, T> &&
                 !std::is_same_v<std::remove_cvref_t<U>, outcome> &&
                 !std::is_same_v<std::remove_cvref_t<U>, std::exception_ptr> &&
                 !std::is_same_v<std::remove_cvref_t<U>, cordon::rejection>)
    outcome(U&& value) : outcome(std::in_place, std::forward<U>(value)) {}
    /// Done, without a value.
    outcome()
        requires std::is_void_v<T>
        : outcome(std::in_place) {}
    /// An error. Requires:      it is not null
    outcome(std::exception_ptr error) noexcept : kind_(kind::error) {
        if (error == nullptr) [[unlikely]] detail::fail("an outcome was made of a null exception_ptr");
        std::construct_at(std::addressof(error_), std::move(error));
    }
    outcome(const cordon::rejection& why) noexcept : kind_(kind::rejected) {
        std::construct_at(std::addressof(rejection_), why);
    }
    [[nodiscard]] static outcome stopped() noexcept { return outcome(kind::stopped); }

    outcome(outcome&& other) noexcept(std::is_nothrow_move_constructible_v<stored_type>) : kind_(other.kind_) {
        take_from(std::move(other));
    }
    outcome(const outcome& other)
        requires std::is_copy_constructible_v<stored_type>
        : kind_(other.kind_) {
        take_from(other);
    }
    outcome& operator=(outcome other) noexcept(std::is_nothrow_move_constructible_v<stored_type>) {
        destroy();
        kind_ = kind::stopped;  // should the move throw
        take_from(std::move(other));
        kind_ = other.kind_;
        return *this;
    }
    ~outcome() { destroy(); }

    [[nodiscard]] bool has_value() const noexcept { return kind_ == kind::value; }
    [[nodiscard]] explicit operator bool() const noexcept
        requires(!detail::has_bool_of_its_own<T>)
    {
        return has_value();
    }
    /// `if (ended)` could mean either: say `ended.has_value()`, or look at the value.
    explicit operator bool() const noexcept
        requires detail::has_bool_of_its_own<T>
    = delete;
    [[nodiscard]] bool is_error() const noexcept { return kind_ == kind::error; }
    [[nodiscard]] bool is_rejected() const noexcept { return kind_ == kind::rejected; }
    [[nodiscard]] bool is_stopped() const noexcept { return kind_ == kind::stopped; }

    /// The value; otherwise throws what there is instead.
    T value() && {
        if (!has_value()) [[unlikely]] throw_instead();
        return *std::move(*this);
    }
    decltype(auto) value() & {
        if (!has_value()) [[unlikely]] throw_instead();
        return get(*this);
    }
    decltype(auto) value() const& {
        if (!has_value()) [[unlikely]] throw_instead();
        return get(*this);
    }
    /// The value. Requires `has_value()`.
    [[nodiscard]] T operator*() && noexcept(std::is_nothrow_move_constructible_v<stored_type>) {
        if constexpr (std::is_void_v<T>) return;
        else if constexpr (std::is_reference_v<T>) return static_cast<T>(*value_);
        else return std::move(value_);
    }
    [[nodiscard]] decltype(auto) operator*() & noexcept { return get(*this); }
    [[nodiscard]] decltype(auto) operator*() const& noexcept { return get(*this); }
    [[nodiscard]] auto* operator->() noexcept
        requires(!std::is_void_v<T>)
    {
        return std::addressof(get(*this));
    }
    [[nodiscard]] const auto* operator->() const noexcept
        requires(!std::is_void_v<T>)
    {
        return std::addressof(get(*this));
    }

    /// The error, or null if this is none.
    [[nodiscard]] std::exception_ptr error() const noexcept {
        return is_error() ? error_ : std::exception_ptr();
    }
    /// The refusal. Requires `is_rejected()`.
    [[nodiscard]] const cordon::rejection& rejection() const noexcept { return rejection_; }

private:
    enum class kind : unsigned char { stopped, value, error, rejected };

    explicit outcome(kind k) noexcept : kind_(k) {}

    template <class Self>
    static decltype(auto) get(Self& self) noexcept {
        if constexpr (std::is_void_v<T>) return;
        else if constexpr (std::is_reference_v<T>) return static_cast<T>(*self.value_);
        else return (self.value_);
    }

    template <class Other>
    void take_from(Other&& other) {
        switch (other.kind_) {
            case kind::stopped: break;
            case kind::value: std::construct_at(std::addressof(value_), std::forward<Other>(other).value_); break;
            case kind::error: std::construct_at(std::addressof(error_), std::forward<Other>(other).error_); break;
            case kind::rejected: std::construct_at(std::addressof(rejection_), other.rejection_); break;
        }
    }
    void destroy() noexcept {
        if (kind_ == kind::value) std::destroy_at(std::addressof(value_));
        else if (kind_ == kind::error) std::destroy_at(std::addressof(error_));
    }
    [[noreturn]] void throw_instead() const {
        if (is_error()) {
#if defined(__cpp_exceptions)
            std::rethrow_exception(error_);
#else
            detail::fail("an operation failed in a build without exceptions; await as_outcome(op) instead");
#endif
        }
        if (is_rejected()) detail::raise(rejected(rejection_), "rejected; await as_outcome(op) instead");
        detail::raise(canceled(), "the operation was stopped; await as_outcome(op) instead");
    }

    union {
        stored_type value_;
        std::exception_ptr error_;
        cordon::rejection rejection_;
    };
    kind kind_;
};

namespace detail {

/// The exception that `value()` would throw.
template <class T>
[[nodiscard]] std::exception_ptr failure_of(const outcome<T>& o) noexcept {
    if (o.is_error()) return o.error();
    if (o.is_rejected()) return std::make_exception_ptr(rejected(o.rejection()));
    return o.is_stopped() ? std::make_exception_ptr(canceled()) : std::exception_ptr();
}

/// What a callable ends with, which may throw.
template <class F>
[[nodiscard]] auto outcome_of(F&& f) noexcept -> outcome<decltype(f())> {
#if defined(__cpp_exceptions)
    try {
        return outcome<decltype(f())>(std::in_place, f());
    } catch (...) {
        return outcome<decltype(f())>(std::current_exception());
    }
#else
    return outcome<decltype(f())>(std::in_place, f());
#endif
}

/// The same failure for another type. Requires: `o` has no value.
template <class To, class From>
[[nodiscard]] outcome<To> as_failure(const outcome<From>& o) noexcept {
    if (o.is_error()) return outcome<To>(o.error());
    if (o.is_rejected()) return outcome<To>(o.rejection());
    return outcome<To>::stopped();
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
