// SPDX-License-Identifier: MIT

// The one implementation behind asio.hpp and boost_asio.hpp, included by each with CORDON_ASIO naming the library's
// namespace, CORDON_ASIO_ERROR that of its error_code, and CORDON_OVER_ASIO an inline namespace, so that both can be
// used in one program, and even in one file if the names are qualified. No `#pragma once`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/item_queue.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/time/timer_queue.hpp>

#include <atomic>
#include <cstddef>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
inline namespace CORDON_OVER_ASIO {

namespace net = CORDON_ASIO;

/// Runs items and timers on an io_context: one service for each context, made when it is first asked for. Items run one
/// after the other, also if several threads run the context.
class asio_loop final : public net::execution_context::service {
public:
    static inline net::execution_context::id id;

    explicit asio_loop(net::execution_context& owner)
        : service(owner), io_(static_cast<net::io_context&>(owner)), wake_timer_(io_), timers_(*this) {}

    /// The loop of the context that `e` belongs to.
    /// Requires:      it is an io_context
    template <class Executor>
    static asio_loop& of(const Executor& e) {
        return net::use_service<asio_loop>(static_cast<net::io_context&>(net::query(e, net::execution::context)));
    }

    void submit(work_item& item) noexcept {
        if (is_current()) ready_.push(item);
        else if (inbox_.push(item)) schedule();
    }
    [[nodiscard]] bool is_current() const noexcept { return detail::runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

private:
    /// The timers, which keep the context's own timer at the earliest of them, and cancel it when there is none: a
    /// context with nothing to wait for returns from its run().
    class loop_timers final : public timer_service {
    public:
        explicit loop_timers(asio_loop& loop) noexcept : loop_(&loop), queue_(&loop_timers::earlier, &loop) {}
        void arm(timer& t) noexcept override { queue_.arm(t); }
        void cancel(timer& t) noexcept override {
            queue_.cancel(t);
            if (queue_.empty()) loop_->schedule_unless_current();
        }
        locked_timer_queue& queue() noexcept { return queue_; }

    private:
        static void earlier(void* loop) noexcept { static_cast<asio_loop*>(loop)->schedule_unless_current(); }
        asio_loop* loop_;
        locked_timer_queue queue_;
    };

    void shutdown() noexcept override {}

    /// Has `drain` run soon. It looks at the timers itself before it ends.
    void schedule() noexcept {
        if (!scheduled_.exchange(true, std::memory_order_acq_rel)) net::post(io_, [this] { drain(); });
    }
    void schedule_unless_current() noexcept {
        if (!is_current()) schedule();
    }

    void drain() noexcept {
        scheduled_.store(false, std::memory_order_release);
        {
            const clock::time_point now = clock::now();
            const detail::executor_entry entry(this, now);
            timers_.queue().fire_due(now);
            inbox_.collect(ready_);
            for (int budget = items_per_turn; !ready_.empty() && budget != 0; --budget) {
                work_item& item = ready_.pop();
                item.run(item);
            }
        }
        if (!ready_.empty()) schedule();
        arm_wake_timer();
    }

    void arm_wake_timer() noexcept {
        const std::optional<clock::time_point> next = timers_.queue().next_wake();
        if (next == armed_for_) return;
        armed_for_ = next;
        if (!next) {
            wake_timer_.cancel();
            return;
        }
        wake_timer_.expires_at(*next);
        wake_timer_.async_wait([this](const CORDON_ASIO_ERROR::error_code& e) {
            if (e) return;
            armed_for_.reset();
            drain();
        });
    }

    static constexpr int items_per_turn = 64;

    net::io_context& io_;
    net::steady_timer wake_timer_;                 // the context's threads, inside drain
    std::optional<clock::time_point> armed_for_;
    detail::item_inbox inbox_;
    detail::item_fifo ready_;
    std::atomic<bool> scheduled_{false};
    loop_timers timers_;
};

/// The executor of an io_context: its loop runs our tasks and timers, and no thread of ours. Satisfies `executor`.
/// Lifetime:      outlives what runs on it; the io_context outlives both
class asio_executor {
public:
    explicit asio_executor(net::io_context& io) : loop_(&net::use_service<asio_loop>(io)) {}
    void submit(work_item& item) noexcept { loop_->submit(item); }
    [[nodiscard]] bool is_current() const noexcept { return loop_->is_current(); }
    [[nodiscard]] timer_service& timers() noexcept { return loop_->timers(); }

private:
    asio_loop* loop_;
};

/// A completion token: makes an Asio operation an operation of ours, to be awaited in a task or wrapped in `with`.
/// Returns:       what the handler gets: nothing, a value, or a tuple of several
/// Errors:        an error_code is thrown as the library's `system_error`
/// Cancellation:  a cancel point: a stop becomes the operation's own cancellation, and its end is waited for, so that
///                buffers stay valid. If it succeeds nevertheless, its value counts
struct use_cordon_t {
    constexpr use_cordon_t() noexcept {}
};
inline constexpr use_cordon_t use_cordon{};

/// What several values become: nothing, the one, or a tuple.
template <class... Values>
struct asio_values {
    using type = std::tuple<Values...>;
};
template <>
struct asio_values<> {
    using type = void;
};
template <class T>
struct asio_values<T> {
    using type = T;
};

/// How the arguments of a completion handler become an outcome.
template <class... Values>
struct asio_result {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(Values... values) { return outcome<type>(std::in_place, std::move(values)...); }
};
template <class... Values>
struct asio_result<CORDON_ASIO_ERROR::error_code, Values...> {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(const CORDON_ASIO_ERROR::error_code& e, Values... values) {
        if (e == net::error::operation_aborted) return outcome<type>::stopped();
        if (e) return outcome<type>(std::make_exception_ptr(CORDON_ASIO_ERROR::system_error(e)));
        return outcome<type>(std::in_place, std::move(values)...);
    }
};
template <class... Values>
struct asio_result<std::exception_ptr, Values...> {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(std::exception_ptr e, Values... values) {
        if (e) return outcome<type>(std::move(e));
        return outcome<type>(std::in_place, std::move(values)...);
    }
};

inline constinit const detail::wait_label asio_label{"asio"};

/// What an Asio operation with `use_cordon` returns.
template <class Result, class Initiation, class... Args>
class asio_operation : public detail::operation_base<asio_operation<Result, Initiation, Args...>> {
public:
    using value_type = typename Result::type;
    static constexpr bool needs_executor = true;

    template <class I, class... A>
    explicit asio_operation(std::in_place_t, I&& initiation, A&&... args)
        : initiation_(std::forward<I>(initiation)), args_(std::forward<A>(args)...) {}

    class state : private work_item, private detail::stop_node {
    public:
        explicit state(asio_operation&& o)
            : work_item(&state::resumed), stop_node(&state::stop_arrived), initiation_(std::move(o.initiation_)),
              args_(std::move(o.args_)) {}

        bool ready() const noexcept { return false; }
        CORDON_NOINLINE std::coroutine_handle<> start(receiver_ref r) noexcept {
            receiver_ = r;
            if (detail::scope* const s = detail::context_access::scope_of(r.ctx())) {
                s->arm();
                if (!attach(s->source())) return r.stop_later();
            }
            detail::note_wait(r, asio_label);
            std::apply([this](auto&... args) { std::move(initiation_)(handler(*this), std::move(args)...); }, args_);
            part_done();  // from here on the frame may be gone
            return std::noop_coroutine();
        }
        outcome<value_type> take() noexcept { return *std::move(result_); }

    private:
        /// What Asio calls. Carries the slot by which the operation is cancelled.
        class handler {
        public:
            using cancellation_slot_type = net::cancellation_slot;
            explicit handler(state& s) noexcept : state_(&s) {}
            cancellation_slot_type get_cancellation_slot() const noexcept { return state_->signal_.slot(); }
            template <class... A>
            void operator()(A&&... args) {
                state_->result_.emplace(Result::make(std::forward<A>(args)...));
                state_->detach();  // no cancel is sent after this
                state_->part_done();
            }

        private:
            state* state_;
        };

        /// Cancels on the executor's thread, since a signal may only be emitted there.
        static void stop_arrived(detail::stop_node& node) noexcept {
            state& s = static_cast<state&>(node);
            s.parts_.fetch_add(1, std::memory_order_relaxed);
            s.receiver_.ctx().executor().submit(s.cancel_);
        }
        struct cancel_item : work_item {
            explicit cancel_item(state& s) noexcept : work_item(&cancel_item::cancel), owner(&s) {}
            static void cancel(work_item& item) noexcept {
                state& s = *static_cast<cancel_item&>(item).owner;
                s.signal_.emit(net::cancellation_type::all);
                s.part_done();
            }
            state* owner;
        };

        /// parts_: what has not ended yet of {start, the operation, a cancel on its way}; the last one resumes.
        void part_done() noexcept {
            if (parts_.fetch_sub(1, std::memory_order_acq_rel) == 1) receiver_.ctx().executor().submit(*this);
        }
        static void resumed(work_item& item) noexcept {
            state& s = static_cast<state&>(item);
            detail::note_running(s.receiver_);
            detail::resume(s.ended_stopped() ? s.receiver_.stop() : s.receiver_.complete());
        }
        bool ended_stopped() noexcept {
            if (!result_->is_stopped()) return false;
            if (receiver_.ctx().stop_requested()) return true;
            result_.emplace(std::make_exception_ptr(CORDON_ASIO_ERROR::system_error(
                CORDON_ASIO_ERROR::error_code(net::error::operation_aborted))));  // somebody else cancelled it
            return false;
        }

        receiver_ref receiver_;
        Initiation initiation_;
        std::tuple<Args...> args_;
        net::cancellation_signal signal_;
        cancel_item cancel_{*this};
        std::optional<outcome<value_type>> result_;
        std::atomic<int> parts_{2};
    };

private:
    Initiation initiation_;
    std::tuple<Args...> args_;
};

/// What `as_asio` runs: an operation of ours as one of Asio's, which owns itself until the handler is called.
template <operation O, class Handler>
class asio_bridge {
    using result = outcome<typename O::value_type>;

public:
    static void start(O&& op, Handler&& handler, const std::source_location& where) {
        auto* const self = new asio_bridge(std::move(op), std::move(handler), where);
        const auto slot = net::get_associated_cancellation_slot(self->handler_);
        if (slot.is_connected())
            net::cancellation_slot(slot).assign([self](net::cancellation_type) { self->scope_.request_stop(); });
        self->root_.start();
    }

private:
    class bridge_root final : public detail::root<O> {
    public:
        bridge_root(O&& op, const context& c, detail::task_record* r, asio_bridge& owner)
            : detail::root<O>(std::move(op), c, r), owner_(&owner) {}

    private:
        /// The way back goes through the handler's executor: nothing is resumed, or destroyed, inside an await_suspend.
        void on_ended() noexcept override {
            net::post(owner_->executor_, [owner = owner_] { owner->finish(); });
        }
        asio_bridge* owner_;
    };

    asio_bridge(O&& op, Handler&& handler, const std::source_location& where)
        : handler_(std::move(handler)), executor_(net::get_associated_executor(handler_)),
          scope_(executor_ref(asio_loop::of(executor_)), deadline::never(), where),
          root_(std::move(op), scope_.ctx(),
                detail::task_record::open(false, "as_asio", where, nullptr, detail::coarse_now_ms()), *this) {}

    void finish() {
        const auto slot = net::get_associated_cancellation_slot(handler_);
        if (slot.is_connected()) net::cancellation_slot(slot).clear();
        result ended = root_.take();
        Handler handler = std::move(handler_);
        delete this;
        std::move(handler)(std::move(ended));
    }

    Handler handler_;
    net::associated_executor_t<Handler> executor_;
    cancel_scope scope_;
    bridge_root root_;
};

/// Awaits `a` in a `net::awaitable`, on the host's own loop. Asio's cancellation of the awaiting coroutine becomes a stop.
/// Errors:        throws what `a` throws; stopped, the library's `system_error` with `operation_aborted`
/// Cancellation:  a waiter leaves its queue and takes nothing; a value that is there already wins
/// Cost:          two allocations: the coroutine and the bridge
template <awaitable A>
[[nodiscard]] net::awaitable<await_result_t<A>> as_asio(A a,
                                                        std::source_location where = std::source_location::current()) {
    using op = detail::operation_for<A>;
    using result = outcome<typename op::value_type>;
    op description = detail::describe(std::move(a));
    auto initiate = [&description, &where](auto&& handler) {
        asio_bridge<op, std::decay_t<decltype(handler)>>::start(std::move(description), std::move(handler), where);
    };
    result ended = co_await net::async_initiate<const net::use_awaitable_t<>, void(result)>(initiate, net::use_awaitable);
    if (ended.is_stopped())
        detail::raise(CORDON_ASIO_ERROR::system_error(CORDON_ASIO_ERROR::error_code(net::error::operation_aborted)),
                      "an operation was stopped");
    if constexpr (std::is_void_v<typename op::value_type>) std::move(ended).value();
    else co_return std::move(ended).value();
}

}  // inline namespace
}  // namespace cordon::inline CORDON_ABI

/// `use_cordon` as a completion token of the library.
template <class R, class... Args>
class CORDON_ASIO::async_result<cordon::CORDON_OVER_ASIO::use_cordon_t, R(Args...)> {
public:
    template <class Initiation, class Token, class... InitArgs>
    static auto initiate(Initiation&& initiation, Token&&, InitArgs&&... args) {
        using namespace cordon::CORDON_OVER_ASIO;
        return asio_operation<asio_result<std::decay_t<Args>...>, std::decay_t<Initiation>, std::decay_t<InitArgs>...>(
            std::in_place, std::forward<Initiation>(initiation), std::forward<InitArgs>(args)...);
    }
};
