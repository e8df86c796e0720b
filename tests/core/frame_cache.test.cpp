// SPDX-License-Identifier: MIT
#include <cordon/core/detail/frame_cache.hpp>

#include "catch.hpp"

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

namespace detail = cordon::detail;
using std::chrono_literals::operator""s;

namespace {

// A fresh thread for each part: what this thread's cache holds is then known.
template <class F>
void on_a_thread(F f) {
    std::thread(f).join();
}

// Several epochs, as far as the depot can tell, with nobody using it.
void age_until_empty() {
    static auto now = std::chrono::steady_clock::now() + std::chrono::hours(1);
    while (detail::age_frame_depot(now)) now += 1s;
}

std::vector<void*> allocate(std::size_t count, std::size_t size) {
    std::vector<void*> frames;
    for (std::size_t i = 0; i < count; ++i) frames.push_back(detail::allocate_frame(size));
    return frames;
}

void deallocate(const std::vector<void*>& frames, std::size_t size) {
    for (void* const f : frames) detail::deallocate_frame(f, size);
}

}  // namespace

TEST_CASE("a frame of any size is aligned, whole and its own", "[core][frame_cache]") {
    int wrong = 0;
    on_a_thread([&] {
        struct held {
            void* frame;
            std::size_t size;
            int fill;
        };
        std::mt19937 random(7);
        std::vector<held> live;
        for (int i = 0; i < 20'000; ++i) {
            if (live.size() < 300 && random() % 2 == 0) {
                const std::size_t size = random() % 8 == 0 ? random() % 5000 : 1 + random() % 1100;
                void* const f = detail::allocate_frame(size);
                if (reinterpret_cast<std::uintptr_t>(f) % __STDCPP_DEFAULT_NEW_ALIGNMENT__ != 0) ++wrong;
                std::memset(f, i & 0xff, size);
                live.push_back({f, size, i & 0xff});
            } else if (!live.empty()) {
                std::swap(live[random() % live.size()], live.back());
                const auto [frame, size, fill] = live.back();
                const auto* const bytes = static_cast<const unsigned char*>(frame);
                for (std::size_t n = 0; n < size; ++n) wrong += bytes[n] != fill;
                detail::deallocate_frame(frame, size);
                live.pop_back();
            }
        }
        for (const held& h : live) detail::deallocate_frame(h.frame, h.size);
    });
    CHECK(wrong == 0);
}

TEST_CASE("frames larger than two kilobytes and of size zero pass through", "[core][frame_cache]") {
    for (const std::size_t size : {std::size_t{0}, std::size_t{2056}, std::size_t{2057}, std::size_t{1} << 20}) {
        deallocate(allocate(200, size), size);
    }
    STATIC_REQUIRE(detail::frame_class(9) == 0);
    STATIC_REQUIRE(detail::frame_class(24) == 0);
    STATIC_REQUIRE(detail::frame_class(25) == 1);
    STATIC_REQUIRE(detail::frame_class(2056) == detail::frame_classes - 1);
    STATIC_REQUIRE(detail::frame_class(2057) >= detail::frame_classes);
    for (std::size_t size = 0; size <= 5000; ++size) {
        const std::size_t index = detail::frame_class(size);
        if (size <= 8) CHECK(index >= detail::frame_classes);
        if (detail::frame_size(index) < size || detail::frame_size(index) > size + 15) CHECK(size == 0);
    }
}

#if CORDON_FRAME_CACHE

TEST_CASE("a frame that was freed is the next of its size class", "[core][frame_cache]") {
    void* const a = detail::allocate_frame(100);
    detail::deallocate_frame(a, 100);
    void* const b = detail::allocate_frame(104);
    CHECK(a == b);
    void* const c = detail::allocate_frame(88);
    CHECK(c != b);
    detail::deallocate_frame(b, 104);
    detail::deallocate_frame(c, 88);
}

