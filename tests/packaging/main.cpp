// SPDX-License-Identifier: MIT
#include <cordon/cordon.hpp>

namespace co = cordon;

co::task<int> answer() {
    const co::deadline deadline = co_await co::this_task::deadline();
    co_return deadline.remaining() <= std::chrono::seconds(2) ? 42 : 0;
}

int main() {
    return co::sync_wait(co::with(answer(), co::within(std::chrono::seconds(2)))) == 42 ? 0 : 1;
}
