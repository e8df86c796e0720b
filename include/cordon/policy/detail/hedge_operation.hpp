// SPDX-License-Identifier: MIT
#pragma once

// What a hedged call consists of. Included by <cordon/policy/hedge.hpp>.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/timer.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/hedge.hpp>

#include <coroutine>
#include <cstdint>
#include <memory>
#include <new>
#include <source_location>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// The scope of one copy. That of the call itself tells when it is armed: the call suspends then, and may be slow.
class hedge_scope final : public scope {
public:
    hedge_scope() noexcept : scope(later()) {}
    ~hedge_scope() { close(); }

    void open(scope* parent) noexcept { set_parent(parent); }
    void close() noexcept { unlink_from_parent(); }
    [[nodiscard]] bool stop_requested() const noexcept { return armed() && source().stop_requested(); }
    /// One that ended without suspending is not armed.
    void stop() noexcept {
        if (armed()) source().request_stop(stop_reason{stop_kind::closed, 0, {}});
    }

    void (*when_armed)(void*) noexcept = nullptr;
    void* argument = nullptr;

private:
    void on_arm() noexcept override {
        link_to_parent();
        if (when_armed != nullptr) when_armed(argument);
    }
};

/// H1 Whoever is in flight is counted in `running_`: the call, and each copy from the moment it is listed. Who is
///    counted last tells who awaits. An attempt looks whether it decides and, if it does not, leaves the count in one
///    critical section: of two that end together the second sees that it is alone, and decides. So `over_` is set
///    before the count is 0.
/// H2 `over_` is set once, under the lock: with the winner, or when the last that runs has failed or was stopped.
///    Afterwards no copy is listed, so that the list can be read without the lock.
/// H3 Who sets `over_` cancels the timer and stops the others while it is counted itself: the state is there until it
///    has done so.
/// H4 The timer's function lists and submits a copy, and touches the state afterwards: who sets `over_` waits for it.
/// H5 Until the timer was armed, or a copy sent, the call is alone, and nobody else looks at any of this. Both are done
///    where the call runs; only of itself the call asks whether it is alone.
template <class F, class Judge, class Policy>
class hedge_operation : public operation_base<hedge_operation<F, Judge, Policy>> {
    using op = call_operation<call_ref<F>>;

public:
    using value_type = typename op::value_type;
    static constexpr bool needs_executor = true;

    hedge_operation(const Policy& p, F&& f, const Judge& judge) : policy_(&p), f_(std::move(f)), judge_(judge) {}

    class state : private timer {
        class attempt;

    public:
        explicit state(hedge_operation&& h)
            : timer(&state::fired), policy_(h.policy_), judge_(h.judge_), f_(std::move(h.f_)), call_(*this) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        ~state() {
            while (copies_ != nullptr) attempt::destroy(std::exchange(copies_, copies_->older));
        }

        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept;
        outcome<value_type> take() noexcept { return result_->call.take(); }
        value_type get() { return result_->call.get(); }
        [[nodiscard]] bool has_value() const noexcept
            requires shows_value<judged_call<op>>
        {
            return result_->call.has_value();
        }
        [[nodiscard]] const auto& peek() const noexcept
            requires shows_value<judged_call<op>>
        {
            return result_->call.peek();
        }

    private:
        [[nodiscard]] bool alone() const noexcept { return !timed_ && copies_ == nullptr; }  // H5
        [[nodiscard]] executor_ref executor() const noexcept { return up_.ctx().executor(); }

        /// A call that is exactly as slow as its share of calls is not slower than they are.
        [[nodiscard]] clock::duration pause() const noexcept {
            return terms_.share > 0 ? delay_ + clock::duration(1) : delay_;
        }
        static void suspends(void* self) noexcept { static_cast<state*>(self)->arm_timer(); }
        void arm_timer() noexcept {
            if (!executor()) return;
            if (pause() >= (clock::time_point::max)() - began_) return;  // never
            when = began_ + pause();
            timed_ = true;
            executor().timers().arm(*this);
        }
        static void fired(timer& t) noexcept {
            auto& s = static_cast<state&>(t);
            if (!s.send_copy() || s.sent_ == s.terms_.max_extra) return;
            s.when += s.pause();
            s.executor().timers().arm(s);
        }
        bool send_copy() noexcept;

        std::coroutine_handle<> ended(attempt& a, bool stopped) noexcept;
        std::coroutine_handle<> ended_beside_others(attempt& a) noexcept;
        [[nodiscard]] bool wins(const attempt& a) const noexcept {
            if (a.how == verdict::success) return true;
            const outcome<value_type>* const failed = a.call.failure();
            return a.how == verdict::ignored && (failed == nullptr || !failed->is_rejected());
        }
        /// Of a failure: the one of the call itself, or else the first.
        void keep_failure(attempt& a) noexcept {
            if (a.how != verdict::stopped && (failed_ == nullptr || &a == &call_)) failed_ = &a;
        }
        /// Whether a copy is sent because this one has failed.
        [[nodiscard]] bool may_go_on_after(const attempt& a) const noexcept {
            return a.how != verdict::stopped && delay_ == (clock::duration::max)() && sent_ < terms_.max_extra;
        }
        void stop_others(const attempt& winner) noexcept;
        void note_latency(const attempt& a) noexcept;
        std::coroutine_handle<> finish() noexcept;

