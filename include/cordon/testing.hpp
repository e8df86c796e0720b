// SPDX-License-Identifier: MIT
#pragma once

// The whole room testing.
#include <cordon/testing/allocation_fault.hpp>
#include <cordon/testing/cancel_sweep.hpp>
#include <cordon/testing/chaos.hpp>
#include <cordon/testing/check_determinism.hpp>
#include <cordon/testing/explore.hpp>
#include <cordon/testing/fault.hpp>
#include <cordon/testing/leak_check.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/testing/simulation.hpp>
