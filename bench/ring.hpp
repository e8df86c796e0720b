// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/detail/spin_lock.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <utility>

namespace bench {

/// What is on its way from one thread to another, sixteen at a time. Each side reads the other's index only when it has
/// used up what it saw of it.
template <class T>
class ring {
public:
    void send(T item, bool last) noexcept {
        sender& me = sender_;
        for (cordon::detail::spin_wait wait; me.sent - me.seen == slots; wait()) {
            me.seen = taken_.load(std::memory_order_acquire);
            if (me.sent - me.seen < slots) break;
        }
        slots_[me.sent % slots] = std::move(item);
        if (++me.sent % batch == 0 || last) sent_.store(me.sent, std::memory_order_release);
    }
    T receive() noexcept {
        receiver& me = receiver_;
        for (cordon::detail::spin_wait wait; me.taken == me.seen; wait()) {
            me.seen = sent_.load(std::memory_order_acquire);
            if (me.taken != me.seen) break;
        }
        T item = std::move(slots_[me.taken % slots]);
        if (++me.taken % batch == 0) taken_.store(me.taken, std::memory_order_release);
        return item;
    }

private:
    static constexpr std::size_t batch = 16, slots = 1024;
    struct alignas(64) sender {
        std::size_t sent = 0, seen = 0;
    };
    struct alignas(64) receiver {
        std::size_t taken = 0, seen = 0;
    };
    std::array<T, slots> slots_{};
    alignas(64) std::atomic<std::size_t> sent_{0};
    alignas(64) std::atomic<std::size_t> taken_{0};
    sender sender_;
    receiver receiver_;
};

}  // namespace bench