        const Policy* policy_;
        [[no_unique_address]] Judge judge_;
        F f_;
        attempt call_;
        receiver_ref up_;
        hedge_terms terms_;
        clock::duration delay_{0};
        clock::time_point began_{};
        bool timed_ = false;           // the timer was armed; written before anybody else could look
        int sent_ = 0;                 // copies; written by who sends the next
        spin_lock lock_;
        bool over_ = false;            // under lock_
        int running_ = 1;              // under lock_
        attempt* copies_ = nullptr;    // under lock_ until over_
        attempt* result_ = nullptr;    // under lock_: the winner; at the end whatever there is
        attempt* failed_ = nullptr;    // under lock_
        homecoming home_;
    };

private:
    const Policy* policy_;
    F f_;
    [[no_unique_address]] Judge judge_;
};

/// The call itself, or a copy of it.
template <class F, class Judge, class Policy>
class hedge_operation<F, Judge, Policy>::state::attempt : public receiver, private work_item {
public:
    explicit attempt(state& s) noexcept
        : receiver(nullptr, nullptr, {}, &attempt::ended), work_item(&attempt::begin), call(op(call_ref<F>(s.f_))),
          of_(&s) {}
    ~attempt() { close(); }

    /// Null when out of memory.
    static attempt* make(state& s) noexcept {
        static_assert(alignof(attempt) <= __STDCPP_DEFAULT_NEW_ALIGNMENT__);
#if defined(__cpp_exceptions)
        try {
            return ::new (allocate_frame(sizeof(attempt))) attempt(s);
        } catch (...) {
            return nullptr;
        }
#else
        return ::new (allocate_frame(sizeof(attempt))) attempt(s);
#endif
    }
    static void destroy(attempt* a) noexcept {
        a->~attempt();
        deallocate_frame(a, sizeof(attempt));
    }

    void open(receiver_ref r) noexcept {
        up = r;
        record = r.record();
        scope.open(context_access::scope_of(r.ctx()));
        here_ = context_access::with_scope(r.ctx(), scope);
        ctx = &here_;
    }
    /// As a copy: with a record of its own, and seen by other threads.
    void open_beside(receiver_ref r) noexcept {
        open(r);
        const promise_base* const site = r.promise();
        record = own_record_ = task_record::open(false, "hedge", site != nullptr ? site->site : std::source_location(),
                                                 r.record(), coarse_now_ms());
        scope.arm();
    }
    void submit_copy() noexcept { submit(here_, *this); }
    std::coroutine_handle<> start_call() noexcept {
        return call.ready() ? of_->ended(*this, false) : call.start(receiver_ref(static_cast<receiver&>(*this)));
    }
    void close() noexcept {
        if (own_record_ != nullptr) std::exchange(own_record_, nullptr)->close();
    }

    hedge_scope scope;
    judged_call<op> call;
    attempt* older = nullptr;
    verdict how = verdict::stopped;
    bool was_sent = false;

private:
    static void begin(work_item& item) noexcept {
        auto& a = static_cast<attempt&>(item);
        if (a.record != nullptr) a.record->running();
        if (a.scope.stop_requested()) return resume(a.of_->ended(a, true));  // never starts
        a.was_sent = true;
        resume(a.start_call());
    }
    static std::coroutine_handle<> ended(receiver& r, promise_base* child, bool stopped) noexcept {
        auto& a = static_cast<attempt&>(r);
        if (stopped) discard(child);
        return a.of_->ended(a, stopped);
    }

    state* of_;
    context here_;
    task_record* own_record_ = nullptr;
};

template <class F, class Judge, class Policy>
std::coroutine_handle<> hedge_operation<F, Judge, Policy>::state::start(receiver_ref r) noexcept {
    up_ = r;
    terms_ = policy_->terms_.load();
    delay_ = policy_->delay_of(terms_);
    const bool* const marked = r.ctx().get(idempotent);
    const bool may_be_repeated = marked != nullptr ? *marked : !terms_.only_marked;
    if (!may_be_repeated || delay_ < clock::duration::zero()) terms_.max_extra = 0;
    if (terms_.budget != nullptr && !terms_.within_retry) terms_.budget->called();

    call_.open(r);
    const bool by_share = terms_.share > 0;
    if (by_share || delay_ != (clock::duration::max)()) began_ = quick_now();
    if (terms_.max_extra > 0 && delay_ != (clock::duration::max)()) {
        // What copies see on other threads is connected before there are any.
        if (scope* const parent = context_access::scope_of(r.ctx())) parent->arm();
        if (delay_ == clock::duration::zero() && !by_share) {
            call_.scope.arm();
            while (sent_ < terms_.max_extra && send_copy()) {}
            if (copies_ != nullptr && call_.scope.stop_requested()) return ended(call_, true);  // one has won already
        } else {
            call_.scope.argument = this;
            call_.scope.when_armed = &state::suspends;
        }
    }
    return call_.start_call();
}

