// SPDX-License-Identifier: MIT
#pragma once

// An operation, and what it runs with: `with(op, within(2s), stop_on(token), request_id("r-42"))`.

#include <cordon/core/awaitable.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/detail/attributes.hpp>

#include <chrono>
#include <concepts>
#include <coroutine>
#include <optional>
#include <source_location>
#include <string_view>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// A small description, whose `layer` is what it does around an operation: `enter` gives the context for what is
/// inside, and `leave` undoes it, after that has ended and before anybody is told.
template <class A>
concept attribute = requires(typename std::remove_cvref_t<A>::layer& l, const context& outer, task_record* record) {
    { l.enter(outer, record) } noexcept -> std::same_as<const context&>;
    { l.leave() } noexcept;
};

template <class A>
inline constexpr bool attribute_needs_executor = requires { requires A::needs_executor; };

template <operation O, attribute A>
class with_operation : public operation_base<with_operation<O, A>> {
public:
    using value_type = typename O::value_type;
    static constexpr bool needs_executor = O::needs_executor || attribute_needs_executor<A>;
    static constexpr bool borrows = borrowing<O>;

    with_operation(O&& description, A&& attribute)
        : op_(std::move(description)), attribute_(std::move(attribute)) {}

    class state : private receiver {
        using layer = typename A::layer;
        static constexpr bool can_time_out = requires(layer& l) { l.timed_out(); };

    public:
        explicit state(with_operation&& w)
            : receiver(nullptr, nullptr, {}, &state::ended), layer_(std::move(w.attribute_)), inner_(std::move(w.op_)) {}

        bool ready() noexcept {
            if constexpr (can_time_out)
                if (layer_.too_late()) [[unlikely]] return false;
            return inner_.ready();
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            record = r.record();
            up = r;
            if constexpr (can_time_out)
                if (layer_.too_late()) [[unlikely]] return refuse_to_start();
            ctx = &layer_.enter(r.ctx(), record);
            return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<value_type> take() noexcept {
            if constexpr (can_time_out)
                if (timed_out_) [[unlikely]] return outcome<value_type>(layer_.error());
            return inner_.take();
        }
        value_type get()
            requires requires(typename O::state& s) { s.get(); }
        {
            if constexpr (can_time_out)
                if (timed_out_) [[unlikely]] return throw_timeout();
            return inner_.get();
        }

        [[nodiscard]] bool has_value() const noexcept
            requires shows_value<typename O::state>
        {
            return !timed_out_ && inner_.has_value();
        }
        [[nodiscard]] const auto& peek() const noexcept
            requires shows_value<typename O::state>
        {
            return inner_.peek();
        }

    private:
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] return s.ended_stopped(child);
            s.layer_.leave();
            return s.up.complete();
        }
        /// Too late before it has begun; a stop of the context around comes first all the same.
        CORDON_NOINLINE std::coroutine_handle<> refuse_to_start() noexcept {
            if (up.ctx().stop_requested()) return up.stop_later();
            timed_out_ = true;
            return up.complete();
        }
        CORDON_NOINLINE std::coroutine_handle<> ended_stopped(promise_base* child) noexcept {
            discard(child);
            layer_.leave();
            if constexpr (can_time_out) {
                timed_out_ = layer_.timed_out();
                if (timed_out_) return up.complete();
            }
            return up.stop();
        }

        CORDON_NOINLINE value_type throw_timeout() { return take().value(); }

        layer layer_;
        typename O::state inner_;
        bool timed_out_ = false;
    };

private:
    O op_;
    A attribute_;
};

template <operation O>
O with_layers(O&& op) {
    return std::move(op);
}
template <operation O, class Outermost, class... Inner>
auto with_layers(O&& op, Outermost&& outermost, Inner&&... inner) {
    auto below = with_layers(std::move(op), std::forward<Inner>(inner)...);
    using plain = std::remove_cvref_t<Outermost>;
    if constexpr (std::is_same_v<plain, context>) return in_context(std::move(below), outermost);
    else return with_operation<decltype(below), plain>(std::move(below), plain(std::forward<Outermost>(outermost)));
}

}  // namespace detail

