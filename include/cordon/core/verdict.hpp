// SPDX-License-Identifier: MIT
#pragma once

// What a guarded call is said to have come to. It is decided once, by the classifier of a pipeline, and means the same
// to its retries, its breakers and its limits:
//
//     pipeline(retry(3), breaker).failing_when([](const reply& r) { return r.status >= 500; })
//                                .ignoring([](std::error_code e) { return e == std::errc::operation_canceled; });

#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <stdexcept>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

/// How a guarded call ended. Only the first two count. One that was stopped, or refused further in and so never made,
/// gives back all that a guard took, and leaves no trace; what a rate limit gave for one that is ignored is used.
enum class verdict : std::uint8_t {
    success,
    failure,
    ignored,  ///< ended, and says nothing about whom the guard watches
    stopped,  ///< did not end
};
[[nodiscard]] constexpr bool counts(verdict v) noexcept { return v <= verdict::failure; }

namespace detail {

template <class V>
concept code_like = std::is_convertible_v<const V&, std::error_code> && !std::is_arithmetic_v<V>;

/// A tuple, or what is looked at like one, whose first element is such a code.
template <class T>
concept begins_with_code = [] {
    if constexpr (requires { std::tuple_size<T>::value; }) {
        if constexpr (std::tuple_size<T>::value != 0) return code_like<typename std::tuple_element<0, T>::type>;
        else return false;
    } else {
        return false;
    }
}() && requires(const T& t) { std::get<0>(t); };

/// The error_code that a result is, or begins with, as Asio's `as_tuple` gives it; null if it has none.
template <class T>
    requires std::is_object_v<T>
[[nodiscard]] std::error_code code_in(const T& value) noexcept {
    if constexpr (code_like<T>) return std::error_code(value);
    else if constexpr (begins_with_code<T>) return std::error_code(std::get<0>(value));
    else return {};
}
template <class T>
inline constexpr bool has_code = [] {
    if constexpr (!std::is_object_v<T>) return false;
    else if constexpr (code_like<T>) return true;
    else return begins_with_code<T>;
}();

template <class P, class T>
inline constexpr bool asks_of_value = [] {
    if constexpr (std::is_void_v<T>) return false;
    else return std::predicate<const P&, const std::remove_reference_t<T>&>;
}();
template <class P>
inline constexpr bool asks_of_code = std::predicate<const P&, const std::error_code&>;
template <class P>
inline constexpr bool asks_of_rejection = std::predicate<const P&, const rejection&>;
template <class P>
inline constexpr bool asks_of_pointer = std::predicate<const P&, const std::exception_ptr&>;
template <class P>
inline constexpr bool asks_of_exception = std::predicate<const P&, const std::exception&>;

/// Can be taken for any class of exceptions, the user's own as well; not for an optional of one, whose constructor
/// cannot choose between the two.
struct any_exception {
    template <std::derived_from<std::exception> E>
    operator const E&() const;
    template <std::derived_from<std::exception> E>
    operator E&&() const;
};

/// It would never be asked, and nobody would notice. (The three are for what takes several classes: which of them
/// `any_exception` means is not clear then.)
template <class P>
consteval void check_predicate() {
    static_assert(asks_of_exception<P> || !(std::predicate<const P&, any_exception> ||
                                            std::predicate<const P&, const timeout_error&> ||
                                            std::predicate<const P&, const std::invalid_argument&> ||
                                            std::predicate<const P&, const rejected&>),
                  "a predicate takes `const std::exception&`, and looks for the class that it means with a dynamic_cast; "
                  "of refusals it takes `const rejection&`");
}

/// Calls `f` with the exception, by its base `std::exception`; not if it is something else.
template <class F>
void look_at(const std::exception_ptr& error, F f) noexcept {
#if defined(__cpp_exceptions)
    try {
        std::rethrow_exception(error);
    } catch (const std::exception& e) {
        f(e);
    } catch (...) {
    }
#else
    static_cast<void>(error);
    static_cast<void>(f);
#endif
}

/// Predicates, some of which ask about values, others about error codes, exceptions or refusals.
template <class... P>
class predicates {
public:
    predicates() = default;
    explicit predicates(std::tuple<P...>&& asked) : asked_(std::move(asked)) {}

    static constexpr bool ask_of_codes = (asks_of_code<P> || ...);
    static constexpr bool ask_of_rejections = (asks_of_rejection<P> || ...);
    static constexpr bool ask_of_exceptions = ((asks_of_pointer<P> || asks_of_exception<P>) || ...);
    template <class T>
    static constexpr bool ask_of_values = (asks_of_value<P, T> || ...) || (has_code<T> && ask_of_codes);

    template <class Q>
    [[nodiscard]] predicates<P..., Q> with(Q&& another) && {
        return predicates<P..., Q>(std::tuple_cat(std::move(asked_), std::tuple<Q>(std::forward<Q>(another))));
    }

