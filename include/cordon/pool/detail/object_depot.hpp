// SPDX-License-Identifier: MIT
#pragma once

// What all threads share of an object_pool: magazines of spare objects, and when those that nobody needs go.

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/timer.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

struct pool_registry;

/// A stack of spare objects, which goes from thread to thread as a whole, and nobody touches the objects for it.
struct magazine {
    magazine* next = nullptr;  // in the depot, or among those on their way out
    std::uint32_t count = 0;   // while a thread has it, in the thread's entry instead

    [[nodiscard]] void** objects() noexcept { return reinterpret_cast<void**>(this + 1); }
    [[nodiscard]] void* pop() noexcept { return objects()[--count]; }
    void push(void* object) noexcept { objects()[count++] = object; }

    /// Returns:       null if there is no memory
    [[nodiscard]] static magazine* make(std::uint32_t size) noexcept {
        void* const memory = ::operator new(sizeof(magazine) + size * sizeof(void*), std::nothrow);
        return memory == nullptr ? nullptr : std::construct_at(static_cast<magazine*>(memory));
    }
    static void free(magazine* m) noexcept { ::operator delete(m); }
};

/// Aligned, and so on the heap: each spill of a thread writes it, each acquisition reads the pool beside it. One lock,
/// taken once for a magazine that comes, goes or is exchanged, for some twenty instructions; a thread that finds it
/// taken spins a little, then yields the processor each time, since the holder may have been preempted. It never parks.
class alignas(64) object_depot : private timer {
public:
    struct terms {
        std::uint32_t magazine_size;
        std::size_t most;                ///< objects that lie here
        std::size_t fewest;              ///< that aging leaves
        clock::duration epoch;
        executor_ref runs_on;            ///< who ages it; nobody does by itself without
        void (*destroy)(void*) noexcept;
    };

    explicit object_depot(const terms& t) noexcept
        : timer(&object_depot::fired), terms_(t), next_epoch_(deadline::after(t.epoch).time()) {}

    object_depot(const object_depot&) = delete;
    object_depot& operator=(const object_depot&) = delete;
    ~object_depot() {
        while (magazine* const m = pop(empty_)) magazine::free(m);
    }

    [[nodiscard]] const terms& limits() const noexcept { return terms_; }

    /// Keeps the objects of a magazine for any thread; one that is empty for the next that has to be filled.
    /// Returns:       false if there is no room for them
    [[nodiscard]] bool put(magazine* m) noexcept {
        const spin_guard guard(lock_);
        if (m->count != 0) return keep(m);
        keep_empty(m);
        return true;
    }
    /// A magazine with all that is in it, one object, or nothing.
    struct unneeded {
        magazine* all = nullptr;
        void* one = nullptr;
        [[nodiscard]] explicit operator bool() const noexcept { return all != nullptr || one != nullptr; }
    };
    struct exchanged {
        magazine* empty = nullptr;
        bool refused = false;      // the full one, for want of room: it stays the caller's
        bool epoch_ended = false;  // `turn` is to be called
        unneeded old;              // to be destroyed
    };
    /// Takes an empty magazine for a full one, and looks after what is old.
    /// Returns:       no empty one if there is no memory for it
    [[nodiscard]] exchanged exchange_full(magazine* full, clock::time_point now) noexcept {
        exchanged result;
        {
            const spin_guard guard(lock_);
            result.refused = !keep(full);
            result.epoch_ended = ends_epoch(now);
            result.old = pop_unneeded();
            result.empty = pop_empty();
        }
        if (result.empty == nullptr) result.empty = magazine::make(terms_.magazine_size);
        return result;
    }
    /// Takes a magazine with objects for an empty one, or for none.
    /// Returns:       null if there is none; the empty one stays the caller's
    [[nodiscard]] magazine* exchange_empty(magazine* empty) noexcept {
        const spin_guard guard(lock_);
        if (top_ == nullptr) return nullptr;
        if (empty != nullptr) keep_empty(empty);
        lend();
        return pop_top();
    }

