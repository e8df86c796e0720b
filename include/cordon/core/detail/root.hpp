// SPDX-License-Identifier: MIT
#pragma once

#include <cordon/core/context.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/current_executor.hpp>
#include <cordon/core/operation.hpp>
#include <cordon/core/outcome.hpp>
#include <cordon/core/task_record.hpp>

#include <coroutine>
#include <source_location>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// An operation that nobody awaits, run under a context of its own. `Done` is called on the executor when it has ended.
template <operation O>
class root : private receiver, protected work_item {
public:
    root(O&& op, const context& c) noexcept
        : receiver(&c, nullptr, {}, &root::ended), work_item(&root::begin), state_(std::move(op)) {}
    /// Before the start, and after all that can throw.
    void open_record(std::string_view name, const std::source_location& where) noexcept {
        record = task_record::open(false, name, where, nullptr, coarse_now_ms());
    }
    void start() noexcept { submit(*ctx, *this); }
    /// Requires: it has ended.
    outcome<typename O::value_type> take() noexcept {
        return stopped_ ? outcome<typename O::value_type>::stopped() : state_.take();
    }

protected:
    ~root() {
        if (record != nullptr) record->close();
    }
    virtual void on_ended() noexcept = 0;

private:
    static void begin(work_item& item) noexcept {
        auto& self = static_cast<root&>(item);
        if (self.state_.ready()) return self.on_ended();
        resume(self.state_.start(receiver_ref(static_cast<receiver&>(self))));
    }
    static std::coroutine_handle<> ended(receiver& r, promise_base* child, bool stopped) noexcept {
        auto& self = static_cast<root&>(r);
        if (stopped) discard(child);
        self.stopped_ = stopped;
        self.on_ended();
        return std::noop_coroutine();
    }

    typename O::state state_;
    bool stopped_ = false;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
