// SPDX-License-Identifier: MIT
#pragma once

// Runs tasks under a virtual clock and a scheduler whose every choice comes from a seed: an hour takes a millisecond,
// and a seed that fails is a bug that can be reproduced.
//
//     testing::simulation sim{7};
//     int answer = sim.run(serve_one_request());          // sleeps, timeouts and deadlines take no time
//     sim.run([] { return sleep_for(1h); });              // a callable is called inside, where the clock is virtual

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/leaf.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/root.hpp>
#include <cordon/core/executor.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/cancel_scope.hpp>
#include <cordon/testing/allocation_fault.hpp>
#include <cordon/testing/detail/chain_priorities.hpp>
#include <cordon/testing/schedule.hpp>
#include <cordon/time/timer_queue.hpp>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <source_location>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {
class sweep_access;
class search_access;
}

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
    /// What its clock shows first: not zero, so that there is a time before it.
    clock::time_point start{std::chrono::hours(1)};
    std::uint64_t max_steps = 50'000'000;  ///< after that many a run is a livelock
    bool jump_when_idle = true;            ///< false: time stands still until `advance`
};

/// One thread, one clock, one scheduler. Satisfies `executor`, and is the only one inside its runs.
/// Threads:       everything on the thread that made it. What belongs to it and is used outside its runs, in another
///                simulation or on another thread, terminates and names both
/// Order:         what is ready runs in an order that the seed chooses; timers fire one timestamp at a time, each
///                followed by all that became ready, exact to the nanosecond
/// Lifetime:      destroyed while something is still to run on it, or armed, it prints the tasks and terminates
class simulation {
    class settle_operation;

public:
    /// A schedule is a seed, or the `trace()` of an earlier run.
    explicit simulation(schedule follows = {}, simulation_options options = {});
    simulation(const simulation&) = delete;
    simulation& operator=(const simulation&) = delete;
    ~simulation();

    /// Runs `a`, or what `a()` returns, until it has ended, and then what is ready without more time. Time goes on from
    /// where the last run left it.
    /// Returns:       its value
    /// Errors:        throws what `a` throws, `canceled` if it was stopped; `deadlock` or `livelock`, after the tasks
    ///                have been stopped (it terminates if that does not end them); `std::logic_error` in another run
    template <runnable A>
    detail::runnable_result_t<A> run(A&& a, std::source_location where = std::source_location::current());

    /// Runs everything that is ready, without moving time.
    /// Errors:        `std::logic_error` outside a run; two tasks that settle at the same time terminate
    [[nodiscard]] static settle_operation settle();
    /// Moves time by `d`, one timestamp at a time, and runs all that becomes ready on the way.
    /// Errors:        as `settle`
    template <class Rep, class Period>
    [[nodiscard]] static task<void> advance(std::chrono::duration<Rep, Period> d) {
        return advance_by(detail::saturated(d));
    }
    /// The simulation that runs on this thread; null outside a run.
    [[nodiscard]] static simulation* current() noexcept { return current_; }

    [[nodiscard]] clock::time_point now() const noexcept { return now_; }
    [[nodiscard]] std::uint64_t seed() const noexcept { return schedule_.seed(); }
    /// Items run and jumps in time, in the present or the last run.
    [[nodiscard]] std::uint64_t steps() const noexcept { return steps_; }
    /// The choices of the present or the last run.
    [[nodiscard]] const std::vector<choice>& trace() const noexcept { return trace_; }
    /// Timers that are armed.
    [[nodiscard]] std::size_t armed_timers() noexcept { return timers_.queue.size(); }
    /// The tasks that began after this simulation was made and have not ended, as `describe` gives them.
    [[nodiscard]] std::string who_waits() const;

    struct observer {
        /// Called before each step of a run with its number, from 1 on; may stop the run's scope.
        virtual void before_step(std::uint64_t step, cancel_scope& root) = 0;
        /// Called where several are ready, with their number and with the one that the schedule takes, from 0 on.
        /// Returns:       the one to take; what is too large stands for the last
        virtual std::uint32_t choose(std::uint32_t of, std::uint32_t taken) {
            static_cast<void>(of);
            return taken;
        }

