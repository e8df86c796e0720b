// SPDX-License-Identifier: MIT
#pragma once

// Everything but testing and interop.
#include <cordon/core.hpp>
#include <cordon/time.hpp>
#include <cordon/sync.hpp>
#include <cordon/run.hpp>
#include <cordon/scope.hpp>
#include <cordon/pool.hpp>
#include <cordon/limit.hpp>
#include <cordon/breaker.hpp>
#include <cordon/policy.hpp>
#include <cordon/observe.hpp>
#include <cordon/version.hpp>