    /// The same for one object, for a thread that keeps none itself.
    [[nodiscard]] bool put_one(void* one) noexcept {
        magazine* more = nullptr;
        {
            const spin_guard guard(lock_);
            if (spares_ == terms_.most) return false;
            if (top_ != nullptr && top_->count < terms_.magazine_size) {
                top_->push(one);
                ++spares_;
                arm_if_needed();
                return true;
            }
            more = pop_empty();
        }
        if (more == nullptr) more = magazine::make(terms_.magazine_size);
        if (more == nullptr) return false;
        more->push(one);
        if (put(more)) return true;
        magazine::free(more);
        return false;
    }

    /// Takes a magazine with objects, or null.
    [[nodiscard]] magazine* take() noexcept {
        const spin_guard guard(lock_);
        return top_ == nullptr ? nullptr : pop_top();
    }
    [[nodiscard]] void* take_one() noexcept {
        const spin_guard guard(lock_);
        return top_ == nullptr ? nullptr : pop_one();
    }
    /// An empty magazine, for a thread that has none.
    /// Returns:       null if there is no memory for one
    [[nodiscard]] magazine* take_empty() noexcept {
        {
            const spin_guard guard(lock_);
            lend();
            if (magazine* const m = pop_empty()) return m;
        }
        return magazine::make(terms_.magazine_size);
    }
    /// Takes a magazine that nobody needed for an epoch, or one object of a magazine of which some were needed.
    [[nodiscard]] unneeded take_unneeded() noexcept {
        const spin_guard guard(lock_);
        return pop_unneeded();
    }

    /// Not under a lock: the destructors of the objects are the user's.
    void destroy(const unneeded& what) noexcept {
        if (what.one != nullptr) destroy_one(what.one);
        if (what.all != nullptr) destroy_all(what.all);
    }
    void destroy_one(void* object) noexcept {
        terms_.destroy(object);
        destroyed_.fetch_add(1, std::memory_order_relaxed);
    }
    void destroy_all(magazine* m) noexcept {
        empty(*m);
        magazine::free(m);
    }
    void empty(magazine& m) noexcept {
        const std::uint64_t n = m.count;
        while (m.count != 0) terms_.destroy(m.pop());
        destroyed_.fetch_add(n, std::memory_order_relaxed);
    }
    /// Destroys what nobody needed for an epoch.
    void age(clock::time_point now) noexcept {
        bool ended = false;
        {
            const spin_guard guard(lock_);
            ended = ends_epoch(now);
        }
        if (ended) turn();
        while (const unneeded what = take_unneeded()) destroy(what);
    }
    /// Begins another epoch, once `exchange_full` has said so: what threads did not need is now shared, and what was
    /// shared and not needed is due. Not under a lock, since it may destroy what there is no room for.
    void turn() noexcept {
        const bool threads_keep = gather != nullptr && gather(*this);
        const spin_guard guard(lock_);
        due_ = unneeded_ > terms_.fewest ? unneeded_ - terms_.fewest : 0;
        unneeded_ = spares_;
        due_empties_ = std::exchange(unneeded_empties_, empties_);
        if (threads_keep) lend();
    }
    /// The timer fires no more. Requires:      nobody puts anything meanwhile
    void stop_aging() noexcept {
        if (terms_.runs_on) terms_.runs_on.timers().cancel(*this);
    }

