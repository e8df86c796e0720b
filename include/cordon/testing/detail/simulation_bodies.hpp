// SPDX-License-Identifier: MIT
#pragma once

// The bodies of <cordon/testing/simulation.hpp>, which includes this.

#include <cordon/testing/detail/duration_text.hpp>
#include <cordon/testing/simulation.hpp>

#include <algorithm>

namespace cordon::inline CORDON_ABI {
namespace detail {

inline std::string describe_all(const std::vector<task_info>& tasks) {
    std::string text;
    for (const task_info& task : tasks) text += describe(task);
    return text;
}

}  // namespace detail

namespace testing {

/// Makes a simulation the executor and the clock of this thread.
class simulation::session {
public:
    explicit session(simulation& s) : entry_(&checked(s), s.now_) {
        s.trace_.clear();
        s.steps_ = 0;
        current_ = &s;
        detail::simulations.fetch_add(1, std::memory_order_relaxed);
        shown_before_ = std::exchange(detail::virtual_now, &s.now_);
        detail::chance_here = &s.chance_;
    }
    ~session() {
        detail::chance_here = nullptr;
        detail::virtual_now = shown_before_;
        detail::simulations.fetch_sub(1, std::memory_order_relaxed);
        current_ = nullptr;
    }
    session(const session&) = delete;
    session& operator=(const session&) = delete;

private:
    static simulation& checked(simulation& s) {
        if (current_ != nullptr || detail::runs_any_here())
            detail::raise(std::logic_error("simulation::run inside a run, or on a thread that runs an executor"),
                          "simulation::run inside a run, or on a thread that runs an executor");
        return s;
    }
    detail::executor_entry entry_;
    const clock::time_point* shown_before_;  ///< to the check of a sweep
};

/// A task that goes on when nothing else is ready.
class simulation::settler : public detail::leaf<settler> {
public:
    explicit settler(simulation& s) noexcept : simulation_(&s) {}
    bool ready() const noexcept { return false; }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return suspend(r); }
    outcome<void> take() noexcept { return {}; }
    static constexpr bool never_fails = true;

private:
    friend class detail::leaf<settler>;
    void enqueue() noexcept {
        if (simulation_->settling_ != nullptr)
            detail::fail("simulation " + std::to_string(simulation_->id_) + ": two tasks settle at the same time");
        simulation_->settling_ = this;
        if (simulation_->chains_ != nullptr) simulation_->chains_->armed(this);
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

/// What one run consists of: its scope, its root, and whether that has ended.
template <operation O>
class simulation::one_run {
    class ending_root final : public detail::root<O> {
    public:
        ending_root(O&& op, const context& c, bool& ended) : detail::root<O>(std::move(op), c), done_(&ended) {}

    private:
        void on_ended() noexcept override { *done_ = true; }
        bool* done_;
    };

public:
    one_run(simulation& s, O&& op, const std::source_location& where)
        : scope(executor_ref(s)), root(std::move(op), scope.ctx(), done) {
        root.open_record("simulation", where);
        root.start();
    }

    bool done = false;
    cancel_scope scope;
    ending_root root;
};

inline simulation::simulation(schedule follows, simulation_options options)
    : id_(last_id_.fetch_add(1, std::memory_order_relaxed) + 1), schedule_(std::move(follows)),
      random_(schedule_.seed()), options_(options), now_(options.start) {
    for (const task_info& task : live_tasks()) older_tasks_.push_back(task.id);
}
inline simulation::~simulation() {
    if (current_ == this) detail::fail(name() + ": destroyed inside its own run");
    if (!ready_.empty() || !timers_.queue.empty())
        detail::fail(name() + ": destroyed while something still waits for it, which only a run can end\n" +
                     who_waits());
}

inline simulation& simulation::expect_current(const char* what) {
    if (current_ == nullptr) detail::raise(std::logic_error(what), what);
    return *current_;
}
inline simulation::settle_operation simulation::settle() {
    return settle_operation(expect_current("settle outside a simulation"));
}

inline task<void> simulation::advance_by(clock::duration d) {
    simulation& self = expect_current("advance outside a simulation");
    const clock::time_point target = deadline::after(d).time();
    for (;;) {
        co_await settle();
        const std::optional<clock::time_point> next = self.timers_.queue.next();
        if (!next || *next > target) break;
        self.jump_to((std::max)(*next, self.now_));
    }
    self.jump_to(target);
    co_await settle();
}

template <runnable A>
detail::runnable_result_t<A> simulation::run(A&& a, std::source_location where) {
    const session here(*this);
    const auto finish = [&]<operation O>(O&& op) -> typename O::value_type {
        one_run<O> run(*this, std::move(op), where);
        const verdict how = drive(run.done, run.scope, options_.max_steps, (clock::time_point::max)());
        if (how != verdict::ended) give_up(run.done, run.scope, how);
        return run.root.take().value();
    };
    if constexpr (awaitable<A>) return finish(detail::operation_of(std::forward<A>(a)));
    else return finish(detail::operation_of(a()));
}

/// At most as many as were armed at the start: one may arm itself again for a time that has passed.
inline void simulation::own_timers::fire_due(clock::time_point now) {
    for (std::size_t most = queue.size(); most != 0; --most) {
        timer* const t = queue.pop_due(now);
        if (t == nullptr) return;
        const detail::chain_priorities::firing here(owner->chains_, t);
        t->fire(*t);
    }
}

/// Runs until `done`, and then all that is ready.
inline simulation::verdict simulation::drive(const bool& done, cancel_scope& root, std::uint64_t max_steps,
                                             clock::time_point latest) {
    while (!done || !ready_.empty()) {
        if (steps_ >= max_steps) return verdict::livelock;
        if (!step(root)) return verdict::deadlock;
        if (now_ > latest) return verdict::late;
    }
    return verdict::ended;
}

/// Stops everything, so that frames and locals are gone, and throws.
inline void simulation::give_up(const bool& done, cancel_scope& root, verdict why) {
    const std::string text = report(why);
    root.request_stop(stop_reason{stop_kind::closed, 0, {}});
    if (drive(done, root, steps_ + options_.max_steps, (clock::time_point::max)()) != verdict::ended)
        detail::fail(text + "and after a stop these still do not end:\n" + who_waits());
    if (why == verdict::livelock) detail::raise(livelock(text), text.c_str());
    detail::raise(deadlock(text), text.c_str());
}

inline std::string simulation::report(verdict why) const {
    std::string text = why == verdict::livelock ? "livelock" : "deadlock";
    text += " at step " + std::to_string(steps_) + ", after " + detail::duration_text(now_ - options_.start);
    text += (schedule_.is_seeded() ? ", seed " : ", schedule ") + schedule_.to_string() + "\n";
    if (why == verdict::deadlock && !options_.jump_when_idle)
        text += "(time stands still until somebody advances it)\n";
    return text + who_waits();
}

/// Runs one item, or wakes who settles, or moves time to the next timer.
/// Returns:       false if there is none of these
inline bool simulation::step(cancel_scope& root) {
    std::optional<clock::time_point> next;
    if (ready_.empty() && settling_ == nullptr) {
        if (options_.jump_when_idle) next = timers_.queue.next();
        if (!next) return false;
    }
    ++steps_;
    if (observer_ != nullptr) observer_->before_step(steps_, root);
    if (!ready_.empty()) {
        const std::uint32_t k = choose(static_cast<std::uint32_t>(ready_.size()));
        work_item* const item = ready_[k];
        ready_.erase(ready_.begin() + static_cast<std::ptrdiff_t>(k));
        if (chains_ != nullptr) chains_->runs(k);
        const detail::in_a_task yes(true);
        item->run(*item);
        return true;
    }
    if (settling_ != nullptr) {
        settler* const s = std::exchange(settling_, nullptr);
        const detail::chain_priorities::firing here(chains_, s);
        return s->complete();
    }
    jump_to((std::max)(*next, now_));
    return true;
}

/// Who goes on: the schedule's choice, or one from its seed.
inline std::uint32_t simulation::choose(std::uint32_t n) {
    if (n == 1) return 0;
    std::uint32_t taken = 0;
    if (!schedule_.is_seeded()) {
        if (trace_.size() < schedule_.choices().size())
            taken = (std::min)(schedule_.choices()[trace_.size()], n - 1);
    } else {
        taken = chains_ != nullptr ? chains_->choose() : static_cast<std::uint32_t>(next_random() % n);
    }
    if (observer_ != nullptr) taken = (std::min)(observer_->choose(n, taken), n - 1);
    trace_.push_back({taken, n});
    return taken;
}
/// Whether something that does so with this share of the times goes wrong now.
inline bool simulation::strikes(double share) {
    if (share <= 0 || share >= 1) return share > 0;
    const auto& given = schedule_.choices();
    const bool taken = schedule_.is_seeded() ? detail::unit_interval(next_random()) < share
                                             : trace_.size() < given.size() && given[trace_.size()] != 0;
    trace_.push_back({taken ? 1u : 0u, 2, true});
    return taken;
}

inline std::vector<task_info> simulation::own_tasks() const {
    std::vector<task_info> all = live_tasks();
    std::erase_if(all, [this](const task_info& task) {
        return std::find(older_tasks_.begin(), older_tasks_.end(), task.id) != older_tasks_.end();
    });
    return all;
}
inline std::string simulation::who_waits() const { return detail::describe_all(own_tasks()); }

}  // namespace testing
}  // namespace cordon::inline CORDON_ABI
