// SPDX-License-Identifier: MIT
#pragma once

// What guards and policies are built on: a call whose end is looked at before anybody takes it.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>

#include <coroutine>
#include <memory>
#include <optional>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// What a call is judged by: a classifier, or where it lies.
template <class Classifier>
class judge {
public:
    explicit judge(const Classifier& c) noexcept : classifier_(&c) {}
    template <class T>
    [[nodiscard]] verdict operator()(const outcome<T>& o) const noexcept {
        return (*classifier_)(o);
    }
    template <class T>
    [[nodiscard]] verdict of_value(const T& value) const noexcept {
        return classifier_->of_value(value);
    }
    static constexpr bool judges_rejections = Classifier::judges_rejections;

private:
    const Classifier* classifier_;
};
template <class Classifier>
    requires(std::is_empty_v<Classifier> && std::is_nothrow_copy_constructible_v<Classifier>)
class judge<Classifier> : public Classifier {
public:
    explicit judge(const Classifier& c) noexcept : Classifier(c) {}
};

/// For calls outside a pipeline.
inline constexpr outcome_classifier<> shared_classifier{};

/// The state of a call, its verdict, and its outcome, which may be replaced. A value that the state can show stays
/// where it is, so that it is moved once, however many policies look at it.
template <operation O>
class judged_call {
    using state = typename O::state;

public:
    using value_type = typename O::value_type;

    explicit judged_call(O&& op) noexcept(std::is_nothrow_constructible_v<state, O&&>) : state_(std::move(op)) {}

    bool ready() noexcept { return state_.ready(); }
    std::coroutine_handle<> start(receiver_ref r) noexcept { return state_.start(r); }

    /// Requires:      it has ended, not stopped
    template <class Judge>
    [[nodiscard]] verdict judged_by(const Judge& judge) noexcept {
        if constexpr (shows_value<state>) {
            if (state_.has_value()) [[likely]] {
                shown_ = true;
                if constexpr (std::is_void_v<value_type>) return verdict::success;
                else return judge.of_value(state_.peek());
            }
        }
        return kept_and_judged_by(judge);
    }
    /// The outcome, if it is no value.
    [[nodiscard]] const outcome<value_type>* failure() const noexcept {
        return kept_ && !kept_->has_value() ? &*kept_ : nullptr;
    }
    /// The value, if it is one. Requires:      T is not void
    [[nodiscard]] const auto* value() const noexcept {
        if (kept_) return kept_->has_value() ? std::addressof(**kept_) : nullptr;
        if constexpr (shows_value<state>) return state_.has_value() ? std::addressof(state_.peek()) : nullptr;
        else return static_cast<decltype(std::addressof(**kept_))>(nullptr);
    }
    /// Replaces the outcome, or gives one to a call that is never made.
    void end_with(outcome<value_type>&& o) noexcept {
        shown_ = false;
        kept_.emplace(std::move(o));
    }
    /// Forgets the outcome and what led to it: `ready()` calls once more.
    void again() noexcept {
        shown_ = false;
        kept_.reset();
        state_.drop();
    }

    [[nodiscard]] outcome<value_type> take() noexcept { return kept_ ? *std::move(kept_) : state_.take(); }
    value_type get() {
        if (kept_) [[unlikely]] return (*std::move(kept_)).value();
        if constexpr (requires { state_.get(); }) return state_.get();
        else return state_.take().value();
    }
    [[nodiscard]] bool has_value() const noexcept
        requires shows_value<state>
    {
        return shown_ || (kept_ ? kept_->has_value() : state_.has_value());
    }
    [[nodiscard]] const auto& peek() const noexcept
        requires shows_value<state>
    {
        return kept_ ? **kept_ : state_.peek();
    }

private:
    template <class Judge>
    CORDON_NOINLINE verdict kept_and_judged_by(const Judge& judge) noexcept {
        kept_.emplace(state_.take());
        return judge(*kept_);
    }

    state state_;
    std::optional<outcome<value_type>> kept_;
    bool shown_ = false;  ///< it was seen that the state has a value: whoever judges further out need not look as deep
};

/// What the states of all policies have in common: a judged call, and the receiver below it.
template <operation O>
class policy_state : protected receiver {
public:
    using value_type = typename O::value_type;

    outcome<value_type> take() noexcept { return call_.take(); }
    value_type get() { return call_.get(); }
    [[nodiscard]] bool has_value() const noexcept
        requires shows_value<judged_call<O>>
    {
        return call_.has_value();
    }
    [[nodiscard]] const auto& peek() const noexcept
        requires shows_value<judged_call<O>>
    {
        return call_.peek();
    }

protected:
    policy_state(O&& op, done_function ended) : receiver(ended), call_(std::move(op)) {}

    void enter(receiver_ref r) noexcept {
        ctx = &r.ctx();
        record = r.record();
        up = r;
    }
    [[nodiscard]] receiver_ref here() noexcept { return receiver_ref(static_cast<receiver&>(*this)); }

    judged_call<O> call_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
