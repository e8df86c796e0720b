// SPDX-License-Identifier: MIT
#pragma once

// A group for the length of a block: the only way out of `with_group` is past its join.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/task_group.hpp>

#include <concepts>
#include <iterator>
#include <source_location>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Runs the body of a group: as one more branch, with the group's context and a record of its own, and to its end
/// whatever stops it.
template <operation O>
class body_operation {
public:
    using value_type = outcome<typename O::value_type>;
    static constexpr bool needs_executor = true;

    body_operation(O&& body, const context& ctx, task_record* group, std::source_location where) noexcept
        : body_(std::move(body)), ctx_(&ctx), group_(group), where_(where) {}

    class state : private receiver {
    public:
        explicit state(body_operation&& b)
            : receiver(b.ctx_, nullptr, {}, &state::ended),
              inner_(std::move(b.body_)), group_(b.group_), where_(b.where_) {}
        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            record = task_record::open(false, "body", where_, group_, coarse_now_ms());
            if (record != nullptr) record->running();
            up = r;
            if (inner_.ready()) return ended(*this, nullptr, false);
            return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<value_type> take() noexcept {
            if (stopped_) return outcome<value_type>(std::in_place, value_type::stopped());
            return outcome<value_type>(std::in_place, inner_.take());
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) discard(child);
            s.stopped_ = stopped;
            if (s.record != nullptr) s.record->close();
            return s.up.complete();
        }
        typename O::state inner_;
        task_record* group_;
        std::source_location where_;
        bool stopped_ = false;
    };

private:
    O body_;
    const context* ctx_;
    task_record* group_;
    std::source_location where_;
};

/// What `with_group` needs of a group beyond its public face.
class group_access {
public:
    static task_record* record(task_group& g) noexcept { return g.record; }
    static bool child_stopped(const task_group& g) noexcept { return g.child_stopped_.load(std::memory_order_acquire); }
    static void fail(task_group& g, std::exception_ptr error, task_record* of) {
        g.note_error(std::move(error), of);
        g.stop_for_error();
    }
    /// A body that was stopped, or stops itself, stops the rest.
    static void stop_rest(task_group& g) noexcept {
        g.scope_.source().request_stop(stop_reason{stop_kind::failure, 0, {}});
    }
    /// Whether a `with_group` without errors ends stopped: if something in it was stopped by the context around, or if
    /// its body was, unless that has no value to miss and the group itself was asked to stop.
    template <class T>
    static bool ends_stopped(const outcome<T>& body, const task_group& g, const context& outer) noexcept {
        const stop_reason why = g.reason();
        const stop_reason around = outer.reason();
        const bool by_outer = around.kind != stop_kind::none && why == around;
        if (body.is_stopped()) return by_outer || !std::is_void_v<T> || why.kind != stop_kind::requested;
        return by_outer && child_stopped(g);
    }
    static std::exception_ptr first_error(const task_group& g) {
        const spin_guard guard(g.lock_);
        return g.errors_.empty() ? std::exception_ptr() : g.errors_.front().error;
    }
    template <class F, class T>
    static task<T> run(group_options options, std::source_location where, F fn);
};

template <class F, class T>
task<T> group_access::run(group_options options, std::source_location where, F fn) {
    const context& outer = *co_await this_task::context();
    task_record* const self = co_await this_record();
    task_group group(outer, options, on_error::stop_group, self, where);
    const context joining = outer.without_stop();

    auto body = outcome_of([&] { return operation_of(fn(group)); });
    outcome<T> ended = outcome<T>::stopped();
    if (!body.has_value()) ended = as_failure<T>(body);
    else ended = co_await body_operation(*std::move(body), group.ctx(), record(group), where);
    if (ended.is_error() || ended.is_rejected()) fail(group, failure_of(ended), nullptr);
    if (ended.is_stopped()) stop_rest(group);
    co_await group.join().with(joining);

    const std::exception_ptr error = first_error(group);
    if (error != nullptr) std::rethrow_exception(error);
    const bool stopped = ends_stopped(ended, group, outer);
    if (stopped) co_await this_task::stop();
    if constexpr (!std::is_void_v<T>) co_return *std::move(ended);
}

