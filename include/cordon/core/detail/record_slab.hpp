// SPDX-License-Identifier: MIT
#pragma once

// Memory for what another thread may read at any moment: cells of 64 bytes in chunks that are never unmapped, so that
// a reader which comes too late finds a newer cell, never a fault. The list of chunks is the registry of all cells.
// Free cells wait in two lists per thread and then in a depot, in chains of 64: a steady state locks nothing.
//
//  I1  Every field of a cell is an atomic, stored with release and loaded with acquire, the free-list links too. A
//      reader that met a value of a later life therefore also sees whatever marked the end of the earlier one.
//  I2  The owner marks a life's end in its generation or counter before it puts the cell back.
//  I3  A chunk's number and its link are written before the chunk is published, and never again.

#include <cordon/core/detail/config.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <string>
#include <string_view>
#include <utility>

// One registry for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Guards a depot for a few instructions, once in 64 cells. Who finds it held sleeps instead of spinning for the rest
/// of a preempted holder's time slice.
class depot_lock {
public:
    void lock() noexcept {
        while (held_.test_and_set(std::memory_order_acquire)) held_.wait(true, std::memory_order_relaxed);
    }
    void unlock() noexcept {
        held_.clear(std::memory_order_release);
        held_.notify_one();
    }

private:
    std::atomic_flag held_;
};

/// 2 MiB, aligned to as much, so that a cell's address leads to its chunk. Cells are made 64 at a time, so that only
/// what was used takes real memory. The header has the place of cell 0: index 0 means no cell.
template <class Cell>
class slab_chunk {
public:
    static constexpr std::size_t bytes = 2 * 1024 * 1024;
    static constexpr std::uint32_t slots = bytes / 64;

    static const slab_chunk& of(const Cell& cell) noexcept {
        return *reinterpret_cast<const slab_chunk*>(reinterpret_cast<std::uintptr_t>(&cell) & ~(bytes - 1));
    }
    /// The number of the chunk in the upper 17 bits, the slot in the lower 15.
    std::uint32_t index_of(const Cell& cell) const noexcept {
        return number * slots + 1 + static_cast<std::uint32_t>(&cell - begin());
    }
    /// Null when there is no such cell yet.
    const Cell* find(std::uint32_t index) const noexcept {
        const std::uint32_t slot = index % slots;
        return slot == 0 || slot > made_.load(std::memory_order_acquire) ? nullptr : begin() + (slot - 1);
    }
    const Cell* begin() const noexcept { return std::launder(reinterpret_cast<const Cell*>(cells_)); }
    const Cell* end() const noexcept { return begin() + made_.load(std::memory_order_acquire); }

    slab_chunk* older = nullptr;   // I3
    std::uint32_t number = 0;      // I3

private:
    template <class>
    friend class record_slab;

    std::atomic<std::uint32_t> made_{0};   // how many cells there are; changed under the depot's lock
    alignas(64) std::byte cells_[bytes - 64];
};

/// The cells of one kind. `Cell` is 64 bytes of atomics; its members `next_cell()` and `next_chain()` lend two fields
/// that a free cell does not need.
/// Threads:       any may take, any may put what another took; also while the thread's own variables are destroyed
/// Cost:          a few loads and stores; every 64th call in a row may lock the depot, every 32,000th allocate 2 MiB
template <class Cell>
class record_slab {
public:
    using chunk = slab_chunk<Cell>;

    /// Takes a free cell. Returns null when out of memory.
    CORDON_THREAD_LOCAL_ACCESS static Cell* take() noexcept {
        cache& own = cache_;
        if (own.head == nullptr && !refill(own)) return nullptr;
        Cell* const cell = own.head;
        own.head = after(cell);
        --own.count;
        return cell;
    }

    /// Gives a cell back. Requires: I2.
    CORDON_THREAD_LOCAL_ACCESS static void put(Cell* cell) noexcept {
        cache& own = cache_;
        if (own.count == own.limit && !make_room(own)) return depot_.add_loose({cell, 1});
        link(cell, own.head);
        own.head = cell;
        ++own.count;
    }

    /// The chunk that was added last; it leads to all others. Null when nothing was ever taken.
    static const chunk* newest() noexcept { return depot_.newest.load(std::memory_order_acquire); }

private:
    static constexpr std::uint32_t chain_length = 64;

    struct list {
        Cell* head = nullptr;
        std::uint32_t count = 0;
    };

    /// A thread's free cells: `count` from `head` on, never more than `limit`, and perhaps one spare chain. The limit
    /// is 0 before the thread has registered its exit, and after it.
    struct cache {
        Cell* head = nullptr;
        Cell* spare = nullptr;
        std::uint32_t count = 0;
        std::uint32_t limit = 0;
        bool exited = false;
    };

