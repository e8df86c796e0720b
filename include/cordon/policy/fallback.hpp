// SPDX-License-Identifier: MIT
#pragma once

// Answers in the place of a call that failed.
//
//     pipeline(fallback([](const failure&) { return std::string("unknown"); }), retry(3), breaker)

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/failure.hpp>

#include <atomic>
#include <concepts>
#include <coroutine>
#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {

struct fallback_options {
    std::string_view name = {};
};

namespace detail {

template <operation O, class Judge, class F>
class fallback_operation;

}  // namespace detail

/// Made by `fallback(f)`. When the call further in fails, or is refused, the result is `f(failure)` instead, which is a
/// value or something to await. What counts as nothing is left alone: a `std::logic_error`, and what the pipeline
/// ignores.
/// Errors:        what `f` throws is the outcome; a `rejected` is a refusal, and a `canceled` a stop. So is what the
///                conversion of its answer throws
/// Cancellation:  a stop is not answered in its place
/// Threads:       all members from any; moved while nobody uses it. `f` is called on the thread of the call, perhaps on
///                several at once
/// Lifetime:      outlives its calls
/// Cost:          no frame of its own
template <class F>
class fallback_policy {
public:
    static constexpr std::string_view kind = "fallback";

    struct snapshot {
        std::uint64_t answered = 0;  ///< calls that had its answer, since it was made
        std::uint64_t failed = 0;    ///< those for which it had none: `f` threw, or refused
    };

    explicit fallback_policy(F f, const fallback_options& options = {}) : f_(std::move(f)), name_(options.name) {}
    fallback_policy(fallback_policy&& other) noexcept(std::is_nothrow_move_constructible_v<F>)
        : f_(std::move(other.f_)), answered_(other.stats().answered), failed_(other.stats().failed),
          name_(std::move(other.name_)) {}

    template <detail::makes_awaitable Call, class Classifier = outcome_classifier<>>
    [[nodiscard]] auto operator()(Call&& call, const Classifier& classify = detail::shared_classifier) const {
        using op = decltype(detail::call_of(std::forward<Call>(call)));
        return detail::fallback_operation<op, detail::judge<Classifier>, F>(
            *this, detail::call_of(std::forward<Call>(call)), detail::judge<Classifier>(classify));
    }

    [[nodiscard]] std::string_view name() const noexcept { return name_; }
    [[nodiscard]] snapshot stats() const noexcept {
        return {answered_.load(std::memory_order_relaxed), failed_.load(std::memory_order_relaxed)};
    }
    template <class Sink>
    void report(Sink& sink) const {
        const snapshot now = stats();
        sink.counter("answered", now.answered, "Calls that were answered in their place.");
        sink.counter("failed", now.failed, "Calls that failed, and their fallback as well.");
    }

private:
    template <operation O, class Judge, class Function>
    friend class detail::fallback_operation;

    F f_;
    mutable std::atomic<std::uint64_t> answered_{0}, failed_{0};
    std::string name_;
};

template <class F>
[[nodiscard]] fallback_policy<F> fallback(F f, const fallback_options& options = {}) {
    static_assert(std::invocable<const F&, const failure&>,
                  "fallback: the function takes the failure, and is const: [](const failure& why) { return ...; }");
    return fallback_policy<F>(std::move(f), options);
}

namespace detail {

/// A fallback that has to be awaited.
template <class F>
class fallback_call {
public:
    fallback_call(const F& f, failure&& why) noexcept : f_(&f), why_(std::move(why)) {}
    decltype(auto) operator()() { return (*f_)(std::as_const(why_)); }

private:
    const F* f_;
    failure why_;
};

/// Where the state of that call is; of a fallback that answers at once, whether its answer is a stop.
template <class F, bool awaits>
struct fallback_answer {
    bool stopped = false;
};
template <class F>
struct fallback_answer<F, true> {
    std::optional<typename call_operation<fallback_call<F>>::state> state;
};

template <operation O, class Judge, class F>
class fallback_operation : public operation_base<fallback_operation<O, Judge, F>> {
    using answer = std::invoke_result_t<const F&, const failure&>;
    static constexpr bool awaits = awaitable<answer>;
    static constexpr bool answers_void = std::is_void_v<typename O::value_type>;
    template <class Given>
    static constexpr bool fits =
        answers_void ? std::is_void_v<Given> : std::is_convertible_v<Given, typename O::value_type>;
    static_assert(
        [] {
            if constexpr (awaits) return fits<typename operation_for<answer>::value_type>;
            else return fits<answer>;
        }(),
        "fallback: the function returns neither what the call gives nor something to await that gives it");

public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = [] {
        if constexpr (awaits) return O::needs_executor || operation_for<answer>::needs_executor;
        else return O::needs_executor;
    }();

