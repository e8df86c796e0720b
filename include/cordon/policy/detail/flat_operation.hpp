// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/awaitable.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>

#include <coroutine>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An operation that gives an `outcome<T>`, as one that gives a T: a policy which is a coroutine need not throw then.
template <operation O>
class flat_operation : public operation_base<flat_operation<O>> {
public:
    using value_type = typename O::value_type::value_type;
    static constexpr bool needs_executor = O::needs_executor;

    explicit flat_operation(O&& op) noexcept : op_(std::move(op)) {}
    class state {
    public:
        explicit state(flat_operation&& f) : inner_(std::move(f.op_)) {}
        state(const state&) = delete;
        state& operator=(const state&) = delete;

        bool ready() noexcept { return inner_.ready(); }
        std::coroutine_handle<> start(receiver_ref r) noexcept { return inner_.start(r); }
        outcome<value_type> take() noexcept {
            auto got = inner_.take();
            if (!got.has_value()) [[unlikely]] return as_failure<value_type>(got);
            return *std::move(got);
        }

    private:
        typename O::state inner_;
    };

private:
    O op_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
