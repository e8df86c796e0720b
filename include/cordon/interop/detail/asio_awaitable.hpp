// SPDX-License-Identifier: MIT

// The library's coroutines as operations of ours: `co_await` one in a task, or give it to `with` and to pipelines. See
// asio_executor.hpp for how this is included.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <coroutine>
#include <optional>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail::CORDON_OVER_ASIO {

/// A coroutine of the library's, spawned when it is awaited on the io_context of the task that awaits it.
/// Errors:        what the coroutine throws
/// Cancellation:  a stop becomes the coroutine's cancellation, and its end is waited for; if it ends by that the task
///                is stopped, and a value that it gives all the same is had
/// Cost:          what `co_spawn` with a cancellation slot costs
template <class T, class Executor>
class awaitable_operation : public operation_base<awaitable_operation<T, Executor>> {
    static auto spawn(asio_loop& on, net::awaitable<T, Executor>&& a) {
        return net::co_spawn(on.host(), std::move(a), ::cordon::CORDON_OVER_ASIO::use_cordon);
    }
    using spawned = decltype(spawn(std::declval<asio_loop&>(), std::declval<net::awaitable<T, Executor>>()));

public:
    using value_type = T;
    static constexpr bool needs_executor = true;

    explicit awaitable_operation(net::awaitable<T, Executor>&& a) noexcept : awaitable_(std::move(a)) {}

    class state {
    public:
        explicit state(awaitable_operation&& o) noexcept : awaitable_(std::move(o.awaitable_)) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;

        bool ready() const noexcept { return false; }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            asio_loop* const loop = loop_of(r.ctx().executor());
            if (loop == nullptr) [[unlikely]]
                fail("an Asio coroutine is awaited by a task that runs on no asio_executor: start it on one, or give "
                     "the coroutine to co_spawn with use_cordon and an executor");
            return spawned_.emplace(spawn(*loop, std::move(awaitable_))).start(r);
        }
        outcome<T> take() noexcept { return spawned_->take(); }

    private:
        net::awaitable<T, Executor> awaitable_;
        std::optional<typename spawned::state> spawned_;
    };

private:
    net::awaitable<T, Executor> awaitable_;
};

}  // namespace detail::CORDON_OVER_ASIO

template <class T, class Executor>
struct detail::awaitable_adaptor<::CORDON_ASIO::awaitable<T, Executor>> {
    static auto operation_of(::CORDON_ASIO::awaitable<T, Executor>&& a) noexcept {
        return detail::CORDON_OVER_ASIO::awaitable_operation<T, Executor>(std::move(a));
    }
};

}  // namespace cordon::inline CORDON_ABI
