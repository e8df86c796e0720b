// SPDX-License-Identifier: MIT
// An executor outlives the references to it: a temporary cannot.
// expect: executor_ref
#include <cordon/core/context.hpp>
#include <cordon/run/run_loop.hpp>

cordon::context f() { return cordon::context(cordon::executor_ref(cordon::run_loop())); }
