// SPDX-License-Identifier: MIT
#pragma once

// The whole room limit.
#include <cordon/limit/adaptive_limiter.hpp>
#include <cordon/limit/bulkhead.hpp>
#include <cordon/limit/keyed_limiter.hpp>
#include <cordon/limit/load_shedder.hpp>
#include <cordon/limit/rate.hpp>
#include <cordon/limit/sliding_window_limiter.hpp>
#include <cordon/limit/token_bucket.hpp>
