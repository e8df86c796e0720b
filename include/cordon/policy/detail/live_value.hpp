// SPDX-License-Identifier: MIT
#pragma once

// Numbers that are read by every call and changed once in a while.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A value that is read whole while others change it.
///
///  V1  `version_` is odd while a writer is at work. What was read between two equal even versions was written at once.
///  V2  Words are stored with release and loaded with acquire: a reader that met a new word sees the odd version before
///      it, so the second look at the version (relaxed is enough behind the acquires) differs from the first.
/// Cost:          of reading, two loads and one for each word that is wanted; no write, so that readers do not disturb
///                each other
template <class T>
    requires std::is_trivially_copyable_v<T> && std::is_default_constructible_v<T>
class live_value {
    using word = std::uint64_t;
    static constexpr std::size_t count = sizeof(T) / sizeof(word);
    static_assert(sizeof(T) % sizeof(word) == 0);

public:
    explicit live_value(const T& value) noexcept { store(value); }
    live_value(const live_value&) = delete;
    live_value& operator=(const live_value&) = delete;

    [[nodiscard]] T load() const noexcept { return load_words<T>(); }
    /// Its first member, for who needs no more.
    template <class First>
        requires(sizeof(First) % sizeof(word) == 0 && sizeof(First) <= sizeof(T) && std::is_trivially_copyable_v<First>)
    [[nodiscard]] First load_first() const noexcept {
        return load_words<First>();
    }
    void store(const T& value) noexcept {
        std::array<word, count> words{};
        std::memcpy(words.data(), std::addressof(value), sizeof value);  // no bit_cast: T may have padding
        const spin_guard guard(writing_);
        const std::uint32_t before = version_.load(std::memory_order_relaxed);
        version_.store(before + 1, std::memory_order_relaxed);
        for (std::size_t i = 0; i < count; ++i) words_[i].store(words[i], std::memory_order_release);
        version_.store(before + 2, std::memory_order_release);
    }

private:
    template <class Read>
    [[nodiscard]] Read load_words() const noexcept {
        Read value;
        for (spin_wait wait;; wait()) {
            const std::uint32_t before = version_.load(std::memory_order_acquire);
            read(value, std::make_index_sequence<sizeof(Read) / sizeof(word)>());
            if ((before & 1) == 0 && version_.load(std::memory_order_relaxed) == before) [[likely]]
                return value;
        }
    }
    /// Word by word to where the value is wanted, without a loop, which would keep it from being inlined.
    template <class Read, std::size_t... i>
    void read(Read& value, std::index_sequence<i...>) const noexcept {
        unsigned char* const bytes = reinterpret_cast<unsigned char*>(std::addressof(value));
        (copy(bytes + i * sizeof(word), words_[i].load(std::memory_order_acquire)), ...);
    }
    static void copy(unsigned char* to, word w) noexcept { std::memcpy(to, &w, sizeof w); }

    std::atomic<std::uint32_t> version_{0};
    spin_lock writing_;
    std::atomic<word> words_[count];
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
