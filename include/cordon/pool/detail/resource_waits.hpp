// SPDX-License-Identifier: MIT
#pragma once

// What one can wait for at a resource_pool: a turn, and its end.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/pool/detail/resource_core.hpp>

#include <coroutine>
#include <exception>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Waits for a place: with a resource, or, if the pool has no executor of its own, with room for one.
/// Errors:        refused as `closed`
class resource_core::turn : public leaf<turn>, public list_hook {
public:
    turn(resource_core& c, place surplus, bool again, bool counted) noexcept
        : core_(&c), surplus_(std::move(surplus)), again_(again), counted_(counted) {}
    ~turn() {
        if (owes_) [[unlikely]] place(*core_, resource_);  // got, and never taken: it lost a race
    }
    bool ready() const noexcept { return false; }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<place> take() noexcept {
        if (std::exchange(owes_, false)) return outcome<place>(std::in_place, *core_, resource_);
        if (error_ != nullptr) return outcome<place>(std::move(error_));
        return refused_;  // there is no pool any more, perhaps: K3
    }

private:
    friend class leaf<turn>;
    friend class resource_core;
    void enqueue() noexcept {
        const change now(*core_);
        ++core_->turns_;
        core_->drop(surplus_);
        if (core_->closed_) {
            refuse();
            return;
        }
        if (!counted_) ++core_->totals_.waited;
        if (again_) core_->waiters_.push_front(*this);
        else core_->waiters_.push_back(*this);
    }
    void dequeue(bool was_stopped) noexcept {
        const change now(*core_);
        --core_->turns_;
        if (was_stopped) ++core_->totals_.gave_up;
        core_->waiters_.remove(*this);
    }
    /// Under the lock.
    void refuse() noexcept {
        refused_ = core_->refusal();
        complete();
    }
    void leave_queue() noexcept { dequeue(true); }
    [[nodiscard]] bool ends_stopped() const noexcept { return stopped_; }
    const wait_label& label() const noexcept { return core_->label_; }

    resource_core* core_;
    place surplus_;              ///< that it had, and gives up as it gets in line
    const bool again_;           ///< was served once, and goes first
    const bool counted_;         ///< among those that waited
    bool owes_ = false;          ///< has a place that nobody has been told of
    bool stopped_ = false;       ///< the creation was, for which it waits
    pooled* resource_ = nullptr;
    std::exception_ptr error_;
    rejection refused_;
};

class resource_core::turn_operation : public operation_base<turn_operation> {
public:
    using value_type = place;
    static constexpr bool needs_executor = true;

    turn_operation(resource_core& c, place surplus, bool again, bool counted) noexcept
        : core_(&c), surplus_(std::move(surplus)), again_(again), counted_(counted) {}
    class state : public turn {
    public:
        explicit state(turn_operation&& t) noexcept : turn(*t.core_, std::move(t.surplus_), t.again_, t.counted_) {}
    };

private:
    resource_core* core_;
    place surplus_;
    bool again_, counted_;
};

/// Waits until there is no place any more.
class resource_core::closer : public leaf<closer>, public list_hook {
public:
    explicit closer(resource_core& c) noexcept : core_(&c) {}
    bool ready() const noexcept { return false; }
    std::coroutine_handle<> start(receiver_ref r) noexcept {
        core_->begin_close();
        return suspend(r);
    }
    outcome<void> take() noexcept { return {}; }
    static constexpr bool never_fails = true;

private:
    friend class leaf<closer>;
    friend class resource_core;
    void enqueue() noexcept {
        const change now(*core_);
        ++core_->closing_;
        core_->closers_.push_back(*this);
    }
    void dequeue(bool was_stopped) noexcept {
        {
            const spin_guard guard(core_->lock_);  // K3
            core_->closers_.remove(*this);
        }
        if (was_stopped) core_->report_all();
        const spin_guard guard(core_->lock_);
        --core_->closing_;
    }
    const wait_label& label() const noexcept { return core_->close_label_; }

    resource_core* core_;
};

class resource_core::close_operation : public operation_base<close_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = false;

    explicit close_operation(resource_core& c) noexcept : core_(&c) {}
    class state : public closer {
    public:
        explicit state(close_operation&& c) noexcept : closer(*c.core_) {}
    };

private:
    resource_core* core_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
