// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/config.hpp>
#include <cordon/core/executor.hpp>

#include <atomic>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Items in the order of arrival, for one thread.
class item_fifo {
public:
    [[nodiscard]] bool empty() const noexcept { return head_ == nullptr; }
    void push(work_item& item) noexcept { push_chain(item, item); }
    void push_chain(work_item& first, work_item& last) noexcept {
        last.next = nullptr;
        (head_ == nullptr ? head_ : tail_->next) = &first;
        tail_ = &last;
    }
    work_item& pop() noexcept {
        work_item& item = *head_;
        head_ = item.next;
        return item;
    }
    /// Appends a stack of items, the oldest of which is its last.
    void push_stack(work_item* newest) noexcept {
        work_item* oldest = nullptr;
        while (newest != nullptr) {
            work_item* const older = newest->next;
            newest->next = oldest;
            oldest = newest;
            newest = older;
        }
        while (oldest != nullptr) {
            work_item& item = *oldest;
            oldest = item.next;
            push(item);
        }
    }

private:
    work_item* head_ = nullptr;
    work_item* tail_ = nullptr;
};

/// Where other threads leave items for a loop: a stack that is taken as a whole.
class item_inbox {
public:
    /// Returns:       whether it was empty: the loop has to be told
    bool push(work_item& item) noexcept {
        work_item* head = head_.load(std::memory_order_relaxed);
        do {
            item.next = head;
        } while (!head_.compare_exchange_weak(head, &item, std::memory_order_release, std::memory_order_relaxed));
        return head == nullptr;
    }
    /// Order: what a poster wrote before is visible.
    void collect(item_fifo& into) noexcept {
        if (head_.load(std::memory_order_relaxed) != nullptr)
            into.push_stack(head_.exchange(nullptr, std::memory_order_acquire));
    }

private:
    std::atomic<work_item*> head_{nullptr};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
