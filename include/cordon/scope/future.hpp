// SPDX-License-Identifier: MIT
#pragma once

// The result of a task that runs in a group: `auto user = group.spawn_future(fetch()); ... co_await user`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/one_shot.hpp>
#include <cordon/core/outcome.hpp>

#include <atomic>
#include <cstddef>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label future_label{"future"};

/// Shared by the task that gives the result and the future that takes it.
template <class T>
class future_state : public one_shot<T>, public cached_frame {
public:
    void drop() noexcept {
        if (owners_.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
    }

private:
    std::atomic<int> owners_{2};
};

/// One of the two pointers to the state.
template <class T>
class future_side {
public:
    explicit future_side(future_state<T>* s) noexcept : state_(s) {}
    future_side(future_side&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
    future_side& operator=(future_side&& other) noexcept {
        future_side moved(std::move(other));
        std::swap(state_, moved.state_);
        return *this;
    }
    ~future_side() {
        if (state_ != nullptr) state_->drop();
    }
    [[nodiscard]] future_state<T>* get() const noexcept { return state_; }

private:
    future_state<T>* state_;
};

/// The side that gives the result. Dropped without one, the future ends stopped.
template <class T>
class future_promise {
public:
    explicit future_promise(future_state<T>* s) noexcept : side_(s) {}
    future_promise(future_promise&&) noexcept = default;
    ~future_promise() {
        if (side_.get() != nullptr) side_.get()->set(outcome<T>::stopped());
    }
    void set(outcome<T>&& result) noexcept { side_.get()->set(std::move(result)); }
    [[nodiscard]] future_state<T>* get() const noexcept { return side_.get(); }

private:
    future_side<T> side_;
};

}  // namespace detail

/// The result of a spawned task. Await it once; dropping it does not stop the task.
/// Errors:        throws the task's error; `rejected` if the group refused the task
/// Cancellation:  a cancel point; stopped, the result can still be awaited. Of a stopped task it ends stopped
template <class T>
class [[nodiscard]] future {
public:
    explicit future(detail::future_state<T>* s) noexcept : side_(s) {}

    /// Whether the result is there.
    [[nodiscard]] bool ready() const noexcept { return side_.get()->is_set(); }

    /// Waits for the result on a thread, and takes it.
    [[nodiscard]] outcome<T> wait_blocking(const blocking_scope& heeds = {}) {
        return detail::block_on(as_operation(), heeds);
    }

    /// Awaits the result; made of a temporary future it keeps the result alive itself.
    class operation : public detail::operation_base<operation> {
    public:
        using value_type = T;
        static constexpr bool needs_executor = false;
        explicit operation(detail::future_state<T>& s) noexcept : shared_(&s), side_(nullptr) {}
        explicit operation(detail::future_side<T>&& s) noexcept : shared_(s.get()), side_(std::move(s)) {}

        class state : private detail::future_side<T>, public detail::one_shot<T>::waiter {
        public:
            explicit state(operation&& o) noexcept
                : detail::future_side<T>(std::move(o.side_)),
                  detail::one_shot<T>::waiter(*o.shared_, detail::future_label) {}
        };

    private:
        detail::future_state<T>* shared_;
        detail::future_side<T> side_;
    };
    [[nodiscard]] operation as_operation() const& noexcept {
        check();
        return operation(*side_.get());
    }
    [[nodiscard]] operation as_operation() && noexcept {
        check();
        return operation(std::move(side_));
    }

private:
    void check() const noexcept {
        if (side_.get() == nullptr) [[unlikely]] detail::fail("awaiting a future that has been moved from");
    }
    detail::future_side<T> side_;
};

}  // namespace cordon::inline CORDON_ABI
