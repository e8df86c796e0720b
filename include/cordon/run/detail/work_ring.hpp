// SPDX-License-Identifier: MIT
#pragma once

// The queue of one worker of a pool: the worker appends and takes, others steal half.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/item_queue.hpp>
#include <cordon/core/executor.hpp>

#include <atomic>
#include <cstddef>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Up to `capacity` items in the order of arrival.
///
/// Q1 Only the owner writes tail_ and the slots from tail_ on, and only while tail_ - head_ < capacity. It acquires
///    head_ first, so that who took from a slot has read it before the slot is written again.
/// Q2 Whoever moves head_ from h to h + n owns the items in the slots h to h + n - 1 that it read before: while head_
///    is h the owner of the ring does not write them (Q1), so what was read is what is there. Positions only grow and
///    have the width of a pointer: head_ is not h again within the life of a process.
/// Q3 The owner's store of tail_ publishes the slots and the items (release); takers acquire it. It is sequentially
///    consistent, and so are the loads of who is about to sleep: see thread_pool.hpp, P2.
class work_ring {
public:
    static constexpr std::size_t capacity = 128;

    /// Owner only. False: full, nothing has changed.
    bool push(work_item& item) noexcept {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        if (tail - head_.load(std::memory_order_acquire) == capacity) return false;  // Q1
        at(tail).store(&item, std::memory_order_relaxed);
        tail_.store(tail + 1, std::memory_order_seq_cst);  // Q3
        return true;
    }

    /// Owner only: appends the first `n` items of `from`, published together. Requires: n <= room().
    void append(item_fifo& from, std::size_t n) noexcept {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        for (std::size_t i = 0; i < n; ++i) at(tail + i).store(&from.pop(), std::memory_order_relaxed);
        if (n != 0) tail_.store(tail + n, std::memory_order_seq_cst);  // Q3
    }

    /// Owner only. Returns:       the oldest item, or null
    work_item* pop() noexcept {
        const std::size_t tail = tail_.load(std::memory_order_relaxed);
        std::size_t head = head_.load(std::memory_order_acquire);  // Q1: `steal` writes where this found nothing
        while (head != tail) {
            work_item* const item = at(head).load(std::memory_order_relaxed);
            if (head_.compare_exchange_weak(head, head + 1, std::memory_order_acq_rel,  // Q2
                                            std::memory_order_acquire))
                return item;
        }
        return nullptr;
    }

    /// Moves the older half of `victim` here. Owner only. Requires: `pop` has just found nothing here.
    /// Returns:       the oldest of them, which is not in the ring any more, or null
    work_item* steal(work_ring& victim) noexcept {
        const std::size_t own = tail_.load(std::memory_order_relaxed);
        std::size_t head = victim.head_.load(std::memory_order_acquire);
        for (;;) {
            const std::size_t there = victim.tail_.load(std::memory_order_acquire) - head;  // Q3
            if (there == 0) return nullptr;
            const std::size_t n = there - there / 2;
            if (n > capacity / 2) {  // two values that do not belong together
                head = victim.head_.load(std::memory_order_acquire);
                continue;
            }
            work_item* const first = victim.at(head).load(std::memory_order_relaxed);
            for (std::size_t i = 1; i < n; ++i)
                at(own + i - 1).store(victim.at(head + i).load(std::memory_order_relaxed), std::memory_order_relaxed);
            if (victim.head_.compare_exchange_strong(head, head + n, std::memory_order_acq_rel,
                                                     std::memory_order_acquire)) {  // Q2
                if (n > 1) tail_.store(own + n - 1, std::memory_order_seq_cst);
                return first;
            }
        }
    }

    /// From any thread: takes the oldest item, for one who has work of its own.
    work_item* poach() noexcept {
        std::size_t head = head_.load(std::memory_order_acquire);
        for (;;) {
            const std::size_t there = tail_.load(std::memory_order_acquire) - head;  // Q3
            if (there == 0) return nullptr;
            if (there > capacity) {  // two values that do not belong together
                head = head_.load(std::memory_order_acquire);
                continue;
            }
            work_item* const item = at(head).load(std::memory_order_relaxed);
            if (head_.compare_exchange_weak(head, head + 1, std::memory_order_acq_rel, std::memory_order_acquire))  // Q2
                return item;
        }
    }

    /// Owner only: takes the older half of a full ring out as a chain, newest last.
    /// Returns:       how many; 0 if others have taken some meanwhile
    std::size_t pop_half(work_item*& first, work_item*& last) noexcept {
        constexpr std::size_t n = capacity / 2;
        std::size_t head = head_.load(std::memory_order_relaxed);
        if (tail_.load(std::memory_order_relaxed) - head != capacity) return 0;
        work_item* items[n];
        for (std::size_t i = 0; i < n; ++i) items[i] = at(head + i).load(std::memory_order_relaxed);
        if (!head_.compare_exchange_strong(head, head + n, std::memory_order_acq_rel, std::memory_order_relaxed))  // Q2
            return 0;
        for (std::size_t i = 0; i + 1 < n; ++i) items[i]->next = items[i + 1];
        first = items[0];
        last = items[n - 1];
        return n;
    }

    /// From any thread. Order:         sequentially consistent
    [[nodiscard]] bool empty() const noexcept {
        return head_.load(std::memory_order_seq_cst) == tail_.load(std::memory_order_seq_cst);
    }
    /// From any thread: about how many there are.
    [[nodiscard]] std::size_t size() const noexcept {
        const std::size_t head = head_.load(std::memory_order_acquire);
        const std::size_t there = tail_.load(std::memory_order_acquire) - head;
        return there < capacity ? there : capacity;  // others may have taken some between the two
    }
    /// Owner only.
    [[nodiscard]] std::size_t room() const noexcept {
        return capacity - (tail_.load(std::memory_order_relaxed) - head_.load(std::memory_order_acquire));
    }

private:
    std::atomic<work_item*>& at(std::size_t i) noexcept { return slots_[i % capacity]; }

    alignas(64) std::atomic<std::size_t> head_{0};
    alignas(64) std::atomic<std::size_t> tail_{0};
    std::atomic<work_item*> slots_[capacity];
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
