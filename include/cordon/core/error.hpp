// SPDX-License-Identifier: MIT
#pragma once

// How an operation can fail to give a value, beside an exception of the user's own: it was stopped (`canceled` where
// only an exception can say so), a deadline set by `with_timeout` passed (`timeout_error`), or somebody refused it
// (`rejection`, an ordinary small value; `rejected` where it has to be thrown).

#include <cordon/core/detail/config.hpp>
#include <cordon/core/stop_token.hpp>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <exception>
#include <source_location>
#include <string>
#include <string_view>
#include <system_error>

namespace cordon::inline CORDON_ABI {

/// Thrown into a coroutine that has no other way to be stopped, and by `sync_wait` of a stopped operation.
/// Deliberately not a `std::exception`: a handler for errors should not swallow a stop.
class canceled {
public:
    canceled() = default;
    explicit canceled(const stop_reason& why) noexcept : reason_(why) {}
    [[nodiscard]] const stop_reason& reason() const noexcept { return reason_; }
    [[nodiscard]] const char* what() const noexcept { return "the operation was stopped"; }

private:
    stop_reason reason_;
};

/// A deadline passed before the operation ended. Compares equal to `std::errc::timed_out`; `what()` says where the
/// deadline was set.
class timeout_error : public std::system_error {
public:
    explicit timeout_error(const std::source_location& where)
        : std::system_error(std::make_error_code(std::errc::timed_out), text(where)), where_(where) {}

    /// Where the deadline that passed was set.
    [[nodiscard]] const std::source_location& where() const noexcept { return where_; }

private:
    static std::string text(const std::source_location& where) {
        return "the deadline set at " + std::string(where.file_name()) + ':' + std::to_string(where.line()) + " passed";
    }
    std::source_location where_;
};

/// Why somebody refused.
enum class reject_reason : std::uint8_t {
    rate_limited,  ///< a rate limit: not now
    too_large,     ///< can never be granted, however long one waits
    circuit_open,  ///< by a circuit breaker
    full,          ///< no room: concurrency or queue bound
    draining,      ///< is shutting down
    closed,        ///< has ended: a closed channel, group or pool
};

[[nodiscard]] constexpr const char* to_string(reject_reason reason) noexcept {
    switch (reason) {
        case reject_reason::rate_limited: return "rate limited";
        case reject_reason::too_large: return "too large";
        case reject_reason::circuit_open: return "circuit open";
        case reject_reason::full: return "full";
        case reject_reason::draining: return "draining";
        case reject_reason::closed: return "closed";
    }
    return "unknown";
}

/// A refusal: an ordinary answer, cheap to make and to pass on. Trivially copyable; the name is kept inside, cut to
/// 22 bytes, so that it outlives whoever refused.
class rejection {
public:
    rejection() = default;
    explicit rejection(reject_reason why, std::string_view who = {},
                       std::chrono::nanoseconds wait = std::chrono::nanoseconds::zero()) noexcept
        : retry_after(wait), reason(why) {
        const std::size_t length = who.size() < sizeof name_ - 1 ? who.size() : sizeof name_ - 1;
        if (length != 0) std::memcpy(name_, who.data(), length);
    }

    /// How long to wait before it is worth asking again; zero: now, or not known.
    std::chrono::nanoseconds retry_after{0};
    reject_reason reason = reject_reason::full;

    /// The name of who refused; empty if it has none.
    [[nodiscard]] std::string_view who() const noexcept { return name_; }

private:
    char name_[23] = {};
};
static_assert(sizeof(rejection) == 32);

/// A rejection that had to be thrown: at the outermost edge, where no outcome can carry it.
class rejected : public std::exception {
public:
    explicit rejected(const cordon::rejection& why) : rejection_(why) {
        if (!why.who().empty()) text_.append(why.who()).append(": ");
        text_.append("rejected, ").append(to_string(why.reason));
    }
    [[nodiscard]] const cordon::rejection& rejection() const noexcept { return rejection_; }
    [[nodiscard]] const char* what() const noexcept override { return text_.c_str(); }

private:
    cordon::rejection rejection_;
    std::string text_;
};

}  // namespace cordon::inline CORDON_ABI