    /// What all threads share: whole chains, and cells that do not fill one (fewer than 64).
    struct depot {
        depot_lock busy;
        Cell* chains = nullptr;
        list loose;
        std::atomic<chunk*> newest{nullptr};

        void add_chain(Cell* head) noexcept {
            busy.lock();
            push_chain(head);
            busy.unlock();
        }
        void add_loose(list cells) noexcept {
            busy.lock();
            for (Cell* cell = cells.head; cells.count != 0; --cells.count) {
                Cell* const next = after(cell);
                link(cell, loose.head);
                loose.head = cell;
                if (++loose.count == chain_length) push_chain(std::exchange(loose, {}).head);
                cell = next;
            }
            busy.unlock();
        }
        list take() noexcept {
            busy.lock();
            list taken;
            if (chains != nullptr) {
                taken = {chains, chain_length};
                chains = to_cell(chains->next_chain().load(std::memory_order_relaxed));
            } else {
                taken = std::exchange(loose, {});
            }
            busy.unlock();
            return taken;
        }
        /// Makes up to 64 new cells in the newest chunk.
        list make() noexcept {
            busy.lock();
            list made;
            if (chunk* const c = newest.load(std::memory_order_relaxed)) {
                const std::uint32_t before = c->made_.load(std::memory_order_relaxed);
                const std::uint32_t left = chunk::slots - 1 - before;
                made.count = left < chain_length ? left : chain_length;
                for (std::uint32_t i = before + made.count; i-- > before;) {
                    Cell* const cell = ::new (c->cells_ + i * sizeof(Cell)) Cell;
                    link(cell, std::exchange(made.head, cell));
                }
                c->made_.store(before + made.count, std::memory_order_release);
            }
            busy.unlock();
            return made;
        }
        /// Adds a chunk in this memory, unless another thread has just added one.
        bool add_chunk(void* memory) noexcept {
            busy.lock();
            chunk* const older = newest.load(std::memory_order_relaxed);
            const bool needed = older == nullptr || older->made_.load(std::memory_order_relaxed) == chunk::slots - 1;
            if (needed) {
                chunk* const added = ::new (memory) chunk;
                added->older = older;
                added->number = older == nullptr ? 0 : older->number + 1;
                newest.store(added, std::memory_order_release);   // I3
            }
            busy.unlock();
            return needed;
        }
        void push_chain(Cell* head) noexcept {
            head->next_chain().store(to_word(chains), std::memory_order_release);
            chains = head;
        }
    };

    struct at_exit {
        ~at_exit() { leave(cache_); }
    };

    static std::uintptr_t to_word(Cell* cell) noexcept { return reinterpret_cast<std::uintptr_t>(cell); }
    static Cell* to_cell(std::uintptr_t word) noexcept { return reinterpret_cast<Cell*>(word); }
    static Cell* after(Cell* cell) noexcept { return to_cell(cell->next_cell().load(std::memory_order_relaxed)); }
    static void link(Cell* cell, Cell* next) noexcept {
        cell->next_cell().store(to_word(next), std::memory_order_release);   // I1
    }

    CORDON_NOINLINE static void enroll(cache& own) noexcept {
        if (own.limit != 0 || own.exited) return;
        thread_local at_exit guard;
        static_cast<void>(guard);
        own.limit = chain_length;
    }

    CORDON_NOINLINE static void leave(cache& own) noexcept {
        depot_.add_loose({own.head, own.count});
        if (own.spare != nullptr) depot_.add_chain(own.spare);
        own = {.exited = true};
    }

    /// False: the thread is past its exit and keeps nothing.
    CORDON_NOINLINE static bool make_room(cache& own) noexcept {
        enroll(own);
        if (own.exited) return false;
        if (own.count < own.limit) return true;
        if (own.spare != nullptr) depot_.add_chain(own.spare);
        own.spare = std::exchange(own.head, nullptr);
        own.count = 0;
        return true;
    }

    CORDON_NOINLINE static bool refill(cache& own) noexcept {
        enroll(own);
        list got{std::exchange(own.spare, nullptr), chain_length};
        if (got.head == nullptr) got = depot_.take();
        if (got.head == nullptr) got = grow();
        if (got.head == nullptr) return false;
        if (own.exited) {   // keeps the one cell that is asked for
            depot_.add_loose({after(got.head), got.count - 1});
            link(got.head, nullptr);
            got.count = 1;
        }
        own.head = got.head;
        own.count = got.count;
        return true;
    }

    static list grow() noexcept {
        static_assert(sizeof(Cell) == 64 && sizeof(chunk) == chunk::bytes);
        constexpr std::align_val_t alignment{chunk::bytes};
        for (;;) {
            if (const list made = depot_.make(); made.count != 0) return made;
            void* const memory = ::operator new(chunk::bytes, alignment, std::nothrow);
            if (memory == nullptr) return {};
            if (!depot_.add_chunk(memory)) ::operator delete(memory, alignment);
        }
    }

