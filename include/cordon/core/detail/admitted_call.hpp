// SPDX-License-Identifier: MIT
#pragma once

// A call behind a guard: waits to be admitted, calls, and tells the guard what came of it.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>

#include <concepts>
#include <coroutine>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What an operation is judged by: `C` itself if it has no state, else where it lies.
template <class C>
class judge {
public:
    explicit judge(const C& classifier) noexcept : classifier_(&classifier) {}
    template <class T>
    [[nodiscard]] verdict operator()(const T& o) const noexcept {
        return (*classifier_)(o);
    }
    template <class T>
    [[nodiscard]] verdict of_value(const T& value) const noexcept {
        return classifier_->of_value(value);
    }
    static constexpr bool judges_rejections = C::judges_rejections;

private:
    const C* classifier_;
};
template <class C>
    requires std::is_empty_v<C>
class judge<C> : public C {
public:
    explicit judge(const C&) noexcept {}
};

/// The result of a call that is judged before it is taken. A value stays where it is, so that a pipeline moves it once.
template <class S>
class judged_result {
public:
    using value_type = typename S::taken;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
