// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/scope/task_group.hpp>, which includes this; a page of its own, so that the class stays a page.

#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/task_group.hpp>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline constinit const wait_label join_label{"the join of a group"};
inline constinit const wait_label room_label{"room in a group"};

}  // namespace detail

/// Whoever waits for the last child.
class task_group::join_waiter : public detail::leaf<join_waiter>, public detail::list_hook {
public:
    explicit join_waiter(task_group& g) noexcept : group_(&g) {}
    bool ready() noexcept { return group_->close_if_idle(false); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept { return {}; }
    static constexpr bool never_fails = true;

private:
    friend class leaf<join_waiter>;
    void enqueue() noexcept {
        {
            const detail::spin_guard guard(group_->lock_);
            if (group_->ended_) {
                complete();
                return;
            }
            group_->joiners_.push_back(*this);
        }
        group_->close_if_idle(true);
    }
    /// Takes back what was asked of the last child, if nobody else waits for it. T2: waits for the one who closes.
    void dequeue(bool) noexcept {
        for (detail::spin_wait wait;; wait()) {
            const detail::spin_guard guard(group_->lock_);
            group_->joiners_.remove(*this);
            const std::uint64_t seen = group_->joiners_.empty()
                                           ? group_->state_.fetch_and(~joining_bit, std::memory_order_acq_rel)
                                           : group_->state_.load(std::memory_order_acquire);
            if ((seen & closed_bit) == 0 || group_->told_) return;
        }
    }
    const detail::wait_label& label() const noexcept { return detail::join_label; }

    task_group* group_;
};

/// A spawner that waits for room. Completed with a slot it owns it until a child does; completed without one, the
/// group has been stopped.
class task_group::slot_waiter : public detail::leaf<slot_waiter>, public detail::list_hook {
public:
    explicit slot_waiter(task_group& g) noexcept : group_(&g) {}
    ~slot_waiter() {
        if (has_slot_) group_->return_slot();
    }
    bool ready() noexcept {
        if (group_->scope_.source().stop_requested()) return true;
        return has_slot_ = group_->take_slot();
    }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    [[nodiscard]] task_group& group() const noexcept { return *group_; }
    /// Passes the slot on, if there is one.
    bool use_slot() noexcept { return std::exchange(has_slot_, false); }
    /// Under the group's lock, which keeps this alive although it may run at once.
    bool wake(bool with_slot) noexcept {
        has_slot_ = with_slot;
        if (complete()) return true;
        has_slot_ = false;
        return false;
    }

private:
    friend class leaf<slot_waiter>;
    void enqueue() noexcept {
        const detail::spin_guard guard(group_->lock_);
        ++group_->spawners_present_;
        if (group_->scope_.source().stop_requested()) complete();
        else if (group_->spawners_.empty() && group_->running_ < group_->max_running_) {
            if (wake(true)) ++group_->running_;  // else a stop was faster
        } else group_->spawners_.push_back(*this);
    }
    void dequeue(bool) noexcept {
        const detail::spin_guard guard(group_->lock_);
        group_->spawners_.remove(*this);
        --group_->spawners_present_;
    }
    const detail::wait_label& label() const noexcept { return detail::room_label; }

    task_group* group_;
    bool has_slot_ = false;
};

/// What `join` returns.
class task_group::join_operation : public detail::operation_base<join_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = false;

    explicit join_operation(task_group& g) noexcept : group_(&g) {}

    class state : public join_waiter {
    public:
        explicit state(join_operation&& j) noexcept : join_waiter(*j.group_) {}
    };

private:
    task_group* group_;
};

/// What `spawn_when_ready` returns.
class task_group::spawn_operation : public detail::operation_base<spawn_operation> {
public:
    using value_type = bool;
    static constexpr bool needs_executor = false;

    spawn_operation(task_group& g, task<void>&& child, spawn_options options, std::source_location where) noexcept
        : group_(&g), child_(std::move(child)), options_(options), where_(where) {}

    class state {
    public:
        using waits = void;  ///< see detail::may_fail_in_a_test

        explicit state(spawn_operation&& s) noexcept
            : waiter_(*s.group_), child_(std::move(s.child_)), options_(s.options_), where_(s.where_) {}
        bool ready() noexcept { return waiter_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return waiter_.start(r); }
        outcome<bool> take() noexcept { return waiter_.group().launch(child_, options_, where_, waiter_.use_slot()); }

    private:
        slot_waiter waiter_;
        task<void> child_;
        spawn_options options_;
        std::source_location where_;
    };

private:
    task_group* group_;
    task<void> child_;
    spawn_options options_;
    std::source_location where_;
};

template <runnable A>
task_group::spawn_operation task_group::spawn_when_ready(A&& a, spawn_options options, std::source_location where) {
    detail::check_callable<A>();
    return spawn_operation(*this, detail::as_child(std::forward<A>(a)), options, where);
}
inline task_group::join_operation task_group::join() noexcept { return join_operation(*this); }

