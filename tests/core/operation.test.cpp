// SPDX-License-Identifier: MIT
#include <cordon/core/operation.hpp>

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/run/run_loop.hpp>
#include <cordon/run/start_on.hpp>
#include <cordon/run/sync_wait.hpp>
#include <cordon/scope/as_outcome.hpp>
#include <cordon/scope/when_all.hpp>
#include <cordon/scope/with.hpp>
#include <cordon/testing/simulation.hpp>
#include <cordon/time/sleep.hpp>

#include "catch.hpp"

#include <chrono>
#include <coroutine>
#include <exception>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using namespace std::chrono_literals;
using cordon::as_outcome;
using cordon::inplace_stop_source;
using cordon::outcome;
using cordon::promise_base;
using cordon::receiver;
using cordon::receiver_ref;
using cordon::sleep_for;
using cordon::stop_on;
using cordon::sync_wait;
using cordon::task;
using cordon::with;
using cordon::testing::simulation;
namespace this_task = cordon::this_task;

using lines = std::vector<std::string>;

/// An operation that does what the test says, and writes down what is done with it.
enum class script { ready, ends_inside, ends_later, stops_inside, fails, refuses };

class scripted : public cordon::detail::operation_base<scripted> {
public:
    using value_type = int;
    static constexpr bool needs_executor = false;

    scripted(script what, lines& log) : what_(what), log_(&log) {}

    class state : private cordon::work_item {
    public:
        explicit state(scripted&& s) : work_item(&state::wake), what_(s.what_), log_(s.log_) {
            log_->push_back("state");
        }
        state(const state&) = delete;
        state& operator=(const state&) = delete;
        ~state() { log_->push_back("~state"); }

        bool ready() const noexcept {
            log_->push_back("ready?");
            return what_ == script::ready;
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            log_->push_back("start");
            receiver_ = r;
            if (what_ == script::stops_inside) return r.stop_later();
            if (what_ != script::ends_later) return r.complete();
            cordon::detail::submit(r.ctx(), *this);
            return std::noop_coroutine();
        }
        outcome<int> take() noexcept {
            log_->push_back("take");
            if (what_ == script::fails) return outcome<int>(std::make_exception_ptr(std::runtime_error("broken")));
            if (what_ == script::refuses) return outcome<int>(cordon::rejection(cordon::reject_reason::circuit_open, "db"));
            return outcome<int>(7);
        }

    private:
        static void wake(work_item& item) noexcept {
            auto& s = static_cast<state&>(item);
            s.log_->push_back("wake");
            cordon::detail::resume(s.receiver_.complete());
        }
        script what_;
        lines* log_;
        receiver_ref receiver_;
    };

private:
    script what_;
    lines* log_;
};
static_assert(cordon::operation<scripted>);

/// A combinator as a user could write one: doubles the value, and says what it was told.
template <cordon::operation O>
class doubled : public cordon::detail::operation_base<doubled<O>> {
public:
    using value_type = int;
    static constexpr bool needs_executor = O::needs_executor;

    doubled(O&& op, lines& log) : op_(std::move(op)), log_(&log) {}

    class state : private receiver {
    public:
        explicit state(doubled&& d)
            : receiver(nullptr, nullptr, {}, &state::told), log_(d.log_), inner_(std::move(d.op_)) {}
        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            ctx = &r.ctx();
            record = r.record();
            up = r;
            return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<int> take() noexcept {
            outcome<int> below = inner_.take();
            if (below) *below *= 2;
            return below;
        }

    private:
        static std::coroutine_handle<> told(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            s.log_->push_back(std::string(stopped ? "stopped" : "completed") + (child != nullptr ? " frame" : ""));
            if (!stopped) return s.up.complete();
            cordon::detail::discard(child);
            return s.up.stop();
        }
        lines* log_;
        typename O::state inner_;
    };

private:
    O op_;
    lines* log_;
};

