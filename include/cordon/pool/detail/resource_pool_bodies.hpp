// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/pool/resource_pool.hpp>, which includes this. Long, because an
// acquisition is one path, over what is idle, the wait, the check and a creation; the rest are short members.

#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/block_on.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/on_operation.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/pool/resource_pool.hpp>

#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

// --- acquiring ------------------------------------------------------------------------------------------------------

template <class T>
class resource_pool<T>::acquire_operation : public detail::operation_base<acquire_operation> {
public:
    using value_type = lease;
    static constexpr bool needs_executor = true;

    acquire_operation(resource_pool& p, const std::source_location& where) noexcept : pool_(&p), where_(where) {}

    class state : private receiver {
    public:
        explicit state(acquire_operation&& a) noexcept
            : receiver(nullptr, nullptr, {}, &state::ended), pool_(a.pool_), where_(a.where_) {}
        ~state() {
            if (got_ != nullptr) [[unlikely]] static_cast<void>(lease(got_));  // and never taken: it lost a race
        }
        bool ready() const noexcept { return false; }  // who borrows is known from the start on
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            ctx = &r.ctx();
            record = r.record();
            up = r;
            const detail::borrower by{where_, record != nullptr ? record->id() : 0, ctx->executor()};
            const clock::time_point now = clock::now();
            detail::place p;
            const found there = pool_->find(p, by, now, got_);
            if (there == found::lent) return r.complete();
            if (there == found::is_closed) {
                refused_ = pool_->refusal();  // while there is a pool, as `p` has a place
                return r.complete();
            }
#if defined(__cpp_exceptions)
            try {
#endif
                slow_.emplace(acquire_slowly(pool_, std::move(p), by));
#if defined(__cpp_exceptions)
            } catch (...) {
                no_memory_ = std::current_exception();
                return r.complete();
            }
#endif
            return slow_->start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<lease> take() noexcept {
            if (got_ != nullptr) return outcome<lease>(std::in_place, lease(std::exchange(got_, nullptr)));
            if (no_memory_ != nullptr) return outcome<lease>(std::move(no_memory_));
            if (!slow_) return refused_;
            outcome<outcome<lease>> ended = slow_->take();
            return ended.has_value() ? *std::move(ended) : detail::as_failure<lease>(ended);
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (!stopped) return s.up.complete();
            detail::discard(child);
            return s.up.stop();
        }

        resource_pool* pool_;
        std::source_location where_;
        entry* got_ = nullptr;
        cordon::rejection refused_;
        std::exception_ptr no_memory_;
        std::optional<typename task<outcome<lease>>::state> slow_;
    };

private:
    resource_pool* pool_;
    std::source_location where_;
};

template <class T>
typename resource_pool<T>::found resource_pool<T>::find(detail::place& p, const detail::borrower& by,
                                                        clock::time_point now, entry*& to) noexcept {
    bool closed = false;
    if (detail::pooled* const good = lend_idle(by, now, p, closed)) {
        to = static_cast<entry*>(good);
        return found::lent;
    }
    if (closed) return found::is_closed;
    while (p && p.resource() != nullptr) {
        detail::gone why{};
        const quality q = judge(p, now, why);
        if (q == quality::good) {
            auto* const good = static_cast<entry*>(p.resource());
            if (!resource_core::lend(p, by, now)) return found::is_closed;
            to = good;
            return found::lent;
        }
        if (q == quality::to_be_asked) return found::to_be_asked;
        empty(p, why);
        p = trade(std::move(p));
    }
    return p && !p.surplus() ? found::room : found::nothing;
}

template <class T>
typename resource_pool<T>::quality resource_pool<T>::judge(const detail::place& p, clock::time_point now,
                                                           detail::gone& why, bool just_made) noexcept {
    detail::pooled& r = *p.resource();
    const auto outdated_by = outdated(r, now);
    if (outdated_by && !(just_made && *outdated_by == detail::gone::idle)) {
        why = *outdated_by;
        return quality::bad;
    }
    if (just_made) return quality::good;
    why = detail::gone::unusable;
    if (usable_.at_once) {
#if defined(__cpp_exceptions)
        try {
            return usable_.at_once(value_of(r)) ? quality::good : quality::bad;
        } catch (...) {
            return quality::bad;
        }
#else
        return usable_.at_once(value_of(r)) ? quality::good : quality::bad;
#endif
    }
    return usable_.awaited && now - r.last_used >= trusted_for_ ? quality::to_be_asked : quality::good;
}