template <class F>
using body_result_t = await_result_t<std::invoke_result_t<F&, task_group&>>;

/// One task for each element, started as soon as there is room.
template <class Range, class F>
task<void> feed(task_group& group, Range& range, F& fn) {
    for (auto&& element : range) {
        // what is no lvalue, or belongs to an iterator that goes over its range once, would be gone before the task
        // runs
        constexpr bool stays = std::is_lvalue_reference_v<decltype(element)> &&
                               std::forward_iterator<decltype(std::begin(range))>;
        using kept = std::conditional_t<stays, decltype(element), std::remove_cvref_t<decltype(element)>>;
        auto child = call_with<F, kept>(fn, std::forward<decltype(element)>(element));
        const bool started = co_await group.spawn_when_ready(std::move(child));
        if (!started) co_return;
    }
}
template <class Range, class F>
task<void> run_for_each(Range range, group_options options, std::source_location where, F fn) {
    auto body = [&range, &fn](task_group& group) { return feed(group, range, fn); };
    co_await group_access::run<decltype(body)&, void>(options, where, body);
}

}  // namespace detail

/// A callable that gets a group and returns something to await.
template <class F>
concept group_body = std::invocable<std::remove_reference_t<F>&, task_group&> &&
                     awaitable<std::invoke_result_t<std::remove_reference_t<F>&, task_group&>>;

/// Runs `body` with a group, and waits for the body and all children, whatever happens.
/// Returns:       the first that applies: throws the first error of a child or of the body; stopped, if the context
///                around is stopped and something ended by it; else what the body returned
/// Cancellation:  children and body are stopped with the context around; all are waited for
/// Lifetime:      children may refer to what lives outside `with_group`; locals of the body die before the join, unless
///                the body ends with `co_await group.join()`. A joined group is closed, and its context stopped: a
///                body awaits nothing more after it
/// Cost:          one frame
template <group_body F>
[[nodiscard]] auto with_group(group_options options, F&& body,
                              std::source_location where = std::source_location::current()) {
    detail::check_callable<F>();
    return detail::group_access::run<detail::kept_t<F>, detail::body_result_t<F>>(options, where,
                                                                                 std::forward<F>(body));
}
template <group_body F>
[[nodiscard]] auto with_group(F&& body, std::source_location where = std::source_location::current()) {
    return with_group(group_options{}, std::forward<F>(body), where);
}
template <class F>
    requires(!group_body<F>)
void with_group(group_options, F&&) {
    static_assert(group_body<F>, "with_group: the body takes a task_group& and returns a task: "
                                 "[&](task_group& group) -> task<> { ...; co_return; }");
}
template <class F>
    requires(!group_body<F>)
void with_group(F&&) {
    static_assert(group_body<F>, "with_group: the body takes a task_group& and returns a task: "
                                 "[&](task_group& group) -> task<> { ...; co_return; }");
}

namespace detail {
struct for_each_function {
    template <class Range, class F>
        requires requires(Range& r) { std::begin(r); std::end(r); }
    [[nodiscard]] task<void> operator()(Range&& range, group_options options, F&& fn,
                                        std::source_location where = std::source_location::current()) const {
        check_callable<F>();
        check_option(options.max_running != 0, "for_each", "max_running", options.max_running, "are 1 and more");
        return run_for_each<kept_t<Range>, kept_t<F>>(std::forward<Range>(range), options, where, std::forward<F>(fn));
    }
};
}  // namespace detail

/// `for_each(range, options, fn)` awaits `fn(element)` for each element of a range, several at a time:
/// `options.max_running` at most.
/// Errors:        `std::invalid_argument` if `max_running` is 0; the first error of an element stops the others and is
///                thrown
/// Order:         started in the order of the range
/// An object and not a function, so that `std::for_each` is no candidate for a range of the standard library.
inline constexpr detail::for_each_function for_each{};

}  // namespace cordon::inline CORDON_ABI
