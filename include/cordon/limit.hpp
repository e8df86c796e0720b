// SPDX-License-Identifier: MIT
#pragma once

// The whole room limit.
#include <cordon/limit/rate.hpp>
#include <cordon/limit/token_bucket.hpp>