    void count_made() noexcept { made_.fetch_add(1, std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t made() const noexcept { return made_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::uint64_t destroyed() const noexcept { return destroyed_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::size_t spares() const noexcept {
        const spin_guard guard(lock_);
        return spares_;
    }
    /// Whether there is anything that a later aging may destroy.
    [[nodiscard]] bool ages() const noexcept {
        const spin_guard guard(lock_);
        return something_ages();
    }

    /// The registry that the pool was made in, and what gets there from threads what they did not need for an epoch.
    /// Returns:       whether some still keep any
    pool_registry* home = nullptr;
    bool (*gather)(object_depot&) noexcept = nullptr;

    // Under the lock of the registry in thread_spares.hpp.
    std::uint32_t id = 0;
    object_depot* next_pool = nullptr;
    bool gathers = false;
    /// Threads that have left the registry and still destroy objects of this pool, which waits for them (N4).
    std::atomic<std::uint32_t> leaving{0};

private:
    static void push(magazine*& list, magazine* m) noexcept {
        m->next = list;
        list = m;
    }
    static magazine* pop(magazine*& list) noexcept {
        magazine* const m = list;
        if (m != nullptr) list = m->next;
        return m;
    }
    /// Returns:       false if there is no room for it
    bool keep(magazine* m) noexcept {
        if (m->count > terms_.most - spares_) return false;
        push(top_, m);
        spares_ += m->count;
        arm_if_needed();
        return true;
    }
    void keep_empty(magazine* m) noexcept {
        push(empty_, m);
        ++empties_;
    }
    void lend() noexcept {
        lent_ = true;
        arm_if_needed();
    }
    /// Returns:       true once for each epoch
    bool ends_epoch(clock::time_point now) noexcept {
        if (now < next_epoch_) return false;
        next_epoch_ = deadline::after(terms_.epoch).time();
        lent_ = false;  // before threads are asked
        return true;
    }
    unneeded pop_unneeded() noexcept {
        if (due_empties_ != 0) {
            --due_empties_;
            return {pop_empty(), nullptr};
        }
        if (due_ == 0) return {};
        if (due_ < top_->count) {
            --due_;
            return {nullptr, pop_one()};
        }
        due_ -= top_->count;
        return {pop_top(), nullptr};
    }
    magazine* pop_top() noexcept {
        went(top_->count);
        return pop(top_);
    }
    void* pop_one() noexcept {
        went(1);
        void* const one = top_->pop();
        if (top_->count == 0) keep_empty(pop(top_));
        return one;
    }
    magazine* pop_empty() noexcept {
        magazine* const m = pop(empty_);
        if (m == nullptr) return nullptr;
        --empties_;
        if (unneeded_empties_ > empties_) unneeded_empties_ = empties_;
        if (due_empties_ > empties_) due_empties_ = empties_;
        return m;
    }
    void went(std::size_t n) noexcept {
        spares_ -= n;
        if (unneeded_ > spares_) unneeded_ = spares_;
        if (due_ > spares_) due_ = spares_;
    }
    bool something_ages() const noexcept { return lent_ || spares_ > terms_.fewest; }
    void arm_if_needed() noexcept {
        if (armed_ || !terms_.runs_on || !something_ages()) return;
        when = next_epoch_;  // which others may have begun meanwhile; unless nobody did for long
        if (when <= clock::now()) when = deadline::after(terms_.epoch).time();
        if (when == (clock::time_point::max)()) return;
        armed_ = true;
        terms_.runs_on.timers().arm(*this);
    }
    static void fired(timer& t) noexcept {
        auto& self = static_cast<object_depot&>(t);
        self.age(clock::now());
        const spin_guard guard(self.lock_);
        self.armed_ = false;
        self.arm_if_needed();
    }

    const terms terms_;

    alignas(64) mutable prompt_spin_lock lock_;  // for what follows: one cache line, but for the last
    bool armed_ = false;
    bool lent_ = false;  // threads may keep something
    std::uint32_t empties_ = 0, unneeded_empties_ = 0, due_empties_ = 0;  // of the magazines in empty_, as below
    magazine* top_ = nullptr;  // with objects
    magazine* empty_ = nullptr;
    std::size_t spares_ = 0;
    std::size_t unneeded_ = 0;  // the fewest objects that lay here in this epoch; at most spares_
    std::size_t due_ = 0;       // so many, of those of the last epoch, still go; at most spares_
    clock::time_point next_epoch_;

    std::atomic<std::uint64_t> made_{0}, destroyed_{0};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