struct almost_an_operation {
    using value_type = int;
    [[maybe_unused]] static constexpr bool needs_executor = false;
    struct state {
        explicit state(almost_an_operation&&) {}
        bool ready() { return true; }  // may throw
        std::coroutine_handle<> start(receiver_ref) noexcept;
        outcome<int> take() noexcept;
    };
};
static_assert(!cordon::operation<almost_an_operation>);
static_assert(!cordon::operation<int> && !cordon::operation<receiver>);
static_assert(std::is_trivially_copyable_v<receiver_ref> && sizeof(receiver_ref) == sizeof(void*));

task<int> await(script what, lines& log) { co_return co_await scripted(what, log); }

}  // namespace

TEST_CASE("an operation that is ready is not started", "[core][operation][D11]") {
    lines log;
    CHECK(sync_wait(await(script::ready, log)) == 7);
    CHECK(log == lines{"state", "ready?", "take", "~state"});
}

TEST_CASE("an operation that is not ready is started once and asked for its outcome once", "[core][operation][D11]") {
    lines log;
    SECTION("it ends inside its start") {
        CHECK(sync_wait(await(script::ends_inside, log)) == 7);
        CHECK(log == lines{"state", "ready?", "start", "take", "~state"});
    }
    SECTION("it ends later") {
        CHECK(sync_wait(await(script::ends_later, log)) == 7);
        CHECK(log == lines{"state", "ready?", "start", "wake", "take", "~state"});
    }
    SECTION("it fails") {
        CHECK_THROWS_WITH(sync_wait(await(script::fails, log)), "broken");
        CHECK(log == lines{"state", "ready?", "start", "take", "~state"});
    }
    SECTION("it refuses") {
        CHECK_THROWS_AS(sync_wait(await(script::refuses, log)), cordon::rejected);
        CHECK(log == lines{"state", "ready?", "start", "take", "~state"});
    }
}

TEST_CASE("an operation that was stopped is destroyed and never asked for an outcome", "[core][operation][D11]") {
    lines log;
    CHECK_THROWS_AS(sync_wait(await(script::stops_inside, log)), cordon::canceled);
    CHECK(log == lines{"state", "ready?", "start", "~state"});
}

TEST_CASE("an operation is awaited without a task as well", "[core][operation]") {
    lines log;
    CHECK(sync_wait(scripted(script::ready, log)) == 7);
    CHECK(sync_wait(scripted(script::ends_later, log)) == 7);
    CHECK_THROWS_AS(sync_wait(scripted(script::stops_inside, log)), cordon::canceled);
    simulation sim;
    CHECK(sim.run(scripted(script::ends_inside, log)) == 7);
}

TEST_CASE("a combinator is told how the operation below ended, and needs no frame", "[core][operation][D11]") {
    const auto run = [](script what) {
        lines log, ignored;
        std::string end;
        const outcome<int> o = sync_wait(as_outcome(doubled<scripted>(scripted(what, ignored), log)));
        if (o) end = std::to_string(*o);
        else end = o.is_stopped() ? "stopped" : o.is_rejected() ? "rejected" : "error";
        log.push_back(end);
        return log;
    };
    CHECK(run(script::ready) == lines{"14"});
    CHECK(run(script::ends_inside) == lines{"completed", "14"});
    CHECK(run(script::ends_later) == lines{"completed", "14"});
    CHECK(run(script::stops_inside) == lines{"stopped", "stopped"});
    CHECK(run(script::fails) == lines{"completed", "error"});
    CHECK(run(script::refuses) == lines{"completed", "rejected"});
}

