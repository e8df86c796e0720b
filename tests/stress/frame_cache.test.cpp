// SPDX-License-Identifier: MIT
#include <cordon/core/detail/frame_cache.hpp>

#include "catch.hpp"
#include "threads.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <memory>
#include <random>
#include <thread>
#include <vector>

namespace detail = cordon::detail;

namespace {

// One producer, one consumer, a window of frames in flight.
class ring {
public:
    void push(void* p) {
        const auto at = tail_.load(std::memory_order_relaxed);
        while (at - head_.load(std::memory_order_acquire) == slots_.size()) std::this_thread::yield();
        slots_[at % slots_.size()] = p;
        tail_.store(at + 1, std::memory_order_release);
    }
    void* pop() {
        const auto at = head_.load(std::memory_order_relaxed);
        while (at == tail_.load(std::memory_order_acquire)) std::this_thread::yield();
        void* const p = slots_[at % slots_.size()];
        head_.store(at + 1, std::memory_order_release);
        return p;
    }

private:
    std::array<void*, 1024> slots_{};
    alignas(64) std::atomic<std::size_t> head_{0};
    alignas(64) std::atomic<std::size_t> tail_{0};
};

// Frees frames after the thread's cache is gone: constructed before it, hence destroyed after it.
struct late_owner {
    std::vector<void*> frames;
    ~late_owner() {
        for (void* const f : frames) detail::deallocate_frame(f, 200);
        detail::deallocate_frame(detail::allocate_frame(200), 200);
    }
};

}  // namespace

TEST_CASE("memory stays flat when one thread allocates and another frees", "[stress][core][frame_cache]") {
    constexpr int frames = 2'000'000;
    constexpr std::size_t size = 184;  // that of its class
    const std::size_t lay_there = detail::frame_depot_bytes();
    const auto transfer = [](int count) {
        const auto pipe = std::make_unique<ring>();
        std::thread consumer([&] {
            for (int i = 0; i < count; ++i) detail::deallocate_frame(pipe->pop(), size);
        });
        std::thread producer([&] {
            for (int i = 0; i < count; ++i) {
                void* const f = detail::allocate_frame(size);
                std::memset(f, i & 0xff, size);
                pipe->push(f);
            }
        });
        producer.join();
        consumer.join();
    };
    transfer(100'000);  // whatever is set up once
    const std::size_t before = stress::resident();
    transfer(frames);
    const std::size_t after = stress::resident();
#if CORDON_FRAME_CACHE  // without it, the allocator's own habits would be measured, such as a sanitizer's quarantine
    // A leak of every tenth frame would be 35 MB.
    CHECK(after < before + (std::size_t{16} << 20));
#else
    static_cast<void>(after - before);
#endif
    // In flight: the ring, and two chains in each of the two threads. What is more than that was not reused.
    CHECK(detail::frame_depot_bytes() <= lay_there + 2 * (1024 + 4 * 64) * size);
}

TEST_CASE("a thread that ends takes nothing with it", "[stress][core][frame_cache]") {
    const auto briefly = [](int threads) {
        for (int i = 0; i < threads; ++i) {
            std::thread([] {
                std::array<void*, 60> frames{};  // less than a chain, which the depot would take
                for (void*& f : frames) f = std::memset(detail::allocate_frame(1024), 1, 1024);
                for (void* const f : frames) detail::deallocate_frame(f, 1024);
            }).join();
        }
    };
    briefly(50);
    const std::size_t before = stress::resident();
    briefly(600);  // 36 MB, if all of it were lost
    const std::size_t after = stress::resident();
#if CORDON_FRAME_CACHE
    CHECK(after < before + (std::size_t{16} << 20));
#else
    static_cast<void>(after - before);
#endif
}

TEST_CASE("threads that come and go pass frames to each other", "[stress][core][frame_cache]") {
    const std::uint64_t seed = stress::fresh_seed();
    std::mt19937_64 random(seed);
    std::atomic<int> wrong{0};
    std::atomic<bool> stop{false};
    std::thread ager([&] {
        auto now = std::chrono::steady_clock::now() + std::chrono::hours(100'000);
        while (!stop) {
            detail::age_frame_depot(now += std::chrono::seconds(1));
            detail::age_frame_depot(now);
            std::this_thread::yield();
        }
    });
    struct held {
        void* frame;
        std::size_t size;
        unsigned char fill;
    };
    std::vector<held> mailbox;  // what the threads of one round leave for those of the next
    for (int round = 0; round < 60; ++round) {
        std::vector<std::vector<held>> left(3);
        std::vector<std::thread> threads;
        for (std::size_t n = 0; n < left.size(); ++n) {
            std::vector<held> inherited;
            for (std::size_t i = n; i < mailbox.size(); i += left.size()) inherited.push_back(mailbox[i]);
            threads.emplace_back([&wrong, &out = left[n], inherited = std::move(inherited), own = random()]() mutable {
                static thread_local late_owner late;
                std::mt19937_64 r(own);
                late.frames.reserve(100);
                const auto release = [&](const held& h) {
                    const auto* const bytes = static_cast<const unsigned char*>(h.frame);
                    if (bytes[0] != h.fill || bytes[h.size - 1] != h.fill) wrong.fetch_add(1);
                    detail::deallocate_frame(h.frame, h.size);
                };
                for (const held& h : inherited) release(h);  // some threads only ever free
                if (r() % 4 == 0) return;
                for (int i = 0; i < 4000; ++i) {
                    if (out.size() < 700 && r() % 3 != 0) {
                        const std::size_t size = 150 + r() % 3 * 16;
                        void* const f = detail::allocate_frame(size);
                        const auto fill = static_cast<unsigned char>(r());
                        std::memset(f, fill, size);
                        out.push_back({f, size, fill});
                    } else if (!out.empty()) {
                        release(out.back());
                        out.pop_back();
                    }
                }
                for (int i = 0; i < 100; ++i) late.frames.push_back(detail::allocate_frame(200));
            });
        }
        for (std::thread& t : threads) t.join();
        mailbox.clear();
        for (const auto& l : left) mailbox.insert(mailbox.end(), l.begin(), l.end());
    }
    for (const held& h : mailbox) detail::deallocate_frame(h.frame, h.size);
    stop = true;
    ager.join();
    CHECK(wrong == 0);
    CHECK(detail::frame_depot_bytes() <= detail::frame_depot_limit);
}
