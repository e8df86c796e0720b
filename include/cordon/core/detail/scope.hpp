// SPDX-License-Identifier: MIT
#pragma once

// The part of a scope that contexts point to: a stop source that is stopped with its parent. A scope in a frame is
// connected late, by the first operation below it that really suspends; an operation that ends at once never pays.

#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/thread_state.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/stop_token.hpp>

#include <atomic>
#include <cassert>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>

namespace cordon::inline CORDON_ABI {
namespace detail {

class context_access;

/// Invariant: if a scope is armed, every scope above it is. A scope that several threads can see was armed before
/// they could (groups and the like arm theirs when they start), so that being armed needs no atomic. Until then it has
/// no stop source at all: making one would cost more than most calls that never suspend.
class scope {
public:
    explicit scope(scope* parent) noexcept : parent_(parent) {}
    /// For one that is told its parent before anybody can see it.
    struct later {};
    explicit scope(later) noexcept {}
    scope(const scope&) = delete;
    scope& operator=(const scope&) = delete;

    /// Requires: armed.
    [[nodiscard]] inplace_stop_source& source() noexcept { return connection_->source; }
    [[nodiscard]] const inplace_stop_source& source() const noexcept { return connection_->source; }

    /// Connects this scope and all above it. Inner ones first: what is stopped further out arrives when the last
    /// link is made.
    void arm() noexcept {
        if (!connection_) [[unlikely]] arm_chain();
    }

    /// Whether a stop has arrived. Unlike a look at the token it connects nothing, and does not look at the clock.
    [[nodiscard]] bool stop_arrived() const noexcept {
        return connection_ ? source().stop_requested() : stops_when_armed();
    }

    /// Whether this scope, or one above it, holds a stop back.
    [[nodiscard]] bool shielded() const noexcept {
        for (const scope* s = this; s != nullptr; s = s->parent_)
            if (s->shields()) return true;
        return false;
    }

    /// Stops every scope, from here outwards, whose own deadline is not later than `now`. Requires: armed.
    void expire(clock::time_point now) noexcept {
        const deferred_wakes until_the_end;
        for (scope* s = this; s != nullptr; s = s->parent_) s->on_expire(now);
    }

protected:
    ~scope() = default;

    void set_parent(scope* parent) noexcept { parent_ = parent; }
    /// Whether what `on_arm` links to has stopped. Asked of one that is not armed.
    [[nodiscard]] virtual bool stops_when_armed() const noexcept { return parent_ != nullptr && parent_->stop_arrived(); }
    [[nodiscard]] bool armed() const noexcept { return connection_.has_value(); }
    void link_to_parent() noexcept {
        if (parent_ != nullptr) connection_->link.attach(parent_->source().get_token(), source());
    }
    void unlink_from_parent() noexcept {
        if (connection_) connection_->link.detach();
    }

private:
    struct connection {
        inplace_stop_source source;
        stop_link link;
    };

    CORDON_NOINLINE void arm_chain() noexcept {
        scope* top = this;  // the first that is armed already, or null
        for (; top != nullptr && !top->connection_; top = top->parent_) top->connection_.emplace();
        for (scope* s = this; s != top; s = s->parent_) s->on_arm();
    }
    /// Links to the parent and does what this kind of scope needs besides.
    virtual void on_arm() noexcept { link_to_parent(); }
    virtual void on_expire(clock::time_point) noexcept {}
    [[nodiscard]] virtual bool shields() const noexcept { return false; }

    scope* parent_;
    std::optional<connection> connection_;
};

/// A scope that is stopped when a deadline of its own passes. What only an armed one needs is made when it is armed.
class deadline_scope : public scope {
public:
    deadline_scope(scope* parent, cordon::deadline ambient, cordon::deadline own, executor_ref runs_on,
                   const std::source_location& where) noexcept
        : scope(later()) {
        open(parent, ambient, own, runs_on, where);
    }