    protected:
        ~observer() = default;
    };
    void observe(observer* o) noexcept { observer_ = o; }

    void submit(work_item& item) noexcept {
        check_inside("a task is to go on");
        const detail::in_a_task no(false);
        item.next = nullptr;
        ready_.push_back(&item);
        if (chains_ != nullptr) chains_->submitted();
    }
    [[nodiscard]] bool is_current() const noexcept { return detail::runs_here(this); }
    [[nodiscard]] timer_service& timers() noexcept { return timers_; }

private:
    friend class detail::sweep_access;
    friend class detail::search_access;
    class settler;
    class session;
    template <operation O>
    class one_run;
    /// A timer is armed inside a run only, since the clock shows another time outside.
    struct own_timers final : timer_service {
        explicit own_timers(simulation& s) noexcept : owner(&s) {}
        void arm(timer& t) noexcept override {
            owner->check_inside("a timer is armed");
            queue.insert(t);
            if (owner->chains_ != nullptr) owner->chains_->armed(&t);
        }
        void cancel(timer& t) noexcept override {
            if (timer_queue::armed(t)) queue.erase(t);
        }
        void fire_due(clock::time_point now);

        simulation* owner;
        timer_queue queue;
    };
    /// In the place of chance: what is drawn comes from the seed, what is decided is a choice of the schedule.
    struct own_chance final : detail::chance {
        explicit own_chance(simulation& s) noexcept : owner(&s), state(detail::mixed(s.seed() + 1)) {}
        std::uint64_t bits() noexcept override { return detail::mixed(state += 0x9e3779b97f4a7c15); }
        bool decide(double share) noexcept override { return owner->strikes(share); }

        simulation* owner;
        std::uint64_t state;
    };
    enum class verdict { ended, deadlock, livelock, late };

    verdict drive(const bool& done, cancel_scope& root, std::uint64_t max_steps, clock::time_point latest);
    void give_up(const bool& done, cancel_scope& root, verdict why);
    bool step(cancel_scope& root);
    std::uint32_t choose(std::uint32_t n);
    bool strikes(double share);
    std::uint64_t next_random() noexcept { return detail::mixed(random_ += 0x9e3779b97f4a7c15); }
    void jump_to(clock::time_point t) noexcept {
        now_ = t;
        detail::set_coarse_now(t);
        timers_.fire_due(t);
    }
    void check_inside(const char* what) const noexcept {
        if (current_ != this)
            detail::fail(name() + ": " + what + " outside its run, in " +
                         (current_ == nullptr ? "no simulation" : current_->name()));
    }
    std::string name() const { return "simulation " + std::to_string(id_); }
    std::string report(verdict why) const;
    std::vector<task_info> own_tasks() const;
    static simulation& expect_current(const char* what);
    static task<void> advance_by(clock::duration d);

    static inline thread_local simulation* current_ = nullptr;
    static inline std::atomic<std::uint64_t> last_id_{0};

    std::uint64_t id_;
    schedule schedule_;
    std::uint64_t random_;  ///< of the choices
    own_chance chance_{*this};
    simulation_options options_;
    clock::time_point now_;
    std::vector<work_item*> ready_;
    own_timers timers_{*this};
    settler* settling_ = nullptr;
    observer* observer_ = nullptr;
    detail::chain_priorities* chains_ = nullptr;  ///< of the run of a search by priorities
    std::vector<choice> trace_;
    std::uint64_t steps_ = 0;
    std::vector<std::uint64_t> older_tasks_;  ///< alive before it was made: none of its business
};

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI

#include <cordon/testing/detail/simulation_bodies.hpp>
#include <cordon/testing/explore.hpp>  // whoever simulates one schedule will want to look at the others
