// SPDX-License-Identifier: MIT
#pragma once

// What a policy says of a call that it makes again or answers in another way.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>

#include <exception>

namespace cordon::inline CORDON_ABI {

/// Why a call failed: an exception, a refusal, or a value that counts as a failure.
/// Lifetime:      valid while the function runs that is given it, and while what it returns is awaited
class failure {
public:
    template <class T>
    explicit failure(const outcome<T>* unless_value) noexcept {
        if (unless_value == nullptr) return;
        if (unless_value->is_rejected()) rejection_ = &unless_value->rejection();
        else error_ = unless_value->error();
    }

    [[nodiscard]] bool is_value() const noexcept { return error_ == nullptr && rejection_ == nullptr; }
    [[nodiscard]] bool is_error() const noexcept { return error_ != nullptr; }
    [[nodiscard]] bool is_rejected() const noexcept { return rejection_ != nullptr; }

    /// The exception; null if it is none.
    [[nodiscard]] const std::exception_ptr& error() const noexcept { return error_; }
    /// The refusal. Requires `is_rejected()`.
    [[nodiscard]] const cordon::rejection& rejection() const noexcept { return *rejection_; }

private:
    std::exception_ptr error_;
    const cordon::rejection* rejection_ = nullptr;
};

}  // namespace cordon::inline CORDON_ABI
