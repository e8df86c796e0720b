// SPDX-License-Identifier: MIT
// Six classic ways to leave a task behind, each beside its fixed twin: of a leak the report names where it was spawned,
// where it waits and for what; of the twin it says nothing. L-numbers: rows of docs/conformance.md.
#include <cordon/core/task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/task_group.hpp>
#include <cordon/scope/with_group.hpp>
#include <cordon/sync/async_event.hpp>
#include <cordon/sync/async_semaphore.hpp>
#include <cordon/sync/completion.hpp>
#include <cordon/testing/leak_check.hpp>

#include "catch.hpp"

#include <cstddef>
#include <memory>
#include <source_location>
#include <string>
#include <string_view>
#include <utility>

#if CORDON_TASK_RECORDS

namespace {

namespace co = cordon;
using co::task;

/// Who is left when all have gone as far as they can.
class finding {
public:
    finding(std::string report, std::size_t tasks) : report_(std::move(report)), tasks_(tasks) {}
    std::size_t tasks() const { return tasks_; }
    const std::string& report() const { return report_; }
    /// Whether somebody was spawned in `spawner`, and waits in `waiter` for `what`.
    bool names(std::string_view spawner, std::string_view waiter, std::string_view what) const {
        const std::string waits = " in " + std::string(waiter) + "   " + std::string(what) + '\n';
        return report_.find("spawned at leak_corpus.test.cpp:") != std::string::npos &&
               report_.find(" in " + std::string(spawner) + '\n') != std::string::npos &&
               report_.find("waits at leak_corpus.test.cpp:") != std::string::npos &&
               report_.find(waits) != std::string::npos;
    }

private:
    std::string report_;
    std::size_t tasks_;
};

/// Runs `pattern(group)` and all it spawns, and looks; then stops what is left.
template <class Pattern>
finding look_at(Pattern pattern) {
    co::run_loop loop;
    co::task_group group{loop};
    const co::testing::leak_check check(group);
    pattern(group);
    while (loop.poll()) {}
    finding found(check.report(), check.live_tasks());
    group.request_stop();
    while (loop.poll()) {}
    co::sync_wait(group.join());
    return found;
}

/// A place for one item, and who has none waits: the least of a channel.
struct mailbox {
    explicit mailbox(std::size_t room) : room_(room, {.name = "room"}) {}
    task<> send() {
        co_await room_.acquire();
        items_.release();
    }
    task<> receive() {
        co_await items_.acquire();
        room_.release();
    }

private:
    co::async_semaphore room_, items_{0, {.name = "items"}};
};

// 1: two send, one receives

task<> sends(mailbox& box) { co_await box.send(); }
task<> receives(mailbox& box) { co_await box.receive(); }

void double_send(co::task_group& group, mailbox& box, int sends_of_two) {
    group.spawn(sends(box));
    group.spawn(sends(box));
    if (sends_of_two == 2) group.spawn(sends(box));
    group.spawn(receives(box));
}

// 2: who should send has returned early

task<> forgets_to_send(mailbox& box, bool has_failed) {
    if (has_failed) co_return;
    co_await box.send();
}
task<> sends_always(mailbox& box, bool) { co_await box.send(); }

template <class Sender>
void forgotten_sender(co::task_group& group, mailbox& box, Sender sender) {
    group.spawn(receives(box));
    group.spawn(sender(box, true));
}

// 3: an early return before the stop of a helper

task<> heartbeat(co::async_event& tick) {
    while (true) {
        co_await tick.wait();
        tick.reset();
    }
}
task<> early_return(co::task_group& helpers, co::async_event& tick, bool has_failed) {
    helpers.spawn(heartbeat(tick));
    if (has_failed) co_return;
    helpers.request_stop();
}
task<> stops_in_any_case(co::task_group&, co::async_event& tick, bool has_failed) {
    const auto body = [&](co::task_group& helpers) -> task<> {
        helpers.spawn(heartbeat(tick));
        if (!has_failed) co_return;
        helpers.request_stop();
    };
    co_await co::with_group(body);
}

// 4: who holds a permit ends without giving it back

task<> works(co::async_semaphore& slots) {
    co_await slots.acquire();
    slots.release();
}
task<> keeps_permit(co::async_semaphore& slots) { co_await slots.acquire(); }
struct give_back {
    void operator()(co::async_semaphore* slots) const noexcept { slots->release(); }
};
task<> holds_permit_in_a_block(co::async_semaphore& slots) {
    co_await slots.acquire();
    const std::unique_ptr<co::async_semaphore, give_back> held(&slots);
}

template <class Holder>
void holder_gone(co::task_group& group, co::async_semaphore& slots, Holder holder) {
    group.spawn(holder(slots));
    group.spawn(works(slots));
}

// 5: a callback that is never called, so that nobody sets the result

task<> awaits_callback(co::completion<int>& result) { (void)co_await result.wait(); }

void callback_lost(co::task_group& group, co::completion<int>& result, bool library_has_failed, bool tells) {
    group.spawn(awaits_callback(result));
    if (!library_has_failed) result.set_value(7);
    else if (tells) result.set_stopped();
}

// 6: a join that waits for a child which waits for what happens after the join

task<> waits_for_close(co::async_event& closed) { co_await closed.wait(); }
task<> joins_then_closes(co::async_event& closed) {
    const auto body = [&](co::task_group& workers) -> task<> {
        workers.spawn(waits_for_close(closed), {.name = "worker"});
        co_return;
    };
    co_await co::with_group({.name = "workers"}, body);
    closed.set();
}
task<> closes_then_joins(co::async_event& closed) {
    const auto body = [&](co::task_group& workers) -> task<> {
        workers.spawn(waits_for_close(closed), {.name = "worker"});
        closed.set();
        co_return;
    };
    co_await co::with_group({.name = "workers"}, body);
}

template <class Owner>
void stuck_join(co::task_group& group, co::async_event& closed, Owner owner) {
    group.spawn(owner(closed), {.name = "owner"});
}

}  // namespace

