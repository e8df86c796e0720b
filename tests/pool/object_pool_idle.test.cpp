// SPDX-License-Identifier: MIT
// How what an idle thread keeps is taken from it (N6 to N8 of <cordon/pool/detail/thread_spares.hpp>): step by step
// against what that thread may do between the steps, and as a model that is walked through in every order, with the
// store buffer that the heavy barrier is there for.
#include <cordon/pool/object_pool.hpp>

#include "catch.hpp"
#include "small_steps.hpp"

#include <array>
#include <atomic>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <thread>

#if defined(__linux__) && __has_include(<linux/seccomp.h>)
#include <cerrno>

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#endif

using small_steps::step;
using small_steps::walk;

namespace {

namespace co = cordon;
namespace detail = co::detail;

/// A depot as a pool has it, of which this thread keeps three objects and has not used them since somebody looked.
struct idle {
    explicit idle(std::size_t most = 100)
        : depot({.magazine_size = 4, .most = most, .fewest = 0, .epoch = std::chrono::hours(1), .runs_on = {},
                 .destroy = [](void* one) noexcept { delete static_cast<int*>(one); }}) {
        detail::enter_pool(detail::pools_alive, depot);
        for (int i = 0; i < 3; ++i) give(new int(i));
        CHECK_FALSE(detail::shut_idle(depot).some_are_idle);
    }
    idle(const idle&) = delete;
    idle& operator=(const idle&) = delete;
    ~idle() { end(); }

    void give(int* one) noexcept { detail::keep_spare(detail::pools_alive, &depot, depot.id, one); }
    int* take() noexcept {
        return static_cast<int*>(detail::take_spare(detail::pools_alive, &depot, depot.id));
    }
    void end() {
        if (ended) return;
        ended = true;
        detail::leave_pool(detail::pools_alive, depot);
        while (detail::magazine* const m = depot.take()) depot.destroy_all(m);
    }
    detail::pool_entry& entry() { return detail::spares_here.entries[depot.id]; }
    std::size_t kept() { return detail::count_spares(detail::pools_alive, depot).of_threads; }
    std::size_t shared() { return detail::count_spares(detail::pools_alive, depot).shared; }

    detail::object_depot depot;
    bool ended = false;
};

}  // namespace

TEST_CASE("what was not used between two looks is shared, if threads can be made to see it", "[pool][object_pool]") {
    for (const bool barrier : {true, false}) {
        idle pool;
        CHECK(detail::shut_idle(pool.depot).some_are_idle);
        CHECK(pool.kept() == 3);
        CHECK(detail::close_idle(pool.depot, barrier) == !barrier);
        CHECK(pool.kept() == (barrier ? 0 : 3));
        CHECK(pool.shared() == (barrier ? 3 : 0));
        std::unique_ptr<int> one(pool.take());
        CHECK(*one == 2);
        pool.give(one.release());
        CHECK(pool.kept() == 3);
    }
}

TEST_CASE("a thread that comes back while it is looked at keeps what it has", "[pool][object_pool]") {
    idle pool;
    SECTION("and has ended its operation") {
        CHECK(detail::shut_idle(pool.depot).some_are_idle);
        std::unique_ptr<int> one(pool.take());
        pool.give(one.release());
        CHECK_FALSE(detail::close_idle(pool.depot, true));
    }
    SECTION("and has begun one before") {
        CHECK(detail::shut_idle(pool.depot).some_are_idle);
        CHECK_FALSE(pool.entry().begin(&pool.depot));
        CHECK(detail::close_idle(pool.depot, true));
        for (int i = 0; i < 2; ++i) CHECK_FALSE(detail::shut_idle(pool.depot).some_are_idle);  // it is still under way
        pool.entry().end();
    }
    SECTION("and is looked at by another one") {
        CHECK(detail::shut_idle(pool.depot).some_are_idle);
        const auto seen = detail::shut_idle(pool.depot);
        CHECK_FALSE(seen.some_are_idle);
        CHECK(seen.others_stay);
        std::unique_ptr<int> one(pool.take());
        pool.give(one.release());
        CHECK_FALSE(detail::close_idle(pool.depot, true));
    }
    SECTION("and uses another registry's pool of the same number") {
        detail::pool_registry elsewhere;
        detail::object_depot other(pool.depot.limits());
        other.id = pool.depot.id;
        detail::keep_spare(elsewhere, &other, other.id, new int);
        std::unique_ptr<int> one(static_cast<int*>(detail::take_spare(elsewhere, &other, other.id)));
        CHECK(one != nullptr);
        CHECK(pool.entry().state.load() == detail::pool_entry::use::used);
        CHECK_FALSE(detail::shut_idle(pool.depot).some_are_idle);
    }
    CHECK(pool.kept() == 3);
    CHECK(pool.shared() == 0);
}