inline outcome<void> task_group::join_blocking(const blocking_scope& heeds) { return detail::block_on(join(), heeds); }

inline task_group::task_group(const context& outer, const group_options& options, on_error by_kind,
                              detail::task_record* parent, const std::source_location& where)
    : receiver(&context_, nullptr, {}, &task_group::child_ended), scope_(detail::context_access::scope_of(outer)),
      context_(detail::context_access::with_scope(outer, scope_)), max_running_(options.max_running),
      stops_on_error_((options.errors == on_error::by_kind ? by_kind : options.errors) == on_error::stop_group),
      name_(options.name) {
    if (!outer.executor())
        detail::raise(std::invalid_argument("task_group: its context has no executor for its children to run on"),
                      "task_group: its context has no executor for its children to run on");
    record = detail::task_record::open(true, options.name, where, parent, detail::coarse_now_ms());
    scope_.arm();
    if (max_running_ != group_options::unlimited && !on_stop_.attach(scope_.source())) task_group::stopped(on_stop_);
}

inline task_group::~task_group() {
    if (state_.load(std::memory_order_acquire) >= one_child) {
        std::string report = "task_group \"" + name_ + "\" destroyed with " + std::to_string(size()) +
                             " live tasks; join it first\n";
        for (const task_info& child : children()) report += describe(child);
        detail::fail(report);
    }
    if (spawners_present_ != 0)
        detail::fail("task_group \"" + name_ + "\" destroyed while " + std::to_string(spawners_present_) +
                     " tasks are in its spawn_when_ready; end them first");
    on_stop_.detach();
    if (record != nullptr) record->close();
}

