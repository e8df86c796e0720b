// SPDX-License-Identifier: MIT
#pragma once

// Memory for coroutine frames. Each thread keeps chains of up to 64 free frames per size class, one that it takes from
// and gives to, and a spare; whole chains travel between threads through a depot. So the usual pair of allocate and
// deallocate is a pop and a push without an atomic, and a thread that only frees feeds one that only allocates.
//
// Every frame comes from operator new on its own, of its class's size even where the cache is off: any frame can go
// back to operator delete at any time, and objects that were built with and without the cache can free each other's.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <new>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constexpr std::size_t frame_granule = 16;    // size classes are this far apart
inline constexpr std::size_t frame_classes = 128;   // up to 2056 bytes; larger frames are not kept
inline constexpr std::uint32_t frames_in_chain = 64;
inline constexpr std::size_t frame_depot_limit = std::size_t{128} << 20;  // bytes in the depot, all classes together
inline constexpr std::size_t frame_aging_step = std::size_t{1} << 20;     // bytes that one call gives back at most
inline constexpr std::chrono::seconds frame_aging_epoch{1};

/// The class of a frame of `size` bytes: class c holds frames of c * 16 + 24, since an allocator that keeps a word of
/// its own before each piece, as glibc's does, wastes nothing then. Not below `frame_classes` for those that are not
/// kept, sizes up to 8 among them, which no coroutine has.
inline constexpr std::size_t frame_first = frame_granule + sizeof(void*);
[[nodiscard]] constexpr std::size_t frame_class(std::size_t size) noexcept {
    return (size - 1 - sizeof(void*)) / frame_granule;
}
[[nodiscard]] constexpr std::size_t frame_size(std::size_t index) noexcept {
    return index * frame_granule + frame_first;
}

[[nodiscard]] inline void* new_frame(std::size_t index) { return ::operator new(frame_size(index)); }

inline void delete_frame(void* frame, std::size_t index) noexcept {
#if defined(__cpp_sized_deallocation)
    ::operator delete(frame, frame_size(index));
#else
    static_cast<void>(index);
    ::operator delete(frame);
#endif
}

#if CORDON_FRAME_CACHE

/// What a free frame holds.
struct free_frame {
    free_frame* next;        // in its chain
    free_frame* next_chain;  // in the depot, for the first of a chain
};
static_assert(sizeof(free_frame) <= frame_granule);

inline void delete_chain(free_frame* frame, std::size_t index) noexcept {
    while (frame != nullptr) {
        free_frame* const next = frame->next;
        delete_frame(frame, index);
        frame = next;
    }
}

/// The full chains of one class.
class alignas(64) frame_depot {
public:
    /// Takes one chain, or null.
    [[nodiscard]] free_frame* take() noexcept {
        if (top_.load(std::memory_order_relaxed) == nullptr) return nullptr;
        const spin_guard guard(lock_);
        free_frame* const chain = pop();
        if (chain != nullptr && unused_ > chains_) unused_ = chains_;
        return chain;
    }

    void put(free_frame* chain) noexcept {
        const spin_guard guard(lock_);
        chain->next_chain = top_.load(std::memory_order_relaxed);
        top_.store(chain, std::memory_order_relaxed);
        ++chains_;
    }

    /// Takes one of the chains that nobody needed in this epoch, or null.
    [[nodiscard]] free_frame* take_unused() noexcept {
        const spin_guard guard(lock_);
        if (unused_ == 0) return nullptr;
        --unused_;
        return pop();
    }

    void begin_epoch() noexcept {
        const spin_guard guard(lock_);
        unused_ = chains_;
    }

private:
    free_frame* pop() noexcept {
        free_frame* const chain = top_.load(std::memory_order_relaxed);
        if (chain == nullptr) return nullptr;
        top_.store(chain->next_chain, std::memory_order_relaxed);
        --chains_;
        return chain;
    }

    spin_lock lock_;
    std::uint32_t chains_ = 0;
    std::uint32_t unused_ = 0;               // the fewest chains that lay here in this epoch; at most chains_
    std::atomic<free_frame*> top_{nullptr};  // written under the lock; null when read without it: probably empty
};