TEST_CASE("what a thread or a pool has let go of while it is looked at is let go of once", "[pool][object_pool]") {
    idle pool;
    CHECK(detail::shut_idle(pool.depot).some_are_idle);
    SECTION("trimmed by its thread") {
        detail::drop_own_spares(pool.depot);
        CHECK(pool.depot.destroyed() == 3);
    }
    SECTION("by the end of the pool") {
        pool.end();
        CHECK(pool.depot.destroyed() == 3);
    }
    CHECK_FALSE(detail::close_idle(pool.depot, true));
    CHECK(pool.shared() == 0);
}

TEST_CASE("a thread's array grows while it is looked at", "[pool][object_pool]") {
    idle pool;
    CHECK(detail::shut_idle(pool.depot).some_are_idle);
    std::deque<idle> more;
    while (more.size() < 9) more.emplace_back();
    CHECK_FALSE(detail::close_idle(pool.depot, true));
    CHECK(pool.shared() == 3);
}

TEST_CASE("a thread ends while it is looked at", "[pool][object_pool]") {
    idle pool;
    std::thread([&] {
        pool.give(new int(7));
        CHECK(detail::shut_idle(pool.depot).others_stay);
        CHECK_FALSE(detail::close_idle(pool.depot, true));
        CHECK(pool.shared() == 3);
        CHECK(detail::shut_idle(pool.depot).some_are_idle);
    }).join();
    CHECK_FALSE(detail::close_idle(pool.depot, true));
    CHECK(pool.shared() == 4);
}

#if defined(__linux__) && __has_include(<linux/seccomp.h>)
TEST_CASE("where the barrier is refused, idle threads keep what they have, and nobody looks any more",
          "[pool][object_pool]") {
    bool refused = false, told[3] = {};
    int said = 0;
    co::object_pool<int>::snapshot left;
    std::thread([&] {
        sock_filter code[] = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
                              BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_membarrier, 0, 1),
                              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
                              BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)};
        const sock_fprog filter{4, code};
        if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
            return;  // of this thread alone
        errno = 0;
        refused = !detail::heavy_barrier();
        said = errno;
        co::object_pool<int> pool{{.epoch = std::chrono::nanoseconds(1)}};
        { const auto a = pool.acquire(), b = pool.acquire(); }
        for (bool& more : told) more = pool.age();
        left = pool.stats();
    }).join();
    if (!refused) {
        WARN("SKIPPED: no filter of system calls");
        return;
    }
    CHECK(said == 0);
    CHECK(told[0]);
    CHECK_FALSE(told[1]);
    CHECK_FALSE(told[2]);
    CHECK(left.spare == 2);
    CHECK(left.spare_shared == 0);
}
#endif

// --- the model ------------------------------------------------------------------------------------------------------

namespace {

enum class protocol : std::int8_t {
    as_built,
    no_barrier,         // who gathers does not make the thread's writes visible
    believes_the_mark,  // ... does not look at `state` again after the barrier
    shuts_nothing,      // ... leaves `of` as it is
    marks_busy,         // ... puts its mark over whatever `state` is
    thread_asks_not,    // the thread does not look at `of`
    thread_says_not,    // the thread does not say that it is busy
    unlocked,           // the thread opens its entry without the lock
};

/// A thread that pops its spare objects without the lock where it may, each pop a read of the count and a later write,
/// and who gathers, twice. What the thread writes waits in a buffer, in order, and gets to memory at any later moment;
/// a lock and a heavy barrier empty it. A pop or a closing that is between another one's first and last step is the
/// fault.
struct looked_at {
    static constexpr int actors = 3;
    enum actor : int { owner, gatherer, memory };
    enum use : std::int8_t { used, busy, unused };
    enum place : std::int8_t { of, state, count, places };
    enum : std::int8_t { begins, asks, reads, writes, ends, opens, opened, done };         // of the thread
    enum : std::int8_t { marks, shuts, fences, looks, closes, gives_up_the_lock, rests };  // of who gathers

    struct store {
        std::int8_t where = 0, what = 0;
        auto operator<=>(const store&) const = default;
    };

    protocol variant = protocol::as_built;
    std::int8_t in_memory[places] = {1, used, 2};  // 1 in `of`: the pool
    std::array<store, 6> buffer{};
    std::int8_t buffered = 0;
    std::int8_t lock = -1;
    std::int8_t at[2] = {begins, marks};
    std::int8_t operations = 3, lookings = 4;
    std::int8_t read = 0, popped = 0, shared = 0;
    bool inside = false;    // the thread is between its read and its write of the count
    bool holds = false;     // ... has the lock for it
    const char* fault = nullptr;

    auto operator<=>(const looked_at&) const = default;

