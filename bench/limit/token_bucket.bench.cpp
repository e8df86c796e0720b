// SPDX-License-Identifier: MIT
// A token that is there, and one that is not, on one thread and on two: beside the clock reading and the exchange that
// a bucket of one word cannot do without.
#include "../rows.hpp"

#include <atomic>
#include <limits>
#include <mutex>

namespace {

using namespace bench;
using benchmark::State;

constexpr std::uint64_t plenty = 1'000'000'000;

std::uint64_t now_ns() noexcept {
    return static_cast<std::uint64_t>(co::clock::now().time_since_epoch().count());
}

/// What most write first.
class locked_bucket {
public:
    locked_bucket(double per_second, double burst) : rate_(per_second * 1e-9), burst_(burst), level_(burst) {}
    bool try_acquire() {
        const std::uint64_t now = now_ns();
        const std::lock_guard lock(mutex_);
        if (now > last_) {
            level_ = std::min(burst_, level_ + static_cast<double>(now - last_) * rate_);
            last_ = now;
        }
        if (level_ < 1) return false;
        level_ -= 1;
        return true;
    }

private:
    std::mutex mutex_;
    double rate_, burst_, level_;
    std::uint64_t last_ = now_ns();
};

std::atomic<std::uint64_t> floor_word{0};
void floor(State& state) {
    begin_threads();
    for (auto _ : state) {
        const std::uint64_t now = now_ns();
        std::uint64_t seen = floor_word.load(std::memory_order_acquire);
        while (!floor_word.compare_exchange_weak(seen, seen + (now & 1), std::memory_order_acquire)) {}
    }
    state.SetItemsProcessed(state.iterations());
}

co::token_bucket& accepting() {
    static co::token_bucket b{co::rate(plenty, std::chrono::microseconds(1)), plenty, {.name = "accepts"}};
    return b;
}
void accept(State& state) {
    begin_threads();
    co::token_bucket& b = accepting();
    for (auto _ : state)
        if (!b.try_acquire()) state.SkipWithError("no token");
    state.SetItemsProcessed(state.iterations());
}
void accept_mutex(State& state) {
    begin_threads();
    static locked_bucket b{1e15, 1e9};
    for (auto _ : state)
        if (!b.try_acquire()) state.SkipWithError("no token");
    state.SetItemsProcessed(state.iterations());
}
co::task<> awaits(State& state) {
    co::token_bucket& b = accepting();
    for (auto _ : state) co_await b.acquire();
}
co::task<> admits(State& state) {
    co::token_bucket& b = accepting();
    for (auto _ : state) {
        auto permit = co_await b.admission();
        permit.settle(co::verdict::success);
    }
}

BENCHMARK(floor)->Name("token_bucket_accept/floor_clock_and_exchange");
BENCHMARK(accept)->Name("token_bucket_accept/cordon");
BENCHMARK(in_group<&awaits>)->Name("token_bucket_accept/cordon_acquire");
BENCHMARK(in_group<&admits>)->Name("token_bucket_accept/cordon_admission");
BENCHMARK(accept_mutex)->Name("token_bucket_accept/mutex_and_double");

BENCHMARK(floor)->Name("token_bucket_accept_2_threads/floor_clock_and_exchange")->Threads(2)->UseRealTime();
BENCHMARK(accept)->Name("token_bucket_accept_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(accept_mutex)->Name("token_bucket_accept_2_threads/mutex_and_double")->Threads(2)->UseRealTime();

void floor_clock(State& state) {
    for (auto _ : state) keep(now_ns());
    state.SetItemsProcessed(state.iterations());
}
void refuse(State& state) {
    begin_threads();
    static co::token_bucket b{co::every(1h), 1};
    b.drain();
    for (auto _ : state)
        if (b.try_acquire()) state.SkipWithError("a token");
    state.SetItemsProcessed(state.iterations());
}
void refuse_mutex(State& state) {
    begin_threads();
    static locked_bucket b{1e-9, 0};
    for (auto _ : state)
        if (b.try_acquire()) state.SkipWithError("a token");
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(floor_clock)->Name("token_bucket_refuse/floor_clock");
BENCHMARK(refuse)->Name("token_bucket_refuse/cordon");
BENCHMARK(refuse_mutex)->Name("token_bucket_refuse/mutex_and_double");
BENCHMARK(floor_clock)->Name("token_bucket_refuse_2_threads/floor_clock")->Threads(2)->UseRealTime();
BENCHMARK(refuse)->Name("token_bucket_refuse_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(refuse_mutex)->Name("token_bucket_refuse_2_threads/mutex_and_double")->Threads(2)->UseRealTime();

}  // namespace
