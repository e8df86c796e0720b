// SPDX-License-Identifier: MIT
#pragma once

// What each thread keeps of each object_pool: two chains of spare objects, one that it takes from and gives to, and one
// that is full, or none. So the usual pair of acquire and release is a pop and a push without an atomic exchange, and
// threads that only give feed threads that only take, a chain at a time, through the depot.
//
// A pool has a small number, which indexes an array that each thread has. Numbers are used again, so an entry of that
// array also says whose it is.
//
// N1 An entry is opened by its thread, and closed by its thread or its pool's end; both under the registry's lock. So
//    an entry that says it is a pool's belongs to a pool that lives.
// N2 What an open entry holds is changed by its thread alone, and read by others, under the registry's lock, only for
//    figures (relaxed), or once by its pool's end, which no use of that pool is concurrent with.
// N3 An array is replaced by its thread, under the registry's lock: whoever walks over all threads holds it.
// N4 A thread that ends and has to destroy objects does so without the lock, after it has said so in `leaving` under
//    it. The end of the pool, which has closed all entries by then, waits until nobody is leaving.
// N5 A pool knows the registry that it was made in. Where a library with a copy of its own uses it, that thread has no
//    entry for it, and objects go through the depot alone.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/pool/detail/object_depot.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Of one pool. A fresh one has no room, which sends the first use of either function to its slow path.
struct alignas(64) pool_entry {
    object_depot* of = nullptr;
    spare* active = nullptr;
    std::atomic<spare*> full{nullptr};  // a chain of the full length, or null
    std::atomic<std::uint32_t> room{0};  // the full length less that of `active`

    [[nodiscard]] std::size_t count() const noexcept {
        const std::size_t length = of->limits().chain_length;
        return (full.load(std::memory_order_relaxed) != nullptr ? length : 0) + length -
               room.load(std::memory_order_relaxed);
    }
    void open(object_depot& d) noexcept {
        of = &d;
        room.store(d.limits().chain_length, std::memory_order_relaxed);
    }
    struct chains {
        spare* active;
        std::uint32_t active_length;
        spare* full;
    };
    [[nodiscard]] chains close() noexcept {
        const std::uint32_t length = of->limits().chain_length - room.load(std::memory_order_relaxed);
        of = nullptr;
        room.store(0, std::memory_order_relaxed);
        return {std::exchange(active, nullptr), length, full.exchange(nullptr, std::memory_order_relaxed)};
    }
};

/// Of one thread. Trivially destructible and constant-initialised: access needs no guard. The guard below has the
/// destructor.
struct thread_spares {
    enum class phase : std::uint8_t { fresh, open, closed };

    pool_entry* entries = nullptr;
    std::uint32_t count = 0;
    phase now = phase::fresh;
    thread_spares* next = nullptr;   // in the registry
    thread_spares** here = nullptr;
};
inline constinit thread_local thread_spares spares_here{};

struct pool_registry {
    spin_lock lock;                    // N1, N3; taken before that of a depot
    object_depot* pools = nullptr;     // by their numbers
    thread_spares* threads = nullptr;
};
inline constinit pool_registry pools_alive{};

/// Gives the pool the smallest number that is free.
inline void enter_pool(pool_registry& home, object_depot& d) noexcept {
    const spin_guard guard(home.lock);
    object_depot** at = &home.pools;
    for (; *at != nullptr && (*at)->id == d.id; at = &(*at)->next_pool) ++d.id;
    d.next_pool = *at;
    *at = &d;
}

/// Destroys what the threads keep of a pool that ends; they cannot reach it any more.
/// Requires:      nobody uses the pool
inline void leave_pool(pool_registry& home, object_depot& d) noexcept {
    spare* chains = nullptr;
    const auto collect = [&](spare* chain) {
        if (chain == nullptr) return;
        chain->next_chain = chains;
        chains = chain;
    };
    {
        const spin_guard guard(home.lock);
        for (thread_spares* t = home.threads; t != nullptr; t = t->next) {
            if (d.id >= t->count || t->entries[d.id].of != &d) continue;
            const pool_entry::chains kept = t->entries[d.id].close();  // N1
            collect(kept.active);
            collect(kept.full);
        }
        object_depot** at = &home.pools;
        while (*at != &d) at = &(*at)->next_pool;
        *at = d.next_pool;
    }
    for (spin_wait wait; d.leaving.load(std::memory_order_acquire) != 0;) wait();  // N4
    d.stop_aging();
    for (spare* next; chains != nullptr; chains = next) {
        next = chains->next_chain;
        d.destroy(chains);
    }
}