    fallback_operation(const fallback_policy<F>& p, O&& op, const Judge& judge)
        : policy_(&p), op_(std::move(op)), judge_(judge) {}

    class state : public policy_state<O> {
    public:
        explicit state(fallback_operation&& f)
            : policy_state<O>(std::move(f.op_), &state::ended), policy_(f.policy_), judge_(f.judge_) {}

        bool ready() noexcept { return this->call_.ready() && settled(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            if constexpr (awaits) {
                if (answer_.state) return answer_.state->start(this->here());
            } else {
                if (answer_.stopped) [[unlikely]] return r.stop_later();
            }
            return this->call_.start(this->here());
        }

    private:
        /// Of a call that has ended: whether nothing is left to wait for. A stop is waited for.
        bool settled() noexcept {
            const verdict v = this->call_.judged_by(judge_);
            return v == verdict::success || answered(v);
        }
        CORDON_NOINLINE bool answered(verdict v) noexcept {
            const outcome<value_type>* const failed = this->call_.failure();
            const bool refused = failed != nullptr && failed->is_rejected() && !Judge::judges_rejections;
            if (v != verdict::failure && !refused) return true;
            failure why(failed);
            if constexpr (awaits) {
                answer_.state.emplace(call_operation<fallback_call<F>>(fallback_call<F>(policy_->f_, std::move(why))));
                if (!answer_.state->ready()) return false;
                take_answer();
            } else {
                say(why);
                if (answer_.stopped) [[unlikely]] return false;
            }
            return true;
        }
        void say(const failure& why) noexcept {
#if defined(__cpp_exceptions)
            try {
                end_with(said(why));
            } catch (const canceled&) {
                answer_.stopped = true;
            } catch (const rejected& r) {
                end_with(outcome<value_type>(r.rejection()));
            } catch (...) {
                end_with(outcome<value_type>(std::current_exception()));
            }
#else
            end_with(said(why));
#endif
        }
        void end_with(outcome<value_type>&& o) noexcept {
            (o.has_value() ? policy_->answered_ : policy_->failed_).fetch_add(1, std::memory_order_relaxed);
            this->call_.end_with(std::move(o));
        }
        outcome<value_type> said(const failure& why) {
            if constexpr (answers_void) {
                policy_->f_(why);
                return {};
            } else {
                return value_of(policy_->f_(why));
            }
        }
        void take_answer() noexcept {
            auto got = answer_.state->take();
            if (!got.has_value()) end_with(as_failure<value_type>(got));
            else if constexpr (answers_void) end_with({});
            else {
                auto converted = outcome_of([&] { return value_of(*std::move(got)); });
                end_with(converted.has_value() ? *std::move(converted) : as_failure<value_type>(converted));
            }
        }
        template <class Given>
        static outcome<value_type> value_of(Given&& given) {
            if constexpr (std::is_reference_v<value_type>)
                return outcome<value_type>(std::in_place, std::addressof(static_cast<value_type>(given)));
            else return outcome<value_type>(std::in_place, static_cast<value_type>(std::forward<Given>(given)));
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] {
                discard(child);
                return s.up.stop();
            }
            if constexpr (awaits) {
                if (s.answer_.state) {
                    s.take_answer();
                    return s.up.complete();
                }
                if (!s.settled()) return s.answer_.state->start(s.here());
            } else {
                if (!s.settled()) [[unlikely]] return s.up.stop_later();
            }
            return s.up.complete();
        }

        const fallback_policy<F>* policy_;
        [[no_unique_address]] Judge judge_;
        fallback_answer<F, awaits> answer_;
    };

private:
    const fallback_policy<F>* policy_;
    O op_;
    [[no_unique_address]] Judge judge_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
