// SPDX-License-Identifier: MIT
// Objects of 256 bytes: got and given back at once, 64 at a time, and by another thread; and what is left of a burst of
// larger ones.
#include "../ring.hpp"
#include "../rows.hpp"

#include <cordon/pool/object_pool.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include <dlfcn.h>
#include <malloc.h>

#if __has_include(<boost/pool/pool.hpp>)
#include <boost/pool/pool.hpp>
#include <boost/pool/singleton_pool.hpp>
#define HAS_BOOST_POOL 1
#endif
#if __has_include(<tbb/scalable_allocator.h>)
#include <tbb/concurrent_queue.h>
#include <tbb/scalable_allocator.h>
#define HAS_TBB 1
#endif

namespace {

using namespace bench;
using benchmark::State;

struct object {
    std::array<std::byte, 256> bytes;
};

// Each peer has a `type`, which is what one holds, `get()`, `give(held)`, and `of(held)`, a pointer to the object.

struct cordon_pool {
    using type = co::object_pool<object>::lease;
    static type get() { return pool.acquire(); }
    static void give(type&& held) noexcept { held.release(); }
    static object* of(type& held) noexcept { return &*held; }
    static inline co::object_pool<object> pool{{.max_spare_per_thread = 128}};
};
struct cordon_pool_reset : cordon_pool {
    static type get() { return pool.acquire(); }
    static inline co::object_pool<object> pool{
        {.reset = [](object& o) { o.bytes[0] = std::byte{}; }, .max_spare_per_thread = 128}};
};

template <class Derived>
struct raw {
    using type = object*;
    static object* of(type held) noexcept { return held; }
    static type made(void* memory) noexcept { return static_cast<object*>(memory); }
};
/// A chain of objects that nobody else knows.
struct listed : raw<listed> {
    static type get() {
        if (free == nullptr) return new object;
        object* const first = free;
        free = *reinterpret_cast<object**>(first);
        return first;
    }
    static void give(type held) noexcept {
        *reinterpret_cast<object**>(held) = free;
        free = held;
    }
    static inline thread_local object* free = nullptr;
};
struct new_delete : raw<new_delete> {
    static type get() { return new object; }
    static void give(type held) noexcept { delete held; }
};
struct mutex_and_vector : raw<mutex_and_vector> {
    static type get() {
        const std::lock_guard lock(mutex);
        if (free.empty()) return new object;
        object* const last = free.back();
        free.pop_back();
        return last;
    }
    static void give(type held) {
        const std::lock_guard lock(mutex);
        free.push_back(held);
    }
    static inline std::mutex mutex;
    static inline std::vector<object*> free;
};
#ifdef HAS_BOOST_POOL
struct boost_singleton_pool : raw<boost_singleton_pool> {
    using pool = boost::singleton_pool<boost_singleton_pool, sizeof(object)>;
    static type get() { return made(pool::malloc()); }
    static void give(type held) noexcept { pool::free(held); }
};
struct boost_pool_one_thread : raw<boost_pool_one_thread> {
    static type get() { return made(pool.malloc()); }
    static void give(type held) noexcept { pool.free(held); }
    static inline boost::pool<> pool{sizeof(object)};
};
#endif
#ifdef HAS_TBB
struct tbb_queue : raw<tbb_queue> {
    static type get() {
        object* o = nullptr;
        return queue.try_pop(o) ? o : new object;
    }
    static void give(type held) { queue.push(held); }
    static inline tbb::concurrent_queue<object*> queue;
};
struct tbb_malloc : raw<tbb_malloc> {
    static type get() { return made(scalable_malloc(sizeof(object))); }
    static void give(type held) noexcept { scalable_free(held); }
};
#endif
/// Loaded, for what links it as Debian built it has its malloc everywhere, and `new_delete` would be the same.
struct mimalloc : raw<mimalloc> {
    static type get() { return made(malloc(sizeof(object))); }
    static void give(type held) noexcept { free(held); }
    static inline void* const library = ::dlopen("libmimalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    template <class Function>
    static Function* loaded(const char* name) {
        return library == nullptr ? nullptr : reinterpret_cast<Function*>(::dlsym(library, name));
    }
    static inline auto* const malloc = loaded<void*(std::size_t)>("mi_malloc");
    static inline auto* const free = loaded<void(void*)>("mi_free");
};

template <class Pool>
void pair(State& state) {
    begin_threads();
    for (auto _ : state) {
        auto held = Pool::get();
        keep(Pool::of(held));
        Pool::give(std::move(held));
    }
}
template <class Pool>
void batch(State& state) {
    begin_threads();
    std::array<typename Pool::type, 64> held{};
    for (auto _ : state) {
        for (auto& h : held) h = Pool::get();
        keep(held.data());
        for (auto& h : held) Pool::give(std::move(h));
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(held.size()));
}
/// `used`: so that peers that keep their lists inside the objects do not pay alone for bringing them over.
template <class Pool, bool used = false>
void across(State& state) {
    static ring<typename Pool::type> passed;
    if (state.thread_index() == 0) {
        benchmark::IterationCount left = state.max_iterations;
        for (auto _ : state) {
            auto held = Pool::get();
            if constexpr (used) Pool::of(held)->bytes[0] = std::byte{1};
            passed.send(std::move(held), --left == 0);
        }
        state.SetItemsProcessed(state.iterations());
    } else {
        for (auto _ : state) {
            auto held = passed.receive();
            if constexpr (used) keep(Pool::of(held)->bytes[0]);
            Pool::give(std::move(held));
        }
    }
}
/// The ring alone.
struct nothing : raw<nothing> {
    static type get() noexcept { return &somewhere; }
    static void give(type held) noexcept { keep(held); }
    static inline object somewhere;
};
/// The ring with what is as large as a lease, moves like one, and gives nothing back.
struct nothing_leased {
    class type {
    public:
        type() noexcept = default;
        type(object* one, const void* of) noexcept : object_(one), of_(of) {}
        type(type&& other) noexcept : object_(std::exchange(other.object_, nullptr)), of_(other.of_) {}
        type& operator=(type&& other) noexcept {
            release();
            object_ = std::exchange(other.object_, nullptr);
            of_ = other.of_;
            return *this;
        }
        ~type() { release(); }
        void release() noexcept {
            if (object_ != nullptr) keep(std::exchange(object_, nullptr));
        }

