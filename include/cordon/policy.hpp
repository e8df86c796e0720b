// SPDX-License-Identifier: MIT
#pragma once

// The whole room policy.
#include <cordon/policy/backoff.hpp>
#include <cordon/policy/retry_budget.hpp>
