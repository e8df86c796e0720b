// SPDX-License-Identifier: MIT
// expect: a guard has an identity, and is shared by reference: give it a name that outlives the pipeline
#include <cordon/breaker/circuit_breaker.hpp>
#include <cordon/policy/pipeline.hpp>

auto p = cordon::pipeline(cordon::circuit_breaker{{.name = "b"}});
