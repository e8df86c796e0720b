// SPDX-License-Identifier: MIT
#pragma once

// cordon on standalone Asio: tasks and timers on a host's io_context, Asio operations as operations of ours, and our
// operations inside `asio::awaitable`. For Boost.Asio include <cordon/interop/boost_asio.hpp> instead.
//
//     asio::io_context io;
//     cordon::asio_executor executor{io};                                    // no thread of ours
//     std::size_t n = co_await socket.async_read_some(buffer, use_cordon);   // in a task: a cancel point
//     co_await as_asio(slots.acquire());                                     // in an asio::awaitable
//     int left = co_await with_timeout(1s, stock(7));                        // an asio::awaitable in a task

#include <asio/any_io_executor.hpp>
#include <asio/associated_cancellation_slot.hpp>
#include <asio/associated_executor.hpp>
#include <asio/async_result.hpp>
#include <asio/awaitable.hpp>
#include <asio/cancellation_signal.hpp>
#include <asio/cancellation_type.hpp>
#include <asio/co_spawn.hpp>
#include <asio/error.hpp>
#include <asio/error_code.hpp>
#include <asio/execution/context.hpp>
#include <asio/execution_context.hpp>
#include <asio/io_context.hpp>
#include <asio/post.hpp>
#include <asio/steady_timer.hpp>
#include <asio/system_error.hpp>
#include <asio/this_coro.hpp>
#include <asio/use_awaitable.hpp>

#if !defined(ASIO_HAS_CO_AWAIT)
#error "Asio does not see this compiler's coroutines; for Clang define ASIO_HAS_CO_AWAIT=1 and ASIO_HAS_STD_COROUTINE=1"
#endif

#define CORDON_ASIO asio
#define CORDON_ASIO_ERROR std
#define CORDON_OVER_ASIO over_asio
#include <cordon/interop/detail/asio_executor.hpp>
#include <cordon/interop/detail/use_cordon.hpp>
#include <cordon/interop/detail/asio_awaitable.hpp>
#include <cordon/interop/detail/as_asio.hpp>
#undef CORDON_OVER_ASIO
#undef CORDON_ASIO_ERROR
#undef CORDON_ASIO
