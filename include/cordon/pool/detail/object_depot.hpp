// SPDX-License-Identifier: MIT
#pragma once

// What all threads share of an object_pool: chains of spare objects, and when those that nobody needs go.

#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/timer.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What lies in front of each object of a pool. Means something only while the object is spare.
struct spare {
    spare* next;           // in its chain
    spare* next_chain;     // in the depot, for the first of a chain
    std::uint32_t length;  // of its chain, in the depot, for the first of it
};

/// Aligned, and so on the heap: each spill of a thread writes it, each acquisition reads the pool beside it.
class alignas(64) object_depot : private timer {
public:
    struct terms {
        std::uint32_t chain_length;      ///< no chain is longer
        std::size_t most;                ///< objects that lie here
        std::size_t fewest;              ///< that aging leaves
        clock::duration epoch;
        executor_ref runs_on;            ///< who ages it; nobody does by itself without
        void (*destroy)(spare*) noexcept;
    };

    explicit object_depot(const terms& t) noexcept
        : timer(&object_depot::fired), terms_(t), next_epoch_(deadline::after(t.epoch).time()) {}

    [[nodiscard]] const terms& limits() const noexcept { return terms_; }

    /// Keeps a chain for any thread.
    /// Returns:       false if there is no room for it
    [[nodiscard]] bool put(spare* chain, std::uint32_t length) noexcept {
        const spin_guard guard(lock_);
        if (spares_ + length > terms_.most) return false;
        chain->length = length;
        push(chain);
        arm_if_needed();
        return true;
    }
    /// The same for one object, for a thread that keeps none itself.
    [[nodiscard]] bool put_one(spare* one) noexcept {
        const spin_guard guard(lock_);
        if (spares_ == terms_.most) return false;
        one->next = nullptr;
        one->length = 1;
        if (top_ != nullptr && top_->length < terms_.chain_length) {
            one->next = top_;
            one->length = top_->length + 1;
            one->next_chain = top_->next_chain;
            top_ = one;
            ++spares_;
        } else {
            push(one);
        }
        arm_if_needed();
        return true;
    }

    /// Takes a chain, whose first says how long it is, or null.
    [[nodiscard]] spare* take() noexcept {
        const spin_guard guard(lock_);
        return top_ == nullptr ? nullptr : pop();
    }
    [[nodiscard]] spare* take_one() noexcept {
        const spin_guard guard(lock_);
        return top_ == nullptr ? nullptr : pop_one();
    }
    /// Takes a chain that nobody needed for an epoch, or one object of a chain of which some were needed, or null.
    [[nodiscard]] spare* take_unneeded(clock::time_point now) noexcept {
        const spin_guard guard(lock_);
        if (now >= next_epoch_) {
            due_ = unneeded_ > terms_.fewest ? unneeded_ - terms_.fewest : 0;
            unneeded_ = spares_;
            next_epoch_ = deadline::after(terms_.epoch).time();
        }
        if (top_ == nullptr || due_ == 0) return nullptr;
        if (due_ < top_->length) {
            --due_;
            return pop_one();
        }
        due_ -= top_->length;
        return pop();
    }

    /// Not under a lock: the destructors of the objects are the user's.
    void destroy(spare* chain) noexcept {
        std::uint64_t n = 0;
        while (chain != nullptr) {
            spare* const first = std::exchange(chain, chain->next);
            terms_.destroy(first);
            ++n;
        }
        destroyed_.fetch_add(n, std::memory_order_relaxed);
    }
    /// Destroys what nobody needed for an epoch.
    void age(clock::time_point now) noexcept {
        while (spare* const chain = take_unneeded(now)) destroy(chain);
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

    // Under the lock of the registry in thread_spares.hpp.
    std::uint32_t id = 0;
    object_depot* next_pool = nullptr;
    /// Threads that have left the registry and still destroy objects of this pool, which waits for them (N4).
    std::atomic<std::uint32_t> leaving{0};

private:
    void push(spare* chain) noexcept {
        chain->next_chain = top_;
        top_ = chain;
        spares_ += chain->length;
    }
    spare* pop() noexcept {
        spare* const chain = top_;
        top_ = chain->next_chain;
        went(chain->length);
        return chain;
    }
    spare* pop_one() noexcept {
        spare* const one = top_;
        spare* const rest = std::exchange(one->next, nullptr);
        top_ = rest == nullptr ? one->next_chain : rest;
        if (rest != nullptr) {
            rest->length = one->length - 1;
            rest->next_chain = one->next_chain;
        }
        went(1);
        return one;
    }
    void went(std::size_t n) noexcept {
        spares_ -= n;
        if (unneeded_ > spares_) unneeded_ = spares_;
        if (due_ > spares_) due_ = spares_;
    }
    void arm_if_needed() noexcept {
        if (!terms_.runs_on || armed_ || spares_ <= terms_.fewest) return;
        const deadline end = deadline::after(terms_.epoch);
        if (end.is_never()) return;
        armed_ = true;
        when = end.time();
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
    mutable spin_lock lock_;  // for what follows
    spare* top_ = nullptr;
    std::size_t spares_ = 0;
    std::size_t unneeded_ = 0;  // the fewest objects that lay here in this epoch; at most spares_
    std::size_t due_ = 0;       // so many, of those of the last epoch, still go; at most spares_
    clock::time_point next_epoch_;
    bool armed_ = false;

    std::atomic<std::uint64_t> made_{0}, destroyed_{0};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
