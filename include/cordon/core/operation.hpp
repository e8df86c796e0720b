// SPDX-License-Identifier: MIT
#pragma once

// The protocol between an operation and whoever awaits it. A function such as `sleep_for` returns a description: small,
// movable, inert. Whoever awaits it builds the description's `state` in place, starts it with a receiver, and takes the
// outcome when the receiver is told. Combinators are receivers themselves and need no frame of their own.

#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/thread_state.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>

#include <concepts>
#include <coroutine>
#include <cstdint>
#include <memory>
#include <source_location>
#include <type_traits>
#include <utility>

// One copy for a whole process, also when its parts are built with hidden visibility.
#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility push(default)
#endif

namespace cordon::inline CORDON_ABI {

class receiver;
class promise_base;

namespace detail {
void resume(std::coroutine_handle<> h) noexcept;
}

/// A pointer to who awaits: a coroutine's promise, which is simply resumed, or a combinator, which decides.
/// One word; its lowest bit tells the two apart, so that the way back to a coroutine needs no indirect call.
class receiver_ref {
public:
    struct unset {};

    constexpr receiver_ref() noexcept : tagged_(nullptr) {}
    explicit receiver_ref(unset) noexcept {}
    explicit receiver_ref(promise_base& p) noexcept;
    explicit receiver_ref(receiver& r) noexcept;

    [[nodiscard]] explicit operator bool() const noexcept { return tagged_ != nullptr; }
    [[nodiscard]] const context& ctx() const noexcept;
    /// The record of the task that this operation is a part of; null if nobody keeps one.
    [[nodiscard]] detail::task_record* record() const noexcept;
    /// Who awaits the receiver itself.
    [[nodiscard]] receiver_ref up() const noexcept;
    /// The promise of the coroutine that awaits; null if a combinator does.
    [[nodiscard]] promise_base* promise() const noexcept;
    /// The combinator that awaits. Requires: `promise()` is null.
    [[nodiscard]] receiver& combinator() const noexcept { return *reinterpret_cast<receiver*>(tagged_); }

    /// Tells that `child` (null: an operation without a frame) has ended with a value, an error or a refusal.
    /// Returns:       what to resume next
    [[nodiscard]] std::coroutine_handle<> complete(promise_base* child = nullptr) const noexcept;

    /// Tells that `child` was stopped, and hands it over to be destroyed. Not from inside an `await_suspend`, since
    /// it destroys frames; use `stop_later` there.
    [[nodiscard]] std::coroutine_handle<> stop(promise_base* child = nullptr) const noexcept;

    /// `stop(child)`, as soon as the coroutine that runs now on this thread has returned to its loop.
    /// Returns:       what to return from `await_suspend`
    [[nodiscard]] std::coroutine_handle<> stop_later(promise_base* child = nullptr) const noexcept;

private:
    friend void detail::resume(std::coroutine_handle<>) noexcept;
    explicit receiver_ref(char* tagged) noexcept : tagged_(tagged) {}

    char* tagged_;  ///< the address of a receiver, or of a promise plus one
};

/// Who awaits an operation and is not a coroutine. Derive from it.
class receiver {
public:
    /// `child` is the frame that ended, or null; if `stopped`, it must be destroyed with `detail::discard`.
    using done_function = std::coroutine_handle<> (*)(receiver& self, promise_base* child, bool stopped) noexcept;

    receiver(const context* c, detail::task_record* r, receiver_ref outer, done_function d) noexcept
        : ctx(c), record(r), up(outer), done(d) {}
    /// For one that sets the others before anybody can look at them.
    explicit receiver(done_function d) noexcept : up(receiver_ref::unset()), done(d) {}
    receiver(const receiver&) = delete;
    receiver& operator=(const receiver&) = delete;

    const context* ctx;
    detail::task_record* record;
    receiver_ref up;
    done_function done;

protected:
    ~receiver() = default;
};

/// What every coroutine of this library has in its promise, and what a root is queued by before it runs.
class promise_base : public work_item {
public:
    promise_base() noexcept : work_item(uninitialized()) {}