TEST_CASE("a combinator gets the frame of a task that was stopped below it", "[core][operation][D11]") {
    struct program {
        static task<int> waits() {
            co_await sleep_for(1s);
            co_return 4;
        }
        static task<> stop(inplace_stop_source& source, std::chrono::milliseconds when) {
            co_await sleep_for(when);
            source.request_stop();
        }
        static task<int> run(lines& log, std::chrono::milliseconds when) {
            inplace_stop_source source;
            auto op = with(doubled<task<int>>(waits(), log), stop_on(source.get_token()));
            auto both = co_await cordon::when_all(as_outcome(std::move(op)), stop(source, when));
            const outcome<int>& o = std::get<0>(both);
            int n = -1;
            if (o) n = *o;
            co_return n;
        }
    };
    simulation sim;
    lines log;
    CHECK(sim.run(program::run(log, 2000ms)) == 8);
    CHECK(sim.run(program::run(log, 500ms)) == -1);
    CHECK(log == lines{"completed frame", "stopped frame"});
}

TEST_CASE("a stop walks up from any depth of combinators and tasks, and each of them sees it once",
          "[core][operation][D1]") {
    struct program {
        static task<int> nested(int depth, lines& log) {
            if (depth == 0) {
                co_await this_task::stop();
                co_return 0;
            }
            co_return co_await doubled<task<int>>(nested(depth - 1, log), log);
        }
    };
    lines log;
    CHECK(sync_wait(as_outcome(program::nested(1'000, log))).is_stopped());
    CHECK(log == lines(1'000, "stopped frame"));
}

TEST_CASE("a receiver_ref tells a coroutine from a combinator, and leads up", "[core][operation]") {
    struct nobody : receiver {
        nobody(const cordon::context& c, receiver_ref outer)
            : receiver(&c, nullptr, outer, [](receiver&, promise_base*, bool) noexcept -> std::coroutine_handle<> {
                  return std::noop_coroutine();
              }) {}
    };
    struct bare : promise_base {
        bare() = default;
    };
    const cordon::context ctx;
    bare promise;
    promise.ctx = &ctx;
    promise.up = {};
    nobody combinator(ctx, receiver_ref(static_cast<promise_base&>(promise)));

    const receiver_ref none;
    CHECK_FALSE(none);
    const receiver_ref to_promise(static_cast<promise_base&>(promise));
    CHECK(to_promise);
    CHECK(to_promise.promise() == &promise);
    CHECK(&to_promise.ctx() == &ctx);
    CHECK_FALSE(to_promise.up());
    const receiver_ref to_combinator(static_cast<receiver&>(combinator));
    CHECK(to_combinator);
    CHECK(to_combinator.promise() == nullptr);
    CHECK(&to_combinator.combinator() == &combinator);
    CHECK(&to_combinator.ctx() == &ctx);
    CHECK(to_combinator.up().promise() == &promise);
}

// The leaf that everything which waits is built on.

namespace {

/// A leaf that ends when the test says so.
struct bell {
    class waiter;
    waiter* waiting = nullptr;
    bool ring_while_arming = false, stop_while_arming = false;
    inplace_stop_source* source = nullptr;
    lines log;
};
constexpr cordon::detail::wait_label bell_label{"a bell"};

class bell::waiter : public cordon::detail::leaf<waiter> {
public:
    explicit waiter(bell& b) noexcept : bell_(&b) {}
    bool ready() const noexcept { return false; }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<int> take() noexcept { return outcome<int>(1); }

private:
    friend class cordon::detail::leaf<waiter>;
    void enqueue() noexcept {
        bell_->log.push_back("enqueue");
        bell_->waiting = this;
        if (bell_->ring_while_arming) bell_->log.push_back(complete() ? "rings" : "too late");
        if (bell_->stop_while_arming) bell_->source->request_stop();
        if (bell_->ring_while_arming) bell_->log.push_back(complete() ? "rings again" : "once only");
    }
    void dequeue(bool was_stopped) noexcept {
        bell_->log.push_back(was_stopped ? "dequeue stopped" : "dequeue");
        bell_->waiting = nullptr;
    }
    const cordon::detail::wait_label& label() const noexcept { return bell_label; }
    bell* bell_;
};
class listen : public cordon::detail::operation_base<listen> {
public:
    using value_type = int;
    static constexpr bool needs_executor = false;
    explicit listen(bell& b) noexcept : bell_(&b) {}
    class state : public bell::waiter {
    public:
        explicit state(listen&& l) noexcept : waiter(*l.bell_) {}
    };

private:
    bell* bell_;
};
static_assert(cordon::operation<listen>);

task<int> listen_to(bell& b) { co_return co_await listen(b); }
task<outcome<int>> under(inplace_stop_source& source, bell& b) {
    co_return co_await as_outcome(with(listen_to(b), stop_on(source.get_token())));
}

}  // namespace

TEST_CASE("a leaf that ends while it is being armed goes on at once, dequeued first", "[core][operation][D4]") {
    bell b;
    inplace_stop_source source;
    b.source = &source;
    simulation sim;
    SECTION("by a value") {
        b.ring_while_arming = true;
        CHECK(sim.run(under(source, b)).has_value());
        CHECK(b.log == lines{"enqueue", "rings", "once only", "dequeue"});
    }
    SECTION("by a stop") {
        b.stop_while_arming = true;
        CHECK(sim.run(under(source, b)).is_stopped());
        CHECK(b.log == lines{"enqueue", "dequeue stopped"});
    }
    SECTION("by a value and a stop: the first wins, and the value was first") {
        b.ring_while_arming = b.stop_while_arming = true;
        CHECK(sim.run(under(source, b)).has_value());
        CHECK(b.log == lines{"enqueue", "rings", "once only", "dequeue"});
    }
    CHECK(cordon::detail::attached(source) == 0);
}

TEST_CASE("a leaf under a stop that has happened is never enqueued", "[core][operation][D4]") {
    bell b;
    inplace_stop_source source;
    source.request_stop();
    simulation sim;
    CHECK(sim.run(under(source, b)).is_stopped());
    CHECK(b.log.empty());
}

TEST_CASE("whoever completes a leaf resumes nobody, and the first to end a wait decides", "[core][operation][D4]") {
    struct program {
        static task<outcome<int>> run(bell& b, inplace_stop_source& source, bool ring_first) {
            auto both = co_await cordon::when_all(under(source, b), end(b, source, ring_first));
            co_return std::get<0>(std::move(both));
        }
        static task<> end(bell& b, inplace_stop_source& source, bool ring_first) {
            co_await sleep_for(1s);
            bell::waiter* const w = b.waiting;
            if (!ring_first) source.request_stop();
            b.log.push_back(w->complete() ? "rings" : "too late");
            b.log.push_back(w->lost() ? "lost" : "kept");
            if (ring_first) source.request_stop();
            b.log.push_back("end");
        }
    };
    simulation sim;
    SECTION("the value first") {
        bell b;
        inplace_stop_source source;
        CHECK(sim.run(program::run(b, source, true)).has_value());
        CHECK(b.log == lines{"enqueue", "rings", "kept", "end", "dequeue"});
    }
    SECTION("the stop first") {
        bell b;
        inplace_stop_source source;
        CHECK(sim.run(program::run(b, source, false)).is_stopped());
        CHECK(b.log == lines{"enqueue", "too late", "lost", "end", "dequeue stopped"});
    }
}

TEST_CASE("a leaf is completed from another thread, and its task resumes at home", "[core][operation][D4][D5]") {
    struct program {
        static task<bool> run(bell& b, std::thread::id home) {
            const int n = co_await listen(b);
            co_return n == 1 && std::this_thread::get_id() == home;
        }
    };
    cordon::run_loop loop;
    bell b;
    bool at_home = false, ended = false;
    cordon::start_on(cordon::executor_ref(loop), program::run(b, std::this_thread::get_id()),
                     [&](const outcome<bool>& o) {
                         at_home = o.value();
                         ended = true;
                         loop.stop();
                     });
    while (loop.poll()) {}
    REQUIRE(b.waiting != nullptr);
    std::thread other([&b] { b.waiting->complete(); });
    loop.run();
    other.join();
    CHECK(ended);
    CHECK(at_home);
}