/// Whether a resource is usable that only a task can tell so. One that does not say yes in time is not.
template <class T>
task<bool> resource_pool<T>::ask(resource_pool* pool, detail::place* p) {
    p->uncertain(true);
    auto asking = with(pool->usable_.awaited(value_of(*p->resource())), within(pool->max_check_time_));
    const outcome<bool> said = co_await as_outcome(std::move(asking));
    p->uncertain(false);
    co_return said.has_value() && *said;
}

/// `p` is empty or surplus, or has a resource that is to be asked, or room.
template <class T>
task<outcome<typename resource_pool<T>::lease>> resource_pool<T>::acquire_slowly(resource_pool* pool, detail::place p,
                                                                               detail::borrower by) {
    quality q = quality::to_be_asked;
    detail::gone why = detail::gone::unusable;
    bool counted = false;
    for (bool again = p && !p.surplus();; again = true) {
        if (!p || p.surplus()) {
            p = co_await turn_operation(*pool, std::move(p), again, counted);
            counted = true;
            // what nobody has had was made a moment ago: who comes, or trades, takes what is idle without a turn
            const bool just_made = p.resource() != nullptr && p.resource()->lent == detail::pooled::never;
            if (p.resource() != nullptr) q = pool->judge(p, clock::now(), why, just_made);
        }
        if (p.resource() == nullptr) {
            if (!std::exchange(counted, true)) pool->count_waited();
            p.uncertain(true);
            const std::uint64_t generation = pool->generation();
            auto making = pool->making(by.where);
            auto made = std::make_unique<entry>(*pool, generation, co_await std::move(making));
            p.uncertain(false);
            q = pool->fill(p, *made.release()) ? quality::good : quality::bad;
            why = detail::gone::surplus;
        } else if (q == quality::to_be_asked) {
            const bool usable = co_await ask(pool, &p);
            const clock::time_point now = clock::now();
            p.resource()->last_used = now;  // a check is a use
            const auto outdated_by = pool->outdated(*p.resource(), now);
            q = usable && !outdated_by ? quality::good : quality::bad;
            if (usable && outdated_by) why = *outdated_by;
        }
        if (q == quality::good) {
            auto* const good = static_cast<entry*>(p.resource());
            if (!pool->resource_core::lend(p, by, clock::now())) co_return outcome<lease>(pool->refusal());
            co_return outcome<lease>(std::in_place, lease(good));
        }
        pool->empty(p, why);
        p = pool->trade(std::move(p));
        if (p && p.resource() != nullptr) q = pool->judge(p, clock::now(), why);
    }
}

template <class T>
typename resource_pool<T>::lease resource_pool<T>::try_acquire(std::source_location where) noexcept {
    const clock::time_point now = clock::now();
    detail::place p;
    entry* got = nullptr;
    return find(p, {where, 0, {}}, now, got) == found::lent ? lease(got) : lease();
}

template <class T>
outcome<typename resource_pool<T>::lease> resource_pool<T>::acquire_blocking(const blocking_scope& heeds,
                                                                             std::source_location where) {
    if (!limits().runs_on)
        detail::raise(std::logic_error("resource_pool::acquire_blocking: the pool has no runs_on to make resources on"),
                      "resource_pool::acquire_blocking without runs_on");
    using there = detail::on_operation<acquire_operation>;
    outcome<lease> got = detail::block_on(there(limits().runs_on, acquire(where)), heeds);
    if (got.has_value()) got->known_ = detail::interruptions_here();  // it was made elsewhere
    return got;
}

// --- creations of the pool's own ------------------------------------------------------------------------------------