    // Set by whoever starts the coroutine, so that making one writes nothing twice.
    const context* ctx;
    detail::task_record* record;
    receiver_ref up{receiver_ref::unset()};
    promise_base** owner;              ///< where the owning state keeps this frame; nulled when a stop destroys it
    std::source_location site;         ///< the last `co_await` of this coroutine

    [[nodiscard]] std::coroutine_handle<> handle() noexcept {
        return std::coroutine_handle<promise_base>::from_promise(*this);
    }

protected:
    ~promise_base() = default;
};
static_assert(alignof(promise_base) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);

/// A description of something to await: `value_type`, and a `state` that is built from the description.
///  - `state(O&&)`
///  - `bool ready()`: whether the outcome is there already; asked once, before `start`
///  - `std::coroutine_handle<> start(receiver_ref)`: starts; returns what to resume next
///  - `outcome<value_type> take() noexcept`: once, after completion; never after a stop
///  - `O::needs_executor`: whether it can only be awaited with a context that has one
template <class O>
concept operation = std::move_constructible<O> && requires(typename O::state& s, receiver_ref r) {
    typename O::value_type;
    { s.ready() } noexcept -> std::same_as<bool>;
    { s.start(r) } noexcept -> std::same_as<std::coroutine_handle<>>;
    { s.take() } noexcept -> std::same_as<outcome<typename O::value_type>>;
    { O::needs_executor } -> std::convertible_to<bool>;
};

namespace detail {

/// A state that shows its value before it is taken: `has_value()`, and for a value that is not void `peek()`.
template <class S>
concept shows_value = requires(const S& s) {
    { s.has_value() } noexcept -> std::same_as<bool>;
};

}  // namespace detail

// --- below: bodies ----------------------------------------------------------------------------------------------

namespace detail {

/// Destroys the frame of a child that was stopped and tells its owner.
inline void discard(promise_base* child) noexcept {
    if (child == nullptr) return;
    if (child->owner != nullptr) *child->owner = nullptr;
    destroy_interrupted(child->handle());
}

/// How many coroutines may resume each other without a return to the loop: unoptimized g++ code nests them on the
/// stack at a few hundred bytes each.
inline constexpr int transfers_per_bounce = 128;

/// Resumes `h`, and then whatever the coroutines that ran left to do on this thread: the one place where a frame is
/// resumed, where a stop walks up and destroys frames (innermost first, in a loop), and where ended roots are
/// destroyed.
CORDON_NOINLINE inline void resume(std::coroutine_handle<> h) noexcept {
    thread_state& t = this_thread_state;
    const int outer_budget = std::exchange(t.budget, transfers_per_bounce);
    const bool outer_looping = std::exchange(t.looping, true);
    for (;;) {
        if (h) h.resume();
        if (!t.has_leftovers) [[likely]] break;
        h = std::exchange(t.next, nullptr);
        t.budget = transfers_per_bounce;
        if (t.stop_receiver != nullptr) {
            h = receiver_ref(std::exchange(t.stop_receiver, nullptr)).stop(std::exchange(t.stop_child, nullptr));
        } else if (t.finished != nullptr) {
            t.has_leftovers = h != nullptr || t.inline_head != nullptr;
            t.reap(*std::exchange(t.finished, nullptr));
        } else if (!h) {
            t.has_leftovers = t.inline_head != nullptr;
            if (outer_looping || !t.has_leftovers) break;
            work_item* item = t.inline_head;
            t.inline_head = item->next;
            item->run(*item);
        }
    }
    t.budget = outer_looping ? outer_budget : 0;
    t.looping = outer_looping;
}

/// Has the loop of this thread resume `h`, after everything above it on the stack has returned.
CORDON_NOINLINE inline std::coroutine_handle<> bounce(std::coroutine_handle<> h) noexcept {
    thread_state& t = this_thread_state;
    if (!t.looping) {
        resume(h);
    } else {
        t.next = h;
        t.has_leftovers = true;
    }
    return std::noop_coroutine();
}

/// What every `await_suspend` returns: `h` itself, or a bounce once in a while where the compiler may have compiled
/// the transfer as a nested call (GCC without optimization, or with sanitizers).
inline std::coroutine_handle<> transfer(std::coroutine_handle<> h) noexcept {
#if defined(__GNUC__) && !defined(__clang__)
    if (--this_thread_state.budget < 0) [[unlikely]] return bounce(h);
#endif
    return h;
}

/// Has the loop of this thread destroy a root that has ended, once it has returned from its final suspension.
CORDON_THREAD_LOCAL_ACCESS inline std::coroutine_handle<> reap_later(promise_base& root,
                                                                     void (*reap)(promise_base&) noexcept) noexcept {
    this_thread_state.has_leftovers = true;
    this_thread_state.finished = &root;
    this_thread_state.reap = reap;
    return std::noop_coroutine();
}

/// For operations awaited without an executor: has the item run on this thread, in the loop that runs here, or else in
/// the next `run_woken`.
CORDON_NOINLINE inline void run_inline_later(work_item& item) noexcept {
    thread_state& t = this_thread_state;
    item.next = nullptr;
    t.has_leftovers = true;
    t.run_inline = [] () noexcept { resume(nullptr); };
    (t.inline_head == nullptr ? t.inline_head : t.inline_tail->next) = &item;
    t.inline_tail = &item;
}
/// Runs what `run_inline_later` took, unless a loop that runs here will. Not under a lock.
CORDON_NOINLINE inline void run_woken() noexcept {
    const thread_state& t = this_thread_state;
    if (!t.looping && t.inline_head != nullptr) resume(nullptr);
}

/// Has `item` run on the executor of `c`.
inline void submit(const context& c, work_item& item) noexcept {
    if (c.executor()) return c.executor().submit(item);
    run_inline_later(item);
    run_woken();
}
/// The same under a lock: whoever gives it back calls `run_woken`.
inline void submit_locked(const context& c, work_item& item) noexcept {
    if (c.executor()) c.executor().submit(item);
    else run_inline_later(item);
}

}  // namespace detail

inline receiver_ref::receiver_ref(promise_base& p) noexcept
    : tagged_(std::assume_aligned<alignof(promise_base)>(reinterpret_cast<char*>(&p)) + 1) {}

inline receiver_ref::receiver_ref(receiver& r) noexcept
    : tagged_(std::assume_aligned<alignof(receiver)>(reinterpret_cast<char*>(&r))) {}

inline promise_base* receiver_ref::promise() const noexcept {
    return (reinterpret_cast<std::uintptr_t>(tagged_) & 1) != 0 ? reinterpret_cast<promise_base*>(tagged_ - 1) : nullptr;
}
inline const context& receiver_ref::ctx() const noexcept {
    if (promise_base* p = promise()) return *p->ctx;
    return *combinator().ctx;
}
inline detail::task_record* receiver_ref::record() const noexcept {
    if (promise_base* p = promise()) return p->record;
    return combinator().record;
}
inline receiver_ref receiver_ref::up() const noexcept {
    if (promise_base* p = promise()) return p->up;
    return combinator().up;
}
inline std::coroutine_handle<> receiver_ref::complete(promise_base* child) const noexcept {
    if (promise_base* p = promise()) return p->handle();
    receiver& r = combinator();
    return r.done(r, child, false);
}
inline std::coroutine_handle<> receiver_ref::stop(promise_base* child) const noexcept {
    if (promise_base* p = promise()) {
        detail::discard(child);
        return p->up.stop_later(p);
    }
    receiver& r = combinator();
    return r.done(r, child, true);
}
CORDON_NOINLINE inline std::coroutine_handle<> receiver_ref::stop_later(promise_base* child) const noexcept {
    detail::this_thread_state.has_leftovers = true;
    detail::this_thread_state.stop_receiver = tagged_;
    detail::this_thread_state.stop_child = child;
    return std::noop_coroutine();
}

}  // namespace cordon::inline CORDON_ABI

#if defined(__ELF__) || defined(__MACH__)
#pragma GCC visibility pop
#endif
