// SPDX-License-Identifier: MIT

// Operations of the library as operations of ours. See asio_executor.hpp for how this is included.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task_record.hpp>

#include <atomic>
#include <coroutine>
#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <string>
#include <tuple>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
inline namespace CORDON_OVER_ASIO {

/// A completion token: makes an Asio operation an operation of ours, to be awaited in a task or wrapped in `with`.
/// Returns:       what the handler gets: nothing, a value, or a tuple of several
/// Errors:        an error_code that comes first is thrown as the library's `system_error`, an exception_ptr as it is;
///                inside `as_tuple` it is a value. What the initiation throws is thrown
/// Cancellation:  a cancel point: a stop becomes the operation's own cancellation, and its end is waited for, so that
///                buffers stay valid. If it succeeds nevertheless its value counts; if it is aborted, in an `as_tuple`
///                too, the task is stopped. Stopped already, the operation is not begun. Aborted by anybody else, it
///                throws `operation_aborted`. An operation that is composed of others must pass the cancellation on
///                to each: Beast 1.81's reads of whole messages lose one that comes between two, so await
///                `async_read_some` in a loop there
/// Lifetime:      the object of the operation outlives it: destroyed earlier, a stop would reach into it
/// Threads:       the task runs on the io_context of the operation's object, which one thread runs
/// Cost:          no allocation of ours, and Asio's are those of any callback with a cancellation slot; a submission
struct use_cordon_t {
    constexpr use_cordon_t() noexcept {}
};
inline constexpr use_cordon_t use_cordon{};

}  // inline namespace CORDON_OVER_ASIO

namespace detail::CORDON_OVER_ASIO {

using asio_error = CORDON_ASIO_ERROR::error_code;

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

[[nodiscard]] inline std::exception_ptr as_exception(const asio_error& e) {
    return std::make_exception_ptr(CORDON_ASIO_ERROR::system_error(e));
}

/// How a host's coroutine tells that it was cancelled.
[[nodiscard]] inline bool says_aborted(const std::exception_ptr& e) noexcept {
    try {
        std::rethrow_exception(e);
    } catch (const CORDON_ASIO_ERROR::system_error& thrown) {
        return thrown.code() == net::error::operation_aborted;
    } catch (...) {
        return false;
    }
}

/// How the arguments of a completion handler become an outcome; an error that says "aborted" becomes stopped.
template <class... Values>
struct asio_result {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(Values... values) { return outcome<type>(std::in_place, std::move(values)...); }
};
template <class... Values>
struct asio_result<asio_error, Values...> {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(const asio_error& e, Values... values) {
        if (!e) [[likely]] return outcome<type>(std::in_place, std::move(values)...);
        if (e == net::error::operation_aborted) return outcome<type>::stopped();
        return outcome<type>(as_exception(e));
    }
};
template <class... Values>
struct asio_result<std::exception_ptr, Values...> {
    using type = typename asio_values<Values...>::type;
    static outcome<type> make(std::exception_ptr e, Values... values) {
        if (e && says_aborted(e)) return outcome<type>::stopped();
        if (e) return outcome<type>(std::move(e));
        return outcome<type>(std::in_place, std::move(values)...);
    }
};

/// Whether an operation ended because somebody cancelled it.
template <class T>
[[nodiscard]] bool aborted(const outcome<T>& o) noexcept {
    return o.is_stopped();
}
template <class... Rest>
[[nodiscard]] bool aborted(const outcome<std::tuple<asio_error, Rest...>>& o) noexcept {
    return o.is_stopped() || (o.has_value() && std::get<0>(*o) == net::error::operation_aborted);
}

inline constinit const wait_label asio_label{"an Asio operation"};

/// What an Asio operation with `use_cordon` returns.
template <class Result, class Initiation, class... Args>
class [[nodiscard]] asio_operation : public operation_base<asio_operation<Result, Initiation, Args...>> {
public:
    using value_type = typename Result::type;
    static constexpr bool needs_executor = true;

    template <class I, class... A>
    explicit asio_operation(std::in_place_t, I&& initiation, A&&... args)
        : initiation_(std::forward<I>(initiation)), args_(std::forward<A>(args)...) {}

    class state;

private:
    Initiation initiation_;
    std::tuple<Args...> args_;
};

template <class Result, class Initiation, class... Args>
class asio_operation<Result, Initiation, Args...>::state : private work_item, private stop_node {
public:
    explicit state(asio_operation&& o)
        : work_item(&state::resumed), stop_node(&state::stop_arrived), initiation_(std::move(o.initiation_)),
          args_(std::move(o.args_)) {}