    const char* broken() const { return fault; }
    const char* unfinished() const {
        if (buffered != 0) return "a write is lost";
        return in_memory[count] + popped + shared == 2 ? nullptr : "an object is lost, or there twice";
    }
    step take(int who) {
        switch (who) {
            case owner: return step_of_owner();
            case gatherer: return step_of_gatherer();
            default:
                if (buffered == 0) return step::ended;
                drain(1);
                return step::moved;
        }
    }

private:
    void drain(int n) {
        for (; n > 0 && buffered > 0; --n) {
            in_memory[buffer[0].where] = buffer[0].what;
            for (std::size_t i = 1; i < buffer.size(); ++i) buffer[i - 1] = buffer[i];
            buffer.back() = store{};
            --buffered;
        }
    }
    void write(place where, int what) {
        if (buffered == static_cast<std::int8_t>(buffer.size())) drain(1);
        buffer[static_cast<std::size_t>(buffered++)] = {where, static_cast<std::int8_t>(what)};
    }
    std::int8_t own(place where) const {  // as the thread sees it: its own writes first
        for (int i = buffered; i-- > 0;)
            if (buffer[static_cast<std::size_t>(i)].where == where) return buffer[static_cast<std::size_t>(i)].what;
        return in_memory[where];
    }
    step go(actor who, std::int8_t to) {
        at[who] = to;
        return step::moved;
    }

    step step_of_owner() {
        switch (at[owner]) {
            case begins:
                if (operations == 0) return step::ended;
                --operations;
                if (variant != protocol::thread_says_not) write(state, busy);
                return go(owner, asks);
            case asks: return go(owner, variant == protocol::thread_asks_not || own(of) == 1 ? reads : opens);
            case opens:  // a lock is taken by an exchange, which empties the buffer
                if (variant != protocol::unlocked) {
                    if (lock != -1) return step::blocked;
                    lock = owner;
                    drain(buffered);
                }
                return go(owner, opened);
            case opened:
                write(of, 1);
                if (variant != protocol::unlocked) {
                    drain(buffered);
                    lock = -1;
                }
                return go(owner, reads);
            case reads:
                read = own(count);
                inside = true;
                return go(owner, writes);
            case writes:
                if (read > 0) {
                    write(count, read - 1);
                    ++popped;
                }
                inside = false;
                return go(owner, ends);
            case ends:
                if (variant != protocol::thread_says_not) write(state, used);
                return go(owner, begins);
            default: return step::ended;
        }
    }
    step step_of_gatherer() {
        switch (at[gatherer]) {
            case marks:  // by a compare-and-exchange
                if (lookings == 0) return step::ended;
                if (lock != -1) return step::blocked;
                --lookings;
                if (in_memory[state] == unused && in_memory[of] == 1) {
                    if (variant != protocol::shuts_nothing) in_memory[of] = 0;
                    return go(gatherer, fences);
                }
                if (in_memory[state] == used || variant == protocol::marks_busy) in_memory[state] = unused;
                return step::moved;
            case fences:
                if (variant != protocol::no_barrier) drain(buffered);
                return go(gatherer, looks);
            case looks:
                if (lock != -1) return step::blocked;
                if (variant != protocol::shuts_nothing && in_memory[of] == 1) return go(gatherer, marks);
                if (in_memory[state] != unused && variant != protocol::believes_the_mark) {
                    in_memory[of] = 1;
                    return go(gatherer, marks);
                }
                lock = gatherer;
                return go(gatherer, closes);
            case closes:
                if (inside) fault = "a thread is in the middle of what is taken from it";
                shared = static_cast<std::int8_t>(shared + in_memory[count]);
                in_memory[count] = 0;
                in_memory[of] = 0;
                lock = -1;
                return go(gatherer, marks);
            default: return step::ended;
        }
    }
};

small_steps::walked walk_through(protocol variant) {
    looked_at start;
    start.variant = variant;
    return walk(start);
}

}  // namespace

TEST_CASE("whatever the order in which a thread uses a pool and is looked at, it is not disturbed, and nothing is lost",
          "[pool][object_pool][model][PO-41]") {
    const auto seen = walk_through(protocol::as_built);
    INFO(seen.fault);
    CHECK(seen.fault.empty());
    CHECK(seen.endings > 0);
}

TEST_CASE("the model of who gathers notices what each part of it is there for", "[pool][object_pool][model]") {
    for (const protocol p : {protocol::no_barrier, protocol::believes_the_mark, protocol::shuts_nothing,
                             protocol::marks_busy, protocol::thread_asks_not, protocol::thread_says_not,
                             protocol::unlocked}) {
        CAPTURE(static_cast<int>(p));
        CHECK_FALSE(walk_through(p).fault.empty());
    }
}