/// Returns:       whether there is another copy
template <class F, class Judge, class Policy>
CORDON_NOINLINE bool hedge_operation<F, Judge, Policy>::state::send_copy() noexcept {
    if (call_.scope.stop_requested()) return false;
    if (terms_.budget != nullptr && !terms_.budget->try_retry()) {
        policy_->rejected_.fetch_add(1, std::memory_order_relaxed);
        return false;
    }
    attempt* const copy = attempt::make(*this);
    bool listed = false;
    if (copy != nullptr) {
        copy->open_beside(up_);
        const spin_guard guard(lock_);
        listed = !over_;  // H2
        if (listed) {
            ++running_;  // H1
            copy->older = std::exchange(copies_, copy);
        }
    }
    if (!listed) {
        if (copy != nullptr) attempt::destroy(copy);
        if (terms_.budget != nullptr) terms_.budget->refund();
        return false;
    }
    ++sent_;
    policy_->sent_.fetch_add(1, std::memory_order_relaxed);
    copy->submit_copy();
    return true;
}

template <class F, class Judge, class Policy>
std::coroutine_handle<> hedge_operation<F, Judge, Policy>::state::ended(attempt& a, bool stopped) noexcept {
    a.close();
    a.how = stopped ? verdict::stopped : a.call.judged_by(judge_);
    if (&a == &call_ && alone() && (wins(a) || !may_go_on_after(a))) {
        (wins(a) ? result_ : failed_) = stopped ? nullptr : &a;
        note_latency(a);
        return finish();
    }
    return ended_beside_others(a);
}

template <class F, class Judge, class Policy>
CORDON_NOINLINE std::coroutine_handle<> hedge_operation<F, Judge, Policy>::state::ended_beside_others(
    attempt& a) noexcept {
    if (&a != &call_ && terms_.budget != nullptr) {
        if (a.was_sent) terms_.budget->retry_ended();
        else terms_.budget->refund();
    }
    bool decides = false, goes_on = false, last = false;
    {
        const spin_guard guard(lock_);
        if (!over_) {
            if (wins(a)) result_ = &a;
            else keep_failure(a);
            goes_on = result_ == nullptr && running_ == 1 && may_go_on_after(a);
            over_ = decides = !goes_on && (result_ != nullptr || running_ == 1);  // H2
        }
        if (!decides && !goes_on) {
            if (--running_ != 0) return std::noop_coroutine();  // H1
            last = true;
        }
    }
    if (last) return finish();
    if (goes_on) {  // nobody else runs, and there is no timer: this one's place is the next one's
        running_ = 0;
        if (!up_.ctx().stop_requested() && send_copy()) return std::noop_coroutine();
        running_ = 1;
        over_ = decides = true;
    }
    if (decides) {
        if (timed_) executor().timers().cancel(*this);  // H4
        note_latency(a);
        if (result_ != nullptr) stop_others(a);
    }
    {
        const spin_guard guard(lock_);
        if (--running_ != 0) return std::noop_coroutine();  // H3
    }
    return finish();
}

template <class F, class Judge, class Policy>
void hedge_operation<F, Judge, Policy>::state::stop_others(const attempt& winner) noexcept {
    if (&winner != &call_) {
        policy_->won_.fetch_add(1, std::memory_order_relaxed);
        call_.scope.stop();
    }
    for (attempt* copy = copies_; copy != nullptr; copy = copy->older)
        if (copy != &winner) copy->scope.stop();
}

/// How long the call itself took, or, if a copy was faster, how long it had taken until then.
template <class F, class Judge, class Policy>
void hedge_operation<F, Judge, Policy>::state::note_latency(const attempt& a) noexcept {
    if (terms_.share > 0 && (a.how == verdict::success || &a == result_))
        policy_->latencies_.add(quick_now() - began_, terms_.share);
}

template <class F, class Judge, class Policy>
std::coroutine_handle<> hedge_operation<F, Judge, Policy>::state::finish() noexcept {
    if (result_ == nullptr) result_ = failed_;
    call_.scope.close();
    for (attempt* copy = copies_; copy != nullptr; copy = copy->older) copy->scope.close();
    const verdict v = result_ != nullptr ? result_->how : verdict::stopped;
    if (terms_.budget != nullptr && !terms_.within_retry) {
        if (v == verdict::success || v == verdict::failure) terms_.budget->ended(v == verdict::failure);
        else terms_.budget->uncounted();
    }
    if (copies_ != nullptr) return home_.go(up_, v == verdict::stopped);
    return v == verdict::stopped ? up_.stop() : up_.complete();
}

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
