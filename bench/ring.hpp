// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/spin_lock.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

namespace bench {

/// What is on its way from one thread to another, sixteen at a time.
template <class T>
class ring {
public:
    void send(T item, bool last) noexcept {
        slots_[tail_ % slots] = std::move(item);
        if (++tail_ % batch == 0 || last) sent_.store(tail_, std::memory_order_release);
        constexpr std::size_t most = slots - batch;
        for (cordon::detail::spin_wait wait; tail_ - taken_.load(std::memory_order_acquire) > most;) wait();
    }
    T receive() noexcept {
        for (cordon::detail::spin_wait wait; head_ == sent_.load(std::memory_order_acquire);) wait();
        T item = std::move(slots_[head_ % slots]);
        if (++head_ % batch == 0) taken_.store(head_, std::memory_order_release);
        return item;
    }

private:
    static constexpr std::size_t batch = 16, slots = 1024;
    std::array<T, slots> slots_{};
    alignas(64) std::atomic<std::size_t> sent_{0};
    std::size_t tail_ = 0;
    alignas(64) std::atomic<std::size_t> taken_{0};
    std::size_t head_ = 0;
};

}  // namespace bench
