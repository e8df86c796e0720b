// SPDX-License-Identifier: MIT
#pragma once

// What every operation that really waits is built on: sleeping, a place in a queue, a completion from another thread.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>

#include <atomic>
#include <cstdint>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Writes where the branch below `r` waits now, and for what, into its record. Reads the sites of the frames above,
/// so it is called before the leaf can be resumed by anybody.
inline void note_wait(receiver_ref r, const wait_label& what) noexcept {
    task_record* const record = r.record();
    if (record == nullptr) return;
    constexpr int reach = 16;  // frames looked at; beyond them the outermost site stays unknown
    // The next frame of the same branch, from `at` outwards; null at its end.
    const auto next = [record](receiver_ref at) noexcept -> promise_base* {
        for (; at; at = at.combinator().up) {
            if (promise_base* const p = at.promise()) return p->record == record ? p : nullptr;
            if (at.combinator().record != record) return nullptr;
        }
        return nullptr;
    };
    std::source_location innermost, middle, outermost;
    int frames = 0;
    if (const promise_base* p = next(r)) [[likely]] {
        innermost = p->site;
        if ((p = next(p->up)) != nullptr) {
            middle = p->site;
            for (frames = 2; (p = next(p->up)) != nullptr && frames < reach; ++frames) outermost = p->site;
            if (frames == reach) outermost = {};
        }
    }
    record->suspended(outermost, middle, innermost, frames > 3, what);
}

inline void note_running(receiver_ref r) noexcept {
    if (task_record* const record = r.record()) record->running();
}

/// Holds the lock of a primitive that completes leaves. Those without an executor run here, once it is given back.
class waking_guard {
public:
    explicit waking_guard(spin_lock& lock) noexcept : lock_(lock) { lock_.lock(); }
    waking_guard(const waking_guard&) = delete;
    waking_guard& operator=(const waking_guard&) = delete;
    ~waking_guard() {
        lock_.unlock();
        run_woken();
    }

private:
    spin_lock& lock_;
};

/// A waiting leaf. Derived has
///  - `void enqueue()`: makes it findable for whoever completes it (which may happen at once),
///  - `void dequeue(bool stopped)`: after it returns nobody refers to the leaf any more; waits for who still does,
///  - `const wait_label& label()`,
///  - if others wait behind it: `void leave_queue()`, which is called in the place of `dequeue` by who stops it, so
///    that they need not wait until its executor has run it,
///  - if it may be completed as stopped: `bool ends_stopped()`, asked after `dequeue`.
///
/// word_, the one word that decides how the wait ends:
///   arming    start() is still connecting the leaf; whoever wins now only says so and leaves the rest to start()
///   armed     suspended; whoever wins submits the leaf, and touches nothing of it afterwards
///   done      completed: a value is there
///   stopped   stopped: takes nothing
/// L1 Exactly one party moves the word out of {arming, armed}: done by complete(), stopped by the stop callback.
/// L2 Only start() moves arming to armed; it publishes everything that start() wrote (release), and whoever wins in
///    armed acquires it.
/// L3 done and stopped are final. The winner's writes before are seen by the executor's run (through submit) or by
///    start() (acquire on its failed exchange).
/// Why not two flags: stop and completion could both believe to have won.
template <class Derived>
class leaf : public work_item, private stop_node {
public:
    using waits = void;  ///< see `may_fail_in_a_test`

    /// Has the wait end with a value. From any thread, also inside a stop callback or under a primitive's lock; the
    /// completer then calls `run_woken` without a lock, for the leaf may have no executor.
    /// Returns:       whether it did; false if it was stopped or completed before
    bool complete() noexcept { return settle(done); }

    /// Whether a stop has won: a primitive may skip such a waiter.
    [[nodiscard]] bool lost() const noexcept { return word_.load(std::memory_order_acquire) == stopped; }

protected:
    leaf() noexcept : work_item(&leaf::wake), stop_node(&leaf::stop_arrived) {}
    ~leaf() {
        if (word_.load(std::memory_order_relaxed) == armed) [[unlikely]]
            fail("a coroutine was destroyed while it waits: stop it, and let it end");
    }

    /// Suspends: connects everything, unless the wait ends meanwhile. `r` is resumed on the executor of its context.
    CORDON_NOINLINE std::coroutine_handle<> suspend(receiver_ref r) noexcept {
        receiver_ = r;
        note_wait(r, self().label());
        if (scope* const s = context_access::scope_of(r.ctx())) {
            s->arm();
            if (!attach(s->source())) {
                note_running(r);
                return r.stop_later();
            }
        }
        self().enqueue();
        std::uint8_t seen = arming;
        if (word_.compare_exchange_strong(seen, armed, std::memory_order_acq_rel, std::memory_order_acquire))  // L2
            return std::noop_coroutine();
        return disconnect(r, seen == stopped, false) ? r.stop_later() : r.complete();
    }

    [[nodiscard]] receiver_ref receiver() const noexcept { return receiver_; }

private:
    enum : std::uint8_t { arming, armed, done, stopped };

    Derived& self() noexcept { return static_cast<Derived&>(*this); }

    bool settle(std::uint8_t how) noexcept {
        std::uint8_t seen = word_.load(std::memory_order_relaxed);
        for (;;) {
            if (seen > armed) return false;
            if (word_.compare_exchange_weak(seen, how, std::memory_order_acq_rel, std::memory_order_relaxed)) break;  // L1
        }
        if (seen == armed) {
            if constexpr (leaves_early())
                if (how == stopped) self().leave_queue();
            submit_locked(receiver_.ctx(), *this);
        }
        return true;
    }
    static consteval bool leaves_early() noexcept {
        return requires(Derived& d) { d.leave_queue(); };
    }
    /// Returns:       whether the wait has ended stopped
    bool disconnect(receiver_ref r, bool was_stopped, bool has_left) noexcept {
        if (!has_left) self().dequeue(was_stopped);
        detach();
        note_running(r);
        if constexpr (requires(Derived& d) { d.ends_stopped(); }) return was_stopped || self().ends_stopped();
        else return was_stopped;
    }
    static void wake(work_item& item) noexcept {
        leaf& l = static_cast<leaf&>(item);
        const bool was_stopped = l.word_.load(std::memory_order_acquire) == stopped;  // L3
        const receiver_ref r = l.receiver_;
        const bool has_left = was_stopped && leaves_early();
        if (promise_base* const p = r.promise()) resume(l.disconnect(r, was_stopped, has_left) ? r.stop() : p->handle());
        else resume(l.disconnect(r, was_stopped, has_left) ? r.stop() : r.complete());
    }
    static void stop_arrived(stop_node& node) noexcept {
        static_cast<leaf&>(node).settle(stopped);
        run_woken();
    }

    receiver_ref receiver_;
    std::atomic<std::uint8_t> word_{arming};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