template <class T>
class resource_pool<T>::creation final
    : public detail::root<decltype(std::declval<resource_pool&>().making(std::source_location()))> {
    using base = detail::root<decltype(std::declval<resource_pool&>().making(std::source_location()))>;

public:
    explicit creation(resource_pool& p)
        : base(p.making(std::source_location::current()), p.creations_->ctx()), pool_(&p),
          generation_(p.generation()) {}

private:
    void on_ended() noexcept override {
        this->run = &creation::finish;
        pool_->creations_->ctx().executor().submit(*this);  // no frame is destroyed inside its own await_suspend
    }
    static void finish(work_item& item) noexcept {
        std::unique_ptr<creation> self(static_cast<creation*>(&item));
        resource_pool* const pool = self->pool_;
        std::exception_ptr error;
        std::unique_ptr<entry> made = pool->entry_of(self->take(), self->generation_, error);
        self.reset();  // it is below the pool's scope, and its place keeps the pool: K3
        if (made != nullptr) pool->created(*made.release());
        else pool->not_created(error);
    }
    resource_pool* pool_;
    const std::uint64_t generation_;
};

template <class T>
std::exception_ptr resource_pool<T>::create() noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        auto made = std::make_unique<creation>(*this);
        made->open_record(name(), std::source_location::current());
        made.release()->start();
#if defined(__cpp_exceptions)
    } catch (...) {
        return std::current_exception();
    }
#endif
    return nullptr;
}

/// What was made, in its place; nothing of it is left if there is no memory for that.
template <class T>
std::unique_ptr<typename resource_pool<T>::entry> resource_pool<T>::entry_of(outcome<T> made, std::uint64_t generation,
                                                                             std::exception_ptr& error) noexcept {
#if defined(__cpp_exceptions)
    try {
#endif
        if (made.has_value()) return std::make_unique<entry>(*this, generation, *std::move(made));
        if (made.is_error()) error = made.error();
        else if (made.is_rejected()) error = std::make_exception_ptr(rejected(made.rejection()));
#if defined(__cpp_exceptions)
    } catch (...) {
        error = std::current_exception();
    }
#endif
    return nullptr;
}

template <class T>
void resource_pool<T>::stop_creating() noexcept {
    if (creations_) creations_->request_stop();
}

// --- the pool as a whole --------------------------------------------------------------------------------------------

template <class T>
detail::resource_core::terms resource_pool<T>::checked(std::size_t max_size, const resource_pool_options<T>& options) {
    constexpr auto whose = "resource_pool";
    const auto above_zero = [](const char* option, clock::duration d) {
        detail::check_option(d > clock::duration::zero(), whose, option, d, "is more than 0");
    };
    above_zero("max_idle_time", options.max_idle_time);
    above_zero("max_lifetime", options.max_lifetime);
    above_zero("held_too_long", options.held_too_long);
    above_zero("max_check_time", options.max_check_time);
    above_zero("max_create_time", options.max_create_time);
    detail::check_option(options.trusted_for >= clock::duration::zero(), whose, "trusted_for", options.trusted_for,
                         "is 0 or more");
    detail::check_option(options.max_creating != 0, whose, "max_creating", options.max_creating, "is 1 or more");
    if (options.min_idle > max_size)
        detail::refuse_option(whose, "min_idle", options.min_idle, "are 0 to max_size, " + std::to_string(max_size));
    detail::check_option(options.min_idle == 0 || options.runs_on, whose, "min_idle", options.min_idle,
                         "is 0 without runs_on, which makes what is kept ready");
    clock::duration unasked_for = unlimited;
    if (options.usable.awaited) unasked_for = options.trusted_for;
    if (options.usable.at_once) unasked_for = clock::duration::zero();
    return {options.min_idle, options.max_creating, options.max_idle_time, options.max_lifetime,
            options.held_too_long, unasked_for, options.runs_on, options.seed};
}

template <class T>
template <class F>
    requires detail::awaits_to<std::decay_t<F>, T>
