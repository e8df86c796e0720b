// SPDX-License-Identifier: MIT
#pragma once

// A pipeline whose policies are not in its type: to be a member of a class, or to be chosen at run time.
//
//     any_pipeline<reply> guarded = pipeline(timeout(500ms), breaker);

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/check_callable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/frame_cache.hpp>
#include <cordon/core/detail/raise.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task.hpp>
#include <cordon/policy/detail/held_policy.hpp>

#include <concepts>
#include <coroutine>
#include <cstddef>
#include <exception>
#include <memory>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A call of any type that gives a T, as a task of it.
template <class T>
class erased_call {
public:
    template <class F>
        requires(!std::same_as<std::remove_const_t<F>, erased_call>)
    explicit erased_call(F& f) noexcept
        : f_(std::addressof(f)), make_([](void* p) -> task<T> { return as_task(*static_cast<F*>(p)); }) {}
    task<T> operator()() const { return make_(f_); }

private:
    template <class F>
    static task<T> as_task(F& f) {
        if constexpr (std::same_as<std::invoke_result_t<F&>, task<T>>) return f();
        else return wrapped(f);
    }
    template <class F>
    static task<T> wrapped(F& f) {
        if constexpr (std::is_void_v<T>) co_await f();
        else co_return co_await f();
    }

    void* f_;
    task<T> (*make_)(void*);
};

/// A running call of some pipeline.
template <class T>
class erased_operation {
public:
    virtual bool ready() noexcept = 0;
    virtual std::coroutine_handle<> start(receiver_ref r) noexcept = 0;
    virtual outcome<T> take() noexcept = 0;
    virtual void destroy() noexcept = 0;

protected:
    ~erased_operation() = default;
};
template <class T, operation O>
class erased_state final : public erased_operation<T> {
public:
    static erased_operation<T>* make(O&& op) {
        void* const memory = allocate_frame(sizeof(erased_state));
#if defined(__cpp_exceptions)
        try {
            return ::new (memory) erased_state(std::move(op));
        } catch (...) {
            deallocate_frame(memory, sizeof(erased_state));
            throw;
        }
#else
        return ::new (memory) erased_state(std::move(op));
#endif
    }
    bool ready() noexcept override { return state_.ready(); }
    std::coroutine_handle<> start(receiver_ref r) noexcept override { return state_.start(r); }
    outcome<T> take() noexcept override { return state_.take(); }
    void destroy() noexcept override {
        this->~erased_state();
        deallocate_frame(this, sizeof(erased_state));
    }

private:
    explicit erased_state(O&& op) : state_(std::move(op)) {}
    ~erased_state() = default;

    typename O::state state_;
};

template <class T>
class erased_pipeline {
public:
    virtual ~erased_pipeline() = default;
    virtual erased_operation<T>* begin(erased_call<T> call) const = 0;
};
template <class T, class Pipeline>
class kept_pipeline final : public erased_pipeline<T> {
public:
    explicit kept_pipeline(Pipeline&& p) : pipeline_(std::move(p)) {}
    erased_operation<T>* begin(erased_call<T> call) const override {
        check_policy_around<const Pipeline&, erased_call<T>&>();
        using op = operation_for<decltype(pipeline_(call))>;
        return erased_state<T, op>::make(operation_of(pipeline_(call)));
    }

private:
    Pipeline pipeline_;
};

}  // namespace detail

/// Any pipeline, or policy, around calls that give a T: moved in, or copied. To refer to one that has a name, give it
/// `pipeline(p)`. Copies share what is inside.
/// Errors:        a call of an empty one terminates
/// Lifetime:      outlives its calls; what its pipeline refers to outlives it and its copies
/// Threads:       any number of calls at the same time; assigned to while nobody calls
/// Cost:          one allocation when it is made; for each call a block of the frame cache and a few indirect calls,
///                and a frame for a callable that does not return a `task<T>`
template <class T>
class any_pipeline {
public:
    any_pipeline() noexcept = default;
    template <class Pipeline>
        requires(!std::same_as<std::remove_cvref_t<Pipeline>, any_pipeline> &&
                 std::invocable<const std::remove_cvref_t<Pipeline>&, detail::erased_call<T>>)
    any_pipeline(Pipeline&& p) {
        using kept = std::remove_cvref_t<Pipeline>;
        if constexpr (std::constructible_from<kept, Pipeline>) {
            pipeline_ = std::make_shared<detail::kept_pipeline<T, kept>>(kept(std::forward<Pipeline>(p)));
        } else {
            static_assert(std::constructible_from<kept, Pipeline>,
                          "any_pipeline: what has a name and cannot be copied is moved in, with std::move(p), or "
                          "referred to, with pipeline(p)");
        }
    }

    [[nodiscard]] explicit operator bool() const noexcept { return pipeline_ != nullptr; }

    template <class F>
        requires detail::makes_awaitable<std::decay_t<F>>
    [[nodiscard]] auto operator()(F&& call) const {
        detail::check_callable<F>();
        if (pipeline_ == nullptr) [[unlikely]] detail::fail("a call of an any_pipeline that is empty");
        return stored_call<detail::kept_call<F>>(*pipeline_, detail::kept_call<F>(std::forward<F>(call)));
    }
    template <class F>
        requires(!detail::makes_awaitable<std::decay_t<F>>)
    void operator()(F&&) const {
        detail::refuse_call<F>();
    }

private:
    template <class F>
    class stored_call : public detail::operation_base<stored_call<F>> {
    public:
        using value_type = T;
        static constexpr bool needs_executor = true;

        stored_call(const detail::erased_pipeline<T>& p, F&& f) : pipeline_(&p), f_(std::move(f)) {}

        class state {
        public:
            explicit state(stored_call&& c)
                : f_(std::move(c.f_)), inner_(c.pipeline_->begin(detail::erased_call<T>(f_))) {}
            state(const state&) = delete;
            state& operator=(const state&) = delete;
            ~state() { inner_->destroy(); }

            bool ready() noexcept { return inner_->ready(); }
            std::coroutine_handle<> start(receiver_ref r) noexcept { return inner_->start(r); }
            outcome<T> take() noexcept { return inner_->take(); }

        private:
            F f_;
            detail::erased_operation<T>* inner_;
        };

    private:
        const detail::erased_pipeline<T>* pipeline_;
        F f_;
    };

    std::shared_ptr<const detail::erased_pipeline<T>> pipeline_;
};

}  // namespace cordon::inline CORDON_ABI