/// Makes `child` a root of this group and submits it.
inline bool task_group::launch(task<void>& child, const spawn_options& options, const std::source_location& where,
                               bool has_slot) {
    if (scope_.source().stop_requested() || (!has_slot && !take_slot())) {
        if (has_slot) return_slot();
        refused_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    if (!enter()) {
        return_slot();
        refused_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    promise_base& p = *detail::task_access::release(std::move(child));
    p.ctx = &context_;
    p.up = receiver_ref(static_cast<receiver&>(*this));
    p.record = detail::task_record::open(false, options.name, where, record, detail::coarse_now_ms());
    p.run = &task_group::begin;
    context_.executor().submit(p);
    return true;
}

inline cordon::rejection task_group::refusal() const noexcept {
    const bool ended = scope_.source().stop_requested() || (state_.load(std::memory_order_acquire) & closed_bit) != 0;
    return cordon::rejection(ended ? reject_reason::closed : reject_reason::full, name_);
}

inline bool task_group::enter() noexcept {
    std::uint64_t seen = state_.load(std::memory_order_relaxed);
    do {
        if ((seen & closed_bit) != 0) return false;
    } while (!state_.compare_exchange_weak(seen, seen + one_child, std::memory_order_relaxed));
    return true;
}

inline void task_group::leave() noexcept {
    if (max_running_ != group_options::unlimited) {
        return_counted_slot();
    } else if (detail::held_ends* const here = detail::held_ends_at_last()) {
        static constexpr detail::held_ends::kind mine{&task_group::begin, &task_group::count_ended};
        return here->hold(this, mine);
    }
    leave(1);
}
inline void task_group::count_ended(void* group, std::uint32_t n) noexcept { static_cast<task_group*>(group)->leave(n); }
inline void task_group::leave(std::uint32_t n) noexcept {
    std::uint64_t seen = state_.load(std::memory_order_relaxed);
    std::uint64_t next;
    do {
        next = seen - n * one_child;
        if (next == joining_bit) next = closed_bit;
    } while (!state_.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_relaxed));  // T1
    if (next == closed_bit) closed();
}

/// Closes the group if it has no children; else, if `or_later`, whoever ends last does.
/// Returns:       whether it is closed, and nobody is at it any more
inline bool task_group::close_if_idle(bool or_later) noexcept {
    std::uint64_t seen = state_.load(std::memory_order_acquire);
    for (;;) {
        if ((seen & closed_bit) != 0) {
            const detail::spin_guard guard(lock_);
            return told_;
        }
        if (seen >= one_child && !or_later) return false;
        const std::uint64_t next = seen < one_child ? closed_bit : seen | joining_bit;
        if (!state_.compare_exchange_weak(seen, next, std::memory_order_acq_rel, std::memory_order_acquire)) continue;
        if (next == closed_bit) closed();
        return next == closed_bit;
    }
}

/// The one who closed the group completes those who join, before its stop could end them: the body of the group is one
/// of them. They wait in `dequeue` for the store that unlocks, which is the last access to the group (T2).
inline void task_group::closed() noexcept {
    const detail::deferred_wakes until_told;
    {
        const detail::spin_guard guard(lock_);
        ended_ = true;
        while (!joiners_.empty()) joiners_.pop_front().complete();
    }
    scope_.source().request_stop(stop_reason{stop_kind::closed, 0, {}});
    const detail::spin_guard guard(lock_);
    told_ = true;
}

inline bool task_group::take_slot() noexcept {
    if (max_running_ == group_options::unlimited) return true;
    const detail::spin_guard guard(lock_);
    if (running_ >= max_running_ || !spawners_.empty()) return false;
    ++running_;
    return true;
}

/// Hands the slot to whoever has waited longest for one.
inline void task_group::return_slot() noexcept {
    if (max_running_ != group_options::unlimited) return_counted_slot();
}
CORDON_NOINLINE inline void task_group::return_counted_slot() noexcept {
    const detail::waking_guard guard(lock_);
    while (!spawners_.empty())
        if (spawners_.pop_front().wake(true)) return;
    --running_;
}

/// The group was stopped: those who wait for room get none.
inline void task_group::stopped(detail::stop_node& node) noexcept {
    task_group& self = *static_cast<stop_hook&>(node).group;
    const detail::waking_guard guard(self.lock_);
    while (!self.spawners_.empty()) self.spawners_.pop_front().wake(false);
}

inline void task_group::begin(work_item& item) noexcept {
    auto& child = static_cast<promise_base&>(item);
    auto& self = static_cast<task_group&>(child.up.combinator());
    if (detail::held_ends* const here = detail::held_ends_here()) here->before_child_of(&self);  // H2
    if (self.scope_.source().stop_requested()) return self.finish(child, true);  // accepted, but never run
    if (child.record != nullptr) child.record->running();
    detail::resume(child.handle());
}

inline std::coroutine_handle<> task_group::child_ended(receiver& self, promise_base* child, bool stopped) noexcept {
    if (!stopped) return detail::reap_later(*child, &task_group::reap);
    static_cast<task_group&>(self).finish(*child, true);
    return std::noop_coroutine();
}
inline void task_group::reap(promise_base& child) noexcept {
    static_cast<task_group&>(child.up.combinator()).finish(child, false);
}

/// The end of a child: its error is kept, its frame destroyed, the group stopped if that is how it fails, and then the
/// child counted down.
inline void task_group::finish(promise_base& child, bool stopped) noexcept {
    if (stopped || !static_cast<detail::task_promise<void>&>(child).has_value()) [[unlikely]]
        return finish_badly(child, stopped);
    detail::task_record* const of = child.record;
    child.handle().destroy();
    if (of != nullptr) of->close();
    leave();
}
CORDON_NOINLINE inline void task_group::finish_badly(promise_base& child, bool stopped) noexcept {
    detail::task_record* const of = child.record;
    std::exception_ptr error;
    if (!stopped) error = static_cast<detail::task_promise<void>&>(child).failure();
    else if (scope_.source().stop_requested()) child_stopped_.store(true, std::memory_order_relaxed);
    else error = std::make_exception_ptr(canceled());  // stopped by itself, while nobody asked this group to stop
    const bool failed = error != nullptr;
    if (failed) note_error(std::move(error), of);
    detail::destroy_interrupted(child.handle());
    if (of != nullptr) of->close();
    if (failed) stop_for_error();
    leave();
}

inline void task_group::note_error(std::exception_ptr error, detail::task_record* of) {
    if (error_count_.fetch_add(1, std::memory_order_relaxed) >= errors_kept) return;
    task_error kept{{}, {}, std::move(error)};
    if (task_info info; of != nullptr && detail::record_reader(0).find(of->id(), info)) {
        kept.name = std::move(info.name);
        kept.spawned_at = info.spawned_at;
    }
    const detail::spin_guard guard(lock_);
    errors_.push_back(std::move(kept));
}
inline void task_group::stop_for_error() noexcept {
    if (stops_on_error_) scope_.source().request_stop(stop_reason{stop_kind::failure, 0, {}});
}

inline std::vector<task_error> task_group::errors() const {
    const detail::spin_guard guard(lock_);
    return errors_;
}
inline std::vector<task_info> task_group::children() const {
    std::vector<task_info> mine;
    if (record == nullptr) return mine;
    for (task_info& info : live_tasks())
        if (info.parent_id == record->id()) mine.push_back(std::move(info));
    return mine;
}

template <operation O>
task<void> task_group::run_for_future(task_group* group, O op, detail::future_promise<typename O::value_type> promise) {
    using result = outcome<typename O::value_type>;
    detail::task_record* const self = co_await detail::this_record();
    result ended = co_await detail::settle(std::move(op));
    const bool failed = !ended.has_value() && !ended.is_stopped();
    const bool stopped = ended.is_stopped();
    if (failed) group->note_error(detail::failure_of(ended), self);
    promise.set(std::move(ended));
    if (failed) group->stop_for_error();
    if (stopped) co_await this_task::stop();
}

}  // namespace cordon::inline CORDON_ABI
