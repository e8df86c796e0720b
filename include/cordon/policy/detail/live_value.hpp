// SPDX-License-Identifier: MIT
#pragma once

// Numbers that are read by every call and changed once in a while.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A value that is read whole while others change it.
///
///  V1  `version_` is odd while a writer is at work. What was read between two equal even versions was written at once.
///  V2  Words are stored with release and loaded with acquire: a reader that met a new word sees the odd version before
///      it, so the second look at the version (relaxed is enough behind the acquires) differs from the first.
/// Cost:          of reading, two loads and one for each word; no write, so that readers do not disturb each other
template <class T>
    requires std::is_trivially_copyable_v<T> && std::is_default_constructible_v<T>
class live_value {
    using word = std::uintptr_t;
    static constexpr std::size_t count = (sizeof(T) + sizeof(word) - 1) / sizeof(word);

public:
    explicit live_value(const T& value) noexcept { store(value); }
    live_value(const live_value& other) noexcept : live_value(other.load()) {}
    live_value& operator=(const live_value&) = delete;

    [[nodiscard]] T load() const noexcept {
        word words[count];
        for (spin_wait wait;; wait()) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);
            if ((before & 1) != 0) continue;
            for (std::size_t i = 0; i < count; ++i) words[i] = words_[i].load(std::memory_order_acquire);
            if (version_.load(std::memory_order_relaxed) == before) break;
        }
        T value;
        std::memcpy(static_cast<void*>(&value), words, sizeof(T));
        return value;
    }
    void store(const T& value) noexcept {
        word words[count] = {};
        std::memcpy(words, &value, sizeof(T));
        const spin_guard guard(writing_);
        const std::uint32_t before = version_.load(std::memory_order_relaxed);
        version_.store(before + 1, std::memory_order_relaxed);
        for (std::size_t i = 0; i < count; ++i) words_[i].store(words[i], std::memory_order_release);
        version_.store(before + 2, std::memory_order_release);
    }

private:
    std::atomic<std::uint32_t> version_{0};
    spin_lock writing_;
    std::atomic<word> words_[count];
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
