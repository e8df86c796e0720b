// SPDX-License-Identifier: MIT
#pragma once

// Several operations at the same time, all of them: `auto both = co_await when_all(fetch(a), fetch(b))`.

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
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <operation... O>
class when_all_operation : public operation_base<when_all_operation<O...>> {
public:
    using value_type = std::tuple<regular_t<typename O::value_type>...>;
    static constexpr bool needs_executor = true;

    explicit when_all_operation(O&&... ops) : ops_(std::move(ops)...) {}

    class state {
    public:
        explicit state(when_all_operation&& w) : branches_(std::move(w.ops_)) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            scope_.open(r, sizeof...(O));
            std::size_t index = 0;
            branches_.each([&](auto& b) { b.start(scope_, index++); });
            return scope_.opened();
        }
        outcome<value_type> take() noexcept {
            if (const std::size_t failed = scope_.first_failed(); failed != branch_scope::none) {
                outcome<value_type> failure = outcome<value_type>::stopped();
                std::size_t index = 0;
                branches_.each([&](auto& b) {
                    if (index++ == failed) failure = as_failure<value_type>(b.result());
                });
                return failure;
            }
            return branches_.all([](auto&... b) { return outcome<value_type>(std::in_place, regular(b.result())...); });
        }

    private:
        branch_scope scope_{false};
        branches<O...> branches_;
    };

private:
    std::tuple<O...> ops_;
};

template <operation O>
class when_all_range_operation : public operation_base<when_all_range_operation<O>> {
    static constexpr bool has_values = !std::is_void_v<typename O::value_type>;

public:
    using value_type = std::conditional_t<has_values, std::vector<regular_t<typename O::value_type>>, void>;
    static constexpr bool needs_executor = true;

    explicit when_all_range_operation(std::vector<O>&& ops) noexcept : ops_(std::move(ops)) {}

    class state {
    public:
        explicit state(when_all_range_operation&& w) : branches_(std::move(w.ops_)) {}
        bool ready() const noexcept { return branches_.empty(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return branches_.start(scope_, r); }
        outcome<value_type> take() noexcept {
            if (const std::size_t failed = scope_.first_failed(); failed != branch_scope::none)
                return as_failure<value_type>(branches_[failed].result());
            if constexpr (has_values) {
                value_type values;
                values.reserve(branches_.size());
                for (auto& b : branches_) values.push_back(*std::move(b.result()));
                return outcome<value_type>(std::in_place, std::move(values));
            } else {
                return outcome<void>();
            }
        }

    private:
        branch_scope scope_{false};
        branch_range<O> branches_;
    };

private:
    std::vector<O> ops_;
};

}  // namespace detail

/// Runs all at the same time, as branches with records of their own on the executor in effect.
/// Returns:       a tuple of their values, `std::monostate` for void
/// Errors:        the first failure stops the others, which are waited for, and is thrown
/// Cancellation:  a stop reaches all; ended by it, this is stopped. A branch that stops by itself stops the others
/// Order:         started in the order of the arguments
/// Cost:          no frame; the branches live in the awaiting frame
template <awaitable... A>
    requires(sizeof...(A) > 0)
[[nodiscard]] auto when_all(A&&... a) {
    return detail::when_all_operation<detail::operation_for<A>...>(detail::operation_of(std::forward<A>(a))...);
}
template <class... A>
    requires(detail::named_operation<A> || ...)
void when_all(A&&...) {
    (detail::refuse_named<A>(), ...);
}

/// The same for a range of one type.
/// Returns:       a vector of their values in the order of the range; nothing for void
/// Cost:          two allocations
template <operation O>
[[nodiscard]] auto when_all(std::vector<O>&& operations) {
    return detail::when_all_range_operation<O>(std::move(operations));
}
template <operation O>
[[nodiscard]] auto when_all(const std::vector<O>& operations) {
    static_assert(std::copy_constructible<O>,
                  "when_all: a range of tasks that has a name is passed with std::move, for each runs only once");
    if constexpr (std::copy_constructible<O>) return when_all(std::vector<O>(operations));
}

}  // namespace cordon::inline CORDON_ABI
