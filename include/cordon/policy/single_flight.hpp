// SPDX-License-Identifier: MIT
#pragma once

// Makes one call for all who ask the same at the same time: when a value is missing from a cache, its service is asked
// once and not by everybody.
//
//     single_flight<std::string, reply> flights{{.name = "stock"}};
//     const reply r = co_await flights.for_key(name)([&] { return client.get(name); });

#include <cordon/core/awaitable.hpp>
#include <cordon/core/clock.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/intrusive_list.hpp>
#include <cordon/core/detail/one_shot.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/detail/random.hpp>
#include <cordon/core/detail/thread_state.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/core/this_task.hpp>
#include <cordon/policy/detail/flat_operation.hpp>
#include <cordon/scope/as_outcome.hpp>

#include <array>
#include <atomic>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct single_flight_options {
    std::string_view name = {};
};

/// The first who asks for a key makes the call, in its own context; who asks meanwhile waits, and has a copy of what
/// came of it: value, error or refusal.
///
/// One that waits is not stopped because the first was, nor timed out because that had less time: the next in the queue
/// makes the call then. So does the first of them who has the time that a limiter asked for (`retry_after`), if the one
/// that called was refused as `rate_limited` because it had not. A call that asks for its own key waits for itself.
/// Requires:      comparisons and hashes of keys, and moves of values, do not use this: they run under its mutex
/// Errors:        what a comparison or a hash throws is an error of the call
/// Threads:       all members from any
/// Order:         those who wait take over first come, first served
/// Lifetime:      outlives its calls
/// Cost:          a frame of the frame cache for each call; a mutex when it begins and when it ends, and a walk over
///                the keys that are in flight in one of 64 lists; for each who waits a copy of the value, the mutex,
///                and an addition that counts it. No allocation but what a copy of a key does
template <class Key, std::copyable T>
class single_flight {
    class bound;
    class member;

public:
    static constexpr std::string_view kind = "single_flight";

    struct snapshot {
        std::size_t in_flight = 0;      ///< keys
        std::size_t waiting = 0;
        // Since it was made:
        std::uint64_t calls = 0;        ///< that were made
        std::uint64_t shared = 0;       ///< those that were not, but had the outcome of another
        std::uint64_t handed_over = 0;  ///< of `calls`: in the place of one that was stopped, or short of time
    };

    explicit single_flight(const single_flight_options& options = {}) : name_(options.name) {}
    single_flight(const single_flight&) = delete;
    single_flight& operator=(const single_flight&) = delete;
    ~single_flight() {
        if (const snapshot now = stats(); now.in_flight != 0) [[unlikely]]
            detail::fail_in_use("single_flight", name_, now.waiting, now.in_flight);
    }

    /// A policy for calls that ask for `key`.
    [[nodiscard]] bound for_key(Key key) CORDON_LIFETIME_BOUND { return bound(*this, std::move(key)); }

    [[nodiscard]] snapshot stats() const noexcept {
        const std::lock_guard lock(mutex_);
        snapshot now = counts_;
        now.shared = shared_.load(std::memory_order_relaxed);
        return now;
    }
    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("calls", now.calls, "Calls that were made.");
        sink.counter("shared", now.shared, "Calls that had the outcome of another.");
        sink.counter("handed_over", now.handed_over, "Calls that were made in the place of others.");
        sink.gauge("in_flight", now.in_flight, "Keys that are asked for.");
        sink.gauge("waiting", now.waiting, "Calls that wait for another.");
    }

private:
    using list = detail::intrusive_list<member>;
    /// What a waiting call is told: the outcome, or nothing, and then it makes the call itself.
    using told = std::optional<outcome<T>>;

    [[nodiscard]] list& list_of(const Key& key) {
        return flights_[static_cast<std::size_t>(detail::mixed(std::hash<Key>()(key))) % flights_.size()];
    }
    /// Returns:       whether it is the first
    [[nodiscard]] bool join(member& m);
    void finish(member& first, const outcome<T>& ended) noexcept;
    void leave(member& m) noexcept;
    [[nodiscard]] static member* with_more_time(const member& first, const outcome<T>& ended) noexcept;
    void hand_over(member& from, member& next) noexcept;
    void took_over() noexcept;
    template <class Call>
    task<outcome<T>> run(Key key, Call call);

    // F1 A member is in a list of flights_ if it is the first for its key, else in the list of the one that is, or was
    //    and tells the others, else in none: all under the mutex. So there is one first for each key.
    // F2 A member is told under the mutex, and takes itself out under it before it dies; copies are made without it.
    mutable std::mutex mutex_;
    std::array<list, 64> flights_;  // this and the rest under mutex_
    snapshot counts_;
    std::atomic<std::uint64_t> shared_{0};  // by who has the outcome: one that is told may have been stopped by then
    std::string name_;
};

template <class Key, std::copyable T>
class single_flight<Key, T>::bound {
public:
    template <detail::makes_awaitable Call>
    [[nodiscard]] auto operator()(Call&& call) const {
        detail::check_callable<Call>();
        using kept = detail::kept_call<Call>;
        static_assert(std::is_same_v<await_result_t<std::invoke_result_t<kept&>>, T>,
                      "single_flight: the call does not give what it is to share");
        return detail::flat_operation<task<outcome<T>>>(
            flights_->template run<kept>(key_, kept(std::forward<Call>(call))));
    }

private:
    friend class single_flight;
    bound(single_flight& f, Key&& key) : flights_(&f), key_(std::move(key)) {}

