// SPDX-License-Identifier: MIT
#pragma once

// Runs tasks under a virtual clock and a scheduler whose every choice comes from a seed: an hour takes a millisecond,
// and a seed that fails is a bug that can be reproduced.
//
//     testing::simulation sim{7};
//     int answer = sim.run(serve_one_request());       // sleeps, timeouts and deadlines take no time

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/time/timer_queue.hpp>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// Nothing can ever run again, and the root has not ended. `what()` says who waits, where, and for what.
class deadlock : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

/// The run took more steps than allowed: probably tasks that keep each other busy without end.
class livelock : public std::runtime_error {
public:
    using std::runtime_error::runtime_error;
};

struct simulation_options {
    std::uint64_t max_steps = 50'000'000;  ///< after that many the run is a livelock
    bool jump_when_idle = true;            ///< false: time stands still until `advance`
};

/// What a run chose, from how many: enough to run the same schedule again.
struct choice {
    std::uint32_t taken = 0;
    std::uint32_t of = 1;
};

/// One thread, one clock, one scheduler. Satisfies `executor`, and is the only one inside its runs.
/// Threads:       everything on the thread that made it; used from elsewhere it terminates and says so
/// Order:         what is ready runs in an order that the seed chooses; timers fire one timestamp at a time, each
///                followed by all that became ready, exact to the nanosecond
class simulation {
    class settle_operation;

public:
    explicit simulation(std::uint64_t seed = 0, simulation_options options = {});
    /// Follows the choices of an earlier run; where they end, always takes the first.
    explicit simulation(std::vector<choice> trace, simulation_options options = {});
    simulation(const simulation&) = delete;
    simulation& operator=(const simulation&) = delete;
    ~simulation();

    /// Runs `a` until it has ended.
    /// Returns:       its value
    /// Errors:        throws what `a` throws, `canceled` if it was stopped; `deadlock` or `livelock`, after the tasks
    ///                have been stopped; `std::logic_error` inside another run
    template <awaitable A>
    await_result_t<A> run(A&& a, std::source_location where = std::source_location::current());

    /// Runs everything that is ready, without moving time. Only inside a run.
    [[nodiscard]] static settle_operation settle();
    /// Moves time by `d`, one timestamp at a time, and runs all that becomes ready on the way. Only inside a run.
    template <class Rep, class Period>
    [[nodiscard]] static task<void> advance(std::chrono::duration<Rep, Period> d) {
        return advance_by(detail::saturated(d));
    }
    /// The simulation that runs on this thread; null outside a run.
    [[nodiscard]] static simulation* current() noexcept { return current_; }

    [[nodiscard]] clock::time_point now() const noexcept { return now_; }
    [[nodiscard]] std::uint64_t seed() const noexcept { return seed_; }
    /// Choices and jumps so far, in the present or the last run.
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
    /// The choices of the present or the last run.
    [[nodiscard]] const std::vector<choice>& trace() const noexcept { return trace_; }
    /// Timers that are armed.
    [[nodiscard]] std::size_t armed_timers() noexcept { return timers_.size(); }

    /// Called before each step of a run with its number; may stop the run's scope.
    struct observer {
        virtual void before_step(std::uint64_t step, cancel_scope& root) = 0;

    protected:
        ~observer() = default;
    };
    void observe(observer* o) noexcept { observer_ = o; }

    void submit(work_item& item) noexcept {
        check_inside("submit");
        item.next = nullptr;
        ready_.push_back(&item);
    }
    [[nodiscard]] bool is_current() const noexcept { return detail::runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

private:
    class settler;
    class session;
    template <operation O>
    class simulated_root;

    void drive(const bool& done, cancel_scope& root);
    bool step(cancel_scope& root);
    std::uint32_t choose(std::uint32_t n);
    void jump_to(clock::time_point t) noexcept {
        now_ = t;
        timers_.fire_due(t);
    }
    void check_inside(const char* what) const noexcept {
        if (current_ != this)
            detail::fail(std::string("simulation ") + std::to_string(id_) + ": " + what + " from outside its run, in " +
                         (current_ == nullptr ? "no simulation" : "simulation " + std::to_string(current_->id_)));
    }
    std::string who_waits() const;
    static task<void> advance_by(clock::duration d);

    static inline thread_local simulation* current_ = nullptr;
    static inline std::uint64_t last_id_ = 0;

    std::uint64_t id_;
    std::uint64_t seed_ = 0;
    std::uint64_t random_;
    simulation_options options_;
    clock::time_point now_{std::chrono::hours(1)};
    std::vector<work_item*> ready_;
    locked_timer_queue timers_;
    settler* settling_ = nullptr;
    observer* observer_ = nullptr;
    bool replaying_ = false;
    std::vector<choice> prescribed_;
    std::vector<choice> trace_;
    std::uint64_t steps_ = 0;
    std::vector<std::uint64_t> older_tasks_;  ///< alive before the run: none of its business
};

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI

#include <cordon/testing/detail/simulation_bodies.hpp>
#include <cordon/testing/explore.hpp>  // whoever simulates one schedule will want to look at the others
