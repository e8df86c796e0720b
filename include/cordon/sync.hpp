// SPDX-License-Identifier: MIT
#pragma once

// The whole room sync.
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_mutex.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/channel.hpp>
#include <cordon/sync/completion.hpp>