/// How many spare objects of the pool the threads keep.
[[nodiscard]] inline std::size_t spares_of_threads(pool_registry& home, const object_depot& d) noexcept {
    std::size_t n = 0;
    const spin_guard guard(home.lock);
    for (const thread_spares* t = home.threads; t != nullptr; t = t->next)
        if (d.id < t->count && t->entries[d.id].of == &d) n += t->entries[d.id].count();
    return n;
}

/// Destroys a chain that the depot has no room for, on a thread that ends. Under the registry's lock, which it gives up
/// meanwhile.
inline void destroy_leaving(object_depot& d, spare* chain) noexcept {
    d.leaving.fetch_add(1, std::memory_order_relaxed);
    pools_alive.lock.unlock();
    d.destroy(chain);
    d.leaving.fetch_sub(1, std::memory_order_release);  // N4
    pools_alive.lock.lock();
}

struct thread_spares_guard {
    thread_spares_guard() noexcept {
        thread_spares& here = spares_here;
        const spin_guard guard(pools_alive.lock);
        here.now = thread_spares::phase::open;
        here.next = pools_alive.threads;
        here.here = &pools_alive.threads;
        if (here.next != nullptr) here.next->here = &here.next;
        pools_alive.threads = &here;
    }
    thread_spares_guard(const thread_spares_guard&) = delete;
    thread_spares_guard& operator=(const thread_spares_guard&) = delete;
    /// What objects do as they are destroyed may reach this thread's entries again, but opens none.
    ~thread_spares_guard() {
        thread_spares& here = spares_here;
        here.now = thread_spares::phase::closed;
        pools_alive.lock.lock();
        for (std::uint32_t i = 0; i < here.count; ++i) {
            object_depot* const of = here.entries[i].of;
            if (of == nullptr) continue;
            const pool_entry::chains kept = here.entries[i].close();  // N1
            const bool no_room_for_full = kept.full != nullptr && !of->put(kept.full, of->limits().chain_length);
            const bool no_room_for_active = kept.active != nullptr && !of->put(kept.active, kept.active_length);
            // together, since the pool may end as soon as the lock is given up and nobody is leaving
            if (no_room_for_full && no_room_for_active) {
                spare* last = kept.active;
                while (last->next != nullptr) last = last->next;
                last->next = kept.full;
            }
            if (no_room_for_active) destroy_leaving(*of, kept.active);
            else if (no_room_for_full) destroy_leaving(*of, kept.full);
        }
        *here.here = here.next;
        if (here.next != nullptr) here.next->here = here.here;
        here.count = 0;
        const std::unique_ptr<pool_entry[]> freed(std::exchange(here.entries, nullptr));
        pools_alive.lock.unlock();
    }
};

/// This thread's entry for the pool.
/// Returns:       null if it has none: its thread-locals are being destroyed, there is no memory, or N5
CORDON_NOINLINE inline pool_entry* open_entry(const pool_registry& home, object_depot& d) noexcept {
    thread_spares& here = spares_here;
    if (&home != &pools_alive) return nullptr;  // N5
    if (here.now == thread_spares::phase::fresh) static thread_local const thread_spares_guard guard;
    if (here.now == thread_spares::phase::closed) return nullptr;
    if (d.id >= here.count) {
        const std::uint32_t count = (d.id / 8 + 1) * 8;
        std::unique_ptr<pool_entry[]> entries(new (std::nothrow) pool_entry[count]), old;
        if (entries == nullptr) return nullptr;
        const spin_guard guard(pools_alive.lock);  // N3
        for (std::uint32_t i = 0; i < here.count; ++i) {
            pool_entry& from = here.entries[i];
            entries[i].of = from.of;
            entries[i].active = from.active;
            entries[i].full.store(from.full.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].room.store(from.room.load(std::memory_order_relaxed), std::memory_order_relaxed);
        }
        old.reset(std::exchange(here.entries, entries.release()));
        here.count = count;
        here.entries[d.id].open(d);  // N1
    } else if (here.entries[d.id].of != &d) {
        const spin_guard guard(pools_alive.lock);
        here.entries[d.id].open(d);  // N1
    }
    return &here.entries[d.id];
}

