// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/detail/spin_lock.hpp>
#include <cordon/core/operation.hpp>

#include <atomic>
#include <coroutine>
#include <cstddef>
#include <deque>
#include <optional>
#include <source_location>
#include <tuple>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// T, or `std::monostate` in the place of void.
template <class T>
using regular_t = std::conditional_t<std::is_void_v<T>, std::monostate, T>;

/// The value of an outcome that has one.
template <class T>
regular_t<T> regular(outcome<T>& o) {
    if constexpr (std::is_void_v<T>) return std::monostate();
    else return *std::move(o);
}

/// What several branches under one stop have in common: `when_all` and `when_any` are made of it.
class branch_scope {
public:
    explicit branch_scope(bool first_value_wins) noexcept : first_value_wins_(first_value_wins) {}
    branch_scope(const branch_scope&) = delete;
    branch_scope& operator=(const branch_scope&) = delete;

    /// Opens the scope for `branches` branches below `r`.
    void open(receiver_ref r, std::size_t branches) noexcept {
        up_ = r;
        left_.store(branches + 1, std::memory_order_relaxed);  // one for the start itself
        scope_.emplace(context_access::scope_of(r.ctx()));
        scope_->arm();
        context_ = context_access::with_scope(r.ctx(), *scope_);
    }
    /// After all branches have been submitted.
    /// Returns:       what to return from `await_suspend`
    std::coroutine_handle<> opened() noexcept {
        return left_.fetch_sub(1, std::memory_order_acq_rel) == 1 ? finish() : std::noop_coroutine();
    }

    [[nodiscard]] const context& ctx() const noexcept { return context_; }
    [[nodiscard]] bool stop_requested() noexcept { return scope_->source().stop_requested(); }
    [[nodiscard]] receiver_ref up() const noexcept { return up_; }
    static constexpr std::size_t none = static_cast<std::size_t>(-1);
    [[nodiscard]] std::size_t winner() const noexcept { return winner_.load(std::memory_order_relaxed); }
    [[nodiscard]] std::size_t first_failed() const noexcept { return failed_.load(std::memory_order_relaxed); }

    enum class end { value, failure, stop };

    /// Has a branch that was not stopped take its outcome, unless another has won: one after the other, so that no
    /// value is taken and then dropped. `take` tells whether it is a value.
    /// Returns:       false if `take` was not called; what can go back then, as a channel's item can, does so with the
    ///                state
    template <class Take>
    bool let_take(std::size_t index, Take take) noexcept {
        if (!first_value_wins_) {
            (void)take();
            return true;
        }
        const spin_guard guard(deciding_);
        if (winner() != none) return false;
        if (take()) winner_.store(index, std::memory_order_relaxed);
        return true;
    }

    /// Tells that a branch has ended. The last one tells who awaits.
    std::coroutine_handle<> branch_ended(std::size_t index, end how) noexcept {
        std::size_t first = none;
        if (how == end::value) {
            if (first_value_wins_)
                scope_->source().request_stop(stop_reason{stop_kind::closed, 0, {}});
        } else if (how == end::failure) {
            if (failed_.compare_exchange_strong(first, index, std::memory_order_relaxed) && !first_value_wins_)
                scope_->source().request_stop(stop_reason{stop_kind::failure, 0, {}});
        } else {
            stopped_.store(true, std::memory_order_relaxed);
            if (!first_value_wins_) scope_->source().request_stop(stop_reason{stop_kind::closed, 0, {}});
        }
        return left_.fetch_sub(1, std::memory_order_acq_rel) == 1 ? finish() : std::noop_coroutine();
    }

private:
    class fan_scope final : public scope {
    public:
        using scope::scope;
        ~fan_scope() { close(); }
        void close() noexcept { unlink_from_parent(); }
    };

    std::coroutine_handle<> finish() noexcept {
        scope_->close();
        const bool failed = first_failed() != none;
        return home_.go(up_, first_value_wins_ ? winner() == none && !failed
                                               : !failed && stopped_.load(std::memory_order_relaxed));
    }

