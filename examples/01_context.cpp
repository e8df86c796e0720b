// SPDX-License-Identifier: MIT
// Context: one stop token, one deadline and a few values flow down the await chain by themselves.
#include <cordon/cordon.hpp>

#include <cassert>
#include <iostream>
#include <string>
#include <utility>

using namespace std::chrono_literals;
namespace co = cordon;

// [values]
inline constexpr co::context_key<std::string> request_id{"request_id"};

co::task<std::string> query_stock(int item) {
    // Nothing was passed by hand: what the caller's caller has set is in effect here.
    const co::deadline until = co_await co::this_task::deadline();
    const std::string* id = co_await co::this_task::get(request_id);  // null where nobody bound one
    assert(until.remaining() <= 2s && id != nullptr);

    co_await co::sleep_for(1ms);  // a cancel point, under that deadline
    co_return "stock of item " + std::to_string(item) + ", asked for by " + *id;
}

co::task<std::string> handle() {
    co_return co_await co::with(query_stock(7), co::within(2s), request_id("r-42"));
}
// [/values]

// [shrink]
co::task<> deadlines_only_shrink() {
    auto inner = []() -> co::task<> {
        const co::deadline mine = co_await co::this_task::deadline();
        assert(mine.remaining() <= 50ms);
    };
    auto widened = co::with_timeout(10s, inner());
    co_await co::with_timeout(50ms, std::move(widened));  // the earlier of both counts
}
// [/shrink]

struct on_exit_set {
    bool& flag;
    ~on_exit_set() { flag = true; }
};

// [timeout]
co::task<> a_timeout_is_an_error() {
    bool cleaned_up = false;
    auto slow = [](bool& done) -> co::task<> {
        const on_exit_set cleanup{done};
        co_await co::sleep_for(1h);
    };
    try {
        co_await co::with_timeout(10ms, slow(cleaned_up));
        assert(false);
    } catch (const co::timeout_error& e) {
        assert(cleaned_up);  // it was stopped and waited for: nothing is left running behind your back
        std::cout << "timed out, by the deadline of line " << e.where().line() << '\n';
    }
}
// [/timeout]

// [stop]
co::task<> a_stop_is_not() {
    co::inplace_stop_source source;
    source.request_stop(42);
    auto endless = co::with(co::sleep_for(1h), co::stop_on(source.get_token()));
    const co::outcome<void> ended = co_await co::as_outcome(std::move(endless));
    assert(ended.is_stopped() && source.reason().code == 42);  // no exception was thrown
    std::cout << "stopped, for the reason of line " << source.reason().where.line() << '\n';
}
// [/stop]

int main() {
    std::cout << co::sync_wait(handle()) << '\n';
    co::sync_wait(deadlines_only_shrink());
    co::sync_wait(a_timeout_is_an_error());
    co::sync_wait(a_stop_is_not());
}