    bool ready() const noexcept { return false; }
    CORDON_NOINLINE std::coroutine_handle<> start(receiver_ref r) noexcept {
        receiver_ = r;
        if (scope* const s = context_access::scope_of(r.ctx())) {
            s->arm();
            if (!attach(s->source())) return r.stop_later();
        }
        note_wait(r, asio_label);
        initiate();
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
        handler(handler&& other) noexcept : state_(std::exchange(other.state_, nullptr)) {}
        handler& operator=(handler&&) = delete;
        ~handler() {
            if (state_ != nullptr) [[unlikely]] state_->dropped();
        }

        cancellation_slot_type get_cancellation_slot() const noexcept { return state_->signal_.slot(); }
        template <class... A>
        void operator()(A&&... args) {
            std::exchange(state_, nullptr)->ended(Result::make(std::forward<A>(args)...));
        }

    private:
        state* state_;
    };

    /// Cancels the operation, on the executor, since that is where a signal may be emitted.
    class cancel_item : public work_item {
    public:
        explicit cancel_item(state& s) noexcept : work_item(&cancel_item::cancel), state_(&s) {}

    private:
        static void cancel(work_item& item) noexcept {
            state& s = *static_cast<cancel_item&>(item).state_;
            if (s.cancellable()) s.signal_.emit(net::cancellation_type::all);
            s.part_done();
        }
        state* state_;
    };

    void initiate() noexcept {
#if defined(__cpp_exceptions)
        initiating_ = true;
        try {
#endif
            std::apply([this](auto&... args) { std::move(initiation_)(handler(*this), std::move(args)...); }, args_);
#if defined(__cpp_exceptions)
        } catch (...) {
            ended(outcome<value_type>(std::current_exception()));
        }
        initiating_ = false;
#endif
    }
    void ended(outcome<value_type>&& result) {
        result_.emplace(std::move(result));
        detach();  // no cancellation is sent after this
        part_done();
    }
    /// The handler is gone, and was not called: its context is being destroyed.
    void dropped() noexcept {
        if (initiating_) return;
        if (receiver_.ctx().stop_requested()) return ended(outcome<value_type>::stopped());
        std::string where;
        receiver_ref awaiting = receiver_;
        while (awaiting && awaiting.promise() == nullptr) awaiting = awaiting.up();
        if (awaiting) {
            const std::source_location& site = awaiting.promise()->site;
            where = std::string(" at ") + site.file_name() + ":" + std::to_string(site.line());
        }
        fail("an io_context is destroyed while a task waits for an operation of it" + where +
             ": stop and join what runs on an asio_executor before its io_context");
    }

    static void stop_arrived(stop_node& node) noexcept {
        state& s = static_cast<state&>(node);
        s.parts_.fetch_add(1, std::memory_order_relaxed);  // the operation's own part is still there, see ended()
        submit(s.receiver_.ctx(), s.cancel_);
    }
    /// Not if it has ended, nor where an item runs although its executor does not: the context is being destroyed and
    /// will drop the operation. Its object may be gone in both cases.
    [[nodiscard]] bool cancellable() const noexcept {
        const executor_ref e = receiver_.ctx().executor();
        return !result_ && (!e || e.is_current());
    }
    void part_done() noexcept {
        if (parts_.fetch_sub(1, std::memory_order_acq_rel) == 1) submit(receiver_.ctx(), *this);
    }
    static void resumed(work_item& item) noexcept {
        state& s = static_cast<state&>(item);
        note_running(s.receiver_);
        resume(s.ended_stopped() ? s.receiver_.stop() : s.receiver_.complete());
    }
    bool ended_stopped() noexcept {
        if (!aborted(*result_)) [[likely]] return false;
        if (receiver_.ctx().stop_requested()) return true;
        if (result_->is_stopped()) result_.emplace(as_exception(net::error::operation_aborted));
        return false;
    }

    receiver_ref receiver_;
    Initiation initiation_;
    std::tuple<Args...> args_;
    net::cancellation_signal signal_;
    cancel_item cancel_{*this};
    std::optional<outcome<value_type>> result_;
    bool initiating_ = false;
    std::atomic<int> parts_{2};  // how many of {start, the operation, a cancellation} have not ended: the last resumes
};

}  // namespace detail::CORDON_OVER_ASIO
}  // namespace cordon::inline CORDON_ABI

/// `use_cordon` as a completion token of the library.
template <class R, class... Args>
class CORDON_ASIO::async_result<cordon::CORDON_OVER_ASIO::use_cordon_t, R(Args...)> {
public:
    template <class Initiation, class Token, class... InitArgs>
    static auto initiate(Initiation&& initiation, Token&&, InitArgs&&... args) {
        using namespace cordon::detail::CORDON_OVER_ASIO;
        return asio_operation<asio_result<std::decay_t<Args>...>, std::decay_t<Initiation>, std::decay_t<InitArgs>...>(
            std::in_place, std::forward<Initiation>(initiation), std::forward<InitArgs>(args)...);
    }
};
