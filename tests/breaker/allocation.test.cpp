// SPDX-License-Identifier: MIT
// A breaker allocates when it is made and when somebody begins to listen, and never again.
#include <cordon/breaker/circuit_breaker.hpp>

#include "catch.hpp"
#include "play.hpp"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer)
#define SANITIZED 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#endif

#ifdef SANITIZED

TEST_CASE("under a sanitizer a breaker's allocations are not counted", "[breaker][allocation]") {
    WARN("SKIPPED: a sanitizer has an operator new of its own");
}

#else

namespace {
std::atomic<std::size_t> allocations{0};

void* counted(std::size_t size, std::size_t alignment) {
    allocations.fetch_add(1, std::memory_order_relaxed);
    const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
    if (void* p = std::aligned_alloc(alignment, rounded == 0 ? alignment : rounded)) return p;
    throw std::bad_alloc();
}
}  // namespace

// The array forms and those that do not throw call these. Not inlined: g++ 12 would find a free() of what another
// operator new gave.
[[gnu::noinline]] void* operator new(std::size_t size) { return counted(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
[[gnu::noinline]] void* operator new(std::size_t size, std::align_val_t alignment) {
    return counted(size, static_cast<std::size_t>(alignment));
}
[[gnu::noinline]] void operator delete(void* p) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
[[gnu::noinline]] void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace {

using namespace breaker_test;

/// A whole life: closed, open, half-open, closed again, and all that can be done by hand.
void live(circuit_breaker& b, hand_clock& clock) {
    play(b, "SFXCSFFFFFFFF");
    if (refusal(b)->retry_after <= 0s) FAIL("not open");
    clock += 1h;
    play(b, "F");
    clock += 1h;
    auto late = b.try_acquire();
    play(b, "SS");
    late.succeeded();
    b.force_open();
    b.disable();
    b.metrics_only();
    play(b, "FFFFFFFFFF");
    b.restore(b.export_state());
    b.open_until(clock.now());
    (void)b.stats();
    b.reset();
}

}  // namespace

TEST_CASE("a breaker that lives through all its states allocates nothing", "[breaker][allocation]") {
    hand_clock clock;
    const bool of_time = GENERATE(false, true);
    const auto fixed_time = [](const co::breaker_trip& t) { return t.attempt == 0 ? 5s : 10s; };
    circuit_breaker b({.name = "a name that is longer than any string keeps inside of itself",
                       .window = of_time ? co::last(10s) : co::last_calls(10),
                       .min_calls = 5,
                       .consecutive_failures = 8,
                       .slow_call = 1s,
                       .open_for = fixed_time,
                       .half_open_calls = 3});
    std::size_t told = 0;
    const auto listens = b.on_event([&](const co::breaker_event&) { ++told; });
    live(b, clock);
    const std::size_t before = allocations.load(), told_before = told;
    REQUIRE(before > 0);
    for (int i = 0; i < 10; ++i) live(b, clock);
    const std::size_t after = allocations.load();
    CHECK(told > told_before + 50);
    CHECK(after == before);
}

#endif
