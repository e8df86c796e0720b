// SPDX-License-Identifier: MIT
#pragma once

// What each thread keeps of each object_pool: two magazines of spare objects, one that it takes from and gives to, and
// one that is full or empty. So the usual pair of acquire and release is a pop and a push without an atomic exchange,
// and threads that only give feed threads that only take, a magazine at a time, through the depot.
//
// A pool has a small number, which indexes an array that each thread has. Numbers are used again, so an entry of that
// array also says whose it is.
//
// What a thread keeps goes to the depot when it did not touch it for an epoch. Somebody else then closes the entry, so
// each operation says in the entry that it is under way, without a fence: the closer has one executed for it.
//
// Long, because N1 to N8 bind the owner of an entry and all who may close it: they are read as one.
//
// N1 Whose an entry is (`owner`) changes under the registry's lock: it is opened by its thread, and closed by its
//    thread, by its pool's end, or by who gathers what is idle (N7). So an entry that is a pool's belongs to a pool
//    that lives.
// N2 What an entry holds is changed by its thread while `state` is busy, or under the registry's lock: by its thread,
//    by its pool's end, which no use of that pool is concurrent with, or by who gathers (N7). Others read it, under the
//    registry's lock, only for figures (relaxed).
// N3 An array is replaced by its thread, under the registry's lock: whoever walks over all threads holds it, and keeps
//    no pointer into an array across two walks.
// N4 A thread that ends and has to destroy objects does so without the lock, after it has said so in `leaving` under
//    it. The end of the pool, which has closed all entries by then, waits until nobody is leaving.
// N5 A pool knows the registry that it was made in. Where a library with a copy of its own uses it, that thread has no
//    entry for it, and objects go through the depot alone.
// N6 A thread writes busy, then reads `of`, with a light barrier between; it goes on without the lock only if that says
//    the pool. Who gathers writes null to `of` of entries that are unused, under the lock, then calls a heavy barrier,
//    then reads `state`: of the two, one sees what the other wrote.
// N7 Who gathers closes an entry, under the lock again, only if `of` is still null and `state` still unused. Then its
//    thread has begun nothing since the mark, or has begun it, finds `of` null (N6), and waits for the lock. What the
//    thread did before is visible: it wrote used with release, and the mark is put over that alone, by a
//    compare-and-exchange, never over busy. Any other entry is opened again.
// N8 One gathers for a pool at a time (`gathers`), so each null in `of` is older than the heavy barrier of who acts on
//    it.

#include <cordon/core/detail/asymmetric_barrier.hpp>
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

/// Of one pool. A fresh one has no room, which sends the first use of either function to its slow path. On a cache line
/// of its own: who gathers writes to it.
struct alignas(64) pool_entry {
    enum class use : std::uint8_t {
        used,    // by an operation that has ended, since somebody looked
        busy,    // an operation of its thread is under way
        unused,  // since somebody looked
    };

    std::atomic<object_depot*> of{nullptr};  // its owner; or null: use it only under the lock
    magazine* active = nullptr;  // one that it takes from and gives to; null: it has none, and no room
    std::atomic<std::uint32_t> count{0};  // of the objects in it
    std::uint32_t room = 0;               // for so many
    magazine* other = nullptr;  // full, or empty, or null
    std::atomic<std::uint32_t> other_count{0};
    std::atomic<use> state{use::used};
    object_depot* owner = nullptr;  // N1

    /// Its thread begins an operation, which `end` ends in either case.
    /// Returns:       whether it may go on without the lock
    [[nodiscard]] bool begin(const object_depot* d) noexcept {
        state.store(use::busy, std::memory_order_relaxed);
        light_barrier();  // N6
        return of.load(std::memory_order_relaxed) == d;
    }
    void end() noexcept { state.store(use::used, std::memory_order_release); }  // N7

