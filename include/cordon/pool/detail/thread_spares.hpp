// SPDX-License-Identifier: MIT
#pragma once

// What each thread keeps of each object_pool: two magazines of spare objects, one that it takes from and gives to, and
// one that is full or empty. So the usual pair of acquire and release is a pop and a push without an atomic exchange,
// and threads that only give feed threads that only take, a magazine at a time, through the depot.
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
struct pool_entry {
    object_depot* of = nullptr;
    magazine* active = nullptr;  // one that it takes from and gives to; null: it has none, and no room
    std::atomic<std::uint32_t> count{0};  // of the objects in it
    std::uint32_t room = 0;               // for so many
    magazine* other = nullptr;  // full, or empty, or null
    std::atomic<std::uint32_t> other_count{0};

    [[nodiscard]] std::size_t spares() const noexcept {
        return std::size_t{count.load(std::memory_order_relaxed)} + other_count.load(std::memory_order_relaxed);
    }
    /// The magazines change places; `m` takes that of the active one.
    void begin_with(magazine* m) noexcept {
        if (active != nullptr) active->count = count.load(std::memory_order_relaxed);
        other = std::exchange(active, m);
        other_count.store(other == nullptr ? 0 : other->count, std::memory_order_relaxed);
        room = of->limits().magazine_size;
        count.store(m->count, std::memory_order_relaxed);
    }
    /// It is no pool's any more.
    /// Returns:       its magazines, chained
    [[nodiscard]] magazine* close() noexcept {
        magazine* both = nullptr;
        if (active != nullptr) active->count = count.load(std::memory_order_relaxed);
        for (magazine* const m : {std::exchange(active, nullptr), std::exchange(other, nullptr)}) {
            if (m == nullptr) continue;
            m->next = std::exchange(both, m);
        }
        of = nullptr;
        room = 0;
        count.store(0, std::memory_order_relaxed);
        other_count.store(0, std::memory_order_relaxed);
        return both;
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

/// Destroys what a chain of magazines holds, and them.
inline void destroy_chain(object_depot& d, magazine* chain) noexcept {
    while (chain != nullptr) d.destroy_all(std::exchange(chain, chain->next));
}

/// Destroys what the threads keep of a pool that ends; they cannot reach it any more.
/// Requires:      nobody uses the pool
inline void leave_pool(pool_registry& home, object_depot& d) noexcept {
    magazine* kept = nullptr;
    {
        const spin_guard guard(home.lock);
        for (thread_spares* t = home.threads; t != nullptr; t = t->next) {
            if (d.id >= t->count || t->entries[d.id].of != &d) continue;
            for (magazine *m = t->entries[d.id].close(), *next; m != nullptr; m = next) {  // N1
                next = std::exchange(m->next, kept);
                kept = m;
            }
        }
        object_depot** at = &home.pools;
        while (*at != &d) at = &(*at)->next_pool;
        *at = d.next_pool;
    }
    for (spin_wait wait; d.leaving.load(std::memory_order_acquire) != 0;) wait();  // N4
    d.stop_aging();
    destroy_chain(d, kept);
}

/// How many spare objects of the pool the threads keep.
[[nodiscard]] inline std::size_t spares_of_threads(pool_registry& home, const object_depot& d) noexcept {
    std::size_t n = 0;
    const spin_guard guard(home.lock);
    for (const thread_spares* t = home.threads; t != nullptr; t = t->next)
        if (d.id < t->count && t->entries[d.id].of == &d) n += t->entries[d.id].spares();
    return n;
}

/// Destroys what the depot has no room for, on a thread that ends. Under the registry's lock, which it gives up
/// meanwhile.
inline void destroy_leaving(object_depot& d, magazine* chain) noexcept {
    d.leaving.fetch_add(1, std::memory_order_relaxed);
    pools_alive.lock.unlock();
    destroy_chain(d, chain);
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
            magazine* too_many = nullptr;
            for (magazine *m = here.entries[i].close(), *next; m != nullptr; m = next) {  // N1
                next = m->next;
                if (!of->put(m)) m->next = std::exchange(too_many, m);
            }
            // together, since the pool may end as soon as the lock is given up and nobody is leaving
            if (too_many != nullptr) destroy_leaving(*of, too_many);
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
            entries[i].count.store(from.count.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].room = from.room;
            entries[i].other = from.other;
            entries[i].other_count.store(from.other_count.load(std::memory_order_relaxed), std::memory_order_relaxed);
        }
        old.reset(std::exchange(here.entries, entries.release()));
        here.count = count;
        here.entries[d.id].of = &d;  // N1
    } else if (here.entries[d.id].of != &d) {
        const spin_guard guard(pools_alive.lock);
        here.entries[d.id].of = &d;  // N1
    }
    return &here.entries[d.id];
}

