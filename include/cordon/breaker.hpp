// SPDX-License-Identifier: MIT
#pragma once

// The whole room breaker.
#include <cordon/breaker/breaker_event.hpp>
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/breaker/open_time.hpp>
#include <cordon/breaker/window.hpp>
