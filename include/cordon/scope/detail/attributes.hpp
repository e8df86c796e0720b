// SPDX-License-Identifier: MIT
#pragma once

// What `within`, `until`, `stop_on` and `named` make, and what each does around an operation.

#include <cordon/core/clock.hpp>
#include <cordon/core/context.hpp>
#include <cordon/core/deadline.hpp>
#include <cordon/core/detail/config.hpp>
#include <cordon/core/detail/scope.hpp>
#include <cordon/core/detail/tick_clock.hpp>
#include <cordon/core/error.hpp>
#include <cordon/core/std_stop_token.hpp>
#include <cordon/core/stop_token.hpp>
#include <cordon/core/task_record.hpp>
#include <cordon/scope/overdue.hpp>

#include <exception>
#include <memory>
#include <optional>
#include <source_location>
#include <string_view>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

class deadline_attribute {
public:
    static constexpr bool needs_executor = true;

    deadline_attribute(clock::duration d, const std::source_location& where) noexcept
        : nanoseconds_(d), where_(where), is_absolute_(false) {}
    deadline_attribute(cordon::deadline d, const std::source_location& where) noexcept
        : nanoseconds_(d.time().time_since_epoch()), where_(where), is_absolute_(true) {}

    /// Member by member, so that a compiler keeps in registers what was written just before: a copy as a block has to
    /// wait for the memory.
    deadline_attribute(const deadline_attribute& other) noexcept
        : nanoseconds_(other.nanoseconds_), where_(other.where_), is_absolute_(other.is_absolute_) {}
    deadline_attribute& operator=(const deadline_attribute&) = default;

    class layer;

private:
    [[nodiscard]] cordon::deadline absolute() const noexcept {
        return cordon::deadline::at(clock::time_point(nanoseconds_));
    }

    clock::duration nanoseconds_;  ///< from the start, or an absolute time
    std::source_location where_;
    bool is_absolute_;
};

class deadline_attribute::layer {
public:
    explicit layer(deadline_attribute&& a) noexcept : attribute_(a) {}
    const context& enter(const context& outer, task_record* record) noexcept {
        const cordon::deadline own = attribute_.is_absolute_
                                         ? attribute_.absolute()
                                         : cordon::deadline::after(attribute_.nanoseconds_, quick_now());
        scope_.open(outer, own, record, attribute_.where_);
        return *std::construct_at(&ctx_, context_access::with_scope(outer, scope_,
                                                                    own < outer.deadline() ? own : outer.deadline()));
    }
    void leave() noexcept { scope_.disarm(); }
    /// Asked before the start: whether it has passed already.
    [[nodiscard]] bool too_late() const noexcept {
        return attribute_.is_absolute_ ? attribute_.absolute().expired()
                                       : attribute_.nanoseconds_ <= clock::duration::zero();
    }
    [[nodiscard]] bool timed_out() const noexcept { return scope_.expired(); }
    /// Returns:       a timeout_error, or what kept it from being made: no memory for its text
    [[nodiscard]] CORDON_NOINLINE std::exception_ptr error() const noexcept {
#if defined(__cpp_exceptions)
        try {
            return std::make_exception_ptr(timeout_error(attribute_.where_));
        } catch (...) {
            return std::current_exception();
        }
#else
        return std::make_exception_ptr(timeout_error(attribute_.where_));
#endif
    }

private:
    deadline_attribute attribute_;
    watched_deadline_scope scope_;
    union {
        context ctx_;  ///< made by enter
    };
};

/// A scope that is also stopped by a token of somebody else's.
class token_scope final : public scope {
public:
    token_scope(scope* parent, inplace_stop_token token) noexcept : scope(parent), token_(token) {}
    ~token_scope() { disarm(); }
    void disarm() noexcept {
        if (!armed()) return;
        second_.detach();
        unlink_from_parent();
    }

private:
    void on_arm() noexcept override {
        link_to_parent();
        second_.attach(token_, source());
    }
    [[nodiscard]] bool stops_when_armed() const noexcept override {
        return token_.stop_requested() || scope::stops_when_armed();
    }
    inplace_stop_token token_;
    stop_link second_;
};

class token_attribute {
public:
    explicit token_attribute(inplace_stop_token token) noexcept : token_(token) {}

    class layer {
    public:
        explicit layer(token_attribute&& a) noexcept : token_(a.token_) {}
        const context& enter(const context& outer, task_record*) noexcept {
            scope_.emplace(context_access::scope_of(outer), token_);
            ctx_ = context_access::with_scope(outer, *scope_);
            return ctx_;
        }
        void leave() noexcept { scope_->disarm(); }

    private:
        inplace_stop_token token_;
        std::optional<token_scope> scope_;
        context ctx_;
    };

private:
    inplace_stop_token token_;
};

#if defined(__cpp_lib_jthread)
/// A scope that is also stopped by a `std::stop_token`: at once, since nobody can poll that through its parents.
class std_token_scope final : public scope {
public:
    std_token_scope(scope* parent, const std::stop_token& token) noexcept : scope(parent) {
        arm();
        bridge_.emplace(token, source());
    }
    ~std_token_scope() {
        bridge_.reset();
        unlink_from_parent();
    }

private:
    std::optional<std_stop_parent> bridge_;
};

class std_token_attribute {
public:
    explicit std_token_attribute(std::stop_token token) noexcept : token_(std::move(token)) {}

    class layer {
    public:
        explicit layer(std_token_attribute&& a) noexcept : token_(std::move(a.token_)) {}
        const context& enter(const context& outer, task_record*) noexcept {
            scope_.emplace(context_access::scope_of(outer), token_);
            ctx_ = context_access::with_scope(outer, *scope_);
            return ctx_;
        }
        void leave() noexcept { scope_.reset(); }

    private:
        std::stop_token token_;
        std::optional<std_token_scope> scope_;
        context ctx_;
    };

private:
    std::stop_token token_;
};
#endif

/// Gives its record another name while the operation runs; the name stays afterwards. It has a copy of as much as a
/// record keeps, and of the byte behind that, by which the record sees where it may cut: the text may be gone when an
/// operation that was spawned starts.
class name_attribute {
public:
    using layer = name_attribute;
    explicit name_attribute(std::string_view name) noexcept
        : size_(static_cast<unsigned char>(name.copy(text_, sizeof text_))) {}
    const context& enter(const context& outer, task_record* record) noexcept {
        if (record != nullptr) record->rename(std::string_view(text_, size_));
        return outer;
    }
    void leave() noexcept {}

private:
    char text_[slab_text::capacity + 1];  ///< written up to size_
    unsigned char size_;
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI
