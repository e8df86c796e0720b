// SPDX-License-Identifier: MIT
#pragma once

// The whole room policy.
#include <cordon/policy/any_pipeline.hpp>
#include <cordon/policy/backoff.hpp>
#include <cordon/policy/cache.hpp>
#include <cordon/policy/failure.hpp>
#include <cordon/policy/fallback.hpp>
#include <cordon/policy/hedge.hpp>
#include <cordon/policy/pipeline.hpp>
#include <cordon/policy/retry.hpp>
#include <cordon/policy/retry_budget.hpp>
#include <cordon/policy/single_flight.hpp>
#include <cordon/policy/timeout.hpp>
