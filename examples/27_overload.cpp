// SPDX-License-Identifier: MIT
// A surge of ten times what a server can do, in virtual time: what is still of use to somebody, with a shedder at the
// door and without one. And two limits: one that finds its size, one that keeps somebody else's.
#include <cordon/cordon.hpp>
#include <cordon/testing/simulation.hpp>

#include <cassert>
#include <iostream>
#include <vector>

using namespace std::chrono_literals;
namespace co = cordon;

// [shed]
co::task<> serve(co::async_semaphore& workers, co::load_shedder* door, int& in_time) {
    const auto arrived = co::clock::now();
    const auto worker = co_await workers.hold();
    if (door != nullptr && !door->try_acquire(arrived)) co_return;  // 503: others have waited long enough, too
    co_await co::sleep_for(1ms);
    if (co::clock::now() - arrived < 50ms) ++in_time;  // afterwards nobody looks at the answer
}
// [/shed]

co::task<int> surge(co::load_shedder* door) {
    co::async_semaphore workers{1, {.name = "workers"}};
    int in_time = 0;
    co_await co::with_group([&](co::task_group& group) -> co::task<> {
        for (int i = 0; i < 10'000; ++i) {
            group.spawn(serve(workers, door, in_time));
            co_await co::sleep_for(100us);
        }
    });
    co_return in_time;
}

// [adaptive]
co::task<std::size_t> finds_its_size() {
    co::adaptive_limiter limit{co::gradient2{.initial = 40, .min = 1, .max = 1000},
                               {.name = "stock", .window = 100ms, .probe_every = 2s}};
    // A service that does ten at a time: more of them wait for each other.
    co::async_semaphore service{10, {.name = "service"}};
    const auto call = [&]() -> co::task<> {
        const auto place = co_await service.hold();
        co_await co::sleep_for(10ms);
    };
    const auto guarded = co::pipeline(limit);
    const auto client = [&](int) -> co::task<> {
        for (const auto end = co::clock::now() + 20s; co::clock::now() < end;) {
            (void)co_await co::as_outcome(guarded(call));  // refused while the limit is reached
            co_await co::sleep_for(1ms);
        }
    };
    const std::vector<int> clients(50);
    co_await co::for_each(clients, {.max_running = 50}, client);
    co_return limit.stats().limit;
}
// [/adaptive]

// [sliding]
co::task<> a_hundred_in_any_minute() {
    co::sliding_window_limiter api{100, 1min, {.name = "api"}};
    const auto begin = co::clock::now();
    for (int i = 0; i < 250; ++i) co_await api.acquire();
    assert(co::clock::now() - begin == 2min);
}
// [/sliding]

int main() {
    co::load_shedder door{{.name = "door", .target = 5ms, .interval = 100ms}};
    const int with = co::testing::simulation{1}.run(surge(&door));
    const int without = co::testing::simulation{1}.run(surge(nullptr));
    std::cout << "of a second of ten times the load, answered in time: " << with << ", and " << without << " without\n";
    assert(with > 900 && without < 100);
    const std::size_t size = co::testing::simulation{1}.run(finds_its_size());
    std::cout << "a service that does 10 at a time gets " << size << '\n';
    assert(size > 8 && size < 30);
    co::testing::simulation{1}.run(a_hundred_in_any_minute());
}