resource_pool<T>::resource_pool(std::size_t max_size, F&& create, resource_pool_options<T> options)
    : resource_core(max_size, options.name, checked(max_size, options), std::move(options.on_held_too_long)),
      create_([kept = std::decay_t<F>(std::forward<F>(create))]() mutable { return detail::await_call<T>(kept); }),
      usable_(std::move(options.usable)), trusted_for_(options.trusted_for), max_check_time_(options.max_check_time),
      max_create_time_(options.max_create_time) {
    if (options.runs_on) creations_.emplace(options.runs_on);
    begin();
}

template <class T>
resource_pool<T>::~resource_pool() {
    fail_if_in_use();
    for (std::size_t n = static_cast<std::size_t>(-1); detail::pooled* const p = withdraw_idle(n);) destroy(*p);
}

template <class T>
template <std::predicate<T&> F>
std::size_t resource_pool<T>::retain(F keep) {
    std::size_t went = 0, n = look().idle;
    struct turned_round {  // if `keep` throws: once round, all are in the order in which they were
        resource_pool& pool;
        std::size_t& left;
        ~turned_round() {
            while (detail::pooled* const p = pool.withdraw_idle(left)) detail::place(pool, p);
        }
    } const all{*this, n};
    while (detail::pooled* const p = withdraw_idle(n)) {
        detail::place here(*this, p);
        if (keep(value_of(*p))) continue;
        empty(here, detail::gone::surplus);
        ++went;
    }
    return went;
}

template <class T>
typename resource_pool<T>::snapshot resource_pool<T>::stats() const noexcept {
    const figures f = look();
    const auto destroyed = [&f](detail::gone why) { return f.totals.destroyed[static_cast<std::size_t>(why)]; };
    snapshot s;
    s.limit = f.limit;
    s.size = f.size;
    s.idle = f.idle;
    s.in_use = f.in_use;
    s.creating = f.creating;
    s.waiting = f.waiting;
    s.closed = f.closed;
    s.acquired = f.totals.acquired;
    s.waited = f.totals.waited;
    s.gave_up = f.totals.gave_up;
    s.created = f.totals.created;
    s.creations_failed = f.totals.failed;
    s.report_errors = f.totals.untold;
    s.closed_broken = destroyed(detail::gone::broken);
    s.closed_unusable = destroyed(detail::gone::unusable);
    s.closed_old = destroyed(detail::gone::old);
    s.closed_idle = destroyed(detail::gone::idle);
    s.closed_surplus = destroyed(detail::gone::surplus);
    return s;
}

template <class T>
template <class Sink>
void resource_pool<T>::report(Sink& sink) const {
    const snapshot now = stats();
    sink.counter("acquired", now.acquired, "Leases.");
    sink.counter("waited", now.waited, "Acquisitions that found nothing idle and good.");
    sink.counter("gave_up", now.gave_up, "Those of them that were stopped while they waited for their turn.");
    sink.counter("created", now.created, "Resources that were made.");
    sink.counter("creations_failed", now.creations_failed, "Creations that failed or were stopped.");
    sink.counter("report_errors", now.report_errors, "Reports of leases held too long that threw.");
    sink.counter("closed_broken", now.closed_broken, "Resources that were discarded, or stopped while in use.");
    sink.counter("closed_unusable", now.closed_unusable, "Resources that a check found unusable.");
    sink.counter("closed_old", now.closed_old, "Resources that went for their age.");
    sink.counter("closed_idle", now.closed_idle, "Resources that went since nobody wanted them.");
    sink.counter("closed_surplus", now.closed_surplus, "Resources that went with a close, a resize or the like.");
    sink.gauge("limit", static_cast<double>(now.limit), "Resources that there may be.");
    sink.gauge("idle", static_cast<double>(now.idle), "Resources that nobody has.");
    sink.gauge("in_use", static_cast<double>(now.in_use), "Resources that are lent.");
    sink.gauge("creating", static_cast<double>(now.creating), "Resources that are being made.");
    sink.gauge("waiting", static_cast<double>(now.waiting), "Acquisitions that wait for their turn.");
}

}  // namespace cordon::inline CORDON_ABI
