// SPDX-License-Identifier: MIT
#pragma once

// The edge between cordon's stop tokens and std::stop_token: a host's std::jthread stops what runs here, and what is
// stopped here wakes a std::condition_variable_any there. No thread, and no allocation but that of a std::stop_source.
// Empty where the standard library has no std::stop_token.

#include <cordon/core/detail/config.hpp>
#include <cordon/core/stop_token.hpp>

#include <version>

#if defined(__cpp_lib_jthread)

#include <source_location>
#include <stop_token>
#include <utility>

namespace cordon::inline CORDON_ABI {
namespace detail {

/// Makes a std::stop_token a parent of a source: its stop stops the source, with kind requested, as long as this lives.
/// If it has been asked already, the source is stopped in the constructor.
/// Threads:       the destructor waits while the source's callbacks are running elsewhere by the token's stop; inside
///                one of them it returns at once
/// Lifetime:      dies before the source
class std_stop_parent {
public:
    /// `where` becomes the reason's, since a std::stop_token does not tell where it was asked.
    std_stop_parent(const std::stop_token& parent, inplace_stop_source& child, std::source_location where = {}) noexcept
        : callback_(parent, passes_on{&child, where}) {}

private:
    struct passes_on {
        inplace_stop_source* child;
        std::source_location where;
        void operator()() const noexcept { child->request_stop({stop_kind::requested, 0, where}); }
    };
    std::stop_callback<passes_on> callback_;
};

/// Shows a stop token as a std::stop_token: when the one is stopped, the other is.
/// Lifetime:      dies before the source of the token; the std::stop_tokens may live on, and are never asked again
class std_stop_child : private stop_node {
public:
    explicit std_stop_child(inplace_stop_token parent) noexcept : stop_node(&stop), parent_(parent) {}
    ~std_stop_child() { detach(); }

    /// Returns:       always a token of the same std::stop_source; an empty one if the parent never stops
    /// Threads:       one call at a time
    /// Cost:          the first call allocates the std::stop_source and registers with the parent
    [[nodiscard]] std::stop_token get_token() {
        if (!parent_.stop_possible()) return {};
        if (!source_.stop_possible()) {
            source_ = std::stop_source();
            if (!attach(parent_)) source_.request_stop();
        }
        return source_.get_token();
    }

private:
    static void stop(stop_node& self) noexcept {
        std::stop_source source = static_cast<std_stop_child&>(self).source_;  // a callback may destroy `self`
        source.request_stop();
    }

    inplace_stop_token parent_;
    std::stop_source source_{std::nostopstate};
};

}  // namespace detail
}  // namespace cordon::inline CORDON_ABI

#endif