/// The active chain is empty.
/// Returns:       null if nothing is spare
CORDON_NOINLINE inline spare* refill(const pool_registry& home, object_depot& d) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) return d.take_one();
    std::uint32_t length = d.limits().chain_length;
    spare* chain = entry->full.load(std::memory_order_relaxed);
    if (chain != nullptr) {
        entry->full.store(nullptr, std::memory_order_relaxed);
    } else {
        chain = d.take();
        if (chain == nullptr) return nullptr;
        length = chain->length;
    }
    entry->active = chain->next;
    entry->room.store(d.limits().chain_length - length + 1, std::memory_order_relaxed);
    return chain;
}

/// The active chain is full. Looks after the depot, too, as often as that gets a chain.
CORDON_NOINLINE inline void spill(const pool_registry& home, object_depot& d, spare* one) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) {
        one->next = nullptr;
        if (!d.put_one(one)) d.destroy(one);
        return;
    }
    std::uint32_t room = entry->room.load(std::memory_order_relaxed);
    spare *too_many = nullptr, *old = nullptr;
    if (room == 0) {
        room = d.limits().chain_length;
        spare* const full = entry->full.load(std::memory_order_relaxed);
        if (full != nullptr) {
            if (!d.put(full, room)) too_many = full;
            old = d.take_unneeded(clock::now());
        }
        entry->full.store(std::exchange(entry->active, nullptr), std::memory_order_relaxed);
    }
    one->next = entry->active;
    entry->active = one;
    entry->room.store(room - 1, std::memory_order_relaxed);
    // last, since what objects do as they are destroyed may change the entries
    if (too_many != nullptr) d.destroy(too_many);
    if (old != nullptr) d.destroy(old);
}

/// Destroys what this thread keeps of the pool.
CORDON_NOINLINE inline void drop_own_spares(object_depot& d) noexcept {
    pool_entry::chains kept{};
    {
        const spin_guard guard(pools_alive.lock);
        thread_spares& here = spares_here;
        if (d.id >= here.count || here.entries[d.id].of != &d) return;
        kept = here.entries[d.id].close();
    }
    d.destroy(kept.active);
    d.destroy(kept.full);
}

/// Takes a spare object, or null. `id` is the pool's, beside the pointer so that the depot is not read.
CORDON_THREAD_LOCAL_ACCESS inline spare* take_spare(const pool_registry& home, object_depot* d,
                                                    std::uint32_t id) noexcept {
    const thread_spares& here = spares_here;
    if (id < here.count) [[likely]] {
        pool_entry& entry = here.entries[id];
        spare* const one = entry.active;
        if (entry.of == d && one != nullptr) [[likely]] {
            entry.active = one->next;
            entry.room.store(entry.room.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
            return one;
        }
    }
    return refill(home, *d);
}

/// Keeps a spare object.
CORDON_THREAD_LOCAL_ACCESS inline void keep_spare(const pool_registry& home, object_depot* d,
                                                  std::uint32_t id, spare* one) noexcept {
    const thread_spares& here = spares_here;
    if (id < here.count) [[likely]] {
        pool_entry& entry = here.entries[id];
        const std::uint32_t room = entry.room.load(std::memory_order_relaxed);
        if (entry.of == d && room != 0) [[likely]] {
            one->next = entry.active;
            entry.active = one;
            entry.room.store(room - 1, std::memory_order_relaxed);
            return;
        }
    }
    spill(home, *d, one);
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