/// A value for a key: what `key(args...)` makes.
template <class T>
class bound_value {
public:
    template <class... Args>
    bound_value(const context_key<T>& key, std::in_place_t, Args&&... args)
        : key_(&key), value_(std::in_place, std::forward<Args>(args)...) {}
    explicit bound_value(const context_key<T>& key) : key_(&key) {}

    class layer {
    public:
        explicit layer(bound_value&& v) : value_(std::move(v)) {}
        const context& enter(const context& outer, detail::task_record*) noexcept {
            binding_ = {value_.key_, value_.value_ ? &*value_.value_ : nullptr, nullptr};
            ctx_ = detail::context_access::with_value(outer, binding_);
            return ctx_;
        }
        void leave() noexcept {}

    private:
        bound_value value_;
        detail::value_binding binding_{};
        context ctx_;
    };

private:
    const context_key<T>* key_;
    std::optional<T> value_;
};

/// Within `d` from when the operation starts; with zero or less it is not started at all, `duration::max()` never
/// passes. A passed deadline is a `timeout_error` of this `with`.
template <class Rep, class Period>
[[nodiscard]] detail::deadline_attribute within(std::chrono::duration<Rep, Period> d,
                                            std::source_location where = std::source_location::current()) noexcept {
    return detail::deadline_attribute(detail::saturated(d), where);
}
/// As `within`, until an absolute time.
[[nodiscard]] inline detail::deadline_attribute until(deadline d,
                                                  std::source_location where = std::source_location::current()) noexcept {
    return detail::deadline_attribute(d, where);
}
/// Stopped by `token` as well, whose source outlives the operation.
[[nodiscard]] inline detail::token_attribute stop_on(inplace_stop_token token) noexcept {
    return detail::token_attribute(token);
}
#if defined(__cpp_lib_jthread)
[[nodiscard]] inline detail::std_token_attribute stop_on(std::stop_token token) noexcept {
    return detail::std_token_attribute(std::move(token));
}
#endif
/// Names the task in dumps. The text is copied at once, as much of it as dumps show.
[[nodiscard]] inline detail::name_attribute named(std::string_view name) noexcept { return detail::name_attribute(name); }

namespace detail {
template <class A>
concept with_attribute = attribute<A> || std::is_same_v<std::remove_cvref_t<A>, context>;
}  // namespace detail

/// Runs `a` with more than is in effect around it: `within`, `until`, `stop_on`, a key's value, `named`, or a whole
/// context instead of the present one. A later attribute is further in.
/// Errors:        `timeout_error` if a deadline that was set here ended it; else what `a` gives
/// Cancellation:  `a` is stopped when the context around is stopped; a timed-out operation is stopped and waited for.
///                One that has a value when it ends keeps it, whatever has passed by then
/// Order:         with a deadline in effect already, the earlier one counts
/// Cost:          no frame, no allocation; an `a` that ends without suspending arms no timer and links no stop
template <awaitable A, detail::with_attribute... Attributes>
[[nodiscard]] auto with(A&& a, Attributes&&... attributes) {
    return detail::with_layers(detail::operation_of(std::forward<A>(a)), std::forward<Attributes>(attributes)...);
}
template <detail::named_operation A, detail::with_attribute... Attributes>
void with(A&&, Attributes&&...) {
    detail::refuse_named<A>();
}

/// `with(a, within(d))`.
template <class Rep, class Period, awaitable A>
[[nodiscard]] auto with_timeout(std::chrono::duration<Rep, Period> d, A&& a,
                                std::source_location where = std::source_location::current()) {
    return with(std::forward<A>(a), within(d, where));
}
template <class Rep, class Period, detail::named_operation A>
void with_timeout(std::chrono::duration<Rep, Period>, A&&) {
    detail::refuse_named<A>();
}

}  // namespace cordon::inline CORDON_ABI
