// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>

#include <optional>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An outcome that is set once, from any thread, and awaited once.
template <class T>
class one_shot {
public:
    class waiter;

    /// Returns:       whether this was the first; otherwise nothing has changed
    bool set(outcome<T>&& result) noexcept {
        const spin_guard guard(lock_);
        if (result_) return false;
        result_.emplace(std::move(result));
        if (waiter_ != nullptr) waiter_->complete();
        return true;
    }
    [[nodiscard]] bool is_set() noexcept {
        const spin_guard guard(lock_);
        return result_.has_value();
    }
    [[nodiscard]] bool awaited() noexcept {
        const spin_guard guard(lock_);
        return waiter_ != nullptr;
    }

    /// The leaf that waits for it. A stop ends the wait and leaves the one_shot as it was.
    /// Order:         who finds it set, sees what was written before; and `set` touches it no more
    class waiter : public leaf<waiter> {
    public:
        waiter(one_shot& s, const wait_label& what) noexcept : shot_(&s), label_(&what) {}

        bool ready() noexcept {
            const spin_guard guard(shot_->lock_);
            return shot_->result_ && !shot_->result_->is_stopped();
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return this->suspend(r); }
        outcome<T> take() noexcept { return *std::exchange(shot_->result_, std::nullopt); }

    private:
        friend class leaf<waiter>;
        friend class one_shot;
        void enqueue() noexcept {
            const spin_guard guard(shot_->lock_);
            if (shot_->result_) this->complete();
            else if (shot_->waiter_ != nullptr) fail("awaited by two tasks at once: only one can take the result");
            else shot_->waiter_ = this;
        }
        void dequeue(bool) noexcept {
            const spin_guard guard(shot_->lock_);
            if (shot_->waiter_ == this) shot_->waiter_ = nullptr;
        }
        const wait_label& label() const noexcept { return *label_; }
        bool ends_stopped() const noexcept { return shot_->result_->is_stopped(); }

        one_shot* shot_;
        const wait_label* label_;
    };

    std::optional<outcome<T>> take_now() noexcept {
        const spin_guard guard(lock_);
        return std::exchange(result_, std::nullopt);
    }

private:
    spin_lock lock_;
    waiter* waiter_ = nullptr;            // under lock_
    std::optional<outcome<T>> result_;    // under lock_ until set; then the waiter's
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
