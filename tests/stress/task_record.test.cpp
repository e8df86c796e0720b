// SPDX-License-Identifier: MIT
#include <cordon/core/task_record.hpp>

#include "catch.hpp"
#include "threads.hpp"

#if CORDON_TASK_RECORDS

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <random>
#include <set>
#include <source_location>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace {

using cordon::task_info;
using cordon::detail::named_wait_label;
using cordon::detail::task_record;
using cordon::detail::wait_label;

std::source_location here(std::source_location at = std::source_location::current()) { return at; }

// One a line, so that a site's line gives its index.
const std::source_location sites[] = {
    here(),
    here(),
    here(),
    here(),
    here(),
    here(),
    here(),
    here(),
};
constexpr std::uint32_t site_count = std::size(sites);
constexpr wait_label fixed[] = {wait_label("even"), wait_label("odd")};
constexpr wait_label lock_kind{"lock"};

std::uint32_t index_of(const std::source_location& at) { return at.line() - sites[0].line(); }

// A task that changes at each step, and its group. Every field of a record follows from the others: the place of its
// spawn gives its time and its name, which also holds the parent's id; the outermost place gives the inner ones, the
// flag and the label.
class actor {
public:
    // `hand_over` is how a record comes to be closed by the other thread.
    void step(std::mt19937_64& random, std::atomic<task_record*>& hand_over) {
        if (task_ == nullptr) return open(static_cast<std::uint32_t>(random() % site_count));
        if (suspended_) {
            suspended_ = false;
            task_->running();
            return lock_.reset();
        }
        switch (random() % 8) {
        case 0: return close(hand_over);
        case 1: return task_->rename((random() % 2 == 0 ? "a much longer name of task " : "task ") + name_);
        default: return suspend(static_cast<std::uint32_t>(random() % site_count), random() % 2 == 0);
        }
    }

    void close(std::atomic<task_record*>& hand_over) {
        if (task_ == nullptr) return;
        if (suspended_) task_->running();
        suspended_ = false;
        lock_.reset();
        std::exchange(task_, nullptr)->close();
        if (task_record* const other = hand_over.exchange(group_)) other->close();
    }

private:
    void open(std::uint32_t n) {
        group_ = task_record::open(true, "group " + std::to_string(n), sites[n], nullptr, n);
        name_ = std::to_string(n) + " of " + std::to_string(group_->id());
        task_ = task_record::open(false, "task " + name_, sites[n], group_, n);
    }

    void suspend(std::uint32_t a, bool named) {
        if (named) lock_.emplace(lock_kind, std::to_string(a));
        const wait_label& label = named ? *lock_ : fixed[a % 2];
        task_->suspended(sites[a], sites[(a + 1) % site_count], sites[(a + 2) % site_count], a % 2 != 0, label);
        suspended_ = true;
    }

    task_record* group_ = nullptr;
    task_record* task_ = nullptr;
    std::string name_;
    std::optional<named_wait_label> lock_;
    bool suspended_ = false;
};

// Half of the steps hit one actor, so that a dump meets it in motion; the others are mostly at rest.
void act(std::mt19937_64& random, std::atomic<task_record*>& hand_over, const std::atomic<bool>& stop, long steps) {
    std::vector<actor> actors(64);
    while (!stop.load(std::memory_order_relaxed) && steps-- > 0) {
        const auto which = random();
        actors[which % 2 == 0 ? 0 : which / 2 % actors.size()].step(random, hand_over);
    }
    for (actor& a : actors) a.close(hand_over);
}

