// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/flagged_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/task_record.hpp>

#include <optional>
#include <string>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An outcome that is set once, from any thread, and awaited once.
template <class T>
class one_shot {
public:
    class waiter;
    class wait_operation;

    /// Returns:       whether this was the first; otherwise nothing has changed
    bool set(outcome<T>&& result) noexcept {
        lock_.lock();
        const bool first = !lock_.raised_inside();
        if (first) {
            result_.emplace(std::move(result));
            if (waiter_ != nullptr) waiter_->complete();
        }
        lock_.unlock(true);
        run_woken();
        return first;
    }
    [[nodiscard]] bool is_set() const noexcept { return lock_.raised(); }
    /// An operation that gives the outcome.
    [[nodiscard]] wait_operation wait(const wait_label& what) noexcept { return wait_operation(*this, what); }
    /// Terminates if a task waits for it, and says which: for the destructor of what is made of it.
    void check_not_awaited(const char* noun) noexcept {
        lock_.lock();
        const bool awaited = waiter_ != nullptr;
        const task_record* const record = awaited ? waiter_->receiver().record() : nullptr;
        lock_.unlock();
        if (awaited) [[unlikely]] fail_awaited(noun, record);
    }

    /// The leaf that waits for it. A stop ends the wait and leaves the one_shot as it was.
    /// Order:         who finds it set, sees what was written before; and `set` touches it no more
    class waiter : public leaf<waiter> {
    public:
        waiter(one_shot& s, const wait_label& what) noexcept : shot_(&s), label_(&what) {}

        bool ready() noexcept {
            return shot_->is_set() && shot_->result_ && !shot_->result_->is_stopped();
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return this->suspend(r); }
        outcome<T> take() noexcept {
            if (!shot_->result_) fail("a result was awaited twice: the first await has taken it");
            return *std::exchange(shot_->result_, std::nullopt);
        }

    private:
        friend class leaf<waiter>;
        friend class one_shot;
        void enqueue() noexcept {
            shot_->lock_.lock();
            if (shot_->lock_.raised_inside()) this->complete();
            else if (shot_->waiter_ != nullptr) fail("awaited by two tasks at once: only one can take the result");
            else shot_->waiter_ = this;
            shot_->lock_.unlock();
        }
        void dequeue(bool) noexcept {
            shot_->lock_.lock();
            if (shot_->waiter_ == this) shot_->waiter_ = nullptr;
            shot_->lock_.unlock();
        }
        void leave_queue() noexcept { dequeue(true); }
        const wait_label& label() const noexcept { return *label_; }
        bool ends_stopped() const noexcept { return shot_->result_ && shot_->result_->is_stopped(); }

        one_shot* shot_;
        const wait_label* label_;
    };

    class wait_operation : public operation_base<wait_operation> {
    public:
        using value_type = T;
        static constexpr bool needs_executor = false;

        wait_operation(one_shot& s, const wait_label& what) noexcept : shot_(&s), label_(&what) {}
        class state : public waiter {
        public:
            explicit state(wait_operation&& w) noexcept : waiter(*w.shot_, *w.label_) {}
        };

    private:
        one_shot* shot_;
        const wait_label* label_;
    };

private:
    [[noreturn]] CORDON_NOINLINE static void fail_awaited(const char* noun, const task_record* record) noexcept {
        std::string text = std::string(noun) + " destroyed while a task waits for it\n";
        if (record != nullptr)
            for (const task_info& task : cordon::live_tasks())
                if (task.id == record->id()) text += cordon::describe(task);
        fail(text);
    }

    flagged_lock lock_;                   ///< its flag says that the result is there
    waiter* waiter_ = nullptr;            ///< under lock_
    std::optional<outcome<T>> result_;    ///< under lock_ until set; then the waiter's
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