    static inline constinit depot depot_{};
    static inline constinit thread_local cache cache_{};
};

/// A text of at most 63 bytes that may be read while it is overwritten; or "kind name" in at most 55 bytes, and a
/// figure. Longer ones are cut between UTF-8 characters.
class alignas(64) slab_text {
public:
    static constexpr std::size_t capacity = 63;

    /// Copies a text into a new cell. Returns null when out of memory.
    CORDON_NOINLINE static slab_text* copy(std::string_view whole) noexcept { return copy(whole, {}, capacity); }

    /// The same for "kind name", with the figure 0.
    CORDON_NOINLINE static slab_text* label(std::string_view kind, std::string_view name) noexcept {
        slab_text* const text = copy(kind, name, capacity - sizeof(word));
        if (text != nullptr) text->set_figure(0);
        return text;
    }

    void set_figure(std::size_t figure) noexcept { words_[last].store(figure, std::memory_order_release); }   // I1
    std::size_t figure() const noexcept { return words_[last].load(std::memory_order_acquire); }              // I1

    /// Returns what is there now: garbage, but never a fault, if the text ended meanwhile; its owner's mark tells.
    std::string read() const {
        char bytes[sizeof words_ + 1]{};
        for (std::size_t i = 0; i < std::size(words_); ++i) {
            const word value = words_[i].load(std::memory_order_acquire);   // I1
            std::memcpy(bytes + i * sizeof(word), &value, sizeof(word));
            if (std::memchr(bytes + i * sizeof(word), 0, sizeof(word)) != nullptr) break;
        }
        return bytes;
    }

    std::atomic<std::uintptr_t>& next_cell() noexcept { return words_[0]; }
    std::atomic<std::uintptr_t>& next_chain() noexcept { return words_[1]; }

private:
    using word = std::uintptr_t;
    static constexpr std::size_t last = 64 / sizeof(word) - 1;

    static slab_text* copy(std::string_view first, std::string_view second, std::size_t limit) noexcept {
        slab_text* const text = record_slab<slab_text>::take();
        if (text == nullptr) return nullptr;
        char bytes[sizeof words_]{};
        std::size_t length = append(bytes, 0, limit, first);
        if (!second.empty()) length = append(bytes, append(bytes, length, limit, " "), limit, second);
        for (std::size_t i = 0; i <= length / sizeof(word); ++i) {
            word value;
            std::memcpy(&value, bytes + i * sizeof(word), sizeof(word));
            text->words_[i].store(value, std::memory_order_release);   // I1
        }
        return text;
    }
    static std::size_t append(char* bytes, std::size_t length, std::size_t limit, std::string_view more) noexcept {
        std::size_t room = limit - length;
        if (more.size() > room) {
            while (room > 0 && (static_cast<unsigned char>(more[room]) & 0xC0U) == 0x80U) --room;
            more = more.substr(0, room);
        }
        more.copy(bytes + length, more.size());
        return length + more.size();
    }

    std::atomic<word> words_[last + 1];   // ends at the first zero byte; only the words up to it are written
};

/// Names what a suspended leaf waits for: `inline constinit const wait_label sleep_label{"sleep_for"};`
class wait_label {
public:
    consteval explicit wait_label(const char* literal) noexcept : text_(literal) {}

protected:
    friend class task_record;
    friend class record_reader;
    static constexpr std::uint32_t in_slab = 16;   // as in `task_record::state_`

    const void* text_;           // a literal, or with `in_slab` a slab_text
    std::uint32_t flags_ = 0;
};

/// A label of one primitive, "kind name". Without a name, or out of memory, it is just the kind.
/// Lifetime:      no task waits when it dies; a dump may still be reading
class named_wait_label : public wait_label {
public:
    named_wait_label(wait_label kind, std::string_view name) noexcept : wait_label(kind) {
        if (name.empty() || CORDON_TASK_RECORDS == 0) return;
        if (const slab_text* text = slab_text::label(static_cast<const char*>(text_), name)) {
            text_ = text;
            flags_ = in_slab;
        }
    }
    /// How many keep others waiting: what a dump says behind the name; 0 says nothing.
    void held_by(std::size_t holders) noexcept {
        if (flags_ != 0) cell()->set_figure(holders);
    }
    named_wait_label(const named_wait_label&, std::string_view = {}) = delete;
    named_wait_label& operator=(const named_wait_label&) = delete;
    ~named_wait_label() {
        if (flags_ != 0) record_slab<slab_text>::put(cell());
    }

private:
    slab_text* cell() noexcept { return static_cast<slab_text*>(const_cast<void*>(text_)); }
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