struct frame_depots {
    frame_depot classes[frame_classes];
    alignas(64) std::atomic<std::size_t> bytes{0};  // in all classes; a reservation, made before a chain is put
    std::atomic<bool> aging{false};                 // whether a thread is at it
    std::atomic<std::chrono::steady_clock::rep> next_epoch{0};
};
inline constinit frame_depots depots{};

inline constexpr std::size_t chain_size(std::size_t index) noexcept { return frames_in_chain * frame_size(index); }

/// Keeps a full chain for any thread, or frees it if the depot is full.
inline void keep_chain(free_frame* chain, std::size_t index) noexcept {
    const std::size_t size = chain_size(index);
    if (depots.bytes.fetch_add(size, std::memory_order_relaxed) + size <= frame_depot_limit) {
        depots.classes[index].put(chain);
    } else {
        depots.bytes.fetch_sub(size, std::memory_order_relaxed);
        delete_chain(chain, index);
    }
}

/// A thread's own. Zero, as the thread begins, sends the first use of either function to its slow path, and so it is
/// again when the thread ends: the fast paths need no test for it.
struct frame_cache {
    enum class phase : std::uint8_t { fresh, open, closed };
    struct bin {
        free_frame* active;
        std::uint32_t room;  // open: 64 less the length of `active`
    };

    bin bins[frame_classes];
    free_frame* spare[frame_classes];  // a full chain or null
    phase now;
};
// Trivially destructible and constant-initialised: access needs no guard. The guard below has the destructor.
inline constinit thread_local frame_cache frames_here{};

inline void close_frame_cache() noexcept {
    frame_cache& cache = frames_here;
    cache.now = frame_cache::phase::closed;
    for (std::size_t i = 0; i < frame_classes; ++i) {
        frame_cache::bin& bin = cache.bins[i];
        free_frame* const active = bin.active;
        free_frame* const spare = cache.spare[i];
        const bool full = bin.room == 0;
        bin = {};
        cache.spare[i] = nullptr;
        if (spare != nullptr) keep_chain(spare, i);
        if (active == nullptr) continue;
        if (full) {
            keep_chain(active, i);
        } else {
            delete_chain(active, i);
        }
    }
}

struct frame_cache_guard {
    frame_cache_guard() noexcept {
        frames_here.now = frame_cache::phase::open;
        for (frame_cache::bin& bin : frames_here.bins) bin.room = frames_in_chain;
    }
    frame_cache_guard(const frame_cache_guard&) = delete;
    frame_cache_guard& operator=(const frame_cache_guard&) = delete;
    ~frame_cache_guard() { close_frame_cache(); }
};

/// Whether this thread keeps frames: no longer once its thread-locals are being destroyed.
inline bool frame_cache_open() noexcept {
    if (frames_here.now == frame_cache::phase::fresh) [[unlikely]] {
        static thread_local const frame_cache_guard guard;
    }
    return frames_here.now == frame_cache::phase::open;
}

inline void push_frame(frame_cache::bin& bin, void* memory) noexcept {
    auto* const frame = ::new (memory) free_frame;
    frame->next = bin.active;
    bin.active = frame;
    --bin.room;
}

/// The active chain is empty.
CORDON_NOINLINE inline void* refill_frames(std::size_t size) {
    const std::size_t index = frame_class(size);
    if (frame_cache_open()) {
        frame_cache& cache = frames_here;
        free_frame* chain = cache.spare[index];
        if (chain != nullptr) {
            cache.spare[index] = nullptr;
        } else if (chain = depots.classes[index].take(); chain != nullptr) {
            depots.bytes.fetch_sub(chain_size(index), std::memory_order_relaxed);
        }
        if (chain != nullptr) {
            cache.bins[index] = {chain->next, 1};
            return chain;
        }
    }
    return new_frame(index);
}

/// The active chain is full.
CORDON_NOINLINE inline void spill_frame(void* memory, std::size_t size) noexcept {
    const std::size_t index = frame_class(size);
    const bool begun = frames_here.now != frame_cache::phase::fresh;
    if (!frame_cache_open()) return delete_frame(memory, index);
    frame_cache& cache = frames_here;
    frame_cache::bin& bin = cache.bins[index];
    if (begun) {
        if (cache.spare[index] != nullptr) keep_chain(cache.spare[index], index);
        cache.spare[index] = bin.active;
        bin = {nullptr, frames_in_chain};
    }
    push_frame(bin, memory);
}

