// SPDX-License-Identifier: MIT
#pragma once

#include "service.hpp"

#include <cordon/core/task.hpp>

namespace gateway {

/// One connection from a client: its requests one after the other, each within its deadline, until one side has enough.
co::task<> serve_client(service& shared, tcp::socket client);

}  // namespace gateway
