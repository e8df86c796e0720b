// SPDX-License-Identifier: MIT
#pragma once

// Threads that belong together: named, stopped and joined together, and reported if one will not end.
//
//     thread_group threads{{.name = "pollers"}};
//     threads.spawn("poller", [&](std::stop_token stop) { while (!stop.stop_requested()) poll(); });
//     threads.request_stop();
//     threads.join();                                        // throws what a thread threw

#include <cordon/core/clock.hpp>
#include <cordon/core/detail/check_option.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/run/detail/thread_name.hpp>

#include <version>

#if defined(__cpp_lib_jthread)

#include <chrono>
#include <concepts>
#include <condition_variable>
#include <cstddef>
#include <cstdio>
#include <exception>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <stop_token>
#include <string>
#include <string_view>
#include <thread>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct thread_group_options {
    /// Prints the report to stderr.
    static void print(std::string_view report) {
        std::fprintf(stderr, "cordon: %.*s\n", static_cast<int>(report.size()), report.data());
    }

    std::string_view name = {};
    clock::duration report_after = std::chrono::seconds(5);  ///< after the stop was asked
    /// Told once of the threads that have not ended by then, by the thread that waits for them.
    void (*on_late)(std::string_view report) = &thread_group_options::print;
};

/// A set of threads under one stop. A thread that runs tasks belongs into a `thread_pool`.
/// Threads:       all members from any thread; only threads of another group, or of none, may join or destroy it
/// Lifetime:      the destructor asks the threads to stop and waits for them; an error that nobody joined for is lost
///                with it. Destroyed by one of its own threads it prints its name and terminates
class thread_group {
public:
    static constexpr std::string_view kind = "thread_group";

    struct snapshot {
        std::size_t size = 0;  ///< threads that have not ended
        bool stop_requested = false;
    };

    /// Errors:        `std::invalid_argument` if `report_after` is negative
    explicit thread_group(thread_group_options options = {});
    /// Stopped with the token of a host's thread.
    explicit thread_group(const std::stop_token& parent, thread_group_options options = {}) : thread_group(options) {
        std_parent_.emplace(parent, stops{this});
    }
    /// Stopped with a scope: its `token()`, whose source outlives this.
    explicit thread_group(inplace_stop_token parent, thread_group_options options = {}) : thread_group(options) {
        parent_.emplace(parent, stops{this});
    }
    thread_group(const thread_group&) = delete;
    thread_group& operator=(const thread_group&) = delete;
    ~thread_group();

    /// Starts a thread that calls `f()`, or `f(std::stop_token)` if it takes one. An exception that leaves it stops the
    /// group; `canceled` after a stop is an ordinary end.
    /// Returns:       false, with nothing started, once the group is stopped
    /// Errors:        `std::system_error` if the thread cannot be started
    template <class F>
        requires std::invocable<std::decay_t<F>&, std::stop_token> || std::invocable<std::decay_t<F>&>
    bool spawn(std::string_view name, F&& f);

    /// Asks all threads to stop, and refuses new ones.
    /// Returns:       whether this was the first
    bool request_stop() noexcept;
    [[nodiscard]] bool stop_requested() const noexcept { return stop_.stop_requested(); }
    [[nodiscard]] std::stop_token stop_token() const noexcept { return stop_.get_token(); }

    /// Waits until all threads have ended. Asks nobody to stop.
    /// Errors:        throws the first exception that left a thread, once; `std::logic_error` in one of its own threads
    void join();

    /// Threads that have not ended.
    [[nodiscard]] std::size_t size() const {
        const std::lock_guard lock(mutex_);
        return running_;
    }
    /// Both at one time.
    [[nodiscard]] snapshot stats() const noexcept {
        const std::lock_guard lock(mutex_);
        return {running_, stop_.stop_requested()};
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    /// What metrics are told.
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.gauge("size", now.size, "Threads that have not ended.");
        sink.gauge("stop_requested", now.stop_requested, "Whether the group was asked to stop.");
    }

private:
    struct member {
        std::string name;
        std::thread thread;
        bool ended = false;
    };
    struct stops {
        thread_group* group;
        void operator()() const noexcept { group->request_stop(); }
    };

    template <class F>
    void run(member& self, std::unique_ptr<F> f) noexcept;
    void ended(member& self, std::exception_ptr error) noexcept;
    void wait(std::unique_lock<std::mutex>& lock);
    [[nodiscard]] bool is_own_thread() const;
    [[nodiscard]] clock::time_point report_at() const noexcept;
    void report_late(std::unique_lock<std::mutex>& lock);

    const thread_group_options options_;
    const std::string name_;
    std::stop_source stop_;

    mutable std::mutex mutex_;
    std::condition_variable changed_;
    std::list<member> members_;                     // under mutex_: until they are joined
    std::size_t running_ = 0;                       // under mutex_
    bool joining_ = false;                          // under mutex_: somebody joins those who have ended
    bool reported_ = false;                         // under mutex_
    std::optional<clock::time_point> stopped_at_;   // under mutex_
    std::exception_ptr error_;                      // under mutex_: the first

    std::optional<std::stop_callback<stops>> std_parent_;  // after what it stops
    std::optional<inplace_stop_callback<stops>> parent_;
};