std::string fault_in(const task_info& info, std::uint32_t now) {
    const std::uint32_t n = index_of(info.spawned_at);
    if (n >= site_count || info.age.count() != now - n) return "spawned elsewhere or at another time";
    if (info.is_group) {
        const bool plain = info.name == "group " + std::to_string(n) && info.parent_id == 0 && info.waits.empty();
        return plain && info.state == task_info::activity::starting ? "" : "a group with another's fields";
    }
    const std::string of = "task " + std::to_string(n) + " of " + std::to_string(info.parent_id);
    if (info.name != of && info.name != "a much longer name of " + of) return "another's name or parent";
    if (info.state != task_info::activity::suspended) {
        return info.waits.empty() && info.waits_for.empty() && !info.frames_elided ? "" : "waits but is not suspended";
    }
    if (info.waits.size() != 3) return "places missing";
    const std::uint32_t a = index_of(info.waits[0]);
    if (index_of(info.waits[1]) != (a + 1) % site_count || index_of(info.waits[2]) != (a + 2) % site_count) {
        return "places of two waits";
    }
    if (info.frames_elided != (a % 2 != 0)) return "the flag of another wait";
    const bool named = info.waits_for == "lock " + std::to_string(a);
    return named || info.waits_for == (a % 2 == 0 ? "even" : "odd") ? "" : "the label of another wait";
}

struct findings {
    long entries = 0, suspended = 0, wrong = 0, twice = 0;
    std::string first;
};

// Dumps until it has seen so many entries; `others` were alive before.
findings watch(long entries, const std::set<std::uint64_t>& others) {
    constexpr std::uint32_t now = 1000;
    findings found;
    while (found.entries < entries) {
        std::set<std::uint64_t> ids;
        for (const task_info& info : cordon::detail::live_tasks(now)) {
            if (others.contains(info.id)) continue;
            ++found.entries;
            found.suspended += info.state == task_info::activity::suspended;
            found.twice += !ids.insert(info.id).second;
            const std::string fault = fault_in(info, now);
            if (!fault.empty() && found.wrong++ == 0) found.first = fault + ": " + describe(info);
        }
    }
    std::printf("%ld entries, %ld suspended\n", found.entries, found.suspended);
    return found;
}

std::set<std::uint64_t> alive() {
    std::set<std::uint64_t> ids;
    for (const task_info& info : cordon::live_tasks()) ids.insert(info.id);
    return ids;
}

}  // namespace

TEST_CASE("a dump never mixes two lives or two waits while two threads write", "[stress][core][task_record]") {
    const std::uint64_t seed = stress::fresh_seed();
    const std::set<std::uint64_t> others = alive();
    std::atomic<task_record*> hand_over{nullptr};
    std::atomic<bool> stop{false};
    const auto writer = [&](std::uint64_t own_seed) {
        std::mt19937_64 random(own_seed);
        act(random, hand_over, stop, std::numeric_limits<long>::max());
    };
    std::thread first(writer, seed), second(writer, seed + 1);
    const findings found = watch(600'000, others);
    stop = true;
    first.join();
    second.join();
    if (task_record* const last = hand_over.load()) last->close();

    INFO("seed " << seed << ", first wrong entry: " << found.first);
    CHECK(found.wrong == 0);
    CHECK(found.twice == 0);
    CHECK(found.suspended > 0);
    CHECK(alive() == others);
}

TEST_CASE("a dump stays right while threads come and go and close each other's records",
          "[stress][core][task_record]") {
    const std::uint64_t seed = stress::fresh_seed();
    const std::set<std::uint64_t> others = alive();
    std::atomic<task_record*> hand_over{nullptr};
    std::atomic<bool> stop{false};
    const auto starter = [&](std::uint64_t own_seed) {
        std::mt19937_64 random(own_seed);
        while (!stop) {
            std::thread([&] { act(random, hand_over, stop, static_cast<long>(random() % 2000)); }).join();
        }
    };
    std::thread first(starter, seed), second(starter, seed + 1);
    const findings found = watch(100'000, others);
    stop = true;
    first.join();
    second.join();
    if (task_record* const last = hand_over.load()) last->close();

    INFO("seed " << seed << ", first wrong entry: " << found.first);
    CHECK(found.wrong == 0);
    CHECK(found.twice == 0);
    CHECK(alive() == others);
}

#endif