    /// Unhooks the timer and the link to the parent: afterwards nobody can stop this scope any more.
    void disarm() noexcept {
        if (armed() && armed_.hooked) [[unlikely]] disarm_armed();
    }

    /// Whether it was this scope's own deadline that stopped it. What ran under it has ended.
    [[nodiscard]] bool expired() const noexcept {
        if (!armed() || !armed_.passed.load(std::memory_order_relaxed)) return false;
        return source().reason() == stop_reason{stop_kind::deadline, 0, opened_.where};
    }
    [[nodiscard]] const std::source_location& where() const noexcept { return opened_.where; }

protected:
    explicit deadline_scope(later l) noexcept : scope(l) {}
    /// Requires:      the derived class has disarmed: a timer that is firing on another thread calls its functions
    ~deadline_scope() { assert(!armed() || !armed_.hooked); }
    void open(scope* parent, cordon::deadline ambient, cordon::deadline own, executor_ref runs_on,
              const std::source_location& where) noexcept {
        set_parent(parent);
        std::construct_at(&opened_, own < ambient ? own : cordon::deadline::never(), runs_on, where);
    }
    [[nodiscard]] cordon::deadline own() const noexcept { return opened_.own; }

private:
    struct when_armed : timer {
        explicit when_armed(deadline_scope& s) noexcept : timer(&deadline_scope::fired), owner(&s) {}
        deadline_scope* owner;
        bool hooked = true;               ///< until disarm(): linked to the parent, and to a timer if in_timers
        bool in_timers = false;
        bool awaits_overdue = false;      ///< the timer's: it has fired for the deadline, and fires once more
        std::atomic<bool> passed{false};  ///< set before the stop that publishes it: by the timer, or by whoever polls
    };

    CORDON_NOINLINE void disarm_armed() noexcept {
        if (armed_.in_timers) opened_.executor.timers().cancel(armed_);
        armed_.hooked = armed_.in_timers = false;
        unlink_from_parent();
    }
    void on_arm() noexcept override {
        std::construct_at(&armed_, *this);
        link_to_parent();
        if (opened_.own.is_never() || !opened_.executor) return;
        armed_.when = opened_.own.time();
        armed_.in_timers = true;
        opened_.executor.timers().arm(armed_);
    }
    void on_expire(clock::time_point now) noexcept override {
        if (!opened_.own.is_never() && opened_.own.time() <= now) stop();
    }
    /// Told when the deadline has passed and the stop was requested; a time that is not `max` calls `on_overdue` then.
    virtual clock::time_point overdue_at() noexcept { return (clock::time_point::max)(); }
    virtual void on_overdue() noexcept {}

    static void fired(timer& t) noexcept {
        auto& self = *static_cast<when_armed&>(t).owner;
        if (self.armed_.awaits_overdue) return self.on_overdue();
        const deferred_wakes until_the_end;
        self.stop();
        if (!self.expired()) return;
        const clock::time_point overdue = self.overdue_at();
        if (overdue == (clock::time_point::max)()) return;
        self.armed_.when = overdue;
        self.armed_.awaits_overdue = true;
        self.opened_.executor.timers().arm(self.armed_);
    }
    void stop() noexcept {
        armed_.passed.store(true, std::memory_order_relaxed);
        source().request_stop(stop_reason{stop_kind::deadline, 0, opened_.where});
    }

    struct terms {
        terms(cordon::deadline d, executor_ref e, const std::source_location& w) noexcept
            : own(d), executor(e), where(w) {}
        cordon::deadline own;  ///< never, if an outer one is earlier
        executor_ref executor;
        std::source_location where;
    };
    static_assert(std::is_trivially_destructible_v<terms> && std::is_trivially_destructible_v<when_armed>);

    // Most timeouts end without ever being armed, so writing these members beforehand would be most of their cost.
    // opened_ is there from open() on, armed_ exactly while armed() is true; neither has to be destroyed.
    union {
        terms opened_;
    };
    union {
        when_armed armed_;
    };
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