    private:
        object* object_ = nullptr;
        const void* of_ = nullptr;
    };
    static type get() noexcept { return {&nothing::somewhere, &nothing::somewhere}; }
    static void give(type&& held) noexcept { held.release(); }
};

void two_pools(State& state) {
    begin_threads();
    for (auto _ : state) {
        auto a = cordon_pool::get();
        keep(&*a);
        a.release();
        auto b = cordon_pool_reset::pool.acquire();
        keep(&*b);
        b.release();
    }
    state.SetItemsProcessed(2 * state.iterations());
}

// --- what is left of a burst --------------------------------------------------------------------------------------

struct large {
    std::array<std::byte, 4096> bytes;
};
struct burst_of_cordon {
    using type = co::object_pool<large>::lease;
    type get() { return pool.acquire(); }
    void give(type&& held) noexcept { held.release(); }
    void rest() {
        for (int i = 0; i < 3; ++i) {
            pool.age();
            std::this_thread::sleep_for(2ms);  // two epochs, as the clock sees it
        }
    }
    co::object_pool<large> pool{{.max_spare_per_thread = 128, .max_spare_shared = 100'000, .epoch = 1ms}};
};
struct burst_of_new {
    using type = large*;
    type get() { return new large; }
    void give(type held) noexcept { delete held; }
    void rest() {}
};
struct burst_of_vector {
    using type = large*;
    ~burst_of_vector() {
        for (large* const one : free) delete one;
    }
    type get() {
        const std::lock_guard lock(mutex);
        if (free.empty()) return new large;
        large* const last = free.back();
        free.pop_back();
        return last;
    }
    void give(type held) {
        const std::lock_guard lock(mutex);
        free.push_back(held);
    }
    void rest() {}
    std::mutex mutex;
    std::vector<large*> free;
};

template <class Pool>
void burst(State& state) {
    constexpr std::size_t count = 10'000;
    std::vector<typename Pool::type> held(count);
    for (auto _ : state) {
        ::malloc_trim(0);
        const double before = resident_bytes();
        Pool pool;
        stopwatch watch(state);
        for (auto& h : held) {
            h = pool.get();
            h->bytes.fill(std::byte{1});
        }
        for (auto& h : held) pool.give(std::move(h));
        watch.stop();
        pool.rest();
        ::malloc_trim(0);
        state.counters["bytes"] = (resident_bytes() - before) / count;
    }
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(count));
}
BENCHMARK(burst<burst_of_cordon>)->Name("object_burst/cordon")->UseManualTime();
BENCHMARK(burst<burst_of_new>)->Name("object_burst/new")->UseManualTime();
BENCHMARK(burst<burst_of_vector>)->Name("object_burst/mutex_and_vector")->UseManualTime();

// --- rows -----------------------------------------------------------------------------------------------------------

BENCHMARK(pair<listed>)->Name("object_pair/floor");
BENCHMARK(pair<cordon_pool>)->Name("object_pair/cordon");
BENCHMARK(pair<cordon_pool_reset>)->Name("object_pair/cordon_reset");
BENCHMARK(two_pools)->Name("object_pair/cordon_two_pools");
BENCHMARK(pair<new_delete>)->Name("object_pair/new");
BENCHMARK(pair<mutex_and_vector>)->Name("object_pair/mutex_and_vector");

BENCHMARK(pair<listed>)->Name("object_pair_2_threads/floor")->Threads(2)->UseRealTime();
BENCHMARK(pair<cordon_pool>)->Name("object_pair_2_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(pair<new_delete>)->Name("object_pair_2_threads/new")->Threads(2)->UseRealTime();
BENCHMARK(pair<mutex_and_vector>)->Name("object_pair_2_threads/mutex_and_vector")->Threads(2)->UseRealTime();

BENCHMARK(batch<listed>)->Name("object_64/floor");
BENCHMARK(batch<cordon_pool>)->Name("object_64/cordon");
BENCHMARK(batch<new_delete>)->Name("object_64/new");
BENCHMARK(batch<mutex_and_vector>)->Name("object_64/mutex_and_vector");

BENCHMARK(across<nothing>)->Name("object_across_threads/floor")->Threads(2)->UseRealTime();
BENCHMARK(across<nothing_leased>)->Name("object_across_threads/floor_of_leases")->Threads(2)->UseRealTime();
BENCHMARK(across<cordon_pool>)->Name("object_across_threads/cordon")->Threads(2)->UseRealTime();
BENCHMARK(across<cordon_pool, true>)->Name("object_across_threads_used/cordon")->Threads(2)->UseRealTime();
BENCHMARK(across<new_delete, true>)->Name("object_across_threads_used/new")->Threads(2)->UseRealTime();
BENCHMARK(across<new_delete>)->Name("object_across_threads/new")->Threads(2)->UseRealTime();
BENCHMARK(across<mutex_and_vector>)->Name("object_across_threads/mutex_and_vector")->Threads(2)->UseRealTime();

[[maybe_unused]] const bool has_mimalloc = [] {
    if (mimalloc::malloc == nullptr || mimalloc::free == nullptr) return false;
    benchmark::RegisterBenchmark("object_pair/mimalloc", pair<mimalloc>);
    benchmark::RegisterBenchmark("object_pair_2_threads/mimalloc", pair<mimalloc>)->Threads(2)->UseRealTime();
    benchmark::RegisterBenchmark("object_64/mimalloc", batch<mimalloc>);
    benchmark::RegisterBenchmark("object_across_threads/mimalloc", across<mimalloc>)->Threads(2)->UseRealTime();
    benchmark::RegisterBenchmark("object_across_threads_used/mimalloc", across<mimalloc, true>)
        ->Threads(2)->UseRealTime();
    return true;
}();
#ifdef HAS_BOOST_POOL
BENCHMARK(pair<boost_pool_one_thread>)->Name("object_pair/boost_pool_without_locks");
BENCHMARK(pair<boost_singleton_pool>)->Name("object_pair/boost_singleton_pool");
BENCHMARK(pair<boost_singleton_pool>)->Name("object_pair_2_threads/boost_singleton_pool")->Threads(2)->UseRealTime();
BENCHMARK(batch<boost_singleton_pool>)->Name("object_64/boost_singleton_pool");
BENCHMARK(across<boost_singleton_pool>)->Name("object_across_threads/boost_singleton_pool")->Threads(2)->UseRealTime();
#endif
#ifdef HAS_TBB
BENCHMARK(pair<tbb_queue>)->Name("object_pair/tbb_concurrent_queue");
BENCHMARK(pair<tbb_malloc>)->Name("object_pair/tbb_malloc");
BENCHMARK(pair<tbb_queue>)->Name("object_pair_2_threads/tbb_concurrent_queue")->Threads(2)->UseRealTime();
BENCHMARK(pair<tbb_malloc>)->Name("object_pair_2_threads/tbb_malloc")->Threads(2)->UseRealTime();
BENCHMARK(batch<tbb_queue>)->Name("object_64/tbb_concurrent_queue");
BENCHMARK(batch<tbb_malloc>)->Name("object_64/tbb_malloc");
BENCHMARK(across<tbb_queue>)->Name("object_across_threads/tbb_concurrent_queue")->Threads(2)->UseRealTime();
BENCHMARK(across<tbb_malloc>)->Name("object_across_threads/tbb_malloc")->Threads(2)->UseRealTime();
BENCHMARK(across<tbb_malloc, true>)->Name("object_across_threads_used/tbb_malloc")->Threads(2)->UseRealTime();
#endif

}  // namespace