inline thread_group::thread_group(thread_group_options options) : options_(options), name_(options.name) {
    detail::check_option(options.report_after >= clock::duration::zero(), "thread_group", "report_after",
                         options.report_after, "are 0 and more");
}

inline thread_group::~thread_group() {
    std_parent_.reset();
    parent_.reset();
    if (is_own_thread()) detail::fail("thread_group \"" + name_ + "\" destroyed by one of its own threads");
    request_stop();
    std::unique_lock lock(mutex_);
    wait(lock);
}

template <class F>
    requires std::invocable<std::decay_t<F>&, std::stop_token> || std::invocable<std::decay_t<F>&>
bool thread_group::spawn(std::string_view name, F&& f) {
    std::list<member> made(1);
    member& self = made.front();
    self.name = name;
    auto kept = std::make_unique<std::decay_t<F>>(std::forward<F>(f));  // neither copied nor destroyed under the lock
    std::list<member> done;
    std::unique_lock lock(mutex_);  // the thread cannot end before it is counted
    if (stop_.stop_requested()) return false;
    self.thread = std::thread([this, &self, at = kept.get()] {
        detail::name_this_thread(self.name);
        run(self, std::unique_ptr<std::decay_t<F>>(at));
    });
    static_cast<void>(kept.release());
    for (auto m = members_.begin(); m != members_.end();)
        if (const auto at = m++; at->ended) done.splice(done.end(), members_, at);
    members_.splice(members_.end(), made);
    ++running_;
    lock.unlock();
    for (member& m : done) m.thread.join();  // so that a group that lives long does not keep those who have ended
    return true;
}

template <class F>
void thread_group::run(member& self, std::unique_ptr<F> f) noexcept {
    std::exception_ptr error;
    const auto call = [&] {
        if constexpr (std::invocable<F&, std::stop_token>) static_cast<void>((*f)(stop_.get_token()));
        else static_cast<void>((*f)());
    };
#if defined(__cpp_exceptions)
    try {
        call();
    } catch (const canceled&) {
        if (!stop_.stop_requested()) error = std::current_exception();
    } catch (...) {
        error = std::current_exception();
    }
#else
    call();
#endif
    f.reset();  // before this thread counts as ended: what is destroyed may spawn another one here
    ended(self, std::move(error));
}

inline void thread_group::ended(member& self, std::exception_ptr error) noexcept {
    if (error != nullptr) {
        {
            const std::lock_guard lock(mutex_);
            if (error_ == nullptr) error_ = error;
        }
        error = nullptr;
        request_stop();
    }
    const std::lock_guard lock(mutex_);
    self.ended = true;
    --running_;
    changed_.notify_all();
}

inline bool thread_group::request_stop() noexcept {
    {
        const std::lock_guard lock(mutex_);
        if (!stopped_at_) stopped_at_ = std::chrono::steady_clock::now();  // threads run in real time
        changed_.notify_all();  // who waits has a report to make later
    }
    return stop_.request_stop();
}

inline void thread_group::join() {
    if (is_own_thread())
        detail::raise(std::logic_error("thread_group \"" + name_ + "\" joined by one of its own threads"),
                      "thread_group: joined by one of its own threads");
    std::unique_lock lock(mutex_);
    wait(lock);
    const std::exception_ptr error = std::exchange(error_, nullptr);
    lock.unlock();
#if defined(__cpp_exceptions)
    if (error != nullptr) std::rethrow_exception(error);
#endif
}

/// Waits until nobody runs, nor anybody else joins those who did, and joins them.
inline void thread_group::wait(std::unique_lock<std::mutex>& lock) {
    while (running_ != 0 || joining_) {
        const clock::time_point at = report_at();
        if (at == (clock::time_point::max)()) changed_.wait(lock);
        else if (changed_.wait_until(lock, at) == std::cv_status::timeout) report_late(lock);
    }
    joining_ = true;
    std::list<member> done;
    done.swap(members_);
    lock.unlock();
    for (member& m : done) m.thread.join();
    lock.lock();
    joining_ = false;
    changed_.notify_all();
}

/// Under mutex_: when to report who is late; `max` if there is nothing to report.
inline clock::time_point thread_group::report_at() const noexcept {
    constexpr auto never = (clock::time_point::max)();
    if (!stopped_at_ || reported_ || running_ == 0 || options_.on_late == nullptr) return never;
    return options_.report_after < never - *stopped_at_ ? *stopped_at_ + options_.report_after : never;
}

inline void thread_group::report_late(std::unique_lock<std::mutex>& lock) {
    if (report_at() == (clock::time_point::max)()) return;
    reported_ = true;
    const auto late_by = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now() - *stopped_at_);
    std::string text = "thread_group \"" + name_ + "\": " + std::to_string(running_) + " threads have not ended " +
                       std::to_string(late_by.count()) + " ms after the stop:";
    for (const member& m : members_)
        if (!m.ended) text += " \"" + m.name + '"';
    lock.unlock();
    options_.on_late(text);
    lock.lock();
}

inline bool thread_group::is_own_thread() const {
    const std::lock_guard lock(mutex_);
    for (const member& m : members_)
        if (m.thread.get_id() == std::this_thread::get_id()) return true;
    return false;
}

}  // namespace cordon::inline CORDON_ABI

#endif
