// SPDX-License-Identifier: MIT
#pragma once

// cordon on Boost.Asio: tasks and timers on a host's io_context, Asio operations as operations of ours, and our
// operations inside `boost::asio::awaitable`. For standalone Asio include <cordon/interop/asio.hpp> instead.
//
//     boost::asio::io_context io;
//     cordon::asio_executor executor{io};                                    // no thread of ours
//     std::size_t n = co_await socket.async_read_some(buffer, use_cordon);   // in a task: a cancel point
//     co_await as_asio(slots.acquire());                                     // in a boost::asio::awaitable
//     int left = co_await with_timeout(1s, stock(7));                        // a boost::asio::awaitable in a task

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/associated_cancellation_slot.hpp>
#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/cancellation_signal.hpp>
#include <boost/asio/cancellation_type.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/execution/context.hpp>
#include <boost/asio/execution_context.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/system/error_code.hpp>
#include <boost/system/system_error.hpp>

#if !defined(BOOST_ASIO_HAS_CO_AWAIT)
#error "Boost.Asio does not see this compiler's coroutines"
#endif

#define CORDON_ASIO boost::asio
#define CORDON_ASIO_ERROR boost::system
#define CORDON_OVER_ASIO over_boost_asio
#include <cordon/interop/detail/asio_executor.hpp>
#include <cordon/interop/detail/use_cordon.hpp>
#include <cordon/interop/detail/asio_awaitable.hpp>
#include <cordon/interop/detail/as_asio.hpp>
#undef CORDON_OVER_ASIO
#undef CORDON_ASIO_ERROR
#undef CORDON_ASIO
