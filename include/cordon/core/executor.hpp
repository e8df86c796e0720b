// SPDX-License-Identifier: MIT
#pragma once

// What runs things: a thread's loop, a pool, or the loop that a host already has. Three members make a type an
// executor; everything in this library that resumes a coroutine submits it to one.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/timer.hpp>

#include <concepts>
#include <type_traits>

namespace cordon::inline CORDON_ABI {

/// Something to run once: a node that its owner embeds, so that submitting never allocates.
/// `run` may destroy the item; whoever calls it touches the item no more afterwards.
struct work_item {
    using function = void (*)(work_item&) noexcept;
    struct uninitialized {};

    explicit work_item(function f) noexcept : run(f) {}
    /// For an owner that sets `run` before it submits the item.
    explicit work_item(uninitialized) noexcept {}
    work_item(const work_item&) = delete;
    work_item& operator=(const work_item&) = delete;

    work_item* next;  ///< the executor's
    function run;
};

/// Runs submitted items, one after the other or on several threads.
///  - `submit(item)`: takes the item and returns; never runs it inside the call. Afterwards the caller may not touch
///    the item. From any thread, also under a lock of this library, of which it calls nothing. Everything before the
///    call happens before the run.
///  - `is_current()`: whether the calling thread is inside this executor's run of an item.
///  - `timers()`: the timers that this executor fires; the reference stays valid as long as the executor lives.
template <class E>
concept executor = requires(E& e, const E& constant, work_item& item) {
    { e.submit(item) } noexcept -> std::same_as<void>;
    { constant.is_current() } noexcept -> std::same_as<bool>;
    { e.timers() } noexcept -> std::convertible_to<timer_service&>;
};

/// A reference to any executor, or to none. Two words, trivially copyable.
/// Lifetime:      the executor outlives every reference that is still used
class executor_ref {
public:
    executor_ref() = default;
    template <executor E>
        requires(!std::same_as<std::remove_cvref_t<E>, executor_ref>)
    executor_ref(E& e) noexcept : object_(&e), functions_(&functions_of<E>) {}

    [[nodiscard]] explicit operator bool() const noexcept { return object_ != nullptr; }
    /// Requires:      there is an executor; so does `timers`
    void submit(work_item& item) const noexcept { functions_->submit(object_, item); }
    [[nodiscard]] bool is_current() const noexcept { return object_ != nullptr && functions_->is_current(object_); }
    [[nodiscard]] timer_service& timers() const noexcept { return functions_->timers(object_); }

    /// The object, if it is an E; null otherwise.
    template <class E>
    [[nodiscard]] E* target() const noexcept {
        return functions_ == &functions_of<E> ? static_cast<E*>(object_) : nullptr;
    }

    /// Whether both refer to the same object.
    friend bool operator==(executor_ref a, executor_ref b) noexcept { return a.object_ == b.object_; }

private:
    struct functions {
        void (*submit)(void*, work_item&) noexcept;
        bool (*is_current)(const void*) noexcept;
        timer_service& (*timers)(void*) noexcept;
    };
    template <class E>
    static constexpr functions functions_of{
        [](void* e, work_item& item) noexcept { static_cast<E*>(e)->submit(item); },
        [](const void* e) noexcept { return static_cast<const E*>(e)->is_current(); },
        [](void* e) noexcept -> timer_service& { return static_cast<E*>(e)->timers(); }};

    void* object_ = nullptr;
    const functions* functions_ = nullptr;
};

}  // namespace cordon::inline CORDON_ABI