    template <class T>
    [[nodiscard]] bool value(const T& v) const noexcept {
        return any([&](const auto& p) {
            using predicate = std::remove_cvref_t<decltype(p)>;
            if constexpr (asks_of_value<predicate, T>) return bool(p(v));
            else if constexpr (has_code<T> && asks_of_code<predicate>) return bool(p(code_in(v)));
            else return false;
        });
    }
    [[nodiscard]] bool refusal(const rejection& r) const noexcept {
        return any([&](const auto& p) {
            if constexpr (asks_of_rejection<std::remove_cvref_t<decltype(p)>>) return bool(p(r));
            else return false;
        });
    }
    [[nodiscard]] bool error(const std::exception_ptr& e) const noexcept {
        return any([&](const auto& p) {
            using predicate = std::remove_cvref_t<decltype(p)>;
            bool said = false;
            if constexpr (asks_of_pointer<predicate>) said = bool(p(e));
            else if constexpr (asks_of_exception<predicate>)
                look_at(e, [&](const std::exception& x) { said = bool(p(x)); });
            else if constexpr (asks_of_code<predicate>)
                look_at(e, [&](const std::exception& x) {
                    if (const auto* s = dynamic_cast<const std::system_error*>(&x)) said = bool(p(s->code()));
                });
            return said;
        });
    }

private:
    template <class F>
    bool any(F&& f) const noexcept {
        return std::apply([&](const P&... p) { return (f(p) || ...); }, asked_);
    }
    [[no_unique_address]] std::tuple<P...> asked_;
};

}  // namespace detail

/// Says what an outcome counts as. Unless told otherwise: a value is a success, but an error_code that is set (or the
/// first element of a tuple that is one) a failure; an exception is a failure, but a `std::logic_error`, which no
/// repetition mends, is ignored; so is a refusal by somebody further in, for then nobody was asked.
/// Errors:        a predicate that throws terminates
/// Threads:       predicates are called on whatever thread the call ends
/// Cost:          of values and codes what the predicates cost, no allocation and no throw; an exception is rethrown
///                and caught if its type matters
template <class Failing = detail::predicates<>, class Ignored = detail::predicates<>>
class outcome_classifier {
public:
    outcome_classifier() = default;
    explicit outcome_classifier(Failing&& failing, Ignored&& ignored)
        : failing_(std::move(failing)), ignored_(std::move(ignored)) {}

    /// Adds what is a failure. Of the kind that `p` asks about (values, codes, exceptions, refusals) nothing else is
    /// one then: a value is a success, and an exception or a refusal is ignored. A `std::system_error` is of the kind
    /// of its code, but a `timeout_error` is a failure whatever is said of codes. Of a class of exceptions ask with
    /// `const std::exception&` and a `dynamic_cast`.
    template <class P>
    [[nodiscard]] auto failing_when(P p) && {
        detail::check_predicate<P>();
        using more = decltype(std::move(failing_).with(std::move(p)));
        return outcome_classifier<more, Ignored>(std::move(failing_).with(std::move(p)), std::move(ignored_));
    }
    /// Adds what counts as nothing, whatever else is said; of codes also that of a `timeout_error`.
    template <class P>
    [[nodiscard]] auto ignoring(P p) && {
        detail::check_predicate<P>();
        using more = decltype(std::move(ignored_).with(std::move(p)));
        return outcome_classifier<Failing, more>(std::move(failing_), std::move(ignored_).with(std::move(p)));
    }

    /// Whether somebody has said something about refusals.
    static constexpr bool judges_rejections = Failing::ask_of_rejections || Ignored::ask_of_rejections;

    template <class T>
    [[nodiscard]] verdict operator()(const outcome<T>& o) const noexcept {
        if (o.has_value()) {
            if constexpr (std::is_void_v<T>) return verdict::success;
            else return of_value<std::remove_reference_t<T>>(*o);
        }
        if (o.is_stopped()) return verdict::stopped;
        return o.is_rejected() ? of_rejection(o.rejection()) : of_error(o.error());
    }
    template <class T>
    [[nodiscard]] verdict of_value(const T& value) const noexcept {
        if constexpr (Ignored::template ask_of_values<T>)
            if (ignored_.value(value)) return verdict::ignored;
        if constexpr (Failing::template ask_of_values<T>)
            return failing_.value(value) ? verdict::failure : verdict::success;
        else if constexpr (detail::has_code<T>) return detail::code_in(value) ? verdict::failure : verdict::success;
        else return verdict::success;
    }

private:
    CORDON_NOINLINE verdict of_rejection(const rejection& r) const noexcept {
        if (ignored_.refusal(r)) return verdict::ignored;
        return failing_.refusal(r) ? verdict::failure : verdict::ignored;
    }
    CORDON_NOINLINE verdict of_error(const std::exception_ptr& e) const noexcept {
        if (ignored_.error(e)) return verdict::ignored;
        if constexpr (Failing::ask_of_exceptions) {
            return failing_.error(e) ? verdict::failure : verdict::ignored;
        } else {
            bool fails = true;
            detail::look_at(e, [&](const std::exception& x) {
                if constexpr (Failing::ask_of_codes)
                    if (dynamic_cast<const std::system_error*>(&x) != nullptr &&
                        dynamic_cast<const timeout_error*>(&x) == nullptr) {
                        fails = failing_.error(e);
                        return;
                    }
                fails = dynamic_cast<const std::logic_error*>(&x) == nullptr;
            });
            return fails ? verdict::failure : verdict::ignored;
        }
    }

    [[no_unique_address]] Failing failing_;
    [[no_unique_address]] Ignored ignored_;
};

}  // namespace cordon::inline CORDON_ABI