TEST_CASE("corpus: of two sends and one receive the second sender is left, unless there is room",
          "[observe][leak_corpus][L-001]") {
    mailbox one(0), two(1);
    const finding leak = look_at([&](co::task_group& g) { double_send(g, two, 2); });
    INFO(leak.report());
    CHECK(leak.tasks() == 1);
    CHECK(leak.names("double_send", "send", "semaphore room, held by 1"));
    mailbox roomy(2);
    CHECK(look_at([&](co::task_group& g) { double_send(g, roomy, 1); }).report().empty());
}

TEST_CASE("corpus: a receiver whose sender returned early is left, unless every path sends",
          "[observe][leak_corpus][L-001]") {
    mailbox box(1), fixed(1);
    const finding leak = look_at([&](co::task_group& g) { forgotten_sender(g, box, forgets_to_send); });
    INFO(leak.report());
    CHECK(leak.tasks() == 1);
    CHECK(leak.names("forgotten_sender", "receive", "semaphore items"));
    CHECK(look_at([&](co::task_group& g) { forgotten_sender(g, fixed, sends_always); }).report().empty());
}

TEST_CASE("corpus: a helper that an early return did not stop is left, unless a scope stops it",
          "[observe][leak_corpus][L-001]") {
    co::async_event tick{{.name = "tick"}};
    const finding leak = look_at([&](co::task_group& g) { g.spawn(early_return(g, tick, true)); });
    INFO(leak.report());
    CHECK(leak.tasks() == 1);
    CHECK(leak.names("early_return", "heartbeat", "event tick"));
    CHECK(look_at([&](co::task_group& g) { g.spawn(stops_in_any_case(g, tick, true)); }).report().empty());
}

TEST_CASE("corpus: who waits for a permit that went with its holder is left, unless a block gives it back",
          "[observe][leak_corpus][L-001]") {
    co::async_semaphore slots{1, {.name = "slots"}}, fixed{1, {.name = "slots"}};
    const finding leak = look_at([&](co::task_group& g) { holder_gone(g, slots, keeps_permit); });
    INFO(leak.report());
    CHECK(leak.tasks() == 1);
    CHECK(leak.names("holder_gone", "works", "semaphore slots, held by 1"));
    CHECK(look_at([&](co::task_group& g) { holder_gone(g, fixed, holds_permit_in_a_block); }).report().empty());
}

TEST_CASE("corpus: who waits for a callback that never comes is left, unless the failure is told",
          "[observe][leak_corpus][L-001]") {
    co::completion<int> result, fixed, fine;
    const finding leak = look_at([&](co::task_group& g) { callback_lost(g, result, true, false); });
    INFO(leak.report());
    CHECK(leak.tasks() == 1);
    CHECK(leak.names("callback_lost", "awaits_callback", "completion"));
    CHECK(look_at([&](co::task_group& g) { callback_lost(g, fixed, true, true); }).report().empty());
    CHECK(look_at([&](co::task_group& g) { callback_lost(g, fine, false, true); }).report().empty());
}

TEST_CASE("corpus: a join of a child that waits for its end is left, with the child, unless the end is told first",
          "[observe][leak_corpus][L-001]") {
    co::async_event closed{{.name = "closed"}}, fixed{{.name = "closed"}};
    const finding leak = look_at([&](co::task_group& g) { stuck_join(g, closed, joins_then_closes); });
    INFO(leak.report());
    CHECK(leak.tasks() == 2);
    CHECK(leak.names("stuck_join", "run", "the join of a group"));
    CHECK(leak.report().find(" in joins_then_closes\n") != std::string::npos);
    CHECK(leak.report().find("in waits_for_close   event closed\n") != std::string::npos);
    CHECK(look_at([&](co::task_group& g) { stuck_join(g, fixed, closes_then_joins); }).report().empty());
}

#endif
