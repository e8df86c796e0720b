// SPDX-License-Identifier: MIT
#pragma once

// Tasks that belong together: who starts work owns it, waits for it and can name it.
//
//     co_await with_group([&](task_group& group) -> task<> {
//         group.spawn(feed(queue), {.name = "feeder"});
//         group.spawn(serve(queue), {.name = "server"});
//         co_return;
//     });                                                    // both have ended here, whatever happened

#include <cordon/core/awaitable.hpp>
#include <cordon/core/blocking_scope.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/future.hpp>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {
class group_access;
}  // namespace detail

/// What the failure of a child does to the others.
enum class on_error : std::uint8_t {
    by_kind,     ///< stops them in `with_group`, does not in a group that lives in an object
    stop_group,  ///< the first failure stops the group, its body included
    keep_going,  ///< failures are kept; the others go on
};

struct group_options {
    static constexpr std::size_t unlimited = static_cast<std::size_t>(-1);

    std::string_view name = {};           ///< copied when the group is made, and lives until then
    std::size_t max_running = unlimited;  ///< children at the same time; 0: none may start
    on_error errors = on_error::by_kind;
};

struct spawn_options {
    std::string_view name = {};  ///< copied when the child starts, and lives until then
};

/// A failure of a child.
struct task_error {
    std::string name;
    std::source_location spawned_at;
    std::exception_ptr error;
};

/// A set of tasks under one stop, each with a record. Made by `with_group`, or as an object bound to an executor; then
/// `co_await join()` before it is destroyed. Single use: after its join it takes no more tasks.
/// Threads:       all members from any thread
/// Lifetime:      destroyed with live children it prints them and terminates, as a joinable `std::thread` would
/// Cost:          one frame for each child; no allocation of its own but for errors and futures
class task_group : private receiver {
public:
    class join_operation;
    class spawn_operation;

    static constexpr std::string_view kind = "task_group";

    struct snapshot {
        std::size_t size = 0;              ///< children that have not ended
        std::size_t waiting_for_room = 0;  ///< in `spawn_when_ready`
        std::size_t refused = 0;           ///< so far
        std::size_t errors = 0;            ///< so far
        bool stop_requested = false;
    };

    /// A group that lives in an object. Its children run on `runs_on`; nothing stops it but `request_stop`.
    explicit task_group(executor_ref runs_on, group_options options = {},
                        std::source_location where = std::source_location::current())
        : task_group(context(runs_on), options, on_error::keep_going, nullptr, where) {}
    /// The same under a context that outlives it: with its stop, its deadline, its values and its executor.
    explicit task_group(const context& outer, group_options options = {},
                        std::source_location where = std::source_location::current())
        : task_group(outer, options, on_error::keep_going, nullptr, where) {}
    ~task_group();

    /// Starts a child, later, on the group's executor.
    /// Returns:       false, with nothing started, if the group is stopped, closed or full, or others wait for room
    template <runnable A>
    bool spawn(A&& a, spawn_options options = {}, std::source_location where = std::source_location::current()) {
        task<void> child = detail::as_child(std::forward<A>(a));
        return launch(child, options, where, false);
    }

    template <detail::named_operation A>
    void spawn(A&&, spawn_options = {}) {
        detail::refuse_named<A>();
    }

    /// Waits until there is room, then starts a child. Yields false, with nothing started, if the group is stopped or
    /// closed by then. First come, first served.
    /// Cancellation:  a cancel point while it waits; stopped, it has started nothing
    template <runnable A>
    [[nodiscard]] spawn_operation spawn_when_ready(A&& a, spawn_options options = {},
                                                   std::source_location where = std::source_location::current());
    template <detail::named_operation A>
    void spawn_when_ready(A&&, spawn_options = {}) {
        detail::refuse_named<A>();
    }

    /// As `spawn`, with a future for the result. A refused one is rejected; that of a stopped child ends stopped.
    /// Cost:          one more allocation, from the frame cache
    template <runnable A>
    [[nodiscard]] auto spawn_future(A&& a, spawn_options options = {},
                                    std::source_location where = std::source_location::current())
        -> future<detail::runnable_result_t<A>> {
        detail::check_lives_on<detail::runnable_operation<A>>();
        using result = detail::runnable_result_t<A>;
        auto* const shared = new detail::future_state<result>;
        future<result> there(shared);
        detail::future_promise<result> promise(shared);
        task<void> child = run_for_future(this, detail::operation_of_runnable(std::forward<A>(a)), std::move(promise));
        if (!launch(child, options, where, false)) shared->set(outcome<result>(refusal()));
        return there;
    }
    template <detail::named_operation A>
    void spawn_future(A&&, spawn_options = {}) {
        detail::refuse_named<A>();
    }

    /// Waits until every child has ended, and closes the group. Errors of children are not thrown: see `errors()`.
    /// Cancellation:  a cancel point; stopped, the group is as it was
    [[nodiscard]] join_operation join() noexcept;
    /// The same on a thread that runs no executor; stopped, the group is as it was.
    [[nodiscard]] outcome<void> join_blocking(const blocking_scope& heeds = {});

