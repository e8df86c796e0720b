// SPDX-License-Identifier: MIT
#pragma once

// What a call behind a cache consists of. Included by <cordon/policy/cache.hpp>.

#include <cordon/core/detail/call_operation.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/judged_call.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/verdict.hpp>
#include <cordon/policy/cache.hpp>

#include <coroutine>
#include <optional>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

template <class Cache, class Key, operation O, class Judge>
class cached_operation : public operation_base<cached_operation<Cache, Key, O, Judge>> {
    using T = typename O::value_type;

public:
    using value_type = T;
    static constexpr bool needs_executor = O::needs_executor;

    cached_operation(Cache& c, const Key& key, O&& op, const Judge& judge)
        : cache_(&c), key_(key), op_(std::move(op)), judge_(judge) {}

    class state : public policy_state<O> {
    public:
        explicit state(cached_operation&& o)
            : policy_state<O>(std::move(o.op_), &state::ended), cache_(o.cache_), key_(std::move(o.key_)),
              judge_(o.judge_) {}
        ~state() {
            if (ticket_.refreshes) [[unlikely]] cache_->not_refreshed(key_, ticket_);
        }

        bool ready() noexcept {
            if (ends_with(outcome_of([&] { return cache_->look_up(key_, ticket_); }))) return true;
            if (!this->call_.ready()) return false;
            settle();
            return true;
        }
        std::coroutine_handle<> start(receiver_ref r) noexcept {
            this->enter(r);
            return this->call_.start(this->here());
        }

    private:
        /// Returns:       whether there is a value, or why there is none
        bool ends_with(outcome<std::optional<T>>&& found) noexcept {
            if (!found.has_value()) this->call_.end_with(as_failure<T>(found));
            else if (found->has_value()) this->call_.end_with(outcome<T>(std::in_place, **std::move(found)));
            else return false;
            return true;
        }
        void settle() noexcept {
            const verdict v = this->call_.judged_by(judge_);
            const outcome<T>* const failed = this->call_.failure();
            if (v == verdict::success) {
                const auto kept = outcome_of([&] {
                    cache_->store(key_, T(*this->call_.value()), ticket_.number);
                    return true;
                });
                if (kept.has_value()) ticket_.refreshes = false;  // one that cannot be kept is the result all the same
            } else if (v == verdict::failure ||
                       (failed != nullptr && failed->is_rejected() && !Judge::judges_rejections)) {
                ends_with(outcome_of([&] { return cache_->value_instead(key_, ticket_); }));
                ticket_.refreshes = false;
            }
        }
        static std::coroutine_handle<> ended(receiver& self, promise_base* child, bool stopped) noexcept {
            auto& s = static_cast<state&>(self);
            if (stopped) [[unlikely]] {
                discard(child);
                return s.up.stop();
            }
            s.settle();
            return s.up.complete();
        }

        Cache* cache_;
        Key key_;
        [[no_unique_address]] Judge judge_;
        typename Cache::ticket ticket_;
    };

private:
    Cache* cache_;
    Key key_;
    O op_;
    [[no_unique_address]] Judge judge_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