    receiver_ref up_;
    std::optional<fan_scope> scope_;
    context context_;
    homecoming home_;
    // Each branch counts down once, and its writes are seen by the last one (acq_rel); the rest needs no order.
    std::atomic<std::size_t> left_{0};
    std::atomic<std::size_t> winner_{none};  // written under deciding_
    std::atomic<std::size_t> failed_{none};
    std::atomic<bool> stopped_{false};
    spin_lock deciding_;
    const bool first_value_wins_;
};

/// One of several operations that run at the same time, with a record of its own.
template <operation O>
class branch : private receiver, private work_item {
public:
    using value_type = typename O::value_type;

    explicit branch(O&& op) : receiver(nullptr, nullptr, {}, &branch::ended), work_item(&branch::begin), state_(std::move(op)) {}
    ~branch() { close(); }

    void start(branch_scope& s, std::size_t index) noexcept {
        scope_ = &s;
        index_ = index;
        ctx = &s.ctx();
        up = s.up();
        const promise_base* const site = up.promise();
        record = task_record::open(false, {}, site != nullptr ? site->site : std::source_location(), up.record(),
                                   coarse_now_ms());
        submit(*ctx, *this);
    }
    /// Requires: all branches have ended.
    [[nodiscard]] outcome<value_type>& result() noexcept { return *result_; }

private:
    static void begin(work_item& item) noexcept {
        auto& self = static_cast<branch&>(item);
        if (self.record != nullptr) self.record->running();
        if (self.scope_->stop_requested()) return resume(self.end(true));  // never starts
        if (self.state_.ready()) return resume(self.end(false));
        resume(self.state_.start(receiver_ref(static_cast<receiver&>(self))));
    }
    static std::coroutine_handle<> ended(receiver& r, promise_base* child, bool stopped) noexcept {
        auto& self = static_cast<branch&>(r);
        if (stopped) discard(child);
        return self.end(stopped);
    }
    std::coroutine_handle<> end(bool stopped) noexcept {
        const auto take = [this] { return result_.emplace(state_.take()).has_value(); };
        if (stopped || !scope_->let_take(index_, take)) result_.emplace(outcome<value_type>::stopped());
        close();
        return scope_->branch_ended(index_, result_->has_value()    ? branch_scope::end::value
                                            : result_->is_stopped() ? branch_scope::end::stop
                                                                    : branch_scope::end::failure);
    }
    void close() noexcept {
        if (record != nullptr) std::exchange(record, nullptr)->close();
    }

    branch_scope* scope_ = nullptr;
    std::size_t index_ = 0;
    typename O::state state_;
    std::optional<outcome<value_type>> result_;
};

/// Branches of different types, made from their descriptions where they stay.
template <operation... O>
class branches {
public:
    explicit branches(std::tuple<O...>&& ops) : branches(std::move(ops), std::index_sequence_for<O...>()) {}

    template <class F>
    decltype(auto) all(F&& f) {
        return std::apply(std::forward<F>(f), branches_);
    }
    template <class F>
    void each(F&& f) {
        std::apply([&](auto&... b) { (f(b), ...); }, branches_);
    }

private:
    template <std::size_t... I>
    branches(std::tuple<O...>&& ops, std::index_sequence<I...>) : branches_(std::get<I>(std::move(ops))...) {}

    std::tuple<branch<O>...> branches_;
};

/// Branches of one type.
template <operation O>
class branch_range {
public:
    explicit branch_range(std::vector<O>&& ops) {
        for (O& op : ops) branches_.emplace_back(std::move(op));
    }
    std::coroutine_handle<> start(branch_scope& s, receiver_ref r) noexcept {
        s.open(r, branches_.size());
        std::size_t index = 0;
        for (auto& b : branches_) b.start(s, index++);
        return s.opened();
    }
    [[nodiscard]] bool empty() const noexcept { return branches_.empty(); }
    [[nodiscard]] std::size_t size() const noexcept { return branches_.size(); }
    branch<O>& operator[](std::size_t i) noexcept { return branches_[i]; }
    auto begin() noexcept { return branches_.begin(); }
    auto end() noexcept { return branches_.end(); }

private:
    std::deque<branch<O>> branches_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