    /// Asks all children to stop, and refuses new ones.
    bool request_stop(int code = 0, std::source_location where = std::source_location::current()) noexcept {
        return scope_.source().request_stop(stop_reason{stop_kind::requested, code, where});
    }
    [[nodiscard]] bool stop_requested() const noexcept { return context_.stop_requested(); }
    [[nodiscard]] stop_reason reason() const noexcept { return context_.reason(); }
    /// What the children run with.
    [[nodiscard]] const context& ctx() const noexcept { return context_; }

    /// Children that have not ended. While a thread of a pool runs one, those that ended there just before may be
    /// counted still, up to 63; not if that one asks itself.
    [[nodiscard]] std::size_t size() const noexcept {
        const detail::held_ends* const here = detail::held_ends_here();
        const std::size_t held = here != nullptr ? here->of(this) : 0;
        return static_cast<std::size_t>(state_.load(std::memory_order_acquire) / one_child) - held;
    }
    /// Children that were refused.
    [[nodiscard]] std::size_t refused() const noexcept { return refused_.load(std::memory_order_relaxed); }
    /// The first failures, in the order in which they happened, at most `errors_kept`.
    [[nodiscard]] std::vector<task_error> errors() const;
    /// All failures.
    [[nodiscard]] std::size_t error_count() const noexcept { return error_count_.load(std::memory_order_relaxed); }
    static constexpr std::size_t errors_kept = 8;

    /// The figures one after the other, since children come and go without a lock: one that fails meanwhile may be
    /// counted as a child and as an error.
    [[nodiscard]] snapshot stats() const noexcept {
        const std::size_t alive = size();
        const bool stops = stop_requested();
        const detail::spin_guard guard(lock_);
        return {alive, spawners_.size(), refused(), error_count(), stops};
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("size", now.size, "Children that have not ended.");
        sink.gauge("waiting_for_room", now.waiting_for_room, "Spawns that wait until there is room.");
        sink.counter("refused", now.refused, "Children that were refused.");
        sink.counter("errors", now.errors, "Children that have failed.");
        sink.gauge("stop_requested", now.stop_requested, "Whether the group was asked to stop.");
    }

    /// The children that have not ended, as in a dump.
    [[nodiscard]] std::vector<task_info> children() const;

private:
    friend class detail::group_access;
    class group_scope final : public detail::scope {
    public:
        using scope::scope;
        ~group_scope() { unlink_from_parent(); }
    };
    class join_waiter;
    class slot_waiter;

    task_group(const context& outer, const group_options& options, on_error by_kind, detail::task_record* parent,
               const std::source_location& where);

    bool launch(task<void>& child, const spawn_options& options, const std::source_location& where, bool has_slot);
    bool enter() noexcept;
    void leave() noexcept;
    void leave(std::uint32_t n) noexcept;
    static void count_ended(void* group, std::uint32_t n) noexcept;
    bool take_slot() noexcept;
    void return_slot() noexcept;
    bool close_if_idle(bool or_later) noexcept;
    void closed() noexcept;
    void note_error(std::exception_ptr error, detail::task_record* of);
    void stop_for_error() noexcept;
    cordon::rejection refusal() const noexcept;
    void finish(promise_base& child, bool stopped) noexcept;
    void finish_badly(promise_base& child, bool stopped) noexcept;
    void return_counted_slot() noexcept;

    static std::coroutine_handle<> child_ended(receiver& self, promise_base* child, bool stopped) noexcept;
    static void begin(work_item& item) noexcept;
    static void reap(promise_base& child) noexcept;
    static void stopped(detail::stop_node& node) noexcept;
    template <operation O>
    static task<void> run_for_future(task_group* group, O op, detail::future_promise<typename O::value_type> promise);

    struct stop_hook : detail::stop_node {
        explicit stop_hook(task_group& g) noexcept : stop_node(&task_group::stopped), group(&g) {}
        task_group* group;
    };

    // state_: children that have not ended, times four, and two bits.
    //   joining   someone waits for the last child, which then sets closed
    //   closed    takes no more children; set once, together with the count becoming zero
    // T1 A child's leave() is its last access to the group, unless it is the one that closes it, or, in a group without
    //    a bound, its end is held, and counted with others, see held_ends.hpp.
    // T2 Whoever closes the group has touched it last when it sets told_; who joins does not go on before that.
    static constexpr std::uint64_t joining_bit = 1, closed_bit = 2, one_child = 4;

    // What each spawn and each child reads comes first; state_, which they write, stands far from it in other lines of
    // the cache, among what they do not touch.
    group_scope scope_;
    context context_;
    const std::size_t max_running_;
    const bool stops_on_error_;
    std::string name_;

    mutable detail::spin_lock lock_;                      // for what follows
    detail::intrusive_list<join_waiter> joiners_;
    detail::counted_list<slot_waiter> spawners_;
    bool ended_ = false;                                  // those who join have been completed
    bool told_ = false;                                   // T2
    std::atomic<std::uint64_t> state_{0};                 // not under it
    std::size_t spawners_present_ = 0;                    // in spawners_, or woken and not gone on yet
    std::size_t running_ = 0;                             // counted only where max_running says so
    std::vector<task_error> errors_;

    std::atomic<std::size_t> error_count_{0};
    std::atomic<std::size_t> refused_{0};
    std::atomic<bool> child_stopped_{false};
    stop_hook on_stop_{*this};
};

}  // namespace cordon::inline CORDON_ABI

#include <cordon/scope/detail/task_group_bodies.hpp>
