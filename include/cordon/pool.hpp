// SPDX-License-Identifier: MIT
#pragma once

// The whole room pool.
#include <cordon/pool/holder.hpp>
#include <cordon/pool/object_pool.hpp>
#include <cordon/pool/resource_pool.hpp>
