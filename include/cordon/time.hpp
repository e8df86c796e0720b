// SPDX-License-Identifier: MIT
#pragma once

// The whole room time.
#include <cordon/time/sleep.hpp>
#include <cordon/time/timer_queue.hpp>