    single_flight* flights_;
    Key key_;
};

namespace detail {
inline constinit const wait_label flight_label{"single_flight"};
}

/// Who asks, in the frame of its call.
template <class Key, std::copyable T>
class single_flight<Key, T>::member : public detail::list_hook {
public:
    member(single_flight& f, const Key& k, deadline d) noexcept : key(&k), until(d), flights_(&f) {}
    ~member() {
        if (!over) flights_->leave(*this);
    }

    const Key* key;
    const deadline until;
    list* among = nullptr;  // under the mutex: the list of flights_ for its key
    list behind;            // of the first, under the mutex: those who wait
    bool is_first = false;  // under the mutex
    bool over = false;      // its own task's: it is in no list, and knows it
    detail::one_shot<told> result;

private:
    single_flight* flights_;
};

template <class Key, std::copyable T>
bool single_flight<Key, T>::join(member& m) {
    const std::lock_guard lock(mutex_);
    list& flights = *(m.among = &list_of(*m.key));
    member* first = flights.empty() ? nullptr : &flights.front();
    while (first != nullptr && !(*first->key == *m.key)) first = flights.after(*first);
    if (first != nullptr) {
        first->behind.push_back(m);
        ++counts_.waiting;
        return false;
    }
    flights.push_back(m);
    ++counts_.in_flight;
    ++counts_.calls;
    return m.is_first = true;
}
template <class Key, std::copyable T>
void single_flight<Key, T>::finish(member& first, const outcome<T>& ended) noexcept {
    bool more = false;
    {
        const detail::deferred_wakes until_unlocked;
        const std::lock_guard lock(mutex_);
        list::remove(first);  // who comes now makes a call of its own
        first.over = true;
        if (member* const next = with_more_time(first, ended)) return hand_over(first, *next);
        --counts_.in_flight;
        more = !first.behind.empty();
    }
    while (more) {
        auto copy = detail::outcome_of([&] { return told(ended); });  // which may throw, or use this
        outcome<told> result = copy.has_value() ? std::move(copy) : outcome<told>(told(detail::as_failure<T>(copy)));
        const detail::deferred_wakes until_unlocked;
        const std::lock_guard lock(mutex_);
        if (first.behind.empty()) return;  // F2: they have left meanwhile
        member& next = first.behind.pop_front();
        --counts_.waiting;
        next.result.set(std::move(result));
        more = !first.behind.empty();
    }
}
/// One that has not ended its call, or waits, is gone.
template <class Key, std::copyable T>
void single_flight<Key, T>::leave(member& m) noexcept {
    const detail::deferred_wakes until_unlocked;
    const std::lock_guard lock(mutex_);
    if (!m.linked()) return;  // it was told, and did not live to see it
    list::remove(m);
    if (!m.is_first) {
        --counts_.waiting;
        return;
    }
    if (m.behind.empty()) {
        --counts_.in_flight;
        return;
    }
    hand_over(m, m.behind.front());
}
/// Who waits behind `first` and could have what that was refused for want of time; else null. Under the mutex.
template <class Key, std::copyable T>
auto single_flight<Key, T>::with_more_time(const member& first, const outcome<T>& ended) noexcept -> member* {
    if (!ended.is_rejected() || ended.rejection().reason != reject_reason::rate_limited) return nullptr;
    const clock::time_point now = clock::now();
    const auto has_it = [&](const member& m) {
        return m.until.is_never() || (m.until.time() > now && m.until.time() - now > ended.rejection().retry_after);
    };
    if (has_it(first) || first.behind.empty()) return nullptr;
    member* m = &first.behind.front();
    while (m != nullptr && !has_it(*m)) m = first.behind.after(*m);
    return m;
}
/// Under the mutex. `from` is in no list.
template <class Key, std::copyable T>
void single_flight<Key, T>::hand_over(member& from, member& next) noexcept {
    list::remove(next);
    while (!from.behind.empty()) next.behind.push_back(from.behind.pop_front());
    next.is_first = true;
    next.among->push_back(next);
    --counts_.waiting;
    next.result.set(outcome<told>(std::in_place));
}
/// Counted by who calls: one that is handed a call may have been stopped by then.
template <class Key, std::copyable T>
void single_flight<Key, T>::took_over() noexcept {
    const std::lock_guard lock(mutex_);
    ++counts_.calls;
    ++counts_.handed_over;
}

template <class Key, std::copyable T>
template <class Call>
task<outcome<T>> single_flight<Key, T>::run(Key key, Call call) {
    const deadline until = co_await this_task::deadline();
    member me(*this, key, until);
    if (!join(me)) {
        told got = co_await me.result.wait(detail::flight_label);
        me.over = got.has_value();
        if (got) {
            shared_.fetch_add(1, std::memory_order_relaxed);
            co_return *std::move(got);
        }
        took_over();
    }
    outcome<T> ended = co_await as_outcome(detail::call_of(call));
    finish(me, ended);
    co_return ended;
}

}  // namespace cordon::inline CORDON_ABI
