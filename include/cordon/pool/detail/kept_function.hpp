// SPDX-License-Identifier: MIT
#pragma once

// A callable of the user's in an options struct. (`std::function` would pull in <functional>.)

#include <cordon/core/detail/config.hpp>

#include <concepts>
#include <memory>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class Signature>
class kept_function;

/// Empty, or made from a callable, which its copies share.
template <class R, class... Args>
class kept_function<R(Args...)> {
public:
    kept_function() noexcept {}  // not defaulted: as the default of an option, g++ 12 crashes on that
    template <class F>
        requires(!std::same_as<std::decay_t<F>, kept_function> &&
                 std::is_invocable_r_v<R, std::decay_t<F>&, Args...>)
    kept_function(F&& f)
        : object_(std::make_shared<std::decay_t<F>>(std::forward<F>(f))),
          call_([](void* o, Args... args) -> R {
              return (*static_cast<std::decay_t<F>*>(o))(static_cast<Args&&>(args)...);
          }) {}

    [[nodiscard]] explicit operator bool() const noexcept { return call_ != nullptr; }
    /// Requires:      it is not empty
    R operator()(Args... args) const { return call_(object_.get(), static_cast<Args&&>(args)...); }

private:
    std::shared_ptr<void> object_;
    R (*call_)(void*, Args...) = nullptr;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
