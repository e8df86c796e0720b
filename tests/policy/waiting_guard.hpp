// SPDX-License-Identifier: MIT
#pragma once

// A guard that waits: a semaphore, as a bulkhead would be, which writes down what it is told.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/admitted_call.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/sync/async_semaphore.hpp>

#include <cstddef>
#include <string>
#include <utility>

namespace policy_test {

class waiting_guard {
public:
    class permit {
    public:
        permit() = default;
        explicit permit(waiting_guard& g) noexcept : guard_(&g) {}
        permit(permit&& other) noexcept : guard_(std::exchange(other.guard_, nullptr)) {}
        permit& operator=(permit&& other) noexcept {
            permit mine(std::move(other));
            std::swap(guard_, mine.guard_);
            return *this;
        }
        ~permit() { settle(cordon::verdict::stopped); }
        void settle(cordon::verdict v) noexcept {
            if (guard_ == nullptr) return;
            guard_->settled += "SFIX"[static_cast<std::size_t>(v)];
            std::exchange(guard_, nullptr)->permits_.release();
        }

    private:
        waiting_guard* guard_ = nullptr;
    };

    explicit waiting_guard(std::size_t n) : permits_(n, {.name = "guard"}) {}

    auto admission() { return cordon::detail::operation_of(admitted()); }
    template <cordon::detail::makes_awaitable F, class Classifier = cordon::outcome_classifier<>>
    auto operator()(F&& call, const Classifier& classify = cordon::detail::shared_classifier) {
        return cordon::detail::call_through(*this, std::forward<F>(call), classify);
    }
    cordon::async_semaphore::snapshot stats() const { return permits_.stats(); }

    std::string settled;  // S success, F failure, I ignored, X stopped

private:
    cordon::task<permit> admitted() {
        co_await permits_.acquire();
        co_return permit(*this);
    }
    cordon::async_semaphore permits_;
};

}  // namespace policy_test