    /// Returns:       null if the active magazine is empty, or there is none
    [[nodiscard]] void* pop() noexcept {
        const std::uint32_t n = count.load(std::memory_order_relaxed);
        if (n == 0) [[unlikely]] return nullptr;
        count.store(n - 1, std::memory_order_relaxed);
        return active->objects()[n - 1];
    }
    /// Returns:       false if the active magazine is full, or there is none
    [[nodiscard]] bool push(void* one) noexcept {
        const std::uint32_t n = count.load(std::memory_order_relaxed);
        if (n == room) [[unlikely]] return false;
        active->objects()[n] = one;
        count.store(n + 1, std::memory_order_relaxed);
        return true;
    }
    /// The magazines change places; `m` takes that of the active one.
    void begin_with(magazine* m) noexcept {
        if (active != nullptr) active->count = count.load(std::memory_order_relaxed);
        other = std::exchange(active, m);
        other_count.store(other == nullptr ? 0 : other->count, std::memory_order_relaxed);
        room = owner->limits().magazine_size;
        count.store(m->count, std::memory_order_relaxed);
    }

    /// Requires:      the lock, as all that follows
    void open(object_depot& d) noexcept {
        owner = &d;
        of.store(&d, std::memory_order_relaxed);
    }
    /// Marks it for the next who asks.
    /// Returns:       whether it has not been used since the last who asked
    [[nodiscard]] bool was_unused() noexcept {
        use seen = use::used;
        return !state.compare_exchange_strong(seen, use::unused, std::memory_order_relaxed) && seen == use::unused;
    }
    [[nodiscard]] bool is_unused() const noexcept {
        return state.load(std::memory_order_acquire) == use::unused;  // N7
    }
    [[nodiscard]] std::size_t spares() const noexcept {
        return std::size_t{count.load(std::memory_order_relaxed)} + other_count.load(std::memory_order_relaxed);
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
        of.store(nullptr, std::memory_order_relaxed);
        owner = nullptr;
        room = 0;
        count.store(0, std::memory_order_relaxed);
        other_count.store(0, std::memory_order_relaxed);
        return both;
    }
    /// Closes it; what it held goes to the depot.
    /// Returns:       what that has no room for, chained to `rest`
    [[nodiscard]] magazine* give_up(magazine* rest) noexcept {
        object_depot& to = *owner;
        for (magazine *m = close(), *next; m != nullptr; m = next) {
            next = m->next;
            if (!to.put(m)) m->next = std::exchange(rest, m);
        }
        return rest;
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

    /// Its entry for the pool, or null. Requires: the lock
    [[nodiscard]] pool_entry* entry_of(const object_depot& d) const noexcept {
        return d.id < count && entries[d.id].owner == &d ? &entries[d.id] : nullptr;
    }
};
inline constinit thread_local thread_spares spares_here{};

struct pool_registry {
    spin_lock lock;                    // N1, N3; taken before that of a depot
    object_depot* pools = nullptr;     // by their numbers
    thread_spares* threads = nullptr;
};
inline constinit pool_registry pools_alive{};

/// Destroys what a chain of magazines holds, and them.
inline void destroy_chain(object_depot& d, magazine* chain) noexcept {
    while (chain != nullptr) d.destroy_all(std::exchange(chain, chain->next));
}

/// The first step of `gather_idle`: keeps threads that have not used the pool since the last time from doing so without
/// the lock.
struct idle_threads {
    bool some_are_idle = false;  // what is to be done about them must be done
    bool others_stay = false;
};
[[nodiscard]] inline idle_threads shut_idle(object_depot& d) noexcept {
    const spin_guard guard(d.home->lock);
    if (d.gathers) return {false, true};  // N8
    idle_threads seen;
    for (const thread_spares* t = d.home->threads; t != nullptr; t = t->next) {
        pool_entry* const entry = t->entry_of(d);
        if (entry == nullptr) continue;
        if (entry->was_unused()) {
            entry->of.store(nullptr, std::memory_order_relaxed);  // N6
            seen.some_are_idle = true;
        } else {
            seen.others_stay = true;
        }
    }
    d.gathers = seen.some_are_idle;
    return seen;
}
/// The last step: closes those that are still idle, and opens the others again; those too if there was no `barrier`.
/// Returns:       whether any were opened
[[nodiscard]] inline bool close_idle(object_depot& d, bool barrier) noexcept {
    bool opened = false;
    magazine* too_many = nullptr;
    {
        const spin_guard guard(d.home->lock);
        for (const thread_spares* t = d.home->threads; t != nullptr; t = t->next) {
            pool_entry* const entry = t->entry_of(d);
            if (entry == nullptr || entry->of.load(std::memory_order_relaxed) != nullptr) continue;
            if (barrier && entry->is_unused()) {  // N7
                too_many = entry->give_up(too_many);
            } else {
                entry->open(d);
                opened = true;
            }
        }
        d.gathers = false;
    }
    destroy_chain(d, too_many);
    return opened;
}
/// Puts what threads have not used of the pool for an epoch into its depot.
/// Returns:       whether some thread still keeps any that may go later
/// Threads:       from any, not under a lock
inline bool gather_idle(object_depot& d) noexcept {
    const idle_threads seen = shut_idle(d);
    if (!seen.some_are_idle) return seen.others_stay;
    const bool barrier = heavy_barrier();  // N6
    const bool opened = close_idle(d, barrier);
    return barrier && (opened || seen.others_stay);
}

/// Gives the pool the smallest number that is free.
inline void enter_pool(pool_registry& home, object_depot& d) noexcept {
    const spin_guard guard(home.lock);
    object_depot** at = &home.pools;
    for (; *at != nullptr && (*at)->id == d.id; at = &(*at)->next_pool) ++d.id;
    d.home = &home;
    d.gather = &gather_idle;
    d.next_pool = *at;
    *at = &d;
}

/// Destroys what the threads keep of a pool that ends; they cannot reach it any more.
/// Requires:      nobody uses the pool
inline void leave_pool(pool_registry& home, object_depot& d) noexcept {
    magazine* kept = nullptr;
    {
        const spin_guard guard(home.lock);
        for (thread_spares* t = home.threads; t != nullptr; t = t->next) {
            pool_entry* const entry = t->entry_of(d);
            if (entry == nullptr) continue;
            for (magazine *m = entry->close(), *next; m != nullptr; m = next) {  // N1
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

struct spare_objects {
    std::size_t shared = 0, of_threads = 0;
};
/// How many there are of the pool. Those that are gathered meanwhile are counted once.
[[nodiscard]] inline spare_objects count_spares(pool_registry& home, const object_depot& d) noexcept {
    const spin_guard guard(home.lock);
    spare_objects n{d.spares(), 0};
    for (const thread_spares* t = home.threads; t != nullptr; t = t->next)
        if (const pool_entry* const entry = t->entry_of(d)) n.of_threads += entry->spares();
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
            object_depot* const of = here.entries[i].owner;
            if (of == nullptr) continue;
            magazine* const too_many = here.entries[i].give_up(nullptr);  // N1
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

/// Goes on with an operation that the fast path of either function below has begun, unless there was no entry.
/// Returns:       this thread's entry for the pool, busy; null if it has none: its thread-locals are being destroyed,
///                there is no memory, or N5
CORDON_NOINLINE inline pool_entry* open_entry(const pool_registry& home, object_depot& d) noexcept {
    thread_spares& here = spares_here;
    pool_entry* entry = d.id < here.count ? &here.entries[d.id] : nullptr;
    if (entry != nullptr && entry->of.load(std::memory_order_relaxed) == &d) return entry;
    if (&home != &pools_alive || here.now == thread_spares::phase::closed) {  // N5
        if (entry != nullptr) entry->end();
        return nullptr;
    }
    if (here.now == thread_spares::phase::fresh) static thread_local const thread_spares_guard guard;
    const std::uint32_t count = (d.id / 8 + 1) * 8;
    std::unique_ptr<pool_entry[]> entries, old;
    if (entry == nullptr) {
        entries.reset(new (std::nothrow) pool_entry[count]);
        if (entries == nullptr) return nullptr;
    }
    const spin_guard guard(pools_alive.lock);
    if (entries != nullptr) {  // N3
        for (std::uint32_t i = 0; i < here.count; ++i) {
            pool_entry& from = here.entries[i];
            entries[i].of.store(from.of.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].active = from.active;
            entries[i].count.store(from.count.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].room = from.room;
            entries[i].other = from.other;
            entries[i].other_count.store(from.other_count.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].state.store(from.state.load(std::memory_order_relaxed), std::memory_order_relaxed);
            entries[i].owner = from.owner;
        }
        old.reset(std::exchange(here.entries, entries.release()));
        here.count = count;
        entry = &here.entries[d.id];
        entry->state.store(pool_entry::use::busy, std::memory_order_relaxed);
    }
    entry->open(d);  // N1
    return entry;
}

/// The active magazine is empty, or there is none, or this thread may not use it without the lock.
/// Returns:       null if nothing is spare
CORDON_NOINLINE inline void* refill(const pool_registry& home, object_depot& d) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) return d.take_one();
    void* one = entry->pop();
    if (one == nullptr) {
        magazine* const other = entry->other;
        const bool full = entry->other_count.load(std::memory_order_relaxed) != 0;
        if (magazine* const filled = full ? other : d.exchange_empty(other)) {
            entry->begin_with(filled);
            one = entry->pop();
        }
    }
    entry->end();
    return one;
}

/// The active magazine is full, or there is none, or this thread may not use it without the lock. Looks after the
/// depot, too, as often as that gets a magazine.
CORDON_NOINLINE inline void spill(const pool_registry& home, object_depot& d, void* one) noexcept {
    pool_entry* const entry = open_entry(home, d);
    if (entry == nullptr) {
        if (!d.put_one(one)) d.destroy_one(one);
        return;
    }
    if (entry->push(one)) return entry->end();
    magazine* const other = entry->other;
    const bool full = entry->other_count.load(std::memory_order_relaxed) != 0;
    object_depot::exchanged got;
    if (full) got = d.exchange_full(other, clock::now());
    else got.empty = other != nullptr ? other : d.take_empty();
    bool kept = false;
    if (got.empty != nullptr) {
        entry->begin_with(got.empty);
        kept = entry->push(one);
    } else if (full) {  // no memory for another magazine
        entry->other = nullptr;
        entry->other_count.store(0, std::memory_order_relaxed);
    }
    entry->end();
    // last, since what objects do as they are destroyed may change the entries
    if (!kept) d.destroy_one(one);
    if (got.refused) d.destroy_all(other);
    d.destroy(got.old);
    if (got.epoch_ended) d.turn();
}

/// Destroys what this thread keeps of the pool.
CORDON_NOINLINE inline void drop_own_spares(object_depot& d) noexcept {
    magazine* kept = nullptr;
    {
        const spin_guard guard(pools_alive.lock);
        thread_spares& here = spares_here;
        pool_entry* const entry = here.entry_of(d);
        if (entry == nullptr) return;
        kept = entry->close();
    }
    destroy_chain(d, kept);
}

/// Takes a spare object, or null. `id` is the pool's, beside the pointer so that the depot is not read.
CORDON_THREAD_LOCAL_ACCESS inline void* take_spare(const pool_registry& home, object_depot* d,
                                                   std::uint32_t id) noexcept {
    const thread_spares& here = spares_here;
    if (id < here.count) [[likely]] {
        pool_entry& entry = here.entries[id];
        if (entry.begin(d)) [[likely]]
            if (void* const one = entry.pop()) [[likely]] {
                entry.end();
                return one;
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
        if (entry.begin(d) && entry.push(one)) [[likely]] return entry.end();
    }
    spill(home, *d, one);
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