TEST_CASE("a thread keeps two chains, the depot gets the rest and another thread takes it", "[core][frame_cache]") {
    age_until_empty();
    constexpr std::size_t size = 728;
    std::set<void*> all;
    std::size_t depot_after_128 = 1, depot_after_129 = 0, reused = 0, depot_at_exit = 0;
    on_a_thread([&] {
        auto frames = allocate(64 * 6, size);
        all.insert(frames.begin(), frames.end());
        for (std::size_t i = 0; i < frames.size(); ++i) {
            detail::deallocate_frame(frames[i], size);
            if (i + 1 == 128) depot_after_128 = detail::frame_depot_bytes();
            if (i + 1 == 129) depot_after_129 = detail::frame_depot_bytes();
        }
    });
    depot_at_exit = detail::frame_depot_bytes();
    CHECK(all.size() == 64 * 6);
    CHECK(depot_after_128 == 0);
    CHECK(depot_after_129 == 64 * 728);
    CHECK(depot_at_exit == 64 * 6 * 728);  // a thread that ends leaves its full chains
    for (int heir = 0; heir < 3; ++heir) {
        std::size_t depot_when_taken = 1;
        reused = 0;
        on_a_thread([&] {
            const auto frames = allocate(64 * 6, size);
            for (void* const f : frames) reused += all.count(f);
            depot_when_taken = detail::frame_depot_bytes();
            deallocate(frames, size);
        });
        CHECK(depot_when_taken == 0);
        CHECK(reused == 64 * 6);
        CHECK(detail::frame_depot_bytes() == 64 * 6 * 728);
    }
    age_until_empty();
}

namespace {

// Constructed before the thread's cache, hence destroyed after it.
struct late_owner {
    std::vector<void*> frames;
    ~late_owner() {
        deallocate(frames, 304);
        deallocate(allocate(1, 304), 304);
    }
};

}  // namespace

TEST_CASE("frames that are freed after their thread's cache is gone are not kept", "[core][frame_cache]") {
    age_until_empty();
    std::size_t at_the_end = 1;
    on_a_thread([&] {
        static thread_local late_owner late;
        late.frames.reserve(64 * 6);
        late.frames = allocate(64 * 6, 304);
        at_the_end = detail::frame_depot_bytes();
    });
    CHECK(at_the_end == 0);
    CHECK(detail::frame_depot_bytes() == 0);
}

TEST_CASE("the depot gives back what lay unused for an epoch, and only that", "[core][frame_cache]") {
    age_until_empty();
    constexpr std::size_t size = 520;
    constexpr std::size_t chain = 64 * size;
    auto now = std::chrono::steady_clock::now() + std::chrono::hours(10'000);
    const auto leave = [](std::size_t chains) {
        on_a_thread([=] { deallocate(allocate(64 * chains, size), size); });
    };
    leave(10);
    CHECK(detail::frame_depot_bytes() == 10 * chain);
    CHECK(detail::age_frame_depot(now));  // an epoch begins: nothing has lain here for one yet
    CHECK(detail::frame_depot_bytes() == 10 * chain);

    leave(4);  // needs 4 of the 10 for a moment
    CHECK(detail::age_frame_depot(now + 1s - std::chrono::nanoseconds(1)));
    CHECK(detail::frame_depot_bytes() == 10 * chain);
    now += 1s;
    CHECK(detail::age_frame_depot(now));
    CHECK(detail::frame_depot_bytes() == 4 * chain);

    now += 1s;
    CHECK_FALSE(detail::age_frame_depot(now));
    CHECK(detail::frame_depot_bytes() == 0);
    CHECK_FALSE(detail::age_frame_depot());
}

TEST_CASE("a call gives back a bounded amount and the next one goes on", "[core][frame_cache]") {
    age_until_empty();
    auto now = std::chrono::steady_clock::now() + std::chrono::hours(20'000);
    constexpr std::size_t size = 1032;
    constexpr std::size_t chain = 64 * size;
    on_a_thread([] { deallocate(allocate(64 * 48, size), size); });  // a little more than 3 MiB
    CHECK(detail::age_frame_depot(now));
    now += 1s;
    CHECK(detail::age_frame_depot(now));
    CHECK(detail::frame_depot_bytes() == 32 * chain);
    CHECK(detail::age_frame_depot(now));
    CHECK(detail::frame_depot_bytes() == 16 * chain);
    detail::age_frame_depot(now);
    CHECK(detail::frame_depot_bytes() == 0);
}

TEST_CASE("the depot is bounded", "[core][frame_cache]") {
    age_until_empty();
    constexpr std::size_t wanted = detail::frame_depot_limit + (std::size_t{4} << 20);
    constexpr std::size_t size = 1032;
    std::size_t most = 0;
    on_a_thread([&] {
        const auto frames = allocate(wanted / size, size);
        for (void* const f : frames) {
            detail::deallocate_frame(f, size);
            most = std::max(most, detail::frame_depot_bytes());
        }
    });
    CHECK(most == detail::frame_depot_limit / (64 * size) * (64 * size));
    age_until_empty();
    CHECK(detail::frame_depot_bytes() == 0);
}

#else

TEST_CASE("without the cache there is no depot", "[core][frame_cache]") {
    deallocate(allocate(1000, 100), 100);
    CHECK(detail::frame_depot_bytes() == 0);
    CHECK_FALSE(detail::age_frame_depot());
    age_until_empty();
}

#endif
