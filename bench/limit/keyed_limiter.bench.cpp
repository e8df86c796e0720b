// SPDX-License-Identifier: MIT
// A hundred thousand keys, asked for at random, on one thread and on two; and keys that are all new.
#include "../rows.hpp"

#include <memory>
#include <mutex>
#include <random>
#include <string>
#include <unordered_map>
#include <vector>

namespace {

using namespace bench;
using benchmark::State;

constexpr std::size_t keys = 100'000;
constexpr std::uint64_t plenty = 1'000'000;

template <class Key>
Key key_of(std::uint64_t n) {
    if constexpr (std::is_same_v<Key, std::string>)
        return "10." + std::to_string(n / 256) + "." + std::to_string(n % 256);
    else return n * 0x9E3779B97F4A7C15u;
}
/// Keys in a random order, so that no cache knows the next.
template <class Key>
const std::vector<Key>& asked() {
    static const std::vector<Key> order = [] {
        std::mt19937_64 random(1);
        std::vector<Key> v;
        for (std::size_t i = 0; i < (std::size_t{1} << 18); ++i) v.push_back(key_of<Key>(random() % keys));
        return v;
    }();
    return order;
}

void floor_clock(State& state) {
    begin_threads();
    for (auto _ : state) keep(co::clock::now());
}

template <class Key>
void keyed(State& state) {
    begin_threads();
    static co::keyed_limiter<Key> b = [] {
        return co::keyed_limiter<Key>(co::rate(plenty, std::chrono::microseconds(1)), plenty, {.max_keys = 2 * keys});
    }();
    const std::vector<Key>& order = asked<Key>();
    std::size_t i = static_cast<std::size_t>(state.thread_index()) * (order.size() / 2);
    for (auto _ : state) {
        if (!b.try_acquire(order[i])) state.SkipWithError("no token");
        i = (i + 1) & (order.size() - 1);
    }
    state.SetItemsProcessed(state.iterations());
}

/// One mutex, one table, a bucket for each key.
template <class Key>
void map_of_buckets(State& state) {
    begin_threads();
    static std::mutex mutex;
    static std::unordered_map<Key, std::unique_ptr<co::token_bucket>> map;
    const std::vector<Key>& order = asked<Key>();
    std::size_t i = static_cast<std::size_t>(state.thread_index()) * (order.size() / 2);
    for (auto _ : state) {
        {
            const std::lock_guard lock(mutex);
            auto& b = map[order[i]];
            if (b == nullptr)
                b = std::make_unique<co::token_bucket>(co::rate(plenty, std::chrono::microseconds(1)), plenty);
            if (!b->try_acquire()) state.SkipWithError("no token");
        }
        i = (i + 1) & (order.size() - 1);
    }
    state.SetItemsProcessed(state.iterations());
}

BENCHMARK(floor_clock)->Name("keyed_limiter_integers/floor_clock");
BENCHMARK(keyed<std::uint64_t>)->Name("keyed_limiter_integers/cordon");
BENCHMARK(map_of_buckets<std::uint64_t>)->Name("keyed_limiter_integers/mutex_map_token_bucket");
BENCHMARK(keyed<std::string>)->Name("keyed_limiter_strings/cordon");
BENCHMARK(map_of_buckets<std::string>)->Name("keyed_limiter_strings/mutex_map_token_bucket");
BENCHMARK(keyed<std::uint64_t>)->Name("keyed_limiter_integers_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(map_of_buckets<std::uint64_t>)
    ->Name("keyed_limiter_integers_2_threads/mutex_map_token_bucket")->Threads(2)->UseRealTime();

/// Keys that have no token left.
constexpr std::uint64_t spent = 1'000;

void keyed_refuse(State& state) {
    begin_threads();
    static co::keyed_limiter<std::uint64_t> b = [] {
        return co::keyed_limiter<std::uint64_t>(co::every(1h), 1, {.max_keys = 2 * spent});
    }();
    for (std::uint64_t key = 0; key < spent; ++key) static_cast<void>(b.try_acquire(key));
    std::uint64_t key = 0;
    for (auto _ : state) {
        if (b.try_acquire(key)) state.SkipWithError("a token");
        key = key + 1 == spent ? 0 : key + 1;
    }
    state.SetItemsProcessed(state.iterations());
}
void map_refuse(State& state) {
    begin_threads();
    static std::mutex mutex;
    static std::unordered_map<std::uint64_t, std::unique_ptr<co::token_bucket>> map;
    std::uint64_t key = 0;
    for (auto _ : state) {
        {
            const std::lock_guard lock(mutex);
            auto& b = map[key];
            if (b == nullptr) {
                b = std::make_unique<co::token_bucket>(co::every(1h), 1);
                b->drain();
            }
            if (b->try_acquire()) state.SkipWithError("a token");
        }
        key = key + 1 == spent ? 0 : key + 1;
    }
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(keyed_refuse)->Name("keyed_limiter_refuse/cordon");
BENCHMARK(map_refuse)->Name("keyed_limiter_refuse/mutex_map_token_bucket");
BENCHMARK(keyed_refuse)->Name("keyed_limiter_refuse_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(map_refuse)->Name("keyed_limiter_refuse_2_threads/mutex_map_token_bucket")->Threads(2)->UseRealTime();

/// Each takes the place of one whose bucket is full again.
void new_keys(State& state) {
    co::keyed_limiter<std::uint64_t> b{co::rate(plenty, std::chrono::microseconds(1)), 1, {.max_keys = keys}};
    std::uint64_t n = 0;
    for (auto _ : state) keep(b.try_acquire(++n));
}
/// None of them finds a place.
void made_up_keys(State& state) {
    co::keyed_limiter<std::uint64_t> b{co::every(1h), 1, {.max_keys = 1'000}};
    std::uint64_t n = 0;
    for (auto _ : state) keep(b.try_acquire(++n));
}
BENCHMARK(new_keys)->Name("keyed_limiter_new_keys/that_evict");
BENCHMARK(made_up_keys)->Name("keyed_limiter_new_keys/that_overflow");

}  // namespace