/// The active magazine is empty, or there is none.
/// Returns:       null if nothing is spare
CORDON_NOINLINE inline void* refill(const pool_registry& home, object_depot& d) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) return d.take_one();
    magazine* filled = entry->other;
    if (entry->other_count.load(std::memory_order_relaxed) == 0) {
        magazine* const empty = std::exchange(entry->other, nullptr);
        if (empty != nullptr) (void)d.put(empty);
        filled = d.take();
        if (filled == nullptr) return nullptr;
    }
    entry->begin_with(filled);
    const std::uint32_t left = filled->count - 1;
    entry->count.store(left, std::memory_order_relaxed);
    return filled->objects()[left];
}

/// The active magazine is full, or there is none. Looks after the depot, too, as often as that gets a magazine.
CORDON_NOINLINE inline void spill(const pool_registry& home, object_depot& d, void* one) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) {
        if (!d.put_one(one)) d.destroy_one(one);
        return;
    }
    magazine* empty = entry->other;
    magazine* too_many = nullptr;
    object_depot::unneeded old;
    if (entry->other_count.load(std::memory_order_relaxed) != 0) {
        if (!d.put(std::exchange(empty, nullptr))) too_many = entry->other;
        old = d.take_unneeded(clock::now());
    }
    if (empty == nullptr) empty = d.take_empty();
    if (empty != nullptr) {
        entry->begin_with(empty);
        empty->objects()[0] = one;
        entry->count.store(1, std::memory_order_relaxed);
    } else {  // no memory for another magazine
        entry->other = nullptr;
        entry->other_count.store(0, std::memory_order_relaxed);
    }
    // last, since what objects do as they are destroyed may change the entries
    if (empty == nullptr) d.destroy_one(one);
    if (too_many != nullptr) d.destroy_all(too_many);
    d.destroy(old);
}

/// Destroys what this thread keeps of the pool.
CORDON_NOINLINE inline void drop_own_spares(object_depot& d) noexcept {
    magazine* kept = nullptr;
    {
        const spin_guard guard(pools_alive.lock);
        thread_spares& here = spares_here;
        if (d.id >= here.count || here.entries[d.id].of != &d) return;
        kept = here.entries[d.id].close();
    }
    destroy_chain(d, kept);
}

/// Takes a spare object, or null. `id` is the pool's, beside the pointer so that the depot is not read.
CORDON_THREAD_LOCAL_ACCESS inline void* take_spare(const pool_registry& home, object_depot* d,
                                                   std::uint32_t id) noexcept {
    const thread_spares& here = spares_here;
    if (id < here.count) [[likely]] {
        pool_entry& entry = here.entries[id];
        const std::uint32_t count = entry.count.load(std::memory_order_relaxed);
        if (entry.of == d && count != 0) [[likely]] {
            entry.count.store(count - 1, std::memory_order_relaxed);
            return entry.active->objects()[count - 1];
        }
    }
    return refill(home, *d);
}

/// Keeps a spare object.
CORDON_THREAD_LOCAL_ACCESS inline void keep_spare(const pool_registry& home, object_depot* d, std::uint32_t id,
                                                  void* one) noexcept {
    const thread_spares& here = spares_here;
    if (id < here.count) [[likely]] {
        pool_entry& entry = here.entries[id];
        const std::uint32_t count = entry.count.load(std::memory_order_relaxed);
        if (entry.of == d && count != entry.room) [[likely]] {
            entry.active->objects()[count] = one;
            entry.count.store(count + 1, std::memory_order_relaxed);
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
