// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <coroutine>
#include <type_traits>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An operation that gives an `outcome<T>`, as one that gives a T: a policy which is a coroutine need not throw then.
/// An outcome that is a stop is one, and not the exception `canceled`, which a `catch (...)` could keep.
template <operation O>
    requires(!std::is_void_v<typename O::value_type>) && shows_value<typename O::state>
class flat_operation : public operation_base<flat_operation<O>> {
public:
    using value_type = typename O::value_type::value_type;
    static constexpr bool needs_executor = O::needs_executor;

    explicit flat_operation(O&& op) noexcept : op_(std::move(op)) {}
    class state : private receiver {
    public:
        explicit state(flat_operation&& f) : receiver(&state::ended), inner_(std::move(f.op_)) {}

        bool ready() noexcept { return inner_.ready() && !(is_stop_ = shows_stop()); }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            if (is_stop_) return r.stop_later();
            ctx = &r.ctx();
            record = r.record();
            up = r;
            return inner_.start(receiver_ref(static_cast<receiver&>(*this)));
        }
        outcome<value_type> take() noexcept {
            auto got = inner_.take();
            if (!got.has_value()) [[unlikely]] return as_failure<value_type>(got);
            return *std::move(got);
        }

    private:
        [[nodiscard]] bool shows_stop() const noexcept { return inner_.has_value() && inner_.peek().is_stopped(); }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] {
                discard(child);
                return s.up.stop();
            }
            return s.shows_stop() ? s.up.stop_later() : s.up.complete();
        }

        typename O::state inner_;
        bool is_stop_ = false;
    };

private:
    O op_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
