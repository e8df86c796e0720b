// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/testing/simulation.hpp>, which includes this.

#include <cordon/testing/simulation.hpp>

#include <algorithm>

namespace cordon::inline CORDON_ABI {
namespace testing {

/// Makes a simulation the executor and the clock of this thread.
class simulation::session {
public:
    explicit session(simulation& s) : entry_(&s, s.now_) {
        current_ = &s;
        detail::simulations.fetch_add(1, std::memory_order_relaxed);
        detail::virtual_now = &s.now_;
    }
    ~session() {
        detail::virtual_now = nullptr;
        detail::simulations.fetch_sub(1, std::memory_order_relaxed);
        current_ = nullptr;
    }
    session(const session&) = delete;
    session& operator=(const session&) = delete;

private:
    detail::executor_entry entry_;
};

/// A task that goes on when nothing else is ready.
class simulation::settler : public detail::leaf<settler> {
public:
    explicit settler(simulation& s) noexcept : simulation_(&s) {}
    bool ready() const noexcept { return false; }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept { return {}; }

private:
    friend class detail::leaf<settler>;
    void enqueue() noexcept {
        if (simulation_->settling_ != nullptr)
            detail::fail("simulation " + std::to_string(simulation_->id_) + ": two tasks settle at the same time");
        simulation_->settling_ = this;
    }
    void dequeue(bool) noexcept {
        if (simulation_->settling_ == this) simulation_->settling_ = nullptr;
    }
    static constexpr detail::wait_label settle_label{"settle"};
    const detail::wait_label& label() const noexcept { return settle_label; }

    simulation* simulation_;
};

class simulation::settle_operation : public detail::operation_base<settle_operation> {
public:
    using value_type = void;
    static constexpr bool needs_executor = true;

    explicit settle_operation(simulation& s) noexcept : simulation_(&s) {}
    class state : public settler {
    public:
        explicit state(settle_operation&& s) noexcept : settler(*s.simulation_) {}
    };

private:
    simulation* simulation_;
};

template <operation O>
class simulation::simulated_root final : public detail::root<O> {
public:
    simulated_root(O&& op, const context& c, detail::task_record* r, bool& ended)
        : detail::root<O>(std::move(op), c, r), done_(&ended) {}

private:
    void on_ended() noexcept override { *done_ = true; }
    bool* done_;
};

inline simulation::simulation(std::uint64_t seed, simulation_options options)
    : id_(++last_id_), seed_(seed), random_(seed), options_(options) {}
inline simulation::simulation(std::vector<choice> trace, simulation_options options)
    : id_(++last_id_), random_(0), options_(options), replaying_(true), prescribed_(std::move(trace)) {}
inline simulation::~simulation() {
    if (current_ == this) detail::fail("simulation " + std::to_string(id_) + ": destroyed inside its own run");
}

inline simulation::settle_operation simulation::settle() {
    if (current_ == nullptr) detail::raise(std::logic_error("settle outside a simulation"), "settle outside a simulation");
    return settle_operation(*current_);
}

inline task<void> simulation::advance_by(clock::duration d) {
    if (current_ == nullptr) detail::raise(std::logic_error("advance outside a simulation"), "advance outside a simulation");
    simulation& self = *current_;
    const clock::time_point target = self.now_ + d;
    for (;;) {
        co_await settle();
        const std::optional<clock::time_point> next = self.timers_.next();
        if (!next || *next > target) break;
        self.jump_to(*next);
    }
    self.jump_to(target);
    co_await settle();
}

template <awaitable A>
await_result_t<A> simulation::run(A&& a, std::source_location where) {
    if (current_ != nullptr || detail::runs_any_here())
        detail::raise(std::logic_error("simulation::run inside a run, or on a thread that runs an executor"),
                      "simulation::run inside a run, or on a thread that runs an executor");
    trace_.clear();
    steps_ = 0;
    older_tasks_.clear();
    for (const task_info& task : live_tasks()) older_tasks_.push_back(task.id);
    const session here(*this);
    bool done = false;
    cancel_scope root_scope{executor_ref(*this)};
    using op = detail::operation_for<A>;
    simulated_root<op> root(detail::describe(std::forward<A>(a)), root_scope.ctx(),
                            detail::task_record::open(false, "simulation", where, nullptr, detail::coarse_now_ms()), done);
    root.start();
    drive(done, root_scope);
    return root.take().value();
}

/// Runs until `done`. If that cannot be, stops everything, so that frames and locals are gone before it throws.
inline void simulation::drive(const bool& done, cancel_scope& root) {
    std::string verdict;
    bool endless = false;
    while (!done) {
        if (step(root)) {
            if (steps_ <= options_.max_steps) continue;
            endless = true;
        }
        if (!verdict.empty())
            detail::fail(verdict + "and after a stop these still do not end:\n" + who_waits());
        verdict = (endless ? "livelock after " + std::to_string(steps_) + " steps" : std::string("deadlock")) +
                  " at " + std::to_string((now_ - clock::time_point(std::chrono::hours(1))).count()) + " ns, seed " +
                  std::to_string(seed_) + "\n" + who_waits();
        steps_ = 0;
        endless = false;
        root.request_stop(stop_reason{stop_kind::closed, 0, {}});
    }
    if (verdict.empty()) return;
    if (verdict.starts_with("livelock")) detail::raise(livelock(verdict), verdict.c_str());
    detail::raise(deadlock(verdict), verdict.c_str());
}

/// Runs one item, or wakes who settles, or moves time to the next timer.
/// Returns:       false if there is none of these
inline bool simulation::step(cancel_scope& root) {
    ++steps_;
    if (observer_ != nullptr) observer_->before_step(steps_, root);
    if (!ready_.empty()) {
        const std::uint32_t k = choose(static_cast<std::uint32_t>(ready_.size()));
        work_item* const item = ready_[k];
        ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(k));
        item->run(*item);
        return true;
    }
    if (settling_ != nullptr) return std::exchange(settling_, nullptr)->complete();
    if (!options_.jump_when_idle) return false;
    const std::optional<clock::time_point> next = timers_.next();
    if (!next) return false;
    jump_to((std::max)(*next, now_));
    return true;
}

/// The one source of every choice: prescribed, or from the seed (splitmix64).
inline std::uint32_t simulation::choose(std::uint32_t n) {
    std::uint32_t taken = 0;
    if (replaying_) {
        if (trace_.size() < prescribed_.size()) taken = (std::min)(prescribed_[trace_.size()].taken, n - 1);
    } else if (n > 1) {
        std::uint64_t z = (random_ += 0x9e3779b97f4a7c15);
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
        z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
        taken = static_cast<std::uint32_t>((z ^ (z >> 31)) % n);
    }
    trace_.push_back({taken, n});
    return taken;
}

inline std::string simulation::who_waits() const {
    std::string text;
    for (const task_info& task : live_tasks())
        if (std::find(older_tasks_.begin(), older_tasks_.end(), task.id) == older_tasks_.end()) text += describe(task);
    return text;
}

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