/// A frame of at least `size` bytes with the default alignment. Errors: as operator new.
// The empty asm keeps GCC from proving that two calls are one.
CORDON_THREAD_LOCAL_ACCESS inline void* allocate_frame(std::size_t size) {
#if defined(__GNUC__)
    asm volatile("");
#endif
    const std::size_t index = frame_class(size);
    if (index >= frame_classes) [[unlikely]] return new_frame(index);
    frame_cache::bin& bin = frames_here.bins[index];
    free_frame* const frame = bin.active;
    if (frame == nullptr) [[unlikely]] return refill_frames(size);
    bin.active = frame->next;
    ++bin.room;
    return frame;
}

/// Gives back what `allocate_frame(size)` returned, on any thread.
#if defined(__GNUC__) && !defined(__clang__)
[[gnu::always_inline]]
#else
CORDON_NOINLINE
#endif
inline void deallocate_frame(void* memory, std::size_t size) noexcept {
#if defined(__GNUC__)
    asm volatile("");
#endif
    const std::size_t index = frame_class(size);
    if (index >= frame_classes) [[unlikely]] return delete_frame(memory, index);
    frame_cache::bin& bin = frames_here.bins[index];
    if (bin.room == 0) [[unlikely]] return spill_frame(memory, size);
    push_frame(bin, memory);
}

/// The bytes that lie in the depot.
[[nodiscard]] inline std::size_t frame_depot_bytes() noexcept { return depots.bytes.load(std::memory_order_relaxed); }

/// As below, with the time given. `now` must come from the steady clock.
CORDON_NOINLINE inline bool age_frame_depot(std::chrono::steady_clock::time_point now) noexcept {
    const auto ticks = now.time_since_epoch().count();
    const auto early = [ticks] { return ticks < depots.next_epoch.load(std::memory_order_relaxed); };
    if (early() || depots.aging.exchange(true, std::memory_order_acquire)) return true;
    if (early()) {  // another thread has just been through
        depots.aging.store(false, std::memory_order_release);
        return true;
    }
    std::size_t left = frame_aging_step;
    for (std::size_t i = 0; i < frame_classes && left != 0; ++i) {
        while (free_frame* const chain = left != 0 ? depots.classes[i].take_unused() : nullptr) {
            const std::size_t size = chain_size(i);
            depots.bytes.fetch_sub(size, std::memory_order_relaxed);
            delete_chain(chain, i);
            left -= size < left ? size : left;
        }
    }
    if (left != 0) {  // all that was unused is gone; otherwise the next call goes on
        for (frame_depot& depot : depots.classes) depot.begin_epoch();
        const std::chrono::steady_clock::duration epoch = frame_aging_epoch;
        depots.next_epoch.store(ticks + epoch.count(), std::memory_order_relaxed);
    }
    depots.aging.store(false, std::memory_order_release);
    return frame_depot_bytes() != 0;
}

/// Gives back to operator delete what lay unused in the depot for an epoch, which lasts a second at least. A loop calls
/// it before it parks.
/// Returns:       whether the depot still holds something: a loop that parks for long may look again a second later
/// Cost:          one relaxed load while the depot is empty, and a reading of the clock while it is not; one call never
///                frees more than 1 MiB and a chain
inline bool age_frame_depot() noexcept {
    if (frame_depot_bytes() == 0) return false;
    return age_frame_depot(std::chrono::steady_clock::now());
}

#else

[[nodiscard]] inline void* allocate_frame(std::size_t size) { return new_frame(frame_class(size)); }
inline void deallocate_frame(void* memory, std::size_t size) noexcept { delete_frame(memory, frame_class(size)); }
[[nodiscard]] inline std::size_t frame_depot_bytes() noexcept { return 0; }
inline bool age_frame_depot(std::chrono::steady_clock::time_point) noexcept { return false; }
inline bool age_frame_depot() noexcept { return false; }

#endif

/// A base of what lies in blocks of the cache. No template: g++ 12 crashes on these members of a coroutine's promise if
/// they depend on a type that is local to another coroutine.
class cached_frame {
public:
    static void* operator new(std::size_t size) { return allocate_frame(size); }
#if defined(__GNUC__) && !defined(__clang__)
    [[gnu::always_inline]]  // so that the size is a constant
#endif
    static void operator delete(void* frame, std::size_t size) noexcept { deallocate_frame(frame, size); }
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
