// SPDX-License-Identifier: MIT
#pragma once

// Several operations at the same time, the first success of them: `auto first = co_await when_any(from_a(), from_b())`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/scope/detail/branch_scope.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <operation... O>
class when_any_operation : public operation_base<when_any_operation<O...>> {
public:
    using value_type = std::variant<regular_t<typename O::value_type>...>;
    static constexpr bool needs_executor = true;

    explicit when_any_operation(O&&... ops) : ops_(std::move(ops)...) {}

    class state {
    public:
        explicit state(when_any_operation&& w) : branches_(std::move(w.ops_)) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            scope_.open(r, sizeof...(O));
            std::size_t index = 0;
            branches_.each([&](auto& b) { b.start(scope_, index++); });
            return scope_.opened();
        }
        outcome<value_type> take() noexcept { return pick(std::index_sequence_for<O...>()); }

    private:
        template <std::size_t... I>
        outcome<value_type> pick(std::index_sequence<I...>) noexcept {
            outcome<value_type> result = outcome<value_type>::stopped();
            const std::size_t won = scope_.winner();
            const std::size_t failed = scope_.first_failed();
            const auto look = [&]<std::size_t i>(auto& b, std::integral_constant<std::size_t, i>) {
                if (won == i)
                    result = outcome<value_type>(std::in_place, std::in_place_index<i>, regular(b.result()));
                else if (won == branch_scope::none && failed == i) result = as_failure<value_type>(b.result());
            };
            branches_.all([&](auto&... b) { (look(b, std::integral_constant<std::size_t, I>()), ...); });
            return result;
        }

        branch_scope scope_{true};
        branches<O...> branches_;
    };

private:
    std::tuple<O...> ops_;
};

/// The value of a range's winner, and where in the range it was.
template <operation O>
class when_any_range_operation : public operation_base<when_any_range_operation<O>> {
public:
    using value_type = std::pair<std::size_t, regular_t<typename O::value_type>>;
    static constexpr bool needs_executor = true;

    explicit when_any_range_operation(std::vector<O>&& ops) noexcept : ops_(std::move(ops)) {}

    class state {
    public:
        explicit state(when_any_range_operation&& w) : branches_(std::move(w.ops_)) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return branches_.start(scope_, r); }
        outcome<value_type> take() noexcept {
            if (const std::size_t won = scope_.winner(); won != branch_scope::none)
                return outcome<value_type>(std::in_place, won, regular(branches_[won].result()));
            return as_failure<value_type>(branches_[scope_.first_failed()].result());
        }

    private:
        branch_scope scope_{true};
        branch_range<O> branches_;
    };

private:
    std::vector<O> ops_;
};

}  // namespace detail

/// Runs all at the same time; the first that has a value wins, and the others are stopped and waited for.
/// Returns:       a variant at the index of the winner, `std::monostate` for void
/// Errors:        if none succeeds, the first failure is thrown
/// Cancellation:  a stop reaches all; a value that is there already wins. If all were stopped, this is stopped
/// Order:         started in the order of the arguments. A loser that has a value when it is stopped loses it: race
///                what can be asked again, not what is taken from a queue
template <awaitable... A>
    requires(sizeof...(A) > 0)
[[nodiscard]] auto when_any(A&&... a) {
    return detail::when_any_operation<detail::operation_for<A>...>(detail::operation_of(std::forward<A>(a))...);
}
template <class... A>
    requires(detail::named_operation<A> || ...)
void when_any(A&&...) {
    (detail::refuse_named<A>(), ...);
}

/// The same for a range of one type.
/// Requires:      the range is not empty; an empty one ends stopped
/// Returns:       the index of the winner and its value
template <operation O>
[[nodiscard]] auto when_any(std::vector<O>&& operations) {
    return detail::when_any_range_operation<O>(std::move(operations));
}
template <operation O>
[[nodiscard]] auto when_any(const std::vector<O>& operations) {
    static_assert(std::copy_constructible<O>,
                  "when_any: a range of tasks that has a name is passed with std::move, for each runs only once");
    if constexpr (std::copy_constructible<O>) return when_any(std::vector<O>(operations));
}

}  // namespace cordon::inline CORDON_ABI
