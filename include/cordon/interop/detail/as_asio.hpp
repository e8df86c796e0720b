// SPDX-License-Identifier: MIT

// Operations of ours inside the library's coroutines. See asio_executor.hpp for how this is included.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>

#include <coroutine>
#include <memory>
#include <optional>
#include <source_location>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail::CORDON_OVER_ASIO {

/// An operation of ours under a scope of its own. While it waits it owns itself and, by the handler, the coroutine that
/// waits for it; else the coroutine owns it.
template <operation O>
class asio_bridge final : private asio_guest, private receiver, private work_item {
    using handler = typename net::async_result<net::use_awaitable_t<>, void()>::handler_type;

public:
    asio_bridge(O&& op, asio_loop& loop, const std::source_location& where)
        : asio_guest(executor_ref(loop), where), receiver(nullptr, nullptr, {}, &asio_bridge::ended),
          work_item(&asio_bridge::begin), loop_(loop), state_(std::move(op)) {}
    asio_bridge(const asio_bridge&) = delete;
    asio_bridge& operator=(const asio_bridge&) = delete;
    ~asio_bridge() {
        loop_.remove(*this);
        if (record != nullptr) record->close();
    }

    [[nodiscard]] bool ready() noexcept { return state_.ready(); }
    /// Calls `h` when the operation has ended. Owns itself from here on, until then.
    void start(handler&& h) {
        handler_.emplace(std::move(h));
        const auto slot = net::get_associated_cancellation_slot(*handler_);
        if (slot.is_connected())
            net::cancellation_slot(slot).assign([this](net::cancellation_type) { asio_guest::stop(); });
        receiver::ctx = &asio_guest::ctx();
        record = task_record::open(false, "as_asio", where(), nullptr, coarse_now_ms());
        loop_.add(*this);
        loop_.submit(*this);
    }
    /// Requires:      it was ready, or has ended
    outcome<typename O::value_type> take() noexcept {
        return stopped_ ? outcome<typename O::value_type>::stopped() : state_.take();
    }

private:
    static void begin(work_item& item) noexcept {
        auto& b = static_cast<asio_bridge&>(item);
        resume(b.state_.start(receiver_ref(static_cast<receiver&>(b))));
    }
    static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
        auto& b = static_cast<asio_bridge&>(self);
        if (stopped) discard(child);
        b.stopped_ = stopped;
        b.run = &asio_bridge::go_back;
        b.loop_.submit(b);  // nothing is resumed, or destroyed, inside an await_suspend
        return std::noop_coroutine();
    }
    /// The coroutine's executor may be another than the loop, such as a strand.
    static void go_back(work_item& item) noexcept {
        std::unique_ptr<asio_bridge> b(&static_cast<asio_bridge&>(item));
        if (b->loop_.closing()) return;
        const auto back = net::get_associated_executor(*b->handler_);
        net::post(back, [b = std::move(b)]() mutable { b.release()->finish(); });
    }
    void finish() {
        const auto slot = net::get_associated_cancellation_slot(*handler_);
        if (slot.is_connected()) net::cancellation_slot(slot).clear();
        handler h = *std::move(handler_);
        h();
    }

    asio_loop& loop_;
    std::optional<handler> handler_;
    bool stopped_ = false;
    typename O::state state_;
};

// The frame keeps the operation, and with it callables of the user's, which may be local to a file.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsubobject-linkage"
#endif
template <operation O>
net::awaitable<typename O::value_type> await_in_asio(O op, std::source_location where) {
    using value_type = typename O::value_type;
    const net::any_io_executor executor = co_await net::this_coro::executor;
    auto bridge = std::make_unique<asio_bridge<O>>(std::move(op), asio_loop::of(executor), where);
    if (!bridge->ready()) {
        asio_bridge<O>* const waiting = bridge.get();
        auto start = [&bridge](auto&& handler) { bridge.release()->start(std::move(handler)); };
        co_await net::async_initiate<const net::use_awaitable_t<>, void()>(start, net::use_awaitable);
        bridge.reset(waiting);
    }
    outcome<value_type> ended = bridge->take();
    bridge.reset();
    if (ended.is_stopped())
        raise(CORDON_ASIO_ERROR::system_error(asio_error(net::error::operation_aborted)), "an operation was stopped");
    if constexpr (std::is_void_v<value_type>) std::move(ended).value();
    else co_return std::move(ended).value();
}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif

}  // namespace detail::CORDON_OVER_ASIO

inline namespace CORDON_OVER_ASIO {

/// Awaits `a` in a coroutine of the library's, on the host's own loop, with no deadline or value but those in `a`.
/// Asio's cancellation of the coroutine becomes a stop, of whatever type it is.
/// Requires:      the coroutine's executor is one of an io_context, such as a strand of it
/// Errors:        throws what `a` throws; stopped, the library's `system_error` with `operation_aborted`
/// Cancellation:  a waiter leaves its queue and takes nothing; a value that is there already wins
/// Cost:          one allocation and one of Asio's frames; if it waits, another frame and a post each way
template <awaitable A>
[[nodiscard]] auto as_asio(A&& a, std::source_location where = std::source_location::current())
    -> ::CORDON_ASIO::awaitable<typename detail::operation_for<A>::value_type> {
    return detail::CORDON_OVER_ASIO::await_in_asio(detail::operation_of(std::forward<A>(a)), where);
}

}  // inline namespace CORDON_OVER_ASIO
}  // namespace cordon::inline CORDON_ABI
